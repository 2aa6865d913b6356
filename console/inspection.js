/**
 * What a session's events say of its turns: a tree of turns, sub-agents, tools, steps and questions, with their times,
 * attempts and what they used. No DOM.
 */

import { parentOf } from "./model.js";
import { isOf } from "./transcript.js";

/**
 * @typedef {import("./transcript.js").SessionEvent} SessionEvent
 * @typedef {{ requests: number, input_tokens: number, cached_input_tokens: number, output_tokens: number, cost_micros: Record<string, number> }} Usage
 * @typedef {{ number: number, began: string, ended: string | null, outcome: string, code: string | null, detail: string | null }} Attempt
 * @typedef {object} Part
 * @property {string} key
 * @property {"turn" | "tool" | "step" | "question"} kind
 * @property {string} name
 * @property {string | null} turnId
 * @property {number} seq Where it begins.
 * @property {string} state
 * @property {string | null} queued
 * @property {string | null} began
 * @property {string | null} ended
 * @property {Part[]} parts
 * @property {SessionEvent[]} events What is recorded of it, and not of its parts.
 * @property {Attempt[]} attempts
 * @property {{ from: string, to: string | null }[]} waits While no process ran it.
 * @property {Usage | null} usage Its own, without that of its sub-agents.
 * @property {[string, unknown][]} payloads
 */

const ENDS = /** @type {Record<string, string>} */ ({ "turn.completed": "completed", "turn.stopped": "stopped", "turn.failed": "failed" });
const COUNTS = /** @type {const} */ (["requests", "input_tokens", "cached_input_tokens", "output_tokens"]);
/** What a turn leaves open when it ends was never reported to have ended. */
const OVER = new Set(["completed", "stopped", "failed"]);

/** @returns {Usage} */
function nothingUsed() {
  return { requests: 0, input_tokens: 0, cached_input_tokens: 0, output_tokens: 0, cost_micros: {} };
}

/**
 * Adds a report to a sum; what is 0 may be missing in it.
 * @param {Usage} sum
 * @param {Partial<Usage>} report
 */
function addUsage(sum, report) {
  for (const name of COUNTS) sum[name] += report[name] ?? 0;
  for (const [currency, micros] of Object.entries(report.cost_micros ?? {})) sum.cost_micros[currency] = (sum.cost_micros[currency] ?? 0) + micros;
}

/**
 * Millionths of a currency's main unit, exactly.
 * @param {number} micros
 * @param {string} currency
 */
function cost(micros, currency) {
  const digits = String(micros).padStart(7, "0");
  const exact = /** @type {`${number}`} */ (`${digits.slice(0, -6)}.${digits.slice(-6)}`);
  return new Intl.NumberFormat(undefined, { style: "currency", currency, maximumFractionDigits: 6 }).format(exact);
}

/**
 * What was used, in words: "2 requests to models, 1,200 tokens in (200 of them cached), 30 out, $0.0015".
 * @param {Usage | null} usage
 */
export function usageWords(usage) {
  if (!usage) return "";
  const count = new Intl.NumberFormat();
  /** @param {number} number */
  const many = (number) => count.format(number);
  const { requests, input_tokens: given, cached_input_tokens: cached, output_tokens: made } = usage;
  return [
    requests && `${many(requests)} request${requests === 1 ? "" : "s"} to models`,
    given && `${many(given)} token${given === 1 ? "" : "s"} in${cached ? ` (${many(cached)} of them cached)` : ""}`,
    made && `${many(made)} out`,
    ...Object.entries(usage.cost_micros).map(([currency, micros]) => cost(micros, currency)),
  ].filter(Boolean).join(", ");
}

/** The parts of a session that is read from its beginning to its end. */
class Reading {
  constructor() {
    /** @type {Map<string, Part>} */
    this.parts = new Map();
    /** @type {Part[]} */
    this.roots = [];
    this.usage = nothingUsed();
    this.reports = 0;
    /** What people have said, until a turn answers it. @type {Map<string, string>} */
    this.said = new Map();
  }

  /**
   * @param {Part["kind"]} kind
   * @param {string} id
   * @param {SessionEvent} event
   * @returns {Part}
   */
  part(kind, id, event) {
    const turnId = event.turn_id ?? null;
    const key = kind === "turn" ? id : `${turnId ?? ""}/${id}`;
    const known = this.parts.get(key);
    if (known) return known;
    /** @type {Part} */
    const part = { key, kind, name: id, turnId, seq: event.seq, state: "running", queued: null, began: kind === "turn" ? null : event.time, ended: null, parts: [], events: [], attempts: [], waits: [], usage: null, payloads: [] };
    this.parts.set(key, part);
    const above = kind === "turn" ? parentOf(id) : turnId;
    const holder = above ? this.part("turn", above, { ...event, turn_id: above }) : null;
    (holder?.parts ?? this.roots).push(part);
    return part;
  }

