/** What waits for its turn, above the composer: to be read, changed, withdrawn, or said now. */

import { h, nameOf, setText } from "../dom.js";
import { effect, keyedList, signal } from "../view.js";

/**
 * @typedef {import("../transcript.js").Actor} Person
 * @typedef {import("../transcript.js").Message} Message
 * @typedef {{ message: Message, turnId: string }} Waiting
 */

export class Queue {
  /**
   * `act` withdraws a message, and then does with it what it says; it tells what has gone wrong itself.
   * @param {(waiting: Waiting, how: "edit" | "interrupt" | "steer" | "withdraw") => Promise<void>} act
   * @param {(person: Person) => boolean} isMe
   * @param {() => void} onLeft Called when what had the focus is gone, with all that waits.
   */
  constructor(act, isMe, onLeft) {
    this.act = act;
    this.isMe = isMe;
    this.onLeft = onLeft;
    /** Whether the agent runs, so that something can be said to it now. */
    this.running = signal(false);
    this.list = h("ul", {});
    this.heading = h("h2", { id: "queue-heading" });
    this.element = h("section", { class: "queue", hidden: true, "aria-labelledby": "queue-heading" }, this.heading, this.list);
    this.show = keyedList(this.list, (/** @type {Waiting} */ one) => one.message.id, (one) => this.#row(one));
  }

  /**
   * @param {Waiting[]} waiting
   * @param {boolean} running
   */
  update(waiting, running) {
    this.running.value = running;
    this.element.hidden = waiting.length === 0;
    setText(this.heading, waiting.length === 1 ? "1 message waits its turn" : `${waiting.length} messages wait their turn`);
    const focused = this.list.contains(document.activeElement);
    this.show(waiting);
    if (focused && !this.list.contains(document.activeElement)) this.#stay();
  }

  /** The keyboard goes on at what is left. */
  #stay() {
    const next = /** @type {HTMLButtonElement | null} */ (this.list.querySelector("button:not([hidden], :disabled)"));
    if (next) next.focus();
    else this.onLeft();
  }

  /** @param {Waiting} waiting */
  #row(waiting) {
    const busy = signal(false);
    const text = h("p", {});
    /**
     * @param {string} words
     * @param {"edit" | "interrupt" | "steer" | "withdraw"} how
     */
    const button = (words, how) => {
      const one = h("button", { type: "button", onclick: async () => {
        const had = document.activeElement === one;
        busy.value = true;
        await this.act(waiting, how);
        busy.value = false;
        // What is disabled loses the focus.
        if (!had || document.activeElement !== document.body) return;
        if (one.isConnected) one.focus();
        else this.#stay();
      } }, words);
      return one;
    };
    const now = [button("Send now", "interrupt"), button("Steer", "steer")];
    // Said in another way it would be said by whoever presses: that is for those who have written it.
    const mine = this.isMe(waiting.message.actor);
    const buttons = [...(mine ? [button("Edit", "edit"), ...now] : []), button("Withdraw", "withdraw")];
    effect(() => {
      for (const one of buttons) one.disabled = busy.value;
      for (const one of now) one.hidden = !this.running.value;
    });
    const element = h("li", {}, text, h("div", { class: "row" }, ...buttons));
    return { element, update: (/** @type {Waiting} */ { message }) => setText(text, mine ? message.text : `${nameOf(message.actor)}: ${message.text}`) };
  }
}
