/** What can be done with one message: one row of buttons, which comes to the message that is pointed at or focused. */

import { h, setText } from "../dom.js";
import { copiesCode, copy } from "./copy.js";

/** @typedef {import("../model.js").Item} Item */

const SAID_MS = 1_500;

/**
 * Watches a transcript; `announce` tells screen readers.
 * @param {HTMLElement} log
 * @param {{ find: (key: string) => Item | undefined, link: (item: Item) => string, announce: (words: string) => void }} page
 */
export function messageToolbar(log, { find, link, announce }) {
  /** @type {import("../model.js").Item<"message"> | null} */
  let item = null;
  /**
   * @param {string} words
   * @param {string} label
   * @param {() => string} text
   */
  const button = (words, label, text) => h("button", { type: "button", "aria-label": label, onclick: (/** @type {Event} */ event) => take(/** @type {HTMLElement} */ (event.currentTarget), words, text()) }, words);
  /**
   * @param {HTMLElement} pressed
   * @param {string} words
   * @param {string} text
   */
  const take = async (pressed, words, text) => {
    const told = (await copy(text)) ? "Copied" : "Not copied";
    setText(pressed, told);
    announce(told);
    setTimeout(() => setText(pressed, words), SAID_MS);
  };
  const element = h("div", { class: "toolbar" },
    button("Copy", "Copy message", () => item?.message.text ?? ""), button("Link", "Copy link", () => (item ? link(item) : "")));
  /** @param {Event} event */
  const come = (event) => {
    const message = /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest(".message"));
    if (!message || element.parentNode === message) return;
    const found = find(message.dataset.key ?? "");
    if (found?.kind !== "message") return;
    item = found;
    if (item.message.text) message.append(element);
  };
  log.addEventListener("pointerover", come);
  log.addEventListener("focusin", come);
  copiesCode(log, announce);
}
