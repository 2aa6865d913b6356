/** Forms on the page, from what `plan` in fields.js makes of a schema: each field with its label and its own error. */

import { clean, h, isolate, messageOf, setText, visible } from "../dom.js";
import { NOTHING, MAX_RADIOS, Unfit, check, checkList, isObject, left, plan, refusals } from "../fields.js";

/**
 * @typedef {import("../fields.js").Base} Base
 * @typedef {import("../fields.js").Field} Field
 * @typedef {object} Control
 * @property {Field} field
 * @property {(judge?: (part: Control) => unknown) => unknown} read Throws `Unfit`; `judge` reads the parts.
 * @property {(message: string) => void} say
 * @property {HTMLElement} element
 * @property {() => unknown} sketch
 * @property {(sketched: unknown) => void} restore Throws what another form has sketched.
 * @property {() => void} focus
 * @property {() => string} written
 * @property {() => Control[]} [parts]
 */

/**
 * What a control is made of.
 * @template {Field} [F=Field]
 * @typedef {{ field: F, id: string, labelledBy: string | null }} Basis
 */

/** A schema may demand any number of items; a page holds so many, and "Add" makes more. */
const MOST_ROWS_AT_FIRST = 8;
const NEITHER = "No answer";
let count = 0;

/** A form for one value. */
export class Form {
  /**
   * @param {unknown} schema
   * @param {string | null} labelledBy names what asks for it, where the schema doesn't
   * @param {unknown} [initial]
   */
  constructor(schema, labelledBy, initial = undefined) {
    /** @type {Field} */
    let field;
    try {
      field = plan(schema);
    } catch {
      // The server takes schemas that nobody thought of here; their answers can still be written down.
      field = { kind: "json", path: "value", name: null, label: null, hint: "", required: true, nullable: false };
    }
    if (initial !== undefined) field.initial = initial;
    this.dirty = false;
    this.field = field;
    this.control = make(field, labelledBy);
    this.element = h("div", { class: "fields", oninput: () => (this.dirty = true) }, this.control.element);
  }

  /** Returns the value, or undefined if something doesn't fit: then it says so, and the first such field has the focus. */
  read() {
    /** @type {Control[]} */
    const wrong = [];
    const value = judged(this.control, wrong);
    wrong[0]?.focus();
    return wrong.length ? undefined : value === NOTHING ? null : value;
  }

  /** Returns what is typed now without saying what is wrong with it; undefined if it doesn't fit. */
  peek() {
    try {
      return this.control.read();
    } catch {
      return undefined;
    }
  }

  /**
   * Shows the server's refusal at its fields. Returns what belongs to none of them.
   * @param {import("../api.js").Fault[]} errors
   */
  refuse(errors) {
    const leaves = [...flat(this.control)];
    const { byPath, rest } = refusals(errors, leaves.map((one) => one.field.path));
    const refused = leaves.filter((one) => byPath.has(one.field.path));
    for (const one of refused) one.say(byPath.get(one.field.path) ?? "");
    refused[0]?.focus();
    return rest.join("; ");
  }

  /** Returns all that is typed and chosen, right or wrong, for a form of the same schema to take up. */
  sketch() {
    return this.control.sketch();
  }

  /**
   * Takes up what a form of the same schema has sketched.
   * @param {unknown} sketched
   */
  restore(sketched) {
    this.control.restore(sketched);
    this.dirty = true;
  }

  /** Everything that is written in the form, for those who want to keep it. */
  get draft() {
    return [...flat(this.control)].map((one) => ({ label: one.field.label, written: one.written() })).filter(({ written }) => written)
      .map(({ label, written }) => (label ? `${isolate(label)}: ${written}` : written)).join("\n");
  }
}

/**
 * @param {Control} control
 * @returns {Generator<Control>}
 */
function* flat(control) {
  if (!control.parts) yield control;
  else for (const part of control.parts()) yield* flat(part);
}

/**
 * Reads a control and notes whatever is wrong in it.
 * @param {Control} control
 * @param {Control[]} wrong
 * @returns {unknown}
 */
function judged(control, wrong) {
  try {
    const value = control.read((part) => judged(part, wrong));
    control.say("");
    return value;
  } catch (error) {
    if (!(error instanceof Unfit)) throw error;
    control.say(error.message);
    wrong.push(control);
    return undefined;
  }
}

