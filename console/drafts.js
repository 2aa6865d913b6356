// @ts-check
/** What somebody has written and not sent, kept in the tab: through a reload, Back, and the end of a sign-in. */

/**
 * @typedef {{ text: string, messageId: string }} Sent
 * @typedef {{ text: string, messageId?: string | null, leaving?: Sent | null, note?: boolean }} Draft
 */

const PREFIX = "waystation.draft.";

/**
 * Returns a draft, or null. What can't be read was written by another release.
 * @param {string} key
 */
export function readDraft(key) {
  try {
    return JSON.parse(sessionStorage.getItem(PREFIX + key) ?? "null");
  } catch {
    return null;
  }
}

/**
 * @param {string} key
 * @param {unknown} draft
 */
export function keepDraft(key, draft) {
  try {
    sessionStorage.setItem(PREFIX + key, JSON.stringify(draft));
  } catch {
    // There is no room left: what is written stays on the page.
  }
}

/** @param {string} key */
export function dropDraft(key) {
  sessionStorage.removeItem(PREFIX + key);
}

/** Whoever signs out leaves nothing that they have written to the next one. */
export function dropDrafts() {
  for (const key of Object.keys(sessionStorage)) {
    if (key.startsWith(PREFIX)) sessionStorage.removeItem(key);
  }
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
