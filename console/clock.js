/** The server's clock. Deadlines follow it, because a device's clock may be wrong. */

/** `Date` has whole seconds and arrives with a delay, so smaller differences are ignored. */
const TOLERANCE_MS = 2_000;
let ahead = 0;

/**
 * Takes the server's time from the `Date` header of a response.
 * @param {string | null} date
 */
export function noteServerTime(date) {
  const difference = Date.parse(date ?? "") - Date.now();
  if (Math.abs(difference - ahead) > TOLERANCE_MS) ahead = difference;
}

/** Milliseconds since 1970, by the server's clock. */
export function serverNow() {
  return Date.now() + ahead;
}
