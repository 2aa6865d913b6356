/** Where people write, even while the agent runs, and where they stop it. */

import { Refusal } from "../api.js";
import { h, nameOf, setText, uuid } from "../dom.js";
import { MessageDraft } from "../drafts.js";

const MODES = /** @type {const} */ ([
  ["queue", "Queue", "Waits its turn"],
  ["interrupt", "Interrupt", "Stops the agent; this message is next"],
  ["steer", "Steer", "Offered to the agent while it keeps running"],
]);
/** Their keyboards have no Shift with Enter: there Enter starts a new line, and the button sends. */
const FINGERS = matchMedia("(hover: none) and (pointer: coarse)");
const STOP_WAIT_SECONDS = 10;
/** What did not arrive is sent again so often, after pauses that double. */
const MAX_SENT_AGAIN = 6;
const SEND_AGAIN_MS = 2_000;
/** Without an answer, or with one that says to come back, a message may have arrived: its id makes it safe to ask. */
const PASSING = new Set([0, 502, 503, 504]);
/** Safari reports the Enter that ends a composition after the composition: only this code tells it apart. */
const COMPOSING_KEY_CODE = 229;
/** @type {Record<string, string>} */
const SENT = { started: "Sent", queued: "Sent; waiting its turn", steered: "Offered to the agent", recorded: "Said in the agent's place", noted: "Noted" };
/** What becomes of a message while the agent waits for an answer. */
const WHILE_WAITING = {
  queue: "The agent waits for an answer. Your message waits behind it.",
  interrupt: "The agent waits for an answer. Your message stops it and withdraws the question.",
  steer: "The agent waits for an answer. It gets your message once it goes on.",
};
/** @type {Record<string, string>} */
const STOPPED = { stopped: "Stopped", already_finished: "It had already finished", pending: "The agent has not stopped yet; it will be ended", refused: "Not stopped" };

/** @typedef {typeof MODES[number][0]} Mode */

