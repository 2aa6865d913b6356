/** A session as a file: all its events as JSON, or what was said and done as Markdown. */

import { clean, nameOf, visible } from "./dom.js";
import { Transcript } from "./transcript.js";

/**
 * @typedef {import("./transcript.js").SessionEvent} SessionEvent
 * @typedef {{ session_id: string, title: string | null, agent: string | null }} About
 */

const FORMAT = "waystation-session/1";

/**
 * All events, as `GET /sessions/{id}/replay` returns them; docs/console.md has the format.
 * @param {About} about
 * @param {SessionEvent[]} events
 * @param {string} exportedAt
 */
export function toJson(about, events, exportedAt) {
  return `${JSON.stringify({ format: FORMAT, ...about, exported_at: exportedAt, tip: events.at(-1)?.seq ?? 0, events }, null, 1)}\n`;
}

/**
 * Foreign text that stays text: nothing in it is a heading, list, link, picture, code or markup.
 * @param {string} text
 */
export function escaped(text) {
  const lines = clean(text).split("\n").map((line) =>
    line
      .replace(/[\\`*_[\]<>&|~$^]/g, "\\$&")
      // Addresses become links by themselves.
      .replace(/:(?=\/\/)/g, "\\:").replace(/\b(mailto|xmpp|tel):/gi, "$1\\:").replace(/\bwww\./gi, (found) => `${found.slice(0, 3)}\\.`).replace(/@/g, "\\@")
      .replace(/^\s+/, (spaces) => "\u00a0".repeat(spaces.length)).replace(/\s+$/, "")
      .replace(/^(\u00a0*)([#+=:-])/, "$1\\$2").replace(/^(\u00a0*\d+)([.)])/, "$1\\$2"));
  return lines.map((line, at) => (line && lines[at + 1] ? `${line}\\` : line)).join("\n");
}

/** @param {string} text */
function inline(text) {
  return escaped(text.replace(/\s*\n\s*/g, " "));
}

/**
 * @param {unknown} value
 * @param {string} language
 */
function block(value, language) {
  const text = visible(typeof value === "string" ? value : JSON.stringify(value, null, 2));
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}

/** @param {string} time */
function at(time) {
  return `${time.slice(0, 10)} ${time.slice(11, 19)} UTC`;
}

const LEFT_OUT = new Set(["turn.started", "turn.queued", "turn.completed", "usage.reported", "steer.consumed", "message.superseded", "message.withdrawn"]);

/** @param {Omit<SessionEvent, "type" | "data"> & { type: string, data?: Record<string, unknown> }} event */
function sentence({ type, actor, turn_id: turnId, data = {}, time }) {
  const who = `**${inline(nameOf(actor))}**`;
  const where = turnId ? ` in ${inline(turnId)}` : "";
  const words = /** @type {Record<string, string>} */ ({
    "tool.called": `${who} calls ${data.kind === "step" ? "the step" : "the tool"} **${inline(String(data.name))}**${where}`,
    "tool.returned": `**${inline(String(data.name))}** has ${data.error === undefined || data.error === null ? "returned" : "failed"}${where}`,
    "input.requested": `${who} asks${where}`,
    "input.answered": `${who} answers${where}`,
    "agent.spawned": `${who} starts **${inline(String(data.agent))}** as ${inline(String(turnId))}`,
    "note.added": `${who} notes for staff`,
    "steer.received": `${who} steers${where}`,
    "takeover.started": `${who} takes over`,
    "takeover.released": `${who} hands back to the agent`,
    "stop.requested": `${who} stops the agent`,
    "participant.joined": `${who} joins`,
    "participant.left": `${who} leaves`,
  })[type] ?? `${inline(type)}${where}, ${who}`;
  const said = typeof data.text === "string" ? data.text : typeof data.prompt === "string" ? data.prompt : null;
  const value = type === "tool.called" ? data.arguments : type === "tool.returned" ? data.error ?? data.result : type === "input.answered" ? data.value : said === null && Object.keys(data).length ? data : undefined;
  return [`*${at(time)}* · ${words}`, said === null ? "" : quoted(escaped(said)), value === undefined || value === null ? "" : block(value, "json")].filter(Boolean).join("\n\n");
}

/** @param {string} text */
function quoted(text) {
  return text.split("\n").map((line) => (line ? `> ${line}` : ">")).join("\n");
}

/**
 * A transcript to be read, in order; what was superseded is left out.
 * @param {About} about
 * @param {SessionEvent[]} events
 * @param {string} exportedAt
 */
export function toMarkdown(about, events, exportedAt) {
  const transcript = new Transcript();
  for (const event of events) transcript.apply(event);
  const times = new Map(events.map((event) => [event.message_id, event.time]));
  /** @type {[number, string][]} */
  const parts = [];
  for (const message of transcript.inOrder()) {
    if (message.kind === "steer" || message.status === "superseded") continue;
    const marks = [message.actor.role, message.kind === "message" ? "" : message.kind, message.turnId?.includes(".") ? message.turnId : "", message.status === "completed" ? "" : message.status].filter(Boolean).map(inline).join(", ");
    parts.push([message.order ?? Infinity, `## ${inline(nameOf(message.actor))} (${marks})\n\n*${at(times.get(message.id) ?? exportedAt)}*\n\n${escaped(message.text)}`]);
  }
  for (const event of events) if (!event.message_id && !LEFT_OUT.has(event.type)) parts.push([event.seq, sentence(event)]);
  parts.sort(([a], [b]) => a - b);
  const head = `# ${inline(about.title ?? about.session_id)}\n\nSession ${inline(about.session_id)}, agent ${inline(about.agent ?? "unknown")}. Exported ${at(exportedAt)}.`;
  return `${[head, ...parts.map(([, text]) => text)].join("\n\n")}\n`;
}
