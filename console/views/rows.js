/** A list of any length: only the rows that are on the screen are elements. One row is chosen, with arrow keys too. */

import { h } from "../dom.js";
import "./debug-styles.js";

const ROW_PIXELS = matchMedia("(pointer: coarse)").matches ? 44 : 28;
/** Rows beyond the edges, so that scrolling shows no gap before the next drawing. */
const MARGIN_ROWS = 12;
let lists = 0;

/**
 * @template T
 * @typedef {object} Kind
 * @property {string} label What the list is of.
 * @property {"listbox" | "tree"} role
 * @property {(item: T) => string} keyOf
 * @property {(element: HTMLElement, item: T) => void} draw Fills a row that is empty.
 * @property {(item: T) => void} onChoose
 * @property {(item: T, opens: boolean) => void} [onFold] Told of the right and left arrows.
 */

/** @template T */
export class Rows {
  /** @param {Kind<T>} kind */
  constructor(kind) {
    this.kind = kind;
    lists += 1;
    this.id = `rows-${lists}`;
    /** @type {T[]} */
    this.items = [];
    /** @type {string | null} */
    this.chosen = null;
    /** @type {Map<string, { element: HTMLElement, item: T }>} */
    this.drawn = new Map();
    this.scheduled = false;
    /** Whether somebody looks at the end: they go on looking at it. */
    this.atEnd = false;
    this.whole = h("div", { class: "whole", role: "presentation" });
    this.element = h("div", { class: "virtual-rows", role: kind.role, tabindex: "0", "aria-label": kind.label,
      onscroll: () => this.#onScroll(), onkeydown: (/** @type {KeyboardEvent} */ event) => this.#onKey(event),
      onclick: (/** @type {MouseEvent} */ event) => this.#onClick(event) }, this.whole);
    this.sizes = new ResizeObserver(() => {
      if (this.atEnd) this.toEnd();
      this.#soon();
    });
    this.sizes.observe(this.element);
  }

  stop() {
    this.sizes.disconnect();
  }

  /** @param {T[]} items */
  show(items) {
    this.items = items;
    this.whole.style.height = `${items.length * ROW_PIXELS}px`;
    if (this.atEnd) this.toEnd();
    this.#draw();
  }

  toEnd() {
    this.atEnd = true;
    this.element.scrollTop = this.element.scrollHeight;
  }

  #onScroll() {
    const { scrollTop, clientHeight } = this.element;
    this.atEnd = scrollTop > 0 && scrollTop + clientHeight >= (this.items.length - 1) * ROW_PIXELS;
    this.#soon();
  }

  /**
   * Chooses a row and moves it into view.
   * @param {number} index
   */
  choose(index) {
    const item = this.items[index];
    if (!item) return;
    this.chosen = this.kind.keyOf(item);
    const { scrollTop, clientHeight } = this.element;
    const top = index * ROW_PIXELS;
    if (top < scrollTop || top + ROW_PIXELS > scrollTop + clientHeight) {
      this.atEnd = false;
      this.element.scrollTop = top - (clientHeight - ROW_PIXELS) / 2;
    }
    this.#draw();
    this.kind.onChoose(item);
  }

  get #at() {
    return this.items.findIndex((item) => this.kind.keyOf(item) === this.chosen);
  }

  #soon() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.#draw();
    });
  }

  #draw() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / ROW_PIXELS) - MARGIN_ROWS);
    const end = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / ROW_PIXELS) + MARGIN_ROWS);
    /** @type {typeof this.drawn} */
    const next = new Map();
    this.element.removeAttribute("aria-activedescendant");
    for (let at = first; at < end; at += 1) {
      const item = this.items[at];
      const key = this.kind.keyOf(item);
      const row = this.drawn.get(key) ?? { element: h("div", { class: "virtual-row", role: this.kind.role === "tree" ? "treeitem" : "option" }), item: null };
      const { element } = row;
      if (row.item !== item) {
        element.replaceChildren();
        this.kind.draw(element, item);
      }
      element.id = `${this.id}-${at}`;
      element.dataset.at = String(at);
      element.style.top = `${at * ROW_PIXELS}px`;
      element.setAttribute("aria-setsize", String(this.items.length));
      element.setAttribute("aria-posinset", String(at + 1));
      element.setAttribute("aria-selected", String(key === this.chosen));
      if (key === this.chosen) this.element.setAttribute("aria-activedescendant", element.id);
      next.set(key, { element, item });
      if (!element.isConnected) this.whole.append(element);
    }
    for (const [key, { element }] of this.drawn) if (!next.has(key)) element.remove();
    this.drawn = next;
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const at = this.#at;
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW_PIXELS) - 1);
    /** @type {Record<string, number>} */
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.items.length - 1 };
    if (event.key in moves && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      this.choose(Math.min(Math.max(moves[event.key], 0), this.items.length - 1));
    } else if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && at >= 0) {
      event.preventDefault();
      this.kind.onFold?.(this.items[at], event.key === "ArrowRight");
    }
  }

  /** @param {MouseEvent} event */
  #onClick(event) {
    const row = /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest(".virtual-row"));
    if (row) this.choose(Number(row.dataset.at));
  }
}
