/** The list of sessions: what each is doing now, a search, and a form to start one. */

import { ago, h, isolate, nameOf, setText } from "../dom.js";
import { starter } from "./starter.js";

const REFRESH_MS = 4_000;
const PAGE = 50;
/** A search reads at most this many pages; older sessions are opened by their id. */
const MAX_PAGES = 20;
/** Older pages are reread every this many rounds; the newest one each time. */
const REREAD_EVERY = 15;

export function show({ api }) {
  const view = new SessionsView(api);
  return { title: "Sessions", element: view.element, shown: () => view.start(), stop: () => view.stop() };
}

class SessionsView {
  constructor(api) {
    this.api = api;
    this.rows = new Map();
    /** The sessions read so far, by id. `pages` is how many pages are wanted, `read` how many have been read. */
    this.listed = new Map();
    this.pages = 1;
    this.read = 0;
    this.rounds = 0;
    this.search = h("input", { type: "search", id: "search", placeholder: "Title, id, agent or person", oninput: () => this.#filter() });
    this.onlyOpen = h("input", { type: "checkbox", id: "only-open", onchange: () => this.#anew() });
    this.list = h("ul", { class: "rows" });
    this.status = h("p", { class: "quiet-text", role: "status" }, "Loading …");
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.#more() }, "Older sessions");
    this.element = h("div", { class: "sessions" },
      h("h1", {}, "Sessions"),
      api.may("start sessions") && starter(api, { onStarted: (id) => (location.hash = `#/sessions/${id}`) }),
      h("div", { class: "row tools" }, h("label", { for: "search", class: "visually-hidden" }, "Search"), this.search,
        h("label", { class: "check" }, this.onlyOpen, " Only open ones")),
      this.list, this.status, this.more);
  }

  start() {
    this.#refresh();
    this.timer = setInterval(() => document.hidden || this.#refresh(), REFRESH_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.stopped = true;
  }

  async #refresh() {
    if (this.loading) return;
    this.loading = true;
    try {
      // More pages may be requested during the read.
      do await this.#load();
      while (this.read < this.pages && !this.stopped);
    } catch (error) {
      setText(this.status, error.message);
    } finally {
      this.loading = false;
    }
  }

  #anew() {
    this.read = 0;
    this.#refresh();
  }

  async #load() {
    const person = this.api.person("list sessions") ?? this.api.people.find((one) => one.sessions);
    if (!person) {
      setText(this.status, "You may open sessions by their address, but not list them.");
      this.read = this.pages;
      return;
    }
    const pages = this.read < this.pages || this.rounds % REREAD_EVERY === 0 ? this.pages : 1;
    this.rounds += 1;
    const found = [];
    let cursor = null;
    for (let page = 0; page < pages; page += 1) {
      // Only the newest page asks every session what it is doing.
      const query = new URLSearchParams({ limit: PAGE, live: page === 0, only_open: this.onlyOpen.checked, ...(cursor ? { cursor } : {}) });
      const answer = await this.api.as(person, "GET", `/sessions?${query}`);
      found.push(...answer.sessions);
      cursor = answer.next_cursor;
      if (!cursor) break;
    }
    if (this.stopped) return;
    const last = found.at(-1)?.started;
    const older = pages < this.pages && cursor ? [...this.listed.values()].filter((one) => moment(one) < Date.parse(last)) : [];
    this.listed = new Map([...older, ...found].map((one) => [one.session_id, one]));
    if (pages === this.pages || !cursor) this.hasMore = Boolean(cursor);
    this.read = Math.max(this.read, pages);
    this.#draw([...this.listed.values()].sort((a, b) => moment(b) - moment(a)));
  }

  #more() {
    this.pages += 1;
    return this.#refresh();
  }

  #draw(sessions) {
    const wanted = sessions.map((session) => {
      const row = this.rows.get(session.session_id) ?? rowElement(session.session_id);
      this.rows.set(session.session_id, row);
      row.update(session);
      return row.element;
    });
    const known = [...this.list.children];
    if (known.length !== wanted.length || wanted.some((element, index) => element !== known[index])) this.list.replaceChildren(...wanted);
    this.#filter();
  }

  /** Shows the rows that contain every word. A search reads further pages of older sessions. */
  #filter() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const element of this.list.children) {
      element.hidden = !words.every((word) => element.searched.includes(word));
      if (!element.hidden) shown += 1;
    }
    this.more.hidden = !this.hasMore;
    setText(this.status, this.#count(shown, words.length > 0));
    if (words.length && this.hasMore && this.pages < MAX_PAGES) {
      this.pages = MAX_PAGES;
      this.#refresh();
    }
  }

  #count(shown, searched) {
    if (shown) return `${shown} ${shown === 1 ? "session" : "sessions"}`;
    if (!searched) return "There are no sessions yet.";
    if (!this.hasMore) return "Nothing found.";
    return this.pages < MAX_PAGES ? "Searching older sessions …" : `Nothing found among the newest ${this.listed.size}. Open older ones by their address.`;
  }
}

function moment({ started }) {
  return Date.parse(started);
}

function rowElement(sessionId) {
  const title = h("b", {});
  const about = h("small", {});
  const status = h("span", { class: "pill" });
  const people = h("span", { class: "quiet-text" });
  const element = h("li", {}, h("a", { href: `#/sessions/${sessionId}` }, h("span", { class: "naming" }, title, about), people, status));
  const update = ({ title: given, agent, open, started, snapshot, waits_for: waitsFor }) => {
    setText(title, given ?? agent ?? sessionId);
    setText(about, `${ago(started)} · ${given && agent ? `${isolate(agent)} · ` : ""}${sessionId}`);
    const [words, tone] = doing(open, snapshot, waitsFor);
    setText(status, words);
    status.className = `pill ${tone}`;
    const names = (snapshot?.participants ?? []).map(nameOf);
    setText(people, names.join(", "));
    element.searched = [sessionId, given, agent, words, ...names].join(" ").toLowerCase();
  };
  return { element, update };
}

function doing(open, snapshot, waitsFor) {
  if (!open) return ["closed", ""];
  if (!snapshot) return waitsFor ? ["waits for an answer", "ask"] : ["open", ""];
  if (snapshot.taken_over_by) return [`${nameOf(snapshot.taken_over_by)} speaks`, "ask"];
  const waiting = snapshot.queued.length ? `, ${snapshot.queued.length} queued` : "";
  if (snapshot.status === "waiting" || (snapshot.status === "idle" && snapshot.questions.length)) return [`waits for an answer${waiting}`, "ask"];
  return [`${snapshot.status}${waiting}`, snapshot.status === "running" ? "busy" : ""];
}
