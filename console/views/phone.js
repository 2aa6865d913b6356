/** "Continue on your phone": a QR code with a short-lived token of the same person. */

import { h, dateTime, svg } from "../dom.js";
import { encode } from "../vendor/uqr.js";

/** The margin in modules that the QR code standard requires. */
const QUIET_MODULES = 4;

export async function showPhone(api, sessionId) {
  const dialog = h("dialog", { class: "phone", "aria-label": "Continue on your phone" });
  dialog.addEventListener("close", () => dialog.remove());
  const close = h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Close");
  document.body.append(dialog);
  try {
    const { token, expires_at: expiresAt } = await api.call("read", "POST", `/sessions/${sessionId}/tokens`);
    const address = `${location.origin}/#/sessions/${sessionId}?token=${token}`;
    const ends = dateTime(new Date(expiresAt * 1000).toISOString());
    dialog.append(h("div", {},
      h("h2", {}, "Continue on your phone"),
      h("figure", {}, picture(address), h("figcaption", {}, `Signs you in to this session only, until ${ends}. Don't show it to anyone else.`)),
      isLocal() && h("p", { class: "quiet-text" }, `Another device can't reach ${location.hostname}. Open the console by this machine's name in your network first.`),
      h("label", {}, "Or use this link ", h("input", { type: "text", readonly: true, value: address, onfocus: (event) => event.target.select() })),
      h("p", {}, close)));
  } catch (error) {
    dialog.append(h("p", { class: "problem" }, error.message), close);
  }
  dialog.showModal();
}

function isLocal() {
  return ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
}

/** One path of all dark modules, on white in both themes, because cameras need the contrast. */
function picture(text) {
  const { data, size } = encode(text, { ecc: "L", border: 0 });
  let path = "";
  data.forEach((row, y) => row.forEach((dark, x) => {
    if (dark) path += `M${x + QUIET_MODULES} ${y + QUIET_MODULES}h1v1h-1z`;
  }));
  const side = size + 2 * QUIET_MODULES;
  return svg("svg", { viewBox: `0 0 ${side} ${side}`, class: "qr", role: "img", "aria-label": "QR code", "shape-rendering": "crispEdges" },
    svg("rect", { width: side, height: side, fill: "#fff" }), svg("path", { d: path, fill: "#000" }));
}
