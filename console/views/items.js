/** How the items of a session are drawn: one function for each kind. */

import { dateTime, duration, h, isolate, nameOf, pretty, setClass, setText, time } from "../dom.js";
import { render } from "../markdown.js";
import { drawCard } from "./card.js";
import { questionElement } from "./question.js";

/** So many sub-agents beside one another also have a strip that shows them in short. */
const MIN_CHIPS = 3;
const MAX_SUMMARY_CHARACTERS = 60;
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
      return simple(h("div", { class: "notice steer" }), (element, now) => drawSteer(element, now, context.api));
    case "data":
      return simple(h("details", { class: "fold data" }), drawData);
    case "note":
      return simple(h("article", { class: "staff-note", "aria-label": "Note for staff" }), (element, now) => drawNote(element, now, context.api));
    case "day":
      return simple(h("h3", { class: "day" }), (element, now) => drawDay(element, now, context.model));
    default:
      return simple(h("div", { class: "notice" }), (element, now) => drawNotice(element, now, context));
  }
}

/** Notices that say how the agent works, and not what becomes of what was said. */
const WORK = new Set(["turn.retried", "turn.waiting", "turn.resumed", "turn.completed"]);

/** Whether an item is of how an agent works, or for staff: not what a customer reads. */
export function isWork({ kind, message, event }) {
  if (["tool", "lanes", "data"].includes(kind) || message?.kind === "reasoning") return true;
  return event?.visibility === "staff" || WORK.has(event?.type) || message?.status === "withdrawn";
}

const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", year: "numeric", month: "long", day: "numeric" });

/** A line with the day, unless all is of today. */
function drawDay(element, item, { days }) {
  setText(element, DAY.format(new Date(item.time)));
  element.hidden = days.size === 1 && DAY.format(new Date()) === element.textContent;
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
  setClass(element, "withdrawn", message.status === "withdrawn");
  setText(parts.who, api.isMe(message.actor.id) ? "You" : nameOf(message.actor));
  parts.who.dataset.tag = ROLE_TAG[role] ?? "";
  if (item.time) {
    parts.stamp.dateTime = item.time;
    setText(parts.stamp, time(item.time));
    parts.stamp.title = dateTime(item.time);
  }
  const queued = model.turnAnswering(message.id)?.status === "queued";
  const state = messageState(message, queued);
  setText(parts.note, state);
  parts.note.hidden = !state;
  if (message.status === "superseded") return drawSuperseded(text, message);
  if (message.kind === "reasoning") return drawReasoning(text, message, model.reasonedFor(item));
  if (role === "user") setText(text, message.text);
  else render(text, message.text);
}

function messageState(message, queued) {
  if (message.status === "superseded") return "Superseded: this attempt was withdrawn, and the turn was retried.";
  if (message.status === "withdrawn") return "Withdrawn before its turn";
  if (queued) return "Waiting its turn";
  return { stopped: "Stopped here", failed: "Cut off: the turn failed", completed: "Left unfinished" }[message.data.finish] ?? "";
}

function drawSuperseded(text, message) {
  text.rendered = null;
  text.replaceChildren(...(message.withdrawn ? [h("details", { class: "fold" }, h("summary", {}, "What it had said"), h("del", {}, message.withdrawn))] : []));
}

/** Reasoning is folded by default; unfolded, it grows as it streams. */
function drawReasoning(text, message, milliseconds) {
  if (!text.fold) {
    text.body = h("div", { class: "text" });
    text.fold = h("details", { class: "fold reasoning" }, h("summary", {}), text.body);
    text.replaceChildren(text.fold);
  }
  setText(text.fold.firstChild, message.status === "streaming" ? "Reasoning …" : milliseconds >= 1000 ? `Reasoned for ${duration(milliseconds)}` : "Reasoning");
  render(text.body, message.text);
}

// Tools

function toolElement({ model }) {
  const name = h("code", {});
  const first = h("span", { class: "first" });
  const state = h("span", { class: "state" });
  const body = h("div", { class: "fold-body" });
  const element = h("details", { class: "fold tool" }, h("summary", {}, "Tool ", name, " ", first, " ", state), body);
  const update = (item) => {
    setText(name, item.name ?? "?");
    setText(first, firstArgument(item.arguments));
    setText(state, item.returned ? toolState(item) : model.mayRun(item) ? "running …" : "no end was reported");
    setClass(element, "failed", item.error !== undefined);
    body.replaceChildren(...block("Arguments", item.arguments), ...(item.error === undefined ? block("Result", item.result) : block("Error", item.error)));
  };
  return { element, update };
}

