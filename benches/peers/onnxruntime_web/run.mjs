// Serves the page and both programs to a headless Chromium and prints what the page measured.
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";

const SWIFTSHADER =
  "--enable-unsafe-webgpu --use-webgpu-adapter=swiftshader --enable-features=Vulkan --use-vulkan=swiftshader --use-angle=swiftshader";

const options = { turns: "3", shape: "4096x4096", flags: SWIFTSHADER, json: false };
const args = process.argv.slice(2);
while (args.length) {
  const name = args.shift().replace(/^--/, "");
  if (!(name in options)) throw new Error(`unknown option ${name}: --turns, --shape, --flags, --json`);
  options[name] = name === "json" ? true : args.shift();
}

const folders = {
  "/tersor/": "target/web/dist",
  "/ort/": "target/peers/node_modules/onnxruntime-web/dist",
  "/": "benches/peers/onnxruntime_web",
};
const types = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };

const found = await new Promise((resolve, reject) => {
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://localhost").pathname);
    if (request.method === "POST") {
      let body = "";
      for await (const piece of request) body += piece;
      response.end();
      const message = JSON.parse(body);
      if (message.progress) return console.error(message.progress);
      browser.kill();
      server.close();
      return message.error ? reject(new Error(message.error)) : resolve(message);
    }
    const prefix = Object.keys(folders).find((prefix) => path.startsWith(prefix));
    try {
      const body = await readFile(join(folders[prefix], path.slice(prefix.length) || "index.html"));
      response.writeHead(200, { "Content-Type": types[extname(path) || ".html"] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  let browser;
  server.listen(0, "127.0.0.1", async () => {
    const profile = await mkdtemp(join(tmpdir(), "tersor-peer-"));
    const page = `http://127.0.0.1:${server.address().port}/#${options.turns},${options.shape}`;
    const fixed = ["--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-sync"];
    browser = spawn(process.env.CHROMIUM ?? "chromium", [...fixed, ...options.flags.split(" "), `--user-data-dir=${profile}`, page], {
      stdio: "ignore",
    });
    browser.on("error", (error) => reject(new Error(`chromium does not start: ${error.message}`)));
    browser.on("exit", () => {
      server.close();
      rm(profile, { recursive: true, force: true, maxRetries: 5 });
      reject(new Error("the browser ended before it had measured anything"));
    });
  });
});

if (options.json) {
  console.log(JSON.stringify(found));
} else {
  const row = (...cells) => console.log(cells[0].padEnd(34), ...cells.slice(1).map((cell) => String(cell).padStart(12)));
  console.log(`${found.browser}; ${found.adapter}; ${found.shape}, one column; median, ms\n`);
  row("turn", "tersor", "onnxruntime", "ratio");
  found.turns.forEach(({ tersor, ort }, at) => row(`${at + 1}`, tersor.toFixed(2), ort.toFixed(2), (ort / tersor).toFixed(2)));
  console.log(`\ntersor ${found.version.tersor} q4_0 (${found.kernel}); onnxruntime-web ${found.version.ort} MatMulNBits, 4 bits, blocks of 32`);
  console.log(`largest difference of onnxruntime's result from the page's own f64 sums: ${found.difference.toExponential(1)} (relative)`);
}
