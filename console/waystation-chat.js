/**
 * `<waystation-chat session="order-17">`: a session as a chat, for customers' pages.
 *
 * The page sets the property `token`: a function that returns a session token or a promise of one, called with true when
 * the API has refused the last. Nothing is shown, kept or styled outside of the element but drafts, which are kept for
 * the tab.
 */

import { Api, Refusal } from "./api.js";
import { h, isolate, messageOf, nameOf, setClass, setText, time } from "./dom.js";
import { Follow } from "./follow.js";
import { render } from "./markdown.js";
import { SessionModel } from "./model.js";
import { Absence } from "./views/absence.js";
import { Composer } from "./views/composer.js";
import { copiesCode } from "./views/copy.js";
import { noticeText } from "./views/items.js";
import { questionElement } from "./views/question.js";
import { Starters } from "./views/starters.js";

const SESSION = /^\w[\w.-]*$/;
const MIN_PAUSE_MS = 1_000;
const MAX_PAUSE_MS = 30_000;
const NEAR_END_PIXELS = 60;
const MAX_ANNOUNCED_CHARACTERS = 600;
const CONSOLE_REM_PIXELS = 16;
const SHEETS = ["console.css", "waystation-chat.css"];
/** @type {Partial<Record<import("./follow.js").State, string>>} */
const CONNECTION = { loading: "Connecting …", "catching-up": "Connecting …", offline: "No connection; trying again", refused: "Not available", closed: "This conversation has ended" };
/** What a customer is told of what happens beside the messages. */
const TOLD = new Set(["turn.failed", "turn.stopped", "takeover.started", "takeover.released"]);

/**
 * @typedef {import("./model.js").Item} Item
 * @typedef {(renew: boolean) => string | null | undefined | Promise<string | null | undefined>} Token
 * @typedef {{ element: HTMLElement, update: () => void, at: number, born: number }} Placed `at` is NaN until it has its place.
 */

/** @type {Promise<CSSStyleSheet[]> | null} */
let sheets = null;

/** The styles are fetched, not linked: a page's policy for styles then need not name the API. */
function styles() {
  sheets ??= Promise.all(SHEETS.map(async (name) => {
    const response = await fetch(new URL(name, import.meta.url));
    if (!response.ok) throw new Error(`${name}: ${response.status}`);
    const sheet = new CSSStyleSheet();
    // What the console says of its page is said of the element here; a rem of the page's may be of any size.
    sheet.replaceSync((await response.text()).replaceAll(":root", ".chat").replace(/([\d.]+)rem\b/g, (_, rems) => `${Number(rems) * CONSOLE_REM_PIXELS}px`));
    return sheet;
  })).catch((error) => {
    sheets = null;
    throw error;
  });
  return sheets;
}

export class WaystationChat extends HTMLElement {
  static observedAttributes = ["session", "api"];
  /** @type {Token | null} */
  #token = null;
  /** @type {Chat | null} */
  #chat = null;
  #begins = false;
  #frame = h("div", { class: "chat" });

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).append(this.#frame);
  }

  /** @returns {Token | null} */
  get token() {
    return this.#token;
  }

  /** @param {Token | null | undefined} token */
  set token(token) {
    if (token !== null && token !== undefined && typeof token !== "function") throw new TypeError("The token of <waystation-chat> is a function that returns a session token");
    this.#token = token ?? null;
    this.#beginSoon();
  }

  connectedCallback() {
    // The page may have set it before this module had arrived.
    if (Object.hasOwn(this, "token")) {
      const { token } = this;
      Reflect.deleteProperty(this, "token");
      this.token = token;
    }
    this.#beginSoon();
  }

  disconnectedCallback() {
    this.#beginSoon();
  }

  attributeChangedCallback() {
    this.#beginSoon();
  }

  /** Once for all that the page changes at a time. */
  #beginSoon() {
    if (this.#begins) return;
    this.#begins = true;
    queueMicrotask(() => {
      this.#begins = false;
      this.#begin();
    });
  }

  #begin() {
    this.#chat?.stop();
    this.#chat = null;
    const session = this.getAttribute("session");
    const token = this.#token;
    if (!this.isConnected || !session || !token) return;
    const base = addressOf(this.getAttribute("api") ?? new URL(import.meta.url).origin);
    if (!SESSION.test(session) || base === null) {
      this.#frame.replaceChildren(h("p", { role: "alert" }, "This chat has no valid session or API address."));
      return;
    }
    this.#chat = new Chat(this.#frame, { session, base, token });
    this.#chat.start();
  }
}

