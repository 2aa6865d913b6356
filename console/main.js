/** The page: shows the view that the address names, to whoever has signed in. */

import { Api } from "./api.js";
import { Attention, lineOf } from "./attention.js";
import { h, setText, setTitle, setWaiting, svg } from "./dom.js";
import { SignIn } from "./sign-in.js";

/**
 * @typedef {object} View
 * @property {string} title
 * @property {HTMLElement} element
 * @property {string} [class]
 * @property {() => void} [shown]
 * @property {() => void} [stop]
 * @property {(query: URLSearchParams) => void} [moveTo]
 * @typedef {{ api: Api, query: URLSearchParams, attention: Attention, signOut: () => void }} Page What views are given, with the ids of their address.
 */

/** Views are loaded on first use. Ids become parts of the paths that buttons call, so only the characters of
 * ids are accepted: otherwise an address sent by somebody else could make a click call another route.
 * @type {[pattern: RegExp, load: () => Promise<{ show: (page: Page, ...ids: string[]) => View }>][]}
 */
const ROUTES = [
  [/^\/sessions\/(\w[\w.-]*)$/, () => import("./views/session.js")],
  [/^\/sessions$/, () => import("./views/sessions.js")],
  [/^\/(purchases|payments)\/(\w[\w.-]*)$/, () => import("./views/decision.js")],
  [/^\/approvals$/, () => import("./views/inbox.js")],
  [/^\/mandates$/, () => import("./views/money.js")],
  [/^\/mandates\/(\w[\w.-]*)$/, () => import("./views/mandate.js")],
  [/^\/start$/, () => import("./views/start.js")],
];

/** The session of what the inbox would show. */
const IN_SESSION = /^sessions\/(\w[\w.-]*)\//;

const ICON = new URL("icon.svg", import.meta.url).href;
const ICON_WITH_DOT = new URL("icon-dot.svg", import.meta.url).href;
const BELL = "M10 2a5 5 0 0 0-5 5v4l-2 3h14l-2-3V7a5 5 0 0 0-5-5Zm-2 13a2 2 0 0 0 4 0Z";
const NOTIFY = "waystation.notify";
/** How long signing out waits for the server to know that this browser isn't told any more. */
const LEAVE_MS = 2_000;
const PUSHED = "waystation.push";
const api = new Api();
const attention = new Attention(api, drawAttention, (items) => {
  if (items.length && localStorage.getItem(NOTIFY)) import("./views/waiting.js").then(({ notify }) => notify(items)).catch(later);
});
/** What nobody has asked for just now: it is tried again the next time. */
const later = () => {};
const app = element("app");
/** @type {{ path: string | null, view: View } | null} */
let shown = null;
const signing = new SignIn(api, { show: replace, onDone: (same) => {
  offerSignIn();
  attention.follow(api.people);
  if (localStorage.getItem(PUSHED)) import("./push.js").then(({ renew }) => renew(api)).catch(later);
  if (same && shown?.path === address().path) return;
  if (!same) shown = null;
  route();
} });
signing.onAsked = offerSignIn;

/**
 * What the page always has.
 * @param {string} id
 */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`The page has no #${id}.`);
  return found;
}

/** Signs out. Whoever uses this browser next is not told what waits for somebody else. */
async function leave() {
  if (localStorage.getItem(PUSHED)) {
    const off = import("./push.js").then(({ turnOff }) => turnOff(api));
    await Promise.race([off.catch(() => {}), new Promise((resolve) => setTimeout(resolve, LEAVE_MS))]);
  }
  signing.leave();
}

/** Splits `#/sessions/a?at=7` or `#token=…` into path and query. */
function address() {
  const hash = location.hash.slice(1);
  const [path, query] = hash.startsWith("/") ? hash.split("?", 2) : ["", hash];
  return { path, query: new URLSearchParams(query ?? "") };
}

function home() {
  if (api.people.length === 1 && api.people[0].sessions?.length === 1) return `/sessions/${api.people[0].sessions[0]}`;
  if (api.may("list sessions") || api.people.some((person) => person.sessions)) return "/sessions";
  return api.may("approve") ? "/approvals" : "/sessions";
}

async function route() {
  const { path, query } = address();
  const given = query.getAll("token");
  if (given.length) {
    // Tokens are removed from the address immediately, so that none is in a history, bookmark or screenshot.
    query.delete("token");
    history.replaceState(null, "", `#${path || "/"}${query.size ? `?${query}` : ""}`);
    return signing.enter(given);
  }
  if (!api.people.length) return signing.showForm();
  if (path === "" || path === "/") return location.replace(`#${home()}`);
  if (path === "/approvals" && !hasInbox()) {
    const [, session] = IN_SESSION.exec(query.get("at") ?? "") ?? [];
    return location.replace(`#${session ? `/sessions/${session}` : home()}`);
  }
  const [pattern, load] = ROUTES.find(([one]) => one.test(path)) ?? [];
  if (!pattern || !load) return display({ title: "Not found", element: notFound() });
  if (shown?.path === path) return shown.view.moveTo?.(query);
  try {
    const { show } = await load();
    if (address().path === path) display(show({ api, query, attention, signOut: leave }, ...(pattern.exec(path)?.slice(1) ?? [])), path);
  } catch {
    display({ title: "Not loaded", element: notLoaded() });
  }
}

