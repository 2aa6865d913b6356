/** Questions and approvals as cards: what is asked, who may answer, the form, and what became of it. */

import { Refusal } from "../api.js";
import { clean, h, isolate, messageOf, nameOf, setText, time, visible } from "../dom.js";
import { dropDraft, keepDraft, readDraft } from "../drafts.js";
import { isExact, isObject, shown } from "../fields.js";
import { render } from "../markdown.js";
import { answerElement, valueElement } from "./answer.js";
import { deadlineLine, digestLine, facts, statusPill } from "./card.js";
import { Form } from "./form.js";

/**
 * @typedef {import("../api.js").Api} Api
 * @typedef {import("../transcript.js").Question} Question
 * @typedef {import("../transcript.js").ToolApproval} ToolApproval
 * @typedef {import("../transcript.js").Asked} Asked
 * @typedef {Pick<import("../model.js").Item<"question">, "id" | "asked" | "agent" | "status" | "outcome">} Item A question and what became of it.
 */

/** What somebody answers as, by the role of the credential. @type {Record<string, string>} */
const ANSWERS_AS = { client: "user", service: "user", operator: "operator", approver: "approver" };
const KINDS = { question: "Question", choice: "Choice", form: "Form" };
/** @type {Record<string, string>} */
const WITHDRAWN = { turn_stopped: "the agent was stopped", session_closed: "the session was closed" };
const MAX_SUMMARY_CHARACTERS = 80;
let count = 0;

/**
 * Returns the credential that may answer a question, or null.
 * @param {Api} api
 * @param {string} sessionId
 * @param {Asked} asked
 */
export function answerer(api, sessionId, { kind, audience = {} }) {
  const { roles = [], ids = [] } = audience;
  return api.person("answer questions", sessionId, ({ role, subject }) =>
    (roles.includes(ANSWERS_AS[role]) || ids.includes(subject)) && !(kind === "approval" && role === "service"));
}

/**
 * Returns a question in a few words, for titles and lists.
 * @param {{ prompt: string }} asked
 */
