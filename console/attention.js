/**
 * What waits for whoever has signed in, as the server streams it for each of their roles. Tabs of one person share a
 * stream: a browser opens few connections to a server, and a hidden tab needs to know too.
 */

import { Refusal } from "./api.js";
import { isolate, money } from "./dom.js";

/**
 * @typedef {{ kind: string, id: string, session_id: string | null, agent: string | null, line: string,
 *   amount?: { amount: number, currency: string }, since: string, deadline?: string }} Item
 * @typedef {{ count: number, items: Item[] }} Said
 * @typedef {import("./api.js").Person} Person
 */

const MIN_PAUSE_MS = 500;
const MAX_PAUSE_MS = 10_000;
/** As in follow.js: two heartbeats are missing. */
const SILENCE_MS = 35_000;
const WATCH_MS = 5_000;

/** @param {Item} item */
export const keyOf = ({ kind, session_id: session, id }) => `${kind} ${session ?? ""} ${id}`;

/** @param {Item} item */
export const lineOf = ({ amount, line }) => (amount ? `Approve ${money(amount.amount, amount.currency)}` : isolate(line.replace(/\*\*|`|^#+ /g, "")));

/**
 * Those for whom anything waits in person.
 * @param {Person[]} people
 */
export const told = (people) => people.filter(({ role }) => !["service", "agent"].includes(role));

/** @param {Person} person */
const nameOf = ({ role, subject, sessions }) => JSON.stringify([role, subject, sessions]);

export class Attention {
  /**
   * `onNew` is called in one tab of those that share a stream.
   * @param {import("./api.js").Api} api
   * @param {() => void} onChange
   * @param {(items: Item[]) => void} onNew
   */
  constructor(api, onChange, onNew) {
    this.api = api;
    this.onChange = onChange;
    this.onNew = onNew;
    this.ended = new AbortController();
    /** @type {Map<Person, Said>} */
    this.said = new Map();
    this.followed = "";
  }

  /**
   * Follows what waits for these people, in place of whom it has followed.
   * @param {Person[]} people
   */
  follow(people) {
    const followed = told(people);
    const names = followed.map(nameOf).join();
    if (names === this.followed) return;
    this.followed = names;
    this.ended.abort();
    this.ended = new AbortController();
    this.said.clear();
    for (const person of followed) this.#share(person, this.ended.signal);
    this.onChange();
  }

  /** What waits for any of the roles, once, the newest first. */
  get now() {
    const items = new Map();
    let beyond = 0;
    // What has begun at the same moment keeps the order of the fullest list, for whichever answers first.
    for (const said of [...this.said.values()].sort((a, b) => b.items.length - a.items.length)) {
      for (const item of said.items) items.set(keyOf(item), item);
      beyond = Math.max(beyond, said.count - said.items.length);
    }
    return { count: items.size + beyond, items: [...items.values()].sort((a, b) => b.since.localeCompare(a.since)) };
  }

  /**
   * @param {Person} person
   * @param {AbortSignal} signal
   */
  #share(person, signal) {
    const name = `waystation.attention ${nameOf(person)}`;
    const channel = new BroadcastChannel(name);
    signal.addEventListener("abort", () => channel.close());
    /** @param {Said} said */
    const take = (said) => {
      this.said.set(person, said);
      this.onChange();
    };
    let leads = false;
    channel.onmessage = ({ data }) => {
      if (data !== "?") take(data);
      else if (leads && this.said.has(person)) channel.postMessage(this.said.get(person));
    };
    const lead = () => {
      leads = true;
      return this.#read(person, signal, (said) => {
        const before = this.said.get(person)?.items.map(keyOf);
        channel.postMessage(said);
        take(said);
        if (before) this.onNew(said.items.filter((item) => !before.includes(keyOf(item))));
      });
    };
    channel.postMessage("?");
    // There are no locks where the page came over plain HTTP: then each tab reads for itself.
    if (navigator.locks) navigator.locks.request(name, { signal }, lead).catch(() => {});
    else lead();
  }

  /**
   * @param {Person} person
   * @param {AbortSignal} signal
   * @param {(said: Said) => void} take
   */
  async #read(person, signal, take) {
    for (let pause = MIN_PAUSE_MS; !signal.aborted; pause = Math.min(2 * pause, MAX_PAUSE_MS)) {
      const connection = new AbortController();
      const both = AbortSignal.any([signal, connection.signal]);
      let heard = Date.now();
      const watch = setInterval(() => Date.now() - heard > SILENCE_MS && connection.abort(), WATCH_MS);
      addEventListener("online", () => connection.abort(), { signal: both });
      try {
        await this.api.events(person, "/attention", {
          signal: both,
          onBytes() {
            heard = Date.now();
            pause = MIN_PAUSE_MS;
          },
          onBlock: (/** @type {import("./api.js").Block<Said>} */ { data }) => data && take(data),
        });
      } catch (error) {
        const status = error instanceof Refusal ? error.status : 0;
        if (status === 403) return;
        if (status === 401) await this.api.renewed(signal);
      }
      clearInterval(watch);
      connection.abort();
      await new Promise((resolve) => {
        setTimeout(resolve, pause * (0.75 + Math.random() / 2));
        signal.addEventListener("abort", resolve);
      });
    }
  }
}
