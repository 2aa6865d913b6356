/** How the items of a session are drawn: one function for each kind. */

import { h, isolate, nameOf, pretty, setClass, setText, time } from "../dom.js";
import { render } from "../markdown.js";
import { drawCard } from "./card.js";
import { questionElement } from "./question.js";

const ROLE_TAG = { operator: "operator", system: "system" };

/** Returns an item's element, and the function that updates it. */
export function itemElement(item, context) {
  switch (item.kind) {
    case "message":
      return messageElement(item, context);
    case "tool":
      return toolElement(context);
    case "lanes":
      return lanesElement(context);
    case "card":
      return simple(h("article", { class: "card" }), (element, now) => drawCard(element, now, context.api));
    case "question":
      return questionElement(context);
    case "steer":
      return simple(h("div", { class: "notice steer" }), drawSteer);
    case "data":
      return simple(h("details", { class: "fold data" }), drawData);
    default:
      return simple(h("div", { class: "notice" }), drawNotice);
  }
}

function simple(element, draw) {
  return { element, update: (item) => draw(element, item) };
}

// Messages

function messageElement(item, context) {
  const who = h("span", { class: "who" });
  const stamp = h("time", {});
  const text = h("div", { class: "text" });
  const note = h("p", { class: "state", hidden: true });
  const element = h("article", { class: "message" }, h("header", {}, who, stamp), text, note);
  return { element, update: (now) => drawMessage({ element, who, stamp, text, note }, now, context) };
}

function drawMessage(parts, item, { model, api }) {
  const { message } = item;
  const { element, text } = parts;
  const { role } = message.actor;
  setClass(element, `from-${role}`, true);
  setClass(element, "streaming", message.status === "streaming");
  setClass(element, "superseded", message.status === "superseded");
  setText(parts.who, api.isMe(message.actor.id) ? "You" : nameOf(message.actor));
  parts.who.dataset.tag = ROLE_TAG[role] ?? "";
  if (item.time) {
    parts.stamp.dateTime = item.time;
    setText(parts.stamp, time(item.time));
  }
  const queued = model.turnAnswering(message.id)?.status === "queued";
  const state = messageState(message, queued);
  setText(parts.note, state);
  parts.note.hidden = !state;
  if (message.status === "superseded") return drawSuperseded(text, message);
  if (message.kind === "reasoning") return drawReasoning(text, message);
  if (role === "user") setText(text, message.text);
  else render(text, message.text);
}

function messageState(message, queued) {
  if (message.status === "superseded") return "Superseded: this attempt was withdrawn, and the turn was retried.";
  if (queued) return "Waiting its turn";
  return { stopped: "Stopped here", failed: "Cut off: the turn failed", completed: "Left unfinished" }[message.data.finish] ?? "";
}

function drawSuperseded(text, message) {
  text.shownBlocks = null;
  text.replaceChildren(...(message.withdrawn ? [h("details", { class: "fold" }, h("summary", {}, "What it had said"), h("del", {}, message.withdrawn))] : []));
}

/** Reasoning is folded by default; unfolded, it grows as it streams. */
function drawReasoning(text, message) {
  if (!text.fold) {
    text.body = h("div", { class: "text" });
    text.fold = h("details", { class: "fold reasoning" }, h("summary", {}), text.body);
    text.replaceChildren(text.fold);
  }
  setText(text.fold.firstChild, message.status === "streaming" ? "Reasoning …" : "Reasoning");
  render(text.body, message.text);
}

// Tools

function toolElement({ model }) {
  const name = h("code", {});
  const state = h("span", { class: "state" });
  const body = h("div", { class: "fold-body" });
  const element = h("details", { class: "fold tool" }, h("summary", {}, "Tool ", name, " ", state), body);
  const update = (item) => {
    setText(name, item.name ?? "?");
    setText(state, item.returned ? toolState(item) : model.mayRun(item) ? "running …" : "no end was reported");
    setClass(element, "failed", item.error !== undefined);
    body.replaceChildren(...block("Arguments", item.arguments), ...(item.error === undefined ? block("Result", item.result) : block("Error", item.error)));
  };
  return { element, update };
}

