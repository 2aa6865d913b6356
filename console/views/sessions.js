/** The list of sessions: what each is doing, whom it waits for, filters and a search, and a form to start one.
 *
 * The server filters, sorts and counts. Temporal's lists tell nobody when they change, so the page asks again: the first
 * page every few seconds, and only while somebody looks at it.
 */

import { ago, h, isolate, messageOf, nameOf, setText } from "../dom.js";
import { areOff } from "./keys.js";
import { starter } from "./starter.js";

/**
 * @typedef {import("../api.js").Api} Api
 * @typedef {import("../api.js").Person} Person
 * @typedef {import("../api.js").ListedSession} ListedSession
 * @typedef {import("../api.js").SessionList} SessionList
 * @typedef {import("../api.js").Awaited} Awaited
 * @typedef {[words: string, tone: string]} Doing
 */

const REFRESH_MS = 4_000;
const TYPING_MS = 250;
const PAGE = 50;
/** One question asks for so many rows at most; further pages are asked for one by one, and not again. */
const MAX_LIMIT = 100;

const STATUSES = [
  ["waiting", "Waiting"],
  ["running", "Running"],
  ["paused", "Taken over"],
  ["failed", "Failed"],
  ["idle", "Idle"],
  ["closed", "Closed"],
];
/** @type {Record<string, Doing>} */
const DOING = {
  running: ["running", "busy"],
  waiting: ["waits for an answer", "ask"],
  paused: ["taken over", "ask"],
  failed: ["failed", "bad"],
  idle: ["idle", ""],
  closed: ["closed", ""],
};
/** What the address filters by and no chip offers. */
const FROM_THE_ADDRESS = { agent: "Agent", person: "With", assignee: "Looked after by" };
/** As in console.css: there the filters are one row. */
const NARROW = matchMedia("(max-width: 52rem), (max-height: 30rem)");
/** Filters that are on or off. */
const YES = ["mine", "unassigned"];
const MAX_ASKED = 3;
/** @type {Record<string, string>} */
const ROLES = { user: "a user", operator: "an operator", approver: "an approver" };

/** @param {{ api: Api, query: URLSearchParams }} page */
export function show({ api, query }) {
  const view = new SessionsView(api, query);
  return {
    title: "Sessions",
    element: view.element,
    shown: () => view.start(),
    stop: () => view.stop(),
    moveTo: (/** @type {URLSearchParams} */ to) => view.moveTo(to),
  };
}

class SessionsView {
  /**
   * @param {Api} api
   * @param {URLSearchParams} query
   */
  constructor(api, query) {
    this.api = api;
    /** @type {Map<string, ReturnType<typeof rowElement>>} */
    this.rows = new Map();
    /** Those of further pages. @type {ListedSession[]} */
    this.rest = [];
    /** @type {string | null} */
    this.cursor = null;
    this.asked = 0;
    this.stopped = false;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.timer = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.typing = undefined;
    this.filters = new URLSearchParams();
    this.search = h("input", { type: "search", id: "search", placeholder: "Title, id, agent or person", maxlength: "200", oninput: () => this.#typed() });
    this.chips = h("div", { class: "filter-chips", role: "group", "aria-label": "Filters" });
    this.list = h("ul", { class: "rows" });
    this.status = h("p", { class: "quiet-text", role: "status" }, "Loading …");
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.#more() }, "Older sessions");
    this.element = h("div", { class: "sessions" },
      h("h1", {}, "Sessions"),
      api.may("start sessions") && starter(api, { onStarted: (id) => (location.hash = `#/sessions/${id}`) }),
      h("div", { class: "row tools" }, h("label", { for: "search", class: "visually-hidden" }, "Search"), this.search),
      this.chips, this.status, this.list, this.more);
    this.onKey = (/** @type {KeyboardEvent} */ event) => this.#key(event);
    this.#read(query);
  }

  // Filters, which are in the address. A person and an agent have no field: they come from there, and go with a click.

  /** @param {URLSearchParams} query */
  #read(query) {
    this.filters = new URLSearchParams();
    for (const [name, value] of query) {
      if (["status", "agent", "person", "assignee", "q"].includes(name) && value) this.filters.append(name, value);
    }
    for (const name of YES) if (query.get(name)) this.filters.set(name, "1");
    if (this.search.value.trim() !== (this.filters.get("q") ?? "")) this.search.value = this.filters.get("q") ?? "";
    this.#drawChips();
  }

  /** @param {URLSearchParams} query */
  moveTo(query) {
    this.#read(query);
    this.#anew();
  }

  /**
   * Writes the filters into the address: a step back undoes a chip, not a letter.
   * @param {URLSearchParams} filters
   */
  #go(filters, { replace = false } = {}) {
    const said = filters.toString();
    const address = `#/sessions${said ? `?${said}` : ""}`;
    if (replace) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
    this.moveTo(filters);
  }

