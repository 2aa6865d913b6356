// @ts-check
/**
 * A session's messages, correct however events are lost, repeated or reordered.
 *
 * The rules are those of src/waystation/client/transcript.py. Durable events are numbered and in order. Live
 * deltas come early and may be lost, repeated or late, so text is placed at its offset and never appended.
 * Offsets count Unicode code points; JavaScript strings need two units for some of them.
 */

/**
 * @typedef {{ id: string, name?: string | null, role: string }} Actor
 * @typedef {{ seq: number, type: string, time: string, actor: Actor, message_id?: string, turn_id?: string, data?: Record<string, any> }} SessionEvent
 * @typedef {{ message_id: string, actor: Actor, turn_id?: string, data: { offset: number, text: string } }} Delta
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

export class Message {
  /**
   * `order` is the number of the event that began the message; null while only live text is known.
   * @param {string} id
   * @param {Actor} actor
   * @param {string | undefined} turnId
   */
  constructor(id, actor, turnId) {
    this.id = id;
    this.actor = actor;
    this.turnId = turnId ?? null;
    this.text = "";
    this.length = 0;
    this.status = "streaming";
    /** @type {Record<string, any>} */
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
   * @param {SessionEvent} event
   */
  take(event) {
    const data = event.data ?? {};
    const began = data.started ?? event.seq;
    this.order = this.order === null ? began : Math.min(this.order, began);
    if (event.type === "message.completed") {
      const { text, started, ...rest } = data;
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
      if (event.type === "message.started") this.data = { ...data };
      if (event.type === "message.delta") this.place(data.offset, data.text);
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
    const { message_id, type } = event;
    if (message_id && type.startsWith("message.")) this.#message({ ...event, message_id }).take(event);
  }

  /** @param {{ message_id: string, actor: Actor, turn_id?: string }} about */
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
