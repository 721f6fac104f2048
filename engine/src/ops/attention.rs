//! Attention over the KV cache: many queries (prefill, encoders) or one (decode, split over the context).
//!
//! Many queries may also see a part of the keys only, block by block: [`blocks`] computes it, [`masks`] chooses the blocks, [`pooled`]
//! adds a coarse view of all keys, [`gilbert`] orders the tokens of a video so that neighbours share blocks.

pub mod blocks;
pub mod gilbert;
pub mod hashing;
pub mod masks;
pub mod pooled;
mod tune;

pub use tune::{Fill, kind, tune};

use super::rope::KvCache;
use super::{OpsError, Variant, holds, span};
use crate::gpu::{Binding, BufferSlice, Recorder};

/// Head sizes that the unrolled kernels exist for.
pub const HEAD_DIMS: [u32; 15] = [16, 20, 24, 32, 40, 48, 64, 80, 96, 112, 120, 128, 160, 192, 256];

/// Keys that a workgroup of the decode kernel scores at once.
const DECODE_CHUNK: u32 = 128;
/// Workgroups that fill a GPU. More splits cost a longer join and gain nothing.
const GPU_WORKGROUPS: u32 = 256;
/// Workgroups and keys a split below which a software adapter gains nothing from more.
const SOFTWARE_WORKGROUPS: u32 = 3;
const SOFTWARE_SPLIT: u32 = 64;

/// What a layer's attention is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Dimensions of a head, one of [`HEAD_DIMS`].
    pub head_dim: u32,
    /// Factor on q·k, usually 1/√head_dim.
    pub scale: f32,
    /// Bound of the scores, cap·tanh(s/cap) (Gemma 2); 0: none.
    pub soft_cap: f32,
    /// Keys a query sees, itself included (and as many to the right where it is not causal); 0: all.
    pub window: u32,
    /// Whether a query sees no key after its own position.
    pub causal: bool,
    /// Which kernel to record.
    pub variant: Variant,
    /// Workgroups to divide the keys of a single query among.
    pub fill: Fill,
}

impl Attention {
    /// Causal attention over the whole context with the usual scale.
    pub fn causal(heads: u32, kv_heads: u32, head_dim: u32) -> Self {
        Self {
            heads,
            kv_heads,
            head_dim,
            scale: (f64::from(head_dim)).sqrt().recip() as f32,
            soft_cap: 0.0,
            window: 0,
            causal: true,
            variant: Variant::Auto,
            fill: Fill::default(),
        }
    }

