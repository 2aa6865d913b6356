/**
 * The inbox: left what waits for a decision or an answer, right the one that is chosen. The list is asked for again
 * every few seconds, and at once when something has been decided here; the chosen one follows its session.
 */

import { keyOf } from "../attention.js";
import { ago, h, isolate, messageOf, remaining, setClass, setText, visible } from "../dom.js";
import { serverNow } from "../clock.js";
import { keyedList, oneAtATime } from "../view.js";
import { statusPill } from "./card.js";
import { Decision, inWords } from "./decision.js";
import { showKeys } from "./keys-dialog.js";
import { listenTo } from "./keys.js";
import { QuestionPane } from "./question-pane.js";
import { summary } from "./question.js";

/** What the page is told of comes sooner; this is for the rest, what others decide for example. */
const REFRESH_MS = 5_000;
const TICK_MS = 1_000;
/** The API's limit for one list. */
const LISTED = 100;
/** Of a tool's arguments; all of them are in the decision. */
const SHOWN_CHARACTERS = 200;
const SOON_MS = 60_000;
const KINDS = ["tool", "purchase", "payment", "question"];
const ROUTES = { purchase: "purchases", payment: "payments" };
/** Ids become parts of paths, so only their characters are accepted; what a question is called is encoded. */
const CHOSEN = /^(?:(purchases|payments)\/(\w[\w.-]*)|(sessions)\/(\w[\w.-]*)\/(.+))$/s;
const WIDE = matchMedia("(min-width: 52.01rem)");
const KEYS = [["j", "the next one"], ["k", "the one before"], ["a", "to the button that approves, or the answer; Enter presses it"], ["r", "to the reason, and from there to the button that rejects"], ["?", "these keys"]];

/** @typedef {{ key: string, what: string, whom: string, amount: string, since: string, deadline: string | null, mine: boolean }} Entry */

/** @param {{ api: any, query: URLSearchParams, attention: any }} page */
export function show({ api, query, attention }) {
  const view = new Inbox(api, query, attention);
  return { title: "Inbox", class: "page wide", element: view.element, shown: () => view.start(), stop: () => view.stop(), moveTo: (/** @type {URLSearchParams} */ to) => view.moveTo(to) };
}

