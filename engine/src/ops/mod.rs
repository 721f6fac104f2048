//! Typed wrappers around the kernels: they check shapes, choose a kernel variant and record it.
//!
//! In: buffers on the GPU and a params struct that says shapes in elements. Out: a dispatch in a recording; nothing runs until the
//! recording is submitted. All activations are `f32`, `[tokens, stride]` row-major.

use crate::gpu::{Binding, Gpu, GpuError, MAX_BINDINGS};
use thiserror::Error;

pub mod attention;
pub mod dfloat11;
pub mod elementwise;
pub mod linear;
pub mod metrics;
pub mod moments;
pub mod norm;
pub mod probe;
pub mod reduced;
pub mod rope;
pub mod sample;
mod trial;

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
    /// What the model computed is not a number; the weights or the device are broken.
    #[error("{op}: the result is not a number: {what}")]
    NotANumber {
        /// The operation.
        op: &'static str,
        /// Where.
        what: String,
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

/// Which of a kernel's variants to record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// The one for the adapter at hand.
    #[default]
    Auto,
    /// The one for real GPUs: workgroup memory, barriers, subgroups where the tier has them.
    Gpu,
    /// The one for software adapters: no barriers, everything in variables.
    Software,
}

impl Variant {
    /// Whether to record the variant for software adapters.
    pub(crate) fn software(self, gpu: &Gpu) -> bool {
        match self {
            Variant::Auto => gpu.is_cpu(),
            Variant::Gpu => false,
            Variant::Software => true,
        }
    }
}

/// The bindings of a dispatch.
pub(crate) type Bindings<'a> = arrayvec::ArrayVec<(&'static str, Binding<'a>), MAX_BINDINGS>;

/// Fails unless `slice` holds `elements` of four bytes.
pub(crate) fn holds<'a>(
    op: &'static str,
    buffer: &'static str,
    slice: impl Into<Binding<'a>>,
    elements: u64,
) -> Result<(), OpsError> {
    let (have, need) = (slice.into().size(), elements.saturating_mul(4));
    if have < need { Err(OpsError::BufferTooSmall { op, buffer, have, need }) } else { Ok(()) }
}

/// Elements that `rows` rows of `cols` elements span, the first at `offset`, `stride` elements apart.
pub(crate) fn span(offset: u32, rows: u32, stride: u32, cols: u32) -> u64 {
    if rows == 0 { 0 } else { u64::from(offset) + u64::from(rows - 1) * u64::from(stride) + u64::from(cols) }
}

/// A grid for `lanes` lanes in workgroups of `size`, folded into two dimensions where one is not enough.
/// The kernel gets the width and skips the lanes past the end.
pub(crate) fn fold(op: &'static str, gpu: &Gpu, lanes: u64, size: u32) -> Result<[u32; 3], OpsError> {
    let groups = lanes.div_ceil(u64::from(size));
    let max = u64::from(gpu.limits().max_compute_workgroups_per_dimension);
    let height = groups.div_ceil(max).max(1);
    let width = groups.div_ceil(height);
    // The kernels count lanes in u32.
    if height > max || width * height * u64::from(size) > u64::from(u32::MAX) {
        return Err(OpsError::shape(op, format!("{lanes} elements are more than one dispatch can cover")));
    }
    Ok([width as u32, height as u32, 1])
}
