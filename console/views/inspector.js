/** For developers and staff: what a session has done, how long it took, what it cost, and why it failed. */

import { serverNow } from "../clock.js";
import { dateTime, duration, h, isolate, messageOf, setText, time } from "../dom.js";
import { inspect, took, usageWords } from "../inspection.js";
import { copyButton, eventElement, json } from "./event.js";
import { Rows } from "./rows.js";

/**
 * @typedef {import("../inspection.js").Part} Part
 * @typedef {import("../transcript.js").SessionEvent} SessionEvent
 * @typedef {{ part: Part, level: number, folded: boolean, now: number }} Row
 * @typedef {object} Page What the inspector asks of its page.
 * @property {(key: string) => void} onChoose
 * @property {(seq: number) => void} onShow
 * @property {() => void} onClose
 * @property {(words: string) => void} announce
 */

const DRAW_EVERY_MS = 500;
const MAX_EVENTS = 100;
const PAGE_EVENTS = 2_000;
const TONES = /** @type {Record<string, string>} */ ({ completed: "good", answered: "good", failed: "bad", stopped: "bad", expired: "bad", running: "busy", stopping: "busy", waiting: "ask" });
const KINDS = { turn: "Turn", tool: "Tool", step: "Step", question: "Question" };

/** @param {string} state */
function pill(state) {
  return h("span", { class: `pill ${TONES[state] ?? ""}` }, state);
}