class Inbox {
  /**
   * @param {any} api
   * @param {URLSearchParams} query
   * @param {any} attention
   */
  constructor(api, query, attention) {
    this.api = api;
    this.attention = attention;
    this.told = "";
    /** @type {Entry[]} */
    this.entries = [];
    /** @type {string | null} */
    this.at = null;
    /** @type {any} */
    this.pane = null;
    /** @type {string | null} */
    this.paneFor = null;
    this.stopped = false;
    this.refresh = oneAtATime(() => this.#read(), () => this.stopped);
    this.others = false;
    this.keys = new AbortController();
    this.list = h("ul", { class: "rows" });
    this.status = h("p", { class: "quiet-text", role: "status" }, "Loading …");
    this.said = h("p", { class: "outcome", role: "status", hidden: true });
    this.all = h("button", { type: "button", class: "chip", onclick: () => this.#toggleAll() }, "Also what others decide");
    this.place = h("div", { class: "chosen" });
    this.past = h("ul", { class: "rows" });
    this.decided = h("details", { class: "fold", ontoggle: () => this.decided.open && this.#loadPast() }, h("summary", {}, "Decided or under way"), this.past);
    this.draw = keyedList(this.list, (/** @type {Entry} */ entry) => entry.key, (entry) => this.#row(entry));
    this.element = h("div", { class: "inbox" },
      h("div", { class: "listing" }, h("h1", {}, "Inbox"), this.status, h("div", { class: "filter-chips" }, this.all), this.list, this.decided),
      h("div", {}, h("p", { class: "to-list" }, h("a", { href: "#/approvals" }, "All that waits")), this.said, this.place));
    this.moveTo(query);
  }

  start() {
    listenTo({ j: () => this.#step(1), k: () => this.#step(-1), a: () => this.#reach(".decide .primary, form :is(input, textarea, select), .primary"), r: () => this.#reach(".decide input[type=text]"), "?": () => showKeys(KEYS) }, this.keys.signal);
    this.refresh();
    this.timer = setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    this.ticking = setInterval(() => this.#tick(), TICK_MS);
  }

  /** Deadlines come nearer; and what the server tells of what waits is looked at at once. */
  #tick() {
    const told = this.attention.now.items.map(keyOf).join();
    if (told !== this.told) this.refresh();
    this.told = told;
    this.draw(this.entries);
  }

  stop() {
    this.keys.abort();
    clearInterval(this.timer);
    clearInterval(this.ticking);
    this.pane?.stop();
    this.stopped = true;
  }

  /** @param {URLSearchParams} query */
  moveTo(query) {
    this.others = query.get("all") === "1";
    this.all.setAttribute("aria-pressed", String(this.others));
    const at = query.get("at");
    this.at = at && CHOSEN.test(at) ? at : null;
    this.#choose();
    if (this.timer) this.refresh();
  }

  /** @param {string | null} at */
  #address(at) {
    const query = new URLSearchParams([...(this.others ? [["all", "1"]] : []), ...(at ? [["at", at]] : [])]);
    return query.size ? `#/approvals?${query}` : "#/approvals";
  }

  #toggleAll() {
    this.others = !this.others;
    location.hash = this.#address(null);
  }

  // What waits

  async #read() {
    try {
      const people = this.#people();
      const query = new URLSearchParams([...KINDS.map((kind) => ["kind", kind]), ["limit", String(LISTED)], ["mine", String(!this.others)]]);
      /** @type {boolean} */
      const others = this.others;
      const lists = await Promise.all(people.map((/** @type {any} */ person) => this.api.as(person, "GET", `/approvals?${query}`)));
      if (this.stopped || others !== this.others) return;
      this.#take(lists);
    } catch (error) {
      setText(this.status, messageOf(error));
    }
  }

  /** Everybody that somebody is signed in as; a service answers for others, and has no inbox beside theirs. */
  #people() {
    const all = this.api.people.filter((/** @type {any} */ one) => one.may.includes("read"));
    const persons = all.filter((/** @type {any} */ one) => one.role !== "service");
    return persons.length ? persons : all;
  }

  /** @param {any[]} lists */
  #take(lists) {
    /** @type {Map<string, Entry>} */
    const found = new Map();
    for (const one of lists.flatMap((list) => list.approvals)) {
      const entry = entryOf(one);
      found.set(entry.key, { ...entry, mine: entry.mine || found.get(entry.key)?.mine || false });
    }
    this.entries = [...found.values()].sort((one, other) => other.since.localeCompare(one.since));
    // Two roles may see the same: of what was left out nobody knows that.
    const most = Math.max(this.entries.length, ...lists.map((list) => list.count));
    const least = lists.some((list) => list.more || list.count > list.approvals.length) ? "At least " : "";
    setText(this.status, most ? `${least}${most} ${most === 1 ? "waits" : "wait"} for a decision.` : "Nothing waits for a decision.");
    this.draw(this.entries);
    if (this.decided.open) this.#loadPast();
    this.#choose();
  }

  /** @param {Entry} made */
  #row(made) {
    const what = h("b", {}, made.what);
    const whom = h("small", {});
    const deadline = h("time", { class: "countdown" });
    const link = h("a", {}, h("span", { class: "naming" }, what, whom), made.amount ? h("strong", { class: "amount" }, made.amount) : null, deadline);
    const update = (/** @type {Entry} */ entry) => {
      link.setAttribute("href", this.#address(entry.key));
      if (entry.key === this.#shownKey()) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      setText(what, entry.what);
      what.title = what.textContent ?? "";
      setText(whom, `${entry.whom} · ${ago(entry.since)}${entry.mine ? "" : " · others decide"}`);
      setText(deadline, entry.deadline ? remaining(entry.deadline) : "");
      setClass(deadline, "soon", entry.deadline && new Date(entry.deadline).getTime() - serverNow() < SOON_MS);
    };
    return { element: h("li", {}, link), update };
  }

  // The one that is chosen

  #shownKey() {
    return this.at ?? (WIDE.matches ? (this.paneFor ?? this.entries[0]?.key ?? null) : null);
  }

  /** Shows what the address names; where there is room for both, else the first one that waits. */
  #choose() {
    this.#open(this.#shownKey());
  }

  /** @param {string | null} key */
  #open(key) {
    setClass(this.element, "open", this.at !== null);
    if (key === this.paneFor) return;
    this.pane?.stop();
    this.pane = null;
    this.paneFor = key;
    const [, route, id, session, sessionId, questionId] = CHOSEN.exec(key ?? "") ?? [];
    if (route) this.pane = new Decision(this.api, route, id, { onDone: (words) => this.#done(words) });
    else if (session) this.pane = new QuestionPane(this.api, sessionId, questionId, { onDone: (words) => this.#done(words) });
    this.place.replaceChildren(...(this.pane ? [this.pane.element] : []));
    this.pane?.start();
    this.draw(this.entries);
  }

  /**
   * Something was decided here: the next one comes.
   * @param {string} words
   */
  #done(words) {
    const key = this.paneFor;
    const index = this.entries.findIndex((entry) => entry.key === key);
    const rest = this.entries.filter((entry) => entry.key !== key);
    const next = rest[Math.max(Math.min(index, rest.length - 1), 0)] ?? null;
    const [, route, id, , sessionId] = CHOSEN.exec(key ?? "") ?? [];
    this.said.replaceChildren(h("span", {}, `${words}. `), h("a", { href: route ? `#/${route}/${id}` : `#/sessions/${sessionId}` }, "See what comes of it"));
    this.said.hidden = false;
    this.entries = rest;
    this.draw(rest);
    // A step back leads to the list, not to what is decided.
    history.replaceState(null, "", this.#address(next?.key ?? null));
    this.at = next?.key ?? null;
    this.#open(next?.key ?? null);
    this.place.tabIndex = -1;
    this.place.focus({ preventScroll: true });
    this.element.parentElement?.scrollTo(0, 0);
    this.refresh();
  }

  // Keys

  /** @param {number} by */
  #step(by) {
    const index = this.entries.findIndex((entry) => entry.key === this.#shownKey());
    const next = this.entries[index < 0 ? 0 : Math.min(Math.max(index + by, 0), this.entries.length - 1)];
    if (!next) return;
    history.replaceState(null, "", this.#address(next.key));
    this.at = next.key;
    this.#choose();
    /** @type {HTMLElement | null | undefined} */ (this.list.children[this.entries.indexOf(next)]?.querySelector("a"))?.focus();
  }

  /** @param {string} selector */
  #reach(selector) {
    for (const one of selector.split(/, (?![^(]*\))/)) {
      const found = /** @type {HTMLElement | null} */ (this.place.querySelector(one));
      if (found) return found.focus();
    }
  }

  // What was decided

  async #loadPast() {
    const reader = this.api.person("approve") ?? this.api.person("read");
    try {
      const [purchases, payments] = await Promise.all(["purchases", "payments"].map((route) => this.api.as(reader, "GET", `/${route}?limit=${LISTED}`)));
      const rows = [
        ...purchases.map((/** @type {any} */ view) => ({ route: "purchases", id: view.purchase_id, view })),
        ...payments.map((/** @type {any} */ view) => ({ route: "payments", id: view.payment_id, view })),
      ].filter(({ view }) => view.status !== "awaiting_approval").sort((one, other) => other.view.updated_at.localeCompare(one.view.updated_at));
      const shows = JSON.stringify(rows.map(({ id, view }) => [id, view.updated_at]));
      if (this.past.dataset.shows === shows) return;
      this.past.dataset.shows = shows;
      this.past.replaceChildren(...rows.map(({ route, id, view }) => {
        const { what, whom, amount } = inWords(route, view);
        return h("li", {}, h("a", { href: `#/${route}/${id}` }, h("span", { class: "naming" }, h("b", {}, what), h("small", {}, `${whom} · ${ago(view.updated_at)}`)), amount ? h("strong", { class: "amount" }, amount) : null, statusPill(view.status)));
      }));
    } catch (error) {
      this.past.replaceChildren(h("li", { class: "problem" }, messageOf(error)));
    }
  }
}

/**
 * One text is shown as it is; what is approved is shown exactly beside the list.
 * @param {any} given
 */
function shownArguments(given) {
  const values = Object.values(given);
  const [only] = values;
  return visible(values.length === 1 && typeof only === "string" ? only : JSON.stringify(given)).slice(0, SHOWN_CHARACTERS);
}

/**
 * @param {any} one of the list that the API gives
 * @returns {Entry}
 */
function entryOf(one) {
  const { kind, id, session_id: session, since, deadline, may_decide: mine, question } = one;
  const route = ROUTES[/** @type {keyof typeof ROUTES} */ (kind)];
  if (route) {
    const { what, whom, amount } = inWords(route, one.purchase ?? one.payment);
    return { key: `${route}/${id}`, what, whom, amount, since, deadline, mine };
  }
  const { tool, arguments: given } = question.asked;
  const what = kind === "tool" ? `${isolate(visible(tool))} ${shownArguments(given)}` : summary(question.asked);
  return { key: `sessions/${session}/${id}`, what, whom: `${isolate(question.agent)} · ${isolate(session)}`, amount: "", since, deadline, mine };
}
