/** A question of an agent outside its session: what is asked, who asked for it and why, and the form. */

import { h, isolate, messageOf, setText, visible } from "../dom.js";
import { isObject } from "../fields.js";
import { facts } from "./card.js";
import { questionElement } from "./question.js";
import { drawReasons, followFor } from "./reasons.js";

export class QuestionPane {
  /**
   * @param {import("../api.js").Api} api
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
    const onSent = (/** @type {unknown} */ value) => onDone(this.#words(value));
    this.card = questionElement({ api, sessionId, onSent });
    this.element = h("div", { class: "decision" }, this.heading, this.reasons, this.problem, this.card.element, this.about);
    /** @type {import("../api.js").QuestionView | null} */
    this.view = null;
    /** @type {import("../follow.js").Follow | null} */
    this.follow = null;
    this.stopped = false;
  }

  async start() {
    try {
      const view = await this.api.get(`/sessions/${this.sessionId}/questions/${encodeURIComponent(this.questionId)}`);
      if (!this.stopped) this.#show(view);
    } catch (error) {
      setText(this.problem, messageOf(error));
      this.problem.hidden = false;
    }
  }

  /** @param {import("../api.js").QuestionView} view */
  #show(view) {
    this.view = view;
    const { asked, agent, outcome } = view;
    setText(this.heading, asked.kind === "approval" ? `Let ${isolate(agent)} run ${isolate(visible(asked.tool))}?` : `${isolate(agent)} asks`);
    this.about.append(facts([["Agent", agent], ["Session", h("a", { href: `#/sessions/${this.sessionId}?at=${view.seq}` }, this.sessionId)], ["Question", this.questionId]]));
    if (!outcome) this.#update(view);
    // What has become of it, and of any that is settled now, the session says; it knows when and by whom.
    this.follow = followFor(this.api, this.sessionId, (model) => {
      const item = model.questions.get(this.questionId);
      if (item || !outcome) this.#update(view, item);
      drawReasons(this.reasons, model, view.turn_id, view.seq);
    });
  }

  stop() {
    this.stopped = true;
    this.follow?.stop();
  }

  /**
   * @param {import("../api.js").QuestionView} view
   * @param {import("../model.js").Item<"question">} [item] as the session's model has it; without one, as it was asked
   */
  #update({ asked, agent }, item) {
    const base = { id: this.questionId, asked, agent: { id: agent, role: "agent" }, status: "open", outcome: null };
    this.card.update(item ? { ...base, ...item, asked: item.asked ?? asked, agent: item.agent ?? base.agent } : base);
  }

  /** @param {unknown} value */
  #words(value) {
    if (this.view?.asked.kind !== "approval") return `Answered: ${isolate(this.view?.agent ?? "")}`;
    const { asked } = this.view;
    return `${isObject(value) && value.decision === "approve" ? "Approved" : "Rejected"}: ${isolate(visible(asked.tool))}`;
  }
}
