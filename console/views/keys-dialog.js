/** A page's keys in words, and whether it listens to them. */

import { h } from "../dom.js";
import { OFF, areOff } from "./keys.js";

const KEYS = [
  ["/", "write a message"],
  ["Esc", "stop the agent"],
  ["j", "the next message"],
  ["k", "the message before"],
  ["a", "what waits for an answer or a decision"],
  ["?", "these keys"],
];

export function showKeys(keys = KEYS) {
  const on = h("input", { type: "checkbox", checked: !areOff() });
  on.addEventListener("change", () => (on.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1")));
  const dialog = h("dialog", { class: "phone keys", "aria-labelledby": "keys-title" },
    h("div", {},
      h("h2", { id: "keys-title" }, "Keys"),
      h("dl", { class: "facts" }, ...keys.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
      h("label", { class: "check" }, on, "Listen to single keys"),
      h("p", {}, h("button", { type: "button", onclick: () => dialog.close() }, "Close"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