/**
 * @param {Field} field
 * @param {string | null} [labelledBy]
 * @returns {Control}
 */
function make(field, labelledBy = null) {
  const id = `field-${(count += 1)}`;
  switch (field.kind) {
    case "choice":
      return field.options.length > MAX_RADIOS ? select({ field, id, labelledBy }) : boxes({ field, id, labelledBy }, "radio");
    case "several":
      return boxes({ field, id, labelledBy }, "checkbox");
    case "list":
      return list({ field, id, labelledBy });
    case "object":
      return group({ field, id, labelledBy });
    default:
      return typed({ field, id, labelledBy });
  }
}

/**
 * The parts around a control: its hint, and its error, which both describe it.
 * @param {Basis} base
 */
function around({ field, id }) {
  const bounds = ["integer", "number"].includes(field.kind) && field.minimum != null && field.maximum != null ? `${field.minimum} to ${field.maximum}` : "";
  const words = [field.hint, bounds].filter(Boolean).join("; ");
  const hint = words ? h("small", { id: `${id}-hint` }, words) : null;
  const error = h("p", { class: "wrong", id: `${id}-error`, hidden: true });
  return { hint, error, describedBy: [hint?.id, error.id].filter(Boolean).join(" ") };
}

/**
 * @param {HTMLElement} error
 * @param {() => Element[]} controls
 */
function said(error, controls, invalid = true) {
  return (/** @type {string} */ message) => {
    setText(error, message);
    error.hidden = !message;
    if (invalid) for (const one of controls()) message ? one.setAttribute("aria-invalid", "true") : one.removeAttribute("aria-invalid");
  };
}

/** @param {Base} field */
function caption(field) {
  return [h("bdi", {}, field.label ?? "Answer"), field.required ? null : h("small", {}, " (optional)")];
}

// One value that is typed

/**
 * Who asks for it names what has no label of its own.
 * @param {Basis} base
 */
function named({ field, labelledBy }) {
  return field.label === null && labelledBy ? labelledBy : null;
}

/**
 * @param {Basis<Base & import("../fields.js").Typed>} base
 * @returns {Control}
 */
function typed(base) {
  const { field, id } = base;
  const { hint, error, describedBy } = around(base);
  const attributes = { id, "aria-labelledby": named(base), "aria-describedby": describedBy, "aria-required": field.required ? "true" : null, autocomplete: "off", spellcheck: field.kind === "text" ? null : "false" };
  const number = field.kind === "integer" || field.kind === "number";
  const type = field.kind === "text" ? field.input : number ? "text" : null;
  const input = type
    ? h("input", { ...attributes, type, inputmode: number ? (field.kind === "integer" && (field.minimum ?? 0) >= 0 ? "numeric" : "text") : null })
    : h("textarea", { ...attributes, rows: field.kind === "json" ? 4 : 2, class: field.kind === "json" ? "json" : null });
  const { initial } = field;
  if (initial !== undefined && initial !== null) input.value = field.kind === "json" ? visible(JSON.stringify(initial, null, 2)) : clean(String(initial));
  const say = said(error, () => [input]);
  const read = () => check(field, input.value);
  input.addEventListener("input", () => {
    // What is still empty isn't wrong yet.
    try {
      if (input.value) read();
      say("");
    } catch (wrong) {
      say(messageOf(wrong));
    }
  });
  const label = named(base) ? null : h("label", { for: id }, ...caption(field));
  return { field, read, say, focus: () => input.focus(), written: () => input.value.trim(), ...kept(input), element: h("div", { class: "entry-field" }, label, hint, input, error) };
}

// One of several, or several of them

/**
 * @param {unknown} one
 * @param {unknown} other
 */
function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

/**
 * @param {Basis} base
 * @param {import("../dom.js").Child[]} content
 * @param {string | null} [role]
 */
function set(base, content, role = null) {
  const { field, id } = base;
  return h("fieldset", { id, role, "aria-labelledby": named(base), "aria-describedby": `${id}-error` }, named(base) ? null : h("legend", {}, ...caption(field)), ...content);
}

