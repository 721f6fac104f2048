// The engine's worker. Its first message is the compiled program; what comes before that has started waits.
import init from "./tersor.js";

const waiting = [];
self.onmessage = async ({ data: module }) => {
  self.onmessage = (event) => waiting.push(event);
  await init({ module_or_path: module });
  // The program has put its own listener in place.
  waiting.forEach((event) => self.onmessage(event));
};
