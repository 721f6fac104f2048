//! Operations that touch every number once: activations, sums, scalings, copies of rows, pooling.

use super::{Bindings, OpsError, fold, holds, span};
use crate::gpu::{BufferSlice, Recorder};
use serde::{Deserialize, Serialize};

/// The nonlinearity of an MLP. The number is option `ACT` of the kernels that apply it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activation {
    /// x·σ(x).
    Silu = 0,
    /// GELU by the tanh approximation (GPT-2, Gemma).
    GeluTanh = 1,
    /// GELU with the error function (BERT).
    GeluErf = 2,
    /// max(x, 0).
    Relu = 3,
}

impl Activation {
    /// The value of option `ACT`.
    pub fn option(self) -> u32 {
        self as u32
    }
}

/// Shapes of [`gated`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gated {
    /// Tokens.
    pub rows: u32,
    /// Width of the MLP.
    pub cols: u32,
    /// Where row 0 of the gate begins, in floats.
    pub gate_offset: u32,
    /// Floats from row to row of the gate.
    pub gate_stride: u32,
    /// Where row 0 of the factor begins, in floats.
    pub up_offset: u32,
    /// Floats from row to row of the factor.
    pub up_stride: u32,
    /// Floats from row to row of `y`.
    pub y_stride: u32,
    /// Applied to the gate.
    pub activation: Activation,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct GatedParams {
    rows: u32,
    cols: u32,
    gate_offset: u32,
    gate_stride: u32,
    up_offset: u32,
    up_stride: u32,
    y_stride: u32,
    width: u32,
}

/// Records `y = activation(gate) · up`, or `y = activation(gate)` without `up`. `gate` and `up` may be one buffer.
///
/// # Errors
/// [`OpsError::BufferTooSmall`], [`OpsError::Shape`], or [`OpsError::Gpu`] from recording.
pub fn gated(
    rec: &mut Recorder,
    shape: &Gated,
    gate: impl Into<BufferSlice>,
    up: Option<BufferSlice>,
    y: impl Into<BufferSlice>,
) -> Result<(), OpsError> {
    const OP: &str = "elementwise/gated";
    let s = *shape;
    let (gate, y) = (gate.into(), y.into());
    holds(OP, "gate", &gate, span(s.gate_offset, s.rows, s.gate_stride, s.cols))?;
    holds(OP, "y", &y, span(0, s.rows, s.y_stride, s.cols))?;
    let options = [("ACT", s.activation.option().into()), ("GATED", up.is_some().into())];
    let mut bindings = Bindings::from_iter([("gate", (&gate).into()), ("y", (&y).into())]);
    if let Some(up) = &up {
        holds(OP, "up", up, span(s.up_offset, s.rows, s.up_stride, s.cols))?;
        bindings.push(("up", up.into()));
    }
    let grid = fold(OP, rec.gpu(), u64::from(s.rows) * u64::from(s.cols), 64)?;
    let params = GatedParams {
        rows: s.rows,
        cols: s.cols,
        gate_offset: s.gate_offset,
        gate_stride: s.gate_stride,
        up_offset: s.up_offset,
        up_stride: s.up_stride,
        y_stride: s.y_stride,
        width: grid[0],
    };
    let kernel = rec.gpu().kernel(OP, &options)?;
    Ok(rec.dispatch(&kernel, &bindings, &params, grid)?)
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct MapParams {
    n: u32,
    y_offset: u32,
    x_offset: u32,
    width: u32,
    scale: f32,
    pad: [u32; 3],
}

fn map(
    rec: &mut Recorder,
    kind: u32,
    n: u32,
    y: BufferSlice,
    x: Option<BufferSlice>,
    factor: f32,
) -> Result<(), OpsError> {
    const OP: &str = "elementwise/map";
    holds(OP, "y", &y, n.into())?;
    let mut bindings = Bindings::from_iter([("y", (&y).into())]);
    if let Some(x) = &x {
        holds(OP, "x", x, n.into())?;
        bindings.push(("x", x.into()));
    }
    let grid = fold(OP, rec.gpu(), n.into(), 64)?;
    let params = MapParams { n, y_offset: 0, x_offset: 0, width: grid[0], scale: factor, pad: [0; 3] };
    let kernel = rec.gpu().kernel(OP, &[("OP", kind.into())])?;
    Ok(rec.dispatch(&kernel, &bindings, &params, grid)?)
}

/// Records `y += x · factor` over `n` numbers.
///
/// # Errors
/// [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn add(
    rec: &mut Recorder,
    n: u32,
    y: impl Into<BufferSlice>,
    x: impl Into<BufferSlice>,
    factor: f32,
) -> Result<(), OpsError> {
    map(rec, 0, n, y.into(), Some(x.into()), factor)
}

/// Records `y *= factor` over `n` numbers (Gemma scales its embeddings by √hidden).
///
/// # Errors
/// [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn scale(rec: &mut Recorder, n: u32, y: impl Into<BufferSlice>, factor: f32) -> Result<(), OpsError> {
    map(rec, 1, n, y.into(), None, factor)
}

