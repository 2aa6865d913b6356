/**
 * Follows one session: reads its end, then streams, reconnects and reads what is older.
 *
 * `state` is one of `loading`, `live` (everything up to now is on the screen), `catching-up` (connected, but
 * behind), `offline` (no connection; `detail` says why), `paused` (the tab is hidden and has closed its
 * connection), `closed` (the session has ended and all of it is loaded), `refused`.
 */

import { Refusal } from "./api.js";

const FIRST_EVENTS = 200;
const OLDER_EVENTS = 2_000;
const PAGE_EVENTS = 2_000;
const MIN_PAUSE_MS = 500;
const MAX_PAUSE_MS = 10_000;
/** The server sends a heartbeat every 15 seconds; if two are missing, the connection is dead. */
const SILENCE_MS = 35_000;
const WATCH_MS = 1_000;
/** Browsers open at most six connections to a server, so hidden tabs close theirs. */
const HIDDEN_MS = 60_000;

/** @typedef {"loading" | "live" | "catching-up" | "offline" | "paused" | "closed" | "refused"} State */

export class Follow {
  /**
   * `whole` is false if only the newest events are needed.
   * @param {import("./api.js").Api} api
   * @param {string} sessionId
   * @param {import("./model.js").SessionModel} model
   * @param {{ onState: (state: State, detail: string) => void, onChange: () => void, onPresence: (people: import("./api.js").Present[]) => void, whole?: boolean }} page
   */
  constructor(api, sessionId, model, { onState, onChange, onPresence, whole = true }) {
    this.api = api;
    this.sessionId = sessionId;
    this.model = model;
    this.onState = onState;
    this.onChange = onChange;
    this.onPresence = onPresence;
    this.whole = whole;
    this.path = /** @type {const} */ (`/sessions/${sessionId}`);
    /** @type {State} */
    this.state = "loading";
    this.detail = "";
    this.stopped = new AbortController();
    /** @type {AbortController | null} */
    this.connection = null;
    /** Why the connection was given up. @type {string | null} */
    this.dropped = null;
    this.hurried = false;
    this.heard = 0;
    this.reading = false;
    this.wake = () => {};
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.watch = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.hiding = undefined;
  }

  start() {
    const { signal } = this.stopped;
    addEventListener("online", () => this.#hurry(), { signal });
    addEventListener("offline", () => this.#drop("Your device is offline."), { signal });
    document.addEventListener("visibilitychange", () => this.#onVisibility(), { signal });
    this.watch = setInterval(() => this.#checkSilence(), WATCH_MS);
    this.#run();
  }

  stop() {
    this.stopped.abort();
    this.connection?.abort();
    clearInterval(this.watch);
    clearTimeout(this.hiding);
    this.wake();
  }

  async #run() {
    let pause = MIN_PAUSE_MS;
    while (!this.stopped.signal.aborted) {
      if (this.state === "paused") this.#set("catching-up");
      try {
        const before = this.model.cursor;
        const ended = await this.#connectOnce();
        if (ended) return this.#set("closed");
        if (this.state === "live" || this.model.cursor > before) pause = MIN_PAUSE_MS;
        if (!this.stopped.signal.aborted && this.state !== "paused") this.#set("catching-up");
      } catch (error) {
        if (this.stopped.signal.aborted) return;
        if (error instanceof Refusal && error.status === 401 && this.api.expired) {
          this.#set("offline", "Your sign-in has ended.");
          await this.api.renewed(this.stopped.signal);
          pause = MIN_PAUSE_MS;
          continue;
        }
        if (error instanceof Refusal && [401, 403, 404, 422].includes(error.status)) return this.#set("refused", error.message);
        if (this.state !== "paused") this.#set("offline", this.#why(error));
      }
      await this.#rest(this.hurried ? 0 : this.state === "paused" ? null : pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, MAX_PAUSE_MS);
    }
  }

  /** @param {unknown} error */
  #why(error) {
    if (this.dropped) return this.dropped;
    return error instanceof Refusal && error.status ? error.message : "The connection is lost; reconnecting.";
  }

  /** Keeps one connection until it ends. Returns whether the session has ended. */
  async #connectOnce() {
    this.connection = new AbortController();
    Object.assign(this, { dropped: null, hurried: false, heard: Date.now() });
    try {
      return await this.#followOn(this.connection.signal);
    } finally {
      this.connection = null;
    }
  }

  /** @param {AbortSignal} signal */
  async #followOn(signal) {
    const snapshot = await this.#get(this.path);
    this.model.takeSnapshot(snapshot);
    if (this.model.since === Infinity) await this.#readEnd(snapshot.tip);
    this.onChange();
    const check = () => {
      if (this.state !== "live" && this.model.cursor >= snapshot.tip) this.#set("live");
    };
    const streaming = this.api.stream(this.sessionId, this.model.cursor, {
      signal,
      onOpen: () => {
        this.#set("catching-up");
        check();
      },
      onBytes: () => {
        this.heard = Date.now();
      },
      onBlock: (block) => {
        this.#take(block);
        check();
      },
    });
    if (this.whole) this.#readOlder();
    return streaming;
  }

