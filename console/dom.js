/** Small helpers to build pages and to write values for people. */

import { serverNow } from "./clock.js";

const SVG = "http://www.w3.org/2000/svg";

// The same characters as in src/waystation/plain_text.py, and a carriage return: controls, whatever changes the
// writing direction of what follows, and what has no width and only hides. Joiners stay where they shape letters or
// join emoji. A pair that isolates a text (see `isolate`) changes nothing around it and stays.
const HIDDEN = new RegExp(
  [
    "[\\0-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u061c\\u180e\\u200b\\u200e\\u200f\\u202a-\\u202e\\u2060-\\u2065\\u206a-\\u206f\\ufeff\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}]",
    "(?<![\\u0600-\\u1cff\\u2190-\\u2bff\\ufe0f\\u{1f000}-\\u{1faff}])[\\u200c\\u200d]",
    "[\\u200c\\u200d](?![\\u0600-\\u1cff\\u2190-\\u2bff\\ufe0f\\u{1f000}-\\u{1faff}])",
  ].join("|"),
  "gu",
);
const ISOLATES = /(\u2068[^\u2066-\u2069]*\u2069)|[\u2066-\u2069]/g;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const TEXT_ATTRIBUTES = new Set(["title", "aria-label", "placeholder"]);

/**
 * Text without characters that command or mislead; every text that the page shows goes through here.
 * @param {string} text
 */
export function clean(text) {
  return text.replace(HIDDEN, "").replace(ISOLATES, "$1");
}

/**
 * JSON in which characters that `clean` would leave out are written as escapes: it says the same, and hides nothing.
 * @param {string} json
 */
export function visible(json) {
  /** @param {string} found */
  const escaped = (found) => Array.from({ length: found.length }, (_, at) => `\\u${found.charCodeAt(at).toString(16).padStart(4, "0")}`).join("");
  return json.replace(HIDDEN, escaped).replace(/[\u2066-\u2069]/g, escaped);
}

/**
 * A foreign text within a sentence: words written from right to left don't reorder what is around them.
 * @param {string} text
 */
export function isolate(text) {
  const plain = clean(text).replace(/[\u2066-\u2069]/g, "");
  return RIGHT_TO_LEFT.test(plain) ? `\u2068${plain}\u2069` : plain;
}

/**
 * What may stand in an element: nodes, text, and nothing.
 * @typedef {Node | string | number | boolean | null | undefined} Child
 * @typedef {Record<string, unknown>} Attributes
 */

/**
 * `onclick` and the like.
 * @template {Element} E
 * @typedef {{ [N in keyof HTMLElementEventMap as `on${N}`]?: (event: HTMLElementEventMap[N] & { currentTarget: E }) => void }} Listeners
 */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @typedef {Attributes & Listeners<HTMLElementTagNameMap[T]>} AttributesOf
 */

/**
 * @template {Element} E
 * @param {E} element
 * @param {Attributes} attributes
 * @param {(Child | Child[])[]} children
 */
export function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else element.setAttribute(name, value === true ? "" : TEXT_ATTRIBUTES.has(name) ? clean(String(value)) : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : clean(String(child)));
  }
  return element;
}

/**
 * An HTML element: attributes, `onclick` and the like, children as nodes or text.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {AttributesOf<T>} [attributes]
 * @param {(Child | Child[])[]} children
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * The same for SVG.
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {(Child | Child[])[]} children
 */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * Sets an element's text only if it differs, so that nothing is announced or drawn again needlessly.
 * @param {Node} element
 * @param {string | number | null | undefined} text
 */
export function setText(element, text) {
  const shown = clean(String(text ?? ""));
  if (element.textContent !== shown) element.textContent = shown;
}

let title = "";
let waiting = "";

/** @param {string} name */
export function setTitle(name) {
  title = name;
  document.title = clean(`${waiting || title} · Waystation`);
}

/**
 * Lets the tab's title say what waits, in place of the page's own as long as anything does.
 * @param {string} words
 */
export function setWaiting(words) {
  waiting = words;
  setTitle(title);
}

/**
 * @param {Element} element
 * @param {string} name
 * @param {unknown} on
 */
export function setClass(element, name, on) {
  element.classList.toggle(name, Boolean(on));
}

/** @param {{ id?: string, name?: string | null } | null | undefined} actor */
export function nameOf(actor) {
  return isolate(actor?.name ?? actor?.id ?? "");
}

/**
 * Formats an amount in minor units, in integer arithmetic: 2480 usd becomes "$24.80".
 * @param {number | null | undefined} amount
 * @param {string} currency
 */
export function money(amount, currency) {
  if (amount === null || amount === undefined) return "not stated";
  if (!/^[a-z]{3}$/.test(currency)) return `${groups(String(amount))} base units of ${asset(currency)}`;
  const format = new Intl.NumberFormat(undefined, { style: "currency", currency });
  const digits = format.resolvedOptions().maximumFractionDigits ?? 0;
  const [sign, text] = amount < 0 ? ["-", String(-amount)] : ["", String(amount)];
  const padded = text.padStart(digits + 1, "0");
  const whole = padded.slice(0, padded.length - digits);
  // A string is formatted exactly; a number could be rounded.
  const exact = /** @type {`${number}`} */ (sign + whole + (digits ? `.${padded.slice(-digits)}` : ""));
  return format.format(exact);
}

/** @param {string} digits */
function groups(digits) {
  return digits.replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** @param {string} currency */
function asset(currency) {
  return currency.replace(/(0x[0-9a-fA-F]{4})[0-9a-fA-F]{20,}([0-9a-fA-F]{4})/, "$1…$2");
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** @param {string} iso */
export function time(iso) {
  return TIME.format(new Date(iso));
}

/** @param {string} iso */
export function dateTime(iso) {
  return DATE.format(new Date(iso));
}

/**
 * The time left, like "4 min 05 s"; "over" afterwards.
 * @param {string} iso
 */
export function remaining(iso, now = serverNow()) {
  const seconds = Math.ceil((new Date(iso).getTime() - now) / 1000);
  if (seconds <= 0) return "over";
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${String(seconds % 60).padStart(2, "0")} s` : `${seconds} s`;
}

/** @param {number} milliseconds */
export function duration(milliseconds) {
  if (milliseconds < 1_000) return `${milliseconds} ms`;
  if (milliseconds < 60_000) return `${(milliseconds / 1_000).toFixed(1)} s`;
  if (milliseconds < 3_600_000) return `${Math.floor(milliseconds / 60_000)} min ${Math.floor(milliseconds / 1_000) % 60} s`;
  return `${Math.floor(milliseconds / 3_600_000)} h ${Math.floor(milliseconds / 60_000) % 60} min`;
}

/** @param {string} iso */
export function ago(iso, now = serverNow()) {
  const seconds = Math.max(0, Math.round((now - new Date(iso).getTime()) / 1000));
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return DATE.format(new Date(iso));
}

/**
 * A value as text: strings as they are, the rest as indented JSON.
 * @param {unknown} value
 */
export function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/**
 * What went wrong, for people.
 * @param {unknown} error
 */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

export function uuid() {
  // crypto.randomUUID exists only on https and localhost, and a console in a local network may have neither.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
