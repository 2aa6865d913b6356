/** One purchase or paid request: what is to be approved, what is left of the mandate, and the audit trail. */

import { dateTime, h, isolate, money, nameOf, pretty, setText, time } from "../dom.js";
import { Follow } from "../follow.js";
import { SessionModel } from "../model.js";
import { cartStatement, deadlineLine, decisionButtons, decisionText, digestLine, facts, statusPill, termsStatement } from "./card.js";

const REFRESH_MS = 2_000;

export function show({ api }, route, id) {
  const view = new DecisionView(api, route, id);
  return { title: id, element: view.element, shown: () => view.start(), stop: () => view.stop() };
}

class DecisionView {
  constructor(api, route, id) {
    Object.assign(this, { api, route, id });
    this.reader = api.person("approve") ?? api.person("read");
    this.path = `/${route}/${id}`;
    this.body = h("div", { class: "decision" }, h("p", { class: "quiet-text" }, "Loading …"));
    this.live = h("p", { class: "visually-hidden", role: "status" });
    this.trouble = h("p", { class: "problem", role: "status", hidden: true });
    this.element = h("div", {}, this.trouble, this.body, this.live);
  }

  start() {
    this.#refresh();
    // The session announces every step immediately. This is for purchases without one, and when it can't be reached.
    this.timer = setInterval(() => document.hidden || this.view?.final || this.#refresh(), REFRESH_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.follow?.stop();
  }

  async #refresh() {
    // If a step happens during a read, everything is read once more.
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = true;
    try {
      const view = await this.api.as(this.reader, "GET", this.path);
      if (this.view?.updated_at !== view.updated_at) {
        const [mandate, audit] = await Promise.all([this.#mandate(view), this.api.as(this.reader, "GET", `${this.path}/audit`)]);
        Object.assign(this, { view, shown: true });
        this.#draw(view, mandate, audit);
      }
      this.#followSession(view.request?.session_id);
      this.trouble.hidden = true;
    } catch (error) {
      if (!this.view && !this.shown) this.body.replaceChildren(h("h1", {}, "Not available"), h("p", { class: "problem" }, error.message), h("p", {}, h("a", { href: "#/" }, "Back to the start")));
      else {
        setText(this.trouble, `This may be out of date. ${error.message}`);
        this.trouble.hidden = false;
      }
    } finally {
      this.loading = false;
      if (this.again) {
        this.again = false;
        this.#refresh();
      }
    }
  }

  #followSession(sessionId) {
    if (!sessionId || this.follow || !this.api.person("read", sessionId)) return;
    const model = new SessionModel();
    let seen = 0;
    const onChange = () => {
      const seq = model.items.get(`card:${this.id}`)?.seq ?? 0;
      if (seq > seen) this.#refresh();
      seen = Math.max(seen, seq);
    };
    this.follow = new Follow(this.api, sessionId, model, { onState: () => {}, onChange, onPresence: () => {}, whole: false });
    this.follow.start();
  }

  /** Returns the mandate if one of the person's roles may see it, else null. */
  async #mandate(view) {
    const id = view.request?.mandate_id;
    if (!id) return null;
    for (const person of this.api.people) {
      try {
        return await this.api.as(person, "GET", `/mandates/${id}`);
      } catch (error) {
        if (![403, 404].includes(error.status)) throw error;
      }
    }
    return null;
  }

