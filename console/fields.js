/**
 * Forms made from a JSON Schema: which kind of field each part gets, and whether what was typed fits.
 *
 * `plan` turns a schema into plain objects, without a page; `check` says what is wrong with what was typed. What
 * has no field of its own is typed as JSON. The server checks every answer, so nothing here needs to be complete;
 * patterns are left to it, because a pattern of somebody else can keep a browser busy for ever.
 */

/** Objects within an object get fields; what is deeper is typed as JSON. */
const MAX_DEPTH = 1;
const MAX_REFERENCES = 20;
/** More choices than this are a list to select from. */
export const MAX_RADIOS = 6;
const LONG_CHARACTERS = 200;
const LONG_FORMATS = new Set(["multi-line", "textarea", "markdown"]);
const INPUTS = { date: "date", "date-time": "datetime-local", email: "email", uri: "url" };
const LIMITS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems"];

/** An answer can't be read from the page: `message` says why, to whoever types. */
export class Unfit extends Error {}

/** Stands for a field that is left out. */
export const NOTHING = Symbol("nothing");

/** Returns what to show for a schema: `{kind, path, name, label, hint, required, nullable, initial, …}`. */
export function plan(schema, { root = schema, path = "value", name = null, required = true, depth = 0 } = {}) {
  const { schema: found, nullable } = resolve(schema, root);
  const field = {
    path, name, required, nullable,
    label: text(found.title) ?? name,
    hint: text(found.description) ?? "",
    initial: found.default,
    ...Object.fromEntries(LIMITS.filter((one) => one in found).map((one) => [one, found[one]])),
  };
  return { ...field, ...kindOf(found, field, { root, depth }) };
}

function text(value) {
  return typeof value === "string" && value ? value : null;
}

function kindOf(schema, field, { root, depth }) {
  const options = optionsOf(schema, root);
  if (options) return { kind: "choice", options };
  const type = schema.type;
  if (["anyOf", "oneOf", "allOf", "not", "if"].some((word) => word in schema)) return { kind: "json" };
  if (type === "boolean") return { kind: "choice", options: [{ value: true, label: "Yes" }, { value: false, label: "No" }] };
  if (type === "integer" || type === "number") return { kind: type };
  if (type === "string") {
    const long = field.name === null || LONG_FORMATS.has(schema.format) || schema.maxLength > LONG_CHARACTERS || /\n/.test(schema.default ?? "");
    return { kind: "text", input: INPUTS[schema.format] ?? (long ? null : "text") };
  }
  if (type === "array" && schema.items && !schema.prefixItems) {
    const item = plan(schema.items, { root, path: field.path, name: "item", depth: depth + 1 });
    if (item.kind === "choice" && item.options.length && schema.uniqueItems) return { kind: "several", options: item.options };
    if (["choice", "integer", "number", "text"].includes(item.kind) && !item.nullable) return { kind: "list", item };
  }
  if (type === "object" && schema.properties && depth <= MAX_DEPTH && schema.additionalProperties !== true && typeof schema.additionalProperties !== "object") {
    const needed = new Set(schema.required);
    const fields = Object.entries(schema.properties).map(([name, part]) =>
      plan(part, { root, path: `${field.path}.${name}`, name, required: needed.has(name), depth: depth + 1 }));
    return { kind: "object", fields };
  }
  return { kind: "json" };
}

/** Follows references, and takes the null out of what may also be null. */
function resolve(schema, root) {
  let found = isObject(schema) ? schema : {};
  let nullable = false;
  for (let count = 0; count < MAX_REFERENCES; count += 1) {
    const { $ref, anyOf, allOf, ...beside } = found;
    const isNull = (part) => part?.type === "null";
    if (typeof $ref === "string") found = { ...root?.$defs?.[$ref.replace("#/$defs/", "")], ...beside };
    else if (allOf?.length === 1) found = { ...allOf[0], ...beside };
    else if (anyOf?.length === 2 && anyOf.some(isNull)) {
      nullable = true;
      found = { ...anyOf.find((part) => !isNull(part)), ...beside };
    } else if (Array.isArray(found.type) && found.type.length === 2 && found.type.includes("null")) {
      nullable = true;
      found = { ...found, type: found.type.find((one) => one !== "null") };
    } else break;
  }
  return { schema: found, nullable };
}

