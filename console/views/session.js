// @ts-check
/** A session: its live transcript, who is there, the composer, stop, timeline. */

import { Follow } from "../follow.js";
import { h, messageOf, nameOf, setClass, setText, setTitle } from "../dom.js";
import { SessionModel } from "../model.js";
import { Absence } from "./absence.js";
import { Composer } from "./composer.js";
import { isWork, itemElement, noticeText } from "./items.js";
import { listen, showKeys } from "./keys.js";
import { Queue } from "./queue.js";
import { answerer, outcomeText, summary } from "./question.js";
import { Starters } from "./starters.js";
import { ToolGroups } from "./tool-groups.js";
import { messageToolbar } from "./toolbar.js";

/**
 * @typedef {import("./items.js").Item} Item
 * @typedef {import("./items.js").Placed} Placed
 * @typedef {import("./items.js").Container} Container
 * @typedef {import("../transcript.js").Message} Message
 * @typedef {import("../api.js").Api} Api
 * @typedef {"edit" | "interrupt" | "steer" | "withdraw"} How
 */

const CONNECTION = {
  loading: "Loading",
  live: "Live",
  "catching-up": "Catching up",
  offline: "Offline",
  paused: "Paused",
  closed: "Ended",
  refused: "Not available",
};
const NEAR_END_PIXELS = 60;
const SLOW_DRAWING_MS = 16;
const TIMELINE_EVERY_MS = 400;
/** Drawing a long session's timeline is slow; it may take at most a tenth of the page's time. */
const TIMELINE_REST = 10;
const MAX_ANNOUNCED_CHARACTERS = 600;
/** What waits for people is listed up to this many; the rest is counted. */
const MAX_ASKS = 3;
/** So many of the newest items are always laid out: a jump to the end would land on estimates of their heights. */
const LAID_OUT_ITEMS = 12;
/** Lines that say nothing that the card before or after them doesn't. */
const UNANNOUNCED = new Set(["turn.waiting", "turn.resumed"]);

/** What a session is shown in: as its customers see it, with how the agent works, or event by event. */
const DETAILS = ["chat", "work", "raw"];
/** Where the browser remembers what somebody has chosen. */
const DETAIL = "waystation.detail";

/**
 * @param {{ api: Api, query: URLSearchParams, signOut: () => void }} context
 * @param {string} sessionId
 */
export function show(context, sessionId) {
  const view = new SessionView(context, sessionId);
  return {
    title: sessionId,
    class: "session",
    element: view.element,
    shown: () => view.start(),
    stop: () => view.stop(),
    moveTo: (/** @type {URLSearchParams} */ query) => view.moveTo(query),
  };
}