  #typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => {
      const filters = new URLSearchParams(this.filters);
      const words = this.search.value.trim();
      if (words) filters.set("q", words);
      else filters.delete("q");
      this.#go(filters, { replace: true });
    }, TYPING_MS);
  }

  /**
   * @param {string} name
   * @param {string} value
   */
  #toggle(name, value) {
    const filters = new URLSearchParams(this.filters);
    if (filters.has(name, value)) filters.delete(name, value);
    else filters.append(name, value);
    this.#go(filters);
    // The chips are drawn anew; the keyboard stays where it was.
    [...this.chips.querySelectorAll("button")].find((chip) => chip.dataset.chip === `${name}=${value}`)?.focus();
  }

  #drawChips() {
    /**
     * @param {string} name
     * @param {string} value
     * @param {string} text
     */
    const chip = (name, value, text) => h("button", { type: "button", class: "chip", "data-chip": `${name}=${value}`, "aria-pressed": String(this.filters.has(name, value)), onclick: () => this.#toggle(name, value) }, text);
    const me = this.#operator()?.subject;
    const given = Object.entries(FROM_THE_ADDRESS).flatMap(([name, words]) => this.filters.getAll(name).filter((value) => name !== "assignee" || value !== me).map((value) => chip(name, value, `${words}: ${isolate(value)}`)));
    const chips = [
      ...(this.#asks() ? [chip("mine", "1", "Waits for me")] : []),
      ...(me ? [chip("assignee", me, "I look after"), chip("unassigned", "1", "Unassigned")] : []),
      ...STATUSES.map(([status, text]) => chip("status", status, text)),
      ...given,
    ];
    const clear = this.filters.size ? [h("button", { type: "button", class: "quiet", onclick: () => this.#go(new URLSearchParams()) }, "Clear")] : [];
    // In the one row of a phone, what is chosen is not to be looked for.
    const isOn = (/** @type {Element} */ one) => one.getAttribute("aria-pressed") === "true";
    this.chips.replaceChildren(...(NARROW.matches ? [...chips.filter(isOn), ...clear, ...chips.filter((one) => !isOn(one))] : [...chips, ...clear]));
    this.chips.scrollLeft = 0;
  }

  /** The operator at this page, who may look after sessions. */
  #operator() {
    return this.api.people.find((one) => one.role === "operator" && one.may.includes("list sessions")) ?? null;
  }

  /** Whoever answers in person: a service answers for its users. */
  #asks() {
    return this.api.people.some((one) => one.role !== "service" && one.may.includes("answer questions"));
  }

  /**
   * `/` searches, `j` and `k` go from row to row; not while somebody writes.
   * @param {KeyboardEvent} event
   */
  #key(event) {
    if (areOff() || event.ctrlKey || event.metaKey || event.altKey || (event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]"))) return;
    if (event.key === "/") {
      event.preventDefault();
      this.search.focus();
    }
    if (event.key !== "j" && event.key !== "k") return;
    const links = [...this.list.querySelectorAll("a")];
    const at = links.findIndex((link) => link === document.activeElement);
    links[at < 0 ? 0 : Math.min(Math.max(at + (event.key === "j" ? 1 : -1), 0), links.length - 1)]?.focus();
  }

  // Reading

  start() {
    document.addEventListener("keydown", this.onKey);
    this.#refresh();
    this.timer = setInterval(() => document.hidden || this.#refresh(), REFRESH_MS);
  }

  stop() {
    document.removeEventListener("keydown", this.onKey);
    clearInterval(this.timer);
    clearTimeout(this.typing);
    this.stopped = true;
  }

  #anew() {
    this.rest = [];
    this.#refresh();
  }

  /** Reads the first page again. An answer that a later question has overtaken is dropped. */
  async #refresh() {
    const asked = ++this.asked;
    try {
      const answer = await this.#page(null);
      if (answer === null || this.stopped || asked !== this.asked) return;
      if (!this.rest.length) this.cursor = answer.next_cursor;
      this.#draw(answer);
    } catch (error) {
      if (asked === this.asked) setText(this.status, messageOf(error));
    }
  }

  /** @param {string | null} cursor */
  async #page(cursor, limit = PAGE) {
    const person = this.#person();
    if (!person) {
      setText(this.status, "You may open sessions by their address, but not list them.");
      return null;
    }
    const query = new URLSearchParams(this.filters);
    for (const name of YES) if (query.has(name)) query.set(name, "true");
    query.set("limit", String(limit));
    if (cursor) query.set("cursor", cursor);
    return this.api.as(person, "GET", `/sessions?${query}`);
  }

  /** As whom the list is asked for: what waits for me is asked by somebody who answers. */
  #person() {
    const lists = (/** @type {Person} */ one) => one.sessions || one.may.includes("list sessions");
    const able = this.api.people.filter(lists);
    if (this.filters.has("assignee") || this.filters.has("unassigned")) return this.#operator() ?? able.find((one) => one.role === "service") ?? able[0];
    return (this.filters.has("mine") && able.find((one) => one.role !== "service")) || (this.api.person("list sessions") ?? able[0]);
  }

  async #more() {
    this.more.disabled = true;
    try {
      const asked = this.filters.toString();
      const answer = await this.#page(this.cursor, MAX_LIMIT);
      if (answer === null || this.stopped || asked !== this.filters.toString()) return;
      this.rest.push(...answer.sessions);
      this.cursor = answer.next_cursor;
      await this.#refresh();
    } catch (error) {
      setText(this.status, messageOf(error));
    } finally {
      this.more.disabled = false;
    }
  }

  // Drawing

  /** @param {SessionList} answer */
  #draw(answer) {
    const first = new Set(answer.sessions.map((one) => one.session_id));
    const sessions = [...answer.sessions, ...this.rest.filter((one) => !first.has(one.session_id))];
    const wanted = sessions.map((session) => {
      const row = this.rows.get(session.session_id) ?? rowElement(session.session_id, this.api);
      this.rows.set(session.session_id, row);
      row.update(session);
      return row.element;
    });
    const known = [...this.list.children];
    if (known.length !== wanted.length || wanted.some((element, index) => element !== known[index])) {
      const focused = document.activeElement;
      const had = this.list.contains(focused);
      this.list.replaceChildren(...wanted);
      if (had && focused instanceof HTMLElement && focused.isConnected) focused.focus({ preventScroll: true });
    }
    for (const [id, { element }] of this.rows) if (!element.isConnected) this.rows.delete(id);
    this.more.hidden = !this.cursor;
    setText(this.status, this.#count(answer.count ?? sessions.length, sessions.length));
  }

  /**
   * @param {number} count
   * @param {number} shown
   */
  #count(count, shown) {
    if (!count) return this.filters.size ? "Nothing found." : "There are no sessions yet.";
    const all = `${count.toLocaleString("en")} ${count === 1 ? "session" : "sessions"}`;
    return shown < count ? `${all}, the latest ${shown} shown` : all;
  }
}

