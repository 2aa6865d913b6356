/** What somebody has written and not sent, kept in the tab so that a reload doesn't lose it. */

const PREFIX = "waystation.draft.";

/** Returns a draft, or null. What can't be read was written by another release. */
export function readDraft(key) {
  try {
    return JSON.parse(sessionStorage.getItem(PREFIX + key));
  } catch {
    return null;
  }
}

export function keepDraft(key, draft) {
  try {
    sessionStorage.setItem(PREFIX + key, JSON.stringify(draft));
  } catch {
    // There is no room left: what is written stays on the page.
  }
}

export function dropDraft(key) {
  sessionStorage.removeItem(PREFIX + key);
}

/** Whoever signs out leaves nothing that they have written to the next one. */
export function dropDrafts() {
  for (const key of Object.keys(sessionStorage)) {
    if (key.startsWith(PREFIX)) sessionStorage.removeItem(key);
  }
}
