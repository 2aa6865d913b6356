/** A form that starts a session: which agent, and the first message. */

import { ago, h, messageOf, setText, uuid } from "../dom.js";

const LAST = "waystation.agent";
const OTHER = "";

/**
 * @typedef {Pick<import("../api.js").Agent, "name"> & Partial<import("../api.js").Agent>} Agent
 * @typedef {import("../api.js").Api} Api
 */

/**
 * Calls `onStarted(sessionId)`. The form is there at once; the agents that are known arrive a moment later.
 * @param {Api} api
 * @param {{ onStarted: (sessionId: string) => void, label?: string, rows?: number }} wanted
 */
export function starter(api, { onStarted, label = "New session", rows = 1 }) {
  const named = h("input", { id: "agent-name", "aria-label": "Name of the agent", placeholder: "Its name", autocomplete: "off", spellcheck: "false", hidden: true });
  let touched = false;
  const agent = h("select", { id: "agent", onchange: () => {
    touched = true;
    choose();
  } });
  const text = rows > 1
    ? h("textarea", { id: "first", rows: String(rows), placeholder: "First message" })
    : h("input", { id: "first", placeholder: "First message", autocomplete: "off" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const sessionId = `s-${uuid()}`;
  const start = h("button", { class: "primary" }, label);
  const choose = () => {
    named.hidden = agent.value !== OTHER;
    named.required = !named.hidden;
  };
  /** @param {Agent[]} agents */
  const offer = (agents) => {
    /** @param {string} name */
    const has = (name) => agents.some((one) => one.name === name);
    // What somebody has chosen meanwhile stays.
    const chosen = touched ? agent.value : has(last()) ? last() : agents[0]?.name ?? last();
    const offered = chosen === OTHER || has(chosen) ? agents : [{ name: chosen }, ...agents];
    agent.replaceChildren(
      ...offered.map((one) => h("option", { value: one.name, selected: one.name === chosen }, one.name, state(one))),
      h("option", { value: OTHER, selected: chosen === OTHER }, "Another …"));
    choose();
  };
  /** @param {Event} event */
  const onsubmit = async (event) => {
    event.preventDefault();
    start.disabled = true;
    const message = text.value.trim() || undefined;
    const body = { agent: agent.value || named.value.trim(), session_id: sessionId, title: message?.slice(0, 80), message };
    try {
      const started = await api.call("start sessions", "POST", "/sessions", body);
      localStorage.setItem(LAST, body.agent);
      onStarted(started.session_id);
    } catch (error) {
      setText(problem, messageOf(error));
      problem.hidden = false;
      start.disabled = false;
    }
  };
  offer([]);
  api.call("start sessions", "GET", "/agents").then(({ agents }) => offer(inOrder(agents)), () => {
    // The one that was used last is still offered, and any other by its name.
  });
  return h("form", { class: "row starter", onsubmit }, h("label", { for: "agent" }, "Agent"), agent, named,
    h("label", { for: "first", class: "visually-hidden" }, "First message"), text, start, problem);
}

function last() {
  return localStorage.getItem(LAST) ?? "demo";
}

/**
 * Those that run, before those that don't.
 * @param {Agent[]} agents
 */
function inOrder(agents) {
  return [...agents].sort((a, b) => Number(runs(b)) - Number(runs(a)));
}

/** @param {Agent} agent */
function runs({ processes, workflows = 0 }) {
  return processes === undefined || (processes ?? 0) > 0 || workflows > 0;
}

/** @param {Agent} agent */
function state(agent) {
  const { last_seen: seen } = agent;
  if (runs(agent)) return "";
  return seen ? ` (last seen ${ago(seen)})` : " (not running)";
}