  #draw(view, mandate, audit) {
    const waits = view.status === "awaiting_approval";
    const digest = view.digest ?? view.terms_digest;
    const session = view.request?.session_id;
    setText(this.live, `Status: ${view.status.replaceAll("_", " ")}`);
    this.body.replaceChildren(
      h("header", { class: "head" }, h("h1", {}, this.route === "purchases" ? "Purchase" : "Paid request"), statusPill(view.status)),
      h("p", { class: "quiet-text" }, h("code", {}, this.id), session ? [" in ", h("a", { href: `#/sessions/${session}` }, "its session")] : null),
      h("div", { class: "columns" },
        h("section", { class: "card", "aria-label": "What is bought" },
          ...(this.route === "purchases" ? purchaseFacts(view) : paymentFacts(view)),
          digest ? digestLine(digest) : null,
          waits && view.approval_deadline ? deadlineLine(view.approval_deadline) : null,
          waits && this.api.may("approve") ? decisionButtons(digest, (verb, body) => this.#decide(verb, body)) : null,
          waits && !this.api.may("approve") ? h("p", { class: "quiet-text" }, "Only approvers can decide.") : null,
          this.notice ? h("p", { class: "problem", role: "alert" }, this.notice) : null,
          ...outcome(view)),
        this.route === "purchases" ? (mandate ? mandateFacts(mandate) : h("p", { class: "quiet-text" }, "Only the mandate's owner and named approvers can see it.")) : null),
      trail(audit, () => this.#save()));
  }

  /** Saves the trail exactly as the server sent it: written again, numbers and so the hashes could differ. */
  async #save() {
    try {
      const url = URL.createObjectURL(await this.api.file(this.reader, `${this.path}/audit`));
      h("a", { href: url, download: `${this.id}-audit.json` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1_000);
    } catch (error) {
      setText(this.trouble, `The audit trail was not saved. ${error.message}`);
      this.trouble.hidden = false;
    }
  }

  async #decide(verb, body) {
    this.notice = null;
    try {
      await this.api.call("approve", "POST", `${this.path}/${verb}`, body);
    } catch (error) {
      this.notice = error.message;
    }
    // Shows the current state immediately, even if somebody else decided first.
    this.view = null;
    await this.#refresh();
  }
}

function purchaseFacts({ cart, request, messages }) {
  const agent = ["Requested by", nameOf(request.agent)];
  if (!cart) return [facts([["Seller", request.seller], agent]), h("p", { class: "quiet-text" }, "The seller has not stated a cart yet.")];
  return [...cartStatement(cart), facts([agent]), ...messages.map((message) => h("p", { class: "quiet-text" }, message.text))];
}

function paymentFacts({ url, method, offer, body_sha256: body }) {
  return [termsStatement({ ...offer, url, method, body })];
}

function outcome(view) {
  const { approval, approved_by: approver, refusal, receipt, order, money_moved: moved } = view;
  const lines = [];
  if (approval) lines.push(decisionText({ outcome: "granted", by: approval.approver, auto: approval.auto, time: approval.at }));
  else if (approver) lines.push(`Approved by ${isolate(approver)}`);
  if (receipt?.paid_at) lines.push(`Paid ${money(receipt.amount, receipt.currency)} at ${time(receipt.paid_at)}`);
  if (order) lines.push(`Order ${isolate(order.number ?? order.id)}${order.status ? `, ${order.status}` : ""}`);
  if (moved === true && !receipt) lines.push("Money has moved, but there is no order yet.");
  if (typeof moved === "string" && moved !== "no") lines.push(moved === "yes" ? "Money has moved." : "Nobody can say yet whether money has moved.");
  return [...lines.map((line) => h("p", { class: "outcome" }, line)), refusal ? h("p", { class: "problem" }, refusal.message) : null];
}

/** Shows what is spent, reserved and left of a mandate, as a bar and in figures. */
export function mandateFacts(mandate, extra = null) {
  const { terms, spent, reserved, left } = mandate;
  const share = (amount) => `${Math.floor((amount * 100) / terms.cap.amount)}%`;
  const bar = h("div", { class: "meter", "aria-hidden": "true" }, h("i", { class: "spent" }), h("i", { class: "reserved" }));
  bar.children[0].style.width = share(spent.amount);
  bar.children[1].style.width = share(reserved.amount);
  const amount = (one) => money(one.amount, one.currency);
  return h("section", { class: "card mandate", "aria-label": `Mandate ${mandate.mandate_id}` },
    h("header", {}, h("h2", {}, "Mandate"), h("span", { class: `pill ${mandate.status === "active" ? "good" : "bad"}` }, mandate.status)),
    h("p", { class: "left" }, h("strong", {}, amount(left)), " left of ", amount(terms.cap)),
    bar,
    facts([
      ["Spent", amount(spent)], ["Reserved", amount(reserved)], ["Payments", String(mandate.payments)], ["For", terms.agent], ["Granted by", terms.owner],
      ["At most", terms.per_payment_cap == null ? null : `${money(terms.per_payment_cap, terms.cap.currency)} a payment`],
      ["Approval above", money(terms.approval_threshold, terms.cap.currency)],
      ["Sellers", terms.sellers.includes("*") ? "any" : terms.sellers.map((seller) => seller.replace(/^https?:\/\//, "")).join(", ")],
      ["Approvers", terms.approvers.join(", ")], ["Until", dateTime(terms.valid_until)], ["Revoked by", mandate.revoked_by],
      ["Id", h("code", {}, mandate.mandate_id)],
    ]),
    extra);
}

function trail(audit, save) {
  const whole = audit.entries.every((entry, index) => index === 0 || entry.previous === audit.entries[index - 1].hash);
  return h("section", { class: "trail", "aria-label": "Audit trail" },
    h("header", {}, h("h2", {}, "Audit trail"), h("button", { type: "button", onclick: save }, "Download as JSON")),
    h("p", { class: whole ? "quiet-text" : "problem" }, whole ? "Each entry has the hash of the one before." : "The chain of hashes is broken."),
    h("ol", {}, ...audit.entries.map((entry) => h("li", {},
      h("details", { class: "fold" },
        h("summary", {}, h("time", { datetime: entry.time }, time(entry.time)), " ", h("b", {}, entry.action), " ", h("span", { class: "quiet-text" }, entry.actor)),
        h("pre", { tabindex: "0", "aria-label": entry.action }, pretty({ ...entry.detail, hash: entry.hash }))))),
      ...(audit.repeated ?? []).map((again) => h("li", { class: "quiet-text" }, `${again.action} ${again.actor}: the same ${again.count} times since ${time(again.first)}, last at ${time(again.last)}`))));
}
