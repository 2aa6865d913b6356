/** A mandate's terms: what people write of them, read into what the API takes, and said in one sentence. No page. */

import { Unfit } from "./fields.js";
import { isolate, money } from "./dom.js";

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });

/**
 * @typedef {{ owner: string, agent: string, cap: { amount: number, currency: string }, per_payment_cap?: number | null, approval_threshold: number, valid_from?: string | null, valid_until: string, sellers: string[], payment_methods: string[], approvers: string[], constraints: any[], refunds_give_room: boolean }} Terms
 */

/**
 * Reads an amount as people write it, "500" or "500.00", in integer arithmetic: 50000 of usd.
 * @param {string} written
 * @param {string} currency
 */
export function readAmount(written, currency) {
  const digits = /^[a-z]{3}$/.test(currency) ? new Intl.NumberFormat(undefined, { style: "currency", currency }).resolvedOptions().maximumFractionDigits ?? 0 : 0;
  const found = new RegExp(digits ? `^(\\d{1,13})(?:\\.(\\d{1,${digits}}))?$` : "^(\\d{1,15})$").exec(written.trim());
  if (!found) throw new Unfit(digits ? `Write an amount like ${"500"}.${"0".repeat(digits)}.` : "Write a whole number.");
  const amount = Number(found[1] + (found[2] ?? "").padEnd(digits, "0"));
  if (!Number.isSafeInteger(amount)) throw new Unfit("This amount is too large.");
  return amount;
}

/**
 * The web origin of an address that somebody has written.
 * @param {string} written
 */
export function readSeller(written) {
  const address = /^https?:\/\//i.test(written) ? written : `https://${written}`;
  const found = URL.canParse(address) ? new URL(address) : null;
  if (!found || !/^https?:$/.test(found.protocol) || found.username || found.pathname !== "/" || found.search || found.hash) throw new Unfit(`This is no address of a shop: ${isolate(written)}. Write it like https://shop.example.`);
  return found.origin;
}

/**
 * The end, or the beginning, of a day where the reader is.
 * @param {string} date like 2027-03-01
 * @param {boolean} end
 */
export function readDay(date, end) {
  const at = new Date(`${date}T${end ? "23:59:59" : "00:00:00"}`);
  if (!date || Number.isNaN(at.getTime())) throw new Unfit("Choose a day.");
  return at.toISOString();
}

/**
 * All of the terms in one sentence.
 * @param {Terms} terms
 */
export function inOneSentence(terms) {
  const { currency, amount } = terms.cap;
  const from = terms.valid_from ? ` from ${day(terms.valid_from)}` : "";
  const parts = [`${isolate(terms.owner)} lets ${isolate(terms.agent)} spend up to ${money(amount, currency)}${from} until ${day(terms.valid_until)}`];
  if (terms.per_payment_cap != null) parts.push(`at most ${money(terms.per_payment_cap, currency)} a payment`);
  parts.push(terms.sellers.includes("*") ? "at any seller" : `at ${listed(terms.sellers.map((one) => one.replace(/^https?:\/\//, "")), "or")}`);
  for (const one of terms.constraints) parts.push(constraint(one));
  parts.push(asking(terms));
  if (!terms.refunds_give_room) parts.push("and not again what is refunded");
  return `${parts.filter(Boolean).join(", ")}.`;
}

/** @param {Terms} terms */
function asking({ approval_threshold: threshold, approvers, cap, per_payment_cap: most }) {
  if (threshold >= (most ?? cap.amount)) return "asking nobody";
  const whom = approvers.length ? listed(approvers, "or") : "an approver";
  return `asking ${whom} for each${threshold ? ` over ${money(threshold, cap.currency)}` : ""}`;
}

/** @param {any} one */
function constraint(one) {
  if (one.type === "max_payments") return `at most ${one.count} ${one.count === 1 ? "payment" : "payments"}`;
  if (one.type === "allowed_items") return `only ${listed(one.item_ids, "or")}`;
  if (one.type === "ship_to_countries") return `sent to ${listed(one.countries, "or")} only`;
  if (one.type === "allowed_protocols") return `paid by ${listed(one.protocols, "or")} only`;
  return "";
}

/** @param {string} iso */
function day(iso) {
  return DATE.format(new Date(iso));
}

/**
 * @param {string[]} all
 * @param {string} word
 */
function listed(all, word) {
  const names = all.map(isolate);
  const last = names.pop() ?? "";
  return names.length ? `${names.join(", ")} ${word} ${last}` : last;
}
