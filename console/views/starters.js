/** What an agent offers people to begin with, where nothing was said yet. */

import { h } from "../dom.js";

export class Starters {
  /**
   * @param {import("../api.js").Api} api
   * @param {string} sessionId
   * @param {(text: string) => void} begin
   */
  constructor(api, sessionId, begin) {
    this.path = /** @type {const} */ (`/sessions/${sessionId}/agent`);
    this.api = api;
    this.begin = begin;
    this.asked = false;
    this.empty = false;
    this.element = h("div", { class: "starters", role: "group", "aria-label": "Begin with", hidden: true });
  }

  /** @param {boolean} empty Whether there is nothing yet, and the reader may begin. */
  update(empty) {
    this.empty = empty;
    this.element.hidden = !empty || !this.element.firstChild;
    if (!empty || this.asked) return;
    this.asked = true;
    this.api.get(this.path).then(({ starters = [] }) => {
      this.element.append(...starters.map((text) => h("button", { type: "button", onclick: () => this.begin(text) }, text)));
      this.update(this.empty);
    }, () => {
      // The field is there.
    });
  }
}
