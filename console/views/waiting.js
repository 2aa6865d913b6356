/** The list of what waits, behind the number in the bar, and notifications for whoever wants them. */

import { keyOf, lineOf } from "../attention.js";
import { ago, h, isolate, remaining, setText } from "../dom.js";
import { isPushed, registration, turnOff, turnOn } from "../push.js";
import { keyedList } from "../view.js";

/** @typedef {import("../attention.js").Item} Item */

/** @type {Record<string, string>} */
const KINDS = { purchase: "A purchase", payment: "A paid request", tool: "A tool", question: "A question", handover: "Handed over to you", failure: "A failure" };
const KEPT = "waystation.notify";
const TICK_MS = 1_000;
const SHOWS = "It shows the first line of it, also where others see your screen.";
const ASKS = `Your browser tells you when something new waits for you: while the console is open in a tab and, where this server and the browser can, while it is closed, until your sign-in ends. ${SHOWS}`;
const OPEN = `While the console is open in a tab, your browser tells you when something new waits for you; not while it is closed: this server or the browser can't. ${SHOWS}`;
const CLOSED = `Your browser tells you when something new waits for you, also while the console is closed, until your sign-in ends. ${SHOWS}`;
const BLOCKED = "Your browser doesn't let this page notify you. Allow it in the browser's settings for this site.";

/**
 * Where it is decided: in the inbox, after which the next one comes. Whether somebody has one isn't known where a push
 * arrives; the page leads whoever has none to the session.
 * @param {Item} item
 */
export function addressOf({ kind, id, session_id: session }) {
  const at = { purchase: `purchases/${id}`, payment: `payments/${id}`, tool: `sessions/${session}/${id}`, question: `sessions/${session}/${id}` }[kind];
  return at ? `#/approvals?${new URLSearchParams({ at })}` : `#/sessions/${session}`;
}

/** @param {Item} item */
export function about({ kind, agent, since, deadline }) {
  const left = deadline ? ` · ${remaining(deadline)} left` : "";
  return `${KINDS[kind] ?? isolate(kind)}${agent ? ` · ${isolate(agent)}` : ""} · ${ago(since)}${left}`;
}

/**
 * Shows the list until it is closed. Returns what draws it again.
 * @param {import("../attention.js").Attention} attention
 */
export function showWaiting(attention) {
  const list = h("ul", { class: "rows" });
  const status = h("p", { class: "quiet-text", role: "status" });
  // First, so that a long list is open at its beginning: what has the focus is scrolled to.
  const close = h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Close");
  const dialog = h("dialog", { class: "waiting", "aria-labelledby": "waiting-title" }, h("header", {}, h("h2", { id: "waiting-title" }, "Waiting for you"), close), status, list, notifying(attention.api));
  const fill = keyedList(list, keyOf, (/** @type {Item} */ first) => {
    const line = h("b", {});
    const small = h("small", {});
    const element = h("li", {}, h("a", { href: addressOf(first), onclick: () => dialog.close() }, h("span", { class: "naming" }, line, small)));
    return {
      element,
      update(item) {
        setText(line, lineOf(item));
        setText(small, about(item));
      },
    };
  });
  const draw = () => {
    const { count, items } = attention.now;
    setText(status, count === 0 ? "Nothing waits for you." : items.length < count ? `${count}, of which these are the newest.` : "");
    fill(items);
  };
  const timer = setInterval(draw, TICK_MS);
  dialog.addEventListener("close", () => {
    clearInterval(timer);
    dialog.remove();
  });
  document.body.append(dialog);
  draw();
  dialog.showModal();
}

/**
 * What one gets, and the button for it: nobody is asked who hasn't pressed it.
 * @param {import("../api.js").Api} api
 */
function notifying(api) {
  const words = h("p", { class: "quiet-text" });
  const button = h("button", { type: "button", onclick: () => toggle() });
  const draw = () => {
    const blocked = !("Notification" in window) || Notification.permission === "denied";
    button.hidden = blocked;
    setText(words, blocked ? BLOCKED : !isOn() ? ASKS : isPushed() ? CLOSED : OPEN);
    setText(button, isOn() ? "Don't notify me" : "Notify me");
  };
  const toggle = async () => {
    button.disabled = true;
    try {
      if (isOn()) {
        localStorage.removeItem(KEPT);
        await turnOff(api);
      } else if ((await Notification.requestPermission()) === "granted") {
        localStorage.setItem(KEPT, "on");
        await turnOn(api);
      }
    } catch {
      // The browser reaches no push service, or the server can't be asked: what is on is said.
    }
    button.disabled = false;
    draw();
  };
  draw();
  return h("div", { class: "notify" }, words, button);
}

function isOn() {
  return localStorage.getItem(KEPT) !== null && Notification.permission === "granted";
}

/**
 * Notifies of what is new, unless somebody looks at this page anyway.
 * @param {Item[]} items
 */
export async function notify(items) {
  if (!("Notification" in window) || !isOn() || (document.hasFocus() && !document.hidden)) return;
  // With the tag that a push has: what comes both ways is shown once.
  const worker = isPushed() ? await registration() : null;
  for (const item of items) {
    try {
      if (worker) {
        await worker.showNotification(lineOf(item), { body: about(item), tag: keyOf(item), data: addressOf(item) });
        continue;
      }
      const notification = new Notification(lineOf(item), { body: about(item), tag: keyOf(item) });
      notification.onclick = () => {
        window.focus();
        location.hash = addressOf(item);
        notification.close();
      };
    } catch {
      // Some phones let only service workers notify.
    }
  }
}
