/** A session: its live transcript, who is there, the composer, stop, timeline. */

import { Refusal } from "../api.js";
import { Follow } from "../follow.js";
import { h, messageOf, nameOf, setClass, setText, setTitle } from "../dom.js";
import { SessionModel } from "../model.js";
import { Absence } from "./absence.js";
import { Composer } from "./composer.js";
import { isWork, itemElement, noticeText } from "./items.js";
import { listen } from "./keys.js";
import { Queue } from "./queue.js";
import { answerer, outcomeText, summary } from "./question.js";
import { Starters } from "./starters.js";
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
/** Of a crowd so many are shown, and how many there are. */
const MAX_FACES = 4;
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
  doing = h("span", { class: "pill" });
  connection = h("span", { class: "connection", "data-state": "loading", role: "status" }, "Loading");
  people = h("ul", { class: "people", "aria-label": "Connected now" });
  actions = h("div", { class: "actions" });
  timelineButton = h("button", { type: "button", "aria-expanded": "false", "aria-controls": "timeline", onclick: () => this.#toggleTimeline() }, "Timeline");
  timeline = h("section", { id: "timeline", class: "timeline", hidden: true, "aria-label": "Timeline" });
  column = h("div", { class: "column" });
  log = h("div", { class: "log", role: "log", "aria-live": "off", "aria-label": "Transcript", tabindex: "0", onscroll: () => this.#onScroll() }, this.column);
  levels = DETAILS.map((value) => h("input", { type: "radio", name: "detail", value, onchange: () => this.#chooseDetail(value) }));
  inspectButton = h("button", { type: "button", "aria-expanded": "false", onclick: () => this.#inspect(this.inspector ? null : "") }, "Inspect");
  jump = h("button", { type: "button", class: "jump", hidden: true, onclick: () => this.#toEnd() }, "↓ Newest");
  nothingWords = h("p", {});
  nothing = h("div", { class: "nothing", hidden: true }, this.nothingWords);
  asks = h("div", { class: "asks", hidden: true });
  companyWords = h("p", {});
  company = h("div", { class: "company", role: "status", hidden: true }, this.companyWords);
  problemWords = h("p", {});
  problem = h("div", { class: "problem", role: "alert", hidden: true }, this.problemWords);
  more = h("button", { type: "button", class: "more", "aria-expanded": "false", "aria-controls": "session-actions", onclick: () => this.#toggleMore() }, "More");
  menu = h("div", { id: "session-actions", class: "actions", onclick: ({ target }) => target instanceof Element && target.closest("button") && this.#toggleMore(false) });
  panes = h("div", { class: "panes" }, h("div", { class: "log-frame" }, h("h2", { class: "visually-hidden" }, "Transcript"), this.log, this.nothing, this.jump));
  announcer = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite" });
  sizes = new ResizeObserver(() => this.sticks && this.#toEnd());

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
    /** @type {Container} */
    this.main = { element: this.column, nodes: [], changed: false };
    /** Where items are, by their lane. @type {Map<string | null, Container>} */
    this.containers = new Map([[null, this.main]]);
    /** What folds calls of tools, once there is one. @type {import("./tool-groups.js").ToolGroups | null} */
    this.groups = null;
    this.loadsGroups = false;
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
    this.title = h("h1", { tabindex: "-1" }, sessionId);
    // Focused, it shows the whole of a title that is cut; the keyboard stops only there.
    this.cut = new ResizeObserver(() => (this.title.tabIndex = this.title.scrollWidth > this.title.clientWidth ? 0 : -1));
    this.inspectButton.hidden = !api.staff(sessionId);
    this.starters = new Starters(api, sessionId, (text) => this.composer.begin(text));
    this.element = this.#build();
  }

  #build() {
    messageToolbar(this.log, {
      find: (key) => this.model.items.get(key),
      link: (item) => `${location.href.split("#")[0]}#/sessions/${this.sessionId}?at=${item.at}${this.chosen ? `&detail=${this.chosen}` : ""}`,
      announce: (words) => this.#announce(words),
    });
    const details = h("fieldset", { class: "modes details" }, h("legend", { class: "visually-hidden" }, "Detail"),
      ...this.levels.map((level) => h("label", {}, level, h("span", {}, `${level.value[0].toUpperCase()}${level.value.slice(1)}`))));
    const toComposer = (/** @type {Event} */ event) => {
      // The fragment is the address of a view; the link must not change it.
      event.preventDefault();
      this.composer.text.focus();
    };
    this.menu.append(details, this.timelineButton, this.inspectButton,
      h("button", { type: "button", onclick: () => this.#phone() }, "Phone"),
      h("button", { type: "button", class: "with-keys", onclick: () => this.#showKeys() }, "Keys"), this.actions,
      h("button", { type: "button", class: "small-only", onclick: () => this.signOut() }, "Sign out"));
    this.nothing.append(this.starters.element);
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
    listen({ write: () => composer.text.focus(), stop: () => composer.stopByKey(), step: (by) => this.#step(by), waiting, keys: () => this.#showKeys(), field: composer.text }, this.listening.signal);
    this.sizes.observe(this.column);
    this.cut.observe(this.title);
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
    this.cut.disconnect();
    clearTimeout(this.timelineTimer ?? undefined);
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
    const items = [...changed].flatMap((key) => this.model.items.get(key) ?? []);
    // Groups of lanes first, outer ones before inner ones, because other items are placed in them.
    const depth = (/** @type {Item} */ item) => (item.kind === "lanes" ? item.turnId.split(".").length : 100);
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

  /** @param {Item} item */
  #drawItem(item) {
    let node = this.nodes.get(item.key);
    if (!node) {
      node = { ...itemElement(item, this), at: NaN, born: item.born, key: item.key, kind: item.kind };
      node.element.dataset.key = item.key;
      this.nodes.set(item.key, node);
    }
    node.update();
    setClass(node.element, "work", isWork(item));
    if (node.at !== item.at) this.#place(node, item);
    this.#containerOf(item).changed = true;
    if (item.last > this.readyAt) this.#say(item);
  }

  /** @param {Item | undefined} item */
  #containerOf(item) {
    return this.containers.get(item?.lane ?? null) ?? this.main;
  }

  /**
   * Places an element by its number, which nearly always means at the end or the beginning.
   * @param {Placed} node
   * @param {Item} item
   */
  #place(node, item) {
    const container = this.#containerOf(item);
    const { nodes } = container;
    if (!Number.isNaN(node.at)) nodes.splice(nodes.indexOf(node), 1);
    node.at = item.at;
    const before = (/** @type {Placed} */ other) => other.at > node.at || (other.at === node.at && other.born > node.born);
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

  /** @param {Container} container */
  #group(container) {
    container.changed = false;
    if (this.groups) this.groups.update(container);
    else if (container.nodes.some((one) => one.kind === "tool")) this.#loadGroups();
  }

  /** Until it is there each call is shown, and so they are if it can't be loaded. */
  async #loadGroups() {
    if (this.loadsGroups) return;
    this.loadsGroups = true;
    try {
      const { ToolGroups } = await import("./tool-groups.js");
      this.groups = new ToolGroups(this.model);
      for (const container of this.containers.values()) this.groups.update(container);
    } catch {
      // The next event asks again.
    }
    this.loadsGroups = false;
  }

  #layOutNewest() {
    /** @type {Element[]} */
    const newest = [];
    for (let one = this.column.lastElementChild; one && newest.length < LAID_OUT_ITEMS; one = one.previousElementSibling) if (!one.hasAttribute("hidden") && this.#isShown(one)) newest.push(one);
    for (const one of this.laidOut) if (!newest.includes(one)) one.classList.remove("newest");
    for (const one of newest) one.classList.add("newest");
    this.laidOut = newest;
  }

  /** @param {string} key */
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
    this.title.title = name === this.sessionId ? name : `${name} (${this.sessionId})`;
    this.nothing.hidden = model.transcript.messages.size > 0 || model.since > 0 || model.closed || [...model.items.values()].some(isMore);
    this.starters.update(!this.nothing.hidden && this.composer.speaker !== null);
    setText(this.nothingWords, `Nothing has been said yet. ${model.agent ?? "The agent"} answers what you write.`);
    setTitle(name);
    const [words, tone] = doing(model, this.api);
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
    setText(this.companyWords, words);
    this.company.hidden = !words;
  }

  /** What operators need is loaded for operators. */
  async #forStaff() {
    this.staff = this.composer.noter !== null;
    if (!this.staff) return;
    const part = await this.#part(() => import("./handover.js"));
    if (!part || this.listening.signal.aborted) return;
    const { api, sessionId, model, composer } = this;
    const handover = new part.Handover({ api, sessionId, model, composer, present: () => this.present, onProblem: (error) => this.#problem(error), onDone: () => (this.problem.hidden = true), announce: (words) => this.#announce(words) });
    this.handover = handover;
    this.actions.replaceWith(handover.actions);
    this.doing.after(handover.assignee);
    this.queue.element.before(handover.element);
    handover.update();
  }

  #drawAsks() {
    const waiting = [...this.model.asking, ...this.model.awaiting];
    this.asks.hidden = waiting.length === 0;
    const words = waiting.map((item) => item.key).join();
    if (this.asks.dataset.shows === words) return;
    this.asks.dataset.shows = words;
    const more = waiting.length - MAX_ASKS;
    const lines = waiting.slice(0, MAX_ASKS).map((item) => this.#askLine(item));
    // Where there is room for one line only, it says how many there are.
    if (waiting.length > 1) lines[0].prepend(h("small", { class: "of-several" }, `1 of ${waiting.length}`));
    this.asks.replaceChildren(...lines, ...(more > 0 ? [h("p", {}, `And ${more} more.`)] : []));
  }

  /** @param {import("../model.js").Item<"question"> | import("../model.js").Item<"card">} item */
  #askLine(item) {
    const show = h("button", { type: "button", onclick: () => this.jumpTo(item.at, item.key) }, "Show");
    if (item.kind === "card") return h("p", {}, h("span", {}, h("b", {}, moneyName(item)), " is awaiting approval."), " ", show, " ", h("a", { href: `#/${item.route}/${item.id}` }, "Details"));
    const { asked } = item;
    const mine = asked && answerer(this.api, this.sessionId, asked);
    return h("p", {}, h("span", {}, h("b", {}, asked ? summary(asked) : "A question"), mine ? " waits for your answer." : " waits for somebody else's answer."), " ", show);
  }

  /**
   * Withdraws a message that waits for its turn, and says it in another way.
   * @param {import("./queue.js").Waiting} waiting
   * @param {How} how
   */
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

  /**
   * Sends the message of a turn that has failed once more; whoever else presses too sends the same.
   * @param {HTMLButtonElement} button
   * @param {string} turnId
   * @param {Message} message
   */
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

  /** @param {unknown} error */
  #problem(error) {
    this.unreachable = error instanceof Refusal && error.status === 0;
    setText(this.problemWords, messageOf(error));
    this.problem.hidden = false;
  }

  #drawPeople() {
    const count = this.present.length;
    setClass(this.people, "several", count > 1);
    setClass(this.people, "crowd", count > MAX_FACES + 2);
    this.people.replaceChildren(...this.present.map((person, at) => {
      const name = this.api.isMe(person.id) ? "You" : nameOf(person);
      const places = person.connections > 1 ? ` in ${person.connections} places` : "";
      const initials = (person.name ?? person.id).split(/[\s._-]+/).map((word) => word[0]).join("").slice(0, 2).toUpperCase();
      return h("li", { class: `role-${person.role}${at < MAX_FACES ? "" : " further"}`, title: `${nameOf(person)} (${person.role})${places}` },
        h("span", { "aria-hidden": "true" }, initials), person.connections > 1 ? h("sup", { "aria-hidden": "true" }, String(person.connections)) : null,
        h("span", { class: "visually-hidden" }, `${name}${places}`));
    }), ...(count > 1 ? [h("li", { class: "all", "aria-hidden": "true", title: this.present.map(nameOf).join(", ") }, String(count))] : []));
  }

  /**
   * @param {import("../follow.js").State} state
   * @param {string} detail
   */
  #onState(state, detail) {
    setText(this.connection, CONNECTION[state]);
    this.connection.dataset.state = state;
    this.connection.title = detail;
    this.composer.refused = state === "refused";
    if (state === "refused") this.#problem(new Error(detail));
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

  /** @param {Item} item */
  #say(item) {
    if (this.detail === "chat" && isWork(item)) return;
    const key = `${item.key}:${item.seq}:${statusOf(item) ?? ""}`;
    if (this.said.has(key)) return;
    if (item.kind === "message") {
      if (item.message.status !== "completed" || item.message.kind !== "message" || this.api.isMe(item.message.actor.id)) return;
      this.#announce(`${nameOf(item.message.actor)}: ${item.message.text.slice(0, MAX_ANNOUNCED_CHARACTERS)}`);
    } else if (item.kind === "notice" && !UNANNOUNCED.has(item.event.type)) this.#announce(noticeText(item.event, (id) => this.api.isMe(id), this.model.participants));
    else if (item.kind === "question" && item.asked) this.#announce(item.outcome ? outcomeText(item.outcome, item.asked, (id) => this.api.isMe(id)) : `${nameOf(item.agent)} asks: ${item.asked.prompt.slice(0, MAX_ANNOUNCED_CHARACTERS)}`);
    else if (item.kind === "card" && item.status === "awaiting_approval") this.#announce("A purchase or paid request is awaiting approval.");
    else return;
    this.said.add(key);
  }

  /** @param {string} words */
  #announce(words) {
    const line = h("p", {}, words);
    this.announcer.append(line);
    while (this.announcer.childNodes.length > 5) this.announcer.firstChild?.remove();
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

  /**
   * Scrolls to the item with this key, else to the one placed at an event's number or the last one before it.
   * @param {number} seq
   * @param {string | null} [key]
   */
  jumpTo(seq, key = null) {
    if (!seq) return;
    if (this.model.since >= seq || (this.detail === "raw" && !this.raw)) {
      this.wanted = seq;
      return;
    }
    this.wanted = null;
    if (this.raw) return this.raw.choose(seq);
    const said = [...this.model.transcript.messages.values()].find((message) => message.order === seq);
    const found = this.nodes.get(key ?? `message:${said?.id}`) ?? this.#lastBefore(seq);
    if (!found) return;
    const { element } = found;
    if (element.hidden && found.kind === "tool") this.groups?.open(found.key, this.#containerOf(this.model.items.get(found.key)));
    // Whoever follows a link, or asks for what waits, wants to see it.
    if (!this.#isShown(element)) this.#showDetail("work");
    this.sticks = false;
    element.setAttribute("tabindex", "-1");
    const tall = element.offsetHeight > this.log.clientHeight;
    const move = () => element.scrollIntoView({ block: tall ? "start" : "center" });
    move();
    // The heights of the items in between were estimates and are known now.
    requestAnimationFrame(move);
    element.focus({ preventScroll: true });
    element.classList.remove("found");
    requestAnimationFrame(() => element.classList.add("found"));
  }

  /**
   * What is placed at an event's number, or the last before it.
   * @param {number} seq
   */
  #lastBefore(seq) {
    /** @type {Placed | null} */
    let best = null;
    for (const node of this.nodes.values()) {
      if (node.at <= seq && (!best || node.at > best.at || (node.at === best.at && node.born > best.born))) best = node;
    }
    return best;
  }

  /**
   * Moves the focus to the next message, or the one before; at first to one that is on the screen.
   * @param {number} by
   */
  #step(by) {
    const messages = this.main.nodes.filter((one) => one.kind === "message" && this.#isShown(one.element)).map((one) => one.element);
    const at = messages.findIndex((one) => one.contains(document.activeElement));
    const { top, bottom } = this.log.getBoundingClientRect();
    const seen = (/** @type {HTMLElement} */ message) => message.getBoundingClientRect().bottom > top && message.getBoundingClientRect().top < bottom;
    const next = at >= 0 ? messages[at + by] : by > 0 ? messages.find(seen) : messages.findLast(seen);
    if (!next) return;
    next.setAttribute("tabindex", "-1");
    next.scrollIntoView({ block: next.offsetHeight > this.log.clientHeight ? "start" : "nearest" });
    next.focus({ preventScroll: true });
  }

  // Detail and inspector

  /**
   * Follows a link to this session that names a place, a level of detail, or what to inspect.
   * @param {URLSearchParams} query
   */
  moveTo(query) {
    if (query.has("detail")) this.#showDetail(query.get("detail"));
    if (query.has("inspect")) this.#inspect(query.get("inspect"));
    this.jumpTo(Number(query.get("at")));
  }

  /** @param {Element} element */
  #isShown(element) {
    return this.detail !== "chat" || !element.closest(".work");
  }

  /**
   * Keeps something in the address, so that a link to this page shows it too.
   * @param {string} name
   * @param {string | null} value
   */
  #noteInAddress(name, value) {
    const [path, query] = location.hash.split("?");
    if (path !== `#/sessions/${this.sessionId}`) return;
    const all = new URLSearchParams(query);
    if (value === null) all.delete(name);
    else all.set(name, value);
    history.replaceState(null, "", `${path}${all.size ? `?${all}` : ""}`);
  }

  /** @param {string} detail */
  #chooseDetail(detail) {
    localStorage.setItem(DETAIL, detail);
    this.#showDetail(detail);
  }

  /**
   * What was chosen, or is in a link, is in the address too; without it, work is shown.
   * @param {string | null} wanted
   */
  async #showDetail(wanted) {
    this.chosen = DETAILS.find((one) => one === wanted) ?? null;
    this.detail = this.chosen ?? "work";
    this.log.dataset.detail = this.detail;
    for (const level of this.levels) level.checked = level.value === this.detail;
    this.#noteInAddress("detail", this.chosen);
    if (this.detail === "raw" && !this.raw) {
      const part = await this.#part(() => import("./events.js"));
      // Meanwhile another level may have been chosen.
      if (part && this.detail === "raw") this.raw ??= new part.Events(this.model, this.sessionId);
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

  /**
   * Opens the inspector at a turn, tool call or question, at nothing in particular (""), or closes it (null).
   * @param {string | null} what
   */
  async #inspect(what) {
    if (what !== null && this.inspectButton.hidden) return;
    if (what === null) {
      this.inspector?.stop();
      this.inspector = null;
    } else if (!this.inspector) {
      const part = await this.#part(() => import("./inspector.js"));
      if (!part) return;
      this.inspector ??= new part.Inspector(this.api, this.sessionId, this.model, { onChoose: (key) => this.#noteInAddress("inspect", key), onShow: (seq) => this.jumpTo(seq), onClose: () => this.#inspect(null), announce: (words) => this.#announce(words) });
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
      const part = await this.#part(() => import("./timeline.js"));
      if (!part) return;
      this.chart ??= new part.Timeline(this.timeline, this.model, (seq) => this.jumpTo(seq));
    }
    this.timeline.hidden = !this.timeline.hidden;
    this.timelineButton.setAttribute("aria-expanded", String(!this.timeline.hidden));
    if (!this.timeline.hidden) this.chart?.draw();
  }

  /**
   * Loads a part of the console on demand. Returns null if that fails, and says so.
   * @template M
   * @param {() => Promise<M>} load
   */
  async #part(load) {
    try {
      return await load();
    } catch {
      this.#problem(new Error("This part of the console could not be loaded. Once you are connected, load the page again; what you have written is kept."));
      return null;
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

  async #showKeys() {
    const part = await this.#part(() => import("./keys-dialog.js"));
    part?.showKeys();
  }

  async #phone() {
    const part = await this.#part(() => import("./phone.js"));
    await part?.showPhone(this.api, this.sessionId);
  }
}

/** @param {import("../model.js").Item<"card">} item */
function moneyName({ route }) {
  return route === "purchases" ? "A purchase" : "A paid request";
}

/** @param {Item} item */
function statusOf(item) {
  if (item.kind === "message") return item.message.status;
  return "status" in item ? item.status : null;
}

/**
 * Whether an item says more than that the session has begun, and who is there.
 * @param {Item} item
 */
function isMore(item) {
  return item.kind !== "day" && !(item.kind === "notice" && ["session.started", "participant.joined", "participant.left"].includes(item.event.type));
}

/**
 * @param {SessionModel} model
 * @param {Api} api
 */
function doing(model, api) {
  if (model.closed) return ["closed", ""];
  if (model.takenOverBy) return [api.isMe(model.takenOverBy.id) ? "you speak" : `${nameOf(model.takenOverBy)} speaks`, "ask"];
  const waiting = model.queued.length ? `, ${model.queued.length} queued` : "";
  if (model.running.some((turn) => turn.status === "stopping")) return ["stopping", "busy"];
  if (model.waiting) return [`waits for an answer${waiting}`, "ask"];
  if (model.awaiting.length) return [`waits for approval${waiting}`, "ask"];
  if (model.running.length) return [`running${waiting}`, "busy"];
  return [`idle${waiting}`, ""];
}