function toolState(item) {
  const milliseconds = new Date(item.returned) - new Date(item.time);
  const took = duration(milliseconds);
  return item.error === undefined ? took : `failed after ${took}: ${isolate(short(item.error))}`;
}

/** The first argument tells most calls apart. */
export function firstArgument(given) {
  const value = given && typeof given === "object" ? Object.values(given)[0] : given;
  return value === undefined || value === null ? "" : short(typeof value === "string" ? value : JSON.stringify(value));
}

export function short(value) {
  const line = String(typeof value === "string" ? value : pretty(value)).split("\n", 1)[0];
  return line.length > MAX_SUMMARY_CHARACTERS ? `${line.slice(0, MAX_SUMMARY_CHARACTERS)} …` : line;
}

function block(title, value) {
  if (value === undefined || value === null) return [];
  return [h("h3", {}, title), h("pre", { tabindex: "0", "aria-label": title }, pretty(value))];
}

// Sub-agents

function lanesElement(context) {
  const element = h("section", { class: "lanes", "aria-label": "Sub-agents" });
  const lanes = new Map();
  const strip = h("div", { class: "chips", role: "group", "aria-label": "Sub-agents in short" });
  const update = (item) => {
    for (const turnId of item.lanes) {
      if (!lanes.has(turnId)) lanes.set(turnId, laneElement(turnId, context));
      lanes.get(turnId).update(context.model.turns.get(turnId));
    }
    const elements = item.lanes.map((turnId) => lanes.get(turnId).element);
    if (elements.length >= MIN_CHIPS) {
      if (strip.children.length !== elements.length) strip.replaceChildren(...item.lanes.map((turnId) => lanes.get(turnId).chip));
      elements.unshift(strip);
    }
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
  const chip = h("button", { type: "button", onclick: () => {
    element.setAttribute("tabindex", "-1");
    element.scrollIntoView({ block: "nearest" });
    element.focus({ preventScroll: true });
  } });
  const update = (turn) => {
    const words = `${turn.agent ?? turnId} ${turnId.slice(turnId.lastIndexOf(".") + 1)}`;
    setText(chip, `${words}: ${turn.status === "waiting" ? "waits" : turn.status}`);
    chip.dataset.status = turn.status;
    setText(name, turn.agent ?? turnId);
    setText(asked, turn.asked ?? "");
    setText(state, turn.status === "waiting" ? "waits for an answer" : turn.status);
    state.className = `pill ${{ completed: "good", failed: "bad", stopped: "bad", waiting: "ask" }[turn.status] ?? "busy"}`;
  };
  return { element, chip, update };
}

// Notices

function drawSteer(element, item, api) {
  const became = { received: "offered to the agent", consumed: "taken by the agent", expired: "became the next message" }[item.status];
  element.replaceChildren(h("b", {}, api.isMe(item.actor.id) ? "You steer" : `${nameOf(item.actor)} steers`), h("span", { class: "said" }, item.text ?? ""), h("span", { class: "state" }, became ?? ""));
}

function drawData(element, item) {
  const { event } = item;
  element.replaceChildren(h("summary", {}, h("code", {}, event.type), ` ${nameOf(event.actor)}`), h("pre", { tabindex: "0", "aria-label": event.type }, pretty(event.data ?? {})));
}

/** What staff write to each other: it must not be taken for something that was said to anybody else. */
function drawNote(element, { event }, api) {
  if (element.firstChild) return;
  element.append(h("header", {}, h("b", {}, api.isMe(event.actor.id) ? "You" : nameOf(event.actor)), " noted for staff ", h("time", { datetime: event.time, title: dateTime(event.time) }, time(event.time))),
    h("p", { class: "value" }, event.data.text));
}

function drawNotice(element, item, context) {
  const words = noticeText(item.event, (id) => context.api.isMe(id), context.model.participants);
  const { event } = item;
  const { code, detail } = event.data ?? {};
  const message = event.type === "turn.failed" && context.composer?.speaker ? context.model.mayTryAgain(event.turn_id) : null;
  // A withdrawn message says so itself.
  const { messageId } = context.model.turns.get(event.turn_id) ?? {};
  element.hidden = event.type === "turn.stopped" && context.model.transcript.messages.get(messageId)?.status === "withdrawn";
  const drawn = `${words} ${code} ${Boolean(message)}`;
  // What is unfolded or focused stays so.
  if (element.dataset.drawn === drawn) return;
  element.dataset.drawn = drawn;
  const bad = ["turn.failed", "turn.retried"].includes(item.event.type);
  setClass(element, "bad", bad);
  setClass(element, "strong", /^(turn\.stopped|stop\.|takeover\.|session\.closed)/.test(item.event.type));
  element.replaceChildren(h("span", {}, words), h("time", { datetime: event.time, title: dateTime(event.time) }, time(event.time)),
    ...(code ? [h("details", { class: "fold" }, h("summary", {}, "Details"), h("pre", { tabindex: "0", "aria-label": "Details" }, `${code}${detail ? `\n${detail}` : ""}`))] : []),
    ...(message ? [h("button", { type: "button", onclick: ({ currentTarget }) => context.again(currentTarget, event.turn_id, message) }, "Try again")] : []));
}

const FAILURES = {
  agent_unavailable: "no process runs this agent",
  agent_lost: "the agent's process ended or hung",
  agent_restarted: "the agent's process was restarted",
  agent_retry: "the agent asked for it",
  agent_error: "the agent ran into an error",
  turn_timeout: "it took too long",
  turn_diverged: "the agent took another way than before it waited",
};
const STOP_REASONS = { interrupted: "interrupted by a new message", takeover: "a person has taken over", parent_ended: "the agent that asked has ended", session_closed: "the session was closed", withdrawn: "its message was withdrawn" };

/**
 * Returns one sentence for an event, which is shown and also announced to screen readers. `isMe` tells by the id whether
 * it is about whoever reads it; `people` are known by their ids.
 */
export function noticeText(event, isMe, people = new Map()) {
  const mine = isMe(event.actor?.id);
  const who = mine ? "You" : nameOf(event.actor);
  const named = (person) => (isMe(person.id) ? "you" : nameOf(person));
  const { data = {} } = event;
  switch (event.type) {
    case "session.started":
      return `${who} started the session`;
    case "session.closed":
      return `${who} closed the session${data.reason ? `: ${isolate(data.reason)}` : ""}`;
    case "stop.requested":
      return `${who} pressed stop …`;
    case "turn.stopped": {
      const by = event.asked?.type === "stop.requested" ? ` by ${named(event.asked.actor)}` : "";
      return `Stopped${by}${data.reason ? `: ${STOP_REASONS[data.reason] ?? isolate(data.reason)}` : ""}`;
    }
    case "turn.failed":
      return `No answer: ${FAILURES[data.code] ?? "something went wrong"}`;
    case "turn.retried":
      return `Attempt ${data.attempt} begins here: ${FAILURES[data.code] ?? "something went wrong"}. What the last one left unfinished is superseded.`;
    case "turn.waiting":
      return "The agent waits, and no process runs meanwhile";
    case "turn.resumed":
      return "The agent goes on";
    case "turn.completed":
      return `${who} answered in the agent's place`;
    case "takeover.started":
      return `${who} ${mine ? "have" : "has"} taken over${data.instead_of ? ` from ${named(people.get(data.instead_of) ?? { id: data.instead_of })}` : ""}${data.reason ? `: ${isolate(data.reason)}` : ""}. The agent's turns wait.`;
    case "takeover.released":
      return `${who} handed the session back to the agent`;
    case "note.added":
      return `${who} noted for staff: ${isolate(data.text)}`;
    case "session.assigned":
      return data.operator ? (isMe(data.operator.id) ? "You look after this session" : `${nameOf(data.operator)} looks after this session`) : "Nobody looks after this session any more";
    case "participant.joined":
      return `${who} joined`;
    case "participant.left":
      return `${who} left`;
    default:
      return event.type;
  }
}