/**
 * @param {Basis<Base & import("../fields.js").Chosen>} base
 * @param {"radio" | "checkbox"} type
 * @returns {Control}
 */
function boxes(base, type) {
  const { field, id } = base;
  const { hint, error } = around(base);
  const offered = [...field.options];
  if (type === "radio" && (!field.required || field.nullable)) offered.push({ label: NEITHER });
  const chosen = (/** @type {unknown} */ value) => (type === "radio" ? value !== undefined && same(value, field.initial) : Array.isArray(field.initial) && field.initial.some((one) => same(one, value)));
  const inputs = offered.map((option, index) => h("input", { type, name: id, value: index, checked: chosen(option.value) }));
  const element = set(base, [hint, ...inputs.map((input, index) => h("label", { class: "check" }, input, " ", h("bdi", {}, offered[index].label), noteOf(offered[index]))), error], type === "radio" ? "radiogroup" : null);
  const say = said(error, () => [element], type === "radio");
  const taken = () => offered.filter((_, index) => inputs[index].checked);
  const read = () => {
    const options = taken();
    if (type === "checkbox") return options.length || field.required ? checkList(field, options.map((one) => one.value)) : NOTHING;
    return options.length && "value" in options[0] ? options[0].value : left(field, "Choose one.");
  };
  element.addEventListener("input", () => say(""));
  const sketch = () => inputs.map((one) => one.checked);
  const restore = (/** @type {unknown} */ sketched) => {
    const checked = listOf(sketched);
    inputs.forEach((one, index) => (one.checked = checked[index] === true));
  };
  return { field, read, say, element, sketch, restore, focus: () => (inputs.find((one) => one.checked) ?? inputs[0]).focus(), written: () => taken().map((one) => one.label).join(", ") };
}

/** @param {import("../fields.js").Option} option */
function noteOf({ note }) {
  return note ? h("small", {}, ` ${isolate(note)}`) : null;
}

/**
 * @param {Basis<Base & import("../fields.js").Chosen>} base
 * @returns {Control}
 */
function select(base) {
  const { field, id } = base;
  const { hint, error, describedBy } = around(base);
  const input = h("select", { id, "aria-labelledby": named(base), "aria-describedby": describedBy, "aria-required": field.required ? "true" : null },
    h("option", { value: "" }, field.required && !field.nullable ? "Choose …" : NEITHER),
    ...field.options.map((option, index) => h("option", { value: index, selected: field.initial !== undefined && same(option.value, field.initial) }, option.note ? `${option.label} (${option.note})` : option.label)));
  const say = said(error, () => [input]);
  const read = () => (input.value === "" ? left(field, "Choose one.") : field.options[Number(input.value)].value);
  input.addEventListener("input", () => say(""));
  const label = named(base) ? null : h("label", { for: id }, ...caption(field));
  return { field, read, say, focus: () => input.focus(), written: () => (input.value === "" ? "" : field.options[Number(input.value)].label), ...kept(input), element: h("div", { class: "entry-field" }, label, hint, input, error) };
}

// Lists

/**
 * @param {Basis<Base & import("../fields.js").Listed>} base
 * @returns {Control}
 */
