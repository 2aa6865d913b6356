/** Says that nobody runs a session's agent, when a turn has shown nothing for a while and no process or workflow takes it. */

import { h, isolate } from "../dom.js";

const SILENT_MS = 3_000;
const ASK_AGAIN_MS = 3_000;
/** While a process runs the agent, and the turn still shows nothing. */
const ASK_AGAIN_LATER_MS = 15_000;
/** What agents show of themselves. */
const SHOWN_BY_AGENTS = new Set(["message", "tool", "question", "data", "lanes"]);

/**
 * @typedef {{ running: { status: string }[], closed: boolean }} Model
 * @typedef {{ kind: string, turnId?: string | null }} Item
 * @typedef {import("../api.js").Api} Api
 */

export class Absence {
  /**
   * @param {Api} api
   * @param {string} sessionId
   * @param {Model} model
   */
  constructor(api, sessionId, model) {
    this.api = api;
    this.model = model;
    this.path = /** @type {const} */ (`/sessions/${sessionId}/agent`);
    this.words = h("p", {});
    this.element = h("div", { class: "absent", role: "status", hidden: true }, this.words);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.stopped = new AbortController();
  }

  /**
   * `items` are those that have just changed.
   * @param {Item[]} items
   */
  update(items) {
    const runs = this.model.running.some((turn) => turn.status === "running") && !this.model.closed;
    if (!runs || items.some((item) => item.turnId && SHOWN_BY_AGENTS.has(item.kind))) this.#rest();
    if (runs) this.timer ??= setTimeout(() => this.#ask(), SILENT_MS);
  }

  stop() {
    this.stopped.abort();
    this.#rest();
  }

  #rest() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.element.hidden = true;
  }

  async #ask() {
    const asked = this.timer;
    let pause = ASK_AGAIN_LATER_MS;
    try {
      const agent = await this.api.get(this.path, this.stopped.signal);
      if (this.timer !== asked) return;
      if (agent.processes === 0 && !agent.workflows) {
        this.#show(agent.name);
        pause = ASK_AGAIN_MS;
      } else this.element.hidden = true;
    } catch {
      // What the page says about its connection is enough.
      if (this.timer !== asked) return;
    }
    if (!this.stopped.signal.aborted) this.timer = setTimeout(() => this.#ask(), pause);
  }

  /**
   * How to start one is said to those who work on agents: whoever sees only some sessions is a customer.
   * @param {string} name
   */
  #show(name) {
    if (!this.element.hidden) return;
    const known = this.api.may("start sessions") || this.api.may("list sessions");
    this.words.replaceChildren(...(known
      ? [h("span", {}, "No process runs the agent "), h("code", {}, name), h("span", {}, ". Start one: "), h("code", {}, "waystation agent my_module:agent"), h("span", {}, ". Your message is kept.")]
      : [h("span", {}, `${isolate(name)} is not available right now. Your message is kept, and answered later.`)]));
    this.element.hidden = false;
  }
}
