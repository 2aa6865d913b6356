/**
 * Colours code with the browser's own highlights: ranges of the text, and no element.
 *
 * It knows no grammar, only what most languages share. Every pattern matches from wherever it begins, an end that is
 * missing included, so the time grows in proportion to the text.
 */

/** Longer code stays as it is. */
const MAX_CHARACTERS = 50_000;
const MAX_RANGES = 5_000;

const KEYWORDS = new Set(
  ("abstract and as assert async await begin bool boolean break case catch char class const constexpr continue def default defer del delete do done "
    + "double elif else elseif end enum esac except export extends extern false fi final finally float fn for foreach from func function global go goto "
    + "if impl implements import in inner inout instanceof int interface internal is join lambda left let local long loop match mod module mut namespace "
    + "new nil none nonlocal not null of on or order out override package pass private protected pub public raise readonly ref require return "
    + "select self short signed sizeof static struct super switch template then this throw throws trait true try type typedef typeof undefined union "
    + "unless unsigned until update use using val values var virtual void when where while with yield create drop table insert into group by having limit")
    .split(" "),
);

const HASH = "#[^\\n]*";
const SLASHES = "\\/\\/[^\\n]*|\\/\\*[^]*?(?:\\*\\/|$)";
const DASHES = "--[^\\n]*";
const ANGLES = "<!--[^]*?(?:-->|$)";
/** @type {Record<string, string>} */
const COMMENTS = Object.fromEntries([
  ...["python", "py", "sh", "bash", "shell", "zsh", "console", "yaml", "yml", "ruby", "rb", "toml", "ini", "r", "perl", "make", "makefile", "dockerfile", "elixir", "nix"].map((name) => [name, HASH]),
  ...["sql", "lua", "haskell", "hs", "ada", "elm"].map((name) => [name, DASHES]),
  ...["html", "xml", "svg", "vue"].map((name) => [name, ANGLES]),
  ["php", `${SLASHES}|${HASH}`],
]);
const STRINGS = '"""[^]*?(?:"""|$)|\'\'\'[^]*?(?:\'\'\'|$)|"(?:[^"\\\\\\n]|\\\\.)*"?|\'(?:[^\'\\\\\\n]|\\\\.)*\'?|`(?:[^`\\\\]|\\\\[^])*`?';
const REST = "(?<number>\\b\\d[\\w.]*)|(?<word>[A-Za-z_$][\\w$]*)";
const PLAIN = new Set(["text", "txt", "plain", "plaintext", "output", "log", "markdown", "md", "csv", "http"]);
const DIFF = new Set(["diff", "patch"]);

/**
 * Colours the text of an element that has nothing but text.
 * @param {Element | null} code
 * @param {string} language
 */
export function highlight(code, language) {
  const node = code?.firstChild;
  const text = code?.textContent ?? "";
  const name = language.toLowerCase();
  if (!node || text.length > MAX_CHARACTERS || PLAIN.has(name)) return;
  let left = MAX_RANGES;
  for (const [kind, from, to] of DIFF.has(name) ? changes(text) : tokens(text, name)) {
    if (left-- <= 0) return;
    group(kind).add(new StaticRange({ startContainer: node, startOffset: from, endContainer: node, endOffset: to }));
  }
}

/** @param {string} kind */
function group(kind) {
  const name = `code-${kind}`;
  const known = CSS.highlights.get(name) ?? new Highlight();
  CSS.highlights.set(name, known);
  return known;
}

/**
 * @param {string} text
 * @param {string} language
 * @returns {Generator<[string, number, number]>}
 */
function* tokens(text, language) {
  const pattern = new RegExp(`(?<comment>${COMMENTS[language] ?? SLASHES})|(?<string>${STRINGS})|${REST}`, "g");
  for (const match of text.matchAll(pattern)) {
    const groups = match.groups ?? {};
    const kind = groups.word === undefined ? Object.keys(groups).find((one) => groups[one] !== undefined) : KEYWORDS.has(groups.word.toLowerCase()) ? "keyword" : null;
    if (kind) yield [kind, match.index, match.index + match[0].length];
  }
}

/**
 * The lines that a patch adds and removes.
 * @param {string} text
 * @returns {Generator<[string, number, number]>}
 */
function* changes(text) {
  let at = 0;
  for (const line of text.split("\n")) {
    const kind = line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : line.startsWith("@@") ? "comment" : null;
    if (kind) yield [kind, at, at + line.length];
    at += line.length + 1;
  }
}
