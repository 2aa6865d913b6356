/** Questions and approvals as cards: what is asked, who may answer, the form, and what became of it. */

import { clean, h, isolate, nameOf, setText, time, visible } from "../dom.js";
import { dropDraft, keepDraft, readDraft } from "../drafts.js";
import { isExact, isObject, shown } from "../fields.js";
import { render } from "../markdown.js";
import { answerElement, valueElement } from "./answer.js";
import { deadlineLine, digestLine, facts, statusPill } from "./card.js";
import { Form } from "./form.js";

/** What somebody answers as, by the role of the credential. */
const ANSWERS_AS = { client: "user", service: "user", operator: "operator", approver: "approver" };
const KINDS = { question: "Question", choice: "Choice", form: "Form" };
const WITHDRAWN = { turn_stopped: "the agent was stopped", session_closed: "the session was closed" };
const MAX_SUMMARY_CHARACTERS = 80;
let count = 0;

/** Returns the credential that may answer a question, or null. */
export function answerer(api, sessionId, { kind, audience = {} }) {
  const { roles = [], ids = [] } = audience;
  return api.person("answer questions", sessionId, ({ role, subject }) =>
    (roles.includes(ANSWERS_AS[role]) || ids.includes(subject)) && !(kind === "approval" && role === "service"));
}

