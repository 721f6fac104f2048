//! Typed wrappers around the kernels: they check shapes, choose a kernel variant and record it.
//!
//! In: buffers on the GPU and a params struct that says shapes in elements. Out: a dispatch in a recording; nothing runs until the
//! recording is submitted. All activations are `f32`, `[tokens, stride]` row-major.

use crate::gpu::GpuError;
use thiserror::Error;

pub mod linear;

/// Why an operation was refused before it was recorded.
#[derive(Debug, Error)]
pub enum OpsError {
    /// Shapes that do not fit each other or that no kernel variant covers.
    #[error("{op}: {what}")]
    Shape {
        /// The operation, e.g. `attention`.
        op: &'static str,
        /// What does not fit, with the numbers.
        what: String,
    },
    /// A buffer is smaller than what the kernel would touch.
    #[error("{op}: buffer `{buffer}` holds {have} bytes, {need} are needed")]
    BufferTooSmall {
        /// The operation.
        op: &'static str,
        /// The binding's name in the kernel.
        buffer: &'static str,
        /// Bytes the buffer has.
        have: u64,
        /// Bytes the kernel would touch.
        need: u64,
    },
    /// The device refused.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl OpsError {
    /// A [`OpsError::Shape`] for `op`.
    pub fn shape(op: &'static str, what: impl Into<String>) -> Self {
        OpsError::Shape { op, what: what.into() }
    }
}
