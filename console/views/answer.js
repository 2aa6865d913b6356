/** An answer to a question, as it is read: by the titles of its form, and with the words that were chosen there. */

import { dateTime, h, isolate, visible } from "../dom.js";
import { isObject, plan } from "../fields.js";
import { facts } from "./card.js";

/** @typedef {import("../fields.js").Field} Field */

const NOTHING = "nothing";

/**
 * Returns what was answered to what was asked.
 * @param {{ choices?: { value: unknown, label?: string | null }[] | null, schema?: object | null }} asked
 * @param {unknown} value
 */
export function answerElement(asked, value) {
  const choice = asked.choices?.find((one) => one.value === value);
  if (choice) return said(choice.label ?? String(value));
  return shown(fieldOf(asked.schema), value);
}

/**
 * A value exactly as it is, for those who are held to it.
 * @param {unknown} value
 */
export function valueElement(value) {
  if (typeof value === "string" && value.includes("\n")) return h("pre", { class: "value" }, visible(value));
  return h("code", { class: "value" }, visible(JSON.stringify(value, null, 2)));
}

/**
 * @param {object | null | undefined} schema
 * @returns {Field | null}
 */
function fieldOf(schema) {
  try {
    return schema ? plan(schema) : null;
  } catch {
    // Its form was one for JSON.
    return null;
  }
}

/**
 * @param {Field | null | undefined} field
 * @param {unknown} value
 * @returns {HTMLElement}
 */
function shown(field, value) {
  const options = field && "options" in field ? field.options : [];
  const chosen = options.find((one) => JSON.stringify(one.value) === JSON.stringify(value));
  if (chosen) return said(chosen.label);
  if (value === null || value === undefined) return h("p", { class: "quiet-text" }, NOTHING);
  if (typeof value === "string") return said(field?.kind === "text" && field.input === "datetime-local" && !Number.isNaN(Date.parse(value)) ? dateTime(value) : value);
  if (typeof value === "number" || typeof value === "boolean") return said(value === true ? "Yes" : value === false ? "No" : String(value));
  if (Array.isArray(value)) return several(field, value);
  return isObject(value) ? named(field, value) : valueElement(value);
}

/** @param {string} words */
function said(words) {
  return h("p", { class: "said" }, words);
}

/**
 * @param {Field | null | undefined} field
 * @param {unknown[]} values
 */
function several(field, values) {
  /** @type {Field | null} */
  const one = field?.kind === "list" ? field.item : field?.kind === "several" ? { ...field, kind: "choice" } : null;
  if (!values.length) return h("p", { class: "quiet-text" }, NOTHING);
  return h("ul", { class: "plain" }, ...values.map((value) => h("li", {}, shown(one, value))));
}

/**
 * What the form has asked for in its order, and whatever else there is by its name.
 * @param {Field | null | undefined} field
 * @param {Record<string, unknown>} value
 */
function named(field, value) {
  const fields = (field?.kind === "object" ? field.fields : []).filter(({ name }) => Object.hasOwn(value, name ?? ""));
  const known = new Set(fields.map(({ name }) => name));
  const rows = [
    ...fields.map(/** @returns {import("./card.js").Fact} */ (part) => [isolate(part.label ?? part.name ?? ""), shown(part, value[part.name ?? ""])]),
    ...Object.keys(value).filter((name) => !known.has(name)).map(/** @returns {import("./card.js").Fact} */ (name) => [h("code", {}, visible(name)), shown(null, value[name])]),
  ];
  return rows.length ? facts(rows) : h("p", { class: "quiet-text" }, NOTHING);
}
