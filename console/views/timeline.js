/** A session over time, as an SVG that scrolls and zooms; each part links to its place in the transcript. */

import { duration, h, setClass, setText, svg, time } from "../dom.js";
import { layout } from "../timeline.js";
import "./debug-styles.js";

const ROW_HEIGHT = 30;
const BAR_HEIGHT = 14;
const TOOL_HEIGHT = 4;
const AXIS_HEIGHT = 22;
const BELOW = 6;
const MARGIN = 12;
/** Pixels per second: the range chosen automatically, and the most that zooming allows. */
const FITTING = [8, 128];
const MOST = 512;
/** Browsers lay nothing out that is much wider. */
const MAX_WIDTH = 8_000_000;
const TICK_PIXELS = 96;
/** A time is at most so wide. */
const TIME_PIXELS = 84;
/** A bar is so wide when its duration fits into it. */
const MIN_WORDS_PIXELS = 58;
/** Parts of one kind that are closer than this are one. */
const APART_PIXELS = 4;
/** So much of the wheel doubles or halves. */
const WHEEL_PIXELS = 240;
const LINE_PIXELS = 16;

/** @type {Record<string, (x: number, y: number) => Element>} */
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
  /**
   * Draws into `element`; `onPick` receives the number of the chosen event.
   * @param {HTMLElement} element
   * @param {import("../timeline.js").Model} model
   * @param {(seq: number) => void} onPick
   */
  constructor(element, model, onPick) {
    this.model = model;
    this.onPick = onPick;
    /** What somebody has chosen, in pixels per second; null: what fits. @type {number | null} */
    this.scale = null;
    this.shown = FITTING[0];
    /** Left of the beginning, and the least width: room to keep in place what is zoomed at. */
    this.margin = MARGIN;
    this.room = 0;
    this.plan = layout(model);
    /** @type {[number, number]} */
    this.drawn = [0, 0];
    /** Where the pointer is over the chart, in pixels from its left edge. @type {number | null} */
    this.pointer = null;
    this.pinched = 0;
    this.labels = svg("svg", { class: "labels", "aria-hidden": "true" });
    this.chart = svg("svg", { class: "chart", role: "group", "aria-label": "Turns, approvals, purchases and paid requests over time" });
    this.frame = h("div", { class: "chart-frame", tabindex: "0", role: "group", "aria-label": "Timeline; scrolls sideways, + and − zoom" }, this.chart);
    this.under = h("p", { class: "under" });
    this.#listen();
    /**
     * @param {number} by
     * @param {string} label
     * @param {string} text
     */
    const step = (by, label, text) => h("button", { type: "button", "aria-label": label, onclick: () => this.#zoom(2 ** by, null) }, text);
    element.replaceChildren(
      h("div", { class: "timeline-body" }, this.labels, this.frame),
      h("div", { class: "timeline-foot" }, this.under, legend(), step(-1, "Show more time", "−"), step(1, "Show less time", "+")));
  }

  #listen() {
    const { frame } = this;
    frame.addEventListener("scroll", () => {
      const { scrollLeft, clientWidth } = frame;
      if (scrollLeft < this.drawn[0] || scrollLeft + clientWidth > this.drawn[1]) this.#paint();
      else this.#hideCut();
    });
    frame.addEventListener("wheel", (event) => {
      // Sideways, it scrolls.
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode ? LINE_PIXELS : 1);
      this.#zoom(2 ** (-pixels / WHEEL_PIXELS), this.#place(event.clientX));
    }, { passive: false });
    /** @param {TouchEvent} event */
    const pinch = (event) => {
      if (event.touches.length !== 2 || !this.pinched) return;
      event.preventDefault();
      const now = apart(event.touches);
      this.#zoom(now / this.pinched, this.#place((event.touches[0].clientX + event.touches[1].clientX) / 2));
      this.pinched = now;
    };
    frame.addEventListener("touchstart", ({ touches, target }) => {
      this.pinched = touches.length === 2 ? apart(touches) : 0;
      // What was touched gets the rest of the gesture, also when it has been drawn anew and is no longer in the frame.
      target?.addEventListener("touchmove", /** @type {EventListener} */ (pinch), { passive: false });
    }, { passive: true });
    frame.addEventListener("keydown", (event) => {
      const by = { "+": 1, "=": 1, "-": -1, "−": -1 }[event.key];
      if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.#zoom(2 ** by, this.pointer);
    });
    frame.addEventListener("pointermove", (event) => {
      this.pointer = this.#place(event.clientX);
      this.#say(event.target);
    });
    frame.addEventListener("pointerleave", () => {
      this.pointer = null;
      setText(this.under, "");
    });
    frame.addEventListener("focusin", ({ target }) => this.#say(target));
  }

  /** @param {number} clientX */
  #place(clientX) {
    return clientX - this.frame.getBoundingClientRect().left;
  }

  /**
   * Says what is under the pointer, or has the focus: the time, and what happened.
   * @param {EventTarget | null} target
   */
  #say(target) {
    const label = /** @type {Element} */ (target).closest("a")?.getAttribute("aria-label");
    const at = this.pointer === null ? null : this.plan.scale.timeAt(this.#drawnAt(this.pointer));
    setText(this.under, [at === null ? "" : time(new Date(at).toISOString()), label].filter(Boolean).join(" · "));
  }

  /**
   * The drawn time at so many pixels from the left edge.
   * @param {number} place
   */
  #drawnAt(place) {
    return ((this.frame.scrollLeft + place - this.margin) / this.shown) * 1_000;
  }

  /**
   * Zooms in or out; what is at the place stays there, by default the middle.
   * @param {number} by
   * @param {number | null} place
   */
  #zoom(by, place) {
    const at = place ?? this.frame.clientWidth / 2;
    const fixed = this.#drawnAt(at);
    const seconds = Math.max(this.plan.length / 1_000, 1);
    this.scale = clamp(this.shown * by, [Math.min(1, this.#fitting(seconds)), Math.min(MOST, MAX_WIDTH / seconds)]);
    const left = MARGIN + (fixed / 1_000) * this.scale - at;
    this.margin = MARGIN + Math.max(0, -left);
    this.room = Math.max(0, left) + this.frame.clientWidth;
    this.#resize();
    this.frame.scrollLeft = Math.max(0, left);
    this.#paint();
  }

  /** @param {number} seconds */
  #fitting(seconds) {
    return (this.frame.clientWidth - 3 * MARGIN) / seconds;
  }

  /** Lays out what has happened so far, and draws it. */
  draw() {
    const { frame } = this;
    const atEnd = frame.scrollLeft + frame.clientWidth >= frame.scrollWidth - 40;
    this.plan = layout(this.model);
    this.#resize();
    if (atEnd) frame.scrollLeft = frame.scrollWidth;
    this.#paint();
  }

  #resize() {
    const { frame, plan } = this;
    const seconds = Math.max(plan.length / 1_000, 1);
    this.shown = this.scale ?? clamp(this.#fitting(seconds), [FITTING[0], FITTING[1]]);
    const width = Math.max(this.margin + MARGIN * 2 + (plan.length / 1_000) * this.shown, frame.clientWidth, this.room);
    this.height = AXIS_HEIGHT + BELOW + plan.rows.length * ROW_HEIGHT;
    this.chart.setAttribute("width", String(width));
    for (const element of [this.chart, this.labels]) element.setAttribute("height", String(this.height));
  }

  /** Draws what is on the screen, and as much on either side: a long session has thousands of parts. */
  #paint() {
    const { frame, plan, shown, chart, margin } = this;
    const focused = chart.contains(document.activeElement) ? /** @type {SVGElement} */ (document.activeElement).dataset.seq : null;
    const { scrollLeft, clientWidth } = frame;
    this.drawn = [scrollLeft - clientWidth, scrollLeft + 2 * clientWidth];
    const [left, right] = this.drawn.map((pixels) => ((pixels - margin) / shown) * 1_000);
    /** @param {number} milliseconds */
    const x = (milliseconds) => margin + (milliseconds / 1_000) * shown;
    /** @param {number} row */
    const y = (row) => AXIS_HEIGHT + row * ROW_HEIGHT + ROW_HEIGHT / 2;
    const cuts = plan.cuts.filter(({ at }) => at >= left && at <= right);
    this.labels.replaceChildren(...plan.rows.map((row, index) => svg("text", { x: 0, y: y(index) + 4 }, row.label)));
    chart.replaceChildren(
      ...plan.rows.map((_, index) => svg("line", { class: "row", x1: this.drawn[0], x2: this.drawn[1], y1: y(index), y2: y(index) })),
      svg("g", { class: "axis", "aria-hidden": "true" },
        ...plan.scale.ticks(left, right, (TICK_PIXELS / shown) * 1_000).flatMap(({ at, time: when }) => [
          svg("line", { x1: x(at), x2: x(at), y1: 0, y2: this.height }),
          svg("text", { x: x(at) + 3, y: 12 }, time(new Date(when).toISOString()))])),
      ...cuts.map((cut) => svg("g", { class: "cut" }, svg("line", { x1: x(cut.at), x2: x(cut.at), y1: 0, y2: this.height }), svg("title", {}, `${duration(cut.milliseconds)} without events`))),
      ...thinned(plan.bars.filter(({ from, to }) => to >= left && from <= right), ({ to }) => x(to)).map((bar) => this.#bar(bar, x, y(bar.row))),
      ...thinned(plan.marks.filter(({ at }) => at >= left && at <= right), ({ at }) => x(at)).map((mark) => this.#link({ ...mark, state: "" }, MARKS[mark.kind](x(mark.at), y(mark.row)))));
    this.#hideCut();
    if (focused) /** @type {SVGElement | null} */ (chart.querySelector(`[data-seq="${focused}"]`))?.focus();
  }

  /** Of a time that begins left of what is shown only the end would be read. */
  #hideCut() {
    const { scrollLeft } = this.frame;
    for (const text of this.chart.querySelectorAll(".axis text")) {
      const left = Number(text.getAttribute("x"));
      setClass(text, "cut-off", left < scrollLeft && left + TIME_PIXELS > scrollLeft);
    }
  }

  /**
   * @param {import("../timeline.js").Bar} bar
   * @param {(milliseconds: number) => number} x
   * @param {number} middle
   */
  #bar(bar, x, middle) {
    const tool = bar.kind === "tool";
    const left = x(bar.from);
    const width = Math.max(x(bar.to) - left, tool ? 3 : 6);
    const shape = svg("rect", { x: left, y: tool ? middle + BAR_HEIGHT / 2 + 2 : middle - BAR_HEIGHT / 2, width, height: tool ? TOOL_HEIGHT : BAR_HEIGHT, rx: tool ? 2 : 4 });
    const words = bar.kind === "turn" && width > MIN_WORDS_PIXELS ? svg("text", { x: left + 6, y: middle + 4 }, bar.took) : null;
    return this.#link(bar, shape, words);
  }

  /**
   * @param {{ kind: string, state: string, seq: number, label: string }} part
   * @param {(Element | null)[]} shapes
   */
  #link({ kind, state, seq, label }, ...shapes) {
    return svg("a", { href: `#at-${seq}`, class: `${kind} ${state}`, "data-seq": seq, "aria-label": label,
      onclick: (/** @type {Event} */ event) => {
        event.preventDefault();
        this.onPick(seq);
      } }, svg("title", {}, label), ...shapes);
  }
}

