// Starts the page: looks for WebGPU, then hands over to the program, which starts its worker itself.
import init from "./tersor.js";

const notice = document.getElementById("notice");
const what = document.getElementById("what");

/** Says in one sentence why nothing can be shown, with a link to what helps. */
function explain(text, link, href) {
  what.textContent = text + " ";
  if (link) {
    const anchor = document.createElement("a");
    anchor.textContent = link;
    anchor.href = href;
    what.append(anchor);
  }
  notice.hidden = false;
}

const browsers = ["Which browsers have it?", "https://caniuse.com/webgpu"];

async function start() {
  if (!isSecureContext) {
    return explain("Browsers offer WebGPU to pages from https:// or localhost only, and this page came another way.");
  }
  if (!navigator.gpu) {
    return explain("tersor runs on your GPU through WebGPU, which this browser does not have.", ...browsers);
  }
  if (!(await navigator.gpu.requestAdapter())) {
    return explain("This browser has WebGPU but offers no graphics adapter: its driver may be missing or blocked.", ...browsers);
  }
  await init({ module_or_path: "tersor_bg.wasm" });
  notice.hidden = true;
  // Keys work at once.
  document.getElementById("canvas").focus();
}

start().catch((error) => explain(`tersor could not start: ${error.message ?? error}`));
