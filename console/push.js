/**
 * Web Push in this browser: whether it is on, on and off for all roles of whoever has signed in, and its renewal with
 * each new token. `localStorage` has the server's id of the subscription while it is on.
 */

import { told } from "./attention.js";

/** @typedef {import("./attention.js").Person} Person */

const ON = "waystation.push";
const SCOPE = "/console/";
/** Without a version: the browser keeps its registration, and looks for news of it by itself. */
const WORKER = `${SCOPE}push-worker.js`;

export const isPushed = () => localStorage.getItem(ON) !== null;

export const registration = () => navigator.serviceWorker?.getRegistration(SCOPE);

/** @param {import("./api.js").Api} api @returns {Person[]} */
const people = (api) => told(api.people);

/**
 * Subscribes this browser, after the person has allowed notifications. Returns whether the server pushes.
 * @param {import("./api.js").Api} api
 */
export async function turnOn(api) {
  if (!("PushManager" in window) || !navigator.serviceWorker) return false;
  const [first] = people(api);
  if (!first) return false;
  const { public_key: key } = await api.as(first, "GET", "/push");
  if (key === null) return false;
  const registered = await navigator.serviceWorker.register(/** @type {any} */ (address()), { type: "module", scope: SCOPE });
  let subscription = await registered.pushManager.getSubscription();
  if (subscription && text(subscription.options.applicationServerKey) !== key) {
    await subscription.unsubscribe();
    subscription = null;
  }
  subscription ??= await registered.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
  await put(api, subscription);
  return true;
}

/**
 * Tells the server of this browser, for every role: with a token, it is told until that ends.
 * @param {import("./api.js").Api} api
 * @param {PushSubscription} subscription
 */
async function put(api, subscription) {
  const body = subscription.toJSON();
  await Promise.all(people(api).map((person) => api.as(person, "PUT", "/push/subscriptions", body)));
  localStorage.setItem(ON, await idOf(subscription.endpoint));
}

/** As the server makes it. @param {string} endpoint */
async function idOf(endpoint) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(endpoint)));
  return `push_${[...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("").slice(0, 32)}`;
}

/**
 * Renews it after a sign-in, unless the person has taken the permission back.
 * @param {import("./api.js").Api} api
 */
export async function renew(api) {
  try {
    if (Notification.permission === "granted") await turnOn(api);
    else await turnOff(api);
  } catch {
    // With the next token.
  }
}

/**
 * Tells this browser nothing more. The server is told first, with what is here now: tokens may be forgotten meanwhile.
 * @param {import("./api.js").Api} api
 */
export async function turnOff(api) {
  const id = localStorage.getItem(ON);
  localStorage.removeItem(ON);
  const gone = id ? people(api).map((person) => api.as(person, "DELETE", `/push/subscriptions/${id}`)) : [];
  const subscription = await (await registration())?.pushManager.getSubscription();
  // Where the server can't be reached, the push service tells it that there is no such browser.
  await Promise.allSettled([...gone, subscription?.unsubscribe()]);
}

/** The page's policy wants scripts' addresses to be of a type; this one is always the same. */
function address() {
  const { trustedTypes } = /** @type {any} */ (window);
  made ??= trustedTypes ? trustedTypes.createPolicy("push-worker", { createScriptURL: () => WORKER }).createScriptURL("") : WORKER;
  return made;
}

/** @type {unknown} */
let made = null;

/** @param {ArrayBuffer | null} key */
function text(key) {
  return key && btoa(String.fromCharCode(...new Uint8Array(key))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
