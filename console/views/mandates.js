/** Mandates: what agents may spend, what they have spent, and what is left. */

import { h, setText } from "../dom.js";
import { mandateCard } from "./mandate-card.js";

const REFRESH_MS = 5_000;

export function show({ api }) {
  const list = h("div", { class: "mandates" });
  const status = h("p", { class: "quiet-text", role: "status" }, "Loading …");
  const element = h("div", {}, h("h1", {}, "Mandates"), status, list);
  // An operator sees all mandates; others see those they have granted.
  const person = api.people.find((one) => one.role === "operator") ?? api.person("read");
  let timer = null;
  let known = "";

  const refresh = async () => {
    try {
      const mandates = await api.as(person, "GET", "/mandates");
      setText(status, mandates.length ? "" : "There are no mandates.");
      const now = JSON.stringify(mandates);
      if (now === known) return;
      known = now;
      list.replaceChildren(...mandates.map((mandate) => mandateCard(mandate, revoker(api, mandate, refresh))));
    } catch (error) {
      setText(status, error.message);
    }
  };
  const start = () => {
    refresh();
    timer = setInterval(() => document.hidden || refresh(), REFRESH_MS);
  };
  return { title: "Mandates", element, shown: start, stop: () => clearInterval(timer) };
}

/** A button that asks once more before it revokes, because revoking can't be undone. */
function revoker(api, mandate, refresh) {
  const person = api.people.find((one) => one.subject === mandate.terms.owner) ?? api.people.find((one) => one.role === "operator");
  if (!person || mandate.status !== "active") return null;
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const button = h("button", { type: "button", class: "danger" }, "Revoke");
  button.addEventListener("blur", () => {
    delete button.dataset.asked;
    setText(button, "Revoke");
  });
  button.addEventListener("click", async () => {
    if (!button.dataset.asked) {
      button.dataset.asked = "yes";
      setText(button, "Revoke for good?");
      return;
    }
    try {
      await api.as(person, "POST", `/mandates/${mandate.mandate_id}/revoke`, { reason: "" });
      await refresh();
    } catch (error) {
      setText(problem, error.message);
      problem.hidden = false;
    }
  });
  return h("div", {}, button, problem);
}
