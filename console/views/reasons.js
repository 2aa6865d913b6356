/** Who asked for what waits, and why: in the words of the person whose turn it is, and of the agent. */

import { h, nameOf } from "../dom.js";
import { Follow } from "../follow.js";
import { SessionModel } from "../model.js";

const MAX_WORDS_CHARACTERS = 600;

/**
 * Follows a session for one thing that waits in it. `onChange(model)` is called whenever something has happened.
 * @param {import("../api.js").Api} api
 * @param {string} sessionId
 * @param {(model: SessionModel) => void} onChange
 */
export function followFor(api, sessionId, onChange) {
  const model = new SessionModel();
  const follow = new Follow(api, sessionId, model, { onState: () => {}, onChange: () => onChange(model), onPresence: () => {}, whole: false });
  follow.start();
  return follow;
}

/**
 * Fills an element with what was said before, in a turn, as far as the newest events have it.
 * @param {HTMLElement} element
 * @param {SessionModel} model
 * @param {string | null | undefined} turnId
 * @param {number} before the place of the request among the events
 */
export function drawReasons(element, model, turnId, before = Infinity) {
  if (!turnId) return;
  const [root] = turnId.split(".");
  const asked = model.transcript.messages.get(model.turns.get(root)?.messageId ?? "");
  const said = [...model.items.values()].filter((one) => one.kind === "message")
    .filter(({ message, at }) => message.kind === "message" && message.turnId === turnId && message.actor.role === "agent" && message.text && at < before)
    .sort((one, other) => other.at - one.at)[0]?.message;
  const told = [asked, said].filter((one) => one !== undefined).filter((one) => one.text !== "");
  const key = told.map((one) => `${one.id} ${one.text.length}`).join();
  if (element.dataset.told === key) return;
  element.dataset.told = key;
  element.hidden = told.length === 0;
  element.replaceChildren(...told.map((one) => h("blockquote", {}, h("b", {}, nameOf(one.actor)), h("p", { class: "said" }, shortened(one.text)))));
}

/** @param {string} text */
function shortened(text) {
  const all = [...text];
  return all.length > MAX_WORDS_CHARACTERS ? `${all.slice(0, MAX_WORDS_CHARACTERS).join("")} …` : text;
}