function list(base) {
  const { field } = base;
  const { hint, error } = around(base);
  /** @typedef {{ item: Control, remove: HTMLElement, element: HTMLElement }} Row */
  /** @type {Row[]} */
  const rows = [];
  const body = h("div", { class: "list-rows" });
  const add = h("button", { type: "button", onclick: () => more().focus() }, "Add");
  const element = set(base, [hint, body, h("div", { class: "row" }, add), error]);
  const changed = () => {
    rows.forEach((row, index) => row.remove.setAttribute("aria-label", `Remove item ${index + 1}`));
    add.disabled = rows.length >= (field.maxItems ?? Infinity);
  };
  const more = (/** @type {unknown} */ initial = undefined) => {
    const number = rows.length + 1;
    const item = make({ ...field.item, label: `Item ${number}`, path: `${field.path}.${number - 1}`, ...(initial === undefined ? {} : { initial }) });
    const remove = h("button", { type: "button", class: "quiet", onclick: () => {
      rows.splice(rows.indexOf(row), 1);
      row.element.remove();
      changed();
      add.focus();
      element.dispatchEvent(new Event("input", { bubbles: true }));
    } }, "Remove");
    /** @type {Row} */
    const row = { item, remove, element: h("div", { class: "row list-row" }, item.element, remove) };
    rows.push(row);
    body.append(row.element);
    changed();
    return item;
  };
  const least = Math.min(Math.max(field.minItems ?? 0, field.required ? 1 : 0), field.maxItems ?? Infinity, MOST_ROWS_AT_FIRST);
  const given = Array.isArray(field.initial) ? field.initial : Array.from({ length: least });
  for (const one of given) more(one);
  const filled = (/** @type {Row} */ row) => row.item.written() !== "";
  const read = (judge = readPart) => {
    // A row that was left empty is no item.
    const values = rows.filter(filled).map((row) => judge(row.item));
    if (!values.length && !field.required) return NOTHING;
    return checkList(field, values);
  };
  changed();
  const say = said(error, () => [], false);
  element.addEventListener("input", () => say(""));
  const sketch = () => rows.map((row) => row.item.sketch());
  const restore = (/** @type {unknown} */ sketched) => {
    const items = listOf(sketched);
    for (const row of rows.splice(items.length)) row.element.remove();
    while (rows.length < items.length) more();
    changed();
    rows.forEach((row, index) => row.item.restore(items[index]));
  };
  return { field, read, say, element, sketch, restore, focus: () => (rows[0]?.item ?? add).focus(), written: () => rows.filter(filled).map((row) => row.item.written()).join(", ") };
}

// Objects

/**
 * @param {Basis<Base & import("../fields.js").Grouped>} base
 * @returns {Control}
 */
function group(base) {
  const { field } = base;
  const { hint, error } = around(base);
  const given = isObject(field.initial) ? field.initial : null;
  const controls = field.fields.map((part) => make(given ? { ...part, initial: given[part.name ?? ""] } : part));
  const inner = h("div", { class: "fields" }, ...controls.map((one) => one.element));
  const say = said(error, () => [], false);
  const values = (/** @type {(part: Control) => unknown} */ judge) => Object.fromEntries(controls.map((one) => [one.field.name ?? "", judge(one)]).filter(([, value]) => value !== NOTHING));
  const parts = () => controls;
  const focus = () => controls[0]?.focus();
  const written = () => "";
  if (field.name === null) {
    return { field, say, focus, written, parts, ...keptAll(controls), read: (judge = readPart) => values(judge), element: h("div", { class: "fields" }, inner, error) };
  }
  const may = !field.required || field.nullable;
  const wanted = h("input", { type: "checkbox", checked: !may || given !== null, onchange: () => (inner.hidden = !wanted.checked) });
  inner.hidden = !wanted.checked;
  const element = set(base, [hint, may ? h("label", { class: "check" }, wanted, " Fill this in") : null, inner, error]);
  const read = (judge = readPart) => (wanted.checked ? values(judge) : left(field, ""));
  const inside = keptAll(controls);
  const sketch = () => ({ wanted: wanted.checked, inside: inside.sketch() });
  const restore = (/** @type {unknown} */ sketched) => {
    if (!isObject(sketched)) throw new AnotherForm();
    if (may) wanted.checked = sketched.wanted === true;
    inner.hidden = !wanted.checked;
    inside.restore(sketched.inside);
  };
  return { field, say, focus, written, parts: () => (wanted.checked ? controls : []), sketch, restore, read, element };
}

// What is typed, as it stands

class AnotherForm extends Error {}

/** @param {unknown} sketched */
function listOf(sketched) {
  if (!Array.isArray(sketched)) throw new AnotherForm();
  return sketched;
}

/** @param {Control} part */
function readPart(part) {
  return part.read();
}

/** @param {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} input */
function kept(input) {
  return {
    sketch: () => input.value,
    restore(/** @type {unknown} */ sketched) {
      if (typeof sketched !== "string") throw new AnotherForm();
      input.value = sketched;
    },
  };
}

/** @param {Control[]} controls */
function keptAll(controls) {
  return {
    sketch: () => controls.map((one) => one.sketch()),
    restore(/** @type {unknown} */ sketched) {
      const parts = listOf(sketched);
      controls.forEach((one, index) => one.restore(parts[index]));
    },
  };
}
