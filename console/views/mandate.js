/** One mandate: what it allows in a sentence, what was spent over time and for what, a table to take along, its end. */

import { Refusal } from "../api.js";
import { csv } from "../csv.js";
import { dateTime, h, isolate, messageOf, money, setText, svg } from "../dom.js";
import { inOneSentence } from "../mandate-terms.js";
import { keyedList } from "../view.js";
import { STATUS } from "./card.js";
import { inWords } from "./decision.js";
import { mandateCard } from "./mandate-card.js";

const REFRESH_MS = 5_000;
const SHOWN_AT_ONCE = 50;
const PAGE = 100;
/** The mandate remembers at most so many payments; more pages than that there can't be. */
const MAX_PAGES = 40;
const DAY_MS = 86_400_000;
/** A bar is a day; of more days than this, it has as many of them as it must. */
const MAX_BARS = 31;
const STATES = { held: "held", committed: "paid", released: "given back" };
const CHART = { width: 620, height: 140, left: 4, bottom: 22, gap: 2, widest: 44 };
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/**
 * @param {{ api: any }} page
 * @param {string} id
 */
export function show({ api }, id) {
  const view = new MandateView(api, id);
  return { title: "Mandate", element: view.element, shown: () => view.start(), stop: () => view.stop() };
}

class MandateView {
  /**
   * @param {any} api
   * @param {string} id
   */
  constructor(api, id) {
    this.api = api;
    this.id = id;
    /** @type {any} */
    this.mandate = null;
    /** @type {any} */
    this.person = null;
    /** What is known of purchases and paid requests, by id. @type {Map<string, any>} */
    this.known = new Map();
    this.shownRows = SHOWN_AT_ONCE;
    this.shows = "";
    this.stopped = false;
    this.heading = h("h1", {}, "Mandate");
    this.sentence = h("p", { class: "sentence" });
    this.trouble = h("p", { class: "problem", role: "status", hidden: true });
    this.card = h("div", {});
    this.chart = h("section", { class: "card", "aria-label": "Spent over time", hidden: true });
    this.rows = h("tbody", {});
    this.drawRows = keyedList(this.rows, (/** @type {any} */ one) => one.key, (one) => this.#row(one));
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.#older() }, "Older");
    this.none = h("p", { class: "quiet-text" }, "Nothing has been paid yet.");
    this.export = h("button", { type: "button", onclick: () => this.#save() }, "Download as CSV");
    this.table = h("table", { class: "cart paid-for" }, h("caption", { class: "visually-hidden" }, "What it paid for, newest first"),
      h("thead", {}, h("tr", {}, ...["When", "What", "State"].map((one) => h("th", { scope: "col" }, one)), h("th", { scope: "col", class: "amount" }, "Amount"))), this.rows);
    this.revoking = h("div", {});
    this.element = h("div", { class: "mandate-page" }, h("p", {}, h("a", { href: "#/mandates" }, "All mandates")), this.heading, this.sentence, this.trouble,
      h("div", { class: "columns" },
        h("div", { class: "column-of" }, this.chart, h("section", { class: "card", "aria-label": "What it paid for" }, h("header", {}, h("h2", {}, "What it paid for"), this.export), this.none, this.table, this.more)),
        h("div", { class: "column-of" }, this.card, this.revoking)));
  }

  start() {
    this.#refresh();
    this.timer = setInterval(() => document.hidden || this.#refresh(), REFRESH_MS);
  }

  stop() {
    this.stopped = true;
    clearInterval(this.timer);
  }

  async #refresh() {
    try {
      const mandate = await this.#read();
      if (this.stopped) return;
      const shows = JSON.stringify(mandate);
      this.trouble.hidden = true;
      if (shows === this.shows) return;
      this.shows = shows;
      this.mandate = mandate;
      this.#draw();
      await this.#describe(this.#visible());
      if (!this.stopped) this.drawRows(this.#visible());
    } catch (error) {
      setText(this.trouble, `${this.mandate ? "This may be out of date. " : ""}${messageOf(error)}`);
      this.trouble.hidden = false;
    }
  }

  /** As the first of the person's roles that may see it. */
  async #read() {
    let refusal;
    for (const person of this.person ? [this.person] : this.api.people) {
      try {
        const mandate = await this.api.as(person, "GET", `/mandates/${this.id}`);
        this.person = person;
        return mandate;
      } catch (error) {
        if (!(error instanceof Refusal && [403, 404].includes(error.status))) throw error;
        refusal = error;
      }
    }
    throw refusal;
  }

  /** Newest first. */
  #payments() {
    return [...this.mandate.reservations].reverse();
  }

  #visible() {
    return this.#payments().slice(0, this.shownRows);
  }

  #draw() {
    const { terms } = this.mandate;
    setText(this.heading, `Mandate for ${isolate(terms.agent)}`);
    setText(this.sentence, inOneSentence(terms));
    this.card.replaceChildren(mandateCard(this.mandate));
    const payments = this.#payments();
    this.none.hidden = payments.length > 0;
    this.table.hidden = this.export.hidden = payments.length === 0;
    this.more.hidden = payments.length <= this.shownRows;
    this.drawRows(this.#visible());
    this.#drawChart();
    this.#drawRevoking();
  }

  /** @param {any} made */
  #row(made) {
    const when = h("td", {});
    /** Where there is no room for a column. */
    const again = h("time", {});
    const what = h("td", {});
    const state = h("td", {});
    const amount = h("td", { class: "amount" });
    const update = (/** @type {any} */ one) => {
      const { link, words, status } = this.#about(one);
      const at = one.settled_at ? dateTime(one.settled_at) : `held until ${dateTime(one.held_until)}`;
      setText(when, at);
      const key = `${link} ${words}`;
      if (what.dataset.shows !== key) {
        what.dataset.shows = key;
        what.replaceChildren(link ? h("a", { href: link }, words) : h("span", {}, words), " ", h("small", {}, isolate(one.seller.replace(/^https?:\/\//, ""))), again);
      }
      setText(again, at);
      setText(state, [STATES[/** @type {keyof typeof STATES} */ (one.state)] ?? one.state, status && status !== "completed" && status !== "delivered" ? STATUS[/** @type {keyof typeof STATUS} */ (status)] ?? status : "", one.refunded ? `${money(one.refunded, this.mandate.terms.cap.currency)} refunded` : ""].filter(Boolean).join(", "));
      setText(amount, money(one.state === "committed" ? one.spent : one.amount, this.mandate.terms.cap.currency));
    };
    update(made);
    return { element: h("tr", {}, when, what, state, amount), update };
  }

  /** @param {any} one a reservation */
  #about(one) {
    const found = this.known.get(one.holder);
    if (!found) return { link: "", words: one.holder ?? one.key, status: "", session: "", kind: "" };
    const { route, view } = found;
    return { link: `#/${route}/${one.holder}`, words: inWords(route, view).what, status: view.status, session: view.request?.session_id ?? view.session_id ?? "", kind: route === "purchases" ? "purchase" : "payment" };
  }

  /**
   * Asks what these payments were for, page by page until all are known or there are no more.
   * @param {any[]} payments
   */
  async #describe(payments) {
    const wanted = new Set(payments.map((one) => one.holder).filter(Boolean));
    await Promise.all(Object.entries({ purchases: "purchase_id", payments: "payment_id" }).map(async ([route, name]) => {
      let before = "";
      for (let page = 0; page < MAX_PAGES; page += 1) {
        const views = await this.api.as(this.person, "GET", `/${route}?mandate_id=${this.id}&limit=${PAGE}${before ? `&before=${before}` : ""}`);
        for (const view of views) this.known.set(view[name], { route, view });
        before = views.at(-1)?.[name] ?? "";
        if (views.length < PAGE || [...wanted].every((id) => this.known.has(id))) return;
      }
    }));
  }

  async #older() {
    this.shownRows += SHOWN_AT_ONCE;
    this.#draw();
    try {
      await this.#describe(this.#visible());
      this.drawRows(this.#visible());
    } catch (error) {
      setText(this.trouble, messageOf(error));
      this.trouble.hidden = false;
    }
  }

  // Over time

  #drawChart() {
    const { terms, spent, refunded } = this.mandate;
    const paid = this.mandate.reservations.filter((/** @type {any} */ one) => one.state === "committed" && one.spent > 0 && one.settled_at);
    this.chart.hidden = paid.length === 0;
    if (this.chart.hidden) return;
    const amount = (/** @type {number} */ one) => money(one, terms.cap.currency);
    const bars = barsOf(paid);
    const most = Math.max(...bars.map((bar) => bar.amount));
    const sum = bars.reduce((all, bar) => all + bar.amount, 0);
    const { width, height, left, bottom, gap, widest } = CHART;
    const room = (width - left) / bars.length;
    const tall = height - bottom;
    const label = `Spent from ${bars[0].name} to ${bars[bars.length - 1].name}: ${amount(sum)}, at most ${amount(most)} in one bar.`;
    const drawn = bars.map((bar, index) => {
      const size = bar.amount ? Math.max(Math.round((bar.amount / most) * (tall - 4)), 2) : 0;
      return svg("rect", { x: String(left + index * room), y: String(tall - size), width: String(Math.min(Math.max(room - gap, 1), widest)), height: String(size) }, svg("title", {}, `${bar.name}: ${amount(bar.amount)}`));
    });
    // The mandate forgets its oldest payments, not their sum.
    const before = spent.amount + refunded.amount - sum;
    this.chart.replaceChildren(
      h("h2", {}, "Spent over time"),
      svg("svg", { class: "spending", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
        svg("line", { x1: "0", x2: String(width), y1: String(tall), y2: String(tall) }), ...drawn,
        svg("text", { x: String(left), y: String(height - 5) }, bars[0].name), bars.length > 1 ? svg("text", { x: String(width), y: String(height - 5), "text-anchor": "end" }, bars[bars.length - 1].name) : null),
      h("details", { class: "fold" }, h("summary", {}, "As a table"), h("table", { class: "cart" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "When"), h("th", { scope: "col", class: "amount" }, "Payments"), h("th", { scope: "col", class: "amount" }, "Spent"))),
        h("tbody", {}, ...bars.filter((bar) => bar.amount).map((bar) => h("tr", {}, h("td", {}, bar.name), h("td", { class: "amount" }, String(bar.count)), h("td", { class: "amount" }, amount(bar.amount))))),
        h("tfoot", {}, h("tr", { class: "total" }, h("th", { scope: "row", colspan: "2" }, "Together"), h("td", { class: "amount" }, amount(sum)))))),
      ...(before > 0 ? [h("p", { class: "quiet-text" }, `${amount(before)} more were spent before what the mandate still remembers one by one.`)] : []));
  }

