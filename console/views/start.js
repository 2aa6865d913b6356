/** Where one begins with `waystation dev`: agents that run, something to try, what else is here, and who to be. */

import { Refusal } from "../api.js";
import { h, messageOf, setText, uuid } from "../dom.js";
import { starter } from "./starter.js";

const REFRESH_MS = 5_000;
const DAY_MS = 86_400_000;
/** @type {[name: string, words: string, path: string][]} */
const PLACES = [
  ["api", "API", "/openapi.json"],
  ["temporal_ui", "Temporal's web page", ""],
  ["shop", "Sandbox shop (ACP)", "/.well-known/acp.json"],
  ["paid_api", "Sandbox API that answers 402", "/openapi.json"],
  ["processor", "Sandbox payment processor", "/openapi.json"],
];
const PEOPLE = [
  ["client", "A customer", "/sessions", "starts sessions, writes to agents, answers them"],
  ["operator", "An operator", "/sessions", "sees all sessions, joins, takes over"],
  ["approver", "An approver", "/approvals", "decides what agents may buy and do, grants mandates"],
];

/**
 * @typedef {import("../api.js").Api} Api
 * @typedef {Record<string, string>} Places
 * @typedef {{ seller: string, search: string, details: object } | { fetch: string, max_amount: number }} Errand
 */

/** @param {{ api: Api }} context */
export function show({ api }) {
  const view = new StartView(api);
  return { title: "Start", element: view.element, shown: () => view.start(), stop: () => view.stop() };
}

class StartView {
  /** @param {Api} api */
  constructor(api) {
    this.api = api;
    this.stopped = new AbortController();
    this.agents = h("ul", { class: "plain" });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.rest = h("div", { class: "start-rest" });
    this.element = h("div", { class: "start" }, h("h1", {}, "Waystation is running"), this.problem, this.rest);
  }

  async start() {
    try {
      const { places } = await this.api.as(this.api.people[0], "GET", "/dev/places", undefined, { signal: this.stopped.signal });
      if (this.stopped.signal.aborted) return;
      this.rest.replaceChildren(...this.#parts(places));
      this.#refresh();
      this.timer = setInterval(() => document.hidden || this.#refresh(), REFRESH_MS);
    } catch (error) {
      this.#say(error instanceof Refusal && error.status === 404 ? "This page is only there with waystation dev." : messageOf(error));
    }
  }

  stop() {
    this.stopped.abort();
    clearInterval(this.timer);
  }

  /** @param {Places} places */
  #parts(places) {
    const { api } = this;
    const buys = api.may("start sessions") && api.may("approve") && places.shop && places.paid_api;
    return [
      h("section", {}, h("h2", {}, "Agents that run"), this.agents),
      api.may("start sessions") && h("section", {}, h("h2", {}, "Try one"), starter(api, { onStarted: open, label: "Start", rows: 2 })),
      buys && h("section", {}, h("h2", {}, "Let one pay"),
        h("p", { class: "quiet-text" }, "With sandbox money: a mandate over US$100.00 is granted, and each payment waits for your approval."),
        h("div", { class: "row" },
          this.#payButton("Buy a book at the shop", places, { seller: places.shop, search: "tides", details: { buyer: { email: "ada@example.com", first_name: "Ada" } } }),
          this.#payButton("Call the paid API", places, { fetch: `${places.paid_api}/v1/reports/tides`, max_amount: 50 }))),
      h("section", {}, h("h2", {}, "Be one of the three"),
        h("ul", { class: "plain" }, PEOPLE.map(([role, who, path, does]) => {
          const person = api.people.find((one) => one.role === role);
          return person && h("li", {}, h("a", { href: `#${path}?token=${person.token}`, target: "_blank", rel: "noopener" }, who), ` ${does}`);
        }))),
      h("section", {}, h("h2", {}, "Addresses"),
        h("dl", { class: "facts" }, PLACES.filter(([name]) => places[name]).flatMap(([name, words, path]) => [h("dt", {}, words), h("dd", {}, h("a", { href: places[name] + path, target: "_blank", rel: "noopener" }, places[name]))]))),
      h("section", {}, h("h2", {}, "From a terminal in the same folder"),
        h("pre", { tabindex: "0", "aria-label": "Commands" }, "waystation session start demo --id hello --message \"tokens=100\"\nwaystation session tail hello\nwaystation agent my_agent:agent")),
    ].filter((part) => part instanceof Node);
  }

  async #refresh() {
    try {
      const { agents } = await this.api.call(this.api.may("start sessions") ? "start sessions" : "list sessions", "GET", "/agents");
      const running = agents.filter((one) => (one.processes ?? 0) > 0);
      const lines = running.map((one) => `${one.name}: ${one.processes} ${one.processes === 1 ? "process" : "processes"}`);
      if (this.lines === lines.join()) return;
      this.lines = lines.join();
      this.agents.replaceChildren(...(lines.length ? lines : ["No process runs an agent yet."]).map((line) => h("li", {}, line)));
    } catch {
      // The list stays as it was; what can't be reached is said where something is done.
    }
  }

  /**
   * @param {string} words
   * @param {Places} places
   * @param {Errand} data
   */
  #payButton(words, places, data) {
    const sessionId = `s-${uuid()}`;
    return h("button", { type: "button", onclick: async ({ currentTarget: button }) => {
      button.disabled = true;
      try {
        const owner = this.api.person("approve")?.subject;
        const terms = {
          owner, agent: "shopper", cap: { amount: 10_000, currency: "usd" }, valid_until: new Date(Date.now() + DAY_MS).toISOString(),
          sellers: [places.shop, places.paid_api], payment_methods: ["pm_card_visa"],
        };
        const { mandate_id: mandate } = await this.api.call("approve", "POST", "/mandates", { mandate_id: `mandate-${sessionId}`, terms });
        await this.api.call("start sessions", "POST", "/sessions", { agent: "shopper", session_id: sessionId, title: words });
        await this.api.call("send", "POST", `/sessions/${sessionId}/messages`, { text: words, message_id: `m-${sessionId}`, data: { ...data, mandate } });
        open(sessionId);
      } catch (error) {
        this.#say(messageOf(error));
        button.disabled = false;
      }
    } }, words);
  }

  /** @param {string} words */
  #say(words) {
    setText(this.problem, words);
    this.problem.hidden = false;
  }
}

/** @param {string} sessionId */
function open(sessionId) {
  location.hash = `#/sessions/${sessionId}`;
}
