/**
 * Lays out a session over time: positions only, no DOM.
 *
 * Time runs to the right. Long silences are shortened, so that even a session of several days shows seconds.
 * There is a row for people, one for each agent, and one for money.
 */

import { serverNow } from "./clock.js";
import { isolate, nameOf } from "./dom.js";
import { parentOf } from "./model.js";

const LONGEST_SILENCE_MS = 8_000;
const MIN_BAR_MS = 250;
const ENDS = new Set(["completed", "stopped", "failed"]);

/** Returns `{rows, bars, marks, cuts, length}`, with times in milliseconds of drawn time from the beginning. */
export function layout(model, now = serverNow()) {
  const turns = [...model.turns.values()].filter((turn) => turn.began);
  const scale = new Scale([
    ...model.log.map((event) => event.time),
    ...turns.flatMap((turn) => [turn.began, turn.ended ?? iso(now)]),
  ]);
  const rows = new Rows();
  rows.of("people", "People");
  const bars = [...turnBars(turns, rows, scale, now), ...waitBars(model, rows, scale, now), ...approvalBars(model, rows, scale, now), ...takeoverBars(model, rows, scale, now)];
  const marks = model.log.flatMap((event) => mark(event, model, rows, scale));
  return { rows: rows.list, bars, marks, cuts: scale.cuts, length: scale.length };
}

function iso(milliseconds) {
  return new Date(milliseconds).toISOString();
}

/** Converts real time to drawn time, in which long silences are shortened. */
class Scale {
  constructor(times) {
    this.real = [...new Set(times.map((time) => new Date(time).getTime()))].sort((a, b) => a - b);
    this.drawn = [];
    this.cuts = [];
    let at = 0;
    this.real.forEach((time, index) => {
      const gap = index ? time - this.real[index - 1] : 0;
      if (gap > LONGEST_SILENCE_MS) this.cuts.push({ at: at + LONGEST_SILENCE_MS / 2, milliseconds: gap });
      at += Math.min(gap, LONGEST_SILENCE_MS);
      this.drawn.push(at);
    });
    this.length = at;
  }

  at(time) {
    const wanted = new Date(time).getTime();
    let low = 0;
    for (let high = this.real.length - 1; low < high; ) {
      const middle = (low + high + 1) >> 1;
      if (this.real[middle] <= wanted) low = middle;
      else high = middle - 1;
    }
    return this.drawn[low] ?? 0;
  }
}

class Rows {
  constructor() {
    this.list = [];
    this.known = new Map();
  }

  of(key, label) {
    if (!this.known.has(key)) {
      this.known.set(key, this.list.length);
      this.list.push({ key, label });
    }
    return this.known.get(key);
  }
}

function turnBars(turns, rows, scale, now) {
  const busy = new Map();
  return turns.sort((a, b) => a.beganSeq - b.beganSeq).map((turn) => {
    const from = scale.at(turn.began);
    const to = Math.max(scale.at(turn.ended ?? iso(now)), from + MIN_BAR_MS);
    const agent = turn.agent ?? "agent";
    // Agents with the same name that run at the same time get a row each.
    const name = parentOf(turn.id) ? `sub:${agent}` : agent;
    const slots = busy.get(name) ?? busy.set(name, []).get(name);
    const free = slots.findIndex((end) => end <= from);
    const slot = free < 0 ? slots.length : free;
    slots[slot] = to;
    const row = rows.of(`${name}:${slot}`, slot ? `${isolate(agent)} ${slot + 1}` : agent);
    const state = turn.ended && ENDS.has(turn.status) ? turn.status : turn.ended ? "completed" : "running";
    return { row, from, to, kind: "turn", state, seq: turn.beganSeq, label: `Turn ${turn.id} of ${isolate(agent)}: ${state}` };
  });
}

