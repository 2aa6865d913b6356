/**
 * The service worker: shows what the server pushes, and opens it. It is for nothing else: no request passes through it,
 * and no page is within its scope.
 */

import { keyOf, lineOf } from "./attention.js";
import { about, addressOf } from "./views/waiting.js";

/** The types of workers and those of pages can't be had in one project. */
const worker = /** @type {any} */ (globalThis);

/** @param {any} event */
async function show(event) {
  const item = event.data.json();
  const tag = keyOf(item);
  await worker.registration.showNotification(lineOf(item), { body: about(item), tag, data: addressOf(item) });
  // Nobody is told who looks at the console anyway. Browsers want each push to be shown, if only for a moment.
  const pages = await worker.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (!pages.some((/** @type {any} */ page) => page.focused)) return;
  for (const shown of await worker.registration.getNotifications({ tag })) shown.close();
}

/** @param {any} event */
async function open({ notification }) {
  notification.close();
  const [page] = await worker.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (!page) return worker.clients.openWindow(`/${notification.data}`);
  page.postMessage({ open: notification.data });
  return page.focus();
}

worker.addEventListener("push", (/** @type {any} */ event) => event.waitUntil(show(event)));
worker.addEventListener("notificationclick", (/** @type {any} */ event) => event.waitUntil(open(event)));
