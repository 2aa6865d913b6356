/** The API as a page calls it: credentials and their renewal, requests, and the event stream. */

import { noteServerTime } from "./clock.js";

/**
 * @typedef {import("./transcript.js").Actor} Actor
 * @typedef {{ subject: string, role: string, name: string | null, may: string[], sessions: string[] | null, expires_at: number | null }} Me
 * @typedef {Me & { token: string, expired: boolean }} Person A credential, and what it is good for.
 * @typedef {{ at: string, problem: string }} Fault
 * @typedef {{ detail?: string, code?: string, settled?: { outcome: string, value?: unknown }, errors?: Fault[] }} Problem
 */

/**
 * @typedef {{ turn_id: string, agent: string, status: string, message_id?: string | null }} TurnView
 * @typedef {{ session_id: string, agent: string, status: string, tip: number, title?: string | null, running: TurnView[], queued: TurnView[], participants: Actor[],
 *   taken_over_by?: Actor | null, assigned_to?: Actor | null, questions: unknown[] }} Snapshot
 * @typedef {{ events: import("./transcript.js").SessionEvent[], next_after: number, tip: number, more: boolean }} Replay
 * @typedef {{ name: string, processes: number | null, workflows: number, last_seen?: string | null, starters?: string[] }} Agent
 * @typedef {{ session_id: string, turn_id?: string | null, agent: string, seq: number, asked: import("./transcript.js").Asked, outcome?: object | null }} QuestionView
 * @typedef {{ roles: string[], people: Actor[] }} Awaited
 * @typedef {{ session_id: string, agent?: string | null, title?: string | null, open: boolean, started: string, status?: string | null, waits_for?: string | null, awaited?: Awaited | null,
 *   people?: Actor[], people_count?: number, taken_over_by?: Actor | null, assigned_to?: Actor | null, last_line?: { text: string, actor: Actor } | null, last_activity?: string | null,
 *   snapshot?: Snapshot | null }} ListedSession
 * @typedef {{ sessions: ListedSession[], next_cursor: string | null, count?: number | null }} SessionList
 */

/**
 * What routes answer, by their paths: docs/http-api.md has them.
 * @template {string} P
 * @typedef {P extends "/me" ? Me
 *   : P extends "/agents" ? { agents: Agent[] }
 *   : P extends "/sessions" ? { session_id: string }
 *   : P extends "/mandates" ? { mandate_id: string }
 *   : P extends "/push" ? { public_key: string | null }
 *   : P extends "/dev/places" ? { places: Record<string, string> }
 *   : P extends `/sessions?${string}` ? SessionList
 *   : P extends `/sessions/${string}/replay?${string}` ? Replay
 *   : P extends `/sessions/${string}/messages` ? { status: "started" | "queued" | "steered" | "recorded", seq: number }
 *   : P extends `/sessions/${string}/stop` ? { outcome: string }
 *   : P extends `/sessions/${string}/agent` ? Agent
 *   : P extends `/sessions/${string}/tokens` ? { token: string, expires_at: number }
 *   : P extends `/sessions/${string}/workflow` ? { workflow_id: string, workflows_url: string | null }
 *   : P extends `/sessions/${string}/questions/${string}/answer` ? { seq: number }
 *   : P extends `/sessions/${string}/questions/${string}` ? QuestionView
 *   : P extends `/sessions/${string}/${string}` ? { seq: number }
 *   : P extends `/sessions/${string}` ? Snapshot
 *   : unknown} Answer
 */

/**
 * @template T
 * @typedef {{ id: number | null, data: T | null }} Block of an event stream
 */

/**
 * @template T
 * @typedef {{ signal?: AbortSignal, onOpen?: () => void, onBlock: (block: Block<T>) => void, onBytes: () => void }} Streaming
 */

/**
 * @typedef {{ type: "presence", data: { people: Present[] } }} Presence
 * @typedef {Actor & { connections: number }} Present
 * @typedef {import("./transcript.js").SessionEvent | import("./transcript.js").Delta | Presence} Wire What a session's stream carries.
 */

/** How often one request asks for new tokens; a server that refuses them all is not asked for ever. */
const MAX_RENEWALS = 3;
/** How long a response may take. A stop takes longest, because it waits for the agent. */
const ANSWER_MS = 30_000;
/** The roles that see what others don't, as in api/auth.py. */
const STAFF = new Set(["operator", "agent", "service"]);