/** Over a turn's bar: while it was parked, no process ran it. */
function waitBars(model, rows, scale, now) {
  const parked = new Map();
  const bars = [];
  for (const event of inOrder(model)) {
    const id = event.turn_id;
    if (event.type === "turn.waiting") {
      parked.set(id, { ...agentRow(event, model, rows), from: scale.at(event.time), to: null, kind: "waits", state: "waiting", seq: event.seq, label: `Turn ${id} waits for an answer` });
      bars.push(parked.get(id));
    } else if (parked.has(id) && /^turn\.|^agent\.finished/.test(event.type)) {
      parked.get(id).to = scale.at(event.time);
      parked.delete(id);
    }
  }
  return bars.map((bar) => ({ ...bar, to: Math.max(bar.to ?? scale.at(iso(now)), bar.from + MIN_BAR_MS) }));
}

function approvalBars(model, rows, scale, now) {
  const asked = new Map();
  const bars = [];
  for (const event of inOrder(model)) {
    const id = event.data?.purchase_id ?? event.data?.payment_id;
    if (event.type === "approval.requested") {
      asked.set(id, { row: rows.of("money", "Money"), from: scale.at(event.time), to: null, kind: "approval", state: "waiting", seq: event.seq });
      bars.push(asked.get(id));
    } else if (event.type.startsWith("approval.") && asked.has(id)) {
      Object.assign(asked.get(id), { to: scale.at(event.time), state: event.type.split(".")[1] });
      asked.delete(id);
    }
  }
  return bars.map((bar) => ({ ...bar, to: Math.max(bar.to ?? scale.at(iso(now)), bar.from + MIN_BAR_MS), label: `Approval: ${bar.state}` }));
}

function takeoverBars(model, rows, scale, now) {
  const bars = [];
  for (const event of inOrder(model)) {
    if (event.type === "takeover.started") {
      bars.push({ row: rows.of("people", "People"), from: scale.at(event.time), to: null, kind: "takeover", state: "running", seq: event.seq, label: `${nameOf(event.actor)} has taken over` });
    } else if (event.type === "takeover.released" && bars.length) Object.assign(bars.at(-1), { to: scale.at(event.time), state: "completed" });
  }
  return bars.map((bar) => ({ ...bar, to: Math.max(bar.to ?? scale.at(iso(now)), bar.from + MIN_BAR_MS) }));
}

function inOrder(model) {
  return [...model.log].sort((a, b) => a.seq - b.seq);
}

function agentRow({ turn_id: turnId, actor }, model, rows) {
  const agent = model.turns.get(turnId)?.agent ?? actor.id;
  return { row: rows.of(`${parentOf(turnId) ? "sub:" : ""}${agent}:0`, agent) };
}

const STEPS = new Set(["completed", "delivered", "failed", "refused", "rejected", "payment_declined", "canceled", "expired"]);

function mark(event, model, rows, scale) {
  const who = nameOf(event.actor);
  const at = { at: scale.at(event.time), seq: event.seq };
  const { data = {} } = event;
  switch (event.type) {
    case "message.completed":
      if (!["user", "operator"].includes(event.actor.role) || data.kind === "steer") return [];
      return [{ ...at, row: rows.of("people", "People"), kind: "message", label: `${who}: ${data.text.slice(0, 80)}` }];
    case "stop.requested":
      return [{ ...at, row: rows.of("people", "People"), kind: "stop", label: `${who} pressed stop` }];
    case "steer.received":
      return [{ ...at, row: rows.of("people", "People"), kind: "steer", label: `${who} steers: ${data.text.slice(0, 80)}` }];
    case "turn.retried":
      return [{ ...at, ...agentRow(event, model, rows), kind: "retry", label: `Attempt ${data.attempt} of ${event.turn_id}` }];
    case "input.requested":
      return [{ ...at, ...agentRow(event, model, rows), kind: "input", label: `${who} asks: ${data.prompt.slice(0, 80)}` }];
    case "input.answered":
      return [{ ...at, row: rows.of("people", "People"), kind: "answer", label: data.rule == null ? `${who} answers` : "A rule answers" }];
    case "purchase.updated":
    case "payment.updated":
      if (!STEPS.has(data.status)) return [];
      return [{ ...at, row: rows.of("money", "Money"), kind: ["completed", "delivered"].includes(data.status) ? "paid" : "refused", label: `${event.type === "purchase.updated" ? "purchase" : "paid request"} ${data.status.replace("_", " ")}` }];
    default:
      return [];
  }
}
