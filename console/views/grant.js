/** A form to grant a mandate, which says in one sentence what is granted while it is written. */

import { h, setText, uuid } from "../dom.js";
import { Unfit } from "../fields.js";
import { inOneSentence, readAmount, readDay, readSeller } from "../mandate-terms.js";

const PROTOCOLS = ["acp", "mpp", "x402"];
/** @typedef {{ at: string, input: HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement, error: HTMLElement, element: HTMLElement, read: () => any }} Field */

/**
 * @param {any} api
 * @param {any} person who grants: an approver for themselves, a service for others
 * @param {(id: string) => void} onGranted
 */
export function grantForm(api, person, onGranted) {
  const form = new GrantForm(api, person, onGranted);
  return form.element;
}

class GrantForm {
  /**
   * @param {any} api
   * @param {any} person
   * @param {(id: string) => void} onGranted
   */
  constructor(api, person, onGranted) {
    this.api = api;
    this.person = person;
    this.onGranted = onGranted;
    /** The same again, after a lost answer, is the same mandate. */
    this.id = `mandate-${uuid()}`;
    /** @type {Field[]} */
    this.fields = [];
    const names = h("datalist", { id: "agents" });
    const amount = (/** @type {string} */ at, /** @type {string} */ label, /** @type {Record<string, any>} */ { hint = "", optional = false } = {}) =>
      this.#field(at, label, h("input", { inputmode: "decimal" }), (text) => (optional && !text ? null : readAmount(text, this.of.currency.read())), hint);
    /** @type {Record<string, Field>} */
    this.of = {
      owner: this.#field("owner", "Granted by", h("input", { value: person.role === "service" ? "" : person.subject, readonly: person.role !== "service" }), needed),
      agent: this.#field("agent", "For the agent", h("input", { list: "agents" }), needed),
      cap: amount("cap.amount", "At most, in all"),
      currency: this.#field("cap.currency", "Currency", h("input", { value: "usd", maxlength: "120" }), (text) => {
        if (!/^[a-z]{3}$|:/.test(text.toLowerCase())) throw new Unfit("Three letters, like usd.");
        return text.includes(":") ? text : text.toLowerCase();
      }),
      each: amount("per_payment_cap", "At most, a payment (optional)", { optional: true }),
      threshold: amount("approval_threshold", "Ask a person for each payment over", { hint: "0 asks for each." }),
      approvers: this.#field("approvers", "Who is asked (optional)", h("input", {}), words, "Ids of people; empty: any approver."),
      until: this.#field("valid_until", "Until the end of", h("input", { type: "date" }), (text) => readDay(text, true)),
      sellers: this.#field("sellers", "Sellers", h("textarea", { rows: "2", placeholder: "https://shop.example" }), (text) => {
        const found = words(text);
        if (!found.length) throw new Unfit("Name a seller, or * for any.");
        return found.map((one) => (one === "*" ? one : readSeller(one)));
      }, "One a line; * is any seller."),
      methods: this.#field("payment_methods", "Paid with (optional)", h("input", { placeholder: "pm_…" }), words, "Ids of methods that are saved at the payment processor, never numbers of cards."),
      from: this.#field("valid_from", "From (optional)", h("input", { type: "date" }), (text) => (text ? readDay(text, false) : null)),
      count: this.#field("constraints.max_payments", "Number of payments (optional)", h("input", { inputmode: "numeric" }), (text) => {
        if (!text) return null;
        if (!/^[1-9]\d{0,5}$/.test(text)) throw new Unfit("Write a whole number above 0.");
        return Number(text);
      }),
      items: this.#field("constraints.allowed_items", "Only these items (optional)", h("input", {}), words, "Ids of the seller's."),
      countries: this.#field("constraints.ship_to_countries", "Sent to these countries only (optional)", h("input", { placeholder: "US, CA" }), (text) => words(text).map((one) => {
        if (!/^[a-z]{2}$/i.test(one)) throw new Unfit("Two letters each, like US.");
        return one.toUpperCase();
      })),
      protocols: this.#field("constraints.allowed_protocols", "Paid in this way only (optional)", h("select", {}, h("option", { value: "" }, "Any"), ...PROTOCOLS.map((one) => h("option", { value: one }, one))), words),
      refunds: this.#field("refunds_give_room", "What is refunded", h("select", {}, h("option", { value: "yes" }, "may be spent again"), h("option", { value: "no" }, "is gone")), (text) => text === "yes"),
    };
    this.sentence = h("p", { class: "sentence", role: "status" });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.button = h("button", { type: "submit", class: "primary" }, "Grant this mandate");
    const { from, count, items, countries, protocols, refunds, ...first } = this.of;
    this.more = h("details", { class: "fold" }, h("summary", {}, "More limits"), h("div", { class: "terms" }, ...[from, count, items, countries, protocols, refunds].map((one) => one.element)));
    this.element = h("form", { class: "card grant", novalidate: true, "aria-label": "Grant a mandate", oninput: (/** @type {Event} */ event) => this.#typed(event), onsubmit: (/** @type {Event} */ event) => this.#submit(event) },
      h("h2", {}, "Grant a mandate"), names, h("div", { class: "terms" }, ...Object.values(first).map((one) => one.element)), this.more, this.sentence, this.problem, h("div", { class: "row" }, this.button));
    /** @type {HTMLInputElement} */ (this.of.threshold.input).value = "0";
    this.#say();
    this.#offer(names);
  }

  /**
   * @param {string} at where the server says that something is wrong
   * @param {string} label
   * @param {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} input
   * @param {(text: string) => any} parse
   * @param {string} [hint]
   * @returns {Field}
   */
  #field(at, label, input, parse, hint = "") {
    const id = `term-${at.replaceAll(".", "-")}`;
    const error = h("p", { class: "wrong", id: `${id}-error`, hidden: true });
    const note = hint ? h("small", { id: `${id}-hint` }, hint) : null;
    input.id = id;
    input.setAttribute("aria-describedby", note ? `${id}-hint ${id}-error` : `${id}-error`);
    input.setAttribute("autocomplete", "off");
    input.setAttribute("spellcheck", "false");
    const field = { at, input, error, read: () => parse(input.value.trim()), element: h("div", { class: "entry-field" }, h("label", { for: id }, label), note, input, error) };
    this.fields.push(field);
    return field;
  }

  /** @param {HTMLDataListElement} names */
  async #offer(names) {
    try {
      const { agents } = await this.api.as(this.person, "GET", "/agents");
      names.replaceChildren(...agents.map((/** @type {any} */ one) => h("option", { value: one.name })));
    } catch {
      // An approver may not list them; the name is written.
    }
  }

  /** @param {Event} event */
  #typed(event) {
    const field = this.fields.find((one) => one.input === event.target);
    // What is still empty isn't wrong yet.
    if (field) judge(field, !field.input.value);
    // How an amount is written depends on the currency.
    if (field === this.of.currency) for (const one of [this.of.cap, this.of.each, this.of.threshold]) judge(one, !one.input.value);
    this.problem.hidden = true;
    this.#say();
  }

  #say() {
    let words = "What is granted is said here, once agent, amount, day and sellers are there.";
    try {
      words = inOneSentence(this.#terms());
    } catch (error) {
      if (!(error instanceof Unfit)) throw error;
    }
    setText(this.sentence, words);
  }

  #terms() {
    const { owner, agent, cap, currency, each, threshold, approvers, until, sellers, methods, from, count, items, countries, protocols, refunds } = this.of;
    const constraint = (/** @type {string} */ type, /** @type {string} */ name, /** @type {any} */ value) => (value === null || value.length === 0 ? [] : [{ type, [name]: value }]);
    return {
      owner: owner.read(), agent: agent.read(), cap: { amount: cap.read(), currency: currency.read() }, per_payment_cap: each.read(), approval_threshold: threshold.read(),
      valid_from: from.read(), valid_until: until.read(), sellers: sellers.read(), payment_methods: methods.read(), approvers: approvers.read(),
      constraints: [...constraint("max_payments", "count", count.read()), ...constraint("allowed_items", "item_ids", items.read()), ...constraint("ship_to_countries", "countries", countries.read()), ...constraint("allowed_protocols", "protocols", protocols.read())],
      refunds_give_room: refunds.read(),
    };
  }

  /** @param {Event} event */
  async #submit(event) {
    event.preventDefault();
    if (this.button.getAttribute("aria-disabled")) return;
    const wrong = this.fields.filter((field) => !judge(field));
    if (wrong.length) return this.#reach(wrong[0]);
    this.button.setAttribute("aria-disabled", "true");
    this.problem.hidden = true;
    const terms = this.#terms();
    try {
      await this.api.as(this.person, "POST", "/mandates", { mandate_id: this.id, terms });
      this.onGranted(this.id);
    } catch (error) {
      this.#refused(/** @type {any} */ (error), terms);
    } finally {
      this.button.removeAttribute("aria-disabled");
    }
  }

  /**
   * Says what the server refuses at its fields, and the rest below them.
   * @param {any} error
   * @param {any} terms
   */
  #refused(error, terms) {
    const rest = [];
    /** @type {Field | null} */
    let first = null;
    for (const { at, problem } of error.errors) {
      const place = at.replace(/^(body\.)?terms\.?/, "").replace(/^constraints\.(\d+).*/, (/** @type {string} */ _, /** @type {string} */ index) => `constraints.${terms.constraints[Number(index)]?.type}`);
      // What contradicts something else is said of the terms as a whole, and names the term.
      const field = place ? this.fields.find((one) => place === one.at || place.startsWith(`${one.at}.`) || one.at.startsWith(`${place}.`)) : this.fields.find((one) => problem.includes(one.at));
      if (!field) rest.push(problem);
      else {
        say(field, problem);
        first ??= field;
      }
    }
    if (first) this.#reach(first);
    if (!rest.length && first) return;
    setText(this.problem, rest.join("; ") || error.message);
    this.problem.hidden = false;
  }

  /** @param {Field} field */
  #reach(field) {
    if (this.more.contains(field.element)) this.more.open = true;
    field.input.focus();
  }
}

/** @param {string} text */
function needed(text) {
  if (!text) throw new Unfit("Fill this in.");
  return text;
}

/** @param {string} text */
function words(text) {
  return [...new Set(text.split(/[\s,]+/).filter(Boolean))];
}

/**
 * Whether a field can be read; else it says why not.
 * @param {Field} field
 * @param {boolean} [silent]
 */
function judge(field, silent = false) {
  try {
    field.read();
    say(field, "");
    return true;
  } catch (error) {
    if (!(error instanceof Unfit)) throw error;
    say(field, silent ? "" : error.message);
    return false;
  }
}

/**
 * @param {Field} field
 * @param {string} message
 */
function say(field, message) {
  setText(field.error, message);
  field.error.hidden = !message;
  if (message) field.input.setAttribute("aria-invalid", "true");
  else field.input.removeAttribute("aria-invalid");
}
