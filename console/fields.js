/**
 * Forms made from a JSON Schema: which kind of field each part gets, and whether what was typed fits.
 *
 * `plan` turns a schema into plain objects, without a page; `check` says what is wrong with what was typed. What
 * has no field of its own is typed as JSON. The server checks every answer, so nothing here needs to be complete;
 * patterns are left to it, because a pattern of somebody else can keep a browser busy for ever.
 */

import { messageOf } from "./dom.js";

/**
 * A JSON Schema as somebody wrote it: nothing in it is certain.
 * @typedef {Record<string, unknown>} Schema
 * @typedef {{ minimum?: number, maximum?: number, exclusiveMinimum?: number, exclusiveMaximum?: number, multipleOf?: number, minLength?: number, maxLength?: number,
 *   minItems?: number, maxItems?: number, uniqueItems?: boolean }} Limits
 * @typedef {{ path: string, name: string | null, required: boolean, nullable: boolean, label: string | null, hint: string, initial?: unknown } & Limits} Base
 * @typedef {{ value?: unknown, label: string, note?: string | null }} Option
 * @typedef {{ kind: "json" } | { kind: "integer" | "number" } | { kind: "text", input: string | null }} Typed
 * @typedef {{ kind: "choice", options: Option[] } | { kind: "several", options: Option[] }} Chosen
 * @typedef {{ kind: "list", item: Base & (Typed | Chosen) }} Listed
 * @typedef {{ kind: "object", fields: Field[] }} Grouped
 * @typedef {Typed | Chosen | Listed | Grouped} Kind
 * @typedef {Base & Kind} Field
 */

/** Objects within an object get fields; what is deeper is typed as JSON. */
const MAX_DEPTH = 1;
const MAX_REFERENCES = 20;
/** More choices than this are a list to select from. */
export const MAX_RADIOS = 6;
const LONG_CHARACTERS = 200;
const LONG_FORMATS = new Set(["multi-line", "textarea", "markdown"]);
/** @type {Record<string, string>} */
const INPUTS = { date: "date", "date-time": "datetime-local", email: "email", uri: "url" };
const LIMITS = /** @type {const} */ (["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems"]);

/** An answer can't be read from the page: `message` says why, to whoever types. */
export class Unfit extends Error {}

/** Stands for a field that is left out. */
export const NOTHING = Symbol("nothing");

/**
 * Returns what to show for a schema: `{kind, path, name, label, hint, required, nullable, initial, …}`.
 * @param {unknown} schema
 * @param {{ root?: unknown, path?: string, name?: string | null, required?: boolean, depth?: number }} [place]
 * @returns {Field}
 */
export function plan(schema, { root = schema, path = "value", name = null, required = true, depth = 0 } = {}) {
  const { schema: found, nullable } = resolve(schema, root);
  const field = { path, name, required, nullable, label: text(found.title) ?? name, hint: text(found.description) ?? "", initial: found.default, ...limitsOf(found) };
  return { ...field, ...kindOf(found, field, root, depth) };
}

/** @param {Schema} schema */
function limitsOf(schema) {
  /** @type {Limits} */
  const limits = schema.uniqueItems ? { uniqueItems: true } : {};
  for (const name of LIMITS) {
    const limit = schema[name];
    if (typeof limit === "number") limits[name] = limit;
  }
  return limits;
}

/** @param {unknown} value */
function text(value) {
  return typeof value === "string" && value ? value : null;
}

/**
 * @param {Schema} schema
 * @param {Base} field
 * @param {unknown} root
 * @param {number} depth
 * @returns {Kind}
 */
