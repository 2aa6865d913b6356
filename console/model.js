/**
 * Turns a session's events into the items that its page shows. No DOM, no network.
 *
 * Items (messages, tool calls, notices, cards, groups of lanes) have keys that don't change. `at` is the event
 * number at which an item is placed, `last` the number of the last event about it. `changed` and `removed` say
 * what to draw again. Events may come in any order, because the newest page of a long session is read first.
 */

import { Transcript } from "./transcript.js";

/** What events say of a purchase or a paid request, and cards show. */
const MONEY_FACTS = ["cart", "digest", "refusal", "order", "total", "amount", "currency", "seller", "payee", "method", "url", "realm", "rail", "body_sha256", "messages"];
const SETTLED = ["answered", "expired", "withdrawn"];
const TERMINAL = { "turn.completed": "completed", "turn.stopped": "stopped", "turn.failed": "failed" };
const UNDER_WAY = new Set(["running", "waiting", "stopping"]);
const OVER = new Set(Object.values(TERMINAL));
const STATUS = { "turn.queued": "queued", "turn.waiting": "waiting", ...TERMINAL };

/** Where live text is placed whose event is not known yet: behind everything but what waits for its turn. */
const LIVE = Number.MAX_SAFE_INTEGER;

/** The day of a time where the reader is, like "2026-11-27". */
function dayOf(iso) {
  const date = new Date(iso);
  const digits = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${digits(date.getMonth() + 1)}-${digits(date.getDate())}`;
}

/** The turn that started this one: `t1.1` is the first sub-agent of `t1`. */
export function parentOf(turnId) {
  const at = turnId?.lastIndexOf(".") ?? -1;
  return at > 0 ? turnId.slice(0, at) : null;
}

export class SessionModel {
  constructor() {
    this.transcript = new Transcript();
    this.transcript.onDrop = (id) => this.#remove(`message:${id}`);
    this.items = new Map();
    this.turns = new Map();
    this.answers = new Map();
    this.participants = new Map();
    this.takenOverBy = null;
    this.takeoverSeq = 0;
    /** Who looks after the session; staff alone are told. */
    this.assignedTo = null;
    this.assignedSeq = 0;
    /** What the agent was asked last to suggest, and what came of it; staff alone are told. */
    this.suggestion = null;
    this.closed = false;
    this.title = null;
    this.agent = null;
    /** Questions by id. */
    this.questions = new Map();
    /** The number of the earliest event that is loaded; 0 when the whole session is. */
    this.since = Infinity;
    /** Every event but the pieces of messages. */
    this.log = [];
    /** The durable pieces of messages that are being written: once one is whole, the log has it in their place. */
    this.pieces = new Map();
    /** The days on which anything happened. */
    this.days = new Set();
    /** The last turn of the session's own agent. */
    this.lastTurn = null;
    this.changed = new Set();
    this.removed = new Set();
    this.count = 0;
  }

  get cursor() {
    return this.transcript.cursor;
  }

  /** The turns of the session's own agent that are under way, those that wait for people included. */
  get running() {
    return this.closed ? [] : [...this.turns.values()].filter((turn) => !turn.parent && UNDER_WAY.has(turn.status));
  }

  /** Whether the agent does nothing but wait for people, or something else waits for them while no agent runs. */
  get waiting() {
    const { running, asking } = this;
    const asks = new Set(asking.map((item) => item.turnId));
    return running.length ? running.every((turn) => turn.status === "waiting" || (turn.status === "running" && asks.has(turn.id))) : asking.length > 0;
  }

  /** Questions that nobody has answered yet, in the order of asking. */
  get asking() {
    return [...this.questions.values()].filter((item) => item.asked && item.status === "open").sort((a, b) => a.at - b.at);
  }

  get queued() {
    return this.closed ? [] : [...this.turns.values()].filter((turn) => !turn.parent && turn.status === "queued");
  }

  /** What people have said and no agent has begun to answer. */
  get waitingMessages() {
    return this.queued
      .map((turn) => ({ turnId: turn.id, message: this.transcript.messages.get(turn.messageId) }))
      .filter(({ message }) => message && message.status !== "withdrawn");
  }

  /** The turn that answers a message, if one does. */
  turnAnswering(messageId) {
    return this.turns.get(this.answers.get(messageId));
  }

  /** Every event that is loaded, in order. */
  get events() {
    return [...this.log, ...[...this.pieces.values()].flat()].sort((a, b) => a.seq - b.seq);
  }

  /** Purchases and paid requests that wait for a person's decision. */
  get awaiting() {
    return [...this.items.values()].filter((item) => item.kind === "card" && item.status === "awaiting_approval");
  }

  // Input

  /** Takes in the session's own description of its state, which the newest events alone don't show. */
  takeSnapshot(snapshot) {
    this.title = snapshot.title ?? null;
    this.agent = snapshot.agent;
    if (snapshot.status === "closed") this.#close();
    for (const turn of [...snapshot.running, ...snapshot.queued]) {
      const known = this.#turn(turn.turn_id);
      if (known.seq > snapshot.tip || TERMINAL[`turn.${known.status}`]) continue;
      Object.assign(known, { status: turn.status, agent: turn.agent });
      if (turn.message_id) this.#answer(turn.message_id, known);
    }
    if (this.takeoverSeq <= snapshot.tip) this.takenOverBy = snapshot.taken_over_by ?? null;
    if (this.assignedSeq <= snapshot.tip) this.assignedTo = snapshot.assigned_to ?? null;
    this.participants = new Map(snapshot.participants.map((actor) => [actor.id, actor]));
  }

  apply(event) {
    if (!this.transcript.apply(event)) return false;
    this.#note(event);
    return true;
  }

  older(event) {
    this.transcript.older(event);
    this.#note(event);
  }

  place(delta) {
    const message = this.transcript.place(delta);
    if (message) this.#touchMessage(message, null);
    return message;
  }

  advance(seq) {
    this.transcript.advance(seq);
  }

  /** Returns the keys that have changed and those that were removed since the last call. */
  takeChanges() {
    const taken = { changed: this.changed, removed: this.removed };
    this.changed = new Set();
    this.removed = new Set();
    return taken;
  }

  // Items

  #note(event) {
    this.since = Math.min(this.since, event.seq - 1);
    this.#noteDay(event);
    const [family] = event.type.split(".");
    if (["message.delta", "message.started"].includes(event.type)) {
      if (!this.pieces.has(event.message_id)) this.pieces.set(event.message_id, []);
      if (this.transcript.messages.get(event.message_id)?.status === "streaming") this.pieces.get(event.message_id).push(event);
    } else {
      this.log.push(event);
      if (family === "message") this.pieces.delete(event.message_id);
      if (event.turn_id) this.#turn(event.turn_id).marks.push([event.seq, event.time]);
    }
    if (parentOf(event.turn_id)) this.#lane(event.turn_id, event.seq);
    switch (family) {
      case "message":
        this.#touchMessage(this.transcript.messages.get(event.message_id), event);
        break;
      case "turn":
        this.#noteTurn(event);
        break;
      case "tool":
        this.#noteTool(event);
        break;
      case "agent":
        this.#noteAgent(event);
        break;
      case "steer":
        this.#noteSteer(event);
        break;
      case "input":
        this.#noteQuestion(event);
        break;
      case "suggestion":
        this.#noteSuggestion(event);
        break;
      case "approval":
      case "purchase":
      case "payment":
        this.#noteMoney(event);
        break;
      default:
        this.#noteOther(event);
    }
  }

  /** Each day has a line before the first thing that happened on it. */
  #noteDay(event) {
    const day = dayOf(event.time);
    const key = `day:${day}`;
    const at = event.seq - 0.5;
    if (this.items.get(key)?.at <= at) return;
    Object.assign(this.#item(key, "day", null), { at, time: event.time });
    if (this.days.has(day)) return;
    this.days.add(day);
    for (const other of this.days) this.#touch(`day:${other}`);
  }

  #item(key, kind, event, turnId = null) {
    let item = this.items.get(key);
    if (!item) {
      this.count += 1;
      item = { key, kind, at: Infinity, born: this.count, lane: parentOf(turnId) ? turnId : null, turnId, seq: 0, last: 0 };
      this.items.set(key, item);
    }
    if (event) item.last = Math.max(item.last, event.seq);
    if (event && event.seq < item.at) Object.assign(item, { at: event.seq, time: event.time, actor: event.actor });
    this.changed.add(key);
    return item;
  }

  #remove(id) {
    this.items.delete(id);
    this.changed.delete(id);
    this.removed.add(id);
  }

  #touch(key) {
    if (this.items.has(key)) this.changed.add(key);
  }

  #touchMessage(message, event) {
    if (message.kind === "steer") return; // It is shown as a steer.
    if (parentOf(message.turnId)) this.#lane(message.turnId, message.order ?? LIVE);
    const item = this.#item(`message:${message.id}`, "message", null, message.turnId);
    item.at = this.#placeOf(message);
    item.actor = message.actor;
    item.message = message;
    if (event) item.last = Math.max(item.last, event.seq);
    // Only the time of its completion is recorded for good, so that is what a complete message shows, live too.
    if (message.status === "withdrawn") this.#touch(`end:${this.answers.get(message.id)}`);
    if (event?.type === "message.completed") item.time = item.ended = event.time;
    else if (event && !item.ended && (!item.time || event.type === "message.started")) item.time = event.time;
  }

  /** What has waited for its turn stands beside its answer, and until then behind everything else. */
  #placeOf(message) {
    const turn = this.turnAnswering(message.id);
    if (message.status !== "withdrawn" && turn?.status === "queued") return Infinity;
    if (turn?.waited && turn.beganSeq) return turn.beganSeq;
    return message.order ?? LIVE;
  }

  #place(messageId) {
    const item = this.items.get(`message:${messageId}`);
    if (!item) return;
    item.at = this.#placeOf(item.message);
    this.changed.add(item.key);
  }

  #turn(turnId) {
    if (!this.turns.has(turnId)) {
      this.turns.set(turnId, { id: turnId, parent: parentOf(turnId), seq: 0, attempt: 1, status: "queued", marks: [] });
      if (!parentOf(turnId)) this.#noteLast(turnId);
    }
    return this.turns.get(turnId);
  }

  #noteLast(turnId) {
    const number = (id) => Number(id?.slice(1) ?? 0);
    if (number(turnId) <= number(this.lastTurn)) return;
    this.#touch(`end:${this.lastTurn}`);
    this.lastTurn = turnId;
  }

  /** The message whose turn has failed, if that was the last one: then it may be tried again. */
  mayTryAgain(turnId) {
    const turn = this.turns.get(turnId);
    if (this.closed || turn?.status !== "failed" || turnId !== this.lastTurn) return null;
    return this.transcript.messages.get(turn.messageId) ?? null;
  }

  /** How long an agent has reasoned, in milliseconds: since what its turn did before. Null while that is not known. */
  reasonedFor({ message, ended }) {
    const began = this.turns.get(message.turnId)?.marks.filter(([seq]) => seq < message.order).reduce((last, one) => (last && last[0] > one[0] ? last : one), null);
    return began && ended ? new Date(ended) - new Date(began[1]) : null;
  }

  #answer(messageId, turn) {
    turn.messageId = messageId;
    this.answers.set(messageId, turn.id);
    this.#place(messageId);
  }

  #noteTurn(event) {
    const { type, seq, time, data = {} } = event;
    const turn = this.#turn(event.turn_id);
    if (data.message_id) this.#answer(data.message_id, turn);
    if (type === "turn.queued") turn.waited = true;
    if (type === "turn.started") Object.assign(turn, { began: time, beganSeq: seq, agent: event.actor.id });
    if (TERMINAL[type]) {
      turn.ended = time;
      this.#endTools((item) => item.turnId === turn.id);
    }
    if (seq > turn.seq) {
      turn.seq = seq;
      turn.attempt = data.attempt ?? turn.attempt;
      turn.status = STATUS[type] ?? "running";
    }
    if (turn.messageId) this.#place(turn.messageId);
    if (turn.parent) this.#touch(`lanes:${turn.parent}`);
    if (["turn.retried", "turn.waiting", "turn.resumed"].includes(type)) Object.assign(this.#item(`turn:${seq}`, "notice", event, turn.id), { event });
    if (type === "turn.stopped" || type === "turn.failed" || data.answered_by) this.#noteEnd(event);
  }

  /** A stop and the end of the turn that it causes are one notice. */
  #noteEnd(event) {
    const item = this.#item(`end:${event.turn_id}`, "notice", event, event.turn_id);
    if (event.seq > item.seq) Object.assign(item, { seq: event.seq, event: { ...event, asked: item.event ?? null } });
    else item.event = { ...item.event, asked: event };
  }

  #noteTool(event) {
    const item = this.#item(`tool:${event.turn_id}:${event.data.call_id}`, "tool", event, event.turn_id);
    item.name = event.data.name ?? item.name;
    if (event.type === "tool.called") item.arguments = event.data.arguments;
    else Object.assign(item, { returned: event.time, result: event.data.result, error: event.data.error });
  }

  /** Draws calls again whose turn, or session, is over: without an end of their own they don't run for ever. */
  #endTools(concerned) {
    for (const item of this.items.values()) {
      if (item.kind === "tool" && !item.returned && concerned(item)) this.changed.add(item.key);
    }
  }

  /** Nothing goes on in a session that is over: one that was terminated in Temporal had no time to say so of each thing. */
  #close() {
    this.closed = true;
    this.#endTools(() => true);
    for (const item of this.questions.values()) this.#settleIfClosed(item);
  }

  #settleIfClosed(item) {
    if (!this.closed || item.status !== "open") return;
    Object.assign(item, { status: "withdrawn", outcome: { type: "input.withdrawn", data: { reason: "session_closed" } } });
    this.changed.add(item.key);
  }

  /** Whether a call may still run: outside turns, whoever has reported it may have died, and nobody is told. */
  mayRun(item) {
    const turn = this.turns.get(item.turnId);
    return !item.returned && !this.closed && !OVER.has(turn?.status);
  }

  #noteAgent(event) {
    const turn = this.#turn(event.turn_id);
    if (event.type === "agent.spawned") {
      Object.assign(turn, { agent: event.data.agent, asked: event.data.text, began: event.time, beganSeq: event.seq });
      if (turn.status === "queued") turn.status = "running";
    } else {
      Object.assign(turn, { status: event.data.outcome, ended: event.time, detail: event.data.detail ?? event.data.reason });
      this.#endTools((item) => item.turnId === turn.id);
    }
    turn.parent ??= event.data.parent_turn_id;
    this.#touch(`lanes:${turn.parent}`);
  }

  /** Adds a sub-agent's lane to the group of lanes that it shares with its siblings. */
  #lane(turnId, seq) {
    const parent = parentOf(turnId);
    const group = this.#item(`lanes:${parent}`, "lanes", null, parent);
    group.at = Math.min(group.at, seq);
    group.lanes ??= [];
    if (!group.lanes.includes(turnId)) {
      group.lanes.push(turnId);
      group.lanes.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    }
    this.#turn(turnId);
    if (parentOf(parent)) this.#lane(parent, seq);
  }

  #noteSteer(event) {
    const item = this.#item(`steer:${event.data.steer_id}`, "steer", event, event.turn_id);
    if (event.data.text !== undefined) Object.assign(item, { text: event.data.text, actor: event.actor });
    if (event.seq > item.seq) Object.assign(item, { seq: event.seq, status: event.type.split(".")[1] });
  }

  /** The newest event decides: an agent that took a question back may ask it again. */
  #noteQuestion(event) {
    const { data, seq, type } = event;
    const item = this.#item(`question:${data.question_id}`, "question", event, event.turn_id);
    this.questions.set(data.question_id, item);
    item.id = data.question_id;
    const became = type.split(".")[1];
    if (became === "requested" && seq > (item.askedSeq ?? 0)) Object.assign(item, { asked: data, askedSeq: seq, agent: event.actor });
    if (seq <= item.seq) return;
    Object.assign(item, { seq, status: SETTLED.includes(became) ? became : "open", outcome: SETTLED.includes(became) ? event : null });
    this.#settleIfClosed(item);
  }

  #noteMoney(event) {
    const { data = {}, seq, type } = event;
    const id = data.purchase_id ?? data.payment_id;
    if (!id) return;
    const item = this.#item(`card:${id}`, "card", event, data.turn_id);
    item.id = id;
    item.route = data.purchase_id ? "purchases" : "payments";
    const fresh = seq > item.seq;
    const { status, deadline } = data;
    const given = Object.fromEntries(MONEY_FACTS.map((name) => [name, data[name]]));
    // An older event only fills in what newer ones left out.
    for (const [name, value] of Object.entries(given)) {
      if (value !== undefined && (fresh || item[name] === undefined)) item[name] = value;
    }
    const outcome = type.startsWith("approval.") && type !== "approval.requested" ? type.split(".")[1] : null;
    if (outcome && (fresh || item.decision === undefined)) {
      item.decision = { outcome, by: data.approver, auto: data.auto, reason: data.reason, time: event.time };
    }
    if (!fresh) return;
    item.seq = seq;
    if (status) item.status = status;
    if (type === "approval.requested") Object.assign(item, { status: "awaiting_approval", deadline, decision: null });
    else if (outcome && item.status === "awaiting_approval") item.status = outcome;
  }

  /** The latest request counts, and once something has come of it, that. */
  #noteSuggestion({ type, seq, actor, data = {} }) {
    const asked = data.requested ?? seq;
    const became = type.split(".")[1];
    const known = this.suggestion ?? { asked: 0 };
    if (asked < known.asked || (asked === known.asked && became === "requested")) return;
    this.suggestion = { asked, became, actor, text: data.text ?? "", code: data.code ?? null };
  }

  #noteOther(event) {
    const { type, seq } = event;
    if (type === "stop.requested") {
      const turn = event.turn_id ? this.#turn(event.turn_id) : null;
      if (turn && seq > turn.seq) Object.assign(turn, { seq, status: "stopping" });
      if (turn) this.#noteEnd(event);
      return;
    }
    if (type.startsWith("takeover.") && seq > this.takeoverSeq) {
      this.takeoverSeq = seq;
      this.takenOverBy = type === "takeover.started" ? event.actor : null;
    }
    if (type === "usage.reported") return;
    if (type === "session.assigned" && seq > this.assignedSeq) Object.assign(this, { assignedSeq: seq, assignedTo: event.data?.operator ?? null });
    if (type === "participant.joined") this.participants.set(event.actor.id, event.actor);
    if (type === "session.closed") this.#close();
    if (type === "session.started") this.since = 0;
    const kind = type === "note.added" ? "note" : type.startsWith("data.") ? "data" : "notice";
    Object.assign(this.#item(`event:${seq}`, kind, event, event.turn_id), { event });
  }
}