/** @param {string} text */
function addressOf(text) {
  try {
    const { protocol, href } = new URL(text, document.baseURI);
    return ["http:", "https:"].includes(protocol) ? href.replace(/\/+$/, "") : null;
  } catch {
    return null;
  }
}

/** @typedef {{ composer: Composer, follow: Follow, absence: Absence, starters: Starters }} Parts */

/** One session in the element, from signing in until it is taken away. */
class Chat {
  /**
   * @param {HTMLElement} frame
   * @param {{ session: string, base: string, token: Token }} page
   */
  constructor(frame, { session, base, token }) {
    this.frame = frame;
    this.session = session;
    this.token = token;
    this.api = new Api({ base, renew: async () => {
      const renewed = await token(true);
      return renewed ? [renewed] : [];
    }, onExpired: () => this.#onExpired() });
    this.stopped = new AbortController();
    this.model = new SessionModel();
    /** @type {Map<string, Placed>} */
    this.nodes = new Map();
    /** What is in the column, by its element. @type {WeakMap<ChildNode, Placed>} */
    this.places = new WeakMap();
    /** @type {Set<string>} */
    this.said = new Set();
    this.readyAt = Infinity;
    this.sticks = true;
    this.scrolledTo = 0;
    this.scheduled = false;
    /** @type {import("./api.js").Present[]} */
    this.present = [];
    this.wake = () => {};
    /** What there is once somebody has signed in. @type {Parts | null} */
    this.parts = null;
    this.connection = h("p", { class: "connection-line", role: "status" }, CONNECTION.loading);
    this.column = h("div", { class: "column" });
    this.log = h("div", { class: "log", role: "log", "aria-live": "off", "aria-label": "Conversation", tabindex: "0", onscroll: () => this.#onScroll() }, this.column);
    copiesCode(this.log, (words) => this.#announce(words));
    this.doing = h("p", { class: "doing", hidden: true });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.announcer = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite" });
    this.expired = h("p", { class: "ended", role: "alert", hidden: true }, h("span", {}, "Your sign-in has ended. What you have written is kept. "),
      h("button", { type: "button", onclick: () => this.wake() }, "Try again"));
    this.sizes = new ResizeObserver(() => this.sticks && this.#toEnd());
  }

  async start() {
    const { frame } = this;
    frame.replaceChildren(this.connection, this.expired);
    addEventListener("online", () => this.wake(), { signal: this.stopped.signal });
    const root = frame.getRootNode();
    try {
      if (root instanceof ShadowRoot) root.adoptedStyleSheets = await styles();
    } catch {
      // A chat without its styles is better than none.
    }
    if (!(await this.#signIn())) return;
    const { composer, absence, starters, follow } = (this.parts = this.#makeParts());
    frame.replaceChildren(this.connection, this.log, starters.element, this.doing, absence.element, this.problem, this.expired, composer.element, this.announcer);
    composer.restore();
    this.sizes.observe(this.column);
    this.sizes.observe(this.log);
    follow.start();
  }

  /** @returns {Parts} */
  #makeParts() {
    const { api, session, model } = this;
    const composer = new Composer(api, session, model, {
      onSend: () => this.#toEnd(), onProblem: (error) => this.#say(messageOf(error)), onDone: () => (this.problem.hidden = true), announce: (words) => this.#announce(words),
    });
    const follow = new Follow(api, session, model, { onState: (state, detail) => this.#onState(state, detail), onChange: () => this.#schedule(), onPresence: (people) => {
      this.present = people;
      this.#drawDoing();
    } });
    return { composer, follow, absence: new Absence(api, session, model), starters: new Starters(api, session, (text) => composer.begin(text)) };
  }

  stop() {
    this.stopped.abort();
    this.parts?.follow.stop();
    this.parts?.absence.stop();
    this.parts?.composer.leave();
    this.sizes.disconnect();
    this.wake();
  }

  // Signing in

  /** Asks the page for a token until the server knows it. Returns whether it does; false once the element is gone. */
  async #signIn() {
    let renew = false;
    for (let pause = MIN_PAUSE_MS; !this.stopped.signal.aborted; pause = Math.min(2 * pause, MAX_PAUSE_MS)) {
      try {
        const token = await this.token(renew);
        if (!token) throw new Refusal(401, {});
        await this.api.accept([token]);
        this.expired.hidden = true;
        return !this.stopped.signal.aborted;
      } catch (error) {
        // Both the page's server and the API may be away for a while.
        const refused = error instanceof Refusal && error.status === 401;
        this.expired.hidden = !(refused && renew);
        setText(this.connection, this.expired.hidden ? CONNECTION.offline : "");
        const again = refused && !renew;
        renew = refused;
        if (again) continue;
      }
      await this.#rest(pause);
    }
    return false;
  }

  /** Neither the API nor the page has a good token: asks the page again, ever more rarely, and when a person wants it. */
  async #onExpired() {
    if (!this.expired.hidden) return;
    this.expired.hidden = false;
    for (let pause = MIN_PAUSE_MS; this.api.expired && !this.stopped.signal.aborted; pause = Math.min(2 * pause, MAX_PAUSE_MS)) {
      await this.#rest(pause);
      if (!this.stopped.signal.aborted) await this.api.renewNow();
    }
    this.expired.hidden = true;
  }

  /**
   * Waits that long, or until somebody wants to try.
   * @param {number} milliseconds
   */
  #rest(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.wake = () => {
        clearTimeout(timer);
        resolve(null);
      };
    });
  }

  /**
   * @param {import("./follow.js").State} state
   * @param {string} detail
   */
  #onState(state, detail) {
    setText(this.connection, CONNECTION[state] ?? "");
    if (this.parts) this.parts.composer.refused = state === "refused";
    if (state === "refused") this.#say(detail);
    if (state === "live" || state === "closed") {
      this.#draw();
      this.readyAt = Math.min(this.readyAt, this.model.cursor);
    }
    this.parts?.composer.update();
  }

