/** The API as a page calls it: credentials and their renewal, requests, and the event stream. */

import { noteServerTime } from "./clock.js";

/** How often one request asks for new tokens; a server that refuses them all is not asked for ever. */
const MAX_RENEWALS = 3;
/** How long a response may take. A stop takes longest, because it waits for the agent. */
const ANSWER_MS = 30_000;
/** The roles that see what others don't, as in api/auth.py. */
const STAFF = new Set(["operator", "agent", "service"]);

/** The API refused a request, or could not be reached (`status` 0). `detail` is for people. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The server answered ${status}.`);
    this.status = status;
    this.code = problem.code ?? "unknown";
    /** What became of a question that was answered too late. */
    this.settled = problem.settled ?? null;
    /** What is wrong with the input: `[{at, problem}]`. */
    this.errors = problem.errors ?? [];
  }
}

export class Api {
  #renewing = null;
  #waiting = new Set();

  /**
   * `base` is the API's address, if it isn't the page's. `renew` returns new tokens, or none where only a person can
   * get them; then `onExpired` is called, the tokens that have expired stay noted, and `accept` takes new ones.
   */
  constructor({ base = "", renew = async () => [], onExpired = () => {} } = {}) {
    Object.assign(this, { base, renew, onExpired });
    /** One credential for each role of the person; the first one that allows an action is used. */
    this.people = [];
  }

  get expired() {
    return this.people.some((person) => person.expired);
  }

  get tokens() {
    return this.people.map((person) => person.token);
  }

  /**
   * Takes tokens, those that the server knows; with `known`, only those of a person and role that is here already.
   * Throws the last refusal if there is none, and what is in the way if the server can't say: then nothing has changed.
   *
   * A token of a person and role that is here replaces the old one, and what has not expired stays beside it. Returns
   * whether everybody who was here still is, with the same rights: if not, the page must be made again.
   */
  async accept(tokens, { known = false } = {}) {
    const found = [];
    let refusal = new Refusal(401, { detail: "There is no token." });
    for (const token of new Set(tokens)) {
      try {
        found.push({ token, expired: false, ...(await this.#request("GET", "/me", { token })) });
      } catch (error) {
        refusal = error;
        if (error.status !== 401) throw error;
      }
    }
    const before = this.people;
    const same = (one) => before.find((other) => other.subject === one.subject && other.role === one.role);
    const taken = known ? found.filter(same) : found;
    if (!taken.length) throw refusal;
    const rights = () => before.map((one) => this.people.includes(one) && [one.subject, one.role, one.may, one.sessions].join()).join();
    const had = rights();
    // The same objects: views hold them, and find the new token there.
    const fresh = taken.map((one) => Object.assign(same(one) ?? {}, one));
    const stays = (one) => fresh.includes(one) || !one.expired;
    this.people = [...(taken.some(same) ? before.filter(stays) : []), ...fresh].filter((one, at, all) => all.indexOf(one) === at);
    this.#wake();
    return had === rights();
  }

  /** Forgets all credentials. */
  forget() {
    this.people = [];
    this.#wake();
  }

  #wake() {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  /** Waits until no credential is expired, or until the signal aborts. */
  async renewed(signal) {
    while (this.expired && !signal?.aborted) {
      await new Promise((resolve) => {
        this.#waiting.add(resolve);
        signal?.addEventListener("abort", resolve, { once: true });
      });
    }
  }

  may(action) {
    return this.people.some((person) => person.may.includes(action));
  }

  /** Returns the credential that allows an action (in a session) and for which `fits` holds, or null. */
  person(action, sessionId = null, fits = () => true) {
    return this.people.find((person) => person.may.includes(action) && sees(person, sessionId) && fits(person)) ?? null;
  }

  /** The credential of somebody who sees what is for staff in a session, or null. */
  staff(sessionId) {
    return this.person("read", sessionId, (person) => STAFF.has(person.role));
  }

  /** The credentials that are good in a session. */
  peopleIn(sessionId) {
    return this.people.filter((person) => sees(person, sessionId));
  }

  isMe(id) {
    return this.people.some((person) => person.subject === id);
  }

  /** Calls a route with the credential that allows the `action` there. */
  async call(action, method, path, body, options) {
    return this.as(this.#allowed(action, path), method, path, body, options);
  }

  #allowed(action, path) {
    const sessionId = /^\/sessions\/([^/?]+)/.exec(path)?.[1];
    const person = (action === "read" && sessionId && this.staff(sessionId)) || this.person(action, sessionId);
    if (!person) throw new Refusal(403, { code: "forbidden", detail: `None of your roles may ${action} here.` });
    return person;
  }

  /**
   * Calls a route as this person. If their token has expired and only they can renew it, what reads waits for that
   * (unless `waits` is false); what acts is refused, for nothing should happen long after the click that asked for it.
   */
  as(person, method, path, body, { signal, read, waits = method === "GET" } = {}) {
    return this.#authorized(person, waits, signal, (token) => this.#request(method, path, { token, body, signal, read }));
  }

  get(path, signal, options) {
    return this.call("read", "GET", path, undefined, { signal, ...options });
  }

  /** Returns a route's response unchanged, to be saved as a file. */
  file(person, path) {
    return this.as(person, "GET", path, undefined, { read: (response) => response.blob() });
  }

  async #authorized(person, waits, signal, send) {
    let refusal = new Refusal(401, { code: "unauthenticated", detail: "Your sign-in has ended. Sign in, and do it again." });
    for (let tries = 0; tries <= MAX_RENEWALS; tries += 1) {
      const { token } = person;
      if (!person.expired) {
        try {
          return await send(token);
        } catch (error) {
          if (error.status !== 401) throw error;
          refusal = error;
        }
      }
      const renewed = person.token !== token || (await this.#renew(person, refusal, waits, signal));
      if (!renewed) break;
    }
    throw refusal;
  }

  /** Returns whether this person has got a new token. */
  async #renew(person, refusal, waits, signal) {
    // A request of somebody who has signed out.
    if (!this.people.includes(person)) return false;
    person.expired = true;
    await this.renewNow();
    if (person.expired) {
      this.onExpired(refusal);
      if (waits) await this.renewed(signal);
    }
    return !person.expired && this.people.includes(person) && !signal?.aborted;
  }

  /** Asks for new tokens, once for all who want them at a time. */
  renewNow() {
    this.#renewing ??= this.#askForTokens().finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  async #askForTokens() {
    try {
      const tokens = await this.renew();
      if (tokens.length) await this.accept(tokens, { known: true });
    } catch {
      // A person is asked.
    }
  }

  /**
   * The events of a session after a cursor: calls `onBlock({id, data})` for each block and
   * `onBytes()` for all data, heartbeats included. Returns whether the session has ended.
   */
  stream(sessionId, after, options) {
    const path = `/sessions/${sessionId}/events?after=${after}`;
    return this.events(this.#allowed("read", path), path, options);
  }

  /** The same of any stream, as this person. */
  async events(person, path, { signal, onOpen = () => {}, onBlock, onBytes }) {
    const response = await this.#authorized(person, false, signal, async (token) => {
      const answer = await fetch(this.base + path, { headers: { Authorization: `Bearer ${token}`, Accept: "text/event-stream" }, signal, cache: "no-store" });
      if (!answer.ok) throw new Refusal(answer.status, await problemOf(answer));
      return answer;
    });
    if (response.status === 204) return true;
    onOpen();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const blocks = new BlockReader(onBlock);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return false;
      onBytes();
      blocks.feed(value);
    }
  }

