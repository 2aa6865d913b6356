/**
 * Lays out a session over time: positions only, no DOM.
 *
 * Time runs to the right. Long silences are shortened, so that even a session of several days shows seconds.
 * There is a row for people, one for each agent, and one for money.
 */

import { serverNow } from "./clock.js";
import { duration, isolate, nameOf } from "./dom.js";
import { parentOf } from "./model.js";
import { isOf } from "./transcript.js";

/**
 * @typedef {import("./transcript.js").SessionEvent} SessionEvent
 * @typedef {import("./model.js").Turn} Turn
 * @typedef {{ turns: Map<string, Turn>, log: SessionEvent[] }} Model
 * @typedef {{ row: number, from: number, to: number, kind: string, state: string, seq: number, label: string, took: string }} Bar
 * @typedef {{ row: number, at: number, kind: string, seq: number, label: string }} Mark
 * @typedef {{ began: string, ended: string | null, row: number, kind: string, state: string, seq: number, label: string }} Span
 */

const LONGEST_SILENCE_MS = 8_000;
const MIN_BAR_MS = 250;
const ENDS = new Set(["completed", "stopped", "failed"]);
/** What is between two marks of the axis. */
const STEPS_SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400];

/**
 * Returns positions in milliseconds of drawn time from the beginning.
 * @param {Model} model
 */
export function layout(model, now = serverNow()) {
  const turns = [...model.turns.values()].filter((turn) => turn.began);
  const scale = new Scale([
    ...model.log.map((event) => event.time),
    ...turns.flatMap((turn) => [turn.began ?? iso(now), turn.ended ?? iso(now)]),
  ]);
  const log = [...model.log].sort((a, b) => a.seq - b.seq);
  const rows = new Rows();
  rows.of("people", "People");
  const drawing = { model, log, rows, scale, now };
  const bars = [...turnBars(turns, drawing), ...waits(drawing), ...tools(drawing), ...approvals(drawing), ...takeovers(drawing)];
  const marks = log.flatMap((event) => mark(event, drawing));
  return { rows: rows.list, bars, marks, cuts: scale.cuts, length: scale.length, scale };
}

/** @typedef {{ model: Model, log: SessionEvent[], rows: Rows, scale: Scale, now: number }} Drawing */

/** @param {number} milliseconds */
function iso(milliseconds) {
  return new Date(milliseconds).toISOString();
}

