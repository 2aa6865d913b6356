/** How the items of a session are drawn: one function for each kind. */

import { dateTime, duration, h, isolate, nameOf, pretty, setClass, setText, time } from "../dom.js";
import { forget, render } from "../markdown.js";
import { drawCard } from "./card.js";
import { questionElement } from "./question.js";

/** So many sub-agents beside one another also have a strip that shows them in short. */
const MIN_CHIPS = 3;
const MAX_SUMMARY_CHARACTERS = 60;
/** @type {Record<string, string>} */
const ROLE_TAG = { operator: "operator", system: "system" };

/**
 * @template {keyof import("../model.js").Items} [K=keyof import("../model.js").Items]
 * @typedef {import("../model.js").Item<K>} Item
 */

/**
 * @typedef {import("../api.js").Api} Api
 * @typedef {import("../model.js").SessionModel} Model
 * @typedef {import("../model.js").NoticeEvent} NoticeEvent
 * @typedef {import("../transcript.js").Message} Message
 * @typedef {{ element: HTMLElement, update: () => void }} Drawn
 * @typedef {Drawn & { key: string, kind: Item["kind"], at: number, born: number }} Placed What is on the page of an item; `at` is NaN until it has its place.
 * @typedef {{ element: HTMLElement, nodes: Placed[], changed: boolean }} Container
 * @typedef {object} Context
 * @property {Api} api
 * @property {string} sessionId
 * @property {Model} model
 * @property {Map<string | null, Container>} containers
 * @property {{ speaker: import("../api.js").Person | null }} composer
 * @property {(button: HTMLButtonElement, turnId: string, message: Message) => void} again
 */

/**
 * Returns an item's element, and what updates it: the item stays the same as long as it is there.
 * @param {Item} item
 * @param {Context} context
 * @returns {Drawn}
 */
export function itemElement(item, context) {
  const { api, model } = context;
  switch (item.kind) {
    case "message":
      return messageElement(item, context);
    case "tool":
      return toolElement(item, context);
    case "lanes":
      return lanesElement(item, context);
    case "card":
      return simple(h("article", { class: "card" }), (element) => drawCard(element, item, api));
    case "question": {
      const { element, update } = questionElement(context);
      return { element, update: () => update(item) };
    }
    case "steer":
      return simple(h("div", { class: "notice steer" }), (element) => drawSteer(element, item, api));
    case "data":
      return simple(h("details", { class: "fold data" }), (element) => drawData(element, item));
    case "note":
      return simple(h("article", { class: "staff-note", "aria-label": "Note for staff" }), (element) => drawNote(element, item, api));
    case "day":
      return simple(h("h3", { class: "day" }), (element) => drawDay(element, item, model));
    case "notice":
      return simple(h("div", { class: "notice" }), (element) => drawNotice(element, item, context));
  }
}

/** Notices that say how the agent works, and not what becomes of what was said. */
const WORK = new Set(["turn.retried", "turn.waiting", "turn.resumed", "turn.completed"]);

/**
 * Whether an item is of how an agent works, or for staff: not what a customer reads.
 * @param {Item} item
 */
export function isWork(item) {
  switch (item.kind) {
    case "tool":
    case "lanes":
    case "data":
      return true;
    case "message":
      return item.message.kind === "reasoning" || item.message.status === "withdrawn";
    case "note":
    case "notice":
      return item.event.visibility === "staff" || WORK.has(item.event.type);
    default:
      return false;
  }
}

const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", year: "numeric", month: "long", day: "numeric" });

/**
 * A line with the day, unless all is of today.
 * @param {HTMLElement} element
 * @param {Item<"day">} item
 * @param {Model} model
 */
function drawDay(element, item, { days }) {
  setText(element, DAY.format(new Date(item.time)));
  element.hidden = days.size === 1 && DAY.format(new Date()) === element.textContent;
}

/**
 * @param {HTMLElement} element
 * @param {(element: HTMLElement) => void} draw
 */
function simple(element, draw) {
  return { element, update: () => draw(element) };
}

// Messages

/**
 * @param {Item<"message">} item
 * @param {Context} context
 */
function messageElement(item, context) {
  const who = h("span", { class: "who" });
  const stamp = h("time", {});
  const text = h("div", { class: "text" });
  const note = h("p", { class: "state", hidden: true });
  const element = h("article", { class: "message" }, h("header", {}, who, stamp), text, note);
  /** @type {ReturnType<typeof reasoningElement> | null} */
  let fold = null;
  const reasoning = () => (fold ??= reasoningElement());
  return { element, update: () => drawMessage({ element, who, stamp, text, note, reasoning }, item, context) };
}

