/** A purchase or paid request: the question to whoever decides, all that the digest covers, and what became of it. */

import { Refusal } from "../api.js";
import { h, isolate, messageOf, money, nameOf, pretty, setText, time } from "../dom.js";
import { oneAtATime } from "../view.js";
import { cartStatement, deadlineLine, decisionButtons, decisionText, digestLine, facts, statusPill, termsStatement } from "./card.js";
import { mandateCard } from "./mandate-card.js";
import { drawReasons, followFor } from "./reasons.js";

const REFRESH_MS = 2_000;
const NAMED_ITEMS = 3;

/**
 * @param {{ api: any }} page
 * @param {string} route `purchases` or `payments`
 * @param {string} id
 */
export function show({ api }, route, id) {
  const view = new Decision(api, route, id, { alone: true });
  return { title: id, element: view.element, shown: () => view.start(), stop: () => view.stop() };
}

/**
 * What is to be decided in words: the question, what it is about, and the amount.
 * @param {string} route
 * @param {any} view
 */
export function inWords(route, view) {
  const { cart, request, url, method, offer } = view;
  if (route === "purchases") {
    const lines = cart?.lines.filter((/** @type {any} */ line) => !line.parent_id) ?? request.items;
    const items = lines.slice(0, NAMED_ITEMS).map((/** @type {any} */ line) => `${line.quantity} × ${isolate(line.name ?? line.item_id ?? line.id)}`);
    if (lines.length > NAMED_ITEMS) items.push(`${lines.length - NAMED_ITEMS} more`);
    const { first_name: first, last_name: last } = request.buyer ?? {};
    return { whom: hostOf(request.seller), amount: cart ? money(cart.total, cart.currency) : "", what: items.join(", "), reader: isolate([first, last].filter(Boolean).join(" ")), agent: nameOf(request.agent) };
  }
  return { whom: hostOf(url), amount: offer ? money(offer.price.amount, offer.price.currency) : "", what: `${method} ${isolate(url)}`, reader: "", agent: isolate(view.agent ?? "") };
}

