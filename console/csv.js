/** Tables as CSV, for spreadsheets: what somebody else wrote is never a formula there. */

/** A cell that begins so is a formula to some program, whatever quotes are around it. */
const FORMULA = /^[\s\0]*[=+\-@\t\r\uff0b\uff0d\uff1d\uff20|%]/;

/**
 * @param {string[]} columns
 * @param {(string | number | null | undefined)[][]} rows numbers are whole, and stand as they are
 */
export function csv(columns, rows) {
  return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** @param {string | number | null | undefined} value */
function cell(value) {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "");
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}