/// Records `y = cap · tanh(y / cap)` over `n` numbers (Gemma 2's bounded logits).
///
/// # Errors
/// [`OpsError::BufferTooSmall`], [`OpsError::Shape`] for a cap that is not positive, or [`OpsError::Gpu`] from recording.
pub fn soft_cap(rec: &mut Recorder, n: u32, y: impl Into<BufferSlice>, cap: f32) -> Result<(), OpsError> {
    if cap.is_nan() || cap <= 0.0 {
        return Err(OpsError::shape("elementwise/map", format!("a cap of {cap}")));
    }
    map(rec, 2, n, y.into(), None, cap)
}

/// Shapes of [`rows`] and [`pack_rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Rows to copy.
    pub n: u32,
    /// Numbers in a row.
    pub cols: u32,
    /// Rows of `x`.
    pub x_rows: u32,
    /// Floats from row to row of `x`.
    pub x_stride: u32,
    /// Elements from row to row of `y` (floats, or words when packing).
    pub y_stride: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct RowsParams {
    n: u32,
    cols: u32,
    x_rows: u32,
    x_stride: u32,
    y_stride: u32,
    width: u32,
    pad: [u32; 2],
}

fn copy_rows(
    rec: &mut Recorder,
    shape: &Rows,
    x: BufferSlice,
    indices: BufferSlice,
    y: BufferSlice,
    pack: bool,
) -> Result<(), OpsError> {
    const OP: &str = "elementwise/rows";
    let s = *shape;
    let width = if pack { s.cols / 2 } else { s.cols };
    if s.x_rows == 0 || (pack && !s.cols.is_multiple_of(2)) {
        return Err(OpsError::shape(OP, format!("{} rows of {} numbers (packed: {pack})", s.x_rows, s.cols)));
    }
    holds(OP, "x", &x, span(0, s.x_rows, s.x_stride, s.cols))?;
    holds(OP, "rows", &indices, s.n.into())?;
    holds(OP, "y", &y, span(0, s.n, s.y_stride, width))?;
    let grid = fold(OP, rec.gpu(), u64::from(s.n) * u64::from(width), 64)?;
    let params = RowsParams {
        n: s.n,
        cols: s.cols,
        x_rows: s.x_rows,
        x_stride: s.x_stride,
        y_stride: s.y_stride,
        width: grid[0],
        pad: [0; 2],
    };
    let kernel = rec.gpu().kernel(OP, &[("PACK", pack.into())])?;
    Ok(rec.dispatch(&kernel, &[("x", x), ("rows", indices), ("y", y)], &params, grid)?)
}

/// Records `y[i] = x[indices[i]]`; an index past the end reads the last row.
///
/// `x`: `[x_rows, x_stride]` f32, `indices`: `[n]` u32, `y`: `[n, y_stride]` f32.
///
/// # Errors
/// [`OpsError::BufferTooSmall`], [`OpsError::Shape`], or [`OpsError::Gpu`] from recording.
pub fn rows(
    rec: &mut Recorder,
    shape: &Rows,
    x: impl Into<BufferSlice>,
    indices: impl Into<BufferSlice>,
    y: impl Into<BufferSlice>,
) -> Result<(), OpsError> {
    copy_rows(rec, shape, x.into(), indices.into(), y.into(), false)
}

/// As [`rows`], with two neighbouring numbers rounded to f16 and packed into a word of `y`.
///
/// # Errors
/// As [`rows`]; `cols` must be even.
pub fn pack_rows(
    rec: &mut Recorder,
    shape: &Rows,
    x: impl Into<BufferSlice>,
    indices: impl Into<BufferSlice>,
    y: impl Into<BufferSlice>,
) -> Result<(), OpsError> {
    copy_rows(rec, shape, x.into(), indices.into(), y.into(), true)
}

/// How a sentence's embedding comes from its tokens' states. The number is option `POOL` of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pooling {
    /// The mean over all tokens.
    Mean = 0,
    /// The first token (CLS).
    First = 1,
    /// The last token.
    Last = 2,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PoolParams {
    rows: u32,
    cols: u32,
    x_stride: u32,
    y_offset: u32,
}

/// Records the pooling of `tokens` rows of `x` (`[tokens, cols]`) into `cols` numbers at `y_offset` floats into `y`,
/// divided by their L2 norm where `normalize` is set.
///
/// # Errors
/// [`OpsError::BufferTooSmall`], [`OpsError::Shape`] without a token, or [`OpsError::Gpu`] from recording.
pub fn pool(
    rec: &mut Recorder,
    pooling: Pooling,
    normalize: bool,
    [tokens, cols]: [u32; 2],
    x: impl Into<BufferSlice>,
    y: impl Into<BufferSlice>,
    y_offset: u32,
) -> Result<(), OpsError> {
    const OP: &str = "elementwise/pool";
    let (x, y) = (x.into(), y.into());
    if tokens == 0 {
        return Err(OpsError::shape(OP, "no token to pool"));
    }
    holds(OP, "x", &x, span(0, tokens, cols, cols))?;
    holds(OP, "y", &y, span(y_offset, 1, cols, cols))?;
    let options = [
        ("POOL", (pooling as u32).into()),
        ("NORMALIZE", normalize.into()),
        ("SUBGROUP", (normalize && rec.gpu().tier().subgroup).into()),
    ];
    let kernel = rec.gpu().kernel(OP, &options)?;
    let params = PoolParams { rows: tokens, cols, x_stride: cols, y_offset };
    Ok(rec.dispatch(&kernel, &[("x", x), ("y", y)], &params, [1, 1, 1])?)
}