/**
 * @param {{ element: HTMLElement, who: HTMLElement, stamp: HTMLTimeElement, text: HTMLElement, note: HTMLElement, reasoning: typeof reasoningElement }} parts
 * @param {Item<"message">} item
 * @param {Context} context
 */
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
  if (message.kind === "reasoning") {
    const reasoning = parts.reasoning();
    if (reasoning.element.parentNode !== text) text.replaceChildren(reasoning.element);
    return reasoning.draw(message, model.reasonedFor(item));
  }
  if (role === "user") setText(text, message.text);
  else render(text, message.text);
}

/** @type {Record<string, string>} */
const CUT_OFF = { stopped: "Stopped here", failed: "Cut off: the turn failed", completed: "Left unfinished" };

/**
 * @param {Message} message
 * @param {boolean} queued
 */
function messageState(message, queued) {
  if (message.status === "superseded") return "Superseded: this attempt was withdrawn, and the turn was retried.";
  if (message.status === "withdrawn") return "Withdrawn before its turn";
  if (queued) return "Waiting its turn";
  return CUT_OFF[message.data.finish ?? ""] ?? "";
}

/**
 * @param {HTMLElement} text
 * @param {Message} message
 */
function drawSuperseded(text, message) {
  forget(text);
  text.replaceChildren(...(message.withdrawn ? [h("details", { class: "fold" }, h("summary", {}, "What it had said"), h("del", {}, message.withdrawn))] : []));
}

/** Reasoning is folded by default; unfolded, it grows as it streams. */
function reasoningElement() {
  const summary = h("summary", {});
  const body = h("div", { class: "text" });
  return {
    element: h("details", { class: "fold reasoning" }, summary, body),
    /**
     * @param {Message} message
     * @param {number | null} milliseconds
     */
    draw(message, milliseconds) {
      setText(summary, message.status === "streaming" ? "Reasoning …" : milliseconds !== null && milliseconds >= 1000 ? `Reasoned for ${duration(milliseconds)}` : "Reasoning");
      render(body, message.text);
    },
  };
}

// Tools

/**
 * @param {Item<"tool">} item
 * @param {Context} context
 */
function toolElement(item, { model }) {
  const name = h("code", {});
  const first = h("span", { class: "first" });
  const state = h("span", { class: "state" });
  const body = h("div", { class: "fold-body" });
  const element = h("details", { class: "fold tool" }, h("summary", {}, "Tool ", name, " ", first, " ", state), body);
  const update = () => {
    setText(name, item.name ?? "?");
    setText(first, firstArgument(item.arguments));
    setText(state, item.returned ? toolState(item, item.returned) : model.mayRun(item) ? "running …" : "no end was reported");
    setClass(element, "failed", item.error !== undefined);
    body.replaceChildren(...block("Arguments", item.arguments), ...(item.error === undefined ? block("Result", item.result) : block("Error", item.error)));
  };
  return { element, update };
}

/**
 * @param {Item<"tool">} item
 * @param {string} returned
 */
function toolState(item, returned) {
  const took = duration(new Date(returned).getTime() - new Date(item.time ?? returned).getTime());
  return item.error === undefined ? took : `failed after ${took}: ${isolate(short(item.error))}`;
}

/**
 * The first argument tells most calls apart.
 * @param {unknown} given
 */
export function firstArgument(given) {
  const value = given && typeof given === "object" ? Object.values(given)[0] : given;
  return value === undefined || value === null ? "" : short(typeof value === "string" ? value : JSON.stringify(value));
}

/** @param {unknown} value */
export function short(value) {
  const line = String(typeof value === "string" ? value : pretty(value)).split("\n", 1)[0];
  return line.length > MAX_SUMMARY_CHARACTERS ? `${line.slice(0, MAX_SUMMARY_CHARACTERS)} …` : line;
}

/**
 * @param {string} title
 * @param {unknown} value
 */
function block(title, value) {
  if (value === undefined || value === null) return [];
  return [h("h3", {}, title), h("pre", { tabindex: "0", "aria-label": title }, pretty(value))];
}

// Sub-agents

/**
 * @param {Item<"lanes">} item
 * @param {Context} context
 */