class SessionView {
  /**
   * @param {{ api: Api, query: URLSearchParams, signOut: () => void }} context
   * @param {string} sessionId
   */
  constructor({ api, query, signOut }, sessionId) {
    this.api = api;
    this.sessionId = sessionId;
    this.signOut = signOut;
    /** The number of the event to go to once it is there. @type {number | null} */
    this.wanted = Number(query.get("at")) || null;
    this.query = query;
    this.model = new SessionModel();
    /** @type {Map<string, Placed>} */
    this.nodes = new Map();
    /** @type {Element[]} */
    this.laidOut = [];
    this.listening = new AbortController();
    /** @type {Map<string | null, Container>} */
    this.containers = new Map();
    this.groups = new ToolGroups(this.model);
    /** @type {import("../api.js").Present[]} */
    this.present = [];
    this.sticks = true;
    this.scrolledTo = 0;
    this.scheduled = false;
    this.drawingTook = 0;
    this.timelinePause = TIMELINE_EVERY_MS;
    this.readyAt = Infinity;
    /** @type {Set<string>} */
    this.said = new Set();
    this.staff = false;
    /** Whether what went wrong last was that the server could not be reached. */
    this.unreachable = false;
    /** What is shown, and what was chosen of it. */
    this.detail = "work";
    /** @type {string | null} */
    this.chosen = null;
    /** @type {import("./events.js").Events | null} */
    this.raw = null;
    /** @type {import("./inspector.js").Inspector | null} */
    this.inspector = null;
    /** @type {import("./timeline.js").Timeline | null} */
    this.chart = null;
    /** @type {import("./handover.js").Handover | null} */
    this.handover = null;
    /** @type {ReturnType<typeof setTimeout> | null} */
    this.timelineTimer = null;
    this.follow = new Follow(api, sessionId, this.model, {
      onState: (state, detail) => this.#onState(state, detail),
      onChange: () => this.#schedule(),
      onPresence: (people) => {
        this.present = people;
        this.#drawPeople();
        this.#drawCompany();
      },
    });
    this.composer = new Composer(api, sessionId, this.model, {
      onSend: (noting) => {
        this.#toEnd();
        if (!noting) this.handover?.dismiss();
      },
      onProblem: (error) => this.#problem(error),
      onDone: () => (this.problem.hidden = true),
      announce: (words) => this.#announce(words),
    });
    this.queue = new Queue((waiting, how) => this.#takeBack(waiting, how), (person) => api.isMe(person.id), () => this.log.focus({ preventScroll: true }));
    this.absence = new Absence(api, sessionId, this.model);
    this.element = this.#build();
  }

  #build() {
    this.title = h("h1", {}, this.sessionId);
    this.doing = h("span", { class: "pill" });
    this.connection = h("span", { class: "connection", "data-state": "loading", role: "status" }, "Loading");
    this.people = h("ul", { class: "people", "aria-label": "Connected now" });
    this.actions = h("div", { class: "actions" });
    this.timelineButton = h("button", { type: "button", "aria-expanded": "false", "aria-controls": "timeline", onclick: () => this.#toggleTimeline() }, "Timeline");
    this.timeline = h("section", { id: "timeline", class: "timeline", hidden: true, "aria-label": "Timeline" });
    this.column = h("div", { class: "column" });
    this.log = h("div", { class: "log", role: "log", "aria-live": "off", "aria-label": "Transcript", tabindex: "0", onscroll: () => this.#onScroll() }, this.column);
    messageToolbar(this.log, {
      find: (key) => this.model.items.get(key),
      link: (item) => `${location.href.split("#")[0]}#/sessions/${this.sessionId}?at=${item.at}${this.chosen ? `&detail=${this.chosen}` : ""}`,
      announce: (words) => this.#announce(words),
    });
    this.details = h("fieldset", { class: "modes details", onchange: (event) => this.#chooseDetail(event.target.value) }, h("legend", { class: "visually-hidden" }, "Detail"),
      ...DETAILS.map((value) => h("label", {}, h("input", { type: "radio", name: "detail", value }), h("span", {}, `${value[0].toUpperCase()}${value.slice(1)}`))));
    this.inspectButton = h("button", { type: "button", "aria-expanded": "false", hidden: !this.api.staff(this.sessionId), onclick: () => this.#inspect(this.inspector ? null : "") }, "Inspect");
    this.jump = h("button", { type: "button", class: "jump", hidden: true, onclick: () => this.#toEnd() }, "↓ Newest");
    this.starters = new Starters(this.api, this.sessionId, (text) => this.composer.begin(text));
    this.nothingWords = h("p", {});
    this.nothing = h("div", { class: "nothing", hidden: true }, this.nothingWords, this.starters.element);
    this.asks = h("div", { class: "asks", hidden: true });
    this.company = h("p", { class: "company", role: "status", hidden: true });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.more = h("button", { type: "button", class: "more", "aria-expanded": "false", "aria-controls": "session-actions", onclick: () => this.#toggleMore() }, "More");
    this.announcer = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite" });
    this.containers.set(null, { element: this.column, nodes: [] });
    this.sizes = new ResizeObserver(() => this.sticks && this.#toEnd());
    const toComposer = (event) => {
      // The fragment is the address of a view; the link must not change it.
      event.preventDefault();
      this.composer.text.focus();
    };
    this.menu = h("div", { id: "session-actions", class: "actions", onclick: ({ target }) => target.closest("button") && this.#toggleMore(false) }, this.details, this.timelineButton, this.inspectButton,
      h("button", { type: "button", onclick: () => this.#phone() }, "Phone"),
      h("button", { type: "button", class: "with-keys", onclick: () => showKeys() }, "Keys"), this.actions,
      h("button", { type: "button", class: "small-only", onclick: () => this.signOut() }, "Sign out"));
    this.panes = h("div", { class: "panes" }, h("div", { class: "log-frame" }, h("h2", { class: "visually-hidden" }, "Transcript"), this.log, this.nothing, this.jump));
    return h("div", { class: "session-view" },
      h("a", { class: "skip", href: "#message", onclick: toComposer }, "Skip to the message field"),
      h("header", { class: "session-head" },
        h("a", { class: "back small-only", href: "#/sessions", "aria-label": "Sessions" }, "‹"),
        h("div", { class: "naming" }, this.title, h("div", { class: "state" }, this.doing, this.connection)),
        this.people, this.more, this.menu),
      this.timeline,
      this.panes,
      this.asks, this.queue.element, this.absence.element, this.company, this.problem, this.composer.element, this.announcer);
  }

  start() {
    const { composer } = this;
    const waiting = () => this.asks.querySelector("button")?.click();
    listen({ write: () => composer.text.focus(), stop: () => composer.stopByKey(), step: (by) => this.#step(by), waiting, field: composer.text }, this.listening.signal);
    this.sizes.observe(this.column);
    this.sizes.observe(this.log);
    this.composer.restore();
    this.#forStaff();
    this.#showDetail(this.query.get("detail") ?? localStorage.getItem(DETAIL));
    this.#inspect(this.query.get("inspect"));
    this.follow.start();
  }

  stop() {
    this.listening.abort();
    this.follow.stop();
    this.absence.stop();
    this.composer.leave();
    this.sizes.disconnect();
    clearTimeout(this.timelineTimer);
    this.raw?.stop();
    this.inspector?.stop();
  }

  // Drawing

  /** Draws at the next frame; after a slow drawing the page first stays free for as long as that took. */
  #schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    const atFrame = () => requestAnimationFrame(() => {
      this.scheduled = false;
      const begin = performance.now();
      this.#draw();
      this.drawingTook = performance.now() - begin;
    });
    if (this.drawingTook > SLOW_DRAWING_MS) setTimeout(atFrame, this.drawingTook);
    else atFrame();
  }

  #draw() {
    const { changed, removed } = this.model.takeChanges();
    for (const key of removed) this.#removeNode(key);
    const items = [...changed].map((key) => this.model.items.get(key));
    // Groups of lanes first, outer ones before inner ones, because other items are placed in them.
    const depth = (item) => (item.kind === "lanes" ? item.turnId.split(".").length : 100);
    items.sort((a, b) => depth(a) - depth(b) || (a.at === b.at ? a.born - b.born : a.at - b.at));
    for (const item of items) this.#drawItem(item);
    for (const container of this.containers.values()) if (container.changed) this.#group(container);
    this.#layOutNewest();
    this.#drawHead();
    this.absence.update(items);
    // Whoever speaks in the agent's place answers it.
    const listed = this.composer.speaker && this.composer.speaker.role !== "operator";
    this.queue.update(listed ? this.model.waitingMessages : [], this.model.running.some((turn) => turn.status === "running"));
    this.composer.update();
    if (this.sticks) this.#toEnd();
    setClass(this.jump, "fresh", !this.sticks && items.length > 0);
    if (!this.timeline.hidden) this.#drawTimelineSoon();
    this.raw?.update();
    this.inspector?.update();
    if (this.wanted) this.jumpTo(this.wanted);
  }

  #drawItem(item) {
    let node = this.nodes.get(item.key);
    if (!node) {
      node = { ...itemElement(item, this), at: null, born: item.born, key: item.key, kind: item.kind };
      node.element.dataset.key = item.key;
      this.nodes.set(item.key, node);
    }
    node.update(item);
    setClass(node.element, "work", isWork(item));
    if (node.at !== item.at) this.#place(node, item);
    this.containers.get(item.lane).changed = true;
    if (item.last > this.readyAt) this.#say(item);
  }

  /** Places an element by its number, which nearly always means at the end or the beginning. */
  #place(node, item) {
    const container = this.containers.get(item.lane);
    const { nodes } = container;
    if (node.at !== null) nodes.splice(nodes.indexOf(node), 1);
    node.at = item.at;
    const before = (other) => other.at > node.at || (other.at === node.at && other.born > node.born);
    let low = 0;
    for (let high = nodes.length; low < high; ) {
      const middle = (low + high) >> 1;
      if (before(nodes[middle])) high = middle;
      else low = middle + 1;
    }
    const next = nodes[low]?.element ?? null;
    nodes.splice(low, 0, node);
    if (node.element.nextSibling !== next || !node.element.isConnected) container.element.insertBefore(node.element, next);
  }

  #group(container) {
    container.changed = false;
    this.groups.update(container);
  }

  #layOutNewest() {
    const newest = [];
    for (let one = this.column.lastElementChild; one && newest.length < LAID_OUT_ITEMS; one = one.previousElementSibling) if (!one.hidden && this.#isShown(one)) newest.push(one);
    for (const one of this.laidOut) if (!newest.includes(one)) one.classList.remove("newest");
    for (const one of newest) one.classList.add("newest");
    this.laidOut = newest;
  }

  #removeNode(key) {
    const node = this.nodes.get(key);
    if (!node) return;
    this.nodes.delete(key);
    node.element.remove();
    for (const { nodes } of this.containers.values()) {
      const at = nodes.indexOf(node);
      if (at >= 0) nodes.splice(at, 1);
    }
    for (const container of this.containers.values()) container.changed = true;
  }

  #drawHead() {
    const { model } = this;
    const name = model.title ?? model.agent ?? this.sessionId;
    setText(this.title, name);
    this.title.title = this.sessionId;
    this.nothing.hidden = model.transcript.messages.size > 0 || model.since > 0 || model.closed || [...model.items.values()].some(isMore);
    this.starters.update(!this.nothing.hidden && this.composer.speaker !== null);
    setText(this.nothingWords, `Nothing has been said yet. ${model.agent ?? "The agent"} answers what you write.`);
    setTitle(name);
    const [words, tone] = doing(model);
    setText(this.doing, words);
    this.doing.className = `pill ${tone}`;
    this.#drawAsks();
    this.#drawCompany();
    this.handover?.update();
  }

  /** Tells who isn't staff that a person looks on, or answers. */
  #drawCompany() {
    const { api, model } = this;
    const with_ = model.takenOverBy;
    const reads = this.present.find((person) => person.role === "operator" && !api.isMe(person.id));
    const words = this.staff || model.closed ? "" : with_ ? `${nameOf(with_)} is with you.` : reads ? `${nameOf(reads)} reads this.` : "";
    setText(this.company, words);
    this.company.hidden = !words;
  }

  /** What operators need is loaded for operators. */
  async #forStaff() {
    this.staff = this.composer.noter !== null;
    if (!this.staff) return;
    const { Handover } = await this.#part(() => import("./handover.js"));
    if (!Handover || this.listening.signal.aborted) return;
    const { api, sessionId, model, composer } = this;
    this.handover = new Handover({ api, sessionId, model, composer, present: () => this.present, onProblem: (error) => this.#problem(error), onDone: () => (this.problem.hidden = true), announce: (words) => this.#announce(words) });
    this.actions.replaceWith(this.handover.actions);
    this.doing.after(this.handover.assignee);
    this.queue.element.before(this.handover.element);
    this.handover.update();
  }

  #drawAsks() {
    const waiting = [...this.model.asking, ...this.model.awaiting];
    this.asks.hidden = waiting.length === 0;
    const words = waiting.map((item) => item.key).join();
    if (this.asks.dataset.shows === words) return;
    this.asks.dataset.shows = words;
    const more = waiting.length - MAX_ASKS;
    this.asks.replaceChildren(...waiting.slice(0, MAX_ASKS).map((item) => this.#askLine(item)), ...(more > 0 ? [h("p", {}, `And ${more} more.`)] : []));
  }

  #askLine(item) {
    const show = h("button", { type: "button", onclick: () => this.jumpTo(item.at, item.key) }, "Show");
    if (item.kind !== "question") return h("p", {}, h("b", {}, moneyName(item)), " is awaiting approval. ", show, " ", h("a", { href: `#/${item.route}/${item.id}` }, "Details"));
    const mine = answerer(this.api, this.sessionId, item.asked);
    return h("p", {}, h("b", {}, summary(item.asked)), mine ? " waits for your answer. " : " waits for somebody else's answer. ", show);
  }

  /** Withdraws a message that waits for its turn, and says it in another way. */
  async #takeBack({ message, turnId }, how) {
    const { composer } = this;
    try {
      await this.api.call("send", "POST", `/sessions/${this.sessionId}/withdraw`, { message_id: message.id });
    } catch (error) {
      return this.#problem(error);
    }
    if (how === "withdraw") return this.#announce("Withdrawn");
    if (how === "edit") return composer.put(message.text);
    try {
      await composer.sendOnce(`${how}-${turnId}`, message.text, message.data, how);
    } catch (error) {
      composer.put(message.text);
      this.#problem(error);
    }
  }

  /** Sends the message of a turn that has failed once more; whoever else presses too sends the same. */
  async again(button, turnId, message) {
    button.disabled = true;
    try {
      await this.composer.sendOnce(`again-${turnId}`, message.text, message.data);
      // The button goes, and no keyboard comes up on a phone.
      this.log.focus({ preventScroll: true });
    } catch (error) {
      this.#problem(error);
      button.disabled = false;
    }
  }

  #problem(error) {
    this.unreachable = error.status === 0;
    setText(this.problem, error.message);
    this.problem.hidden = false;
  }

  #drawPeople() {
    this.people.replaceChildren(...this.present.map((person) => {
      const name = this.api.isMe(person.id) ? "You" : nameOf(person);
      const places = person.connections > 1 ? ` in ${person.connections} places` : "";
      const initials = (person.name ?? person.id).split(/[\s._-]+/).map((word) => word[0]).join("").slice(0, 2).toUpperCase();
      return h("li", { class: `role-${person.role}`, title: `${nameOf(person)} (${person.role})${places}` },
        h("span", { "aria-hidden": "true" }, initials), person.connections > 1 ? h("sup", { "aria-hidden": "true" }, String(person.connections)) : null,
        h("span", { class: "visually-hidden" }, `${name}${places}`));
    }));
  }

  #onState(state, detail) {
    setText(this.connection, CONNECTION[state]);
    this.connection.dataset.state = state;
    this.connection.title = detail;
    this.composer.refused = state === "refused";
    if (state === "refused") this.#problem({ message: detail });
    if (["offline", "paused", "closed"].includes(state)) {
      // Presence is known only while connected.
      this.present = [];
      this.#drawPeople();
      this.#drawCompany();
    }
    if (state === "live") {
      // It can be reached again.
      if (this.unreachable) this.problem.hidden = true;
      this.composer.sendAgain();
    }
    if (state === "live" || state === "closed") {
      this.#draw();
      // Earlier items are not announced.
      this.readyAt = Math.min(this.readyAt, this.model.cursor);
    }
    this.composer.update();
  }

  // Announcements to screen readers: whole messages and people's actions, never single words

  #say(item) {
    if (this.detail === "chat" && isWork(item)) return;
    const key = `${item.key}:${item.seq}:${item.message?.status ?? item.status ?? ""}`;
    if (this.said.has(key)) return;
    if (item.kind === "message") {
      if (item.message.status !== "completed" || item.message.kind !== "message" || this.api.isMe(item.message.actor.id)) return;
      this.#announce(`${nameOf(item.message.actor)}: ${item.message.text.slice(0, MAX_ANNOUNCED_CHARACTERS)}`);
    } else if (item.kind === "notice" && !UNANNOUNCED.has(item.event.type)) this.#announce(noticeText(item.event));
    else if (item.kind === "question" && item.asked) this.#announce(item.outcome ? outcomeText(item) : `${nameOf(item.agent)} asks: ${item.asked.prompt.slice(0, MAX_ANNOUNCED_CHARACTERS)}`);
    else if (item.kind === "card" && item.status === "awaiting_approval") this.#announce("A purchase or paid request is awaiting approval.");
    else return;
    this.said.add(key);
  }

  #announce(words) {
    const line = h("p", {}, words);
    this.announcer.append(line);
    while (this.announcer.childNodes.length > 5) this.announcer.firstChild.remove();
  }

  // Scrolling

  #onScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.log;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PIXELS;
    // Only a person's scrolling moves up; if the end has moved away, the content has grown.
    if (atEnd || scrollTop < this.scrolledTo) this.sticks = atEnd;
    this.scrolledTo = scrollTop;
    this.jump.hidden = this.sticks;
  }

  #toEnd() {
    this.log.scrollTop = this.log.scrollHeight;
    this.scrolledTo = this.log.scrollTop;
    this.sticks = true;
    this.jump.hidden = true;
  }

