/** What somebody has written and not sent, kept in the tab: through a reload, Back, and the end of a sign-in. */

/**
 * @typedef {{ text: string, messageId: string }} Sent
 * @typedef {{ text: string, messageId?: string | null, leaving?: Sent | null, note?: boolean }} Draft
 */

const PREFIX = "waystation.draft.";

/**
 * A browser may keep nothing, as for a page within another one, or have no room left: what is written stays on the page.
 * @template T
 * @param {(storage: Storage) => T} use
 */
function stored(use) {
  try {
    return use(sessionStorage);
  } catch {
    return null;
  }
}

/**
 * Returns a draft, or null. What can't be read was written by another release.
 * @param {string} key
 */
export function readDraft(key) {
  return stored((storage) => JSON.parse(storage.getItem(PREFIX + key) ?? "null"));
}

/**
 * @param {string} key
 * @param {unknown} draft
 */
export function keepDraft(key, draft) {
  stored((storage) => storage.setItem(PREFIX + key, JSON.stringify(draft)));
}

/** @param {string} key */
export function dropDraft(key) {
  stored((storage) => storage.removeItem(PREFIX + key));
}

/** Whoever signs out leaves nothing that they have written to the next one. */
export function dropDrafts() {
  stored((storage) => Object.keys(storage).filter((key) => key.startsWith(PREFIX)).forEach((key) => storage.removeItem(key)));
}

/** A message: what is in the field, and what has left it. */
export class MessageDraft {
  /**
   * `who` keeps apart what several people write on one device.
   * @param {string | undefined} who
   * @param {string} sessionId
   */
  constructor(who, sessionId) {
    this.key = `message.${who}.${sessionId}`;
  }

  /**
   * `text` is in the field, and `messageId` is its id if it was sent before and may have arrived. `leaving` is the
   * message, with its id, that was sent a moment ago and of which nobody has said yet that it has arrived. `note` says
   * that all of it is for staff.
   * @param {Draft} draft
   */
  save({ text, messageId = null, leaving = null, note = false }) {
    if (text || leaving) keepDraft(this.key, { text, messageId, leaving, note });
    else dropDraft(this.key);
  }

  /** Returns the text for the field, and the id under which it may have arrived. */
  read() {
    /** @type {Draft} */
    const { text = "", messageId = null, leaving = null, note = false } = readDraft(this.key) ?? { text: "" };
    if (!leaving) return { text, messageId, note };
    return text ? { text: `${leaving.text}\n${text}`, messageId: null, note } : { ...leaving, note };
  }
}
