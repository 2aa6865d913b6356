/** Purchases and paid requests as cards: the seller's own statement, and the outcome. */

import { serverNow } from "../clock.js";
import { h, isolate, messageOf, money, remaining, setClass, setText, time } from "../dom.js";

/**
 * @typedef {import("../transcript.js").Cart} Cart
 * @typedef {import("../transcript.js").CartLine} CartLine
 * @typedef {import("../transcript.js").Total} Total
 * @typedef {import("../transcript.js").ShipTo} ShipTo
 * @typedef {import("../model.js").Item<"card">} Card
 * @typedef {[name: import("../dom.js").Child, value: import("../dom.js").Child]} Fact
 */

/** @type {Record<string, string>} */
export const STATUS = {
  creating: "asking the seller",
  preparing: "being prepared",
  needs_revision: "needs a change",
  awaiting_approval: "awaiting approval",
  escalated: "continue at the seller",
  paying: "paying",
  authentication_required: "needs authentication",
  payment_declined: "payment declined",
  confirming: "being confirmed",
  undoing: "being undone",
  completed: "completed",
  canceled: "canceled",
  rejected: "rejected",
  refused: "refused",
  expired: "expired",
  failed: "failed",
  granted: "approved",
  denied: "rejected",
  probing: "asking for the price",
  choosing: "choosing how to pay",
  free: "answered for free",
  delivered: "paid and answered",
  undelivered: "paid, not answered",
  unknown: "outcome unknown",
  open: "waits for an answer",
  undecided: "awaiting approval",
  answered: "answered",
  approved: "approved",
  withdrawn: "withdrawn",
};

const GOOD = new Set(["completed", "delivered", "free", "granted", "answered", "approved"]);
const WAITING = new Set(["awaiting_approval", "open", "undecided"]);
const BAD = new Set(["rejected", "refused", "failed", "expired", "undelivered", "unknown", "payment_declined", "denied", "canceled"]);

/** @param {string} status */
export function statusPill(status) {
  const tone = GOOD.has(status) ? "good" : BAD.has(status) ? "bad" : WAITING.has(status) ? "ask" : "";
  return h("span", { class: `pill ${tone}` }, STATUS[status] ?? status);
}

