//! What stands between the products of a shrunk layer and attention: heads with fewer dimensions than the model was made with.
//!
//! Attention has kernels for some head sizes ([`HEAD_DIMS`](super::attention::HEAD_DIMS)); queries, keys and values of other sizes are padded
//! with zeros to the next one ([`padded_dim`]). What the matrices compute and hold is not padded.

use super::attention::HEAD_DIMS;
use super::rope::{KvCache, RopeStyle};
use super::{Bindings, OpsError, fold, holds, span};
use crate::gpu::{BufferSlice, Recorder};

/// The head size of the cache for queries and keys of `qk_dim` and values of `v_dim` dimensions: the smallest that has a kernel.
pub fn padded_dim(qk_dim: u32, v_dim: u32) -> Option<u32> {
    HEAD_DIMS.into_iter().find(|dim| *dim >= qk_dim.max(v_dim))
}

/// Shapes of [`append`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReducedAppend {
    /// New tokens.
    pub tokens: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Dimensions of queries and keys: even.
    pub qk_dim: u32,
    /// Dimensions of values: even.
    pub v_dim: u32,
    /// Dimensions of a head in the cache: [`padded_dim`].
    pub head_dim: u32,
    /// Of the kept dimensions of queries and keys, how many rotate: even.
    pub rotary: u32,
    /// Pairs of dimensions in a row of the rotary table.
    pub table_pairs: u32,
    /// Position of token 0, and so its place in the cache.
    pub pos0: u32,
    /// Which of the kept dimensions turn together; not [`RopeStyle::None`].
    pub style: RopeStyle,
    /// Of the per-head norm of queries and keys, where there is one.
    pub norm_eps: f32,
}

