/**
 * The part of Markdown that people and models use, as DOM nodes.
 *
 * Text becomes nodes with createElement and textContent alone, so nothing that anybody writes can become
 * markup. Links lead to http(s) only.
 *
 * One person's message is drawn in the tab of everyone who watches, so no text may take long: the time grows
 * in proportion to the text, and the number of elements has a limit. No pattern below may match one stretch
 * of text in more than one way, and every scan continues where the last one ended.
 */

import { clean, h } from "./dom.js";

/**
 * @typedef {{ kind: "code", language: string, closed: boolean, text: string } | { kind: "heading", level: number, text: string } | { kind: "rule" } | { kind: "quote", text: string }
 *   | { kind: "maths", text: string } | { kind: "paragraph", text: string } | { kind: "list", lines: string[] } | { kind: "table", rule: string, rows: string[] }} Content
 * @typedef {Content & { line: number, source: string }} Block `source` is its text, `line` its first line.
 * @typedef {{ kind: Content["kind"], source: string, from: number, language: string, text: string, node: Element, elements: number, total: number }} Shown
 * @typedef {{ element: Element, tex: string }} Formula
 * @typedef {Node | string} Inline
 */

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const FENCE_END = /^ {0,3}(`{3,}|~{3,})\s*$/;
const LANGUAGE = /^\s*([\w+#.-]*)/;
// In patterns for a line, "." also matches U+2028: otherwise they could fail at one and start over from each space.
const HEADING = /^ {0,3}(#{1,6})\s+(\S.*)$/s;
const HEADING_END = /\s#+$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const BULLET = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/s;
const QUOTE = /^ {0,3}>\s?(.*)$/s;
const MATHS = /^ {0,3}(\$\$|\\\[)/;
/** @type {Record<string, RegExp>} */
const MATHS_END = { "$$": /\$\$\s*$/, "\\[": /\\\]\s*$/ };
const CONTINUATION = /^\s{2,}\S/;
const TABLE_RULE = /^:?-+:?$/;
const TASK = /^\[([ xX])\]\s+(?=\S)/;

/** Where something other than plain text may begin within a line. */
const MARK = /\\[\n\\`*_{}[\]()#+.!~>|-]|`+|\*+|_+|~+|\[|https?:\/\//g;
const LINK = /\[([^[\]]+)\]\((https?:\/\/[^\s()<>]+(?:\([^\s()<>]*\)[^\s()<>]*)*)\)/y;
const BARE_ADDRESS = /https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?)\]*_]/y;
const SPACE = /^\s?$/;
const WORD = /^\w$/;
const TAGS = /** @type {const} */ ({ "**": "strong", "*": "em", _: "em", "~~": "del" });
const DELIMITERS = /** @type {const} */ (["**", "*", "_", "~~"]);
/** The page's title and "Transcript" are above them. */
const HEADINGS = /** @type {const} */ (["h3", "h4", "h5", "h6"]);

/** Quotes and lists that are nested deeper are shown as they are written. */
const MAX_DEPTH = 6;
/** A block that needs more elements is shown as it is written. */
const MAX_BLOCK_ELEMENTS = 10_000;
/** What is added to a text can change so many of its last blocks. */
const OPEN_BLOCKS = 2;
/** What follows in a message that has this many is shown as it is written. */
const MAX_MESSAGE_ELEMENTS = 20_000;

