// Starts the tests in a worker, so that the page answers meanwhile, and writes what they say. `results` is what the driver reads.
window.results = [];
window.ended = false;
const log = document.getElementById("log");
const parts = decodeURIComponent(location.hash.slice(1)).split(",").filter(Boolean);
const worker = new Worker("worker.js", { type: "module" });
worker.onmessage = ({ data }) => {
  if (data.ended) {
    window.ended = true;
    log.append(`${data.error ?? `${results.length} tests`}\n`);
  } else {
    results.push(data);
    log.append(`${data.name} ... ${data.error ?? "ok"} (${(data.milliseconds / 1000).toFixed(1)} s)\n`);
  }
  if (data.error && data.ended) results.push({ name: "the page", error: data.error, milliseconds: 0 });
};
worker.onerror = (event) => worker.onmessage({ data: { ended: true, error: event.message ?? "the worker does not start" } });
worker.postMessage(parts);
