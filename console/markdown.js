/**
 * The little Markdown that people and models write, as DOM nodes.
 *
 * Text becomes nodes with createElement and textContent alone, so nothing that anybody says can
 * become markup. Links lead to http(s) only.
 */

import { h } from "./dom.js";

// No pattern may try one stretch of text in more than one way: what somebody writes must not stop
// the tab of everyone who looks. Hence the bounds on spans, too.
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const LANGUAGE = /^\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(\S.*)$/;
const HEADING_END = /\s#+$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const BULLET = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?(.*)$/;
const TABLE_RULE = /^:?-+:?$/;
const MAX_DEPTH = 6;
/** Longer blocks are shown as they are written. */
const MAX_INLINE_CHARACTERS = 20_000;

const INLINE = new RegExp(
  [
    "(?<code>`+)(?<codeText>.{1,500}?)\\k<code>(?!`)",
    "\\[(?<linkText>[^\\[\\]]+)\\]\\((?<href>https?://[^\\s()<>]+(?:\\([^\\s()<>]*\\)[^\\s()<>]*)*)\\)",
    "(?<bare>https?://[^\\s<>\"'`]*[^\\s<>\"'`.,;:!?)\\]*_])",
    "\\*\\*(?=\\S)(?<strong>.{1,500}?)(?<=\\S)\\*\\*",
    "~~(?=\\S)(?<del>.{1,500}?)(?<=\\S)~~",
    "\\*(?=[^\\s*])(?<em>[^*]+?)(?<=[^\\s*])\\*",
    "(?<![\\w_])_(?=\\S)(?<em2>[^_]+?)(?<=\\S)_(?![\\w_])",
    "\\\\(?<escaped>[\\\\`*_{}\\[\\]()#+.!~>|-])",
  ].join("|"),
  "su",
);

/** Text to blocks: `{kind, source, …}`, whose `source` tells whether one has changed. */
export function blocks(text) {
  const lines = text.split("\n");
  const found = [];
  for (let at = 0; at < lines.length; ) {
    const from = at;
    const block = readBlock(lines, at);
    at = block.next;
    if (block.kind) found.push({ ...block, source: `${block.kind}\n${lines.slice(from, at).join("\n")}` });
  }
  return found;
}

function readBlock(lines, at) {
  const line = lines[at];
  let match;
  if (!line.trim()) return { next: at + 1 };
  if ((match = FENCE.exec(line))) return readFence(lines, at, match);
  if ((match = HEADING.exec(line))) return { kind: "heading", level: match[1].length, text: match[2].trimEnd().replace(HEADING_END, "").trimEnd(), next: at + 1 };
  if (RULE.test(line)) return { kind: "rule", next: at + 1 };
  if (QUOTE.test(line)) {
    const end = until(lines, at, (next) => !QUOTE.test(next));
    return { kind: "quote", text: lines.slice(at, end).map((one) => QUOTE.exec(one)[1]).join("\n"), next: end };
  }
  if (BULLET.test(line)) {
    const end = until(lines, at, (next) => !next.trim() || !(BULLET.test(next) || /^\s{2,}\S/.test(next)));
    return { kind: "list", lines: lines.slice(at, end), next: end };
  }
  if (line.includes("|") && isTableRule(lines[at + 1] ?? "")) {
    const end = until(lines, at + 1, (next) => !next.includes("|"));
    return { kind: "table", rows: [line, ...lines.slice(at + 2, end)].map(cells), next: end };
  }
  const starts = (next) => !next.trim() || [FENCE, HEADING, RULE, QUOTE, BULLET].some((one) => one.test(next));
  const end = until(lines, at, starts);
  return { kind: "paragraph", text: lines.slice(at, end).join("\n"), next: end };
}

function isTableRule(line) {
  return cells(line).every((cell) => TABLE_RULE.test(cell));
}

function readFence(lines, at, [, mark, about]) {
  const [, language] = LANGUAGE.exec(about);
  const closes = new RegExp(`^ {0,3}${mark[0] === "`" ? "`" : "~"}{${mark.length},}\\s*$`);
  const end = until(lines, at, (next) => closes.test(next));
  return { kind: "code", language, text: lines.slice(at + 1, end).join("\n"), next: Math.min(end + 1, lines.length) };
}