export class Inspector {
  /**
   * @param {import("../api.js").Api} api
   * @param {string} sessionId
   * @param {{ events: SessionEvent[], since: number, cursor: number, title: string | null, agent: string | null }} model
   * @param {Page} page
   */
  constructor(api, sessionId, model, page) {
    Object.assign(this, { api, sessionId, model, page });
    this.api = api;
    this.sessionId = sessionId;
    this.model = model;
    this.page = page;
    /** @type {string | null} */
    this.wanted = null;
    /** @type {string | null} */
    this.shown = null;
    /** @type {Set<string>} */
    this.folded = new Set();
    /** @type {ReturnType<typeof inspect>} */
    this.found = { roots: [], parts: new Map(), usage: null };
    /** @type {string | null} */
    this.workflows = null;
    this.stopped = new AbortController();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.sum = h("p", { class: "sum" });
    this.links = h("span", {});
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.detail = h("section", { class: "part-detail", "aria-label": "The chosen part", hidden: true });
    this.rows = new Rows({
      label: "Turns, tools and questions", role: "tree", keyOf: (/** @type {Row} */ row) => row.part.key, draw: (element, row) => this.#drawRow(element, row),
      onChoose: ({ part }) => {
        this.#showPart(part, true);
        page.onChoose(part.key);
      },
      onFold: (row, opens) => this.#fold(row, opens),
    });
    this.element = h("aside", { class: "inspector", "aria-label": "Inspector" },
      h("header", {}, h("h2", {}, "Inspector"), h("button", { type: "button", "aria-label": "Close the inspector", onclick: page.onClose }, "Close")),
      this.sum,
      h("div", { class: "row" },
        h("button", { type: "button", onclick: () => this.#export("json") }, "Export JSON"),
        h("button", { type: "button", onclick: () => this.#export("md") }, "Export Markdown"), this.links),
      this.problem, this.rows.element, this.detail);
    this.#findWorkflows();
  }

  stop() {
    this.stopped.abort();
    clearTimeout(this.timer);
    this.rows.stop();
    this.element.remove();
  }

  /** Where Temporal's web page is, if the deployment says so. */
  async #findWorkflows() {
    try {
      const { workflows_url: url } = await this.api.get(`/sessions/${this.sessionId}/workflow`, this.stopped.signal);
      if (!url) return;
      this.workflows = url;
      this.links.replaceChildren(this.#workflowLink(this.sessionId, "Workflow in Temporal"));
      if (this.shown) this.#showPart(this.found.parts.get(this.shown) ?? null, true);
    } catch {
      // Without it there is no link.
    }
  }

  /**
   * @param {string} id
   * @param {string} words
   */
  #workflowLink(id, words) {
    return h("a", { href: `${this.workflows}/${encodeURIComponent(id)}`, target: "_blank", rel: "noreferrer" }, words);
  }

  /** Shows what has come since, now and then: a session that streams has something new all the time. */
  update() {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.#draw();
    }, this.rows.items.length ? DRAW_EVERY_MS : 0);
  }

  /**
   * Chooses a part by its key.
   * @param {string | null} key
   */
  choose(key) {
    this.wanted = key;
    this.#draw();
  }

  #draw() {
    const { model } = this;
    this.found = inspect(model.events);
    const now = serverNow();
    const turns = [...this.found.parts.values()].filter(({ kind }) => kind === "turn").length;
    setText(this.sum, [`${turns} turn${turns === 1 ? "" : "s"}`, usageWords(this.found.usage) || "no usage was reported", model.since > 0 ? "earlier events are being read" : ""].filter(Boolean).join(" · "));
    /** @type {Row[]} */
    const rows = [];
    /**
     * @param {Part[]} parts
     * @param {number} level
     */
    const add = (parts, level) => {
      for (const part of [...parts].sort((a, b) => a.seq - b.seq)) {
        const folded = this.folded.has(part.key);
        rows.push({ part, level, folded, now });
        if (!folded) add(part.parts, level + 1);
      }
    };
    add(this.found.roots, 1);
    this.rows.show(rows);
    if (this.wanted) {
      const at = rows.findIndex(({ part }) => part.key === this.wanted);
      if (at < 0) return;
      this.wanted = null;
      this.rows.choose(at);
    } else if (this.shown) this.#showPart(this.found.parts.get(this.shown) ?? null, false);
  }

  /**
   * @param {HTMLElement} element
   * @param {Row} row
   */
  #drawRow(element, { part, level, folded, now }) {
    element.setAttribute("aria-level", String(level));
    element.removeAttribute("aria-expanded");
    if (part.parts.length) element.setAttribute("aria-expanded", String(!folded));
    element.dataset.level = String(Math.min(level, 6));
    const milliseconds = took(part, now);
    element.append(
      h("span", { class: "twisty", "aria-hidden": "true", onclick: (/** @type {Event} */ event) => {
        event.stopPropagation();
        this.#fold({ part, level, folded, now }, folded);
      } }, part.parts.length ? (folded ? "▸" : "▾") : ""),
      h("span", { class: "kind" }, part.kind === "turn" ? part.key : KINDS[part.kind]),
      h("span", { class: "words" }, isolate(part.kind === "turn" && part.name === part.key ? "" : part.name)),
      pill(part.state),
      h("span", { class: "took" }, milliseconds === null ? "" : duration(milliseconds)));
  }