function lanesElement(item, context) {
  const element = h("section", { class: "lanes", "aria-label": "Sub-agents" });
  /** @type {Map<string, ReturnType<typeof laneElement>>} */
  const known = new Map();
  const strip = h("div", { class: "chips", role: "group", "aria-label": "Sub-agents in short" });
  const update = () => {
    const lanes = item.lanes.map((turnId) => {
      const lane = known.get(turnId) ?? laneElement(turnId, context);
      known.set(turnId, lane);
      lane.update(context.model.turns.get(turnId));
      return lane;
    });
    /** @type {HTMLElement[]} */
    const elements = lanes.map((lane) => lane.element);
    if (elements.length >= MIN_CHIPS) {
      if (strip.children.length !== elements.length) strip.replaceChildren(...lanes.map((lane) => lane.chip));
      elements.unshift(strip);
    }
    // Only if there is a new one: moving elements would fold what is unfolded and lose the focus.
    if (element.children.length !== elements.length) element.replaceChildren(...elements);
  };
  return { element, update };
}

/** @type {Record<string, string>} */
const TONES = { completed: "good", failed: "bad", stopped: "bad", waiting: "ask" };

/**
 * @param {string} turnId
 * @param {Context} context
 */
function laneElement(turnId, { containers }) {
  const name = h("h3", {});
  const state = h("span", { class: "pill" });
  const asked = h("p", { class: "asked" });
  const column = h("div", { class: "column" });
  const element = h("section", { class: "lane", "aria-label": `Sub-agent ${turnId}` }, h("header", {}, name, state), asked, column);
  containers.set(turnId, { element: column, nodes: [], changed: false });
  const chip = h("button", { type: "button", onclick: () => {
    element.setAttribute("tabindex", "-1");
    element.scrollIntoView({ block: "nearest" });
    element.focus({ preventScroll: true });
  } });
  const update = (/** @type {import("../model.js").Turn | undefined} */ turn) => {
    if (!turn) return;
    const words = `${turn.agent ?? turnId} ${turnId.slice(turnId.lastIndexOf(".") + 1)}`;
    setText(chip, `${words}: ${turn.status === "waiting" ? "waits" : turn.status}`);
    chip.dataset.status = turn.status;
    setText(name, turn.agent ?? turnId);
    setText(asked, turn.asked ?? "");
    setText(state, turn.status === "waiting" ? "waits for an answer" : turn.status);
    state.className = `pill ${TONES[turn.status] ?? "busy"}`;
  };
  return { element, chip, update };
}

// Notices

/** @type {Record<string, string>} */
const STEERS = { received: "offered to the agent", consumed: "taken by the agent", expired: "became the next message" };

/**
 * @param {HTMLElement} element
 * @param {Item<"steer">} item
 * @param {Api} api
 */
function drawSteer(element, item, api) {
  const became = STEERS[item.status ?? ""];
  element.replaceChildren(h("b", {}, item.actor && api.isMe(item.actor.id) ? "You steer" : `${nameOf(item.actor)} steers`), h("span", { class: "said" }, item.text ?? ""), h("span", { class: "state" }, became ?? ""));
}

/**
 * @param {HTMLElement} element
 * @param {Item<"data">} item
 */
function drawData(element, item) {
  const { event } = item;
  element.replaceChildren(h("summary", {}, h("code", {}, event.type), ` ${nameOf(event.actor)}`), h("pre", { tabindex: "0", "aria-label": event.type }, pretty(event.data ?? {})));
}

/**
 * What staff write to each other: it must not be taken for something that was said to anybody else.
 * @param {HTMLElement} element
 * @param {Item<"note">} item
 * @param {Api} api
 */
function drawNote(element, { event }, api) {
  if (element.firstChild) return;
  element.append(h("header", {}, h("b", {}, api.isMe(event.actor.id) ? "You" : nameOf(event.actor)), " noted for staff ", h("time", { datetime: event.time, title: dateTime(event.time) }, time(event.time))),
    h("p", { class: "value" }, event.data.text));
}

/**
 * What an event says of a turn that goes wrong.
 * @param {NoticeEvent} event
 * @returns {{ code?: string, detail?: string }}
 */
function faultOf(event) {
  return event.type === "turn.failed" || event.type === "turn.retried" ? event.data ?? {} : {};
}

/**
 * @param {HTMLElement} element
 * @param {Item<"notice">} item
 * @param {Context} context
 */
