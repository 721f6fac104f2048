// Calls every export `test_NAME` of the module, one after another, and says how each ended.

// What a test says before it traps is what went wrong.
let said = [];
const error = console.error;
console.error = (...args) => {
  said.push(args.join(" "));
  error(...args);
};

/** The module anew: a test that trapped leaves locks and a stack behind. Each import of the glue has an instance of its own. */
let instances = 0;
async function instance(module) {
  const glue = await import(`./tersor.js?${instances++}`);
  const exports = await glue.default({ module_or_path: module });
  glue.prepare();
  return exports;
}

async function run(parts) {
  // "1/3": of every three tests the second.
  const share = parts.map((part) => /^(\d+)\/(\d+)$/.exec(part)).find(Boolean);
  const [mine, shares] = share ? [Number(share[1]), Number(share[2])] : [0, 1];
  parts = parts.filter((part) => !part.includes("/"));
  const only = parts.filter((part) => !part.startsWith("-"));
  const skip = parts.filter((part) => part.startsWith("-")).map((part) => part.slice(1));
  const within = (name) => (part) => name.includes(part);
  const wanted = (name) => (!only.length || only.some(within(name))) && !skip.some(within(name));

  if (!("Suspending" in WebAssembly)) throw new Error("this browser has no JavaScript Promise Integration (JSPI)");
  const module = await WebAssembly.compileStreaming(fetch("tersor_bg.wasm"));
  let exports = await instance(module);
  const names = Object.keys(exports).filter((name) => name.startsWith("test_"));
  const selected = names.map((name) => name.slice("test_".length)).filter(wanted);
  if (!selected.length) throw new Error(`no test is called so: ${parts}`);
  for (const name of selected.filter((_, at) => at % shares === mine)) {
    const begin = performance.now();
    let error = null;
    said = [];
    try {
      await WebAssembly.promising(exports[`test_${name}`])();
    } catch (trap) {
      error = said.join("\n") || String(trap);
      exports = await instance(module);
    }
    postMessage({ name, error, milliseconds: performance.now() - begin });
  }
}

self.onmessage = async ({ data: parts }) => {
  try {
    await run(parts);
    postMessage({ ended: true });
  } catch (trouble) {
    postMessage({ ended: true, error: String(trouble) });
  }
};
