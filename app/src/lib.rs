//! tersor's program: the window, the command line, and where they get models from.
//!
//! The engine never fetches and never prints; this crate does. It talks to the engine through its session.

pub mod bundled;
#[cfg(not(target_arch = "wasm32"))]
pub mod cli;
pub mod digest;
#[cfg(not(target_arch = "wasm32"))]
pub mod fetch;
#[cfg(not(target_arch = "wasm32"))]
pub mod files;
#[cfg(feature = "gui")]
pub mod gui;
pub mod hub_id;
pub mod manifest;
pub mod report;
pub mod table;
#[cfg(not(target_arch = "wasm32"))]
pub mod tuning;
pub mod units;