  /** Scrolls to the item with this key, else to the one placed at an event's number or the last one before it. */
  jumpTo(seq, key = null) {
    if (!seq) return;
    if (this.model.since >= seq || (this.detail === "raw" && !this.raw)) {
      this.wanted = seq;
      return;
    }
    this.wanted = null;
    if (this.raw) return this.raw.choose(seq);
    const said = [...this.model.transcript.messages.values()].find((message) => message.order === seq);
    let best = this.nodes.get(key ?? `message:${said?.id}`) ?? null;
    if (!best) for (const node of this.nodes.values()) {
      if (node.at <= seq && (!best || node.at > best.at || (node.at === best.at && node.born > best.born))) best = node;
    }
    if (!best) return;
    if (best.element.hidden && best.kind === "tool") this.groups.open(best.key, this.containers.get(this.model.items.get(best.key).lane));
    // Whoever follows a link, or asks for what waits, wants to see it.
    if (!this.#isShown(best.element)) this.#showDetail("work");
    this.sticks = false;
    best.element.setAttribute("tabindex", "-1");
    const tall = best.element.offsetHeight > this.log.clientHeight;
    const move = () => best.element.scrollIntoView({ block: tall ? "start" : "center" });
    move();
    // The heights of the items in between were estimates and are known now.
    requestAnimationFrame(move);
    best.element.focus({ preventScroll: true });
    best.element.classList.remove("found");
    requestAnimationFrame(() => best.element.classList.add("found"));
  }

  /** Moves the focus to the next message, or the one before; at first to one that is on the screen. */
  #step(by) {
    const messages = [...this.column.querySelectorAll(":scope > .message")].filter((one) => this.#isShown(one));
    const at = messages.indexOf(document.activeElement?.closest(".log > .column > .message"));
    const { top, bottom } = this.log.getBoundingClientRect();
    const seen = (message) => message.getBoundingClientRect().bottom > top && message.getBoundingClientRect().top < bottom;
    const next = at >= 0 ? messages[at + by] : by > 0 ? messages.find(seen) : messages.findLast(seen);
    if (!next) return;
    next.setAttribute("tabindex", "-1");
    next.scrollIntoView({ block: next.offsetHeight > this.log.clientHeight ? "start" : "nearest" });
    next.focus({ preventScroll: true });
  }

  // Detail and inspector

  /** Follows a link to this session that names a place, a level of detail, or what to inspect. */
  moveTo(query) {
    if (query.has("detail")) this.#showDetail(query.get("detail"));
    if (query.has("inspect")) this.#inspect(query.get("inspect"));
    this.jumpTo(Number(query.get("at")));
  }

  #isShown(element) {
    return this.detail !== "chat" || !element.closest(".work");
  }