export function summary({ prompt }) {
  const [line] = clean(prompt).replace(/\*\*|`|^#+ /g, "").trim().split("\n");
  return isolate(line.length > MAX_SUMMARY_CHARACTERS ? `${line.slice(0, MAX_SUMMARY_CHARACTERS)} …` : line);
}

/** @param {import("../transcript.js").Audience} [audience] */
function audienceText({ roles = [], ids = [] } = {}) {
  const who = [...roles.map((role) => `${role}s`), ...ids.map(isolate)];
  const last = who.pop() ?? "nobody";
  return who.length ? `${who.join(", ")} and ${last}` : last;
}

/**
 * What was decided on an approval.
 * @param {Item["outcome"]} outcome
 */
function decided(outcome) {
  const value = outcome?.type === "input.answered" ? outcome.data.value : null;
  return isObject(value) ? value : {};
}

/**
 * Returns what became of a question as one sentence, which is also announced. `isMe` tells who reads it by the id.
 * @param {NonNullable<Item["outcome"]>} outcome
 * @param {Asked | undefined} asked
 * @param {(id: string) => boolean} isMe
 */
export function outcomeText(outcome, asked, isMe) {
  const when = outcome.time ? ` at ${time(outcome.time)}` : "";
  if (outcome.type === "input.expired") return `Nobody answered in time; the question expired${when}.`;
  if (outcome.type === "input.withdrawn") {
    const why = outcome.data.reason ?? "";
    return `Withdrawn${when}: ${WITHDRAWN[why] ?? (isolate(why) || "the agent no longer asks")}.`;
  }
  const who = outcome.data.rule == null ? (isMe(outcome.actor.id) ? "You" : nameOf(outcome.actor)) : "A rule of this session";
  if (asked && asked.kind !== "approval") return `${who} answered${when}.`;
  const { decision, reason, arguments: edited } = decided(outcome);
  const verb = decision === "approve" ? (edited ? "approved with other arguments" : "approved") : "rejected";
  return `${who} ${verb}${when}${typeof reason === "string" && reason ? `: ${isolate(reason)}` : "."}`;
}

/** @param {Record<string, unknown>} given */
function argumentFacts(given) {
  const names = Object.keys(given);
  return names.length ? facts(names.map(/** @returns {import("./card.js").Fact} */ (name) => [h("code", {}, visible(name)), valueElement(given[name])])) : h("p", { class: "quiet-text" }, "No arguments.");
}

/**
 * What was answered, if anything was. Arguments are shown exactly: somebody is held to them.
 * @param {NonNullable<Item["outcome"]>} outcome
 * @param {Asked} [asked]
 */
function answered(outcome, asked) {
  if (outcome.type !== "input.answered") return null;
  const { value } = outcome.data;
  if (asked?.kind === "approval") {
    const edited = decided(outcome).arguments;
    return isObject(edited) ? argumentFacts(edited) : null;
  }
  return answerElement(asked ?? {}, value);
}

/**
 * @typedef {{ api: Api, sessionId: string, onSent?: (value: unknown) => void }} Context
 * @param {Context} context
 */
export function questionElement(context) {
  const card = new QuestionCard(context);
  return { element: card.element, update: (/** @type {Item} */ item) => card.update(item) };
}

class QuestionCard {
  /** @param {Context} context */
  constructor({ api, sessionId, onSent = () => {} }) {
    this.api = api;
    this.sessionId = sessionId;
    this.onSent = onSent;
    /** @type {Item} */
    this.item = { id: "", status: "", outcome: null };
    /** The digest of what is drawn. @type {string | null} */
    this.builds = null;
    /** @type {string | null} */
    this.status = null;
    this.sending = false;
    /** The value that was sent from here. @type {unknown} */
    this.sent = undefined;
    /** Who may answer here. @type {import("../api.js").Person | null} */
    this.me = null;
    /** @type {Form | null} */
    this.form = null;
    /** @type {HTMLInputElement | null} */
    this.reason = null;
    /** Whether other arguments are being written. */
    this.edits = false;
    /** @type {(() => void) | null} */
    this.toggleEditor = null;
    /** @type {HTMLButtonElement[]} */
    this.buttons = [];
    /** The deadline that is drawn. @type {string | undefined} */
    this.until = undefined;
    this.promptId = `question-${(count += 1)}`;
    this.element = h("article", { class: "card question", "aria-labelledby": this.promptId });
    this.pill = h("span", {});
    this.due = h("div", { hidden: true });
    this.body = h("div", { class: "asked-for" });
    this.outcome = h("div", { class: "outcome", hidden: true });
    this.kept = h("details", { class: "fold", hidden: true, open: true });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    for (const typed of ["input", "click"]) this.body.addEventListener(typed, () => this.#keep());
  }

  /** @param {Item} item */
  update(item) {
    this.item = item;
    if (this.builds !== (item.asked?.digest ?? "")) this.#build(item);
    const { status, outcome, asked } = item;
    this.#drawDeadline(asked, status === "open" ? asked?.deadline : undefined);
    const pill = statusPill(asked?.kind === "approval" ? decisionStatus(status, outcome) : status);
    if (pill.textContent !== this.pill.textContent) {
      this.pill.replaceWith(pill);
      this.pill = pill;
    }
    if (this.status === status) return;
    this.status = status;
    this.#turn(status === "open");
  }

  /**
   * A question that was taken back and is asked again has a deadline of its own; one that is settled has none.
   * @param {Asked | undefined} asked
   * @param {string | undefined} deadline
   */
  #drawDeadline(asked, deadline) {
    if (this.until === deadline) return;
    this.until = deadline;
    this.due.hidden = !deadline;
    this.due.replaceChildren(...(deadline ? [deadlineLine(deadline, asked?.kind === "approval" ? "Decide" : "Answer")] : []));
  }

  /**
   * What is asked never changes; only once is it drawn, so that nothing that is typed gets lost.
   * @param {Item} item
   */
  #build({ asked, agent }) {
    this.builds = asked?.digest ?? "";
    this.status = null;
    if (!asked) return this.element.replaceChildren(h("header", {}, h("h3", { id: this.promptId }, "Question"), this.pill), this.outcome);
    const approval = asked.kind === "approval" ? asked : null;
    this.me = answerer(this.api, this.sessionId, asked);
    const prompt = h("div", { class: "text", id: this.promptId });
    // An approval's words are shown exactly as they are: they are what somebody is held to.
    if (approval) prompt.append(h("p", { class: "as-written" }, asked.prompt));
    else render(prompt, asked.prompt);
    this.element.replaceChildren(
      h("header", {}, h("h3", {}, asked.kind === "approval" ? ["Approval of ", h("code", {}, visible(asked.tool))] : KINDS[asked.kind] ?? "Question"), this.pill, h("small", {}, `${nameOf(agent)} asks`)),
      prompt,
      approval ? argumentFacts(approval.arguments) : "",
      this.body, this.outcome, this.problem, this.kept);
    this.body.replaceChildren(...this.#details(asked).filter((one) => one instanceof Node));
    this.#takeUp();
  }

  /** What was typed here before the page was loaded again; the digest says that the same is asked. */
  get #draftKey() {
    return `${this.me?.subject}.${this.sessionId}.${this.item.id}.${this.item.asked?.digest}`;
  }

  #takeUp() {
    const draft = this.me ? readDraft(this.#draftKey) : null;
    if (!draft) return;
    try {
      if (this.reason) this.reason.value = draft.reason ?? "";
      if (draft.edits) this.toggleEditor?.();
      if (draft.form && this.form) this.form.restore(draft.form);
    } catch {
      // Another release has drawn another form.
      dropDraft(this.#draftKey);
    }
  }

  #keep() {
    if (this.status !== "open") return;
    const form = this.form?.dirty ? this.form.sketch() : null;
    const reason = this.reason?.value ?? "";
    if (form || reason || this.edits) keepDraft(this.#draftKey, { form, reason, edits: this.edits ?? false });
    else dropDraft(this.#draftKey);
  }

  /** @param {Asked} asked */
  #details(asked) {
    const who = audienceText(asked.audience);
    const approval = asked.kind === "approval" ? asked : null;
    return [
      approval?.editable && h("p", { class: "quiet-text" }, "Whoever approves may change the arguments."),
      approval?.schema && h("details", { class: "fold" }, h("summary", {}, "What the arguments may be"), h("pre", { tabindex: "0", "aria-label": "JSON Schema" }, visible(JSON.stringify(approval.schema, null, 2)))),
      h("p", { class: "quiet-text" }, this.me ? `${who[0].toUpperCase()}${who.slice(1)} may answer.` : `You can't answer this: only ${who} may.`),
      this.due,
      approval && digestLine(approval.digest),
      ...(this.me ? (asked.kind === "approval" ? this.#decision(asked) : [this.#form(asked)]) : []),
    ];
  }

  /** @param {Question} asked */
  #form(asked) {
    /** @type {object} */
    const schema = asked.choices ? { oneOf: asked.choices.map(({ value, label }) => ({ const: value, title: label ?? value })) } : asked.schema ?? { type: "string" };
    const form = new Form(schema, this.promptId);
    this.form = form;
    this.buttons = [h("button", { type: "submit", class: "primary" }, "Answer")];
    return h("form", { novalidate: true, onsubmit: (event) => {
      event.preventDefault();
      const value = form.read();
      if (value !== undefined) this.#send(value);
    } }, form.element, h("div", { class: "row" }, ...this.buttons));
  }

  /** @param {ToolApproval} asked */
  #decision(asked) {
    const reason = h("input", { type: "text", maxlength: "1000", "aria-label": "Reason for a rejection", placeholder: "Reason (for a rejection)" });
    this.reason = reason;
    const approve = h("button", { type: "button", class: "primary", onclick: () => this.#approve(asked) }, "Approve exactly this");
    const reject = h("button", { type: "button", class: "danger", onclick: () => this.#send({ decision: "reject", ...(reason.value.trim() ? { reason: reason.value.trim() } : {}) }) }, "Reject");
    // Whoever sees a rounded number has not seen what they approve.
    if (!isExact(asked.arguments)) {
      this.buttons = [reject];
      return [h("p", { class: "problem" }, "A number in the arguments is too large for a browser to show exactly. Approve at the command line, or reject."), h("div", { class: "decide row" }, reject, reason)];
    }
    this.buttons = [approve, reject];
    const editor = h("div", { class: "editor", hidden: true });
    const edit = h("button", { type: "button", "aria-expanded": "false", onclick: () => toggle() }, "Change the arguments");
    const toggle = () => {
      this.form ??= editorOf(asked);
      if (!editor.firstChild) editor.append(this.form.element);
      editor.hidden = !editor.hidden;
      this.edits = !editor.hidden;
      edit.setAttribute("aria-expanded", String(this.edits));
      setText(edit, this.edits ? "Keep the arguments" : "Change the arguments");
      setText(approve, this.edits ? "Approve with these arguments" : "Approve exactly this");
    };
    if (asked.editable) {
      this.toggleEditor = toggle;
      this.buttons.push(edit);
    }
    return [h("div", { class: "decide" }, editor, h("div", { class: "row" }, approve, reject, asked.editable && edit, reason))];
  }

  /** @param {ToolApproval} asked */
  #approve(asked) {
    if (!this.edits || !this.form) return this.#send({ decision: "approve" });
    const edited = this.form.read();
    if (edited === undefined) return undefined;
    if (!isObject(edited)) {
      this.form.refuse([{ at: "value", problem: "Arguments are an object: {…}." }]);
      return undefined;
    }
    return this.#send({ decision: "approve", ...(same(edited, asked.arguments) ? {} : { arguments: edited }) });
  }

  /** @param {unknown} value */
  async #send(value) {
    const { me, item } = this;
    if (this.sending || !me) return;
    this.#busy(true);
    this.sent = value;
    this.problem.hidden = true;
    try {
      const path = `/sessions/${this.sessionId}/questions/${encodeURIComponent(item.id)}/answer`;
      await this.api.as(me, "POST", path, { value, digest: item.asked?.digest });
      // The event that says so closes the form; it may be here already.
      this.onSent(value);
    } catch (error) {
      this.#busy(false);
      if (!this.#isMine()) this.#refused(error);
    }
  }

  /** Whether what counts is what was sent from here. */
  #isMine() {
    const { outcome } = this.item;
    return outcome?.type === "input.answered" && this.sent !== undefined && this.api.isMe(outcome.actor.id) && same(outcome.data.value, this.sent);
  }

  /**
   * The buttons keep the focus meanwhile, which disabled ones would lose.
   * @param {boolean} on
   */
  #busy(on) {
    this.sending = on;
    for (const button of this.buttons) on ? button.setAttribute("aria-disabled", "true") : button.removeAttribute("aria-disabled");
  }

  /** @param {unknown} error */
  #refused(error) {
    let words = messageOf(error);
    if (!(error instanceof Refusal)) return this.#say(words);
    if (error.code === "invalid-answer" && this.form && error.errors.length) {
      // An approval's form has the arguments alone.
      const inForm = (/** @type {string} */ at) => (this.item.asked?.kind === "approval" ? at.replace(/^value\.arguments/, "value") : at);
      words = this.form.refuse(error.errors.map(({ at, problem }) => ({ at: inForm(at), problem })));
    } else if (error.settled) {
      const { outcome, value } = error.settled;
      // A form that was filled in is read on the card, which says by whom.
      const counts = isObject(value) ? value.decision ?? value : value;
      words = `Your answer came too late. ${error.message}${outcome === "answered" && !isObject(counts) ? ` What counts is: ${isolate(shown(counts))}` : ""}`;
    }
    this.#say(words);
  }

  /** @param {string} words */
  #say(words) {
    setText(this.problem, words);
    this.problem.hidden = !words;
  }

  /**
   * Opens or closes the form. What was typed and not sent is kept where it can be read and copied.
   * @param {boolean} open
   */
  #turn(open) {
    const { item, element } = this;
    const focused = this.body.contains(document.activeElement);
    const mine = this.#isMine();
    const draft = open || mine ? "" : this.#draft();
    this.body.hidden = !open;
    this.outcome.hidden = open;
    this.kept.hidden = !draft;
    this.#busy(false);
    if (open) return;
    dropDraft(this.#draftKey);
    if (mine) this.problem.hidden = true;
    const { outcome, asked } = item;
    if (outcome) this.outcome.replaceChildren(h("p", {}, outcomeText(outcome, asked, (id) => this.api.isMe(id))), answered(outcome, asked) ?? "");
    if (draft) this.kept.replaceChildren(h("summary", {}, "What you had written was not sent"), h("pre", { tabindex: "0", "aria-label": "What you had written" }, draft));
    if (!focused) return;
    element.setAttribute("tabindex", "-1");
    element.focus({ preventScroll: true });
  }

  #draft() {
    return [this.form?.dirty ? this.form.draft : "", this.reason?.value.trim() ?? ""].filter(Boolean).join("\n");
  }
}

/**
 * What an approval is, from what was decided.
 * @param {string} status
 * @param {Item["outcome"]} outcome
 */
function decisionStatus(status, outcome) {
  if (status === "open") return "undecided";
  if (status !== "answered") return status;
  return decided(outcome).decision === "approve" ? "approved" : "rejected";
}

/**
 * The arguments in fields where the schema has one for each, and exactly these come out again; else as JSON.
 * @param {ToolApproval} asked
 */
function editorOf({ schema, arguments: given }) {
  if (schema) {
    const form = new Form(schema, null, given);
    if (form.field.kind === "object" && same(form.peek(), given)) return form;
  }
  return new Form({ title: "Arguments, as JSON" }, null, given);
}

/**
 * @param {unknown} one
 * @param {unknown} other
 */
function same(one, other) {
  return JSON.stringify(sorted(one)) === JSON.stringify(sorted(other));
}

/**
 * @param {unknown} value
 * @returns {unknown}
 */
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  return isObject(value) ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, one]) => [name, sorted(one)])) : value;
}
