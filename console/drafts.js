/** What a person has written and not sent yet, kept for the tab: through a reload, Back, and the end of a sign-in. */

const PREFIX = "waystation.draft.";

export class Draft {
  /** `who` keeps apart what several people write on one device. */
  constructor(who, sessionId) {
    this.key = `${PREFIX}${who}.${sessionId}`;
  }

  /**
   * `text` is in the field, and `messageId` is its id if it was sent before and may have arrived. `leaving` is the
   * message, with its id, that was sent a moment ago and of which nobody has said yet that it has arrived.
   */
  save({ text, messageId = null, leaving = null }) {
    try {
      if (text || leaving) sessionStorage.setItem(this.key, JSON.stringify({ text, messageId, leaving }));
      else sessionStorage.removeItem(this.key);
    } catch {
      // There is no more room, or none at all; the text is still in its field.
    }
  }

  /** Returns the text for the field, and the id under which it may have arrived. */
  read() {
    let kept = null;
    try {
      kept = JSON.parse(sessionStorage.getItem(this.key));
    } catch {
      // Nothing is kept here.
    }
    const { text = "", messageId = null, leaving = null } = kept ?? {};
    if (!leaving) return { text, messageId };
    return text ? { text: `${leaving.text}\n${text}`, messageId: null } : leaving;
  }
}

export function forgetDrafts() {
  for (const key of Object.keys(sessionStorage)) if (key.startsWith(PREFIX)) sessionStorage.removeItem(key);
}