impl ReducedAppend {
    /// Floats of a token: its queries, keys and values, one after the other.
    pub fn width(&self) -> u32 {
        (self.heads + self.kv_heads) * self.qk_dim + self.kv_heads * self.v_dim
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct AppendParams {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    qk_dim: u32,
    v_dim: u32,
    head_dim: u32,
    rotary: u32,
    table_pairs: u32,
    pos0: u32,
    ctx: u32,
    stride: u32,
    eps: f32,
    width: u32,
    pad: [u32; 3],
}

/// Records the rotation of queries into `q_out` (`[tokens, heads, head_dim]`), and of keys, with the values, into the cache; all padded with
/// zeros to `head_dim`.
///
/// `qkv`: `[tokens, ReducedAppend::width]`. `table`: a [`RopeTable`](super::rope::RopeTable) of the whole head. `pairs`: `[kv_heads, rotary/2]`,
/// which pair of the whole head each kept pair was. `qk_norm`: `[2, qk_dim]`, as in [`rope::append`](super::rope::append).
///
/// # Errors
/// [`OpsError::Shape`] if the cache has no room or the shapes do not fit, [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`].
pub fn append(
    rec: &mut Recorder,
    shape: &ReducedAppend,
    qkv: BufferSlice,
    table: BufferSlice,
    pairs: BufferSlice,
    qk_norm: Option<BufferSlice>,
    q_out: impl Into<BufferSlice>,
    cache: &KvCache,
) -> Result<(), OpsError> {
    const OP: &str = "attention/reduced_append";
    let s = *shape;
    let even = [s.qk_dim, s.v_dim, s.head_dim, s.rotary].iter().all(|dim| dim.is_multiple_of(2));
    let inside = s.qk_dim.max(s.v_dim) <= s.head_dim && s.rotary <= s.qk_dim && (s.rotary == 0 || s.table_pairs > 0);
    let grouped = s.kv_heads > 0 && s.heads.is_multiple_of(s.kv_heads);
    if !(even && inside && grouped) || s.style == RopeStyle::None {
        return Err(OpsError::shape(OP, format!("{s:?}")));
    }
    if u64::from(s.pos0) + u64::from(s.tokens) > u64::from(cache.ctx) {
        let what = format!("{} tokens at position {} in a cache of {} positions", s.tokens, s.pos0, cache.ctx);
        return Err(OpsError::shape(OP, what));
    }
    let q_out = q_out.into();
    holds(OP, "qkv", &qkv, span(0, s.tokens, s.width(), s.width()))?;
    holds(OP, "rope", &table, 2 * u64::from(s.pos0 + s.tokens) * u64::from(s.table_pairs))?;
    holds(OP, "pairs", &pairs, u64::from(s.kv_heads) * u64::from(s.rotary / 2))?;
    holds(OP, "q_out", &q_out, u64::from(s.tokens) * u64::from(s.heads) * u64::from(s.head_dim))?;
    let words = cache.format.cache_bytes(s.kv_heads, cache.ctx, s.head_dim) / 4;
    let mut bindings = Bindings::from_iter(
        [("qkv", &qkv), ("rope", &table), ("pairs", &pairs), ("q_out", &q_out)]
            .map(|(name, slice)| (name, slice.into())),
    );
    for (name, buffer) in [("k_cache", &cache.k), ("v_cache", &cache.v)] {
        holds(OP, name, buffer, words)?;
        bindings.push((name, buffer.into()));
    }
    let options =
        [("STYLE", (s.style as u32).into()), ("QK_NORM", qk_norm.is_some().into()), ("KV_F16", cache.format.option())];
    if let Some(weights) = &qk_norm {
        holds(OP, "qk_norm", weights, 2 * u64::from(s.qk_dim))?;
        bindings.push(("qk_norm", weights.into()));
    }
    let lanes = u64::from(s.tokens) * u64::from(s.heads + 2 * s.kv_heads) * u64::from(s.head_dim / 2);
    let grid = fold(OP, rec.gpu(), lanes, 64)?;
    let params = AppendParams {
        tokens: s.tokens,
        heads: s.heads,
        kv_heads: s.kv_heads,
        qk_dim: s.qk_dim,
        v_dim: s.v_dim,
        head_dim: s.head_dim,
        rotary: s.rotary,
        table_pairs: s.table_pairs,
        pos0: s.pos0,
        ctx: cache.ctx,
        stride: s.width(),
        eps: s.norm_eps,
        width: grid[0],
        pad: [0; 3],
    };
    let kernel = rec.gpu().kernel(OP, &options)?;
    Ok(rec.dispatch(&kernel, &bindings, &params, grid)?)
}

/// Shapes of [`compact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact {
    /// Tokens.
    pub tokens: u32,
    /// Query heads.
    pub heads: u32,
    /// Dimensions of a head in the input.
    pub head_dim: u32,
    /// Dimensions of a head in the output.
    pub v_dim: u32,
    /// Floats of a token in the output: at least `heads · v_dim`; the rest becomes zero.
    pub cols: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CompactParams {
    tokens: u32,
    heads: u32,
    head_dim: u32,
    v_dim: u32,
    cols: u32,
    width: u32,
    pad: [u32; 2],
}

/// Records the first `v_dim` dimensions of every head of `x` (`[tokens, heads, head_dim]`) into `y` (`[tokens, cols]`).
///
/// # Errors
/// [`OpsError::Shape`], [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn compact(
    rec: &mut Recorder,
    shape: &Compact,
    x: impl Into<BufferSlice>,
    y: impl Into<BufferSlice>,
) -> Result<(), OpsError> {
    const OP: &str = "attention/compact";
    let s = *shape;
    if s.v_dim == 0 || s.v_dim > s.head_dim || u64::from(s.heads) * u64::from(s.v_dim) > u64::from(s.cols) {
        return Err(OpsError::shape(OP, format!("{s:?}")));
    }
    let (x, y) = (x.into(), y.into());
    holds(OP, "x", &x, u64::from(s.tokens) * u64::from(s.heads) * u64::from(s.head_dim))?;
    holds(OP, "y", &y, u64::from(s.tokens) * u64::from(s.cols))?;
    let grid = fold(OP, rec.gpu(), u64::from(s.tokens) * u64::from(s.cols), 64)?;
    let params = CompactParams {
        tokens: s.tokens,
        heads: s.heads,
        head_dim: s.head_dim,
        v_dim: s.v_dim,
        cols: s.cols,
        width: grid[0],
        pad: [0; 2],
    };
    let kernel = rec.gpu().kernel(OP, &[])?;
    Ok(rec.dispatch(&kernel, &[("x", x), ("y", y)], &params, grid)?)
}