/** @param {Fact[]} pairs */
export function facts(pairs) {
  return h("dl", { class: "facts" }, ...pairs.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/**
 * All that a person approves, which is all that the digest covers: the cart exactly as the seller has stated it. Ids,
 * and amounts of nothing, are folded.
 * @param {Cart} cart
 */
export function cartStatement(cart) {
  return [
    facts([["Seller", cart.seller], ["To pay", h("strong", {}, money(cart.total, cart.currency))], ...shipTo(cart.ship_to), ["Discounts", (cart.discount_codes ?? []).map(isolate).join(", ")]]),
    cartTable(cart),
    h("details", { class: "fold" }, h("summary", {}, "Details"), facts(cartDetails(cart))),
  ];
}

/**
 * The same for the terms of a paid request.
 * @param {{ method?: string | null, url?: string | null, price: { amount: number, currency: string } | null, payee?: string | null, realm?: string | null, rail?: string | null, body?: string | null }} terms
 */
export function termsStatement({ method, url, price, payee, realm, rail, body }) {
  return facts([["Request", [method, url].filter(Boolean).join(" ")], ["Body", body && `SHA-256 of its base64: ${body}`], ["Price", price && h("strong", {}, money(price.amount, price.currency))], ["Paid to", payee], ["Realm", realm], ["By", rail]]);
}

/**
 * A table of items, then every total.
 * @param {Cart} cart
 */
function cartTable(cart) {
  const { currency } = cart;
  const names = namesOf(cart);
  const delivery = (cart.fulfillment ?? []).map((one) =>
    h("tr", {}, h("td", { colspan: "3" }, h("bdi", {}, one.title), " ", h("small", {}, one.type), one.item_ids?.length ? h("small", {}, ` for ${one.item_ids.map((id) => isolate(names.get(id) ?? id)).join(", ")}`) : null),
      h("td", { class: "amount" }, money(one.amount, currency))));
  return h("table", { class: "cart" },
    h("caption", { class: "visually-hidden" }, "The cart as the seller states it"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Item"), h("th", { scope: "col", class: "amount" }, "Each"), h("th", { scope: "col", class: "amount" }, "Quantity"), h("th", { scope: "col", class: "amount" }, "Amount"))),
    h("tbody", {},
      ...cart.lines.map((line) => h("tr", {},
        h("td", {}, h("bdi", {}, line.name ?? line.item_id),
          saysMoreThanItsTotal(line) ? h("small", { class: "parts" }, (line.totals ?? []).filter(isSomething).map((total) => h("span", {}, `${isolate(totalName(total))} ${money(total.amount, currency)}`))) : null),
        h("td", { class: "amount" }, line.unit_amount == null ? "" : money(line.unit_amount, currency)),
        h("td", { class: "amount" }, String(line.quantity)),
        h("td", { class: "amount" }, money(lineTotal(line), currency)))),
      ...delivery),
    h("tfoot", {}, ...cart.totals.filter(isSomething).map((total) =>
      h("tr", { class: total.type === "total" ? "total" : null },
        h("th", { scope: "row", colspan: "3" }, totalName(total)), h("td", { class: "amount" }, money(total.amount, currency))))));
}

/**
 * @param {Cart} cart
 * @returns {Fact[]}
 */
function cartDetails(cart) {
  const names = namesOf(cart);
  /** @returns {Fact[]} */
  const nothing = (/** @type {Total[] | undefined} */ totals, of = "") => (totals ?? []).filter((one) => !isSomething(one)).map((one) => [`${isolate(totalName(one))}${of}`, money(one.amount, cart.currency)]);
  return [
    ["Paid to", cart.payee], ["Checkout", cart.checkout_id], ...nothing(cart.totals),
    ...cart.lines.flatMap(/** @returns {Fact[]} */ (line) => {
      const name = isolate(names.get(line.item_id) ?? line.item_id);
      return [[name, `item ${isolate(line.item_id)}, line ${isolate(line.line_id)}${line.parent_id ? ` in ${isolate(line.parent_id)}` : ""}`], ...nothing(line.totals, ` of ${name}`)];
    }),
    ...(cart.fulfillment ?? []).map(/** @returns {Fact} */ (one) => [one.title, [one.id, ...(one.item_ids ?? [])].map(isolate).join(" for ")]),
  ];
}

/** @param {Cart} cart */
function namesOf(cart) {
  return new Map(cart.lines.map((line) => [line.item_id, line.name ?? line.item_id]));
}

/**
 * What an amount of nothing says is worth a look, not a line. The total is always shown.
 * @param {Total} total
 */
function isSomething({ type, amount }) {
  return amount !== 0 || type === "total";
}

/**
 * The seller's words for a total, with its type where they don't say it.
 * @param {Total} total
 */
function totalName({ label, type }) {
  const letters = (/** @type {string} */ text) => text.toLowerCase().replace(/[^a-z]/g, "");
  return letters(label).includes(letters(type)) ? label : `${isolate(label)} (${type.replaceAll("_", " ")})`;
}

/**
 * What the seller states for a line; nothing is computed here.
 * @param {CartLine} line
 */
function lineTotal(line) {
  const stated = line.totals?.find((one) => one.type === "total") ?? line.totals?.find((one) => one.type === "subtotal");
  return stated ? stated.amount : null;
}

/**
 * Whether a line's amounts, or the seller's words for them, say more than its one total does.
 * @param {CartLine} line
 */
function saysMoreThanItsTotal(line) {
  const stated = line.totals ?? [];
  return stated.length > 1 || (stated.length === 1 && (lineTotal(line) === null || totalName(stated[0]).toLowerCase() !== stated[0].type));
}

const ADDRESS = ["name", "company", "line_one", "line_two", "postal_code", "city", "state", "country"];

/**
 * @param {ShipTo | null | undefined} details
 * @returns {Fact[]}
 */
function shipTo(details) {
  if (!details) return [];
  const address = ADDRESS.map((part) => details.address?.[part] ?? "").filter(Boolean);
  return [["Sent to", details.name], ["Address", address.map(isolate).join(", ")], ["Phone", details.phone_number], ["Email", details.email]];
}

/** @param {string} digest */
export function digestLine(digest) {
  return h("p", { class: "digest" }, "Digest ", h("code", {}, digest));
}

/**
 * A line that counts down to the deadline for as long as it is on the page.
 * @param {string} deadline
 */
export function deadlineLine(deadline, verb = "Decide") {
  const countdown = h("time", { class: "countdown", datetime: deadline });
  const element = h("p", { class: "quiet-text" }, `${verb} within `, countdown);
  const tick = () => {
    const left = new Date(deadline).getTime() - serverNow();
    if (left <= 0) setText(element, `The time to ${verb.toLowerCase()} has run out.`);
    setText(countdown, remaining(deadline));
    setClass(countdown, "soon", left < 60_000);
  };
  tick();
  const timer = setInterval(() => (element.isConnected ? tick() : clearInterval(timer)), 1_000);
  return element;
}

/** @type {Record<string, string>} */
const DECISIONS = { granted: "Approved", denied: "Rejected", expired: "Nobody decided in time" };

/**
 * Describes a decision, like "Approved by grace at 10:04:11".
 * @param {import("../model.js").Decision} decision
 */
export function decisionText({ outcome, by, auto, reason, time: at }) {
  const verb = DECISIONS[outcome] ?? outcome;
  const who = auto ? " within the mandate, without a person" : by ? ` by ${isolate(by)}` : "";
  return `${verb}${who}${at ? ` at ${time(at)}` : ""}${reason ? `: ${isolate(reason)}` : ""}`;
}

/**
 * Buttons to approve and reject; `decide(verb, body)` returns when the decision counts, else throws.
 * @param {string} digest
 * @param {string} amount
 * @param {(verb: "approve" | "reject", body: { digest: string, reason?: string }) => Promise<unknown>} decide
 */
export function decisionButtons(digest, amount, decide) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const reason = h("input", { type: "text", maxlength: "500", "aria-label": "Reason for a rejection", placeholder: "Reason (for a rejection)" });
  /** @type {HTMLButtonElement[]} */
  const buttons = [];
  /**
   * @param {"approve" | "reject"} verb
   * @param {() => { digest: string, reason?: string }} body
   */
  const press = (verb, body) => async () => {
    buttons.forEach((button) => (button.disabled = true));
    problem.hidden = true;
    try {
      await decide(verb, body());
    } catch (error) {
      setText(problem, messageOf(error));
      problem.hidden = false;
      buttons.forEach((button) => (button.disabled = false));
    }
  };
  buttons.push(
    h("button", { type: "button", class: "primary", onclick: press("approve", () => ({ digest })) }, `Approve ${amount}`),
    h("button", { type: "button", class: "danger", onclick: press("reject", () => ({ digest, reason: reason.value })) }, "Reject"));
  return h("div", { class: "decide" }, h("div", { class: "row" }, ...buttons, reason), problem);
}

/**
 * Draws a card in a transcript from the model's `item`.
 * @param {HTMLElement} element
 * @param {Card} item
 * @param {import("../api.js").Api} api
 */
export function drawCard(element, item, api) {
  const kind = item.route === "purchases" ? "Purchase" : "Paid request";
  const total = item.cart?.total ?? item.total ?? item.amount;
  const currency = item.cart?.currency ?? item.currency;
  const waits = item.status === "awaiting_approval";
  const whom = item.cart?.seller ?? item.seller ?? item.url ?? item.payee;
  element.replaceChildren(
    h("header", {},
      h("h3", {}, h("a", { href: `#/${item.route}/${item.id}` }, kind), whom ? h("small", {}, ` ${whom.replace(/^https?:\/\//, "")}`) : null),
      statusPill(item.status ?? "creating"),
      total != null && currency ? h("strong", { class: "amount" }, money(total, currency)) : null),
    ...[
      item.cart && h("details", waits ? { open: true } : {}, h("summary", {}, "The cart, as the seller states it"), ...cartStatement(item.cart)),
      waits && !item.cart && termsStatement({ ...item, price: item.amount == null || !item.currency ? null : { amount: item.amount, currency: item.currency }, body: item.body_sha256 }),
      waits && item.deadline && deadlineLine(item.deadline),
      waits && item.digest && digestLine(item.digest),
      waits && api.may("approve") && item.digest && currency && decisionButtons(item.digest, money(total, currency), (verb, body) => api.call("approve", "POST", `/${item.route}/${item.id}/${verb}`, body)),
      item.decision && h("p", { class: "quiet-text" }, decisionText(item.decision)),
      item.refusal && h("p", { class: "problem" }, item.refusal.message),
      ...(item.messages ?? []).map((one) => h("p", { class: "quiet-text" }, one.text)),
      item.order && h("p", { class: "quiet-text" }, `Order ${isolate(item.order.id)}${item.order.status ? `, ${item.order.status}` : ""}`),
    ].filter((one) => one instanceof Node));
}