  /** @param {import("./api.js").Block<import("./api.js").Wire>} block */
  #take({ id, data }) {
    if (!data) this.model.advance(id ?? 0);
    else if (data.type === "presence") this.onPresence(data.data.people);
    else if ("seq" in data) this.model.apply(data);
    else this.model.place(data);
    this.onChange();
  }

  /**
   * Reads the newest events first, so that a long session opens as fast as a short one.
   * @param {number} tip
   */
  async #readEnd(tip) {
    let after = Math.max(0, tip - FIRST_EVENTS);
    this.model.since = after;
    // Set even if the connection breaks before the first event arrives; older events are read later.
    this.model.advance(after);
    for (let more = true; more; ) {
      const page = await this.#page(after);
      for (const event of page.events) this.model.apply(event);
      after = page.next_after;
      more = page.more;
    }
    this.model.advance(after);
  }

  /** Reads the older events, page by page towards the beginning. */
  async #readOlder() {
    if (this.reading) return;
    this.reading = true;
    try {
      while (this.model.since > 0 && !this.stopped.signal.aborted) {
        const end = this.model.since;
        const begin = Math.max(0, end - OLDER_EVENTS);
        /** @type {import("./transcript.js").SessionEvent[]} */
        const events = [];
        for (let after = begin; after < end; ) {
          const page = await this.#page(after, end - after);
          events.push(...page.events.filter((event) => event.seq <= end));
          after = page.more ? page.next_after : end;
        }
        for (const event of events.reverse()) this.model.older(event);
        this.model.since = begin;
        this.onChange();
      }
    } catch {
      // The next connection continues from here.
    } finally {
      this.reading = false;
    }
  }

  /** @param {number} after */
  #page(after, limit = PAGE_EVENTS) {
    return this.#get(`${this.path}/replay?after=${after}&limit=${limit}`);
  }

  /**
   * @template {string} P
   * @param {P} path
   */
  async #get(path) {
    const answer = await this.api.get(path, this.connection?.signal, { waits: false });
    this.heard = Date.now();
    return answer;
  }

  /** @param {State} state */
  #set(state, detail = "") {
    if (this.state === state && this.detail === detail) return;
    this.state = state;
    this.detail = detail;
    this.onState(state, detail);
  }

  /**
   * Waits that long, or until woken.
   * @param {number | null} milliseconds
   */
  #rest(milliseconds) {
    return new Promise((resolve) => {
      const timer = milliseconds === null ? undefined : setTimeout(resolve, milliseconds);
      this.wake = () => {
        clearTimeout(timer);
        resolve(null);
      };
    });
  }

  /** Reconnects immediately, even if an attempt is in progress: it may be waiting on a lost connection. */
  #hurry() {
    if (this.state === "paused") return;
    this.hurried = true;
    if (["loading", "offline"].includes(this.state)) this.connection?.abort();
    this.wake();
  }

  /** @param {string} why */
  #drop(why) {
    this.dropped = why;
    this.connection?.abort();
  }

  #checkSilence() {
    if (this.connection && Date.now() - this.heard > SILENCE_MS) {
      this.#drop("The server has been silent for a while; reconnecting.");
    }
  }

  #onVisibility() {
    clearTimeout(this.hiding);
    if (!document.hidden) return this.wake();
    this.hiding = setTimeout(() => {
      if (["closed", "refused"].includes(this.state)) return;
      this.#set("paused");
      this.#drop("");
    }, HIDDEN_MS);
  }
}