  /** Keeps something in the address, so that a link to this page shows it too. */
  #noteInAddress(name, value) {
    const [path, query] = location.hash.split("?");
    if (path !== `#/sessions/${this.sessionId}`) return;
    const all = new URLSearchParams(query);
    if (value === null) all.delete(name);
    else all.set(name, value);
    history.replaceState(null, "", `${path}${all.size ? `?${all}` : ""}`);
  }

  #chooseDetail(detail) {
    localStorage.setItem(DETAIL, detail);
    this.#showDetail(detail);
  }

  /** What was chosen, or is in a link, is in the address too; without it, work is shown. */
  async #showDetail(wanted) {
    this.chosen = DETAILS.includes(wanted) ? wanted : null;
    this.detail = this.chosen ?? "work";
    this.log.dataset.detail = this.detail;
    for (const { control } of this.details.querySelectorAll("label")) control.checked = control.value === this.detail;
    this.#noteInAddress("detail", this.chosen);
    if (this.detail === "raw" && !this.raw) {
      const { Events } = await this.#part(() => import("./events.js"));
      // Meanwhile another level may have been chosen.
      if (Events && this.detail === "raw") this.raw ??= new Events(this.model, this.sessionId);
    }
    if (this.detail !== "raw") {
      this.raw?.stop();
      this.raw = null;
    } else if (this.raw) this.log.before(this.raw.element);
    this.log.hidden = Boolean(this.raw);
    this.raw?.update();
    this.#layOutNewest();
    if (this.sticks) this.#toEnd();
    if (this.wanted) this.jumpTo(this.wanted);
  }

  /** Opens the inspector at a turn, tool call or question, at nothing in particular (""), or closes it (null). */
  async #inspect(what) {
    if (what !== null && this.inspectButton.hidden) return;
    if (what === null) {
      this.inspector?.stop();
      this.inspector = null;
    } else if (!this.inspector) {
      const { Inspector } = await this.#part(() => import("./inspector.js"));
      if (!Inspector) return;
      this.inspector ??= new Inspector(this.api, this.sessionId, this.model, { onChoose: (key) => this.#noteInAddress("inspect", key), onShow: (seq) => this.jumpTo(seq), onClose: () => this.#inspect(null), announce: (words) => this.#announce(words) });
      this.panes.append(this.inspector.element);
    }
    this.inspectButton.setAttribute("aria-expanded", String(Boolean(this.inspector)));
    this.inspector?.choose(what);
    this.#noteInAddress("inspect", what);
  }

  // Menu, timeline and phone

  /** On small screens the buttons are behind one. */
  #toggleMore(open = this.more.getAttribute("aria-expanded") !== "true") {
    this.more.setAttribute("aria-expanded", String(open));
    setClass(this.menu, "open", open);
  }

  async #toggleTimeline() {
    if (this.timeline.hidden && !this.chart) {
      const { Timeline } = await this.#part(() => import("./timeline.js"));
      if (!Timeline) return;
      this.chart ??= new Timeline(this.timeline, this.model, (seq) => this.jumpTo(seq));
    }
    this.timeline.hidden = !this.timeline.hidden;
    this.timelineButton.setAttribute("aria-expanded", String(!this.timeline.hidden));
    if (!this.timeline.hidden) this.chart.draw();
  }

  /** Loads a part of the console on demand. Returns an empty object if that fails. */
  async #part(load) {
    try {
      return await load();
    } catch {
      this.#problem({ message: "This part of the console could not be loaded. Try again once you are connected." });
      return {};
    }
  }

  #drawTimelineSoon() {
    this.timelineTimer ??= setTimeout(() => {
      this.timelineTimer = null;
      const begin = performance.now();
      this.chart?.draw();
      this.timelinePause = Math.max(TIMELINE_EVERY_MS, TIMELINE_REST * (performance.now() - begin));
    }, this.timelinePause);
  }

  async #phone() {
    const { showPhone } = await this.#part(() => import("./phone.js"));
    await showPhone?.(this.api, this.sessionId);
  }
}

function moneyName({ route }) {
  return route === "purchases" ? "A purchase" : "A paid request";
}

/** Whether an item says more than that the session has begun, and who is there. */
function isMore({ kind, event }) {
  return kind !== "day" && !["session.started", "participant.joined", "participant.left"].includes(event?.type);
}

function doing(model) {
  if (model.closed) return ["closed", ""];
  if (model.takenOverBy) return [`${nameOf(model.takenOverBy)} speaks`, "ask"];
  const waiting = model.queued.length ? `, ${model.queued.length} queued` : "";
  if (model.running.some((turn) => turn.status === "stopping")) return ["stopping", "busy"];
  if (model.waiting) return [`waits for an answer${waiting}`, "ask"];
  if (model.awaiting.length) return [`waits for approval${waiting}`, "ask"];
  if (model.running.length) return [`running${waiting}`, "busy"];
  return [`idle${waiting}`, ""];
}