  // Drawing

  #schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.#draw();
    });
  }

  #draw() {
    const { changed, removed } = this.model.takeChanges();
    for (const key of removed) {
      this.nodes.get(key)?.element.remove();
      this.nodes.delete(key);
    }
    const items = [...changed].flatMap((key) => this.model.items.get(key) ?? []).sort((a, b) => a.at - b.at || a.born - b.born);
    for (const item of items) if (isTold(item)) this.#drawItem(item);
    this.#drawDoing();
    const { model, parts } = this;
    parts?.starters.update(model.transcript.messages.size === 0 && model.since === 0 && !model.closed && parts.composer.speaker !== null);
    parts?.absence.update(items);
    parts?.composer.update();
    if (this.sticks) this.#toEnd();
  }

  /** @param {Item} item */
  #drawItem(item) {
    let node = this.nodes.get(item.key);
    if (!node) {
      node = { ...this.#elementOf(item), at: NaN, born: item.born };
      this.nodes.set(item.key, node);
      this.places.set(node.element, node);
    }
    node.update();
    if (node.at !== item.at) this.#place(node, item);
    if (item.last > this.readyAt) this.#tell(item);
  }

  /** @param {Item} item */
  #elementOf(item) {
    if (item.kind === "message") return messageElement(item, this.api);
    if (item.kind !== "question") return noticeElement(item, this.api);
    const { element, update } = questionElement({ api: this.api, sessionId: this.session });
    return { element, update: () => update(item) };
  }

  /**
   * @param {Placed} node
   * @param {Item} item
   */
  #place(node, item) {
    node.at = item.at;
    const isAfter = (/** @type {ChildNode} */ one) => {
      const other = this.places.get(one);
      return other !== undefined && (other.at > item.at || (other.at === item.at && other.born > item.born));
    };
    const { element } = node;
    // Nearly always the end, so it is looked for from there.
    /** @type {ChildNode | null} */
    let next = null;
    let before = this.column.lastChild === element ? element.previousSibling : this.column.lastChild;
    while (before && before !== element && isAfter(before)) {
      next = before;
      before = before.previousSibling;
      if (before === element) before = before.previousSibling;
    }
    if (element.nextSibling !== next || !element.isConnected) this.column.insertBefore(element, next);
  }

  #drawDoing() {
    const { model } = this;
    const speaks = model.takenOverBy;
    const streams = [...model.transcript.messages.values()].at(-1)?.status === "streaming";
    const reads = this.present.find((person) => person.role === "operator");
    const words = speaks ? `${nameOf(speaks)} is with you.` : model.waiting || model.awaiting.length ? "Waits for an answer." : model.running.length && !streams ? "Is at work …" : reads ? `${nameOf(reads)} reads this.` : "";
    setText(this.doing, words);
    this.doing.hidden = !words;
  }

  /** @param {string} words */
  #say(words) {
    setText(this.problem, words);
    this.problem.hidden = false;
  }

  /** @param {Item} item */
  #tell(item) {
    if (this.said.has(item.key)) return;
    if (item.kind === "message" && item.message.status === "completed" && !this.api.isMe(item.message.actor.id)) this.#announce(`${nameOf(item.message.actor)}: ${item.message.text.slice(0, MAX_ANNOUNCED_CHARACTERS)}`);
    else if (item.kind === "question" && item.asked) this.#announce(`${nameOf(item.agent)} asks: ${item.asked.prompt.slice(0, MAX_ANNOUNCED_CHARACTERS)}`);
    else return;
    this.said.add(item.key);
  }

  /** @param {string} words */
  #announce(words) {
    this.announcer.append(h("p", {}, words));
    while (this.announcer.childNodes.length > 5) this.announcer.firstChild?.remove();
  }

  #onScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.log;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PIXELS;
    // Only a person's scrolling moves up; if the end has moved away, the content has grown.
    if (atEnd || scrollTop < this.scrolledTo) this.sticks = atEnd;
    this.scrolledTo = scrollTop;
  }

  #toEnd() {
    this.log.scrollTop = this.log.scrollHeight;
    this.scrolledTo = this.log.scrollTop;
    this.sticks = true;
  }
}