/**
 * @param {string} sessionId
 * @param {Api} api
 */
function rowElement(sessionId, api) {
  const title = h("b", {});
  const line = h("span", { class: "last-line" });
  const about = h("small", {});
  const status = h("span", { class: "pill" });
  const people = h("span", { class: "quiet-text" });
  const after = h("span", { class: "quiet-text" });
  const isMe = (/** @type {import("../transcript.js").Actor} */ { id }) => api.isMe(id);
  const element = h("li", {}, h("a", { href: `#/sessions/${sessionId}` }, h("span", { class: "naming" }, title, line, about), people, after, status));
  const update = (/** @type {ListedSession} */ session) => {
    const { title: given, agent, started, last_activity: active, last_line: last, assigned_to: assigned } = session;
    setText(title, given ?? agent ?? sessionId);
    title.title = title.textContent;
    setText(line, last ? `${isMe(last.actor) ? "You" : nameOf(last.actor)}: ${isolate(last.text)}` : "");
    setText(about, `${ago(active ?? started)} · ${given && agent ? `${isolate(agent)} · ` : ""}${sessionId}`);
    const [words, tone] = doing(session, api.people);
    setText(status, words);
    status.className = `pill ${tone}`;
    const names = (session.people ?? []).map(nameOf);
    const others = (session.people_count ?? 0) - names.length;
    setText(people, names.join(", ") + (others > 0 ? ` and ${others} more` : ""));
    setText(after, assigned ? (isMe(assigned) ? "you look after it" : `${nameOf(assigned)} looks after it`) : "");
  };
  return { element, update };
}