/**
 * @param {View} view
 * @param {string | null} [path]
 */
function display(view, path = null) {
  const moves = shown !== null;
  shown?.view.stop?.();
  shown = { path, view };
  setTitle(view.title);
  app.replaceChildren(bar(path), h("main", { id: "main", tabindex: "-1", class: view.class ?? "page" }, view.element));
  drawAttention();
  // The focused element is gone; a screen reader continues with the new view.
  if (moves) element("main").focus({ preventScroll: true });
  view.shown?.();
}

/** Customers have none: what is asked of them they answer in its session. */
function hasInbox() {
  return api.may("approve") || api.may("list sessions");
}

/** @param {string | null} path */
function bar(path) {
  /**
   * @param {string} to
   * @param {string} text
   */
  const link = (to, text) => h("a", { href: `#${to}`, "aria-current": path?.startsWith(to) ? "page" : null }, text);
  const staff = hasInbox();
  return h("header", { class: "bar" },
    h("a", { class: "brand", href: "#/" }, h("img", { src: ICON, alt: "", width: "22", height: "22" }), "Waystation"),
    h("nav", { "aria-label": "Main" },
      link("/sessions", "Sessions"),
      staff && link("/approvals", "Inbox"),
      staff && link("/mandates", "Money"),
      h("button", { class: "quiet bell", type: "button", "aria-haspopup": "dialog", onclick: () => import("./views/waiting.js").then(({ showWaiting }) => showWaiting(attention), () => display({ title: "Not loaded", element: notLoaded() })) },
        svg("svg", { viewBox: "0 0 20 20", width: "20", height: "20", "aria-hidden": "true" }, svg("path", { d: BELL })),
        h("span", { class: "visually-hidden" }, "What waits: "),
        h("span", { id: "badge", class: "badge", hidden: true }, h("span", {}), h("span", { class: "visually-hidden" }, " waiting for you")))),
    h("div", { class: "who-am-i" },
      h("button", { id: "sign-in-again", class: "primary", type: "button", hidden: !api.expired, onclick: () => signing.ask() }, "Sign in again"),
      h("span", { title: api.people.map((one) => `${one.subject} (${one.role})`).join(", ") }, people()),
      h("button", { class: "quiet", type: "button", onclick: leave }, "Sign out")));
}

/** Says in the bar, in the tab's title and by its icon how much waits; first of it what waits on this page. */
function drawAttention() {
  const { count, items } = attention.now;
  const badge = document.getElementById("badge");
  if (badge?.firstChild) {
    badge.hidden = count === 0;
    setText(badge.firstChild, count);
  }
  const first = items.find(({ session_id: session, id }) => shown?.path?.split("/").some((part) => part && (part === session || part === id))) ?? items[0];
  setWaiting(first ? `(${count}) ${lineOf(first)}` : "");
  const icon = document.querySelector("link[rel=icon]");
  const wanted = count ? ICON_WITH_DOT : ICON;
  if (icon instanceof HTMLLinkElement && icon.href !== wanted) icon.href = wanted;
}

function people() {
  const names = new Set(api.people.map((person) => person.name ?? person.subject));
  return [...names].join(", ");
}

function notFound() {
  return h("div", { class: "empty" }, h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/" }, "Back to the start")));
}

function notLoaded() {
  return h("div", { class: "empty" }, h("h1", {}, "This part of the console could not be loaded"),
    h("p", {}, "The server can't be reached, or runs another version now. What you have written is kept."), h("p", {}, h("button", { type: "button", onclick: () => location.reload() }, "Try again")));
}

/**
 * Shows an element alone, in place of the page.
 * @param {HTMLElement} alone
 */
function replace(alone) {
  shown?.view.stop?.();
  shown = null;
  attention.follow(api.people);
  app.replaceChildren(h("main", { id: "main", class: "page", tabindex: "-1" }, alone));
}

/** Whoever has closed the dialog, to read on, can open it again. */
function offerSignIn() {
  const button = document.getElementById("sign-in-again");
  if (button) button.hidden = !api.expired;
}

addEventListener("hashchange", () => {
  // A step back leaves a dialog with the view that it was for; a sign-in that has ended belongs to all of them.
  for (const dialog of document.querySelectorAll("dialog")) if (dialog.open && !dialog.classList.contains("expired")) dialog.close();
  route();
});
// From a notification that was clicked.
navigator.serviceWorker?.addEventListener("message", ({ data }) => data.open && (location.hash = data.open));
document.querySelector(".skip")?.addEventListener("click", (event) => {
  // The fragment is the address of a view; the link must not change it.
  event.preventDefault();
  document.getElementById("main")?.focus();
});

if (address().query.has("token")) route();
else signing.begin();
