/**
 * A session's messages, correct however events are lost, repeated or reordered.
 *
 * The rules are those of src/waystation/client/transcript.py. Durable events are numbered and in order. Live
 * deltas come early and may be lost, repeated or late, so text is placed at its offset and never appended.
 * Offsets count Unicode code points; JavaScript strings need two units for some of them.
 */

/**
 * @typedef {{ id: string, name?: string | null, role: string }} Actor
 */

/**
 * What is recorded, as docs/events.md lists it: what an event doesn't have is left out.
 * @template {string} T
 * @template D
 * @typedef {{ type: T, seq: number, time: string, actor: Actor, turn_id?: string | null, message_id?: string | null, visibility?: string, data: D }} Recorded
 */

/**
 * @typedef {{ kind?: string, finish?: string, [given: string]: unknown }} MessageData
 * @typedef {{ offset: number, text: string }} Piece
 * @typedef {Recorded<"message.started", MessageData | undefined> | Recorded<"message.delta", Piece> | Recorded<"message.withdrawn", Record<string, unknown> | undefined>
 *   | Recorded<"message.completed", MessageData & { text: string, started?: number | null }> | Recorded<"message.superseded", { started?: number | null } | undefined>} EventOfMessage
 * @typedef {{ message_id?: string | null, attempt?: number, code?: string, detail?: string, reason?: string | null, result?: unknown, answered_by?: string, waiting_for?: string[] }} TurnData
 * @typedef {Recorded<"turn.queued" | "turn.started" | "turn.retried" | "turn.waiting" | "turn.resumed" | "turn.completed" | "turn.stopped" | "turn.failed", TurnData | undefined> & { turn_id: string }} EventOfTurn
 * @typedef {Recorded<"tool.called" | "tool.returned", { call_id: string, name?: string, arguments?: unknown, kind?: string, result?: unknown, error?: unknown }>} EventOfTool
 * @typedef {(Recorded<"agent.spawned", { agent: string, parent_turn_id: string, key: string, text: string }>
 *   | Recorded<"agent.finished", { parent_turn_id: string, outcome: string, attempt?: number, result?: unknown, code?: string, detail?: string, reason?: string | null }>) & { turn_id: string }} EventOfAgent
 * @typedef {Recorded<"steer.received", { steer_id: string, text: string }> | Recorded<"steer.consumed" | "steer.expired", { steer_id: string }>} EventOfSteer
 * @typedef {{ value: string, label?: string | null }} Choice
 * @typedef {{ roles?: string[], ids?: string[] }} Audience
 * @typedef {{ question_id: string, kind: "question" | "choice" | "form", prompt: string, digest: string, deadline?: string, audience?: Audience, schema?: object, choices?: Choice[] }} Question
 * @typedef {Omit<Question, "kind" | "choices"> & { kind: "approval", tool: string, arguments: Record<string, unknown>, editable?: boolean }} ToolApproval
 * @typedef {Question | ToolApproval} Asked
 * @typedef {Recorded<"input.requested", Asked>} EventOfAsking
 * @typedef {Recorded<"input.answered", { question_id: string, value: unknown, digest?: string, rule?: number | null }>
 *   | Recorded<"input.expired", { question_id: string }> | Recorded<"input.withdrawn", { question_id: string, reason?: string | null }>} EventOfSettling
 * @typedef {{ amount: number, type: string, label: string }} Total
 * @typedef {{ line_id: string, item_id: string, name?: string | null, quantity: number, unit_amount?: number | null, totals?: Total[], parent_id?: string | null }} CartLine
 * @typedef {{ type: string, id: string, title: string, amount?: number | null, item_ids?: string[] }} Fulfillment
 * @typedef {{ name?: string | null, phone_number?: string | null, email?: string | null, address?: Partial<Record<string, string | null>> | null }} ShipTo
 * @typedef {{ checkout_id: string, seller: string, payee?: string | null, currency: string, lines: CartLine[], totals: Total[], total?: number | null,
 *   fulfillment?: Fulfillment[], ship_to?: ShipTo | null, discount_codes?: string[] }} Cart
 * @typedef {{ cart: Cart, digest: string, refusal: { message: string }, order: { id: string, status?: string | null }, total: number, amount: number, currency: string, seller: string,
 *   payee: string, method: string, url: string, realm: string, rail: string, body_sha256: string, messages: { text: string }[] }} MoneyFacts
 * @typedef {{ [N in keyof MoneyFacts]?: MoneyFacts[N] | null } & { purchase_id?: string, payment_id?: string, turn_id?: string | null, status?: string, deadline?: string | null,
 *   approver?: string, auto?: boolean, reason?: string | null }} MoneyData
 * @typedef {Recorded<"approval.requested" | "approval.granted" | "approval.denied" | "approval.expired", MoneyData> | Recorded<"purchase.updated", MoneyData> | Recorded<"payment.updated", MoneyData>} EventOfMoney
 * @typedef {Recorded<"suggestion.requested" | "suggestion.made" | "suggestion.failed", { requested?: number, text?: string | null, code?: string, detail?: string } | undefined>} EventOfSuggestion
 * @typedef {Recorded<"note.added", { text: string, note_id?: string }>} EventOfNote
 * @typedef {Recorded<`data.${string}`, Record<string, unknown> | undefined>} EventOfData
 * @typedef {Recorded<"session.started", { agent: string, title?: string | null }> | Recorded<"session.closed", { reason?: string | null } | undefined> | Recorded<"stop.requested", { reason?: string | null } | undefined>
 *   | Recorded<"participant.joined" | "participant.left", Record<string, unknown> | undefined> | Recorded<"takeover.started" | "takeover.released", { reason?: string | null, instead_of?: string | null } | undefined>
 *   | Recorded<"session.assigned", { operator?: Actor | null } | undefined> | Recorded<"usage.reported", Partial<import("./inspection.js").Usage>>} EventOfSession
 * @typedef {EventOfMessage | EventOfTurn | EventOfTool | EventOfAgent | EventOfSteer | EventOfAsking | EventOfSettling | EventOfMoney | EventOfSuggestion | EventOfNote | EventOfData | EventOfSession} SessionEvent
 * @typedef {{ type: "message.delta", message_id: string, actor: Actor, turn_id?: string | null, data: Piece }} Delta
 */