/**
 * What people said, what the agent said to them, its questions, and what they must know of its turns.
 * @param {Item} item
 */
function isTold(item) {
  if (item.lane) return false;
  // Live text comes before it is known whether it is an answer or a thought.
  if (item.kind === "message") return item.message.kind === "message" && item.message.order !== null;
  return item.kind === "question" || (item.kind === "notice" && TOLD.has(item.event.type));
}

/**
 * @param {import("./model.js").Item<"message">} item
 * @param {Api} api
 */
function messageElement(item, api) {
  const who = h("b", {});
  const stamp = h("time", {});
  const text = h("div", { class: "text" });
  const element = h("article", { class: "bubble" }, h("header", {}, who, " ", stamp), text);
  const update = () => {
    const { message, time: at } = item;
    const mine = api.isMe(message.actor.id);
    setClass(element, "mine", mine);
    setClass(element, "streaming", message.status === "streaming");
    setText(who, mine ? "You" : nameOf(message.actor));
    if (at) {
      stamp.dateTime = at;
      setText(stamp, time(at));
    }
    element.hidden = message.status === "superseded";
    if (message.actor.role === "user") setText(text, message.text);
    else render(text, message.text);
  };
  return { element, update };
}

/**
 * @param {Item} item
 * @param {Api} api
 */
function noticeElement(item, api) {
  const element = h("p", { class: "told" });
  return { element, update: () => setText(element, item.kind === "notice" ? isolate(noticeText(item.event, (id) => api.isMe(id))) : "") };
}

if (!customElements.get("waystation-chat")) customElements.define("waystation-chat", WaystationChat);
