//! Embedding lookup in a packed table.

use super::{Linear, Rows, Use, check_size};
use crate::gpu::{Buffer, Recorder};
use crate::ops::{Bindings, OpsError};
use bytemuck::{Pod, Zeroable};

/// `Params` of embed/gather.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    runs: u32,
    cols: u32,
    row0: u32,
    rows: u32,
    token_offset: u32,
    y_offset: u32,
    y_stride: u32,
    accumulate: u32,
    scale: f32,
    pad: [u32; 3],
    sparse: [u32; 4],
}

/// `y[t, :] = scale · table[ids[first + t], :]` for `tokens` rows; `accumulate`: `y[t, :] += …`.
///
/// `ids` holds u32 rows of the table; an id past the table leaves its row of y as it was.
///
/// # Errors
/// Buffers that are too small, a gated table, or an error of the device.
pub fn embed(
    rec: &mut Recorder,
    table: &Linear,
    ids: &Buffer,
    first: u32,
    tokens: u32,
    y: Rows,
    scale: f32,
    accumulate: bool,
) -> Result<(), OpsError> {
    if tokens == 0 {
        return Ok(());
    }
    if table.gated {
        return Err(OpsError::shape("embed", format!("{} is a gated layer", table.label)));
    }
    if table.low_rank.is_some() {
        let what = format!("{}: rows of a table with a low-rank part cannot be looked up", table.label);
        return Err(OpsError::shape("embed", what));
    }
    check_size("embed", "tokens", ids, u64::from(first) + u64::from(tokens))?;
    y.check("y", tokens, table.cols)?;
    if let Some(expanded) = &table.expanded {
        let whole = || OpsError::shape("embed", format!("{} is a part of a group, not a table", table.label));
        let stream = expanded.table().ok_or_else(whole)?;
        return stream.embed(rec, [table.outputs, table.cols], ids, first, tokens, y, scale, accumulate);
    }
    let gpu = rec.gpu().clone();
    let kernel = table.kernel(Use::Lookup, || gpu.kernel("embed/gather", &table.codec_options()))?;
    let most = gpu.limits().max_compute_workgroups_per_dimension;
    for start in (0..tokens).step_by(most as usize) {
        let count = most.min(tokens - start);
        let y = y.skip(start);
        for chunk in &*table.chunks {
            let params = Params {
                runs: table.runs(),
                cols: table.cols,
                row0: chunk.output0,
                rows: chunk.outputs,
                token_offset: first + start,
                y_offset: y.offset,
                y_stride: y.stride,
                accumulate: accumulate.into(),
                scale,
                pad: [0; 3],
                sparse: table.sparse_params(),
            };
            let mut bindings = Bindings::from_iter([("tokens", ids.into()), ("y", y.buffer.into())]);
            bindings.extend(table.bindings(&chunk.planes).map(|(name, plane)| (name, plane.into())));
            rec.dispatch(&kernel, &bindings, &params, [(table.runs() * 4).div_ceil(64), count, 1])?;
        }
    }
    Ok(())
}
