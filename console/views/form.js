/** Forms on the page, from what `plan` in fields.js makes of a schema: each field with its label and its own error. */

import { clean, h, isolate, setText, visible } from "../dom.js";
import { NOTHING, MAX_RADIOS, Unfit, check, checkList, isObject, left, plan, refusals } from "../fields.js";

const NEITHER = "No answer";
let count = 0;

/** A form for one value. `labelledBy` names what asks for it, where the schema doesn't. */
export class Form {
  constructor(schema, labelledBy, initial = undefined) {
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

  /** Shows the server's refusal at its fields. Returns what belongs to none of them. */
  refuse(errors) {
    const leaves = [...flat(this.control)];
    const { byPath, rest } = refusals(errors, leaves.map((one) => one.field.path));
    const refused = leaves.filter((one) => byPath.has(one.field.path));
    for (const one of refused) one.say(byPath.get(one.field.path));
    refused[0]?.focus();
    return rest.join("; ");
  }

  /** Returns all that is typed and chosen, right or wrong, for a form of the same schema to take up. */
  sketch() {
    return this.control.sketch();
  }

  /** Takes up what a form of the same schema has sketched. */
  restore(sketched) {
    this.control.restore(sketched);
    this.dirty = true;
  }

  /** Everything that is written in the form, for those who want to keep it. */
  get draft() {
    return [...flat(this.control)].map((one) => [one.field.label, one.written()]).filter(([, written]) => written)
      .map(([label, written]) => (label ? `${isolate(label)}: ${written}` : written)).join("\n");
  }
}

function* flat(control) {
  if (!control.parts) return yield control;
  for (const part of control.parts()) yield* flat(part);
}

/** Reads a control and notes whatever is wrong in it. */
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

function make(field, labelledBy) {
  const base = { field, id: `field-${(count += 1)}`, labelledBy };
  switch (field.kind) {
    case "choice":
      return field.options.length > MAX_RADIOS ? select(base) : boxes(base, "radio");
    case "several":
      return boxes(base, "checkbox");
    case "list":
      return list(base);
    case "object":
      return group(base);
    default:
      return typed(base);
  }
}

/** The parts around a control: its hint, and its error, which both describe it. */
function around({ field, id }) {
  const bounds = ["integer", "number"].includes(field.kind) && field.minimum != null && field.maximum != null ? `${field.minimum} to ${field.maximum}` : "";
  const words = [field.hint, bounds].filter(Boolean).join("; ");
  const hint = words ? h("small", { id: `${id}-hint` }, words) : null;
  const error = h("p", { class: "wrong", id: `${id}-error`, hidden: true });
  return { hint, error, describedBy: [hint?.id, error.id].filter(Boolean).join(" ") };
}

function said(error, controls, invalid = true) {
  return (message) => {
    setText(error, message);
    error.hidden = !message;
    if (invalid) for (const one of controls()) message ? one.setAttribute("aria-invalid", "true") : one.removeAttribute("aria-invalid");
  };
}

function caption(field) {
  return [h("bdi", {}, field.label ?? "Answer"), field.required ? null : h("small", {}, " (optional)")];
}

// One value that is typed

function typed(base) {
  const { field, id, labelledBy } = base;
  const { hint, error, describedBy } = around(base);
  const named = field.label === null && labelledBy ? { "aria-labelledby": labelledBy } : {};
  const attributes = { id, ...named, "aria-describedby": describedBy, "aria-required": field.required ? "true" : null, autocomplete: "off", spellcheck: field.kind === "text" ? null : "false" };
  const number = ["integer", "number"].includes(field.kind);
  const single = number || (field.kind === "text" && field.input);
  const input = single
    ? h("input", { ...attributes, type: number ? "text" : field.input, inputmode: number ? (field.kind === "integer" && !(field.minimum < 0) ? "numeric" : "text") : null })
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
      say(wrong.message);
    }
  });
  const label = named["aria-labelledby"] ? null : h("label", { for: id }, ...caption(field));
  return { field, read, say, focus: () => input.focus(), written: () => input.value.trim(), ...kept(input), element: h("div", { class: "entry-field" }, label, hint, input, error) };
}

// One of several, or several of them

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

function set(base, content, role = null) {
  const { field, id, labelledBy } = base;
  const named = field.label === null && labelledBy ? { "aria-labelledby": labelledBy } : {};
  return h("fieldset", { id, role, ...named, "aria-describedby": `${id}-error` }, named["aria-labelledby"] ? null : h("legend", {}, ...caption(field)), ...content);
}

function boxes(base, type) {
  const { field, id } = base;
  const { hint, error } = around(base);
  const offered = [...field.options];
  if (type === "radio" && (!field.required || field.nullable)) offered.push({ label: NEITHER });
  const chosen = (value) => (type === "radio" ? value !== undefined && same(value, field.initial) : Array.isArray(field.initial) && field.initial.some((one) => same(one, value)));
  const inputs = offered.map((option, index) => h("input", { type, name: id, value: index, checked: chosen(option.value) }));
  const element = set(base, [hint, ...inputs.map((input, index) => h("label", { class: "check" }, input, " ", h("bdi", {}, offered[index].label), offered[index].note ? h("small", {}, ` ${isolate(offered[index].note)}`) : null)), error], type === "radio" ? "radiogroup" : null);
  const say = said(error, () => [element], type === "radio");
  const taken = () => offered.filter((_, index) => inputs[index].checked);
  const read = () => {
    const options = taken();
    if (type === "checkbox") return options.length || field.required ? checkList(field, options.map((one) => one.value)) : NOTHING;
    return options.length && "value" in options[0] ? options[0].value : left(field, "Choose one.");
  };
  element.addEventListener("input", () => say(""));
  const sketch = () => inputs.map((one) => one.checked);
  const restore = (sketched) => inputs.forEach((one, index) => (one.checked = sketched[index]));
  return { field, read, say, element, sketch, restore, focus: () => (inputs.find((one) => one.checked) ?? inputs[0]).focus(), written: () => taken().map((one) => one.label).join(", ") };
}