function optionsOf(schema, root) {
  if (Array.isArray(schema.enum) && schema.enum.length) return schema.enum.map((value) => ({ value, label: shown(value) }));
  if ("const" in schema) return [named(schema)];
  const parts = schema.oneOf ?? schema.anyOf;
  if (!Array.isArray(parts) || !parts.length) return null;
  const found = parts.map((part) => resolve(part, root).schema);
  return found.every((part) => "const" in part) ? found.map(named) : null;
}

/** An option with its title; the value itself is shown beside it, because that is what counts. */
function named({ const: value, title }) {
  const label = text(title) ?? shown(value);
  return { value, label, note: label === shown(value) ? null : shown(value) };
}

export function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Reads a text that was typed for a field. Throws `Unfit` if it doesn't fit. */
export function check(field, typed) {
  if (field.kind === "json") return typed.trim() ? parsed(typed) : left(field, "Write it as JSON.");
  if (field.kind === "text") return checkText(field, typed);
  return typed.trim() ? checkNumber(field, typed.trim()) : left(field, field.kind === "integer" ? "Give a whole number." : "Give a number.");
}

/** What an empty field means. */
export function left(field, message) {
  if (!field.required) return NOTHING;
  if (field.nullable) return null;
  throw new Unfit(message);
}

function parsed(typed) {
  let value;
  try {
    value = JSON.parse(typed);
  } catch (error) {
    throw new Unfit(`This is no JSON: ${error.message}.`);
  }
  if (!isExact(value)) throw new Unfit("A number in it is too large for a browser to send exactly.");
  return value;
}

/** Whether every number is as it was written: a browser rounds whole numbers beyond 2^53. */
export function isExact(value) {
  if (typeof value === "number") return !Number.isInteger(value) || Number.isSafeInteger(value);
  return typeof value !== "object" || value === null || Object.values(value).every(isExact);
}

function checkText(field, typed) {
  if (typed === "") return field.initial === "" ? "" : left(field, "Fill this in.");
  const length = [...typed].length;
  if (length < field.minLength) throw new Unfit(`At least ${field.minLength} characters, not ${length}.`);
  if (length > field.maxLength) throw new Unfit(`At most ${field.maxLength} characters, not ${length}.`);
  if (field.input === "email" && !/^[^@\s]+@[^@\s]+$/.test(typed)) throw new Unfit("This is no email address.");
  if (field.input === "url" && !URL.canParse(typed)) throw new Unfit("This is no address; it begins with https://, say.");
  return field.input === "datetime-local" ? new Date(typed).toISOString() : typed;
}

function checkNumber(field, typed) {
  const whole = field.kind === "integer";
  if (!(whole ? /^[+-]?\d+$/ : /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i).test(typed)) throw new Unfit(whole ? "This is no whole number." : "This is no number; write it like 12.5.");
  const value = Number(typed);
  if (!Number.isFinite(value) || (whole && !Number.isSafeInteger(value))) throw new Unfit("This number is too large.");
  if (value < field.minimum) throw new Unfit(`At least ${field.minimum}.`);
  if (value > field.maximum) throw new Unfit(`At most ${field.maximum}.`);
  if (value <= field.exclusiveMinimum) throw new Unfit(`More than ${field.exclusiveMinimum}.`);
  if (value >= field.exclusiveMaximum) throw new Unfit(`Less than ${field.exclusiveMaximum}.`);
  if (whole && value % (field.multipleOf ?? 1)) throw new Unfit(`A multiple of ${field.multipleOf}.`);
  return value;
}

/** Throws `Unfit` if a list has too few, too many or repeated values. */
export function checkList(field, values) {
  if (values.length < field.minItems) throw new Unfit(`At least ${field.minItems}, not ${values.length}.`);
  if (values.length > field.maxItems) throw new Unfit(`At most ${field.maxItems}, not ${values.length}.`);
  if (field.uniqueItems && new Set(values.map((value) => JSON.stringify(value))).size < values.length) throw new Unfit("Each only once.");
  return values;
}

/** Sorts what the server refuses (`[{at, problem}]`) by the path of the field, and a rest that belongs to none. */
export function refusals(errors, paths) {
  const byPath = new Map();
  const rest = [];
  for (const { at, problem } of errors) {
    // The longest path that fits, because a field's name may have a dot in it.
    const path = paths.filter((one) => at === one || at.startsWith(`${one}.`)).sort((a, b) => b.length - a.length)[0];
    const within = (outer) => (at === outer ? problem : `${at.slice(outer.length + 1)}: ${problem}`);
    if (path === undefined || (path === "value" && paths.length > 1)) rest.push(within("value"));
    else if (!byPath.has(path)) byPath.set(path, within(path));
  }
  return { byPath, rest };
}