function toolState(item) {
  const milliseconds = new Date(item.returned) - new Date(item.time);
  const took = milliseconds < 1000 ? `${milliseconds} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
  return item.error === undefined ? took : `failed after ${took}`;
}

function block(title, value) {
  if (value === undefined || value === null) return [];
  return [h("h4", {}, title), h("pre", { tabindex: "0", "aria-label": title }, pretty(value))];
}

// Sub-agents

function lanesElement(context) {
  const element = h("section", { class: "lanes", "aria-label": "Sub-agents" });
  const lanes = new Map();
  const update = (item) => {
    for (const turnId of item.lanes) {
      if (!lanes.has(turnId)) lanes.set(turnId, laneElement(turnId, context));
      lanes.get(turnId).update(context.model.turns.get(turnId));
    }
    const elements = item.lanes.map((turnId) => lanes.get(turnId).element);
    // Only if there is a new one: moving elements would fold what is unfolded and lose the focus.
    if (element.children.length !== elements.length) element.replaceChildren(...elements);
  };
  return { element, update };
}

function laneElement(turnId, { containers }) {
  const name = h("h3", {});
  const state = h("span", { class: "pill" });
  const asked = h("p", { class: "asked" });
  const column = h("div", { class: "column" });
  const element = h("section", { class: "lane", "aria-label": `Sub-agent ${turnId}` }, h("header", {}, name, state), asked, column);
  containers.set(turnId, { element: column, nodes: [] });
  const update = (turn) => {
    setText(name, turn.agent ?? turnId);
    setText(asked, turn.asked ?? "");
    setText(state, turn.status === "waiting" ? "waits for an answer" : turn.status);
    state.className = `pill ${{ completed: "good", failed: "bad", stopped: "bad", waiting: "ask" }[turn.status] ?? "busy"}`;
  };
  return { element, update };
}

// Notices

function drawSteer(element, item) {
  const became = { received: "offered to the agent", consumed: "taken by the agent", expired: "became the next message" }[item.status];
  element.replaceChildren(h("b", {}, `${nameOf(item.actor)} steers`), h("span", { class: "said" }, item.text ?? ""), h("span", { class: "state" }, became ?? ""));
}

function drawData(element, item) {
  const { event } = item;
  element.replaceChildren(h("summary", {}, h("code", {}, event.type), ` ${nameOf(event.actor)}`), h("pre", { tabindex: "0", "aria-label": event.type }, pretty(event.data ?? {})));
}

function drawNotice(element, item) {
  const words = noticeText(item.event);
  const bad = ["turn.failed", "turn.retried"].includes(item.event.type);
  setClass(element, "bad", bad);
  setClass(element, "strong", /^(turn\.stopped|stop\.|takeover\.|session\.closed)/.test(item.event.type));
  element.replaceChildren(h("span", {}, words), h("time", { datetime: item.event.time }, time(item.event.time)));
}

const STOP_REASONS = { interrupted: "interrupted by a new message", takeover: "a person has taken over", parent_ended: "the agent that asked has ended", session_closed: "the session was closed" };

/** Returns one sentence for an event, which is shown and also announced to screen readers. */
export function noticeText(event) {
  const who = nameOf(event.actor);
  const { data = {} } = event;
  switch (event.type) {
    case "session.started":
      return `${who} started the session`;
    case "session.closed":
      return `${who} closed the session${data.reason ? `: ${isolate(data.reason)}` : ""}`;
    case "stop.requested":
      return `${who} pressed stop …`;
    case "turn.stopped": {
      const by = event.asked?.type === "stop.requested" ? ` by ${nameOf(event.asked.actor)}` : "";
      return `Stopped${by}${data.reason ? `: ${STOP_REASONS[data.reason] ?? isolate(data.reason)}` : ""}`;
    }
    case "turn.failed":
      return `The turn failed (${data.code})${data.detail ? `: ${isolate(data.detail)}` : ""}`;
    case "turn.retried":
      return `Attempt ${data.attempt} begins here (${data.code}${data.detail ? `: ${isolate(data.detail)}` : ""}); what the last one left unfinished is superseded`;
    case "turn.waiting":
      return "The agent waits, and no process runs meanwhile";
    case "turn.resumed":
      return "The agent goes on";
    case "turn.completed":
      return `${isolate(data.answered_by)} answered in the agent's place`;
    case "takeover.started":
      return `${who} has taken over${data.reason ? `: ${isolate(data.reason)}` : ""}. The agent's turns wait.`;
    case "takeover.released":
      return `${who} handed the session back to the agent`;
    case "participant.joined":
      return `${who} joined`;
    case "participant.left":
      return `${who} left`;
    default:
      return event.type;
  }
}