function kindOf(schema, field, root, depth) {
  const options = optionsOf(schema, root);
  if (options) return { kind: "choice", options };
  const { type, properties, additionalProperties: others, required } = schema;
  if (["anyOf", "oneOf", "allOf", "not", "if"].some((word) => word in schema)) return { kind: "json" };
  if (type === "boolean") return { kind: "choice", options: [{ value: true, label: "Yes" }, { value: false, label: "No" }] };
  if (type === "integer" || type === "number") return { kind: type };
  if (type === "string") {
    const format = text(schema.format) ?? "";
    const long = field.name === null || LONG_FORMATS.has(format) || (field.maxLength ?? 0) > LONG_CHARACTERS || /\n/.test(text(schema.default) ?? "");
    return { kind: "text", input: INPUTS[format] ?? (long ? null : "text") };
  }
  if (type === "array" && schema.items && !schema.prefixItems) {
    const item = plan(schema.items, { root, path: field.path, name: "item", depth: depth + 1 });
    if (item.kind === "choice" && item.options.length && schema.uniqueItems) return { kind: "several", options: item.options };
    if ((item.kind === "choice" || item.kind === "integer" || item.kind === "number" || item.kind === "text") && !item.nullable) return { kind: "list", item };
  }
  if (type === "object" && isObject(properties) && depth <= MAX_DEPTH && others !== true && typeof others !== "object") {
    const needed = new Set(Array.isArray(required) ? required : []);
    const fields = Object.entries(properties).map(([name, part]) =>
      plan(part, { root, path: `${field.path}.${name}`, name, required: needed.has(name), depth: depth + 1 }));
    return { kind: "object", fields };
  }
  return { kind: "json" };
}

/**
 * Follows references, and takes the null out of what may also be null.
 * @param {unknown} schema
 * @param {unknown} root
 */
function resolve(schema, root) {
  let found = objectOf(schema);
  let nullable = false;
  for (let count = 0; count < MAX_REFERENCES; count += 1) {
    const { $ref, anyOf, allOf, ...beside } = found;
    const isNull = (/** @type {unknown} */ part) => objectOf(part).type === "null";
    if (typeof $ref === "string") found = { ...objectOf(objectOf(objectOf(root).$defs)[$ref.replace("#/$defs/", "")]), ...beside };
    else if (Array.isArray(allOf) && allOf.length === 1) found = { ...objectOf(allOf[0]), ...beside };
    else if (Array.isArray(anyOf) && anyOf.length === 2 && anyOf.some(isNull)) {
      nullable = true;
      found = { ...objectOf(anyOf.find((part) => !isNull(part))), ...beside };
    } else if (Array.isArray(found.type) && found.type.length === 2 && found.type.includes("null")) {
      nullable = true;
      found = { ...found, type: found.type.find((one) => one !== "null") };
    } else break;
  }
  return { schema: found, nullable };
}

/**
 * @param {Schema} schema
 * @param {unknown} root
 * @returns {Option[] | null}
 */
function optionsOf(schema, root) {
  if (Array.isArray(schema.enum) && schema.enum.length) return schema.enum.map((value) => ({ value, label: shown(value) }));
  if ("const" in schema) return [named(schema)];
  const parts = schema.oneOf ?? schema.anyOf;
  if (!Array.isArray(parts) || !parts.length) return null;
  const found = parts.map((part) => resolve(part, root).schema);
  return found.every((part) => "const" in part) ? found.map(named) : null;
}

/**
 * An option with its title; the value itself is shown beside it, because that is what counts.
 * @param {Schema} schema
 */
function named({ const: value, title }) {
  const label = text(title) ?? shown(value);
  return { value, label, note: label === shown(value) ? null : shown(value) };
}

/**
 * @param {unknown} value
 * @returns {string}
 */
export function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {unknown} value */
function objectOf(value) {
  return isObject(value) ? value : {};
}

/**
 * Reads a text that was typed for a field. Throws `Unfit` if it doesn't fit.
 * @param {Base & Typed} field
 * @param {string} typed
 */
export function check(field, typed) {
  if (field.kind === "json") return typed.trim() ? parsed(typed) : left(field, "Write it as JSON.");
  if (field.kind === "text") return checkText(field, typed);
  return typed.trim() ? checkNumber(field, typed.trim()) : left(field, field.kind === "integer" ? "Give a whole number." : "Give a number.");
}

/**
 * What an empty field means.
 * @param {Base} field
 * @param {string} message
 */
export function left(field, message) {
  if (!field.required) return NOTHING;
  if (field.nullable) return null;
  throw new Unfit(message);
}