const ENDS_TURN = new Set(["turn.completed", "turn.stopped", "turn.failed", "agent.finished"]);
const MAX_HELD_PIECES = 1_000;

/** @param {string} text */
function codePoints(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/**
 * @param {string} text
 * @param {number} count
 */
function dropCodePoints(text, count) {
  return count <= 0 ? text : Array.from(text).slice(count).join("");
}

/**
 * Whether an event is of a family, like "turn".
 * @template {string} F
 * @param {SessionEvent} event
 * @param {F} family
 * @returns {event is Extract<SessionEvent, { type: `${F}.${string}` }>}
 */
export function isOf(event, family) {
  return event.type.startsWith(`${family}.`);
}

export class Message {
  /**
   * `order` is the number of the event that began the message; null while only live text is known.
   * @param {string} id
   * @param {Actor} actor
   * @param {string | null} [turnId]
   */
  constructor(id, actor, turnId) {
    this.id = id;
    this.actor = actor;
    this.turnId = turnId ?? null;
    this.text = "";
    this.length = 0;
    this.status = "streaming";
    /** @type {MessageData} */
    this.data = {};
    /** @type {number | null} */
    this.order = null;
    /** The text that was on the screen when the message was withdrawn. */
    this.withdrawn = "";
    /** @type {Map<number, string>} */
    this.held = new Map();
  }

  get kind() {
    return this.data.kind ?? "message";
  }

  /**
   * Puts text at its offset; text that would leave a gap is kept until the missing part arrives.
   * @param {number} offset
   * @param {string} text
   */
  place(offset, text) {
    if (offset > this.length) {
      const known = this.held.get(offset) ?? "";
      if (this.held.size < MAX_HELD_PIECES && text.length > known.length) this.held.set(offset, text);
      return;
    }
    this.#extend(offset, text);
    for (let found = true; found; ) {
      found = false;
      for (const [at, piece] of this.held) {
        if (at > this.length) continue;
        this.held.delete(at);
        this.#extend(at, piece);
        found = true;
        break;
      }
    }
  }

  /**
   * @param {number} offset
   * @param {string} text
   */
  #extend(offset, text) {
    const fresh = dropCodePoints(text, this.length - offset);
    this.text += fresh;
    this.length += codePoints(fresh);
  }

  /**
   * Takes in a durable event about this message, in any order, because older pages may arrive later.
   * @param {EventOfMessage} event
   */
  take(event) {
    const replaces = event.type === "message.completed" || event.type === "message.superseded" ? event.data : null;
    const began = replaces?.started ?? event.seq;
    this.order = this.order === null ? began : Math.min(this.order, began);
    if (event.type === "message.completed") {
      const { text, started, ...rest } = event.data;
      this.text = text;
      this.length = codePoints(text);
      this.data = rest;
      // Whoever withdrew it may be somebody else, and that may have been read first.
      this.actor = event.actor;
      if (this.status !== "withdrawn") this.status = "completed";
      this.held.clear();
    } else if (event.type === "message.superseded") {
      this.withdrawn = this.text;
      Object.assign(this, { text: "", length: 0, data: {}, status: "superseded" });
      this.held.clear();
    } else if (event.type === "message.withdrawn") {
      this.status = "withdrawn";
    } else if (this.status === "streaming") {
      if (event.type === "message.started") this.data = { ...event.data };
      if (event.type === "message.delta") this.place(event.data.offset, event.data.text);
    }
  }
}

