// The import with which a test waits: it puts the calling stack aside until the event loop has had a turn.
export const turn = new WebAssembly.Suspending(() => new Promise((resolve) => setTimeout(resolve, 0)));