/** @param {string[]} lines */
export function blocks(lines) {
  /** @type {Block[]} */
  const found = [];
  for (let at = 0; at < lines.length; ) {
    const line = at;
    const block = readBlock(lines, at);
    at = block.next;
    if (block.kind) found.push({ ...block, line, source: lines.slice(line, at).join("\n") });
  }
  return found;
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {(Content | { kind: null }) & { next: number }}
 */
function readBlock(lines, at) {
  const line = lines[at];
  let match;
  if (!line.trim()) return { kind: null, next: at + 1 };
  if ((match = FENCE.exec(line))) return readFence(lines, at, match);
  if ((match = HEADING.exec(line))) return { kind: "heading", level: match[1].length, text: match[2].trimEnd().replace(HEADING_END, "").trimEnd(), next: at + 1 };
  if (RULE.test(line)) return { kind: "rule", next: at + 1 };
  if (QUOTE.test(line)) {
    const end = until(lines, at, (next) => !QUOTE.test(next));
    return { kind: "quote", text: lines.slice(at, end).map((one) => QUOTE.exec(one)?.[1] ?? "").join("\n"), next: end };
  }
  if ((match = MATHS.exec(line))) return readMaths(lines, at, match[1]);
  if (BULLET.test(line)) {
    const end = until(lines, at, (next) => !next.trim() || !(BULLET.test(next) || CONTINUATION.test(next)));
    return { kind: "list", lines: lines.slice(at, end), next: end };
  }
  if (line.includes("|") && isTableRule(lines[at + 1] ?? "")) {
    const end = until(lines, at + 1, (next) => !next.includes("|"));
    return { kind: "table", rule: lines[at + 1], rows: [line, ...lines.slice(at + 2, end)], next: end };
  }
  const starts = (/** @type {string} */ next) => !next.trim() || [FENCE, HEADING, RULE, QUOTE, BULLET, MATHS].some((one) => one.test(next));
  const end = until(lines, at, starts);
  return { kind: "paragraph", text: lines.slice(at, end).join("\n"), next: end };
}

/**
 * A formula ends before the next empty line; until it does, all up to there is a paragraph.
 * @param {string[]} lines
 * @param {number} at
 * @param {string} mark
 * @returns {Content & { next: number }}
 */
function readMaths(lines, at, mark) {
  const ends = (/** @type {string} */ line, /** @type {number} */ from) => MATHS_END[mark].test(line.slice(from));
  const begin = lines[at].indexOf(mark) + mark.length;
  let end = at;
  while (end < lines.length && lines[end].trim() && !ends(lines[end], end === at ? begin : 0)) end += 1;
  if (!lines[end]?.trim()) return { kind: "paragraph", text: lines.slice(at, end).join("\n"), next: end };
  const written = lines.slice(at, end + 1).join("\n").trim();
  return { kind: "maths", text: written.slice(mark.length, -mark.length), next: end + 1 };
}

/** @param {string} line */
function isTableRule(line) {
  return cells(line).every((cell) => TABLE_RULE.test(cell));
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @param {string[]} opening
 * @returns {Content & { next: number }}
 */
function readFence(lines, at, [, mark, about]) {
  const language = LANGUAGE.exec(about)?.[1] ?? "";
  const end = until(lines, at, (next) => {
    const closing = FENCE_END.exec(next)?.[1];
    return closing?.[0] === mark[0] && closing.length >= mark.length;
  });
  return { kind: "code", language, closed: end < lines.length, text: lines.slice(at + 1, end).join("\n"), next: Math.min(end + 1, lines.length) };
}

/**
 * The first line after `at` for which it holds, or the end.
 * @param {string[]} lines
 * @param {number} at
 * @param {(line: string) => boolean | undefined} holds
 */
function until(lines, at, holds) {
  let end = at + 1;
  while (end < lines.length && !holds(lines[end])) end += 1;
  return end;
}

/** @param {string} line */
function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
}

class TooManyElements extends Error {}

/** Draws one block, and counts its elements. */
class BlockDrawing {
  /** @param {number} limit */
  constructor(limit) {
    this.limit = limit;
    this.elements = 0;
    /** @type {Formula[]} */
    this.formulas = [];
  }

  /**
   * @template {keyof HTMLElementTagNameMap} T
   * @param {T} tag
   * @param {import("./dom.js").AttributesOf<T>} attributes
   * @param {Inline[]} children
   */
  make(tag, attributes, ...children) {
    this.elements += 1;
    if (this.elements > this.limit) throw new TooManyElements();
    return h(tag, attributes, ...children);
  }

  /**
   * @param {Block} block
   * @returns {HTMLElement}
   */
  block(block, depth = 0) {
    switch (block.kind) {
      case "code":
        return this.code(block);
      case "maths":
        return this.maths("div", block.source.trim(), block.text);
      case "heading":
        return this.make(HEADINGS[Math.min(block.level, HEADINGS.length) - 1], {}, ...this.inline(block.text));
      case "rule":
        return this.make("hr", {});
      case "quote":
        return this.make("blockquote", {}, ...(depth < MAX_DEPTH ? blocks(block.text.split("\n")).map((one) => this.block(one, depth + 1)) : [block.text]));
      case "list":
        return this.list(block.lines, depth);
      case "table":
        return this.table(block.rule, block.rows);
      default:
        return this.make("p", {}, ...this.inline(block.text));
    }
  }

  /**
   * Its button has no text of its own, so that what is selected or read is the code alone.
   * @param {{ language: string, text: string }} block
   */
  code({ language, text }) {
    const name = language ? `${language} code` : "code";
    return this.make("div", { class: "code", "data-language": language || null },
      this.make("button", { type: "button", class: "copy", "aria-label": `Copy ${name}` }),
      this.make("pre", { tabindex: "0", "aria-label": name }, this.make("code", {}, text)));
  }

  /**
   * A formula, as it is written until what draws it is there.
   * @param {"div" | "span"} tag
   * @param {string} source
   * @param {string} tex
   */
  maths(tag, source, tex) {
    const element = this.make(tag, { class: "maths" }, source);
    this.formulas.push({ element, tex });
    return element;
  }

  /**
   * @param {string[]} lines
   * @param {number} depth
   * @returns {HTMLElement}
   */
  list(lines, depth) {
    const [, indent = "", number] = BULLET.exec(lines[0]) ?? [];
    const list = number ? this.make("ol", number === "1" ? {} : { start: number }) : this.make("ul", {});
    for (let at = 0; at < lines.length; ) {
      const match = BULLET.exec(lines[at]);
      const own = (/** @type {string} */ line) => (BULLET.exec(line)?.[1].length ?? Infinity) <= indent.length;
      const end = until(lines, at, own);
      const said = match ? match[3] : lines[at].trim();
      const [mark, done] = TASK.exec(said) ?? ["", " "];
      const item = this.make("li", mark ? { class: "task" } : {}, ...this.inline(said.slice(mark.length)));
      if (mark) item.prepend(this.make("span", { role: "img", "aria-label": done === " " ? "to do" : "done" }, done === " " ? "☐" : "☑"), " ");
      const rest = lines.slice(at + 1, end);
      const nested = depth < MAX_DEPTH ? rest.findIndex((line) => BULLET.test(line)) : -1;
      const words = (nested < 0 ? rest : rest.slice(0, nested)).map((line) => line.trim()).join(" ");
      if (words) item.append(" ", ...this.inline(words));
      if (nested >= 0) item.append(this.list(rest.slice(nested), depth + 1));
      list.append(item);
      at = end;
    }
    return list;
  }

  /**
   * @param {string} rule
   * @param {string[]} rows
   */
  table(rule, [head, ...rows]) {
    const sides = cells(rule).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : null));
    const row = (/** @type {"th" | "td"} */ tag, /** @type {string} */ line) => this.make("tr", {}, ...cells(line).map((text, at) => this.make(tag, { class: sides[at] }, ...this.inline(text))));
    return this.make("div", { class: "table", tabindex: "0", role: "group", "aria-label": "table" },
      this.make("table", {}, this.make("thead", {}, row("th", head)), this.make("tbody", {}, ...rows.map((line) => row("td", line)))));
  }

  /** @param {string} text */
  inline(text) {
    return new InlineDrawing(this, text).draw();
  }
}

