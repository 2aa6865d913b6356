/** What operators do with a session: take it over, look after it, have the agent suggest a reply, and hand it back. */

import { h, isolate, messageOf, nameOf, setText } from "../dom.js";

const NO_SUGGESTION = {
  no_suggestions: "This agent suggests no replies.",
  agent_unavailable: "No process runs the agent now, or all are busy.",
  agent_lost: "The agent's process ended or hung.",
  suggestion_timeout: "The agent took too long.",
};
const MAX_REASON_CHARACTERS = 1_000;
const MAX_NOTE_CHARACTERS = 10_000;
const MAX_ID_CHARACTERS = 128;

/**
 * @typedef {import("../transcript.js").Actor} Actor
 * @typedef {import("../model.js").Suggestion} Suggestion
 * @typedef {{ api: import("../api.js").Api, sessionId: string, model: import("../model.js").SessionModel, composer: import("./composer.js").Composer, present: () => Actor[], onProblem: (error: unknown) => void,
 *   onDone: () => void, announce: (words: string) => void }} Page
 */

export class Handover {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    this.path = `/sessions/${page.sessionId}`;
    /** The request whose suggestion was used or dismissed. */
    this.done = 0;
    /** The request for which what is in the field was the wish, and that text. */
    this.wish = "";
    this.told = 0;
    this.actions = h("div", { class: "actions" });
    this.assignee = h("span", { class: "assignee", hidden: true });
    this.words = h("p", { class: "quiet-text", role: "status" });
    this.text = h("p", { class: "value", tabindex: "0" });
    this.use = h("button", { type: "button", class: "primary", onclick: () => this.#use() }, "Use");
    this.drop = h("button", { type: "button", onclick: () => this.#drop() }, "Dismiss");
    this.suggest = h("button", { type: "button", onclick: () => this.#suggest() }, "Suggest a reply");
    this.element = h("section", { class: "suggestion", "aria-label": "Suggested reply", hidden: true },
      h("div", {}, this.text, h("div", { class: "row" }, this.use, this.drop, this.suggest, this.words)));
  }

  /** The operator at this page. */
  get me() {
    return this.page.composer.noter;
  }

  update() {
    const { model } = this.page;
    const { assignedTo } = model;
    this.assignee.hidden = !assignedTo;
    setText(this.assignee, assignedTo ? (this.#isMe(assignedTo) ? "you look after it" : `${nameOf(assignedTo)} looks after it`) : "");
    this.#drawActions();
    this.#drawSuggestion();
  }

  /** @param {Actor | null} person */
  #isMe(person) {
    return Boolean(person && this.me?.subject === person.id);
  }

  // The header's buttons

  #drawActions() {
    const { model } = this.page;
    const { me } = this;
    const mine = this.#isMe(model.takenOverBy);
    /** @type {[string, (button: HTMLButtonElement) => unknown][]} */
    const wanted = [];
    if (me && !model.closed) {
      if (!model.participants.has(me.subject)) wanted.push(["Join", (button) => this.#do(button, "POST", "participants", {})]);
      else if (!mine) wanted.push(["Leave", (button) => this.#do(button, "DELETE", `participants/${encodeURIComponent(me.subject)}`)]);
      wanted.push(["Assign", () => this.#assign()]);
      wanted.push(mine ? ["Release", () => this.#release()] : ["Take over", () => this.#takeOver()]);
    }
    const shows = wanted.map(([name]) => name).join();
    if (this.actions.dataset.shows === shows) return;
    this.actions.dataset.shows = shows;
    this.actions.replaceChildren(...wanted.map(([name, act]) =>
      h("button", { type: "button", class: ["Take over", "Release"].includes(name) ? "primary" : null, onclick: (/** @type {Event} */ event) => act(/** @type {HTMLButtonElement} */ (event.currentTarget)) }, name)));
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {string} method
   * @param {string} what
   * @param {object} [body]
   */
  async #do(button, method, what, body) {
    button.disabled = true;
    this.page.onDone();
    try {
      await this.#call(method, what, body);
    } catch (error) {
      this.page.onProblem(error);
    } finally {
      button.disabled = false;
    }
  }

  /**
   * @param {string} method
   * @param {string} what
   * @param {object} [body]
   */
  async #call(method, what, body) {
    if (!this.me) throw new Error("Your sign-in is no operator's any more.");
    return this.page.api.as(this.me, method, `${this.path}/${what}`, body);
  }

  // Dialogs

  /** Another operator may take it, or give it back, while the dialog is open: then what it says is asked again. */
  #takeOver() {
    const { model, composer } = this.page;
    const holder = model.takenOverBy;
    const reason = h("input", { id: "takeover-reason", maxlength: String(MAX_REASON_CHARACTERS), autocomplete: "off", autofocus: true });
    ask({
      title: holder ? `${nameOf(holder)} has this session` : "Take over",
      words: holder ? `You take it from ${nameOf(holder)}, who can then neither speak nor hand it back.` : "The agent is stopped, and you speak in its place.",
      fields: [labelled("Reason, for staff only (optional)", reason)],
      confirm: holder ? `Take over from ${nameOf(holder)}` : "Take over",
      act: async () => {
        await this.#call("POST", "takeover", { reason: reason.value.trim() || null, instead_of: holder?.id });
        composer.speak();
      },
    });
  }

  #release() {
    const note = h("textarea", { id: "release-note", rows: "3", maxlength: String(MAX_NOTE_CHARACTERS) });
    const settled = h("input", { type: "radio", name: "how", value: "settled", checked: true, autofocus: true });
    const answers = h("input", { type: "radio", name: "how", value: "answer", onchange: () => note.focus() });
    ask({
      title: "Hand back to the agent",
      words: "What people have written and nobody has answered is answered by the agent.",
      fields: [
        h("fieldset", { class: "choices" }, h("legend", { class: "visually-hidden" }, "How"),
          h("label", { class: "check" }, settled, "It is settled"), h("label", { class: "check" }, answers, "Let the agent answer now")),
        labelled("Note to the agent and to staff", note),
      ],
      confirm: "Release",
      check: () => (answers.checked && !note.value.trim() ? "Write a note that tells the agent what to answer." : ""),
      act: () => this.#call("POST", "release", { note: note.value.trim() || undefined, answer: answers.checked || undefined }),
    });
  }

  #assign() {
    const { model, present } = this.page;
    const { me } = this;
    if (!me) return;
    /** @type {Map<string, Actor>} */
    const known = new Map();
    const others = [...model.participants.values(), ...present()].filter((one) => one.role === "operator");
    for (const one of [model.assignedTo, ...others]) if (one && one.id !== me.subject) known.set(one.id, one);
    const other = h("input", { id: "assignee-id", maxlength: String(MAX_ID_CHARACTERS), autocomplete: "off", spellcheck: "false", placeholder: "Their id", "aria-label": "Their id" });
    const who = h("select", { id: "assignee", autofocus: true, onchange: () => choose() },
      h("option", { value: `=${me.subject}` }, "Me"),
      ...[...known.values()].map((one) => h("option", { value: `=${one.id}` }, nameOf(one))),
      h("option", { value: "other" }, "Somebody else …"),
      h("option", { value: "nobody" }, "Nobody"));
    const choose = () => {
      other.hidden = who.value !== "other";
      other.required = !other.hidden;
    };
    choose();
    ask({
      title: "Who looks after this session?",
      words: "Staff alone see it, and find the session by it.",
      fields: [labelled("Operator", who), other],
      confirm: "Assign",
      act: () => {
        const id = who.value === "other" ? other.value.trim() : who.value.slice(1);
        const name = id === me.subject ? me.name : known.get(id)?.name;
        return this.#call("PUT", "assignee", { operator: who.value === "nobody" ? null : { id, role: "operator", ...(name ? { name } : {}) } });
      },
    });
  }

  // The suggested reply

  /** @returns {Suggestion | null} */
  get suggestion() {
    const { suggestion, takeoverSeq } = this.page.model;
    return suggestion && suggestion.asked > Math.max(this.done, takeoverSeq) ? suggestion : null;
  }

  #drawSuggestion() {
    const { model, announce } = this.page;
    const { suggestion } = this;
    this.element.hidden = model.closed || !this.#isMe(model.takenOverBy);
    const asking = suggestion?.became === "requested";
    const made = suggestion?.became === "made";
    this.text.hidden = this.use.hidden = !made;
    this.drop.hidden = !suggestion || asking;
    this.suggest.hidden = made === true;
    this.suggest.disabled = asking;
    setText(this.text, made ? suggestion.text : "");
    const failed = suggestion && !asking && !made;
    const words = asking ? "The agent drafts a reply …" : made ? "Suggested by the agent. Nobody else sees it." : failed ? noSuggestion(suggestion) : "";
    setText(this.words, words);
    if (suggestion && !asking && this.told !== suggestion.asked) {
      this.told = suggestion.asked;
      announce(made ? "The agent suggests a reply." : words);
    }
  }

  /** What is written already says what the reply should say. */
  async #suggest() {
    this.wish = this.page.composer.written;
    await this.#do(this.suggest, "POST", "suggestions", { text: this.wish || null });
    this.#drawSuggestion();
  }

  #use() {
    const { composer, onProblem, onDone } = this.page;
    const text = this.suggestion?.text ?? "";
    if (!composer.speak()) return onProblem(new Error("Add your note first, or clear it; then the suggestion can be used."));
    onDone();
    if (composer.written === this.wish) composer.replace(text);
    else composer.put(text);
    this.dismiss();
  }

  #drop() {
    this.dismiss();
    this.suggest.focus();
  }

  /** It has served: somebody has answered, or does without it. */
  dismiss() {
    this.done = this.page.model.suggestion?.asked ?? 0;
    this.#drawSuggestion();
  }
}

/** @param {Suggestion} suggestion */
function noSuggestion({ code }) {
  return NO_SUGGESTION[/** @type {keyof typeof NO_SUGGESTION} */ (code)] ?? "The agent ran into an error.";
}

/**
 * @param {string} words
 * @param {HTMLElement} field
 */
function labelled(words, field) {
  return h("div", { class: "entry-field" }, h("label", { for: field.id }, words), field);
}

/**
 * Asks for something in a dialog, which stays with what was entered until it is done or given up.
 * @param {{ title: string, words: string, fields: HTMLElement[], confirm: string, check?: () => string, act: () => Promise<unknown> }} wanted
 */
function ask({ title, words, fields, confirm, check = () => "", act }) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const button = h("button", { class: "primary" }, confirm);
  /** @param {string} said */
  const say = (said) => {
    setText(problem, isolate(said));
    problem.hidden = !said;
  };
  const form = h("form", { onsubmit: async (/** @type {Event} */ event) => {
    event.preventDefault();
    const wrong = check();
    say(wrong);
    if (wrong || button.disabled) return;
    button.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (error) {
      say(messageOf(error));
    } finally {
      button.disabled = false;
    }
  } }, h("h2", { id: "handover-title" }, title), h("p", { class: "quiet-text" }, words), ...fields, problem,
    h("div", { class: "row" }, button, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel")));
  const dialog = h("dialog", { class: "handover", "aria-labelledby": "handover-title" }, form);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
