/** A question of an agent outside its session: what is asked, who asked for it and why, and the form. */

import { h, isolate, setText, visible } from "../dom.js";
import { facts } from "./card.js";
import { questionElement } from "./question.js";
import { drawReasons, followFor } from "./reasons.js";

export class QuestionPane {
  /**
   * @param {any} api
   * @param {string} sessionId
   * @param {string} questionId
   * @param {{ onDone: (words: string) => void }} options
   */
  constructor(api, sessionId, questionId, { onDone }) {
    this.api = api;
    this.sessionId = sessionId;
    this.questionId = questionId;
    this.heading = h("h2", { tabindex: "-1" });
    this.reasons = h("div", { class: "reasons", hidden: true });
    this.problem = h("p", { class: "problem", role: "status", hidden: true });
    this.about = h("details", { class: "fold" }, h("summary", {}, "Where it comes from"));
    const onSent = (/** @type {any} */ value) => onDone(this.#words(value));
    this.card = questionElement({ api, sessionId, onSent });
    this.element = h("div", { class: "decision" }, this.heading, this.reasons, this.problem, this.card.element, this.about);
    /** @type {any} */
    this.view = null;
    /** @type {any} */
    this.follow = null;
    this.stopped = false;
  }

  async start() {
    try {
      this.view = await this.api.get(`/sessions/${this.sessionId}/questions/${encodeURIComponent(this.questionId)}`);
    } catch (error) {
      setText(this.problem, /** @type {Error} */ (error).message);
      this.problem.hidden = false;
      return;
    }
    if (this.stopped) return;
    const { asked, agent, outcome } = this.view;
    const isTool = asked.kind === "approval";
    setText(this.heading, isTool ? `Let ${isolate(agent)} run ${isolate(visible(asked.tool))}?` : `${isolate(agent)} asks`);
    this.about.append(facts([["Agent", agent], ["Session", h("a", { href: `#/sessions/${this.sessionId}?at=${this.view.seq}` }, this.sessionId)], ["Question", this.questionId]]));
    if (!outcome) this.#update(null);
    // What has become of it, and of any that is settled now, the session says; it knows when and by whom.
    this.follow = followFor(this.api, this.sessionId, (model) => {
      const item = model.questions.get(this.questionId);
      if (item || !outcome) this.#update(item);
      drawReasons(this.reasons, model, this.view.turn_id, this.view.seq);
    });
  }

  stop() {
    this.stopped = true;
    this.follow?.stop();
  }

  /** @param {any} item as the session's model has it; without one, as it was asked */
  #update(item) {
    const { asked, agent, seq } = this.view;
    const base = { id: this.questionId, asked, agent: { id: agent, role: "agent" }, status: "open", outcome: null, seq };
    this.card.update(item ? { ...base, ...item, asked: item.asked ?? asked, agent: item.agent ?? base.agent } : base);
  }

  /** @param {any} value */
  #words(value) {
    const { asked, agent } = this.view;
    if (asked.kind !== "approval") return `Answered: ${isolate(agent)}`;
    return `${value.decision === "approve" ? "Approved" : "Rejected"}: ${isolate(visible(asked.tool))}`;
  }
}
