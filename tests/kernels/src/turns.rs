//! Waiting for a device, natively and in a browser.
//!
//! A browser's devices answer between turns of its event loop, so nothing can wait for them inside one. JavaScript Promise
//! Integration (JSPI, in Chromium from 137 on) can: the page calls an export through `WebAssembly.promising`, and an import made by
//! `WebAssembly.Suspending` puts the whole stack aside until a promise resolves. That makes the tests' code the same everywhere.

#[cfg(not(target_family = "wasm"))]
pub use pollster::block_on;

/// Runs a future to its end, giving the browser a turn of its event loop while it has to wait.
#[cfg(target_family = "wasm")]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    // Nobody is woken: the future is asked again after each turn.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        // SAFETY: the import takes and returns nothing. What runs in between (callbacks of promises) uses the stack above this
        // frame and is done with it before the import returns.
        unsafe { turn() };
    }
}

#[cfg(target_family = "wasm")]
#[link(wasm_import_module = "./turn.js")]
unsafe extern "C" {
    /// Returns after a turn of the event loop.
    fn turn();
}

/// What the page calls once, before any test: a panic's message goes to the console, whence it becomes the test's.
#[cfg(target_family = "wasm")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn prepare() {
    std::panic::set_hook(Box::new(|panic| web_sys::console::error_1(&panic.to_string().into())));
}