/** Returns a question in a few words, for titles and lists. */
export function summary({ prompt }) {
  const [line] = clean(prompt).replace(/\*\*|`|^#+ /g, "").trim().split("\n");
  return isolate(line.length > MAX_SUMMARY_CHARACTERS ? `${line.slice(0, MAX_SUMMARY_CHARACTERS)} …` : line);
}

function audienceText({ roles = [], ids = [] } = {}) {
  const who = [...roles.map((role) => `${role}s`), ...ids.map(isolate)];
  const last = who.pop();
  return who.length ? `${who.join(", ")} and ${last}` : last;
}

/** Returns what became of a question as one sentence, which is also announced. `isMe` tells who reads it by the id. */
export function outcomeText({ asked, outcome }, isMe) {
  const { type, actor, data, time: at } = outcome;
  const when = at ? ` at ${time(at)}` : "";
  if (type === "input.expired") return `Nobody answered in time; the question expired${when}.`;
  if (type === "input.withdrawn") return `Withdrawn${when}: ${WITHDRAWN[data.reason] ?? (data.reason ? isolate(data.reason) : "the agent no longer asks")}.`;
  const who = data.rule == null ? (isMe(actor.id) ? "You" : nameOf(actor)) : "A rule of this session";
  if (asked && asked.kind !== "approval") return `${who} answered${when}.`;
  const { decision, reason, arguments: edited } = data.value ?? {};
  const verb = decision === "approve" ? (edited ? "approved with other arguments" : "approved") : "rejected";
  return `${who} ${verb}${when}${reason ? `: ${isolate(reason)}` : "."}`;
}

function argumentFacts(given) {
  const names = Object.keys(given);
  return names.length ? facts(names.map((name) => [h("code", {}, visible(name)), valueElement(given[name])])) : h("p", { class: "quiet-text" }, "No arguments.");
}

/** What was answered, if anything was. Arguments are shown exactly: somebody is held to them. */
function answered({ asked, outcome }) {
  const { value } = outcome.data;
  if (outcome.type !== "input.answered") return null;
  if (asked?.kind === "approval") return value?.arguments ? argumentFacts(value.arguments) : null;
  return answerElement(asked ?? {}, value);
}

export function questionElement(context) {
  const card = new QuestionCard(context);
  return { element: card.element, update: (item) => card.update(item) };
}

class QuestionCard {
  constructor({ api, sessionId, onSent = () => {} }) {
    Object.assign(this, { api, sessionId, onSent, isMe: (id) => api.isMe(id), builds: null, status: null, sending: false });
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

  update(item) {
    this.item = item;
    if (this.builds !== (item.asked?.digest ?? "")) this.#build(item);
    const { status, outcome, asked } = item;
    this.#drawDeadline(asked, status === "open" ? asked?.deadline : undefined);
    const decision = outcome?.data.value?.decision;
    const shownStatus = asked?.kind !== "approval" ? status : { open: "undecided", answered: decision === "approve" ? "approved" : "rejected" }[status] ?? status;
    const pill = statusPill(shownStatus);
    if (pill.textContent !== this.pill.textContent) {
      this.pill.replaceWith(pill);
      this.pill = pill;
    }
    if (this.status === status) return;
    this.status = status;
    this.#turn(status === "open");
  }

  /** A question that was taken back and is asked again has a deadline of its own; one that is settled has none. */
  #drawDeadline(asked, deadline) {
    if (this.until === deadline) return;
    this.until = deadline;
    this.due.hidden = !deadline;
    this.due.replaceChildren(...(deadline ? [deadlineLine(deadline, asked.kind === "approval" ? "Decide" : "Answer")] : []));
  }

  /** What is asked never changes; only once is it drawn, so that nothing that is typed gets lost. */
  #build({ asked, agent }) {
    this.builds = asked?.digest ?? "";
    this.status = null;
    if (!asked) return this.element.replaceChildren(h("header", {}, h("h3", { id: this.promptId }, "Question"), this.pill), this.outcome);
    const isApproval = asked.kind === "approval";
    this.me = answerer(this.api, this.sessionId, asked);
    const prompt = h("div", { class: "text", id: this.promptId });
    // An approval's words are shown exactly as they are: they are what somebody is held to.
    if (isApproval) prompt.append(h("p", { class: "as-written" }, asked.prompt));
    else render(prompt, asked.prompt);
    this.element.replaceChildren(
      h("header", {}, h("h3", {}, isApproval ? ["Approval of ", h("code", {}, visible(asked.tool))] : KINDS[asked.kind] ?? "Question"), this.pill, h("small", {}, `${nameOf(agent)} asks`)),
      prompt,
      isApproval ? argumentFacts(asked.arguments) : "",
      this.body, this.outcome, this.problem, this.kept);
    this.body.replaceChildren(...this.#details(asked, isApproval).flat().filter(Boolean));
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

  #details(asked, isApproval) {
    const who = audienceText(asked.audience);
    return [
      isApproval && asked.editable && h("p", { class: "quiet-text" }, "Whoever approves may change the arguments."),
      isApproval && asked.schema && h("details", { class: "fold" }, h("summary", {}, "What the arguments may be"), h("pre", { tabindex: "0", "aria-label": "JSON Schema" }, visible(JSON.stringify(asked.schema, null, 2)))),
      h("p", { class: "quiet-text" }, this.me ? `${who[0].toUpperCase()}${who.slice(1)} may answer.` : `You can't answer this: only ${who} may.`),
      this.due,
      isApproval && digestLine(asked.digest),
      this.me && (isApproval ? this.#decision(asked) : this.#form(asked)),
    ];
  }

  #form(asked) {
    const schema = asked.choices ? { oneOf: asked.choices.map(({ value, label }) => ({ const: value, title: label ?? value })) } : asked.schema ?? { type: "string" };
    this.form = new Form(schema, this.promptId);
    this.buttons = [h("button", { type: "submit", class: "primary" }, "Answer")];
    return h("form", { novalidate: true, onsubmit: (event) => {
      event.preventDefault();
      const value = this.form.read();
      if (value !== undefined) this.#send(value);
    } }, this.form.element, h("div", { class: "row" }, ...this.buttons));
  }

  #decision(asked) {
    this.reason = h("input", { type: "text", maxlength: "1000", "aria-label": "Reason for a rejection", placeholder: "Reason (for a rejection)" });
    const approve = h("button", { type: "button", class: "primary", onclick: () => this.#approve(asked) }, "Approve exactly this");
    const reject = h("button", { type: "button", class: "danger", onclick: () => this.#send({ decision: "reject", ...(this.reason.value.trim() ? { reason: this.reason.value.trim() } : {}) }) }, "Reject");
    // Whoever sees a rounded number has not seen what they approve.
    if (!isExact(asked.arguments)) {
      this.buttons = [reject];
      return [h("p", { class: "problem" }, "A number in the arguments is too large for a browser to show exactly. Approve at the command line, or reject."), h("div", { class: "decide row" }, reject, this.reason)];
    }
    this.buttons = [approve, reject];
    const editor = h("div", { class: "editor", hidden: true });
    let edit = null;
    if (asked.editable) {
      this.toggleEditor = () => {
        this.form ??= editorOf(asked);
        if (!editor.firstChild) editor.append(this.form.element);
        editor.hidden = !editor.hidden;
        this.edits = !editor.hidden;
        edit.setAttribute("aria-expanded", String(this.edits));
        setText(edit, this.edits ? "Keep the arguments" : "Change the arguments");
        setText(approve, this.edits ? "Approve with these arguments" : "Approve exactly this");
      };
      edit = h("button", { type: "button", "aria-expanded": "false", onclick: () => this.toggleEditor() }, "Change the arguments");
      this.buttons.push(edit);
    }
    return h("div", { class: "decide" }, editor, h("div", { class: "row" }, approve, reject, edit, this.reason));
  }

  #approve(asked) {
    if (!this.edits) return this.#send({ decision: "approve" });
    const edited = this.form.read();
    if (edited === undefined) return undefined;
    if (!isObject(edited)) {
      this.form.refuse([{ at: "value", problem: "Arguments are an object: {…}." }]);
      return undefined;
    }
    return this.#send({ decision: "approve", ...(same(edited, asked.arguments) ? {} : { arguments: edited }) });
  }

  async #send(value) {
    if (this.sending) return;
    this.#busy(true);
    this.sent = value;
    this.problem.hidden = true;
    try {
      const path = `/sessions/${this.sessionId}/questions/${encodeURIComponent(this.item.id)}/answer`;
      await this.api.as(this.me, "POST", path, { value, digest: this.item.asked.digest });
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

  /** The buttons keep the focus meanwhile, which disabled ones would lose. */
  #busy(on) {
    this.sending = on;
    for (const button of this.buttons ?? []) on ? button.setAttribute("aria-disabled", "true") : button.removeAttribute("aria-disabled");
  }

  #refused(error) {
    let words = error.message;
    if (error.code === "invalid-answer" && this.form && error.errors.length) {
      // An approval's form has the arguments alone.
      const inForm = (at) => (this.item.asked.kind === "approval" ? at.replace(/^value\.arguments/, "value") : at);
      words = this.form.refuse(error.errors.map(({ at, problem }) => ({ at: inForm(at), problem })));
    } else if (error.settled) {
      const { outcome, value } = error.settled;
      // A form that was filled in is read on the card, which says by whom.
      const counts = value?.decision ?? value;
      words = `Your answer came too late. ${error.message}${outcome === "answered" && !isObject(counts) ? ` What counts is: ${isolate(shown(counts))}` : ""}`;
    }
    this.#say(words);
  }

  #say(words) {
    setText(this.problem, words);
    this.problem.hidden = !words;
  }

  /** Opens or closes the form. What was typed and not sent is kept where it can be read and copied. */
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
    this.outcome.replaceChildren(...[h("p", {}, outcomeText(item, this.isMe)), answered(item)].filter(Boolean));
    if (draft) this.kept.replaceChildren(h("summary", {}, "What you had written was not sent"), h("pre", { tabindex: "0", "aria-label": "What you had written" }, draft));
    if (!focused) return;
    element.setAttribute("tabindex", "-1");
    element.focus({ preventScroll: true });
  }

  #draft() {
    return [this.form?.dirty ? this.form.draft : "", this.reason?.value.trim() ?? ""].filter(Boolean).join("\n");
  }
}

/** The arguments in fields where the schema has one for each, and exactly these come out again; else as JSON. */
function editorOf({ schema, arguments: given }) {
  if (schema) {
    const form = new Form(schema, null, given);
    if (form.field.kind === "object" && same(form.peek(), given)) return form;
  }
  return new Form({ title: "Arguments, as JSON" }, null, given);
}

function same(one, other) {
  return JSON.stringify(sorted(one)) === JSON.stringify(sorted(other));
}

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  return isObject(value) ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, one]) => [name, sorted(one)])) : value;
}
