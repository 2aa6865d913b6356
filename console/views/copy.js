/** Puts text on the clipboard. */

import { h } from "../dom.js";

const SAID_MS = 1_500;

/**
 * Lets the buttons at code copy it, wherever in the element it appears; `announce` tells screen readers.
 * @param {HTMLElement} element
 * @param {(words: string) => void} announce
 */
export function copiesCode(element, announce) {
  element.addEventListener("click", async (event) => {
    const pressed = /** @type {Element} */ (event.target).closest(".code > .copy");
    if (!pressed) return;
    const done = await copy(pressed.parentElement?.querySelector("code")?.textContent ?? "");
    pressed.classList.toggle("done", done);
    announce(done ? "Copied" : "Not copied");
    setTimeout(() => pressed.classList.remove("done"), SAID_MS);
  });
}

/**
 * Copies a text; returns whether the browser did.
 * @param {string} text
 */
export async function copy(text) {
  try {
    // It is there on https and localhost only.
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

/** @param {string} text */
function copySelected(text) {
  const before = /** @type {HTMLElement | null} */ (document.activeElement);
  const field = h("textarea", { class: "visually-hidden", readonly: true });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus();
  return done;
}
