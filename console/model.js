/**
 * Turns a session's events into the items that its page shows. No DOM, no network.
 *
 * Items (messages, tool calls, notices, cards, groups of lanes) have keys that don't change. `at` is the event
 * number at which an item is placed, `last` the number of the last event about it. `changed` and `removed` say
 * what to draw again. Events may come in any order, because the newest page of a long session is read first.
 */

import { Transcript, isOf } from "./transcript.js";

/**
 * @typedef {import("./transcript.js").SessionEvent} SessionEvent
 * @typedef {import("./transcript.js").Actor} Actor
 * @typedef {import("./transcript.js").Message} Message
 * @typedef {import("./transcript.js").MoneyFacts} MoneyFacts
 * @typedef {{ id: string, parent: string | null, seq: number, attempt: number, status: string, marks: [seq: number, time: string][], agent?: string, began?: string,
 *   beganSeq?: number, ended?: string, waited?: boolean, messageId?: string, asked?: string, detail?: string | null }} Turn
 * @typedef {{ asked: number, became: string, text: string, code: string | null, actor: Actor }} Suggestion
 */

/**
 * @typedef {SessionEvent & { asked?: SessionEvent | null }} NoticeEvent `asked` is the stop that has caused the end of a turn.
 * @typedef {{ outcome: string, by?: string, auto?: boolean, reason?: string | null, time?: string }} Decision
 * @typedef {object} Placed What every item has.
 * @property {string} key
 * @property {number} at
 * @property {number} born
 * @property {string | null} lane
 * @property {string | null} turnId
 * @property {number} seq
 * @property {number} last
 * @property {string} [time]
 * @property {Actor} [actor]
 */

/**
 * Items by their kinds.
 * @typedef {object} Items
 * @property {Placed & { kind: "message", message: Message, ended?: string }} message
 * @property {Placed & { kind: "tool", name?: string, arguments?: unknown, returned?: string, result?: unknown, error?: unknown }} tool
 * @property {Placed & { kind: "lanes", lanes: string[], turnId: string }} lanes
 * @property {Placed & { kind: "card", id: string, route: "purchases" | "payments", status?: string, deadline?: string | null, decision?: Decision | null } & { [N in keyof MoneyFacts]?: MoneyFacts[N] | null }} card
 * @property {Placed & { kind: "question", id: string, status: string, outcome: import("./transcript.js").EventOfSettling | Closed | null, asked?: import("./transcript.js").Asked, askedSeq?: number, agent?: Actor }} question
 * @property {Placed & { kind: "steer", text?: string, status?: string }} steer
 * @property {Placed & { kind: "data", event: import("./transcript.js").EventOfData }} data
 * @property {Placed & { kind: "note", event: import("./transcript.js").EventOfNote }} note
 * @property {Placed & { kind: "notice", event: NoticeEvent }} notice
 * @property {Placed & { kind: "day", time: string }} day
 */

/**
 * What became of a question when its session was terminated.
 * @typedef {{ type: "input.withdrawn", data: { reason: string }, actor?: undefined, time?: undefined }} Closed
 */

/**
 * @template {keyof Items} [K=keyof Items]
 * @typedef {Items[K]} Item
 */

/** What events say of a purchase or a paid request, and cards show. */
const MONEY_FACTS = /** @type {const} */ (["cart", "digest", "refusal", "order", "total", "amount", "currency", "seller", "payee", "method", "url", "realm", "rail", "body_sha256", "messages"]);
const SETTLED = ["answered", "expired", "withdrawn"];
/** @type {Record<string, string>} */
const TERMINAL = { "turn.completed": "completed", "turn.stopped": "stopped", "turn.failed": "failed" };
const UNDER_WAY = new Set(["running", "waiting", "stopping"]);
const OVER = new Set(Object.values(TERMINAL));
/** @type {Record<string, string>} */
const STATUS = { "turn.queued": "queued", "turn.waiting": "waiting", ...TERMINAL };

/** Where live text is placed whose event is not known yet: behind everything but what waits for its turn. */
const LIVE = Number.MAX_SAFE_INTEGER;

/**
 * The day of a time where the reader is, like "2026-11-27".
 * @param {string} iso
 */
