//! The coarse view: attention over means of neighbouring keys, and what joins two attentions into one.

use super::{Attention, check_cache};
use crate::gpu::{BufferSlice, Recorder};
use crate::ops::rope::{KvCache, KvFormat};
use crate::ops::{OpsError, fold, holds};

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PoolParams {
    kv_heads: u32,
    cols: u32,
    ctx: u32,
    kv_len: u32,
    gap: u32,
    group0: u32,
    groups: u32,
    pooled_ctx: u32,
}

/// Records the means of `gap` consecutive keys and values of `cache` into groups `range` of `pooled`, a cache in f32 that has a position
/// for every group. The last group is padded by repeating key `kv_len − 1`.
///
/// # Errors
/// [`OpsError::Shape`], [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn pool(
    rec: &mut Recorder,
    a: &Attention,
    cache: &KvCache,
    kv_len: u32,
    gap: u32,
    range: std::ops::Range<u32>,
    pooled: &KvCache,
) -> Result<(), OpsError> {
    const OP: &str = "attention/pool_keys";
    a.check(OP)?;
    check_cache(OP, a, cache, kv_len)?;
    if gap == 0 || pooled.format != KvFormat::F32 || range.end > kv_len.div_ceil(gap) {
        let what = format!("groups {range:?} of {kv_len} keys by {gap}, into {:?}", pooled.format);
        return Err(OpsError::shape(OP, what));
    }
    if range.is_empty() {
        return Ok(());
    }
    check_cache(OP, a, pooled, range.end)?;
    let groups = range.end - range.start;
    let lanes = u64::from(a.kv_heads) * u64::from(groups) * u64::from(a.head_dim / 4);
    let params = PoolParams {
        kv_heads: a.kv_heads,
        cols: a.head_dim / 4,
        ctx: cache.ctx,
        kv_len,
        gap,
        group0: range.start,
        groups,
        pooled_ctx: pooled.ctx,
    };
    let kernel = rec.gpu().kernel(OP, &[("KV_F16", cache.format.option())])?;
    let bindings = [
        ("k_cache", cache.k.all()),
        ("v_cache", cache.v.all()),
        ("pooled_k", pooled.k.all()),
        ("pooled_v", pooled.v.all()),
    ];
    let grid = [lanes.div_ceil(64).try_into().unwrap_or(u32::MAX), 1, 1];
    Ok(rec.dispatch(&kernel, &bindings, &params, grid)?)
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct MergeParams {
    rows: u32,
    cols: u32,
    width: u32,
    bias: f32,
}

/// An attention and its log-sums.
#[derive(Clone, Debug)]
pub struct Part {
    /// `[tokens, heads, head_dim]`.
    pub o: BufferSlice,
    /// `[tokens, heads]`.
    pub lse: BufferSlice,
}

/// Records a's attention joined with b's, whose keys stand for `weight` keys each, into `a.o` and `lse`.
///
/// The result is attention over both sets of keys. `lse` is another buffer than `a.lse`.
///
/// # Errors
/// [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn merge(
    rec: &mut Recorder,
    attention: &Attention,
    tokens: u32,
    a: &Part,
    b: &Part,
    weight: f32,
    lse: BufferSlice,
) -> Result<(), OpsError> {
    const OP: &str = "attention/merge";
    let rows = tokens * attention.heads;
    let cols = attention.head_dim / 4;
    for (name, slice) in [("a", &a.o), ("b", &b.o)] {
        holds(OP, name, slice, u64::from(rows) * u64::from(attention.head_dim))?;
    }
    for (name, slice) in [("lse_a", &a.lse), ("lse_b", &b.lse), ("lse", &lse)] {
        holds(OP, name, slice, rows.into())?;
    }
    let grid = fold(OP, rec.gpu(), u64::from(rows) * u64::from(cols), 64)?;
    let params = MergeParams { rows, cols, width: grid[0], bias: weight.ln() };
    let kernel = rec.gpu().kernel(OP, &[])?;
    let bindings =
        [("a", a.o.clone()), ("b", b.o.clone()), ("lse_a", a.lse.clone()), ("lse_b", b.lse.clone()), ("lse", lse)];
    Ok(rec.dispatch(&kernel, &bindings, &params, grid)?)
}
