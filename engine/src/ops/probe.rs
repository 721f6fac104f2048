//! Probes of the device itself: what it copies, reads and multiplies at most. [`crate::bench`] measures ceilings with them.

use super::{OpsError, fold, holds};
use crate::gpu::{BufferSlice, Gpu, Recorder};

/// Lanes of a workgroup of the probes.
pub const LANES: u32 = 128;
/// Steps of 16 bytes that a lane of [`copy`] may take.
pub const COPY_STEPS: [u32; 3] = [1, 4, 16];
/// Vectors of four numbers that a lane of [`fma`] may keep.
pub const FMA_CHAINS: [u32; 4] = [1, 2, 4, 8];
/// Operations that a vector of four numbers takes in a round of [`fma`]: eight steps of a product and a sum.
pub const FMA_OPERATIONS: u64 = 8 * 4 * 2;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct MemoryParams {
    count: u32,
    lanes: u32,
    width: u32,
    pad: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct FmaParams {
    rounds: u32,
    lanes: u32,
    width: u32,
    factor: f32,
    addend: f32,
    pad: [u32; 3],
}

fn grid(op: &'static str, gpu: &Gpu, lanes: u32) -> Result<[u32; 3], OpsError> {
    fold(op, gpu, lanes.into(), LANES)
}

/// Records y = x for `steps` steps of 16 bytes, `each` ([`COPY_STEPS`]) of them a lane.
///
/// # Errors
/// [`OpsError`] for buffers that are too small or another `each`.
pub fn copy(rec: &mut Recorder, steps: u32, each: u32, x: BufferSlice, y: BufferSlice) -> Result<(), OpsError> {
    const OP: &str = "bench/copy";
    holds(OP, "x", &x, 4 * u64::from(steps))?;
    holds(OP, "y", &y, 4 * u64::from(steps))?;
    let kernel = rec.gpu().kernel(OP, &[("EACH", each.into())])?;
    let grid = grid(OP, rec.gpu(), steps.div_ceil(each.max(1)))?;
    // Every lane of the grid counts, those past the end too: together they take each step once.
    let (width, lanes) = (grid[0] * LANES, grid[0] * grid[1] * LANES);
    let params = MemoryParams { count: steps, lanes, width, pad: 0 };
    Ok(rec.dispatch(&kernel, &[("x", x), ("y", y)], &params, grid)?)
}

/// Records y\[lane\] = exclusive or of the `each` (a multiple of 4) steps of 16 bytes that each of `lanes` lanes reads.
///
/// # Errors
/// [`OpsError`] for buffers that are too small or another `each`.
pub fn read(rec: &mut Recorder, lanes: u32, each: u32, x: BufferSlice, y: BufferSlice) -> Result<(), OpsError> {
    const OP: &str = "bench/read";
    if !each.is_multiple_of(4) {
        return Err(OpsError::shape(OP, format!("{each} steps a lane are no multiple of 4")));
    }
    holds(OP, "x", &x, 4 * u64::from(each) * u64::from(lanes))?;
    holds(OP, "y", &y, lanes.into())?;
    let kernel = rec.gpu().kernel(OP, &[])?;
    let grid = grid(OP, rec.gpu(), lanes)?;
    let params = MemoryParams { count: each, lanes, width: grid[0] * LANES, pad: 0 };
    Ok(rec.dispatch(&kernel, &[("x", x), ("y", y)], &params, grid)?)
}

/// What [`fma`] is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fma {
    pub lanes: u32,
    /// Rounds of eight steps.
    pub rounds: u32,
    /// Vectors of four numbers a lane keeps, one of [`FMA_CHAINS`].
    pub chains: u32,
    /// By WGSL's `fma`; else as a product and a sum, which a driver may fuse.
    pub fused: bool,
    pub factor: f32,
    pub addend: f32,
}

impl Fma {
    /// Floating-point operations, a product and a sum being two.
    pub fn operations(&self) -> u64 {
        FMA_OPERATIONS * u64::from(self.chains) * u64::from(self.rounds) * u64::from(self.lanes)
    }
}

/// Records v = v·factor + addend, again and again, for every number of every lane; y\[lane\] = their sum
/// ([`crate::reference::probe::fma`]).
///
/// # Errors
/// [`OpsError`] for a buffer that is too small or other `chains`.
pub fn fma(rec: &mut Recorder, what: &Fma, y: BufferSlice) -> Result<(), OpsError> {
    const OP: &str = "bench/fma";
    holds(OP, "y", &y, what.lanes.into())?;
    let kernel = rec.gpu().kernel(OP, &[("CHAINS", what.chains.into()), ("FUSED", what.fused.into())])?;
    let grid = grid(OP, rec.gpu(), what.lanes)?;
    let Fma { lanes, rounds, factor, addend, .. } = *what;
    let params = FmaParams { rounds, lanes, width: grid[0] * LANES, factor, addend, pad: [0; 3] };
    Ok(rec.dispatch(&kernel, &[("y", y)], &params, grid)?)
}