/**
 * What a session is doing, in words: "waits for Grace".
 * @param {ListedSession} session
 * @param {Person[]} people
 * @returns {Doing}
 */
function doing({ open, status, taken_over_by: by, awaited, waits_for: waitsFor, snapshot }, people) {
  if (!open) return DOING.closed;
  if (status === "paused" && by) return speaks(by, people);
  if (status === "waiting" && awaited) return [people.some((one) => asks(awaited, one)) ? "waits for you" : waitsForWhom(awaited), "ask"];
  if (status) return DOING[status] ?? [status, ""];
  return fromSnapshot(snapshot, waitsFor, people);
}

/**
 * @param {import("../transcript.js").Actor} by
 * @param {Person[]} people
 * @returns {Doing}
 */
function speaks(by, people) {
  return [people.some(({ subject }) => subject === by.id) ? "you speak" : `${nameOf(by)} speaks`, "ask"];
}

/** @param {Awaited} awaited */
function waitsForWhom({ roles, people }) {
  const asked = [...people.map(nameOf), ...roles.map((role) => ROLES[role] ?? isolate(role))];
  if (!asked.length) return DOING.waiting[0];
  const more = asked.length - MAX_ASKED;
  if (more > 0) asked.splice(MAX_ASKED - 1, Infinity, `${more + 1} others`);
  const last = asked.pop();
  return `waits for ${asked.length ? `${asked.join(", ")} or ` : ""}${last}`;
}

/**
 * Whether somebody at this page may answer; a service answers for others.
 * @param {Awaited} awaited
 * @param {Person} person
 */
function asks({ roles, people }, { role, subject }) {
  return roles.includes(role === "client" ? "user" : role) || (role !== "service" && people.some(({ id }) => id === subject));
}

/**
 * Of a session without search attributes, which a token for it lists.
 * @param {import("../api.js").Snapshot | null | undefined} snapshot
 * @param {string | null | undefined} waitsFor
 * @param {Person[]} people
 * @returns {Doing}
 */
function fromSnapshot(snapshot, waitsFor, people) {
  if (!snapshot) return waitsFor ? DOING.waiting : ["open", ""];
  if (snapshot.taken_over_by) return speaks(snapshot.taken_over_by, people);
  if (snapshot.status === "waiting" || (snapshot.status === "idle" && snapshot.questions.length)) return DOING.waiting;
  return DOING[snapshot.status] ?? [snapshot.status, ""];
}
