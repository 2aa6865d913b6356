/** The server's clock: deadlines are its own, and a device's clock may be wrong. */

/** `Date` tells whole seconds, and comes with a delay: less than this is no difference. */
const TOLERANCE_MS = 2_000;
let ahead = 0;

/** What the server says that the time is, from the `Date` of its answer. */
export function noteServerTime(date) {
  const difference = Date.parse(date) - Date.now();
  if (Math.abs(difference - ahead) > TOLERANCE_MS) ahead = difference;
}

/** Milliseconds since 1970, by the server's clock. */
export function serverNow() {
  return Date.now() + ahead;
}
