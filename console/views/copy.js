/** Puts text on the clipboard. */

import { h } from "../dom.js";

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