export class Transcript {
  constructor() {
    this.cursor = 0;
    /** @type {Map<string, string>} */
    this.endedTurns = new Map();
    /** @type {Map<string, Message>} */
    this.messages = new Map();
    /**
     * Called with the id of a message that was shown live but never became durable.
     * @type {(id: string) => void}
     */
    this.onDrop = () => {};
  }

  /** Returns messages in the order in which they began; those known only from live text come last. */
  inOrder() {
    return [...this.messages.values()].sort((a, b) => (a.order ?? Infinity) - (b.order ?? Infinity) || 0);
  }

  /**
   * Notes that everything in the durable log up to `seq` is known.
   * @param {number} seq
   */
  advance(seq) {
    this.cursor = Math.max(this.cursor, seq);
  }

  /**
   * Takes in a live delta. Returns the message if it has new text, otherwise null.
   * @param {Delta} delta
   */
  place(delta) {
    if (this.endedTurns.has(delta.turn_id ?? "")) return null;
    const message = this.#message(delta);
    if (message.status !== "streaming") return null;
    const before = message.length;
    message.place(delta.data.offset, delta.data.text);
    return message.length > before ? message : null;
  }

  /**
   * Takes in the next durable event. Returns false if it was known (repeated after a reconnect).
   * @param {SessionEvent} event
   */
  apply(event) {
    if (event.seq <= this.cursor) return false;
    this.cursor = event.seq;
    this.#end(event);
    this.older(event);
    return true;
  }

  /**
   * Takes in an event older than those that are known: long sessions are read from their end.
   * @param {SessionEvent} event
   */
  older(event) {
    const { message_id } = event;
    if (message_id && isOf(event, "message")) this.#message({ ...event, message_id }).take(event);
  }

  /** @param {{ message_id: string, actor: Actor, turn_id?: string | null }} about */
  #message({ message_id, actor, turn_id }) {
    const message = this.messages.get(message_id) ?? new Message(message_id, actor, turn_id);
    this.messages.set(message_id, message);
    return message;
  }

  /**
   * Drops text that an attempt showed live and never made durable, because its process died.
   * @param {SessionEvent} event
   */
  #end({ type, turn_id }) {
    if (!turn_id || !(ENDS_TURN.has(type) || type === "turn.retried")) return;
    for (const [id, message] of this.messages) {
      if (message.order !== null || message.turnId !== turn_id) continue;
      this.messages.delete(id);
      this.onDrop(id);
    }
    if (ENDS_TURN.has(type)) this.endedTurns.set(turn_id, type);
  }
}
