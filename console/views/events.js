/** A session event by event: a list of any length, and one of them as JSON. */

import { dateTime, h, isolate, nameOf, setText, time } from "../dom.js";
import { eventElement } from "./event.js";
import { Rows } from "./rows.js";

/** @typedef {import("../transcript.js").SessionEvent} SessionEvent */

const MAX_WORDS = 160;
/** What tells one event from another of its type, as far as it has any of this. */
const TELLING = ["text", "name", "prompt", "status", "detail", "reason", "question_id", "purchase_id", "payment_id", "call_id"];

/** @param {{ data?: Record<string, unknown> }} event */
function wordsOf({ data = {} }) {
  const value = TELLING.map((name) => data[name]).find((one) => typeof one === "string" && one);
  const line = typeof value === "string" ? value.split("\n", 1)[0] : JSON.stringify(data);
  return isolate(line === "{}" ? "" : line.slice(0, MAX_WORDS));
}

/**
 * @param {HTMLElement} row
 * @param {SessionEvent} event
 */
function drawRow(row, event) {
  row.append(
    h("span", { class: "seq" }, String(event.seq)), h("time", { datetime: event.time, title: dateTime(event.time) }, time(event.time)),
    h("code", {}, event.type), h("span", { class: "turn-id" }, event.turn_id ?? ""), h("span", { class: "actor" }, nameOf(event.actor)), h("span", { class: "words" }, wordsOf(event)));
}

export class Events {
  /**
   * @param {{ events: SessionEvent[], since: number, cursor: number }} model
   * @param {string} sessionId
   * @param {(words: string) => void} [announce]
   */
  constructor(model, sessionId, announce = () => {}) {
    this.model = model;
    this.detail = h("section", { class: "event-detail", "aria-label": "The chosen event", hidden: true });
    this.rows = new Rows({
      label: "Events", role: "listbox", keyOf: (/** @type {SessionEvent} */ event) => String(event.seq), draw: drawRow,
      onChoose: (event) => {
        this.detail.replaceChildren(eventElement(sessionId, event, announce));
        this.detail.hidden = false;
      },
    });
    this.count = h("p", { class: "quiet-text" });
    this.element = h("div", { class: "raw" }, h("div", { class: "raw-list" }, this.count, this.rows.element), this.detail);
    this.known = "";
    this.begun = false;
  }

  stop() {
    this.rows.stop();
    this.element.remove();
  }

  /** Shows what has come since. */
  update() {
    const { model, rows } = this;
    const { events } = model;
    const known = `${events.length} ${model.cursor} ${model.since}`;
    if (known === this.known || !this.element.isConnected) return;
    this.known = known;
    setText(this.count, `${events.length} events${model.since > 0 ? "; earlier ones are being read" : ""}`);
    rows.show(events);
    if (!this.begun && events.length) rows.toEnd();
    this.begun ||= events.length > 0;
  }

  /**
   * Chooses the event with this number, or the last one before it.
   * @param {number} seq
   */
  choose(seq) {
    this.update();
    this.rows.choose(this.rows.items.findLastIndex((event) => event.seq <= seq));
  }
}
