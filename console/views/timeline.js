/** A session over time, as an SVG that scrolls; each part links to its place in the transcript. */

import { h, svg } from "../dom.js";
import { layout } from "../timeline.js";

const ROW_HEIGHT = 30;
const BAR_HEIGHT = 14;
const TOP = 6;
const MARGIN = 12;
/** Pixels per second: the range chosen automatically, and the range that zooming allows. */
const FITTING = [8, 128];
const ALLOWED = [1, 512];
const MARKS = {
  message: (x, y) => svg("circle", { cx: x, cy: y, r: 5 }),
  stop: (x, y) => svg("rect", { x: x - 5, y: y - 5, width: 10, height: 10 }),
  steer: (x, y) => svg("path", { d: `M${x} ${y - 6}l6 6l-6 6l-6 -6z` }),
  input: (x, y) => svg("path", { d: `M${x - 6} ${y - 5}h12l-6 11z` }),
  answer: (x, y) => svg("circle", { cx: x, cy: y, r: 4.5, class: "ring" }),
  retry: (x, y) => svg("path", { d: `M${x - 6} ${y + 5}h12l-6 -11z` }),
  paid: (x, y) => svg("path", { d: `M${x - 6} ${y}l4 5l8 -10`, class: "line" }),
  refused: (x, y) => svg("path", { d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10`, class: "line" }),
};

export class Timeline {
  /** Draws into `element`; `onPick` receives the number of the chosen event. */
  constructor(element, model, onPick) {
    Object.assign(this, { element, model, onPick });
    this.scale = null;
    this.labels = svg("svg", { class: "labels", "aria-hidden": "true" });
    this.chart = svg("svg", { class: "chart", role: "group", "aria-label": "Turns, approvals, purchases and paid requests over time" });
    this.frame = h("div", { class: "chart-frame", tabindex: "0", role: "group", "aria-label": "Timeline; scrolls sideways" }, this.chart);
    const step = (by, label, text) => h("button", { type: "button", "aria-label": label, onclick: () => this.#zoom(by) }, text);
    element.replaceChildren(
      h("div", { class: "timeline-body" }, this.labels, this.frame),
      h("div", { class: "timeline-foot" }, legend(), step(-1, "Show more time", "−"), step(1, "Show less time", "+")));
  }

  #zoom(by) {
    this.scale = clamp(this.shown * 2 ** by, ALLOWED);
    this.draw();
  }

  draw() {
    const { frame } = this;
    const atEnd = frame.scrollLeft + frame.clientWidth >= frame.scrollWidth - 40;
    const focused = this.chart.contains(document.activeElement) ? document.activeElement.dataset.seq : null;
    const plan = layout(this.model);
    const seconds = Math.max(plan.length / 1000, 1);
    this.shown = this.scale ?? clamp((frame.clientWidth - 3 * MARGIN) / seconds, FITTING);
    const x = (milliseconds) => MARGIN + (milliseconds / 1000) * this.shown;
    const y = (row) => TOP + row * ROW_HEIGHT + ROW_HEIGHT / 2;
    const width = Math.max(x(plan.length) + 2 * MARGIN, frame.clientWidth);
    const height = TOP * 2 + plan.rows.length * ROW_HEIGHT;
    this.chart.setAttribute("width", width);
    for (const element of [this.chart, this.labels]) element.setAttribute("height", height);
    this.labels.replaceChildren(...plan.rows.map((row, index) => svg("text", { x: 0, y: y(index) + 4 }, row.label)));
    this.chart.replaceChildren(
      ...plan.rows.map((_, index) => svg("line", { class: "row", x1: 0, x2: width, y1: y(index), y2: y(index) })),
      ...plan.cuts.map((cut) => svg("g", { class: "cut" }, svg("line", { x1: x(cut.at), x2: x(cut.at), y1: 0, y2: height }), svg("title", {}, `${Math.round(cut.milliseconds / 1000)} s without events`))),
      ...plan.bars.map((bar) => this.#link(bar, svg("rect", { x: x(bar.from), y: y(bar.row) - BAR_HEIGHT / 2, width: Math.max(x(bar.to) - x(bar.from), 6), height: BAR_HEIGHT, rx: 4 }))),
      ...plan.marks.map((mark) => this.#link({ ...mark, state: "" }, MARKS[mark.kind](x(mark.at), y(mark.row)))));
    if (focused) this.chart.querySelector(`[data-seq="${focused}"]`)?.focus();
    if (atEnd) frame.scrollLeft = frame.scrollWidth;
  }

  #link({ kind, state, seq, label }, shape) {
    return svg("a", { href: `#at-${seq}`, class: `${kind} ${state}`, "data-seq": seq, "aria-label": label,
      onclick: (event) => {
        event.preventDefault();
        this.onPick(seq);
      } }, svg("title", {}, label), shape);
  }
}

function clamp(value, [least, most]) {
  return Math.min(Math.max(value, least), most);
}

function legend() {
  const entry = (kind, text) => h("span", { class: "entry" }, svg("svg", { width: 14, height: 14, class: "chart", "aria-hidden": "true" }, svg("g", { class: kind }, MARKS[kind](7, 7))), text);
  return h("div", { class: "legend" }, entry("message", "message"), entry("stop", "stop"), entry("steer", "steer"), entry("input", "question"), entry("answer", "answer"), entry("retry", "retried"), entry("paid", "paid"), entry("refused", "not paid"));
}
