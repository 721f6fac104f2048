//! tersor-engine: runs neural networks from their compressed form.
//!
//! A weight moves left to right, once, and never back:
//!
//! ```text
//! file bytes ── format ──▶ Checkpoint ── codec ──▶ Packed ── gpu ──▶ buffers ── ops ──▶ activations ── model ──▶ logits
//! ```
//!
//! A room knows its left neighbour's output and nothing else: [`format`] never sees the GPU, [`ops`] never sees a file,
//! [`model`] never sees a codec (it holds a `Linear` and calls it).

pub mod bench;
pub mod codec;
pub mod eval;
pub mod format;
pub mod generate;
pub mod gpu;
pub mod model;
pub mod ops;
pub mod progress;
pub mod reference;
pub mod session;
pub mod spelling;