  // To take along

  async #save() {
    this.export.setAttribute("aria-disabled", "true");
    try {
      const payments = this.#payments();
      await this.#describe(payments);
      const { currency } = this.mandate.terms.cap;
      const columns = ["settled_at", "state", "kind", "id", "what", "seller", "session_id", "currency", "amount_minor_units", "spent_minor_units", "refunded_minor_units"];
      const rows = payments.map((one) => {
        const { words, session, kind } = this.#about(one);
        return [one.settled_at ?? "", one.state, kind, one.holder ?? one.key, kind ? words : "", one.seller, session, currency, one.amount, one.spent, one.refunded];
      });
      const url = URL.createObjectURL(new Blob([csv(columns, rows)], { type: "text/csv;charset=utf-8" }));
      h("a", { href: url, download: `${this.id}.csv` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1_000);
    } catch (error) {
      setText(this.trouble, `The table was not saved. ${messageOf(error)}`);
      this.trouble.hidden = false;
    } finally {
      this.export.removeAttribute("aria-disabled");
    }
  }

  // Its end

  #drawRevoking() {
    const { terms, status } = this.mandate;
    const may = this.api.people.find((/** @type {any} */ one) => one.subject === terms.owner && one.role !== "agent") ?? this.api.people.find((/** @type {any} */ one) => ["operator", "service"].includes(one.role) && !one.sessions);
    const open = may && ["active", "pending"].includes(status);
    if (!open) return this.revoking.replaceChildren();
    const held = this.mandate.reservations.filter((/** @type {any} */ one) => one.state === "held").length;
    const consequence = held
      ? `Nothing more can be spent. ${money(this.mandate.reserved.amount, terms.cap.currency)} ${held === 1 ? "is held for 1 payment" : `are held for ${held} payments`}: what waits for somebody ends, and its amount is given back; what is being paid already goes on and is recorded.`
      : "Nothing more can be spent. Nothing is held at the moment.";
    const told = this.revoking.querySelector(".consequence");
    if (told) return setText(told, consequence);
    this.revoking.replaceChildren(this.#revoker(may, consequence));
  }