    fn check(&self, op: &'static str) -> Result<(), OpsError> {
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(OpsError::shape(op, format!("{} query heads over {} KV heads", self.heads, self.kv_heads)));
        }
        if !HEAD_DIMS.contains(&self.head_dim) {
            let what = format!("heads of {} dimensions; there are kernels for {HEAD_DIMS:?}", self.head_dim);
            return Err(OpsError::shape(op, what));
        }
        Ok(())
    }

    /// Query heads of one KV head that a decode workgroup takes together, so that it reads keys and values once for all.
    fn heads_together(&self, software: bool) -> u32 {
        let group = self.heads / self.kv_heads;
        let fits = |h: &u32| group.is_multiple_of(*h) && (!software || h * self.head_dim <= 384);
        [4, 3, 2].into_iter().find(fits).unwrap_or(1)
    }

    /// Queries that a lane of the kernels for software adapters keeps in variables.
    fn software_tile(&self) -> u32 {
        match self.head_dim {
            ..=64 => 4,
            65..=128 => 2,
            _ => 1,
        }
    }

    /// Bytes of scratch memory that [`decode`] takes with a cache of `ctx` positions. `software`: on a software adapter.
    pub fn decode_scratch(&self, software: bool, ctx: u32) -> u64 {
        let (rule, least) = fill(software);
        let target = self.fill.most().map_or(rule, |found| found.max(rule));
        let most = target.div_ceil(self.heads / self.heads_together(software)).min(ctx.div_ceil(least));
        if most > 1 { self.partial_bytes(most) } else { 0 }
    }

    /// Bytes of the unfinished sums of `splits` parts of the keys.
    fn partial_bytes(&self, splits: u32) -> u64 {
        u64::from(splits) * u64::from(self.heads) * u64::from(self.head_dim / 4 + 1) * 16
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PrefillParams {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    pos0: u32,
    kv_len: u32,
    ctx: u32,
    causal: u32,
    window: u32,
    q_stride: u32,
    o_stride: u32,
    scale: f32,
    soft_cap: f32,
}

/// Records attention of `tokens` queries at positions `pos0..` over the first `kv_len` keys of the cache.
///
/// `q` and `o`: `[tokens, heads, head_dim]`. Causal attention needs `kv_len = pos0 + tokens` or more; an encoder passes
/// `pos0 = 0` and the number of valid tokens. A query that sees no key yields zeros.
///
/// # Errors
/// [`OpsError::Shape`], [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn prefill(
    rec: &mut Recorder,
    attention: &Attention,
    tokens: u32,
    pos0: u32,
    kv_len: u32,
    q: impl Into<BufferSlice>,
    cache: &KvCache,
    o: impl Into<BufferSlice>,
) -> Result<(), OpsError> {
    const OP: &str = "attention/prefill";
    let a = attention;
    a.check(OP)?;
    let (q, o) = (q.into(), o.into());
    let width = a.heads * a.head_dim;
    check_cache(OP, a, cache, kv_len)?;
    holds(OP, "q", &q, span(0, tokens, width, width))?;
    holds(OP, "o", &o, span(0, tokens, width, width))?;
    let software = a.variant.software(rec.gpu());
    let (kernel, rows) = if software {
        // As many queries a lane as variables allow, unless that leaves lanes without any.
        let most = a.software_tile();
        let tile = if tokens >= 8 * most { most } else { 1 };
        let options = [("HEAD_DIM", a.head_dim.into()), ("Q_TILE", tile.into()), ("KV_F16", cache.format.option())];
        (rec.gpu().kernel("attention/prefill_cpu", &options)?, 8 * tile)
    } else {
        let rows: u32 = if a.head_dim > 128 { 2 } else { 4 };
        let options = [("HEAD_DIM", a.head_dim.into()), ("Q_ROWS", rows.into()), ("KV_F16", cache.format.option())];
        (rec.gpu().kernel(OP, &options)?, 8 * rows)
    };
    let params = PrefillParams {
        tokens,
        heads: a.heads,
        kv_heads: a.kv_heads,
        pos0,
        kv_len,
        ctx: cache.ctx,
        causal: a.causal.into(),
        window: a.window,
        q_stride: width / 4,
        o_stride: width / 4,
        scale: a.scale,
        soft_cap: a.soft_cap,
    };
    let bindings = [("q", q), ("k_cache", cache.k.all()), ("v_cache", cache.v.all()), ("o", o)];
    Ok(rec.dispatch(&kernel, &bindings, &params, [tokens.div_ceil(rows), a.heads, 1])?)
}

