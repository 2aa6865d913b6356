/** Keys of a page, for those who'd rather not reach for the mouse; they can be turned off. */

/** Kept for the browser: people who speak to their device would otherwise press keys by talking. */
export const OFF = "waystation.keys-off";
const FIELDS = "input, textarea, select, [contenteditable]";

/** Whether somebody has turned single keys off. */
export const areOff = () => localStorage.getItem(OFF) !== null;

/**
 * Listens until the signal is aborted. Each action says whether it did something.
 * @param {{ write: () => void, stop: () => void, step: (by: number) => void, waiting: () => void, keys: () => void, field: HTMLElement }} page
 * @param {AbortSignal} signal
 */
export function listen({ write, stop, step, waiting, keys, field }, signal) {
  const actions = { "/": write, j: () => step(1), k: () => step(-1), a: waiting, "?": keys };
  const onEscape = (/** @type {Element} */ target) => {
    if (target === field || !target.closest(FIELDS)) stop();
  };
  listenTo(actions, signal, onEscape);
}

/**
 * Listens to single keys, but for those who write or have turned them off.
 * @param {Record<string, () => void>} actions
 * @param {AbortSignal} signal
 * @param {(target: Element) => void} [onEscape]
 */
export function listenTo(actions, signal, onEscape = () => {}) {
  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("dialog[open]")) return;
    const target = /** @type {Element} */ (event.target);
    if (event.key === "Escape") return onEscape(target);
    const action = target.closest(FIELDS) || localStorage.getItem(OFF) ? null : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  document.addEventListener("keydown", onKey, { signal });
}
