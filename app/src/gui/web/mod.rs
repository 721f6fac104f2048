//! The app in a browser: the page with its `WebClient`, and the worker in which the engine's session runs.
//!
//! Both are this program. The page hands its compiled module to the worker, so that it is fetched and compiled once; texts go back
//! and forth as `wire` says. Files are handed to the worker as the browser's handles and read there, a tensor at a time, so that a
//! model is never in the program's memory as a whole. Models are kept in the browser's storage of this origin (`storage`).

mod files;
mod hub;
mod page;
mod storage;
mod worker;

use wasm_bindgen::prelude::*;
use web_sys::DedicatedWorkerGlobalScope;

/// Runs the page, or the worker, depending on where it is.
///
/// # Errors
/// What the browser refuses.
pub fn run() -> Result<(), JsValue> {
    match js_sys::global().dyn_into::<DedicatedWorkerGlobalScope>() {
        Ok(scope) => worker::work(&scope),
        Err(_) => page::show(),
    }
}

/// What a browser's error says.
fn describe(value: &JsValue) -> String {
    let message = js_sys::Reflect::get(value, &"message".into()).ok().and_then(|message| message.as_string());
    message.or_else(|| value.as_string()).unwrap_or_else(|| format!("{value:?}"))
}

/// The worker's global object.
fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}
