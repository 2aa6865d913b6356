/** "Continue on your phone": a QR code with short-lived tokens of the same person, one for each role. */

import { dateTime, h, messageOf, svg } from "../dom.js";
import { encode } from "../vendor/uqr.js";

/** The margin in modules that the QR code standard requires. */
const QUIET_MODULES = 4;
/** @type {[action: string, can: string][]} */
const MAY = [
  ["read", "follow this session"],
  ["send", "write to the agent, and stop it"],
  ["answer questions", "answer the agent's questions"],
  ["approve", "approve and reject what the agent wants to do and to buy"],
  ["take over", "take over and speak in the agent's place"],
  ["close sessions", "close the session"],
];

/**
 * @typedef {import("../api.js").Api} Api
 * @typedef {import("../api.js").Person} Person
 */

/**
 * @param {Api} api
 * @param {string} sessionId
 */
export async function showPhone(api, sessionId) {
  const dialog = h("dialog", { class: "phone", "aria-label": "Continue on your phone" });
  dialog.addEventListener("close", () => dialog.remove());
  const close = h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Close");
  document.body.append(dialog);
  const people = roles(api, sessionId);
  try {
    const minted = await Promise.all(people.map((person) => api.as(person, "POST", `/sessions/${sessionId}/tokens`)));
    if (!minted.length) throw new Error("Your rights don't belong on another device. Sign in as a person first.");
    const address = `${location.origin}/#/sessions/${sessionId}?${minted.map(({ token }) => `token=${token}`).join("&")}`;
    const ends = dateTime(new Date(Math.min(...minted.map((one) => one.expires_at)) * 1000).toISOString());
    const words = MAY.filter(([action]) => people.some((person) => person.may.includes(action))).map(([, can]) => h("li", {}, can));
    dialog.append(h("div", {},
      h("h2", {}, "Continue on your phone"),
      h("figure", {}, picture(address), h("figcaption", {}, `Until ${ends}, whoever has this code may act for you, in this session only:`, h("ul", {}, words), "Don't show it to anyone else.")),
      isLocal() && h("p", { class: "quiet-text" }, `Another device can't reach ${location.hostname}. Open the console by this machine's name in your network first.`),
      h("label", {}, "Or use this link ", h("input", { type: "text", readonly: true, value: address, onfocus: (/** @type {FocusEvent} */ event) => /** @type {HTMLInputElement} */ (event.currentTarget).select() })),
      h("p", {}, close)));
  } catch (error) {
    dialog.append(h("p", { class: "problem" }, messageOf(error)), close);
  }
  dialog.showModal();
  // The focus is at its end; it is read from its beginning.
  dialog.scrollTop = 0;
}

/**
 * One credential for each role that the person has in this session. The rights of a service stay where they are.
 * @param {Api} api
 * @param {string} sessionId
 */
function roles(api, sessionId) {
  /** @type {Map<string, Person>} */
  const found = new Map();
  for (const person of api.peopleIn(sessionId)) {
    if (person.role !== "service" && person.may.includes("read") && !found.has(person.role)) found.set(person.role, person);
  }
  return [...found.values()];
}

function isLocal() {
  return ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
}

/**
 * One path of all dark modules, on white in both themes, because cameras need the contrast.
 * @param {string} text
 */
function picture(text) {
  const { data, size } = encode(text, { ecc: "L", border: 0 });
  let path = "";
  data.forEach((row, y) => row.forEach((dark, x) => {
    if (dark) path += `M${x + QUIET_MODULES} ${y + QUIET_MODULES}h1v1h-1z`;
  }));
  const side = size + 2 * QUIET_MODULES;
  return svg("svg", { viewBox: `0 0 ${side} ${side}`, class: "qr", role: "img", "aria-label": "QR code", "shape-rendering": "crispEdges" },
    svg("rect", { width: side, height: side, fill: "#fff" }), svg("path", { d: path, fill: "#000" }));
}