/** The first line after `at` for which it holds, or the end. */
function until(lines, at, holds) {
  let end = at + 1;
  while (end < lines.length && !holds(lines[end])) end += 1;
  return end;
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
}

function blockNode(block, depth = 0) {
  switch (block.kind) {
    case "code":
      return h("pre", { tabindex: "0", "aria-label": block.language ? `${block.language} code` : "code" }, h("code", {}, block.text));
    case "heading":
      // The page has headings of its own; those of a message come below them.
      return h(`h${Math.min(block.level + 3, 6)}`, {}, ...inline(block.text));
    case "rule":
      return h("hr");
    case "quote":
      return h("blockquote", {}, ...(depth < MAX_DEPTH ? blocks(block.text).map((one) => blockNode(one, depth + 1)) : [block.text]));
    case "list":
      return listNode(block.lines, depth);
    case "table":
      return tableNode(block.rows);
    default:
      return h("p", {}, ...inline(block.text));
  }
}

function listNode(lines, depth) {
  const [, indent, number] = BULLET.exec(lines[0]);
  const list = number ? h("ol", number === "1" ? {} : { start: number }) : h("ul");
  for (let at = 0; at < lines.length; ) {
    const match = BULLET.exec(lines[at]);
    const own = (line) => BULLET.exec(line)?.[1].length <= indent.length;
    const end = until(lines, at, own);
    const item = h("li", {}, ...inline((match ? match[3] : lines[at].trim())));
    const rest = lines.slice(at + 1, end);
    const nested = rest.findIndex((line) => BULLET.test(line));
    const words = (nested < 0 ? rest : rest.slice(0, nested)).map((line) => line.trim()).join(" ");
    if (words) item.append(" ", ...inline(words));
    if (nested >= 0 && depth < MAX_DEPTH) item.append(listNode(rest.slice(nested), depth + 1));
    list.append(item);
    at = end;
  }
  return list;
}

function tableNode([head, ...rows]) {
  const row = (tag, texts) => h("tr", {}, ...texts.map((text) => h(tag, {}, ...inline(text))));
  return h("div", { class: "table", tabindex: "0", role: "group", "aria-label": "table" },
    h("table", {}, h("thead", {}, row("th", head)), h("tbody", {}, ...rows.map((texts) => row("td", texts)))));
}

function inline(text, depth = 0) {
  if (text.length > MAX_INLINE_CHARACTERS) return [text];
  const nodes = [];
  for (let rest = text; rest; ) {
    const match = depth < MAX_DEPTH ? INLINE.exec(rest) : null;
    if (!match) {
      nodes.push(rest);
      break;
    }
    if (match.index) nodes.push(rest.slice(0, match.index));
    nodes.push(inlineNode(match.groups, depth + 1));
    rest = rest.slice(match.index + match[0].length);
  }
  return nodes;
}

function inlineNode(found, depth) {
  if (found.codeText !== undefined) return h("code", {}, found.codeText);
  // No marks in the words of a link: an address in them would be a link in a link, to elsewhere.
  if (found.href) return link(found.href, [found.linkText]);
  if (found.bare) return link(found.bare, [found.bare]);
  if (found.strong) return h("strong", {}, ...inline(found.strong, depth));
  if (found.del) return h("del", {}, ...inline(found.del, depth));
  if (found.em ?? found.em2) return h("em", {}, ...inline(found.em ?? found.em2, depth));
  return found.escaped;
}

function link(address, children) {
  return h("a", { href: safeAddress(address), title: address, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

/** The address if it is one of the web's, otherwise null: no other scheme is ever followed. */
export function safeAddress(address) {
  try {
    return ["http:", "https:"].includes(new URL(address).protocol) ? address : null;
  } catch {
    return null;
  }
}

/** Shows `text` in `element`; blocks that are there already and have not changed stay as they are. */
export function render(element, text) {
  const known = element.shownBlocks ?? [];
  const wanted = blocks(text);
  let same = 0;
  while (same < known.length && same < wanted.length && known[same] === wanted[same].source) same += 1;
  while (element.childNodes.length > same) element.lastChild.remove();
  element.append(...wanted.slice(same).map((block) => blockNode(block)));
  element.shownBlocks = wanted.map((block) => block.source);
}
