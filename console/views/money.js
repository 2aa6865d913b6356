/** Money: what agents may spend, what they have spent, and a form to grant more. */

import { h, messageOf, setText } from "../dom.js";
import { keyedList } from "../view.js";
import { mandateCard } from "./mandate-card.js";

const REFRESH_MS = 5_000;

/** @param {{ api: any }} page */
export function show({ api }) {
  const list = h("div", { class: "mandates" });
  const status = h("p", { class: "quiet-text", role: "status" }, "Loading …");
  const place = h("div", {});
  // People grant for themselves, and a service for those whom it speaks for.
  const granter = api.people.find((/** @type {any} */ one) => one.role === "approver" && !one.sessions) ?? api.people.find((/** @type {any} */ one) => one.role === "service");
  const grant = h("button", { type: "button", class: "primary", "aria-expanded": "false", onclick: async () => {
    if (place.firstChild) place.replaceChildren();
    else {
      const { grantForm } = await import("./grant.js");
      place.replaceChildren(grantForm(api, granter, (id) => (location.hash = `#/mandates/${id}`)));
    }
    grant.setAttribute("aria-expanded", String(Boolean(place.firstChild)));
    /** @type {HTMLElement | null} */ (place.querySelector("input:not([readonly])"))?.focus();
  } }, "Grant a mandate");
  const element = h("div", {}, h("h1", {}, "Money"), granter ? h("div", { class: "row" }, grant) : null, place, status, list);
  // An operator sees all mandates; others see those they have granted.
  const person = api.people.find((/** @type {any} */ one) => ["operator", "service"].includes(one.role) && !one.sessions) ?? api.person("approve") ?? api.person("read");
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let timer;
  const draw = keyedList(list, (/** @type {any} */ mandate) => mandate.mandate_id, () => {
    const holder = h("div", {});
    const update = (/** @type {any} */ mandate) => {
      const shows = JSON.stringify(mandate);
      if (holder.dataset.shows === shows) return;
      holder.dataset.shows = shows;
      holder.replaceChildren(mandateCard(mandate, h("p", {}, h("a", { href: `#/mandates/${mandate.mandate_id}` }, "What it paid for"))));
    };
    return { element: holder, update };
  });
  const refresh = async () => {
    try {
      const mandates = await api.as(person, "GET", "/mandates?limit=100");
      setText(status, mandates.length ? "" : "There are no mandates.");
      draw(mandates);
    } catch (error) {
      setText(status, messageOf(error));
    }
  };
  const start = () => {
    refresh();
    timer = setInterval(() => document.hidden || refresh(), REFRESH_MS);
  };
  return { title: "Money", element, shown: start, stop: () => clearInterval(timer) };
}