function dayOf(iso) {
  const date = new Date(iso);
  /** @param {number} number */
  const digits = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${digits(date.getMonth() + 1)}-${digits(date.getDate())}`;
}

/**
 * The turn that started this one: `t1.1` is the first sub-agent of `t1`.
 * @param {string | null | undefined} turnId
 */
export function parentOf(turnId) {
  const at = turnId?.lastIndexOf(".") ?? -1;
  return turnId && at > 0 ? turnId.slice(0, at) : null;
}

/**
 * @template {keyof Items} K
 * @param {Item | undefined} item
 * @param {K} kind
 * @returns {item is Item<K>}
 */
function isA(item, kind) {
  return item?.kind === kind;
}

export class SessionModel {
  constructor() {
    this.transcript = new Transcript();
    this.transcript.onDrop = (id) => this.#remove(`message:${id}`);
    /** @type {Map<string, Item>} */
    this.items = new Map();
    /** @type {Map<string, Turn>} */
    this.turns = new Map();
    /** The turns that answer messages, by the ids of these. @type {Map<string, string>} */
    this.answers = new Map();
    /** @type {Map<string, Actor>} */
    this.participants = new Map();
    /** @type {Actor | null} */
    this.takenOverBy = null;
    this.takeoverSeq = 0;
    /** Who looks after the session; staff alone are told. @type {Actor | null} */
    this.assignedTo = null;
    this.assignedSeq = 0;
    /** What the agent was asked last to suggest, and what came of it; staff alone are told. @type {Suggestion | null} */
    this.suggestion = null;
    this.closed = false;
    /** @type {string | null} */
    this.title = null;
    /** @type {string | null} */
    this.agent = null;
    /** Questions by id. @type {Map<string, Item<"question">>} */
    this.questions = new Map();
    /** The number of the earliest event that is loaded; 0 when the whole session is. */
    this.since = Infinity;
    /** Every event but the pieces of messages. @type {SessionEvent[]} */
    this.log = [];
    /** The durable pieces of messages that are being written: once one is whole, the log has it in their place. @type {Map<string, SessionEvent[]>} */
    this.pieces = new Map();
    /** The days on which anything happened. @type {Set<string>} */
    this.days = new Set();
    /** The last turn of the session's own agent. @type {string | null} */
    this.lastTurn = null;
    /** @type {Set<string>} */
    this.changed = new Set();
    /** @type {Set<string>} */
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
    return this.queued.flatMap((turn) => {
      const message = this.transcript.messages.get(turn.messageId ?? "");
      return message && message.status !== "withdrawn" ? [{ turnId: turn.id, message }] : [];
    });
  }

  /**
   * The turn that answers a message, if one does.
   * @param {string} messageId
   */
  turnAnswering(messageId) {
    return this.turns.get(this.answers.get(messageId) ?? "");
  }

  /** Every event that is loaded, in order. */
  get events() {
    return [...this.log, ...[...this.pieces.values()].flat()].sort((a, b) => a.seq - b.seq);
  }

  /** Purchases and paid requests that wait for a person's decision. */
  get awaiting() {
    return [...this.items.values()].filter((item) => isA(item, "card")).filter((item) => item.status === "awaiting_approval");
  }

  // Input

  /**
   * Takes in the session's own description of its state, which the newest events alone don't show.
   * @param {import("./api.js").Snapshot} snapshot
   */
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

  /** @param {SessionEvent} event */
  apply(event) {
    if (!this.transcript.apply(event)) return false;
    this.#note(event);
    return true;
  }

  /** @param {SessionEvent} event */
  older(event) {
    this.transcript.older(event);
    this.#note(event);
  }

  /** @param {import("./transcript.js").Delta} delta */
  place(delta) {
    const message = this.transcript.place(delta);
    if (message) this.#touchMessage(message, null);
    return message;
  }

  /** @param {number} seq */
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

  /** @param {SessionEvent} event */
  #note(event) {
    this.since = Math.min(this.since, event.seq - 1);
    this.#noteDay(event);
    if (event.type === "message.delta" || event.type === "message.started") this.#notePiece(event);
    else {
      this.log.push(event);
      if (isOf(event, "message")) this.pieces.delete(event.message_id ?? "");
      if (event.turn_id) this.#turn(event.turn_id).marks.push([event.seq, event.time]);
    }
    if (event.turn_id) this.#lane(event.turn_id, event.seq);
    if (isOf(event, "message")) this.#noteMessage(event);
    else if (isOf(event, "turn")) this.#noteTurn(event);
    else if (isOf(event, "tool")) this.#noteTool(event);
    else if (isOf(event, "agent")) this.#noteAgent(event);
    else if (isOf(event, "steer")) this.#noteSteer(event);
    else if (isOf(event, "input")) this.#noteQuestion(event);
    else if (isOf(event, "suggestion")) this.#noteSuggestion(event);
    else if (isOf(event, "approval") || isOf(event, "purchase") || isOf(event, "payment")) this.#noteMoney(event);
    else this.#noteOther(event);
  }

  /** @param {import("./transcript.js").EventOfMessage} event */
  #notePiece(event) {
    const id = event.message_id ?? "";
    const pieces = this.pieces.get(id) ?? [];
    this.pieces.set(id, pieces);
    if (this.transcript.messages.get(id)?.status === "streaming") pieces.push(event);
  }

  /** @param {import("./transcript.js").EventOfMessage} event */
  #noteMessage(event) {
    const message = this.transcript.messages.get(event.message_id ?? "");
    if (message) this.#touchMessage(message, event);
  }

  /**
   * Each day has a line before the first thing that happened on it.
   * @param {SessionEvent} event
   */
  #noteDay(event) {
    const day = dayOf(event.time);
    const key = `day:${day}`;
    const at = event.seq - 0.5;
    if ((this.items.get(key)?.at ?? Infinity) <= at) return;
    Object.assign(this.#item(key, "day", (placed) => ({ ...placed, kind: "day", time: event.time })), { at, time: event.time });
    if (this.days.has(day)) return;
    this.days.add(day);
    for (const other of this.days) this.#touch(`day:${other}`);
  }

  /**
   * Returns the item with this key; if it is new, `make` adds to its place what its kind has.
   * @template {keyof Items} K
   * @param {string} key
   * @param {K} kind
   * @param {(placed: Placed) => Item<K>} make
   * @param {string | null} [turnId]
   * @param {SessionEvent | null} [event] that is about it
   */
  #item(key, kind, make, turnId = null, event = null) {
    const known = this.items.get(key);
    const item = isA(known, kind) ? known : make({ key, at: Infinity, born: (this.count += 1), lane: parentOf(turnId) ? turnId : null, turnId, seq: 0, last: 0 });
    if (item !== known) this.items.set(key, item);
    if (event) item.last = Math.max(item.last, event.seq);
    if (event && event.seq < item.at) Object.assign(item, { at: event.seq, time: event.time, actor: event.actor });
    this.changed.add(key);
    return item;
  }

  /** @param {string} id */
  #remove(id) {
    this.items.delete(id);
    this.changed.delete(id);
    this.removed.add(id);
  }

  /** @param {string} key */
  #touch(key) {
    if (this.items.has(key)) this.changed.add(key);
  }

  /**
   * @param {Message} message
   * @param {SessionEvent | null} event
   */
  #touchMessage(message, event) {
    if (message.kind === "steer") return; // It is shown as a steer.
    if (message.turnId) this.#lane(message.turnId, message.order ?? LIVE);
    const item = this.#item(`message:${message.id}`, "message", (placed) => ({ ...placed, kind: "message", message }), message.turnId);
    item.at = this.#placeOf(message);
    item.actor = message.actor;
    item.message = message;
    if (event) item.last = Math.max(item.last, event.seq);
    // Only the time of its completion is recorded for good, so that is what a complete message shows, live too.
    if (message.status === "withdrawn") this.#touch(`end:${this.answers.get(message.id)}`);
    if (event?.type === "message.completed") item.time = item.ended = event.time;
    else if (event && !item.ended && (!item.time || event.type === "message.started")) item.time = event.time;
  }

  /**
   * What has waited for its turn stands beside its answer, and until then behind everything else.
   * @param {Message} message
   */
  #placeOf(message) {
    const turn = this.turnAnswering(message.id);
    if (message.status !== "withdrawn" && turn?.status === "queued") return Infinity;
    if (turn?.waited && turn.beganSeq) return turn.beganSeq;
    return message.order ?? LIVE;
  }

  /** @param {string} messageId */
  #place(messageId) {
    const item = this.items.get(`message:${messageId}`);
    if (!isA(item, "message")) return;
    item.at = this.#placeOf(item.message);
    this.changed.add(item.key);
  }

  /** @param {string} turnId */
  #turn(turnId) {
    const known = this.turns.get(turnId);
    if (known) return known;
    /** @type {Turn} */
    const turn = { id: turnId, parent: parentOf(turnId), seq: 0, attempt: 1, status: "queued", marks: [] };
    this.turns.set(turnId, turn);
    if (!turn.parent) this.#noteLast(turnId);
    return turn;
  }

  /** @param {string} turnId */
  #noteLast(turnId) {
    const number = (/** @type {string | null} */ id) => Number(id?.slice(1) ?? 0);
    if (number(turnId) <= number(this.lastTurn)) return;
    this.#touch(`end:${this.lastTurn}`);
    this.lastTurn = turnId;
  }

  /**
   * The message whose turn has failed, if that was the last one: then it may be tried again.
   * @param {string} turnId
   */
  mayTryAgain(turnId) {
    const turn = this.turns.get(turnId);
    if (this.closed || turn?.status !== "failed" || turnId !== this.lastTurn) return null;
    return this.transcript.messages.get(turn.messageId ?? "") ?? null;
  }

  /**
   * How long an agent has reasoned, in milliseconds: since what its turn did before. Null while that is not known.
   * @param {Pick<Item<"message">, "message" | "ended">} item
   */
  reasonedFor({ message, ended }) {
    const before = this.turns.get(message.turnId ?? "")?.marks.filter(([seq]) => seq < (message.order ?? 0)) ?? [];
    const [began] = before.sort(([a], [b]) => b - a);
    return began && ended ? new Date(ended).getTime() - new Date(began[1]).getTime() : null;
  }

  /**
   * @param {string} messageId
   * @param {Turn} turn
   */
  #answer(messageId, turn) {
    turn.messageId = messageId;
    this.answers.set(messageId, turn.id);
    this.#place(messageId);
  }

  /** @param {import("./transcript.js").EventOfTurn} event */
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
    if (["turn.retried", "turn.waiting", "turn.resumed"].includes(type)) this.#item(`turn:${seq}`, "notice", (placed) => ({ ...placed, kind: "notice", event }), turn.id, event);
    if (type === "turn.stopped" || type === "turn.failed" || data.answered_by) this.#noteEnd(event);
  }

  /**
   * A stop and the end of the turn that it causes are one notice.
   * @param {SessionEvent & { turn_id: string }} event
   */
  #noteEnd(event) {
    const item = this.#item(`end:${event.turn_id}`, "notice", (placed) => ({ ...placed, kind: "notice", event }), event.turn_id, event);
    if (event.seq > item.seq) Object.assign(item, { seq: event.seq, event: { ...event, asked: item.seq ? item.event : null } });
    else item.event = { ...item.event, asked: event };
  }

  /** @param {import("./transcript.js").EventOfTool} event */
  #noteTool(event) {
    const { turn_id: turnId, data } = event;
    // What belongs to no turn may say so with a null, or not at all.
    const item = this.#item(`tool:${turnId ?? ""}:${data.call_id}`, "tool", (placed) => ({ ...placed, kind: "tool" }), turnId, event);
    item.name = data.name ?? item.name;
    if (event.type === "tool.called") item.arguments = data.arguments;
    else Object.assign(item, { returned: event.time, result: data.result, error: data.error });
  }

  /**
   * Draws calls again whose turn, or session, is over: without an end of their own they don't run for ever.
   * @param {(item: Item<"tool">) => boolean} concerned
   */
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

  /** @param {Item<"question">} item */
  #settleIfClosed(item) {
    if (!this.closed || item.status !== "open") return;
    Object.assign(item, { status: "withdrawn", outcome: { type: "input.withdrawn", data: { reason: "session_closed" } } });
    this.changed.add(item.key);
  }

  /**
   * Whether a call may still run: outside turns, whoever has reported it may have died, and nobody is told.
   * @param {Item<"tool">} item
   */
  mayRun(item) {
    const turn = this.turns.get(item.turnId ?? "");
    return !item.returned && !this.closed && !OVER.has(turn?.status ?? "");
  }

  /** @param {import("./transcript.js").EventOfAgent} event */
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

  /**
   * Adds a sub-agent's lane to the group of lanes that it shares with its siblings.
   * @param {string} turnId
   * @param {number} seq
   */
  #lane(turnId, seq) {
    const parent = parentOf(turnId);
    if (parent === null) return;
    const group = this.#item(`lanes:${parent}`, "lanes", (placed) => ({ ...placed, kind: "lanes", lanes: [], turnId: parent }), parent);
    group.at = Math.min(group.at, seq);
    if (!group.lanes.includes(turnId)) {
      group.lanes.push(turnId);
      group.lanes.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    }
    this.#turn(turnId);
    this.#lane(parent, seq);
  }

  /** @param {import("./transcript.js").EventOfSteer} event */
  #noteSteer(event) {
    const item = this.#item(`steer:${event.data.steer_id}`, "steer", (placed) => ({ ...placed, kind: "steer" }), event.turn_id, event);
    if (event.type === "steer.received") Object.assign(item, { text: event.data.text, actor: event.actor });
    if (event.seq > item.seq) Object.assign(item, { seq: event.seq, status: event.type.split(".")[1] });
  }

  /**
   * The newest event decides: an agent that took a question back may ask it again.
   * @param {import("./transcript.js").EventOfAsking | import("./transcript.js").EventOfSettling} event
   */
  #noteQuestion(event) {
    const { data, seq, type } = event;
    const id = data.question_id;
    const item = this.#item(`question:${id}`, "question", (placed) => ({ ...placed, kind: "question", id, status: "open", outcome: null }), event.turn_id, event);
    this.questions.set(id, item);
    const became = type.split(".")[1];
    if (type === "input.requested" && seq > (item.askedSeq ?? 0)) Object.assign(item, { asked: data, askedSeq: seq, agent: event.actor });
    if (seq <= item.seq) return;
    Object.assign(item, { seq, status: SETTLED.includes(became) ? became : "open", outcome: SETTLED.includes(became) ? event : null });
    this.#settleIfClosed(item);
  }

  /** @param {import("./transcript.js").EventOfMoney} event */
  #noteMoney(event) {
    const { data, seq, type } = event;
    const id = data.purchase_id ?? data.payment_id;
    if (!id) return;
    const item = this.#item(`card:${id}`, "card", (placed) => ({ ...placed, kind: "card", id, route: data.purchase_id ? "purchases" : "payments" }), data.turn_id, event);
    const fresh = seq > item.seq;
    const { status, deadline } = data;
    // An older event only fills in what newer ones left out.
    for (const name of MONEY_FACTS) {
      if (data[name] !== undefined && (fresh || item[name] === undefined)) Object.assign(item, { [name]: data[name] });
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

  /**
   * The latest request counts, and once something has come of it, that.
   * @param {import("./transcript.js").EventOfSuggestion} event
   */
  #noteSuggestion({ type, seq, actor, data = {} }) {
    const asked = data.requested ?? seq;
    const became = type.split(".")[1];
    const known = this.suggestion?.asked ?? 0;
    if (asked < known || (asked === known && became === "requested")) return;
    this.suggestion = { asked, became, actor, text: data.text ?? "", code: data.code ?? null };
  }

  /** @param {import("./transcript.js").EventOfSession | import("./transcript.js").EventOfNote | import("./transcript.js").EventOfData} event */
  #noteOther(event) {
    const { type, seq } = event;
    if (type === "stop.requested") return this.#noteStop(event);
    if (isOf(event, "takeover") && seq > this.takeoverSeq) {
      this.takeoverSeq = seq;
      this.takenOverBy = event.type === "takeover.started" ? event.actor : null;
    }
    if (type === "usage.reported") return;
    if (type === "session.assigned" && seq > this.assignedSeq) Object.assign(this, { assignedSeq: seq, assignedTo: event.data?.operator ?? null });
    if (type === "participant.joined") this.participants.set(event.actor.id, event.actor);
    if (type === "session.closed") this.#close();
    if (type === "session.started") this.since = 0;
    const key = `event:${seq}`;
    if (type === "note.added") this.#item(key, "note", (placed) => ({ ...placed, kind: "note", event }), event.turn_id, event);
    else if (isOf(event, "data")) this.#item(key, "data", (placed) => ({ ...placed, kind: "data", event }), event.turn_id, event);
    else this.#item(key, "notice", (placed) => ({ ...placed, kind: "notice", event }), event.turn_id, event);
  }

  /** @param {SessionEvent} event */
  #noteStop(event) {
    const { turn_id: turnId, seq } = event;
    if (!turnId) return;
    const turn = this.#turn(turnId);
    if (seq > turn.seq) Object.assign(turn, { seq, status: "stopping" });
    this.#noteEnd({ ...event, turn_id: turnId });
  }
}
