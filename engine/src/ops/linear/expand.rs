//! An entropy-coded matrix as its codec has it, for kernels that read every weight many times.

use super::{Chunk, Linear};
use crate::codec::Symbols;
use crate::gpu::{Buffer, Recorder};
use crate::ops::OpsError;
use bytemuck::{Pod, Zeroable};

/// `Params` of entropy/expand.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    runs: u32,
    grid: u32,
    pad: u32,
}

/// Lanes of a workgroup, and columns of a chunk.
const LANES: u64 = 64;
const CHUNK: u32 = 128;

impl Linear {
    /// Bytes that the first plane of a chunk has when it is expanded.
    pub(super) fn expanded_bytes(&self, chunk: &Chunk, symbols: Symbols) -> u64 {
        let rows = u64::from(chunk.outputs) * if self.gated { 2 } else { 1 };
        rows * u64::from(self.runs()) * 4 * symbols.plane_bits() as u64
    }

    /// Whether every chunk, expanded, fits a binding of `limit` bytes.
    pub(super) fn expands(&self, limit: u64) -> bool {
        let fits = |symbols| self.chunks.iter().all(|chunk| self.expanded_bytes(chunk, symbols) <= limit);
        self.codec.coded().is_some_and(|(_, symbols)| fits(symbols))
    }
}

/// Planes of the codec beneath an entropy-coded matrix, chunk by chunk: for tests and benchmarks. Empty for other matrices.
///
/// # Errors
/// No room for the scratch buffers, or an error of the device.
pub fn expanded(rec: &mut Recorder, linear: &Linear) -> Result<Vec<Vec<Buffer>>, OpsError> {
    let Some((_, symbols)) = linear.codec.coded() else { return Ok(Vec::new()) };
    linear.chunks.iter().map(|chunk| expand(rec, linear, chunk, symbols)).collect()
}

/// The planes of the codec beneath, the first of them in a scratch buffer that is filled by the kernel recorded here.
pub(super) fn expand(
    rec: &mut Recorder,
    linear: &Linear,
    chunk: &Chunk,
    symbols: Symbols,
) -> Result<Vec<Buffer>, OpsError> {
    let gpu = rec.gpu().clone();
    let codes = gpu.scratch("expanded weights", linear.expanded_bytes(chunk, symbols))?;
    let rows = chunk.outputs * if linear.gated { 2 } else { 1 };
    let lanes = u64::from(rows) * u64::from(linear.cols.div_ceil(CHUNK));
    let groups = lanes.div_ceil(LANES) as u32;
    let grid = groups.min(gpu.limits().max_compute_workgroups_per_dimension);
    let kernel = gpu.kernel("entropy/expand", &[("BITS", symbols.plane_bits().into())])?;
    let mut bindings = vec![("codec_0", &chunk.planes[0]), ("codes", &codes)];
    let rest = match symbols {
        Symbols::Codes(_) => &chunk.planes[1..],
        Symbols::Exponents => {
            bindings.push(("codec_1", &chunk.planes[1]));
            &chunk.planes[2..]
        }
    };
    let params = Params { rows, runs: linear.runs(), grid, pad: 0 };
    rec.dispatch(&kernel, &bindings, &params, [grid, groups.div_ceil(grid), 1])?;
    Ok([codes].into_iter().chain(rest.iter().cloned()).collect())
}