/**
 * Leaves out what would lie over one of its kind that ends at the same place, and lets that one say so.
 * @template {{ row: number, kind: string, state?: string, label: string }} T
 * @param {T[]} parts
 * @param {(part: T) => number} endOf
 * @returns {T[]}
 */
function thinned(parts, endOf) {
  /** @type {Map<string, { part: T, end: number, more: number }>} */
  const last = new Map();
  const kept = [];
  for (const part of parts) {
    const key = `${part.row} ${part.kind} ${part.state}`;
    const before = last.get(key);
    const end = endOf(part);
    if (before && end < before.end + APART_PIXELS) {
      before.more += 1;
      continue;
    }
    const one = { part, end, more: 0 };
    last.set(key, one);
    kept.push(one);
  }
  return kept.map(({ part, more }) => (more ? { ...part, label: `${part.label}, and ${more} more here` } : part));
}

/** @param {TouchList} touches */
function apart(touches) {
  return Math.hypot(touches[0].clientX - touches[1].clientX, touches[0].clientY - touches[1].clientY);
}

/**
 * @param {number} value
 * @param {number[]} range
 */
function clamp(value, [least, most]) {
  return Math.min(Math.max(value, least), most);
}

function legend() {
  /**
   * @param {string} kind
   * @param {string} text
   */
  const entry = (kind, text) => h("span", { class: "entry" }, svg("svg", { width: 14, height: 14, class: "chart", "aria-hidden": "true" }, svg("g", { class: kind }, MARKS[kind](7, 7))), text);
  return h("div", { class: "legend" }, entry("message", "message"), entry("stop", "stop"), entry("steer", "steer"), entry("input", "question"), entry("answer", "answer"), entry("retry", "retried"), entry("paid", "paid"), entry("refused", "not paid"));
}