  async #request(method, path, { token, body, signal, read = (response) => response.json() }) {
    const headers = { Authorization: `Bearer ${token}` };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const late = AbortSignal.timeout(ANSWER_MS);
    try {
      const response = await fetch(this.base + path, {
        method, headers, cache: "no-store",
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, late]) : late,
      });
      noteServerTime(response.headers.get("Date"));
      if (!response.ok) throw new Refusal(response.status, await problemOf(response));
      return response.status === 204 ? null : await read(response);
    } catch (error) {
      if (error instanceof Refusal) throw error;
      const detail = late.aborted ? "The server does not answer. Try again: what has arrived is not done twice." : "The server can't be reached. Try again once you are connected.";
      throw new Refusal(0, { code: "unreachable", detail });
    }
  }
}

function sees(person, sessionId) {
  return !sessionId || !person.sessions || person.sessions.includes(sessionId);
}

/** Reads the blocks of an event stream from pieces of text that may end anywhere. */
export class BlockReader {
  constructor(onBlock) {
    this.onBlock = onBlock;
    this.rest = "";
  }

  feed(text) {
    const parts = (this.rest + text).split("\n\n");
    this.rest = parts.pop();
    for (const part of parts) this.#block(part);
  }

  #block(part) {
    let id = null;
    let data = "";
    for (const line of part.split("\n")) {
      if (line.startsWith("id: ")) id = Number(line.slice(4));
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (id !== null || data) this.onBlock({ id, data: data ? JSON.parse(data) : null });
  }
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return {};
  }
}
