/**
 * Formulas in TeX as MathML: what people and models write most, and nothing that could run or load anything.
 *
 * What it doesn't know stays as it is written: `mathml` then returns null.
 */

import { fill } from "./dom.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
const MAX_CHARACTERS = 4_000;
const MAX_DEPTH = 40;
const TOKEN = /\\(?:[a-zA-Z]+|[^])|\d+(?:\.\d+)?|\s+|[^]/gu;

/** @param {string} pairs */
const table = (pairs) => new Map(pairs.split(" ").map((pair) => /** @type {[string, string]} */ (pair.split("="))));
const LETTERS = table("alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ lambda=λ mu=μ nu=ν xi=ξ pi=π rho=ρ "
  + "sigma=σ tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Phi=Φ Psi=Ψ Omega=Ω "
  + "infty=∞ partial=∂ nabla=∇ hbar=ℏ ell=ℓ emptyset=∅ Re=ℜ Im=ℑ aleph=ℵ dots=… ldots=… cdots=⋯");
const OPERATORS = table("cdot=⋅ times=× div=÷ pm=± mp=∓ le=≤ leq=≤ ge=≥ geq=≥ ne=≠ neq=≠ approx=≈ equiv=≡ sim=∼ propto=∝ to=→ rightarrow=→ leftarrow=← "
  + "Rightarrow=⇒ Leftarrow=⇐ implies=⟹ iff=⟺ leftrightarrow=↔ mapsto=↦ in=∈ notin=∉ subset=⊂ subseteq=⊆ supset=⊃ cup=∪ cap=∩ setminus=∖ land=∧ wedge=∧ lor=∨ vee=∨ "
  + "neg=¬ forall=∀ exists=∃ mid=∣ parallel=∥ perp=⊥ circ=∘ ast=∗ star=⋆ oplus=⊕ otimes=⊗ ll=≪ gg=≫ langle=⟨ rangle=⟩ lfloor=⌊ rfloor=⌋ lceil=⌈ rceil=⌉ "
  + "{={ }=} |=‖ %=% $=$ &=& #=# _=_");
const LARGE = table("sum=∑ prod=∏ int=∫ oint=∮ iint=∬ bigcup=⋃ bigcap=⋂");
const NAMES = new Set("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp lim max min sup inf arg det dim gcd ker deg Pr".split(" "));
const LIMITS = new Set(["sum", "prod", "bigcup", "bigcap", "lim", "max", "min", "sup", "inf"]);
const ACCENTS = table("hat=^ bar=¯ overline=¯ vec=→ dot=˙ ddot=¨ tilde=~");
const SPACES = table(",=0.17em :=0.22em ;=0.28em quad=1em qquad=2em !=0em");
const WORDS = new Set(["text", "mathrm", "operatorname", "mathbf", "textbf", "mathit", "mathsf"]);

/**
 * @param {string} tag
 * @param {import("./dom.js").Attributes} [attributes]
 * @param {(import("./dom.js").Child | import("./dom.js").Child[])[]} children
 */
function math(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(MATHML, tag), attributes, children);
}

class NotKnown extends Error {}

/**
 * @param {string} tex
 * @param {boolean} display
 */
export function mathml(tex, display) {
  if (tex.length > MAX_CHARACTERS) return null;
  try {
    return math("math", display ? { display: "block" } : {}, new Reader(tex, display).whole());
  } catch (error) {
    if (error instanceof NotKnown) return null;
    throw error;
  }
}

class Reader {
  /**
   * @param {string} tex
   * @param {boolean} display
   */
  constructor(tex, display) {
    this.tokens = tex.trim().match(TOKEN) ?? [];
    this.at = 0;
    this.depth = 0;
    this.display = display;
  }

  whole() {
    const row = this.row(() => false);
    if (this.at < this.tokens.length) throw new NotKnown();
    return row;
  }