function select(base) {
  const { field, id, labelledBy } = base;
  const { hint, error, describedBy } = around(base);
  const named = field.label === null && labelledBy ? { "aria-labelledby": labelledBy } : {};
  const input = h("select", { id, ...named, "aria-describedby": describedBy, "aria-required": field.required ? "true" : null },
    h("option", { value: "" }, field.required && !field.nullable ? "Choose …" : NEITHER),
    ...field.options.map((option, index) => h("option", { value: index, selected: field.initial !== undefined && same(option.value, field.initial) }, option.note ? `${option.label} (${option.note})` : option.label)));
  const say = said(error, () => [input]);
  const read = () => (input.value === "" ? left(field, "Choose one.") : field.options[Number(input.value)].value);
  input.addEventListener("input", () => say(""));
  const label = named["aria-labelledby"] ? null : h("label", { for: id }, ...caption(field));
  return { field, read, say, focus: () => input.focus(), written: () => (input.value === "" ? "" : field.options[Number(input.value)].label), ...kept(input), element: h("div", { class: "entry-field" }, label, hint, input, error) };
}

// Lists

function list(base) {
  const { field } = base;
  const { hint, error } = around(base);
  const rows = [];
  const body = h("div", { class: "list-rows" });
  const add = h("button", { type: "button", onclick: () => more().focus() }, "Add");
  const element = set(base, [hint, body, h("div", { class: "row" }, add), error]);
  const changed = () => {
    rows.forEach((row, index) => row.remove.setAttribute("aria-label", `Remove item ${index + 1}`));
    add.disabled = rows.length >= field.maxItems;
  };
  const more = (initial) => {
    const number = rows.length + 1;
    const item = make({ ...field.item, label: `Item ${number}`, path: `${field.path}.${number - 1}`, ...(initial === undefined ? {} : { initial }) });
    const remove = h("button", { type: "button", class: "quiet", onclick: () => {
      rows.splice(rows.indexOf(row), 1);
      row.element.remove();
      changed();
      add.focus();
      element.dispatchEvent(new Event("input", { bubbles: true }));
    } }, "Remove");
    const row = { item, remove, element: h("div", { class: "row list-row" }, item.element, remove) };
    rows.push(row);
    body.append(row.element);
    changed();
    return item;
  };
  const given = Array.isArray(field.initial) ? field.initial : Array.from({ length: Math.min(Math.max(field.minItems ?? 0, field.required ? 1 : 0), field.maxItems ?? Infinity) });
  for (const one of given) more(one);
  const filled = (row) => row.item.written() !== "";
  const read = (judge = (part) => part.read()) => {
    // A row that was left empty is no item.
    const values = rows.filter(filled).map((row) => judge(row.item));
    if (!values.length && !field.required) return NOTHING;
    return checkList(field, values);
  };
  changed();
  const say = said(error, () => [], false);
  element.addEventListener("input", () => say(""));
  const sketch = () => rows.map((row) => row.item.sketch());
  const restore = (sketched) => {
    for (const row of rows.splice(sketched.length)) row.element.remove();
    while (rows.length < sketched.length) more();
    changed();
    rows.forEach((row, index) => row.item.restore(sketched[index]));
  };
  return { field, read, say, element, sketch, restore, focus: () => (rows[0]?.item ?? add).focus(), written: () => rows.filter(filled).map((row) => row.item.written()).join(", "), parts: null };
}

// Objects

function group(base) {
  const { field } = base;
  const { hint, error } = around(base);
  const given = isObject(field.initial) ? field.initial : null;
  const controls = field.fields.map((part) => make(given ? { ...part, initial: given[part.name] } : part));
  const inner = h("div", { class: "fields" }, ...controls.map((one) => one.element));
  const say = said(error, () => [], false);
  const values = (judge) => Object.fromEntries(controls.map((one) => [one.field.name, judge(one)]).filter(([, value]) => value !== NOTHING));
  const parts = () => controls;
  const focus = () => controls[0]?.focus();
  const written = () => "";
  if (field.name === null) {
    return { field, say, focus, written, parts, ...keptAll(controls), read: (judge = (part) => part.read()) => values(judge), element: h("div", { class: "fields" }, inner, error) };
  }
  const may = !field.required || field.nullable;
  const wanted = h("input", { type: "checkbox", checked: !may || given !== null, onchange: () => (inner.hidden = !wanted.checked) });
  inner.hidden = !wanted.checked;
  const element = set(base, [hint, may ? h("label", { class: "check" }, wanted, " Fill this in") : null, inner, error]);
  const read = (judge = (part) => part.read()) => (wanted.checked ? values(judge) : left(field, ""));
  const inside = keptAll(controls);
  const sketch = () => ({ wanted: wanted.checked, inside: inside.sketch() });
  const restore = (sketched) => {
    if (may) wanted.checked = sketched.wanted;
    inner.hidden = !wanted.checked;
    inside.restore(sketched.inside);
  };
  return { field, say, focus, written, parts: () => (wanted.checked ? controls : []), sketch, restore, read, element };
}

// What is typed, as it stands

function kept(input) {
  return { sketch: () => input.value, restore: (sketched) => (input.value = sketched) };
}

function keptAll(controls) {
  return { sketch: () => controls.map((one) => one.sketch()), restore: (sketched) => controls.forEach((one, index) => one.restore(sketched[index])) };
}
