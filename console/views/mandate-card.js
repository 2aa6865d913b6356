/** A mandate in figures: what is spent, reserved and left. */

import { dateTime, h, isolate, money } from "../dom.js";
import { facts } from "./card.js";

/**
 * @param {any} mandate
 * @param {Node | null} [extra]
 */
export function mandateCard(mandate, extra = null) {
  const { terms, spent, reserved, left } = mandate;
  const share = (/** @type {number} */ amount) => `${Math.floor((amount * 100) / terms.cap.amount)}%`;
  const parts = { spent: h("i", { class: "spent" }), reserved: h("i", { class: "reserved" }) };
  parts.spent.style.width = share(spent.amount);
  parts.reserved.style.width = share(reserved.amount);
  const amount = (/** @type {{ amount: number, currency: string }} */ one) => money(one.amount, one.currency);
  return h("section", { class: "card mandate", "aria-label": `Mandate ${mandate.mandate_id}` },
    h("header", {}, h("h2", {}, "Mandate"), h("span", { class: `pill ${mandate.status === "active" ? "good" : "bad"}` }, mandate.status)),
    h("p", { class: "left" }, h("strong", {}, amount(left)), " left of ", amount(terms.cap)),
    h("div", { class: "meter", "aria-hidden": "true" }, parts.spent, parts.reserved),
    facts([
      ["Spent", amount(spent)], ["Reserved", amount(reserved)], ["Payments", String(mandate.payments)], ["For", terms.agent], ["Granted by", terms.owner],
      ["At most", terms.per_payment_cap == null ? null : `${money(terms.per_payment_cap, terms.cap.currency)} a payment`],
      ["Approval above", money(terms.approval_threshold, terms.cap.currency)],
      ["Sellers", terms.sellers.includes("*") ? "any" : terms.sellers.map((/** @type {string} */ seller) => isolate(seller.replace(/^https?:\/\//, ""))).join(", ")],
      ["Approvers", terms.approvers.map(isolate).join(", ")], ["Until", dateTime(terms.valid_until)], ["Revoked by", mandate.revoked_by],
      ["Id", h("code", {}, mandate.mandate_id)],
    ]),
    extra);
}
