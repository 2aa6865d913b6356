/** What waits for a decision, and what was decided. */

import { ago, h, isolate, money, setText } from "../dom.js";
import { statusPill } from "./card.js";

const REFRESH_MS = 3_000;
const REREAD_EVERY = 5;
/** The API's limit for one list. */
const LISTED = 100;
const ROUTES = ["purchases", "payments"];
/** If more are waiting, the lists are read again instead of each entry. */
const MAX_ASKED = 20;

export function show({ api }) {
  const waiting = h("ul", { class: "rows" });
  const past = h("ul", { class: "rows" });
  const decided = h("section", { hidden: true }, h("h2", {}, "Decided or under way"), past);
  const status = h("p", { class: "quiet-text", role: "status" }, "Loading …");
  const limit = h("p", { class: "quiet-text", hidden: true }, `Apart from those awaiting a decision, only the newest ${LISTED} purchases and paid requests are listed; open older ones from their sessions.`);
  const element = h("div", { class: "approvals" }, h("h1", {}, "Approvals"), status, limit, waiting, decided);
  let entries = [];
  let rounds = 0;
  let timer = null;
  let loading = false;

  const draw = () => {
    const open = entries.filter((entry) => entry.status === "awaiting_approval");
    setText(status, open.length ? `${open.length} ${open.length === 1 ? "waits" : "wait"} for a decision.` : "Nothing waits for a decision.");
    const rest = entries.filter((entry) => !open.includes(entry));
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
    entries = [...new Map(found.map((entry) => [entry.id, entry])).values()].sort((a, b) => b.updated.localeCompare(a.updated));
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
      await (rounds % REREAD_EVERY === 0 || waiting > MAX_ASKED ? load() : look());
      rounds += 1;
      draw();
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
  return { title: "Approvals", element, shown: start, stop: () => clearInterval(timer) };
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
  return h("li", {}, h("a", { href: `#/${entry.route}/${entry.id}` },
    h("span", { class: "naming" }, h("b", {}, entry.what), h("small", {}, `${isolate(entry.whom.replace(/^https?:\/\//, ""))} · ${ago(entry.updated)}`)),
    entry.amount == null ? null : h("strong", { class: "amount" }, money(entry.amount, entry.currency)),
    statusPill(entry.status)));
}
