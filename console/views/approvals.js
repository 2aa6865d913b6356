/** What waits for a decision, and what was decided. */

import { ago, h, isolate, money, setText, setTitle, visible } from "../dom.js";
import { statusPill } from "./card.js";
import { summary } from "./question.js";

const REFRESH_MS = 3_000;
const REREAD_EVERY = 5;
/** The API's limit for one list. */
const LISTED = 100;
const ROUTES = ["purchases", "payments"];
/** If more are waiting, the lists are read again instead of each entry. */
const MAX_ASKED = 20;
/** Of a tool's arguments; all of them are in its session. */
const SHOWN_CHARACTERS = 200;

export function show({ api }) {
  const waiting = h("ul", { class: "rows" });
  const past = h("ul", { class: "rows" });
  const decided = h("section", { hidden: true }, h("h2", {}, "Decided or under way"), past);
  const status = h("p", { class: "quiet-text", role: "status" }, "Loading …");
  const limit = h("p", { class: "quiet-text", hidden: true }, `Apart from those awaiting a decision, only the newest ${LISTED} purchases and paid requests are listed; open older ones from their sessions.`);
  const element = h("div", { class: "approvals" }, h("h1", {}, "Approvals"), status, limit, waiting, decided);
  let entries = [];
  let tools = { entries: [], count: 0, more: false };
  let stopped = false;
  let rounds = 0;
  let timer = null;
  let loading = false;

  const draw = () => {
    const awaiting = entries.filter((entry) => entry.status === "awaiting_approval");
    const open = [...awaiting, ...tools.entries].sort(newestFirst);
    const count = awaiting.length + tools.count;
    const least = tools.more ? "At least " : "";
    setText(status, count ? `${least}${count} ${count === 1 ? "waits" : "wait"} for a decision.` : "Nothing waits for a decision.");
    setTitle(count ? `(${count}) Approvals` : "Approvals");
    const rest = entries.filter((entry) => !awaiting.includes(entry));
    decided.hidden = rest.length === 0;
    replaceRows(waiting, open);
    replaceRows(past, rest);
  };
  const reader = api.person("approve") ?? api.person("read");
  const read = async (path) => {
    if (!reader) throw new Error("You may not see approvals.");
    return api.as(reader, "GET", path);
  };
  const load = async () => {
    // Entries that wait may be older than the newest page, and the newest may wait before Temporal's search knows it.
    const lists = await Promise.all(["", "&waiting=true"].flatMap((which) => ROUTES.map((route) => read(`/${route}?limit=${LISTED}${which}`))));
    limit.hidden = lists.every((list) => list.length < LISTED);
    const found = lists.flatMap((list, index) => list.map(index % 2 ? ofPayment : ofPurchase));
    entries = [...new Map(found.map((entry) => [entry.id, entry])).values()].sort(newestFirst);
  };
  const loadTools = async () => {
    const { approvals, count, more } = await read(`/approvals?kind=tool&limit=${LISTED}`);
    tools = { entries: approvals.map(ofTool), count, more };
  };
  /** Reads only the waiting entries again; the whole lists are read less often. */
  const look = async () => {
    entries = await Promise.all(entries.map(async (entry) => {
      if (entry.status !== "awaiting_approval") return entry;
      const view = await read(`/${entry.route}/${entry.id}`);
      return entry.route === "purchases" ? ofPurchase(view) : ofPayment(view);
    }));
  };
  const refresh = async () => {
    if (loading) return;
    loading = true;
    try {
      const waiting = entries.filter((entry) => entry.status === "awaiting_approval").length;
      const whole = rounds % REREAD_EVERY === 0;
      await Promise.all([whole || waiting > MAX_ASKED ? load() : look(), (whole || tools.count <= MAX_ASKED) && loadTools()]);
      rounds += 1;
      if (!stopped) draw();
    } catch (error) {
      setText(status, error.message);
    } finally {
      loading = false;
    }
  };
  const start = () => {
    refresh();
    timer = setInterval(() => document.hidden || refresh(), REFRESH_MS);
  };
  const stop = () => {
    stopped = true;
    clearInterval(timer);
  };
  return { title: "Approvals", element, shown: start, stop };
}

function newestFirst(one, other) {
  return other.updated.localeCompare(one.updated);
}

/** A tool is decided in its session, where its card has everything that is asked. */
function ofTool({ id, session_id: session, agent, since, question }) {
  const { tool, arguments: given, ...asked } = question.asked;
  return { href: `sessions/${session}?at=${question.seq}`, id, status: "undecided", updated: since, what: `${isolate(visible(tool))} ${visible(JSON.stringify(given)).slice(0, SHOWN_CHARACTERS)}`, whom: `${isolate(agent)}: ${summary(asked)}` };
}

function ofPurchase(view) {
  const items = view.cart?.lines.map((line) => `${line.quantity} × ${isolate(line.name ?? line.item_id)}`) ?? view.request.items.map((item) => `${item.quantity} × ${isolate(item.id)}`);
  return { route: "purchases", id: view.purchase_id, status: view.status, updated: view.updated_at, what: items.join(", "), whom: view.request.seller, amount: view.cart?.total, currency: view.request.currency };
}

function ofPayment(view) {
  return { route: "payments", id: view.payment_id, status: view.status, updated: view.updated_at, what: `${view.method} ${view.url}`, whom: view.offer?.realm ?? "", amount: view.offer?.price.amount, currency: view.offer?.price.currency };
}

/** Replaces rows only if they have changed, so that a refresh doesn't take the focus away. */
function replaceRows(list, entries) {
  const shown = JSON.stringify(entries);
  if (list.shows === shown) return;
  list.shows = shown;
  list.replaceChildren(...entries.map(row));
}

function row(entry) {
  return h("li", {}, h("a", { href: `#/${entry.href ?? `${entry.route}/${entry.id}`}` },
    h("span", { class: "naming" }, h("b", {}, entry.what), h("small", {}, `${isolate(entry.whom.replace(/^https?:\/\//, ""))} · ${ago(entry.updated)}`)),
    entry.amount == null ? null : h("strong", { class: "amount" }, money(entry.amount, entry.currency)),
    statusPill(entry.status)));
}
