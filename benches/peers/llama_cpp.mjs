// llama.cpp through node-llama-cpp, on its Vulkan or CPU backend: prefill and decode tokens a second of one GGUF.
//
//   node llama_cpp.mjs MODEL.gguf vulkan|cpu [--prompt N] [--decode N] [--rounds N]
//
// The same work as `tersor bench --model`: a prompt of N tokens into an empty context, then N tokens one at a time,
// greedily. Prints one line of JSON with medians. `llama_cpp.sh` beside this file installs the packages and takes turns.
import { getLlama } from "node-llama-cpp";

const [model, backend, ...rest] = process.argv.slice(2);
const number = (name, otherwise) => {
  const at = rest.indexOf(name);
  return at < 0 ? otherwise : Number(rest[at + 1]);
};
const prompt = number("--prompt", 128);
const decode = number("--decode", 32);
const rounds = number("--rounds", 5);

const llama = await getLlama({ gpu: backend === "vulkan" ? "vulkan" : false, build: "never", logLevel: "error" });
const loaded = await llama.loadModel({ modelPath: model, gpuLayers: backend === "vulkan" ? "max" : 0 });
const context = await loaded.createContext({ contextSize: prompt + decode + 8, batchSize: prompt, flashAttention: false });
const sequence = context.getSequence();
const tokens = Array.from({ length: prompt }, (_, i) => (i * 977 + 13) % 49152);

const round = async () => {
  await sequence.clearHistory();
  const begin = performance.now();
  let start = begin;
  let count = 0;
  for await (const _ of sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
    if (count === 0) start = performance.now();
    if (count++ === decode) break;
  }
  return { prefill: (start - begin) / 1e3, decode: (performance.now() - start) / 1e3 };
};
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

await round(); // compiles shaders
const found = [];
for (let i = 0; i < rounds; i++) found.push(await round());
console.log(
  JSON.stringify({
    peer: `llama.cpp ${llama.llamaCppRelease.release} ${backend}`,
    device: backend === "vulkan" ? (await llama.getGpuDeviceNames()).join(", ") : llama.cpuMathCores + " threads",
    prompt,
    decode,
    prefill_tokens_per_second: prompt / median(found.map((r) => r.prefill)),
    decode_tokens_per_second: decode / median(found.map((r) => r.decode)),
  }),
);
process.exit(0);
