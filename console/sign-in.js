/**
 * Signing in: with the tokens of the address, of this tab or of another one; what is shown until the server has
 * answered, where there is no token, and over the page when one has expired.
 */

import { Refusal } from "./api.js";
import { dropDrafts } from "./drafts.js";
import { h, messageOf, setText, setTitle } from "./dom.js";

const STORED = "waystation.tokens";
/** Tokens of which the server has not said yet whether it knows them. */
const ARRIVING = "waystation.arriving";
const CHANNEL = "waystation.sign-in";
const ICON = new URL("icon.svg", import.meta.url).href;
const ASK_OTHER_TABS_MS = 250;
const MIN_PAUSE_MS = 1_000;
const MAX_PAUSE_MS = 15_000;
const UNKNOWN = "This token is unknown or has expired. Ask for a new one.";

export class SignIn {
  /**
   * `show` shows an element in place of the page, `onDone(same)` the page: the one that is there if `same`.
   * @param {import("./api.js").Api} api
   * @param {{ show: (element: HTMLElement) => void, onDone: (same: boolean) => void }} page
   */
  constructor(api, { show, onDone }) {
    this.api = api;
    this.show = show;
    this.onDone = onDone;
    /** Called when the dialog has been closed. */
    this.onAsked = () => {};
    this.attempt = 0;
    /** Whether other tabs were asked for their tokens and no answer has come: a busy one may answer yet. */
    this.unanswered = false;
    this.wake = () => {};
    /** @type {HTMLDialogElement | null} */
    this.dialog = null;
    api.renew = () => this.#ofOtherTabs();
    api.onExpired = () => this.ask();
    this.channel = new BroadcastChannel(CHANNEL);
    this.channel.onmessage = ({ data }) => this.#onMessage(data);
    addEventListener("online", () => this.wake());
  }

  /** Signs in with what this tab was given and has not tried, with what it has, or with what another tab has. */
  async begin() {
    const kept = sessionStorage.getItem(ARRIVING) ?? sessionStorage.getItem(STORED);
    const tokens = kept ? JSON.parse(kept) : await this.#ofOtherTabs();
    if (tokens.length) return this.enter(tokens);
    this.unanswered = true;
    return this.showForm();
  }

  /**
   * Signs in with these tokens. Until the server has said yes or no they are kept, and it is asked again.
   * @param {string[]} tokens
   */
  async enter(tokens) {
    const attempt = ++this.attempt;
    this.unanswered = false;
    sessionStorage.setItem(ARRIVING, JSON.stringify(tokens));
    for (let pause = MIN_PAUSE_MS; ; pause = Math.min(2 * pause, MAX_PAUSE_MS)) {
      try {
        const same = await this.api.accept(tokens);
        if (attempt === this.attempt) this.#settle(same);
        return;
      } catch (error) {
        if (attempt !== this.attempt) return;
        if (!isPassing(error)) {
          sessionStorage.removeItem(ARRIVING);
          if (!this.api.people.length) sessionStorage.removeItem(STORED);
          return this.showForm(error);
        }
        await this.#wait(error, pause);
        if (attempt !== this.attempt) return;
      }
    }
  }

  /** Forgets every token in all tabs, because a tab that still had one would sign in the next tab. */
  leave() {
    this.channel.postMessage("out");
    this.#forget();
  }

