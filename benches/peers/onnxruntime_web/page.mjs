// Measures both in turns and posts what came out.
import * as ort from "/ort/ort.webgpu.min.mjs";
import { matMulNBits } from "./onnx.mjs";

const [turns, shape] = location.hash.slice(1).split(",");
const [rows, cols] = shape.split("x").map(Number);
const post = (message) => fetch("/", { method: "POST", body: JSON.stringify(message) });

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** tersor: the app's worker carries out its own benchmark, whose times are of submissions of several runs each. */
async function tersor() {
  const module = await WebAssembly.compileStreaming(fetch("/tersor/tersor_bg.wasm"));
  const worker = new Worker("/tersor/worker.js", { type: "module" });
  worker.postMessage(module);
  const send = (message) => worker.postMessage([JSON.stringify(message), []]);
  send({ start: { options: {}, hub: "" } });
  let job = 0;
  return () =>
    new Promise((resolve, reject) => {
      const mine = ++job;
      worker.onmessage = ({ data }) => {
        const { event } = JSON.parse(data);
        if (event?.job !== mine) return;
        if (event.event === "failed") reject(new Error(JSON.stringify(event.data)));
        if (event.event === "report") resolve(event.data);
      };
      send({ send: [mine, { bench: { filter: [`matvec q4_0 ${rows}x${cols} 1`], longest: 60 } }] });
    });
}

/** onnxruntime: input and output stay on the device; a sample is several runs and one wait, as in tersor's. */
async function onnxruntime() {
  ort.env.wasm.wasmPaths = "/ort/";
  ort.env.wasm.numThreads = 1;
  const [codes, scales, x] = [new Uint8Array((rows * cols) / 2), new Float32Array((rows * cols) / 32), new Float32Array(cols)];
  let state = 1;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  codes.forEach((_, i) => (codes[i] = random() * 256));
  scales.forEach((_, i) => (scales[i] = 0.001 + random() / 100));
  x.forEach((_, i) => (x[i] = random() * 2 - 1));
  const session = await ort.InferenceSession.create(matMulNBits(rows, cols, codes, scales), { executionProviders: ["webgpu"] });
  const device = await ort.env.webgpu.device;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const [input, output] = [cols, rows].map((n) => device.createBuffer({ size: 4 * n, usage }));
  device.queue.writeBuffer(input, 0, x);
  const on = (gpuBuffer, n) => ort.Tensor.fromGpuBuffer(gpuBuffer, { dataType: "float32", dims: [1, n] });
  const [feeds, fetches] = [{ A: on(input, cols) }, { Y: on(output, rows) }];
  const sample = async (runs) => {
    const begin = performance.now();
    for (let run = 0; run < runs; run++) await session.run(feeds, fetches);
    await device.queue.onSubmittedWorkDone();
    return (performance.now() - begin) / runs;
  };
  await sample(1); // compiles
  const once = await sample(2);

  // The result, against sums of ours.
  const read = device.createBuffer({ size: 4 * rows, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(output, 0, read, 0, 4 * rows);
  device.queue.submit([encoder.finish()]);
  await read.mapAsync(GPUMapMode.READ);
  const y = new Float32Array(read.getMappedRange());
  let [error, norm] = [0, 0];
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let col = 0; col < cols; col++) {
      const byte = codes[(row * cols + col) >> 1];
      sum += ((col & 1 ? byte >> 4 : byte & 15) - 8) * scales[(row * cols + col) >> 5] * x[col];
    }
    error = Math.max(error, Math.abs(sum - y[row]));
    norm = Math.max(norm, Math.abs(sum));
  }
  if (!(error < 1e-2 * norm)) throw new Error(`onnxruntime computes something else: ${error} of ${norm}`);
  const runs = Math.max(1, Math.round(20 / once));
  return {
    difference: error / norm,
    turn: async () => {
      const samples = [];
      for (let at = 0; at < 20; at++) samples.push(await sample(runs));
      return median(samples);
    },
  };
}

async function measure() {
  const [ours, theirs] = [await tersor(), await onnxruntime()];
  const found = { browser: navigator.userAgent.match(/Chrome\/[\d.]+/)[0], shape, difference: theirs.difference, turns: [] };
  for (let turn = 0; turn < Number(turns); turn++) {
    const report = await ours();
    const [measurement] = report.measurements;
    if (!measurement) throw new Error(`tersor measured nothing: ${JSON.stringify(report.skipped)}`);
    found.turns.push({ tersor: measurement.times.median_us / 1000, ort: await theirs.turn() });
    await post({ progress: `turn ${turn + 1} of ${turns}: ${JSON.stringify(found.turns.at(-1))}` });
    found.kernel = measurement.kernel;
    found.adapter = `${report.device.name} ${report.device.driver}`.trim();
    found.version = { tersor: report.version, ort: ort.env.versions.web };
  }
  await post(found);
}

measure().catch((error) => post({ error: String(error.stack ?? error) }));
