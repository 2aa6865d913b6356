/** Waits for the styles of what developers open, which nobody else needs. */

import { h } from "../dom.js";

const styles = h("link", { rel: "stylesheet", href: new URL("../debug.css", import.meta.url).href });

await new Promise((resolve) => {
  styles.addEventListener("load", resolve);
  // Without them it is plain, and all there.
  styles.addEventListener("error", resolve);
  document.head.append(styles);
});