fn check_cache(op: &'static str, a: &Attention, cache: &KvCache, kv_len: u32) -> Result<(), OpsError> {
    if kv_len == 0 || kv_len > cache.ctx {
        return Err(OpsError::shape(op, format!("{kv_len} keys of a cache of {} positions", cache.ctx)));
    }
    let words = cache.format.cache_bytes(a.kv_heads, cache.ctx, a.head_dim) / 4;
    holds(op, "k_cache", &cache.k, words)?;
    holds(op, "v_cache", &cache.v, words)
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct DecodeParams {
    heads: u32,
    kv_heads: u32,
    cols: u32,
    begin: u32,
    kv_len: u32,
    ctx: u32,
    splits: u32,
    split_keys: u32,
    scale: f32,
    soft_cap: f32,
    pad: [u32; 2],
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CombineParams {
    heads: u32,
    cols: u32,
    splits: u32,
    pad: u32,
}

/// How the keys of one query are divided among workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Splits {
    count: u32,
    keys: u32,
}

/// Workgroups that fill the device, and the fewest keys worth one.
fn fill(software: bool) -> (u32, u32) {
    if software { (SOFTWARE_WORKGROUPS, SOFTWARE_SPLIT) } else { (GPU_WORKGROUPS, DECODE_CHUNK) }
}

/// Enough splits for so many workgroups, none smaller than a chunk.
fn split(keys: u32, groups: u32, workgroups: u32, software: bool) -> Splits {
    let least = fill(software).1;
    let wanted = workgroups.div_ceil(groups).clamp(1, keys.div_ceil(least).max(1));
    let keys_each = keys.div_ceil(wanted).next_multiple_of(least);
    Splits { count: keys.div_ceil(keys_each).max(1), keys: keys_each }
}

/// Records attention of one query at position `pos` over keys `0..=pos` of the cache (fewer with a window).
///
/// `q` and `o`: `[heads, head_dim]`. One dispatch; two where the context is long enough to be split.
///
/// # Errors
/// [`OpsError::Shape`], [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn decode<'a>(
    rec: &mut Recorder,
    attention: &Attention,
    pos: u32,
    q: impl Into<Binding<'a>>,
    cache: &KvCache,
    o: impl Into<Binding<'a>>,
) -> Result<(), OpsError> {
    const OP: &str = "attention/decode";
    let a = attention;
    a.check(OP)?;
    let (q, o) = (q.into(), o.into());
    let kv_len = pos.saturating_add(1);
    check_cache(OP, a, cache, kv_len)?;
    holds(OP, "q", q, u64::from(a.heads * a.head_dim))?;
    holds(OP, "o", o, u64::from(a.heads * a.head_dim))?;

    let software = a.variant.software(rec.gpu());
    let together = a.heads_together(software);
    let begin = if a.window == 0 { 0 } else { kv_len.saturating_sub(a.window) };
    let keys = kv_len - begin;
    let workgroups = a.fill.of(keys).unwrap_or(fill(software).0);
    let splits = split(keys, a.heads / together, workgroups, software);
    let cols = a.head_dim / 4;
    let kernel = if software {
        let options = [("HEAD_DIM", a.head_dim.into()), ("HEADS", together.into()), ("KV_F16", cache.format.option())];
        rec.gpu().kernel("attention/decode_cpu", &options)?
    } else {
        let subgroup = rec.gpu().tier().subgroup;
        let options = [("HEADS", together.into()), ("KV_F16", cache.format.option()), ("SUBGROUP", subgroup.into())];
        rec.gpu().kernel(OP, &options)?
    };
    let params = DecodeParams {
        heads: a.heads,
        kv_heads: a.kv_heads,
        cols,
        begin,
        kv_len,
        ctx: cache.ctx,
        splits: splits.count,
        split_keys: splits.keys,
        scale: a.scale,
        soft_cap: a.soft_cap,
        pad: [0; 2],
    };
    let grid = [a.heads / together, splits.count, 1];
    let [k, v] = [&cache.k, &cache.v].map(Binding::from);
    if splits.count == 1 {
        return Ok(rec.dispatch(&kernel, &[("q", q), ("k_cache", k), ("v_cache", v), ("o", o)], &params, grid)?);
    }
    // One size whatever the number of keys, so that the pool holds one buffer and not one for every number of splits.
    let bytes = a.partial_bytes(splits.count).max(a.decode_scratch(software, cache.ctx));
    let partial = rec.gpu().scratch("attention splits", bytes)?;
    let bindings = [("q", q), ("k_cache", k), ("v_cache", v), ("o", (&partial).into())];
    rec.dispatch(&kernel, &bindings, &params, grid)?;
    let combine = rec.gpu().kernel("attention/combine", &[])?;
    let params = CombineParams { heads: a.heads, cols, splits: splits.count, pad: 0 };
    Ok(rec.dispatch(&combine, &[("partial", (&partial).into()), ("o", o)], &params, [a.heads, 1, 1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_all_keys_and_none_is_empty() {
        for keys in [1, 63, 64, 65, 127, 128, 129, 1000, 4096, 131_072] {
            for groups in [1, 3, 8, 300] {
                for software in [false, true] {
                    let s = split(keys, groups, fill(software).0, software);
                    assert!(s.count * s.keys >= keys && (s.count - 1) * s.keys < keys, "{keys} {groups} {s:?}");
                }
            }
        }
        assert_eq!(split(100, 3, SOFTWARE_WORKGROUPS, true).count, 1);
        assert_eq!(split(2048, 8, GPU_WORKGROUPS, false), Splits { count: 16, keys: 128 });
    }

    #[test]
    fn heads_share_keys_within_their_group_only() {
        let together = |h, kv, d, software| Attention::causal(h, kv, d).heads_together(software);
        assert_eq!(together(9, 3, 64, true), 3);
        assert_eq!(together(32, 8, 128, false), 4);
        assert_eq!(together(32, 8, 128, true), 2);
        assert_eq!(together(14, 2, 64, false), 1);
        assert_eq!(together(8, 8, 64, false), 1);
    }
}