  /** @param {SessionEvent} event */
  read(event) {
    const { turn_id: turnId, message_id: messageId } = event;
    const turn = turnId ? this.part("turn", turnId, event) : null;
    if (event.type === "message.completed" && messageId && !turnId) this.said.set(messageId, event.data.text);
    if (event.type === "usage.reported") {
      this.reports += 1;
      addUsage(this.usage, event.data);
      if (turn) addUsage((turn.usage ??= nothingUsed()), event.data);
    }
    if (isOf(event, "tool")) return this.#tool(event);
    if (isOf(event, "input")) return this.#question(event);
    turn?.events.push(event);
    if (!turn) return;
    if (isOf(event, "turn")) this.#turn(turn, event);
    else if (event.type === "agent.spawned") {
      Object.assign(turn, { name: event.data.agent, began: event.time });
      turn.payloads.push(["Asked", event.data.text]);
    } else if (event.type === "agent.finished") {
      const { outcome, result } = event.data;
      Object.assign(turn, { state: outcome, ended: event.time });
      this.#endAttempt(turn, event, outcome, event.data);
      if (result !== undefined) turn.payloads.push(["Result", result]);
    } else if (event.type === "stop.requested" && !OVER.has(turn.state)) turn.state = "stopping";
  }

  /**
   * @param {Part} turn
   * @param {import("./transcript.js").EventOfTurn} event
   */
  #turn(turn, event) {
    const { type, time, data = {} } = event;
    const said = this.said.get(data.message_id ?? "");
    if (said !== undefined) {
      turn.payloads.push(["Message", said]);
      this.said.delete(data.message_id ?? "");
    }
    if (type === "turn.queued") {
      Object.assign(turn, { queued: time, state: "queued" });
      return;
    }
    if (type === "turn.started") {
      Object.assign(turn, { began: time, state: "running", name: event.actor.role === "agent" ? event.actor.id : turn.name });
      this.#attempt(turn, data.attempt ?? 1, time);
    } else if (type === "turn.retried") {
      this.#endAttempt(turn, event, "failed", data);
      this.#attempt(turn, data.attempt ?? turn.attempts.length + 1, time);
      turn.state = "running";
    } else if (type === "turn.waiting") {
      turn.waits.push({ from: time, to: null });
      turn.state = "waiting";
    } else if (ENDS[type]) {
      Object.assign(turn, { ended: time, state: ENDS[type] });
      this.#endAttempt(turn, event, turn.state, data);
      if (data.result !== undefined) turn.payloads.push(["Result", data.result]);
    } else turn.state = "running";
    const wait = turn.waits.at(-1);
    if (wait && !wait.to && type !== "turn.waiting") wait.to = time;
  }

  /**
   * @param {Part} turn
   * @param {number} number
   * @param {string} began
   */
  #attempt(turn, number, began) {
    turn.attempts.push({ number, began, ended: null, outcome: "running", code: null, detail: null });
  }

  /**
   * @param {Part} turn
   * @param {SessionEvent} event
   * @param {string} outcome
   * @param {{ code?: string, detail?: string, reason?: string | null }} why
   */
  #endAttempt(turn, { time }, outcome, { code, detail, reason }) {
    const attempt = turn.attempts.at(-1);
    if (attempt && !attempt.ended) Object.assign(attempt, { ended: time, outcome, code: code ?? null, detail: detail ?? reason ?? null });
  }

  /** @param {import("./transcript.js").EventOfTool} event */
  #tool(event) {
    const { type, time, data } = event;
    const tool = this.part("tool", data.call_id, event);
    tool.events.push(event);
    if (type === "tool.called") {
      Object.assign(tool, { name: data.name, kind: data.kind === "step" ? "step" : "tool", began: time });
      if (data.arguments !== undefined && data.arguments !== null) tool.payloads.push(["Arguments", data.arguments]);
      return;
    }
    const failed = data.error !== undefined && data.error !== null;
    Object.assign(tool, { name: data.name ?? tool.name, ended: time, state: failed ? "failed" : "completed" });
    if (failed) tool.payloads.push(["Error", data.error]);
    else if (data.result !== undefined) tool.payloads.push(["Result", data.result]);
  }

  /** @param {import("./transcript.js").EventOfAsking | import("./transcript.js").EventOfSettling} event */
  #question(event) {
    const { type, time, data } = event;
    const question = this.part("question", data.question_id, event);
    question.events.push(event);
    if (type === "input.requested") {
      Object.assign(question, { name: data.prompt, state: "waiting", ended: null });
      question.payloads.push(["Question", data]);
    } else {
      Object.assign(question, { state: type.split(".")[1], ended: time });
      question.payloads.push(["Outcome", data]);
    }
  }
}

/**
 * @param {SessionEvent[]} events in order
 * @returns {{ roots: Part[], parts: Map<string, Part>, usage: Usage | null }}
 */
export function inspect(events) {
  const reading = new Reading();
  for (const event of events) reading.read(event);
  for (const part of reading.parts.values()) {
    const turn = part.turnId ? reading.parts.get(part.turnId) : null;
    if (part.kind !== "turn" && part.state === "running" && turn && OVER.has(turn.state)) part.state = "no end was reported";
  }
  return { roots: reading.roots, parts: reading.parts, usage: reading.reports ? reading.usage : null };
}

/**
 * How long something took, or has taken so far, in milliseconds; null while it has not begun.
 * @param {{ began: string | null, ended: string | null }} part
 * @param {number} now
 */
export function took({ began, ended }, now) {
  return began ? Math.max(0, (ended ? new Date(ended).getTime() : now) - new Date(began).getTime()) : null;
}
