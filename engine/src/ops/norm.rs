//! RMS norm and layer norm of rows.

use super::{Bindings, OpsError, Variant, holds, span};
use crate::gpu::{BufferSlice, OptionValue, Recorder};
use arrayvec::ArrayVec;

/// Shapes of a norm over rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Rows, usually tokens.
    pub rows: u32,
    /// Numbers in a row.
    pub cols: u32,
    /// Where row 0 of `x` begins, in floats.
    pub x_offset: u32,
    /// Floats from row to row of `x`.
    pub x_stride: u32,
    /// Floats from row to row of `y` and of the residual.
    pub y_stride: u32,
    /// Added to the variance.
    pub eps: f32,
    /// Which kernel to record.
    pub variant: Variant,
}

impl Norm {
    /// Rows that lie tightly one after the other.
    pub fn tight(rows: u32, cols: u32, eps: f32) -> Self {
        Self { rows, cols, x_offset: 0, x_stride: cols, y_stride: cols, eps, variant: Variant::Auto }
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    rows: u32,
    cols: u32,
    x_offset: u32,
    x_stride: u32,
    y_stride: u32,
    eps: f32,
    pad: [u32; 2],
}

/// Records `y = x / √(mean(x²) + eps) · weight`, or `y = residual + …` where a residual is given.
///
/// `x`: `[rows, x_stride]`, `weight`: `[cols]`, `residual` and `y`: `[rows, y_stride]`; `y` must not be one of the others.
///
/// # Errors
/// [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn rms(
    rec: &mut Recorder,
    norm: &Norm,
    x: impl Into<BufferSlice>,
    weight: impl Into<BufferSlice>,
    residual: Option<BufferSlice>,
    y: impl Into<BufferSlice>,
) -> Result<(), OpsError> {
    let (x, weight, y) = (x.into(), weight.into(), y.into());
    let mut bindings = Bindings::from_iter([("x", (&x).into()), ("weight", (&weight).into()), ("y", (&y).into())]);
    let options = ArrayVec::from_iter([("RESIDUAL", residual.is_some().into())]);
    bindings.extend(residual.as_ref().map(|r| ("residual", r.into())));
    record(rec, "norm/rms", norm, bindings, options)
}

/// Records the layer norm of `z = x + residual` (`z = x` without one): `y = (z − mean z) / √(var z + eps) · weight + bias`.
///
/// Shapes as in [`rms`]; `bias`: `[cols]`.
///
/// # Errors
/// [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn layer(
    rec: &mut Recorder,
    norm: &Norm,
    x: impl Into<BufferSlice>,
    weight: impl Into<BufferSlice>,
    bias: Option<BufferSlice>,
    residual: Option<BufferSlice>,
    y: impl Into<BufferSlice>,
) -> Result<(), OpsError> {
    let (x, weight, y) = (x.into(), weight.into(), y.into());
    let mut bindings = Bindings::from_iter([("x", (&x).into()), ("weight", (&weight).into()), ("y", (&y).into())]);
    let options = ArrayVec::from_iter([("RESIDUAL", residual.is_some().into()), ("BIAS", bias.is_some().into())]);
    bindings.extend(residual.as_ref().map(|r| ("residual", r.into())));
    bindings.extend(bias.as_ref().map(|b| ("bias", b.into())));
    record(rec, "norm/layer", norm, bindings, options)
}

fn record(
    rec: &mut Recorder,
    op: &'static str,
    norm: &Norm,
    bindings: Bindings,
    mut options: ArrayVec<(&str, OptionValue), 4>,
) -> Result<(), OpsError> {
    if norm.cols == 0 || norm.x_stride < norm.cols || norm.y_stride < norm.cols {
        let what = format!("strides {} and {} for rows of {}", norm.x_stride, norm.y_stride, norm.cols);
        return Err(OpsError::shape(op, what));
    }
    for (name, slice) in &bindings {
        let need = match *name {
            "x" => span(norm.x_offset, norm.rows, norm.x_stride, norm.cols),
            "weight" | "bias" => norm.cols.into(),
            _ => span(0, norm.rows, norm.y_stride, norm.cols),
        };
        holds(op, name, slice, need)?;
    }
    let software = norm.variant.software(rec.gpu());
    options.push(("CPU", software.into()));
    options.push(("SUBGROUP", (!software && rec.gpu().tier().subgroup).into()));
    let kernel = rec.gpu().kernel(op, &options)?;
    let params = Params {
        rows: norm.rows,
        cols: norm.cols,
        x_offset: norm.x_offset,
        x_stride: norm.x_stride,
        y_stride: norm.y_stride,
        eps: norm.eps,
        pad: [0; 2],
    };
    let groups = if software { norm.rows.div_ceil(8) } else { norm.rows };
    Ok(rec.dispatch(&kernel, &bindings, &params, [groups, 1, 1])?)
}
