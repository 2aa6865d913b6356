/** What the console uses of it: rows of modules, dark ones true. */
export function encode(text: string, options: { ecc: "L" | "M" | "Q" | "H"; border: number }): { data: boolean[][]; size: number };