/** Converts between real time and drawn time, in which long silences are shortened. */
class Scale {
  /** @param {string[]} times */
  constructor(times) {
    this.real = [...new Set(times.map((time) => new Date(time).getTime()))].sort((a, b) => a - b);
    /** @type {number[]} */
    this.drawn = [];
    /** @type {{ at: number, milliseconds: number }[]} */
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

  /** @param {string} time */
  at(time) {
    return between(new Date(time).getTime(), this.real, this.drawn);
  }

  /**
   * The real time of a place, in milliseconds since 1970.
   * @param {number} drawn
   */
  timeAt(drawn) {
    return between(drawn, this.drawn, this.real);
  }

  /**
   * Round times between two places, at least so far apart; none in a silence that is shortened.
   * @param {number} from
   * @param {number} to
   * @param {number} apart
   * @returns {{ at: number, time: number }[]}
   */
  ticks(from, to, apart) {
    const step = (STEPS_SECONDS.find((seconds) => seconds * 1_000 >= apart) ?? 86_400) * 1_000;
    const ticks = [];
    let last = -Infinity;
    for (let index = before(from, this.drawn); index + 1 < this.drawn.length && this.drawn[index] <= to; index += 1) {
      if (this.real[index + 1] - this.real[index] > LONGEST_SILENCE_MS) continue;
      // From midnight where the reader is, so that a day's marks are at its hours.
      const shift = new Date(this.real[index]).getTimezoneOffset() * 60_000;
      for (let time = Math.ceil((this.real[index] - shift) / step) * step + shift; time < this.real[index + 1]; time += step) {
        const at = this.drawn[index] + time - this.real[index];
        if (at < from || at > to || at - last < apart) continue;
        last = at;
        ticks.push({ at, time });
      }
    }
    return ticks;
  }
}

/**
 * The last place in a sorted list that is not after a value.
 * @param {number} value
 * @param {number[]} list
 */
function before(value, list) {
  let low = 0;
  for (let high = list.length - 1; low < high; ) {
    const middle = (low + high + 1) >> 1;
    if (list[middle] <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * Where a value is in one list, in proportion in the other.
 * @param {number} value
 * @param {number[]} from
 * @param {number[]} to
 */
function between(value, from, to) {
  if (!from.length) return 0;
  const low = before(value, from);
  if (low + 1 >= from.length || value <= from[low]) return to[low];
  return to[low] + ((value - from[low]) / (from[low + 1] - from[low])) * (to[low + 1] - to[low]);
}

class Rows {
  constructor() {
    /** @type {{ key: string, label: string }[]} */
    this.list = [];
    /** @type {Map<string, number>} */
    this.known = new Map();
  }

  /**
   * @param {string} key
   * @param {string} label
   */
  of(key, label) {
    const known = this.known.get(key);
    if (known !== undefined) return known;
    this.known.set(key, this.list.length);
    this.list.push({ key, label });
    return this.list.length - 1;
  }
}

/**
 * @param {Span} span
 * @param {Drawing} drawing
 * @returns {Bar}
 */
function bar({ began, ended, label, ...rest }, { scale, now }) {
  const from = scale.at(began);
  const until = ended ?? iso(now);
  const took = duration(Math.max(0, new Date(until).getTime() - new Date(began).getTime()));
  return { ...rest, from, to: Math.max(scale.at(until), from + MIN_BAR_MS), label: `${label}, ${took}${ended ? "" : " so far"}`, took };
}

/**
 * @param {Turn[]} turns
 * @param {Drawing} drawing
 */
function turnBars(turns, drawing) {
  /** @type {Map<string, number[]>} */
  const busy = new Map();
  return turns.sort((a, b) => (a.beganSeq ?? 0) - (b.beganSeq ?? 0)).map((turn) => {
    const agent = turn.agent ?? "agent";
    const state = turn.ended && ENDS.has(turn.status) ? turn.status : turn.ended ? "completed" : "running";
    const made = bar({ began: turn.began ?? "", ended: turn.ended ?? null, row: 0, kind: "turn", state, seq: turn.beganSeq ?? 0, label: `Turn ${turn.id} of ${isolate(agent)}: ${state}` }, drawing);
    // Agents with the same name that run at the same time get a row each.
    const name = parentOf(turn.id) ? `sub:${agent}` : agent;
    const slots = busy.get(name) ?? [];
    busy.set(name, slots);
    const free = slots.findIndex((end) => end <= made.from);
    const slot = free < 0 ? slots.length : free;
    slots[slot] = made.to;
    const row = drawing.rows.of(`${name}:${slot}`, slot ? `${isolate(agent)} ${slot + 1}` : agent);
    drawing.rows.known.set(`turn:${turn.id}`, row);
    return { ...made, row };
  });
}

/**
 * Spans of events that begin and end something, by what they are about.
 * @param {Drawing} drawing
 * @param {(event: SessionEvent) => string | null | undefined} keyOf
 * @param {(event: SessionEvent) => Omit<Span, "began" | "ended" | "seq"> | null} begins
 * @param {(event: SessionEvent) => { state: string, label?: string } | null} ends
 */
function spans(drawing, keyOf, begins, ends) {
  /** @type {Map<string, Span>} */
  const open = new Map();
  /** @type {Span[]} */
  const found = [];
  for (const event of drawing.log) {
    const key = keyOf(event);
    if (key === undefined || key === null) continue;
    const end = open.has(key) ? ends(event) : null;
    if (end) {
      Object.assign(open.get(key) ?? {}, { ended: event.time, ...end });
      open.delete(key);
    }
    const span = begins(event);
    if (!span) continue;
    const begun = { ...span, began: event.time, ended: null, seq: event.seq };
    open.set(key, begun);
    found.push(begun);
  }
  return found.map((span) => bar(span, drawing));
}

/**
 * Over a turn's bar: while it was parked, no process ran it.
 * @param {Drawing} drawing
 */
function waits(drawing) {
  return spans(drawing, (event) => event.turn_id,
    (event) => (event.type === "turn.waiting" ? { row: agentRow(event, drawing), kind: "waits", state: "waiting", label: `Turn ${event.turn_id} waits for an answer` } : null),
    (event) => (/^turn\.|^agent\.finished/.test(event.type) ? { state: "waiting" } : null));
}

/**
 * Under a turn's bar: what it called. A call that was never reported to end has ended with its turn.
 * @param {Drawing} drawing
 */
function tools(drawing) {
  const calls = spans(drawing, (event) => (isOf(event, "tool") ? `${event.turn_id ?? ""} ${event.data.call_id}` : undefined),
    (event) => (event.type === "tool.called" ? { row: agentRow(event, drawing), kind: "tool", state: "running", label: `${event.data.kind === "step" ? "Step" : "Tool"} ${isolate(String(event.data.name))} of ${event.turn_id ?? nameOf(event.actor)}` } : null),
    (event) => ({ state: isOf(event, "tool") && event.data.error !== undefined && event.data.error !== null ? "failed" : "completed" }));
  return calls;
}

/** @param {Drawing} drawing */
function approvals(drawing) {
  return spans(drawing, (event) => (isOf(event, "approval") ? event.data.purchase_id ?? event.data.payment_id : undefined),
    (event) => (event.type === "approval.requested" ? { row: drawing.rows.of("money", "Money"), kind: "approval", state: "waiting", label: "Approval: waiting" } : null),
    ({ type }) => ({ state: type.split(".")[1], label: `Approval: ${type.split(".")[1]}` }));
}

/** @param {Drawing} drawing */
function takeovers(drawing) {
  return spans(drawing, ({ type }) => (type.startsWith("takeover.") ? "takeover" : undefined),
    (event) => (event.type === "takeover.started" ? { row: drawing.rows.of("people", "People"), kind: "takeover", state: "running", label: `${nameOf(event.actor)} has taken over` } : null),
    () => ({ state: "completed" }));
}

/**
 * @param {SessionEvent} event
 * @param {Drawing} drawing
 */
function agentRow({ turn_id: turnId, actor }, { model, rows }) {
  const known = rows.known.get(`turn:${turnId}`);
  if (known !== undefined) return known;
  const agent = model.turns.get(turnId ?? "")?.agent ?? actor.id;
  return rows.of(`${parentOf(turnId) ? "sub:" : ""}${agent}:0`, agent);
}

const STEPS = new Set(["completed", "delivered", "failed", "refused", "rejected", "payment_declined", "canceled", "expired"]);

/**
 * @param {SessionEvent} event
 * @param {Drawing} drawing
 * @returns {Mark[]}
 */
function mark(event, drawing) {
  const { rows, scale } = drawing;
  const who = nameOf(event.actor);
  /**
   * @param {string} kind
   * @param {number} row
   * @param {string} label
   */
  const one = (kind, row, label) => [{ at: scale.at(event.time), seq: event.seq, kind, row, label }];
  const people = () => rows.of("people", "People");
  /**
   * @param {string} status
   * @param {string} what
   */
  const step = (status, what) => (STEPS.has(status) ? one(["completed", "delivered"].includes(status) ? "paid" : "refused", rows.of("money", "Money"), `${what} ${status.replace("_", " ")}`) : []);
  switch (event.type) {
    case "message.completed":
      if (!["user", "operator"].includes(event.actor.role) || event.data.kind === "steer") return [];
      return one("message", people(), `${who}: ${event.data.text.slice(0, 80)}`);
    case "stop.requested":
      return one("stop", people(), `${who} pressed stop`);
    case "steer.received":
      return one("steer", people(), `${who} steers: ${event.data.text.slice(0, 80)}`);
    case "turn.retried":
      return one("retry", agentRow(event, drawing), `Attempt ${event.data?.attempt} of ${event.turn_id}`);
    case "input.requested":
      return one("input", agentRow(event, drawing), `${who} asks: ${event.data.prompt.slice(0, 80)}`);
    case "input.answered":
      return one("answer", people(), event.data.rule == null ? `${who} answers` : "A rule answers");
    case "purchase.updated":
    case "payment.updated":
      return step(event.data.status ?? "", event.type === "purchase.updated" ? "purchase" : "paid request");
    default:
      return [];
  }
}