  /** @param {boolean} same */
  #settle(same) {
    sessionStorage.removeItem(ARRIVING);
    sessionStorage.setItem(STORED, JSON.stringify(this.api.tokens));
    this.dialog?.close();
    this.channel.postMessage({ renewed: this.api.tokens });
    this.onDone(same);
  }

  #forget() {
    this.attempt += 1;
    this.api.forget();
    this.dialog?.close();
    sessionStorage.removeItem(ARRIVING);
    sessionStorage.removeItem(STORED);
    dropDrafts();
    this.showForm();
  }

  // Other tabs, and pages of the deployment's own on this origin

  /** @param {unknown} data */
  async #onMessage(data) {
    const { api } = this;
    const good = api.people.filter((person) => !person.expired).map((person) => person.token);
    if (data === "who" && good.length) this.channel.postMessage(good);
    const field = document.getElementById("token");
    if (Array.isArray(data) && data.length && this.unanswered && !(field instanceof HTMLInputElement && field.value)) this.enter(data);
    if (data === "out" && (api.people.length || sessionStorage.getItem(ARRIVING))) this.#forget();
    const renewed = typeof data === "object" && data && "renewed" in data ? data.renewed : null;
    if (!Array.isArray(renewed) || !api.expired) return;
    try {
      this.#settle(await api.accept(renewed, { known: true }));
    } catch {
      // They are somebody else's, or no good.
    }
  }

  /** @returns {Promise<string[]>} */
  #ofOtherTabs() {
    return new Promise((resolve) => {
      const answer = new BroadcastChannel(CHANNEL);
      const finish = (/** @type {string[]} */ tokens) => {
        answer.close();
        resolve(tokens);
      };
      answer.onmessage = ({ data }) => Array.isArray(data) && finish(data);
      answer.postMessage("who");
      setTimeout(finish, ASK_OTHER_TABS_MS, []);
    });
  }

  // What a person sees

  /**
   * Says that the server can't be asked yet, and waits: that long, until there is a network, or until told to.
   * @param {unknown} error
   * @param {number} milliseconds
   */
  #wait(error, milliseconds) {
    const again = h("button", { type: "button", onclick: () => this.wake() }, "Try now");
    const seconds = Math.round(milliseconds / 1000);
    setTitle("Signing in");
    this.show(h("div", { class: "sign-in" }, logo(), h("h1", {}, "Signing in …"),
      h("p", { role: "status" }, `${firstSentence(messageOf(error))} Your sign-in is kept; trying again in ${seconds} s.`), again));
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.wake = () => {
        clearTimeout(timer);
        resolve(null);
      };
    });
  }

  /** @param {unknown} [error] */
  showForm(error = null) {
    const field = tokenField();
    const form = h("form", { class: "sign-in", onsubmit: (event) => {
        event.preventDefault();
        this.enter([field.value.trim()]);
      } },
      logo(),
      h("h1", {}, "Waystation"),
      h("p", {}, "Open the address you were given, or enter a token. ", h("code", {}, "waystation dev"), " prints an address that signs you in."),
      h("label", { for: "token" }, "Token"),
      field,
      error !== null && h("p", { class: "problem", role: "alert" }, wordsOf(error)),
      h("button", { class: "primary", type: "submit" }, "Sign in"));
    setTitle("Sign in");
    this.show(form);
    field.focus();
  }

  /** Asks for a new token over the page, which stays as it is. */
  ask() {
    if (this.dialog) return;
    const field = tokenField();
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const submit = h("button", { class: "primary", type: "submit" }, "Sign in");
    const dialog = h("dialog", { class: "expired", "aria-label": "Your sign-in has ended", onclose: () => {
      dialog.remove();
      this.dialog = null;
      this.onAsked();
    } });
    const form = h("form", { class: "sign-in", onsubmit: async (event) => {
        event.preventDefault();
        submit.disabled = true;
        try {
          this.#settle(await this.api.accept([field.value.trim()]));
        } catch (error) {
          setText(problem, wordsOf(error));
          problem.hidden = false;
        } finally {
          submit.disabled = false;
        }
      } },
      h("h2", {}, "Your sign-in has ended"),
      h("p", {}, "What you have written is kept. Open the address you were given once more, in any tab, or enter a new token."),
      h("label", { for: "token" }, "Token"), field, problem, submit,
      h("button", { type: "button", onclick: () => dialog.close() }, "Keep reading"),
      h("button", { type: "button", class: "quiet", onclick: () => this.leave() }, "Sign out"));
    this.dialog = dialog;
    dialog.append(form);
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  }
}

/** @param {unknown} error */
function wordsOf(error) {
  return error instanceof Refusal && error.status === 401 ? UNKNOWN : messageOf(error);
}

/**
 * Whether asking again may help: the server has not said that it doesn't know the tokens.
 * @param {unknown} error
 */
function isPassing(error) {
  return error instanceof Refusal && (error.status === 0 || error.status === 408 || error.status === 429 || error.status >= 500);
}

/** @param {string} words */
function firstSentence(words) {
  return words.replace(/(?<=[.!?]) .*/s, "");
}

function tokenField() {
  return h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true });
}

function logo() {
  return h("img", { src: ICON, alt: "", width: "48", height: "48" });
}
