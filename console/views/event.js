/** One event as JSON, to be copied, or as a command that reads it. */

import { h, visible } from "../dom.js";
import { copy } from "./copy.js";

/** @typedef {import("../transcript.js").SessionEvent} SessionEvent */

/**
 * Reads one event; whoever runs it puts their own token into the variable.
 * @param {string} sessionId
 * @param {SessionEvent} event
 */
function curlOf(sessionId, { seq }) {
  // Ids of sessions have only letters, digits and "._-", so nothing needs to be quoted.
  return `curl -s -H "Authorization: Bearer $WAYSTATION_TOKEN" '${location.origin}/sessions/${sessionId}/replay?after=${seq - 1}&limit=1'`;
}

/**
 * Fields without a value are missing, however the event has come. What `data` says is left as it is.
 * @param {SessionEvent} event
 */
function plain({ actor, ...rest }) {
  /** @param {object} value */
  const valued = (value) => Object.fromEntries(Object.entries(value).filter(([, one]) => one !== null));
  const { seq, time, type, ...more } = rest;
  return { seq, time, type, actor: valued(actor), ...valued(more) };
}

/**
 * JSON as it can be read: indented, and with nothing hidden.
 * @param {unknown} value
 */
export function json(value) {
  return visible(JSON.stringify(value, null, 2) ?? "");
}

/**
 * A button that copies a text, and says so.
 * @param {string} words
 * @param {string} label
 * @param {() => string} text
 * @param {(words: string) => void} announce
 */
export function copyButton(words, label, text, announce) {
  return h("button", { type: "button", "aria-label": label, onclick: async () => announce((await copy(text())) ? "Copied" : "Not copied") }, words);
}

/**
 * @param {string} sessionId
 * @param {SessionEvent} event
 * @param {(words: string) => void} announce
 */
export function eventElement(sessionId, event, announce) {
  const name = `event ${event.seq}`;
  const text = json(plain(event));
  return h("div", { class: "event-json" },
    h("div", { class: "row" }, copyButton("Copy JSON", `Copy ${name} as JSON`, () => text, announce), copyButton("Copy as curl", `Copy ${name} as curl`, () => curlOf(sessionId, event), announce)),
    h("pre", { tabindex: "0", "aria-label": `${event.type}, ${name}` }, text));
}