  /**
   * @param {any} person
   * @param {string} consequence
   */
  #revoker(person, consequence) {
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const reason = h("input", { type: "text", maxlength: "500", "aria-label": "Why (optional)", placeholder: "Why (optional)" });
    const sure = h("div", { class: "decide", hidden: true },
      h("p", { class: "consequence" }, consequence), reason, problem,
      h("div", { class: "row" },
        h("button", { type: "button", class: "danger", onclick: async () => {
          try {
            await this.api.as(person, "POST", `/mandates/${this.id}/revoke`, { reason: reason.value.trim() });
            await this.#refresh();
          } catch (error) {
            setText(problem, messageOf(error));
            problem.hidden = false;
          }
        } }, "Revoke for good"),
        h("button", { type: "button", onclick: () => ask(false) }, "Keep it")));
    const first = h("button", { type: "button", class: "danger", onclick: () => ask(true) }, "Revoke");
    const ask = (/** @type {boolean} */ on) => {
      sure.hidden = !on;
      first.hidden = on;
      (on ? reason : first).focus();
    };
    return h("section", { class: "card", "aria-label": "Revoke" }, first, sure);
  }
}

/**
 * What was paid, in stretches of whole days.
 * @param {any[]} paid
 */
function barsOf(paid) {
  const days = paid.map((one) => dayOf(one.settled_at));
  const first = Math.min(...days);
  const last = Math.max(...days);
  const width = Math.ceil((last - first + 1) / MAX_BARS);
  const bars = Array.from({ length: Math.floor((last - first) / width) + 1 }, (_, index) => ({ name: nameOf(first + index * width, width), amount: 0, count: 0 }));
  paid.forEach((one, index) => {
    const bar = bars[Math.floor((days[index] - first) / width)];
    bar.amount += one.spent;
    bar.count += 1;
  });
  return bars;
}

/**
 * The number of a day where the reader is; days of 23 and 25 hours are days.
 * @param {string} iso
 */
function dayOf(iso) {
  const at = new Date(iso);
  return Math.round(Date.UTC(at.getFullYear(), at.getMonth(), at.getDate()) / DAY_MS);
}

/**
 * @param {number} day
 * @param {number} width
 */
function nameOf(day, width) {
  const name = (/** @type {number} */ number) => {
    const utc = new Date(number * DAY_MS);
    return SHORT_DAY.format(new Date(utc.getUTCFullYear(), utc.getUTCMonth(), utc.getUTCDate()));
  };
  return width === 1 ? name(day) : `${name(day)} to ${name(day + width - 1)}`;
}