  /** @param {(token: string) => boolean} ends */
  row(ends) {
    if ((this.depth += 1) > MAX_DEPTH) throw new NotKnown();
    const nodes = [];
    for (this.skip(); this.at < this.tokens.length && !ends(this.tokens[this.at]); this.skip()) nodes.push(this.scripted());
    this.depth -= 1;
    return math("mrow", {}, ...nodes);
  }

  skip() {
    while (this.tokens[this.at] !== undefined && !this.tokens[this.at].trim()) this.at += 1;
  }

  next() {
    this.skip();
    const token = this.tokens[this.at];
    if (token === undefined) throw new NotKnown();
    this.at += 1;
    return token;
  }

  /** What follows, with what is written below and above it. */
  scripted() {
    const name = this.tokens[this.at].slice(1);
    const base = this.atom();
    /** @type {Record<string, Element>} */
    const scripts = {};
    for (this.skip(); ["^", "_", "'"].includes(this.tokens[this.at]); this.skip()) {
      const token = this.next();
      const kind = token === "_" ? "_" : "^";
      if (scripts[kind]) throw new NotKnown();
      scripts[kind] = token === "'" ? math("mo", {}, "′") : this.atom();
    }
    const { _: below, "^": above } = scripts;
    const limits = this.display && LIMITS.has(name);
    if (below && above) return math(limits ? "munderover" : "msubsup", {}, base, below, above);
    if (below) return math(limits ? "munder" : "msub", {}, base, below);
    return above ? math(limits ? "mover" : "msup", {}, base, above) : base;
  }

  /** @returns {Element} */
  atom() {
    const token = this.next();
    if (token === "{") return this.rest("}");
    if (token[0] === "\\") return this.command(token.slice(1));
    if (/^\d/.test(token)) return math("mn", {}, token);
    if (/^\p{L}$/u.test(token)) return math("mi", {}, token);
    if (["^", "_", "}", "&", "#", "$"].includes(token)) throw new NotKnown();
    return math("mo", {}, token === "-" ? "−" : token === "*" ? "∗" : token);
  }

  /** @param {string} end */
  rest(end) {
    const row = this.row((token) => token === end);
    if (this.next() !== end) throw new NotKnown();
    return row;
  }

  /**
   * @param {string} name
   * @returns {Element}
   */
  command(name) {
    const letter = LETTERS.get(name);
    if (letter) return math("mi", {}, letter);
    const operator = OPERATORS.get(name) ?? LARGE.get(name);
    if (operator) return math("mo", {}, operator);
    if (NAMES.has(name)) return math("mi", {}, name);
    const space = SPACES.get(name);
    if (space) return math("mspace", { width: space });
    const accent = ACCENTS.get(name);
    if (accent) return math("mover", { accent: "true" }, this.atom(), math("mo", {}, accent));
    if (WORDS.has(name)) return math("mtext", {}, this.words());
    if (["frac", "dfrac", "tfrac"].includes(name)) return math("mfrac", {}, this.atom(), this.atom());
    if (name === "sqrt") return this.root();
    if (name === "left") return this.between();
    throw new NotKnown();
  }

  root() {
    this.skip();
    if (this.tokens[this.at] !== "[") return math("msqrt", {}, this.atom());
    this.at += 1;
    const index = this.rest("]");
    return math("mroot", {}, this.atom(), index);
  }

  between() {
    const edge = () => {
      const token = this.next();
      const text = token[0] === "\\" ? OPERATORS.get(token.slice(1)) : token;
      if (!text) throw new NotKnown();
      return text === "." ? null : math("mo", { stretchy: "true" }, text);
    };
    const open = edge();
    const inner = this.row((token) => token === "\\right");
    if (this.next() !== "\\right") throw new NotKnown();
    return math("mrow", {}, open, inner, edge());
  }

  /** Words as they are, spaces included. */
  words() {
    if (this.next() !== "{") throw new NotKnown();
    let words = "";
    for (; this.tokens[this.at] !== "}"; this.at += 1) {
      const token = this.tokens[this.at];
      if (token === undefined || token === "{" || token[0] === "\\") throw new NotKnown();
      words += token;
    }
    this.at += 1;
    return words;
  }
}