/** @param {string} url */
function hostOf(url) {
  return isolate(url.replace(/^https?:\/\//, "").split("/")[0]);
}

export class Decision {
  /**
   * @param {any} api
   * @param {string} route
   * @param {string} id
   * @param {{ alone?: boolean, onDone?: (words: string) => void }} [options] `alone`: with mandate and audit trail.
   */
  constructor(api, route, id, { alone = false, onDone = () => {} } = {}) {
    this.api = api;
    this.route = route;
    this.id = id;
    this.alone = alone;
    this.onDone = onDone;
    this.reader = api.person("approve") ?? api.person("read");
    this.path = `/${route}/${id}`;
    this.body = h("div", { class: "decision" }, h("p", { class: "quiet-text" }, "Loading …"));
    this.live = h("p", { class: "visually-hidden", role: "status" });
    this.trouble = h("p", { class: "problem", role: "status", hidden: true });
    this.leaves = h("span", {});
    this.reasons = h("div", { class: "reasons", hidden: true });
    this.aside = h("div", {});
    this.element = h("div", {}, this.trouble, this.body, this.live);
    /** @type {any} */
    this.view = null;
    /** @type {any} */
    this.follow = null;
    /** @type {{ digest: string, element: HTMLElement } | null} */
    this.buttons = null;
    this.notice = "";
    /** Whether the mandate is nobody's business here. */
    this.hidden = false;
    this.shown = false;
    // A step may happen during a reading.
    this.refresh = oneAtATime(() => this.#read(), () => this.stopped);
    this.stopped = false;
  }

  start() {
    this.refresh();
    // The session announces every step immediately. This is for purchases without one, and when it can't be reached.
    this.timer = setInterval(() => document.hidden || this.view?.final || this.refresh(), REFRESH_MS);
  }

  stop() {
    this.stopped = true;
    clearInterval(this.timer);
    this.follow?.stop();
  }

  async #read() {
    try {
      const view = await this.api.as(this.reader, "GET", this.path);
      const fresh = this.view?.updated_at !== view.updated_at;
      // What is left of the mandate changes with every other payment from it.
      const mandate = fresh || this.#waits(view) ? await this.#mandate(view) : null;
      const audit = fresh && this.alone ? await this.api.as(this.reader, "GET", `${this.path}/audit`) : null;
      if (this.stopped) return;
      if (fresh) {
        Object.assign(this, { view, shown: true });
        this.#draw(view, mandate, audit);
      }
      if (fresh || this.#waits(view)) this.#drawMandate(view, mandate);
      this.#followSession(sessionOf(view));
      this.trouble.hidden = true;
    } catch (error) {
      const { message } = /** @type {Error} */ (error);
      if (!this.view && !this.shown) this.body.replaceChildren(h(this.alone ? "h1" : "h2", {}, "Not available"), h("p", { class: "problem" }, message), h("p", {}, h("a", { href: "#/" }, "Back to the start")));
      else {
        setText(this.trouble, `This may be out of date. ${message}`);
        this.trouble.hidden = false;
        setText(this.leaves, "");
      }
    }
  }

  /** @param {any} view */
  #waits(view) {
    return view.status === "awaiting_approval";
  }

  /** @param {string | null} sessionId */
  #followSession(sessionId) {
    if (!sessionId || this.follow || !this.api.person("read", sessionId)) return;
    let seen = 0;
    this.follow = followFor(this.api, sessionId, (model) => {
      const { seq = 0, at = Infinity } = model.items.get(`card:${this.id}`) ?? {};
      drawReasons(this.reasons, model, this.view?.request?.turn_id ?? this.view?.turn_id, at);
      if (seq > seen) this.refresh();
      seen = Math.max(seen, seq);
    });
  }

  /**
   * Returns the mandate if one of the person's roles may see it, else null.
   * @param {any} view
   */
  async #mandate(view) {
    const id = view.request?.mandate_id ?? view.mandate_id;
    if (!id || this.hidden) return null;
    for (const person of this.api.people) {
      try {
        return await this.api.as(person, "GET", `/mandates/${id}`);
      } catch (error) {
        if (!(error instanceof Refusal && [403, 404].includes(error.status))) throw error;
      }
    }
    this.hidden = true;
    return null;
  }

  /**
   * What the mandate has left is said only of one that holds the amount already: then the server's number is what stays.
   * @param {any} view
   * @param {any} mandate
   */
  #drawMandate(view, mandate) {
    const amount = view.cart?.total ?? view.offer?.price.amount;
    const holds = mandate?.reservations.some((/** @type {any} */ one) => one.holder === this.id && one.state === "held" && one.amount === amount);
    setText(this.leaves, this.#waits(view) && holds ? ` Leaves ${money(mandate.left.amount, mandate.left.currency)}.` : "");
    if (!this.alone) return;
    const now = JSON.stringify(mandate);
    if (this.aside.dataset.shows === now) return;
    this.aside.dataset.shows = now;
    this.aside.replaceChildren(mandate ? mandateCard(mandate) : h("p", { class: "quiet-text" }, "Only the mandate's owner and named approvers can see it."));
  }

  /**
   * @param {any} view
   * @param {any} mandate
   * @param {any} audit
   */
  #draw(view, mandate, audit) {
    const waits = this.#waits(view);
    const digest = view.digest ?? view.terms_digest;
    const session = sessionOf(view);
    const { whom, amount, what, reader, agent } = inWords(this.route, view);
    const who = ` for ${reader}`;
    const approver = this.#approver(view);
    setText(this.live, `Status: ${view.status.replaceAll("_", " ")}`);
    const card = h("section", { class: "card", "aria-label": "What is bought" },
      this.reasons,
      ...(this.route === "purchases" ? purchaseFacts(view) : [termsStatement({ ...view.offer, url: view.url, method: view.method, body: view.body_sha256 })]),
      h("details", { class: "fold" }, h("summary", {}, "Where it comes from"),
        facts([
          ["Agent", agent], ["Session", session && h("a", { href: `#/sessions/${session}` }, session)], ["Mandate", view.request?.mandate_id ?? view.mandate_id],
          [this.route === "purchases" ? "Purchase" : "Paid request", h("a", { href: `#${this.path}` }, this.id)],
        ]),
        digest ? digestLine(digest) : null),
      waits && view.approval_deadline ? deadlineLine(view.approval_deadline) : null,
      this.notice ? h("p", { class: "problem", role: "alert" }, this.notice) : null,
      ...outcome(view),
      waits && approver ? this.#decideElement(digest, amount, approver, whom) : null,
      waits && !approver ? h("p", { class: "quiet-text" }, this.#whoDecides(view)) : null);
    this.body.replaceChildren(
      h("header", { class: "head" }, h(this.alone ? "h1" : "h2", { tabindex: "-1" }, waits ? `Pay ${amount} to ${whom}?` : amount ? `${amount} to ${whom}` : whom), statusPill(view.status)),
      h("p", { class: "in-short" }, `${what}${reader ? `,${who}` : ""}, via ${agent}.`, this.leaves),
      this.alone ? h("div", { class: "columns" }, card, this.aside) : card,
      ...(audit ? [trail(audit, () => this.#save())] : []));
  }

  /**
   * The credential that may decide: whom the mandate names, or any approver.
   * @param {any} view
   */
  #approver({ approvers = [] }) {
    return this.api.person("approve", null, (/** @type {any} */ one) => !approvers.length || approvers.includes(one.subject));
  }

  /** @param {any} view */
  #whoDecides({ approvers = [] }) {
    if (!this.api.may("approve") || !approvers.length) return "Only approvers can decide.";
    return `Only ${approvers.map(isolate).join(" or ")} can decide.`;
  }

  /**
   * They stay while the same is asked, with the reason that somebody writes.
   * @param {string} digest
   * @param {string} amount
   * @param {any} approver
   * @param {string} whom
   */
  #decideElement(digest, amount, approver, whom) {
    if (this.buttons?.digest !== digest) {
      const decide = (/** @type {string} */ verb, /** @type {any} */ body) => this.#decide(verb, body, approver, `${amount} to ${whom}`);
      this.buttons = { digest, element: decisionButtons(digest, amount, decide) };
    }
    return this.buttons.element;
  }

  /** Saves the trail exactly as the server sent it: written again, numbers and so the hashes could differ. */
  async #save() {
    try {
      const url = URL.createObjectURL(await this.api.file(this.reader, `${this.path}/audit`));
      h("a", { href: url, download: `${this.id}-audit.json` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1_000);
    } catch (error) {
      setText(this.trouble, `The audit trail was not saved. ${messageOf(error)}`);
      this.trouble.hidden = false;
    }
  }

  /**
   * @param {string} verb
   * @param {any} body
   * @param {any} approver
   * @param {string} what
   */
  async #decide(verb, body, approver, what) {
    this.notice = "";
    try {
      await this.api.as(approver, "POST", `${this.path}/${verb}`, body);
      this.onDone(`${verb === "approve" ? "Approved" : "Rejected"}: ${what}`);
    } catch (error) {
      this.notice = messageOf(error);
      this.buttons = null;
    }
    if (this.stopped) return;
    // Shows the current state immediately, even if somebody else decided first.
    this.view = null;
    await this.refresh();
  }
}

/** @param {any} view */
function sessionOf(view) {
  return view.request?.session_id ?? view.session_id ?? null;
}

/** @param {any} view */
function purchaseFacts({ cart, request, messages }) {
  if (!cart) return [facts([["Seller", request.seller]]), h("p", { class: "quiet-text" }, "The seller has not stated a cart yet.")];
  return [...cartStatement(cart), ...messages.map((/** @type {any} */ message) => h("p", { class: "quiet-text" }, message.text))];
}

/** @param {any} view */
function outcome(view) {
  const { approval, approved_by: approver, refusal, receipt, order, money_moved: moved } = view;
  const lines = [];
  if (approval) lines.push(decisionText(/** @type {any} */ ({ outcome: "granted", by: approval.approver, auto: approval.auto, time: approval.at })));
  else if (approver) lines.push(`Approved by ${isolate(approver)}`);
  if (receipt?.paid_at) lines.push(`Paid ${money(receipt.amount, receipt.currency)} at ${time(receipt.paid_at)}`);
  if (order) lines.push(`Order ${isolate(order.number ?? order.id)}${order.status ? `, ${order.status}` : ""}`);
  if (moved === true && !receipt) lines.push("Money has moved, but there is no order yet.");
  if (typeof moved === "string" && moved !== "no") lines.push(moved === "yes" ? "Money has moved." : "Nobody can say yet whether money has moved.");
  return [...lines.map((line) => h("p", { class: "outcome" }, line)), refusal ? h("p", { class: "problem" }, refusal.message) : null];
}

/**
 * @param {any} audit
 * @param {() => void} save
 */
function trail(audit, save) {
  const whole = audit.entries.every((/** @type {any} */ entry, /** @type {number} */ index) => index === 0 || entry.previous === audit.entries[index - 1].hash);
  return h("section", { class: "trail", "aria-label": "Audit trail" },
    h("header", {}, h("h2", {}, "Audit trail"), h("button", { type: "button", onclick: save }, "Download as JSON")),
    h("p", { class: whole ? "quiet-text" : "problem" }, whole ? "Each entry has the hash of the one before." : "The chain of hashes is broken."),
    h("ol", {}, ...audit.entries.map((/** @type {any} */ entry) => h("li", {},
      h("details", { class: "fold" },
        h("summary", {}, h("time", { datetime: entry.time }, time(entry.time)), " ", h("b", {}, entry.action), " ", h("span", { class: "quiet-text" }, entry.actor)),
        h("pre", { tabindex: "0", "aria-label": entry.action }, pretty({ ...entry.detail, hash: entry.hash }))))),
      ...(audit.repeated ?? []).map((/** @type {any} */ again) => h("li", { class: "quiet-text" }, `${again.action} ${again.actor}: the same ${again.count} times since ${time(again.first)}, last at ${time(again.last)}`))));
}