/** The API refused a request, or could not be reached (`status` 0). `detail` is for people. */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {Problem} problem
   */
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
  /** @type {Promise<void> | null} */
  #renewing = null;
  /** @type {Set<() => void>} */
  #waiting = new Set();

  /**
   * `base` is the API's address, if it isn't the page's. `renew` returns new tokens, or none where only a person can
   * get them; then `onExpired` is called, the tokens that have expired stay noted, and `accept` takes new ones.
   * @param {{ base?: string, renew?: () => Promise<string[]>, onExpired?: (refusal: Refusal) => void }} [options]
   */
  constructor({ base = "", renew = async () => [], onExpired = () => {} } = {}) {
    this.base = base;
    this.renew = renew;
    this.onExpired = onExpired;
    /** One credential for each role of the person; the first one that allows an action is used. @type {Person[]} */
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
   * @param {string[]} tokens
   * @param {{ known?: boolean }} [options]
   */
  async accept(tokens, { known = false } = {}) {
    /** @type {Person[]} */
    const found = [];
    let refusal = new Refusal(401, { detail: "There is no token." });
    for (const token of new Set(tokens)) {
      try {
        /** @type {Me} */
        const me = await this.#request("GET", "/me", { token, read: json });
        found.push({ token, expired: false, ...me });
      } catch (error) {
        if (!isUnauthenticated(error)) throw error;
        refusal = error;
      }
    }
    const before = this.people;
    const same = (/** @type {Person} */ one) => before.find((other) => other.subject === one.subject && other.role === one.role);
    const taken = known ? found.filter(same) : found;
    if (!taken.length) throw refusal;
    const rights = () => before.map((one) => this.people.includes(one) && [one.subject, one.role, one.may, one.sessions].join()).join();
    const had = rights();
    // The same objects: views hold them, and find the new token there.
    const fresh = taken.map((one) => Object.assign(same(one) ?? {}, one));
    const stays = (/** @type {Person} */ one) => fresh.includes(one) || !one.expired;
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

  /**
   * Waits until no credential is expired, or until the signal aborts.
   * @param {AbortSignal} [signal]
   */
  async renewed(signal) {
    while (this.expired && !signal?.aborted) {
      await new Promise((resolve) => {
        const wake = () => resolve(null);
        this.#waiting.add(wake);
        signal?.addEventListener("abort", wake, { once: true });
      });
    }
  }

  /** @param {string} action */
  may(action) {
    return this.people.some((person) => person.may.includes(action));
  }

  /**
   * Returns the credential that allows an action (in a session) and for which `fits` holds, or null.
   * @param {string} action
   * @param {string | null} [sessionId]
   * @param {(person: Person) => boolean} [fits]
   */
  person(action, sessionId = null, fits = () => true) {
    return this.people.find((person) => person.may.includes(action) && sees(person, sessionId) && fits(person)) ?? null;
  }

  /**
   * The credential of somebody who sees what is for staff in a session, or null.
   * @param {string} sessionId
   */
  staff(sessionId) {
    return this.person("read", sessionId, (person) => STAFF.has(person.role));
  }

  /**
   * The credentials that are good in a session.
   * @param {string} sessionId
   */
  peopleIn(sessionId) {
    return this.people.filter((person) => sees(person, sessionId));
  }

  /** @param {string} id */
  isMe(id) {
    return this.people.some((person) => person.subject === id);
  }

  /**
   * Calls a route with the credential that allows the `action` there.
   * @template {string} P
   * @param {string} action
   * @param {string} method
   * @param {P} path
   * @param {unknown} [body]
   * @param {{ signal?: AbortSignal, waits?: boolean }} [options]
   */
  async call(action, method, path, body, options) {
    return this.as(this.#allowed(action, path), method, path, body, options);
  }

  /**
   * @param {string} action
   * @param {string} path
   */
  #allowed(action, path) {
    const sessionId = /^\/sessions\/([^/?]+)/.exec(path)?.[1];
    const person = (action === "read" && sessionId && this.staff(sessionId)) || this.person(action, sessionId);
    if (!person) throw new Refusal(403, { code: "forbidden", detail: `None of your roles may ${action} here.` });
    return person;
  }

  /**
   * Calls a route as this person. If their token has expired and only they can renew it, what reads waits for that
   * (unless `waits` is false); what acts is refused, for nothing should happen long after the click that asked for it.
   * @template {string} P
   * @param {Person} person
   * @param {string} method
   * @param {P} path
   * @param {unknown} [body]
   * @param {{ signal?: AbortSignal, waits?: boolean }} [options]
   * @returns {Promise<Answer<P>>}
   */
  as(person, method, path, body, { signal, waits = method === "GET" } = {}) {
    return this.#authorized(person, waits, signal, (token) => this.#request(method, path, { token, body, signal, read: json }));
  }

  /**
   * @template {string} P
   * @param {P} path
   * @param {AbortSignal} [signal]
   * @param {{ waits?: boolean }} [options]
   */
  get(path, signal, options) {
    return this.call("read", "GET", path, undefined, { signal, ...options });
  }

  /**
   * Returns a route's response unchanged, to be saved as a file.
   * @param {Person} person
   * @param {string} path
   */
  file(person, path) {
    return this.#authorized(person, true, undefined, (token) => this.#request("GET", path, { token, read: (response) => response.blob() }));
  }

  /**
   * @template R
   * @param {Person} person
   * @param {boolean} waits
   * @param {AbortSignal | undefined} signal
   * @param {(token: string) => Promise<R>} send
   */
  async #authorized(person, waits, signal, send) {
    let refusal = new Refusal(401, { code: "unauthenticated", detail: "Your sign-in has ended. Sign in, and do it again." });
    for (let tries = 0; tries <= MAX_RENEWALS; tries += 1) {
      const { token } = person;
      if (!person.expired) {
        try {
          return await send(token);
        } catch (error) {
          if (!isUnauthenticated(error)) throw error;
          refusal = error;
        }
      }
      const renewed = person.token !== token || (await this.#renew(person, refusal, waits, signal));
      if (!renewed) break;
    }
    throw refusal;
  }

  /**
   * Returns whether this person has got a new token.
   * @param {Person} person
   * @param {Refusal} refusal
   * @param {boolean} waits
   * @param {AbortSignal | undefined} signal
   */
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
   * @param {string} sessionId
   * @param {number} after
   * @param {Streaming<Wire>} options
   */
  stream(sessionId, after, options) {
    const path = `/sessions/${sessionId}/events?after=${after}`;
    return this.events(this.#allowed("read", path), path, options);
  }

  /**
   * The same of any stream, as this person.
   * @template T
   * @param {Person} person
   * @param {string} path
   * @param {Streaming<T>} options
   */
  async events(person, path, { signal, onOpen = () => {}, onBlock, onBytes }) {
    const response = await this.#authorized(person, false, signal, async (token) => {
      const answer = await fetch(this.base + path, { headers: { Authorization: `Bearer ${token}`, Accept: "text/event-stream" }, signal, cache: "no-store" });
      if (!answer.ok) throw new Refusal(answer.status, await problemOf(answer));
      return answer;
    });
    if (response.status === 204 || !response.body) return true;
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

  /**
   * @template R
   * @param {string} method
   * @param {string} path
   * @param {{ token: string, body?: unknown, signal?: AbortSignal, read: (response: Response) => Promise<R> }} options
   */
  async #request(method, path, { token, body, signal, read }) {
    /** @type {Record<string, string>} */
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
      return await read(response);
    } catch (error) {
      if (error instanceof Refusal) throw error;
      const detail = late.aborted ? "The server does not answer. Try again: what has arrived is not done twice." : "The server can't be reached. Try again once you are connected.";
      throw new Refusal(0, { code: "unreachable", detail });
    }
  }
}

/** @param {Response} response */
async function json(response) {
  return response.status === 204 ? null : response.json();
}

/**
 * @param {unknown} error
 * @returns {error is Refusal}
 */
function isUnauthenticated(error) {
  return error instanceof Refusal && error.status === 401;
}

/**
 * @param {Person} person
 * @param {string | null | undefined} sessionId
 */
function sees(person, sessionId) {
  return !sessionId || !person.sessions || person.sessions.includes(sessionId);
}

/**
 * Reads the blocks of an event stream from pieces of text that may end anywhere.
 * @template T
 */
export class BlockReader {
  /** @param {(block: Block<T>) => void} onBlock */
  constructor(onBlock) {
    this.onBlock = onBlock;
    this.rest = "";
  }

  /** @param {string} text */
  feed(text) {
    const parts = (this.rest + text).split("\n\n");
    this.rest = parts.pop() ?? "";
    for (const part of parts) this.#block(part);
  }

  /** @param {string} part */
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

/**
 * @param {Response} response
 * @returns {Promise<Problem>}
 */
async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return {};
  }
}