/** @typedef {typeof DELIMITERS[number]} Delimiter */

/**
 * Draws the text of one block in a single pass.
 *
 * `nodes` is what has been drawn. A delimiter that may open a span is a node of its own, and `open` says where;
 * when it is closed, the nodes after it become the span's children. A delimiter that is never closed stays text.
 * Each delimiter can be open only once, so at most four are.
 */
class InlineDrawing {
  /**
   * @param {BlockDrawing} block
   * @param {string} text
   */
  constructor(block, text) {
    this.block = block;
    this.text = text;
    /** @type {Inline[]} */
    this.nodes = [];
    /** @type {{ delimiter: Delimiter, at: number }[]} */
    this.open = [];
    /** @type {number | undefined} */
    this.lastFormulaEnd = undefined;
    /** @type {Map<number, { starts: number[], next: number }> | null} */
    this.backticks = null;
  }

  draw() {
    const { text } = this;
    let at = 0;
    while (at < text.length) {
      MARK.lastIndex = at;
      const match = MARK.exec(text);
      if (!match) break;
      this.#write(text.slice(at, match.index));
      at = this.#mark(match[0], match.index);
    }
    this.#write(text.slice(at));
    return this.nodes;
  }

  /**
   * Draws what begins at a mark; returns where to continue.
   * @param {string} mark
   * @param {number} at
   */
  #mark(mark, at) {
    if (mark === "\\(") return this.#formula(at);
    if (mark[0] === "\\") this.#write(mark[1]);
    else if (mark[0] === "`") return this.#code(mark, at);
    else if (mark === "[" || mark[0] === "h") return this.#link(mark, at);
    else this.#delimiters(mark, at);
    return at + mark.length;
  }

  /** @param {number} at */
  #formula(at) {
    this.lastFormulaEnd ??= this.text.lastIndexOf("\\)");
    if (this.lastFormulaEnd < at) {
      this.#write("(");
      return at + 2;
    }
    const end = this.text.indexOf("\\)", at);
    this.nodes.push(this.block.maths("span", this.text.slice(at, end + 2), this.text.slice(at + 2, end)));
    return end + 2;
  }

  /**
   * @param {string} mark
   * @param {number} at
   */
  #code(mark, at) {
    const from = at + mark.length;
    const end = this.#nextBackticks(mark.length, from);
    if (end === undefined) this.#write(mark);
    else this.nodes.push(this.block.make("code", {}, this.text.slice(from, end)));
    return end === undefined ? from : end + mark.length;
  }

  /**
   * Where the next run of so many backticks begins. Runs already passed are dropped, as scanning never goes back.
   * @param {number} length
   * @param {number} from
   */
  #nextBackticks(length, from) {
    this.backticks ??= this.#allBackticks();
    const runs = this.backticks.get(length);
    while (runs && runs.starts[runs.next] < from) runs.next += 1;
    return runs?.starts[runs.next];
  }

  #allBackticks() {
    /** @type {Map<number, { starts: number[], next: number }>} */
    const found = new Map();
    for (const { 0: run, index } of this.text.matchAll(/`+/g)) {
      const runs = found.get(run.length) ?? { starts: [], next: 0 };
      runs.starts.push(index);
      found.set(run.length, runs);
    }
    return found;
  }

  /**
   * @param {string} mark
   * @param {number} at
   */
  #link(mark, at) {
    const pattern = mark === "[" ? LINK : BARE_ADDRESS;
    pattern.lastIndex = at;
    const match = pattern.exec(this.text);
    if (!match) {
      this.#write(mark);
      return at + mark.length;
    }
    // Marks in the words of a link stay text: an address in them would be a link in a link, to elsewhere.
    const [whole, words = whole, address = whole] = match;
    this.nodes.push(this.block.make("a", { href: safeAddress(address), title: address, target: "_blank", rel: "noopener noreferrer nofollow" }, words));
    return at + whole.length;
  }

  /**
   * Opens and closes spans at a run of one kind of delimiter.
   * @param {string} run
   * @param {number} at
   */
  #delimiters(run, at) {
    const before = this.text[at - 1] ?? "";
    const after = this.text[at + run.length] ?? "";
    const inWord = (/** @type {string} */ character) => run[0] === "_" && WORD.test(character);
    const closes = !SPACE.test(before) && !inWord(after);
    const opens = !SPACE.test(after) && !inWord(before);
    let left = run;
    while (left) {
      const used = (closes && this.#close(left)) || (opens && this.#open(left));
      if (!used) break;
      left = left.slice(used.length);
    }
    this.#write(left);
  }

  /** @param {string} run */
  #close(run) {
    for (let index = this.open.length - 1; index >= 0; index -= 1) {
      const { delimiter, at } = this.open[index];
      if (!fits(delimiter, run) || at === this.nodes.length - 1) continue;
      const children = this.nodes.splice(at).slice(1);
      this.nodes.push(this.block.make(TAGS[delimiter], {}, ...children));
      this.open.length = index;
      return delimiter;
    }
    return null;
  }

  /** @param {string} run */
  #open(run) {
    const delimiter = DELIMITERS.find((one) => fits(one, run) && this.open.every((other) => other.delimiter !== one));
    if (!delimiter) return null;
    this.open.push({ delimiter, at: this.nodes.length });
    this.nodes.push(delimiter);
    return delimiter;
  }

  /**
   * Appends text. A node that is an open delimiter stays as it is.
   * @param {string} text
   */
  #write(text) {
    const last = this.nodes.length - 1;
    if (!text) return;
    if (typeof this.nodes[last] === "string" && this.open.at(-1)?.at !== last) this.nodes[last] += text;
    else this.nodes.push(text);
  }
}

/**
 * Whether a run begins with the delimiter. Only asterisks may form runs of more than one delimiter.
 * @param {string} delimiter
 * @param {string} run
 */
function fits(delimiter, run) {
  return run[0] === "*" ? run.startsWith(delimiter) : run === delimiter;
}

/**
 * The address if it is one of the web's, otherwise null: no other scheme is ever followed.
 * @param {string} address
 */
export function safeAddress(address) {
  try {
    return ["http:", "https:"].includes(new URL(address).protocol) ? address : null;
  } catch {
    return null;
  }
}

/** What elements show, and the element with what there was no room for. @type {WeakMap<Element, { text: string, shown: Shown[], rest: Element | null }>} */
const rendered = new WeakMap();

/**
 * Says that an element shows something else now.
 * @param {Element} element
 */
export function forget(element) {
  rendered.delete(element);
}

/**
 * Shows `text` in `element`; blocks that are there already and have not changed stay as they are.
 *
 * A text mostly grows. Then what is new can change its last two blocks alone: the last one, and the one before it if
 * the last line, not yet complete, turns out to belong to that. So only they are read again, however long the text.
 * Each line is cleaned by itself, for the same reason.
 * @param {Element} element
 * @param {string} text
 */
export function render(element, text) {
  const { text: before, shown, rest } = rendered.get(element) ?? { text: "", shown: [], rest: null };
  if (before === text) return;
  const kept = text.startsWith(before) ? Math.max(0, shown.length - OPEN_BLOCKS) : 0;
  const from = kept ? shown[kept].from : 0;
  const lines = text.slice(from).split("\n");
  const wanted = placed(blocks(lines.map(clean)), lines, from);
  let same = kept;
  while (same < shown.length && same - kept < wanted.length && shown[same].source === wanted[same - kept].source) same += 1;
  const gone = shown.splice(same);
  const [first] = gone;
  if (first && grow(first, wanted[same - kept])) {
    gone.shift();
    shown.push(remembered(wanted[same - kept], first.node, first.elements, shown));
  }
  for (const { node } of gone) node.remove();
  rest?.remove();
  rendered.set(element, { text, shown, rest: drawBlocks(element, shown, wanted.slice(shown.length - kept)) });
}

/** @typedef {Block & { from: number }} PlacedBlock `from` is where its text begins. */

/**
 * Draws blocks behind those that are shown. Returns the element with what there is no room for, as it is written.
 * @param {Element} element
 * @param {Shown[]} shown
 * @param {PlacedBlock[]} wanted
 */
function drawBlocks(element, shown, wanted) {
  for (const [index, block] of wanted.entries()) {
    const left = MAX_MESSAGE_ELEMENTS - (shown.at(-1)?.total ?? 0);
    if (left <= 0) {
      const rest = asWritten(wanted.slice(index).map((one) => one.source).join("\n\n"));
      element.append(rest);
      return rest;
    }
    const { node, elements } = draw(block, Math.min(left, MAX_BLOCK_ELEMENTS));
    element.append(node);
    shown.push(remembered(block, node, elements, shown));
  }
  return null;
}

/**
 * @param {Block[]} found
 * @param {string[]} lines
 * @param {number} from where the first line begins
 * @returns {PlacedBlock[]}
 */
function placed(found, lines, from) {
  let line = 0;
  return found.map((block) => {
    for (; line < block.line; line += 1) from += lines[line].length + 1;
    return { ...block, from };
  });
}

/**
 * What is needed of a block once it is shown; `total` counts the elements up to here.
 * @param {PlacedBlock} block
 * @param {Element} node
 * @param {number} elements
 * @param {Shown[]} shown
 * @returns {Shown}
 */
function remembered(block, node, elements, shown) {
  const { kind, source, from } = block;
  const { language, text } = block.kind === "code" ? block : { language: "", text: "" };
  paint(node, block);
  return { kind, source, from, language, text, node, elements, total: (shown.at(-1)?.total ?? 0) + elements };
}

/** @param {Formula[]} formulas */
async function drawFormulas(formulas) {
  try {
    const { mathml } = await import("./maths.js");
    for (const { element, tex } of formulas) {
      const drawn = mathml(tex, element.tagName === "DIV");
      if (drawn) element.replaceChildren(drawn);
    }
  } catch {
    // As they are written they can be read too.
  }
}

/**
 * Colours code that is complete.
 * @param {Element} node
 * @param {Block} block
 */
async function paint(node, block) {
  if (block.kind !== "code" || !block.language || !block.closed || !CSS.highlights) return;
  try {
    const { highlight } = await import("./highlight.js");
    highlight(node.querySelector("code"), block.language);
  } catch {
    // Without colours it is as readable.
  }
}

/**
 * Adds to code what has been added to its text; returns whether that is all that has changed.
 * @param {Shown} known
 * @param {Block | undefined} block
 */
function grow(known, block) {
  if (block?.kind !== "code" || known.kind !== "code" || known.language !== block.language) return false;
  const words = known.node.querySelector("code")?.firstChild;
  if (!(words instanceof Text) || !known.text || !block.text.startsWith(known.text)) return false;
  words.appendData(block.text.slice(known.text.length));
  return true;
}

/**
 * One block as a node; as it is written if it has too many elements or can't be drawn.
 * @param {Block} block
 * @param {number} limit
 */
function draw(block, limit) {
  const drawing = new BlockDrawing(limit);
  try {
    const node = drawing.block(block);
    if (drawing.formulas.length) drawFormulas(drawing.formulas);
    return { node, elements: drawing.elements };
  } catch (error) {
    if (!(error instanceof TooManyElements)) console.warn("This block is shown as it is written.", error);
    return { node: asWritten(block.source), elements: drawing.elements + 1 };
  }
}

/** @param {string} source */
function asWritten(source) {
  return h("p", { class: "as-written" }, source);
}
