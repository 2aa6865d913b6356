/** The API as the console calls it: credentials, requests, and the event stream. */

import { noteServerTime } from "./clock.js";
import { dropDrafts } from "./drafts.js";

const STORED = "waystation.tokens";
const CHANNEL = "waystation.sign-in";
const ASK_OTHER_TABS_MS = 250;
/** How long a response may take. A stop takes longest, because it waits for the agent. */
const ANSWER_MS = 30_000;

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
  /** One credential for each role of the person; the first one that allows an action is used. */
  constructor() {
    this.people = [];
    this.onSignedOut = () => {};
    this.channel = new BroadcastChannel(CHANNEL);
    this.channel.onmessage = ({ data }) => {
      if (data === "who" && this.people.length) this.channel.postMessage(this.#tokens());
      if (data === "out" && this.people.length) {
        dropDrafts();
        this.#forget(null);
      }
    };
  }

  /** Signs in with tokens and keeps the valid ones for this tab. Throws the last refusal if none is valid. */
  async signIn(tokens) {
    const people = [];
    let refusal = null;
    for (const token of new Set(tokens)) {
      try {
        people.push({ token, ...(await request("GET", "/me", { token })) });
      } catch (error) {
        refusal = error;
        // A server that can't be reached has not refused the token.
        if (error.status !== 401) throw error;
      }
    }
    if (!people.length) {
      sessionStorage.removeItem(STORED);
      throw refusal ?? new Refusal(401, { detail: "There is no token." });
    }
    this.people = people;
    sessionStorage.setItem(STORED, JSON.stringify(this.#tokens()));
  }

  #tokens() {
    return this.people.map((person) => person.token);
  }

  /** Forgets every token in all tabs, because a tab that still had one would sign in the next tab. */
  signOut() {
    this.channel.postMessage("out");
    dropDrafts();
    this.#forget(null);
  }

  #forget(refusal) {
    this.people = [];
    sessionStorage.removeItem(STORED);
    this.onSignedOut(refusal);
  }

  /** Returns the tokens of this tab, or else those of another tab of this console. */
  async known() {
    const stored = sessionStorage.getItem(STORED);
    if (stored) return JSON.parse(stored);
    return new Promise((resolve) => {
      const answer = new BroadcastChannel(CHANNEL);
      const finish = (tokens) => {
        answer.close();
        resolve(tokens);
      };
      answer.onmessage = ({ data }) => Array.isArray(data) && finish(data);
      answer.postMessage("who");
      setTimeout(finish, ASK_OTHER_TABS_MS, []);
    });
  }

  may(action) {
    return this.people.some((person) => person.may.includes(action));
  }

  /** Returns the credential that allows an action (in a session) and for which `fits` holds, or null. */
  person(action, sessionId = null, fits = () => true) {
    return this.people.find((person) => person.may.includes(action) && sees(person, sessionId) && fits(person)) ?? null;
  }

  isMe(id) {
    return this.people.some((person) => person.subject === id);
  }

  /** Calls a route with the credential that allows the `action` there. */
  async call(action, method, path, body, signal) {
    const person = this.person(action, /^\/sessions\/([^/?]+)/.exec(path)?.[1]);
    if (!person) throw new Refusal(403, { code: "forbidden", detail: `None of your roles may ${action} here.` });
    return this.as(person, method, path, body, signal);
  }

  async as(person, method, path, body, signal, read) {
    try {
      return await request(method, path, { token: person.token, body, signal, read });
    } catch (error) {
      if (error.status === 401) this.#forget(error);
      throw error;
    }
  }

  get(path, signal) {
    return this.call("read", "GET", path, undefined, signal);
  }

  /** Returns a route's response unchanged, to be saved as a file. */
  file(person, path) {
    return this.as(person, "GET", path, undefined, undefined, (response) => response.blob());
  }

  /**
   * The events of a session after a cursor: calls `onBlock({id, data})` for each block and
   * `onBytes()` for all data, heartbeats included. Returns whether the session has ended.
   */
  async stream(sessionId, after, { signal, onOpen, onBlock, onBytes }) {
    const response = await fetch(`/sessions/${sessionId}/events?after=${after}`, {
      headers: { Authorization: `Bearer ${this.person("read", sessionId)?.token}`, Accept: "text/event-stream" },
      signal,
      cache: "no-store",
    });
    if (response.status === 204) return true;
    if (!response.ok) throw new Refusal(response.status, await problemOf(response));
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

async function request(method, path, { token, body, signal, read = (response) => response.json() }) {
  const headers = { Authorization: `Bearer ${token}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const late = AbortSignal.timeout(ANSWER_MS);
  try {
    const response = await fetch(path, {
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

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return {};
  }
}