export class Composer {
  /**
   * @param {import("../api.js").Api} api
   * @param {string} sessionId
   * @param {import("../model.js").SessionModel} model
   * @param {{ onSend: (noting: boolean) => void, onProblem: (error: unknown) => void, onDone: () => void, announce: (words: string) => void }} page
   */
  constructor(api, sessionId, model, { onSend, onProblem, onDone, announce }) {
    this.api = api;
    this.sessionId = sessionId;
    this.model = model;
    this.onSend = onSend;
    this.onProblem = onProblem;
    this.onDone = onDone;
    this.announce = announce;
    this.path = /** @type {const} */ (`/sessions/${sessionId}`);
    /** @type {string | null} */
    this.messageId = null;
    /** @type {import("../drafts.js").Sent | null} */
    this.leaving = null;
    /** @type {{ messageId: string, count: number, timer: ReturnType<typeof setTimeout> } | null} */
    this.again = null;
    this.next = false;
    this.sending = false;
    this.stopping = false;
    /** Whether this session is not to be read here. */
    this.refused = false;
    /** What is said below the field, as long as it holds. @type {{ word: string, holds: () => boolean } | null} */
    this.told = null;
    this.text = h("textarea", { id: "message", rows: "1", placeholder: "Write a message", "aria-describedby": "composer-hint",
      oninput: () => this.#grow(), onkeydown: (event) => this.#onKey(event) });
    this.modes = h("fieldset", { class: "modes", hidden: true, onchange: () => this.update() }, h("legend", { class: "visually-hidden" }, "While the agent runs"),
      ...MODES.map(([value, label, hint], index) => h("label", { title: hint }, h("input", { type: "radio", name: "mode", value, checked: index === 0 }), h("span", {}, label))));
    this.noting = false;
    this.note = h("button", { type: "button", class: "note-mode", "aria-pressed": "false", hidden: true, title: "What you write is for staff only", onclick: () => {
      this.#write(!this.noting);
      this.text.focus();
    } }, "Note");
    this.send = h("button", { type: "submit", class: "primary" }, "Send");
    this.stop = h("button", { type: "button", class: "danger stop", hidden: true, onclick: () => this.#stop() }, "Stop");
    this.hint = h("p", { id: "composer-hint", class: "hint" });
    this.element = h("form", { class: "composer", onsubmit: (event) => this.#onSubmit(event) },
      h("label", { for: "message", class: "visually-hidden" }, "Message"),
      h("div", { class: "field" }, this.text, h("div", { class: "buttons" }, this.stop, this.send)),
      h("div", { class: "below" }, this.modes, this.note, this.hint));
    this.draft = new MessageDraft(api.people[0]?.subject, sessionId);
  }

  /** Puts back what was written here and not sent; the page must have the element, for its height. */
  restore() {
    const { text, messageId, note } = this.draft.read();
    if (!text || this.text.value) return;
    this.text.value = text;
    // A note must never come back as a message.
    if (note) this.#write(true);
    this.#grow();
    this.messageId = messageId;
    this.#keep();
  }

  #keep() {
    this.draft.save({ text: this.text.value, messageId: this.messageId, leaving: this.leaving, note: this.noting });
  }

  /** The person who writes here: the operator who has taken over, else the first who may send, else null. */
  get speaker() {
    const { takenOverBy } = this.model;
    const { api, sessionId } = this;
    // A customer may have the same id, or be the same person in another role.
    const speaking = takenOverBy && api.people.find((person) => person.role === "operator" && person.subject === takenOverBy.id);
    // An operator may speak only after taking over.
    return speaking ?? api.person("send", sessionId, (person) => person.role !== "operator");
  }

  /** The operator whose notes are written here, else null. */
  get noter() {
    return this.api.person("write notes for staff", this.sessionId, (person) => person.role === "operator");
  }

  /**
   * Notes or messages: that stays until somebody changes it, so that no note goes to a customer by mistake.
   * @param {boolean} noting
   */
  #write(noting) {
    this.noting = noting;
    this.element.classList.toggle("noting", noting);
    this.note.setAttribute("aria-pressed", String(noting));
    this.text.placeholder = noting ? "Write a note for staff" : "Write a message";
    setText(this.send, noting ? "Add note" : "Send");
    this.#grow();
    this.update();
  }

  /** Writes messages from now on, unless a note is in the field: that must not become one. Returns whether it does. */
  speak() {
    if (this.noting && !this.text.value.trim() && !this.sending) this.#write(false);
    return !this.noting;
  }

  /** What is written as a message and not sent yet. */
  get written() {
    return this.noting ? "" : this.text.value.trim();
  }

  update() {
    const { model } = this;
    if (this.messageId && !this.sending && model.transcript.messages.has(this.messageId)) this.#arrived();
    const running = model.running.length > 0;
    const stopping = model.running.some((turn) => turn.status === "stopping");
    this.modes.hidden = !running || model.takenOverBy !== null || this.noting || !this.speaker;
    this.note.hidden = !this.noter && !this.noting;
    // What could not be sent comes back into the field, and must find it as it was.
    this.note.disabled = this.sending;
    // Interrupting must be chosen anew each time.
    if (this.modes.hidden) this.#resetMode();
    this.stop.hidden = !(running && this.api.may("send"));
    this.stop.disabled = this.stopping || stopping;
    setText(this.stop, this.stop.disabled ? "Stopping …" : "Stop");
    this.text.disabled = model.closed || this.refused || !(this.noting ? this.noter : this.speaker);
    this.send.disabled = this.text.disabled || this.sending;
    setText(this.hint, this.#hint(running));
  }

  /** What was thought lost has arrived after all. */
  #arrived() {
    this.text.value = "";
    this.#grow();
  }

  /** @param {boolean} running */
  #hint(running) {
    const { model } = this;
    if (this.refused) return "";
    if (model.closed) return "This session has ended.";
    const word = this.told?.holds() ? this.told.word : "";
    if (this.noting) return word || "Operators and the agent see notes, nobody else.";
    if (!this.speaker) return model.takenOverBy ? `${nameOf(model.takenOverBy)} speaks in the agent's place.` : this.api.may("take over") ? "Take over to speak here." : "You can only read here.";
    if (model.takenOverBy && this.speaker.role === "operator") return "You speak in the agent's place.";
    if (model.takenOverBy) return `${nameOf(model.takenOverBy)} answers in the agent's place; what nobody answers is kept for the agent.`;
    if (word) return word;
    if (running && model.waiting) return WHILE_WAITING[this.#mode()];
    return running || FINGERS.matches ? "" : "Enter sends, Shift+Enter starts a new line.";
  }

  /** @returns {Mode} */
  #mode() {
    const chosen = new FormData(this.element).get("mode");
    return MODES.find(([value]) => !this.modes.hidden && value === chosen)?.[0] ?? "queue";
  }

  #resetMode() {
    const first = this.modes.querySelector("input");
    if (first) first.checked = true;
  }

  #grow() {
    this.messageId = null;
    this.told = null;
    this.#keep();
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight}px`;
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.key !== "Enter" || event.shiftKey || (FINGERS.matches && !event.ctrlKey && !event.metaKey) || event.isComposing || event.keyCode === COMPOSING_KEY_CODE) return;
    event.preventDefault();
    this.element.requestSubmit();
  }

  /** @param {Event} event */
  async #onSubmit(event) {
    event.preventDefault();
    const text = this.text.value.trim();
    // Pressed while the message before is under way: this one follows it.
    this.next = this.sending;
    const person = this.noting ? this.noter : this.speaker;
    if (!text || this.sending || !person) return;
    this.sending = true;
    this.update();
    // The id stays the same until the message has arrived, so that sending it again doesn't repeat it.
    this.messageId ??= `m-${uuid()}`;
    const { messageId, noting } = this;
    const mode = this.#mode();
    // Anything typed while it is being sent belongs to the next message.
    this.text.value = "";
    this.leaving = { text, messageId };
    this.#grow();
    this.onSend(noting);
    try {
      const status = noting
        ? await this.api.as(person, "POST", `${this.path}/notes`, { text, note_id: messageId }).then(() => "noted")
        : await this.#sendMessage(person, messageId, text, mode);
      this.leaving = null;
      this.#keep();
      this.onDone();
      // What is chosen counts for one message.
      this.#resetMode();
      this.again = null;
      const waits = status === "queued";
      this.#tell(waits && this.model.waiting ? "Sent; it waits until the agent has its answer" : SENT[status] ?? "Sent", () => noting || this.#isFresh(messageId, waits));
    } catch (error) {
      const more = this.text.value;
      this.text.value = more ? `${text}\n${more}` : text;
      this.leaving = null;
      this.#grow();
      if (!more) this.messageId = messageId;
      this.#keep();
      this.next = false;
      this.onProblem(error);
      if (!more && error instanceof Refusal && PASSING.has(error.status)) this.#sendAgainLater(messageId);
    } finally {
      this.sending = false;
      this.update();
      // The button that was pressed can't hold the focus while it is disabled.
      if (document.activeElement === document.body) this.text.focus();
    }
    if (this.next) this.element.requestSubmit();
  }

  /**
   * Returns what became of it.
   * @param {import("../api.js").Person} person
   * @param {string} messageId
   * @param {string} text
   * @param {Mode} mode
   * @param {object} [data]
   */
  async #sendMessage(person, messageId, text, mode, data) {
    const { status } = await this.api.as(person, "POST", `${this.path}/messages`, { text, data, message_id: messageId, on_busy: mode });
    return status;
  }

  /**
   * Whether a message that was sent has not been answered yet, or begun to be.
   * @param {string} messageId
   * @param {boolean} waits
   */
  #isFresh(messageId, waits) {
    const turn = this.model.turnAnswering(messageId);
    return !turn || turn.status === "queued" || (!waits && turn.status === "running" && !this.model.waiting);
  }

  /** @param {string} messageId */
  #sendAgainLater(messageId) {
    const { again } = this;
    const count = again?.messageId === messageId ? again.count : 0;
    if (count >= MAX_SENT_AGAIN) return;
    this.again = { messageId, count: count + 1, timer: setTimeout(() => this.sendAgain(), SEND_AGAIN_MS * 2 ** count) };
    this.#tell("Not sent yet; it is sent again by itself");
  }

  /** Sends what did not arrive, unless it has been changed since: then it waits for the person. */
  sendAgain() {
    clearTimeout(this.again?.timer);
    if (this.again && this.again.messageId === this.messageId && !this.sending) this.element.requestSubmit();
  }

  leave() {
    clearTimeout(this.again?.timer);
  }

  /**
   * Puts a text before what is in the field.
   * @param {string} text
   */
  put(text) {
    this.text.value = [text, this.text.value].filter(Boolean).join("\n");
    this.#grow();
    this.text.focus();
  }

  /**
   * Puts a text in the place of what is in the field.
   * @param {string} text
   */
  replace(text) {
    this.text.value = "";
    this.put(text);
  }

  /**
   * Sends a text by the field, unless somebody is writing there: then it is put before that.
   * @param {string} text
   */
  begin(text) {
    const empty = this.speak() && !this.text.value.trim();
    if (empty) this.replace(text);
    else this.put(text);
    if (empty) this.element.requestSubmit();
  }

  /**
   * Sends a text that isn't in the field, once under this id.
   * @param {string} messageId
   * @param {string} text
   * @param {object} [data]
   * @param {Mode} [mode]
   */
  async sendOnce(messageId, text, data = {}, mode = "queue") {
    const { speaker } = this;
    if (!speaker) throw new Refusal(403, { detail: "None of your roles may send here." });
    await this.#sendMessage(speaker, messageId, text, mode, data);
    this.onDone();
  }

  stopByKey() {
    if (!this.stop.hidden && !this.stop.disabled) this.#stop();
  }

  async #stop() {
    this.stopping = true;
    this.update();
    try {
      const answer = await this.api.call("send", "POST", `${this.path}/stop`, { request_id: `stop-${uuid()}`, wait_seconds: STOP_WAIT_SECONDS });
      this.onDone();
      this.#tell(STOPPED[answer.outcome] ?? answer.outcome);
    } catch (error) {
      this.onProblem(error);
    } finally {
      this.stopping = false;
      this.update();
    }
  }

  /**
   * Says something below the field, as long as it is true.
   * @param {string} word
   */
  #tell(word, holds = () => true) {
    this.told = { word, holds };
    this.announce(word);
    this.update();
  }
}
