/** Calls of tools that follow one another are folded into one line, which opens in place. */

import { h, isolate, setClass, setText } from "../dom.js";
import { firstArgument, short } from "./items.js";

/** So many in a row are a group. */
const MIN_CALLS = 3;
const MAX_NAMES = 4;

/**
 * @typedef {{ key: string, element: HTMLElement }} Placed
 */

export class ToolGroups {
  /** @param {import("../model.js").SessionModel} model */
  constructor(model) {
    this.model = model;
    /** The calls whose groups somebody has opened: groups grow at both ends. @type {Set<string>} */
    this.opened = new Set();
    /** The lines, by the container and in order. @type {Map<HTMLElement, HTMLElement[]>} */
    this.lines = new Map();
  }

  /**
   * Folds what is in a container.
   * @param {{ element: HTMLElement, nodes: Placed[] }} container
   */
  update({ element, nodes }) {
    /** @type {Placed[][]} */
    const runs = [];
    /** @type {Placed[]} */
    let run = [];
    const end = () => {
      if (run.length >= MIN_CALLS) runs.push(run);
      else for (const one of run) one.element.hidden = false;
      run = [];
    };
    for (const node of nodes) {
      if (this.model.items.get(node.key)?.kind === "tool") run.push(node);
      else if (!node.element.hidden) end();
    }
    end();
    const lines = this.lines.get(element) ?? [];
    while (lines.length > runs.length) lines.pop()?.remove();
    runs.forEach((calls, at) => {
      const line = (lines[at] ??= h("button", { type: "button", class: "tool-group work" }, h("span", {}), h("span", { class: "state" })));
      this.#draw(line, calls);
      if (line.nextSibling !== calls[0].element) element.insertBefore(line, calls[0].element);
    });
    this.lines.set(element, lines);
  }

  /**
   * @param {HTMLElement} line
   * @param {Placed[]} calls
   */
  #draw(line, calls) {
    const open = calls.some(({ key }) => this.opened.has(key));
    for (const { key, element } of calls) {
      element.hidden = !open;
      if (open) this.opened.add(key);
    }
    const items = calls.map(({ key }) => this.model.items.get(key)).filter((item) => item?.kind === "tool");
    const failed = items.filter((item) => item.error !== undefined);
    const runs = items.filter((item) => !item.returned && this.model.mayRun(item)).at(-1);
    const names = [...new Set(items.map((item) => isolate(item.name ?? "?")))];
    const more = names.length > MAX_NAMES ? ", …" : "";
    const [words, state] = line.children;
    setText(words, `${calls.length} tool calls · ${names.slice(0, MAX_NAMES).join(", ")}${more}`);
    setText(state, [
      failed.length ? `${failed.length} failed: ${isolate(short(failed.at(-1)?.error))}` : "",
      runs ? `${isolate(runs.name ?? "?")} ${isolate(firstArgument(runs.arguments))} is running …` : "",
    ].filter(Boolean).join(" · "));
    setClass(line, "failed", failed.length);
    line.setAttribute("aria-expanded", String(open));
    line.onclick = () => {
      for (const { key } of calls) {
        if (open) this.opened.delete(key);
        else this.opened.add(key);
      }
      this.#draw(line, calls);
    };
  }

  /**
   * Opens the group of a call that somebody is led to.
   * @param {string} key
   * @param {{ element: HTMLElement, nodes: Placed[] }} container
   */
  open(key, container) {
    this.opened.add(key);
    this.update(container);
  }
}