/** @param {string} typed */
function parsed(typed) {
  /** @type {unknown} */
  let value;
  try {
    value = JSON.parse(typed);
  } catch (error) {
    throw new Unfit(`This is no JSON: ${messageOf(error)}.`);
  }
  if (!isExact(value)) throw new Unfit("A number in it is too large for a browser to send exactly.");
  return value;
}

/**
 * Whether every number is as it was written: a browser rounds whole numbers beyond 2^53.
 * @param {unknown} value
 * @returns {boolean}
 */
export function isExact(value) {
  if (typeof value === "number") return !Number.isInteger(value) || Number.isSafeInteger(value);
  return typeof value !== "object" || value === null || Object.values(value).every(isExact);
}

/**
 * @param {Base & { input: string | null }} field
 * @param {string} typed
 */
function checkText(field, typed) {
  if (typed === "") return field.initial === "" ? "" : left(field, "Fill this in.");
  const length = [...typed].length;
  if (length < (field.minLength ?? 0)) throw new Unfit(`At least ${field.minLength} characters, not ${length}.`);
  if (length > (field.maxLength ?? Infinity)) throw new Unfit(`At most ${field.maxLength} characters, not ${length}.`);
  if (field.input === "email" && !/^[^@\s]+@[^@\s]+$/.test(typed)) throw new Unfit("This is no email address.");
  if (field.input === "url" && !URL.canParse(typed)) throw new Unfit("This is no address; it begins with https://, say.");
  return field.input === "datetime-local" ? new Date(typed).toISOString() : typed;
}

/**
 * @param {Base & { kind: "integer" | "number" }} field
 * @param {string} typed
 */
function checkNumber(field, typed) {
  const whole = field.kind === "integer";
  if (!(whole ? /^[+-]?\d+$/ : /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i).test(typed)) throw new Unfit(whole ? "This is no whole number." : "This is no number; write it like 12.5.");
  const value = Number(typed);
  if (!Number.isFinite(value) || (whole && !Number.isSafeInteger(value))) throw new Unfit("This number is too large.");
  if (value < (field.minimum ?? -Infinity)) throw new Unfit(`At least ${field.minimum}.`);
  if (value > (field.maximum ?? Infinity)) throw new Unfit(`At most ${field.maximum}.`);
  if (value <= (field.exclusiveMinimum ?? -Infinity)) throw new Unfit(`More than ${field.exclusiveMinimum}.`);
  if (value >= (field.exclusiveMaximum ?? Infinity)) throw new Unfit(`Less than ${field.exclusiveMaximum}.`);
  if (whole && value % (field.multipleOf ?? 1)) throw new Unfit(`A multiple of ${field.multipleOf}.`);
  return value;
}

/**
 * Throws `Unfit` if a list has too few, too many or repeated values.
 * @param {Base} field
 * @param {unknown[]} values
 */
export function checkList(field, values) {
  if (values.length < (field.minItems ?? 0)) throw new Unfit(`At least ${field.minItems}, not ${values.length}.`);
  if (values.length > (field.maxItems ?? Infinity)) throw new Unfit(`At most ${field.maxItems}, not ${values.length}.`);
  if (field.uniqueItems && new Set(values.map((value) => JSON.stringify(value))).size < values.length) throw new Unfit("Each only once.");
  return values;
}

/**
 * Sorts what the server refuses (`[{at, problem}]`) by the path of the field, and a rest that belongs to none.
 * @param {import("./api.js").Fault[]} errors
 * @param {string[]} paths
 */
export function refusals(errors, paths) {
  /** @type {Map<string, string>} */
  const byPath = new Map();
  /** @type {string[]} */
  const rest = [];
  for (const { at, problem } of errors) {
    // The longest path that fits, because a field's name may have a dot in it.
    const path = paths.filter((one) => at === one || at.startsWith(`${one}.`)).sort((a, b) => b.length - a.length)[0];
    const within = (/** @type {string} */ outer) => (at === outer ? problem : `${at.slice(outer.length + 1)}: ${problem}`);
    if (path === undefined || (path === "value" && paths.length > 1)) rest.push(within("value"));
    else if (!byPath.has(path)) byPath.set(path, within(path));
  }
  return { byPath, rest };
}