function drawNotice(element, item, context) {
  const { event } = item;
  const { api, model } = context;
  const words = noticeText(event, (id) => api.isMe(id), model.participants);
  const { code, detail } = faultOf(event);
  const turnId = event.turn_id ?? "";
  const message = event.type === "turn.failed" && context.composer.speaker ? model.mayTryAgain(turnId) : null;
  // A withdrawn message says so itself.
  element.hidden = event.type === "turn.stopped" && model.transcript.messages.get(model.turns.get(turnId)?.messageId ?? "")?.status === "withdrawn";
  const drawn = `${words} ${code} ${Boolean(message)}`;
  // What is unfolded or focused stays so.
  if (element.dataset.drawn === drawn) return;
  element.dataset.drawn = drawn;
  setClass(element, "bad", ["turn.failed", "turn.retried"].includes(event.type));
  setClass(element, "strong", /^(turn\.stopped|stop\.|takeover\.|session\.closed)/.test(event.type));
  element.replaceChildren(h("span", {}, words), h("time", { datetime: event.time, title: dateTime(event.time) }, time(event.time)),
    ...(code ? [h("details", { class: "fold" }, h("summary", {}, "Details"), h("pre", { tabindex: "0", "aria-label": "Details" }, `${code}${detail ? `\n${detail}` : ""}`))] : []),
    ...(message ? [h("button", { type: "button", onclick: ({ currentTarget }) => context.again(currentTarget, turnId, message) }, "Try again")] : []));
}

/** @type {Record<string, string>} */
const FAILURES = {
  agent_unavailable: "no process runs this agent",
  agent_lost: "the agent's process ended or hung",
  agent_restarted: "the agent's process was restarted",
  agent_retry: "the agent asked for it",
  agent_error: "the agent ran into an error",
  turn_timeout: "it took too long",
  turn_diverged: "the agent took another way than before it waited",
};
/** @type {Record<string, string>} */
const STOP_REASONS = { interrupted: "interrupted by a new message", takeover: "a person has taken over", parent_ended: "the agent that asked has ended", session_closed: "the session was closed", withdrawn: "its message was withdrawn" };

/**
 * Returns one sentence for an event, which is shown and also announced to screen readers. `isMe` tells by the id whether
 * it is about whoever reads it; `people` are known by their ids.
 * @param {NoticeEvent} event
 * @param {(id: string) => boolean} isMe
 * @param {Map<string, import("../transcript.js").Actor>} [people]
 */
export function noticeText(event, isMe, people = new Map()) {
  const mine = isMe(event.actor.id);
  const who = mine ? "You" : nameOf(event.actor);
  const named = (/** @type {{ id: string, name?: string | null }} */ person) => (isMe(person.id) ? "you" : nameOf(person));
  switch (event.type) {
    case "session.started":
      return `${who} started the session`;
    case "session.closed":
      return `${who} closed the session${because(event)}`;
    case "stop.requested":
      return `${who} pressed stop …`;
    case "turn.stopped": {
      const by = event.asked?.type === "stop.requested" ? ` by ${named(event.asked.actor)}` : "";
      const known = STOP_REASONS[event.data?.reason ?? ""];
      return `Stopped${by}${known ? `: ${known}` : because(event)}`;
    }
    case "turn.failed":
      return `No answer: ${failure(event)}`;
    case "turn.retried":
      return `Attempt ${event.data?.attempt} begins here: ${failure(event)}. What the last one left unfinished is superseded.`;
    case "turn.waiting":
      return "The agent waits, and no process runs meanwhile";
    case "turn.resumed":
      return "The agent goes on";
    case "turn.completed":
      return `${who} answered in the agent's place`;
    case "takeover.started": {
      const before = event.data?.instead_of;
      return `${who} ${mine ? "have" : "has"} taken over${before ? ` from ${named(people.get(before) ?? { id: before })}` : ""}${because(event)}. The agent's turns wait.`;
    }
    case "takeover.released":
      return `${who} handed the session back to the agent`;
    case "note.added":
      return `${who} noted for staff: ${isolate(event.data.text)}`;
    case "session.assigned":
      return event.data?.operator ? (isMe(event.data.operator.id) ? "You look after this session" : `${nameOf(event.data.operator)} looks after this session`) : "Nobody looks after this session any more";
    case "participant.joined":
      return `${who} joined`;
    case "participant.left":
      return `${who} left`;
    default:
      return event.type;
  }
}

/** @param {{ data?: { reason?: string | null } }} event */
function because({ data }) {
  return data?.reason ? `: ${isolate(data.reason)}` : "";
}

/** @param {NoticeEvent} event */
function failure(event) {
  return FAILURES[faultOf(event).code ?? ""] ?? "something went wrong";
}
