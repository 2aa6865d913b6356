/**
 * A session's messages, right after any interleaving of drops, repeats and reorderings.
 *
 * The same rules as src/waystation/client/transcript.py: durable events come numbered and in order, live
 * deltas come early and may be lost, doubled or late. Text is placed at its offset, never appended.
 * Offsets count Unicode code points, of which a string's own units may need two.
 */

const ENDS_TURN = new Set(["turn.completed", "turn.stopped", "turn.failed", "agent.finished"]);
const MAX_HELD_PIECES = 1_000;

function codePoints(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

function dropCodePoints(text, count) {
  return count <= 0 ? text : Array.from(text).slice(count).join("");
}

export class Message {
  /** `order` is the number of the event that began it; null while it is known only live. */
  constructor(id, actor, turnId) {
    this.id = id;
    this.actor = actor;
    this.turnId = turnId ?? null;
    this.text = "";
    this.length = 0;
    this.status = "streaming";
    this.data = {};
    this.order = null;
    /** What was on the screen of a message that has since been withdrawn. */
    this.withdrawn = "";
    this.held = new Map();
  }

  get kind() {
    return this.data.kind ?? "message";
  }

  /** Puts text where it belongs; text that would leave a gap waits for what is missing. */
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

  #extend(offset, text) {
    const fresh = dropCodePoints(text, this.length - offset);
    this.text += fresh;
    this.length += codePoints(fresh);
  }

  /** Takes in a durable event about this message. Right in any order, as older pages may come late. */
  take(event) {
    const data = event.data ?? {};
    const began = data.started ?? event.seq;
    this.order = this.order === null ? began : Math.min(this.order, began);
    if (event.type === "message.completed") {
      const { text, started, ...rest } = data;
      this.text = text;
      this.length = codePoints(text);
      this.data = rest;
      this.status = "completed";
      this.held.clear();
    } else if (event.type === "message.superseded") {
      this.withdrawn = this.text;
      Object.assign(this, { text: "", length: 0, data: {}, status: "superseded" });
      this.held.clear();
    } else if (this.status === "streaming") {
      if (event.type === "message.started") this.data = { ...data };
      if (event.type === "message.delta") this.place(data.offset, data.text);
    }
  }
}

export class Transcript {
  constructor() {
    this.cursor = 0;
    this.endedTurns = new Map();
    this.messages = new Map();
    /** Called with the id of a message that turns out never to have been said. */
    this.onDrop = () => {};
  }

  /** Messages in the order in which they were begun; ones known only live come last. */
  inOrder() {
    return [...this.messages.values()].sort((a, b) => (a.order ?? Infinity) - (b.order ?? Infinity) || 0);
  }

  /** The durable log up to `seq` holds nothing that is not here already. */
  advance(seq) {
    this.cursor = Math.max(this.cursor, seq);
  }

  /** Takes in a live delta; the message if it says something new, otherwise null. */
  place(delta) {
    if (this.endedTurns.has(delta.turn_id)) return null;
    const message = this.#message(delta);
    if (message.status !== "streaming") return null;
    const before = message.length;
    message.place(delta.data.offset, delta.data.text);
    return message.length > before ? message : null;
  }

  /** Takes in the next durable event; false if it was known (a repeat after a reconnect). */
  apply(event) {
    if (event.seq <= this.cursor) return false;
    this.cursor = event.seq;
    this.#end(event);
    this.older(event);
    return true;
  }

  /** Takes in an event from before those that are here: long sessions are read from their end. */
  older(event) {
    if (event.message_id && event.type.startsWith("message.")) this.#message(event).take(event);
  }

  #message({ message_id, actor, turn_id }) {
    if (!this.messages.has(message_id)) this.messages.set(message_id, new Message(message_id, actor, turn_id));
    return this.messages.get(message_id);
  }

  /** What an attempt has shown and never made durable (its process died) was never said. */
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