  /**
   * @param {Row} row
   * @param {boolean} opens
   */
  #fold({ part }, opens) {
    if (!part.parts.length) return;
    if (opens) this.folded.delete(part.key);
    else this.folded.add(part.key);
    this.#draw();
  }

  /**
   * Shows one part; what is unfolded stays so as long as nothing about it is new.
   * @param {Part | null} part
   * @param {boolean} anew
   */
  #showPart(part, anew) {
    if (!part) return;
    const now = serverNow();
    const state = JSON.stringify([part.key, part.state, part.events.length, part.attempts.length, part.usage]);
    if (!anew && this.detail.dataset.shows === state) return;
    this.detail.dataset.shows = state;
    this.shown = part.key;
    this.detail.hidden = false;
    const events = part.events.slice(0, MAX_EVENTS);
    const used = usageWords(part.usage);
    this.detail.replaceChildren(
      h("h3", {}, `${KINDS[part.kind]} ${part.kind === "turn" ? part.key : ""} `, isolate(part.name === part.key ? "" : part.name), " ", pill(part.state)),
      facts([
        ["Begun", part.began && dateTime(part.began)],
        ["Waited for its turn", part.queued && part.began && duration(took({ began: part.queued, ended: part.began }, now) ?? 0)],
        ["Took", durationWords(part, now)],
        ["Used", used],
      ]),
      ...(part.attempts.length > 1 || part.attempts.some(({ code }) => code) ? [attempts(part, now)] : []),
      h("div", { class: "row" },
        h("button", { type: "button", onclick: () => this.page.onShow(part.seq) }, "Show in the transcript"),
        part.kind === "turn" && this.workflows ? this.#workflowLink(`${this.sessionId}/${part.key}`, "Turn in Temporal") : null),
      ...part.payloads.map(([name, value]) => this.#payload(name, value)),
      h("h4", {}, `Events (${part.events.length})`),
      ...events.map((event) => this.#eventFold(event)),
      ...(part.events.length > events.length ? [h("p", { class: "quiet-text" }, "The rest is in the level Raw.")] : []));
  }

  /**
   * @param {string} name
   * @param {unknown} value
   */
  #payload(name, value) {
    const text = typeof value === "string" ? value : json(value);
    return h("div", { class: "payload" }, h("header", {}, h("h4", {}, name), copyButton("Copy", `Copy ${name.toLowerCase()}`, () => text, this.page.announce)), h("pre", { tabindex: "0", "aria-label": name }, text));
  }

  /** @param {SessionEvent} event */
  #eventFold(event) {
    const fold = h("details", { class: "fold" }, h("summary", {}, h("code", {}, event.type), ` ${event.seq} `, h("time", { datetime: event.time, title: dateTime(event.time) }, time(event.time))));
    fold.addEventListener("toggle", () => fold.append(eventElement(this.sessionId, event, this.page.announce)), { once: true });
    return fold;
  }

  /**
   * Saves the whole session, as whoever looks at it may see it.
   * @param {"json" | "md"} kind
   */
  async #export(kind) {
    this.problem.hidden = true;
    try {
      const { toJson, toMarkdown } = await import("../export.js");
      const { events, title, agent } = await this.#readAll();
      const text = (kind === "json" ? toJson : toMarkdown)({ session_id: this.sessionId, title, agent }, events, new Date(serverNow()).toISOString());
      const url = URL.createObjectURL(new Blob([text], { type: kind === "json" ? "application/json" : "text/markdown" }));
      h("a", { href: url, download: `${this.sessionId}.${kind}` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1_000);
    } catch (error) {
      setText(this.problem, `The session was not exported. ${messageOf(error)}`);
      this.problem.hidden = false;
    }
  }

  async #readAll() {
    const { signal } = this.stopped;
    const path = /** @type {const} */ (`/sessions/${this.sessionId}`);
    const { title, agent } = await this.api.get(path, signal);
    /** @type {SessionEvent[]} */
    const events = [];
    for (let after = 0, more = true; more; ) {
      const page = await this.api.get(`${path}/replay?after=${after}&limit=${PAGE_EVENTS}`, signal);
      events.push(...page.events);
      after = page.next_after;
      more = page.more;
    }
    return { events, title: title ?? null, agent };
  }
}

/** @param {[string, import("../dom.js").Child][]} pairs */
function facts(pairs) {
  return h("dl", { class: "facts" }, ...pairs.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/**
 * @param {Part} part
 * @param {number} now
 */
function durationWords(part, now) {
  const all = took(part, now);
  if (all === null) return null;
  const waited = part.waits.reduce((sum, { from, to }) => sum + (took({ began: from, ended: to }, now) ?? 0), 0);
  return `${duration(all)}${waited ? `, of which ${duration(waited)} waiting for people` : ""}${part.ended ? "" : " so far"}`;
}

/**
 * @param {Part} part
 * @param {number} now
 */
function attempts(part, now) {
  return h("ol", { class: "attempts", "aria-label": "Attempts" }, ...part.attempts.map((attempt) =>
    h("li", { value: attempt.number }, pill(attempt.outcome), ` ${duration(took(attempt, now) ?? 0)} `, attempt.code ? h("code", {}, attempt.code) : null, attempt.detail ? h("pre", { tabindex: "0", "aria-label": `Error of attempt ${attempt.number}` }, attempt.detail) : null)));
}
