//! Attention of many queries over kept blocks of keys: what a mask leaves out is neither read nor computed.
//!
//! In: a [`Mask`] of one bit a pair of query block and key block, given or made on the GPU ([`super::masks`]). Out: the attention and
//! the log-sum of every row, by which [`super::pooled`] joins attentions over different keys. The mask becomes a list of kept blocks for
//! every query block, also on the GPU, which the kernel of dense attention walks over in place of all keys.

use std::ops::Range;

use super::{Attention, check_cache};
use crate::gpu::{Buffer, BufferSlice, Gpu, Purpose, Recorder};
use crate::ops::rope::KvCache;
use crate::ops::{OpsError, holds, span};

/// Bytes of block lists at a time; heads beyond take another round.
const LISTS_BYTES: u64 = 32 << 20;

/// Queries and keys, cut into blocks.
///
/// Query blocks are counted from the first of `tokens` queries, which stands at position `pos0`; key blocks from key 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Queries.
    pub tokens: u32,
    /// Position of the first.
    pub pos0: u32,
    /// Keys.
    pub kv_len: u32,
    /// Queries of a block.
    pub q_block: u32,
    /// Keys of a block.
    pub k_block: u32,
    /// Positions that a key stands for: 1, or those that were pooled into one. A causal query sees a pooled key once it has passed all.
    pub gap: u32,
}

impl Blocks {
    /// Blocks of `block` queries by `block` keys.
    pub fn square(tokens: u32, pos0: u32, kv_len: u32, block: u32) -> Self {
        Self { tokens, pos0, kv_len, q_block: block, k_block: block, gap: 1 }
    }

    /// Query blocks.
    pub fn q_blocks(&self) -> u32 {
        self.tokens.div_ceil(self.q_block.max(1))
    }

    /// Key blocks.
    pub fn k_blocks(&self) -> u32 {
        self.kv_len.div_ceil(self.k_block.max(1))
    }

    /// Words of a row of the mask.
    pub fn words(&self) -> u32 {
        self.k_blocks().div_ceil(32)
    }

    /// Key blocks of which some query of block `i` sees some key.
    pub fn visible(&self, a: &Attention, i: u32) -> Range<u32> {
        let first = self.pos0 + i * self.q_block;
        let last = self.pos0 + ((i + 1) * self.q_block).min(self.tokens) - 1;
        let mut end = if a.causal { self.kv_len.min((last + 1) / self.gap.max(1)) } else { self.kv_len };
        let mut begin = 0;
        if a.window > 0 {
            end = end.min(last.saturating_add(a.window));
            begin = (first + 1).saturating_sub(a.window);
        }
        let after = end.div_ceil(self.k_block.max(1));
        (begin / self.k_block.max(1)).min(after)..after
    }

    /// Pairs of blocks that dense attention would compute, over all heads.
    pub fn visible_pairs(&self, a: &Attention) -> u64 {
        u64::from(a.heads) * (0..self.q_blocks()).map(|i| self.visible(a, i).len() as u64).sum::<u64>()
    }

    pub(super) fn check(&self, op: &'static str) -> Result<(), OpsError> {
        let sizes = 1..=1024;
        if !sizes.contains(&self.q_block) || !sizes.contains(&self.k_block) || self.gap == 0 {
            let what = format!("blocks of {} × {} with a gap of {}", self.q_block, self.k_block, self.gap);
            return Err(OpsError::shape(op, what));
        }
        // The kernels count positions in 32 bits.
        if u64::from(self.pos0) + u64::from(self.tokens) > u64::from(u32::MAX / 2) || self.tokens == 0 {
            return Err(OpsError::shape(op, format!("{} queries at position {}", self.tokens, self.pos0)));
        }
        Ok(())
    }
}

/// Which pairs of blocks to compute: `[heads, q_blocks, words]`, block `j` in bit `j % 32` of word `j / 32`.
#[derive(Clone, Debug)]
pub struct Mask {
    /// The bits.
    pub bits: Buffer,
    /// Words of a row, enough for all key blocks.
    pub words: u32,
    /// One mask for all heads: `[q_blocks, words]`.
    pub shared: bool,
    /// Compute the pairs whose bit is clear.
    pub invert: bool,
}

impl Mask {
    /// A mask that is given: `keeps(head, query block, key block)`.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn given(
        gpu: &Gpu,
        blocks: &Blocks,
        heads: u32,
        mut keeps: impl FnMut(u32, u32, u32) -> bool,
    ) -> Result<Self, OpsError> {
        let (q_blocks, k_blocks, words) = (blocks.q_blocks(), blocks.k_blocks(), blocks.words());
        let mut bits = vec![0u32; (heads * q_blocks * words) as usize];
        for h in 0..heads {
            for i in 0..q_blocks {
                for j in (0..k_blocks).filter(|j| keeps(h, i, *j)) {
                    bits[((h * q_blocks + i) * words + j / 32) as usize] |= 1 << (j % 32);
                }
            }
        }
        let bits = gpu.upload("block mask", &bits, Purpose::Activations)?;
        Ok(Self { bits, words, shared: false, invert: false })
    }

    /// The pairs that this mask leaves out.
    pub fn inverted(&self) -> Self {
        Self { invert: !self.invert, ..self.clone() }
    }
}

/// Where [`prefill`] writes.
#[derive(Clone, Debug)]
pub struct Out {
    /// `[tokens, heads, head_dim]`.
    pub o: BufferSlice,
    /// ln Σ exp(score), `[tokens, heads]`; −10³⁰ for a query that sees no key.
    pub lse: BufferSlice,
    /// Counts computed pairs of blocks: two words, the low one first. Added to, so clear it before.
    pub executed: BufferSlice,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KeptParams {
    rows: u32,
    q_blocks: u32,
    k_blocks: u32,
    head0: u32,
    head_words: u32,
    words: u32,
    list_stride: u32,
    tokens: u32,
    pos0: u32,
    kv_len: u32,
    causal: u32,
    window: u32,
    q_block: u32,
    k_block: u32,
    gap: u32,
    invert: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
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
    q_block: u32,
    k_block: u32,
    q_blocks: u32,
    list_stride: u32,
    gap: u32,
    head0: u32,
    pad: [u32; 2],
}

/// Records attention of the queries over the key blocks that `mask` keeps for their block.
///
/// `q`: `[tokens, heads, head_dim]`. With a mask that keeps everything it computes what [`super::prefill`] does. Pairs that no query may
/// see (the future, outside a window) are skipped whatever the mask says. Memory for the lists of kept blocks: at most 32 MiB.
///
/// # Errors
/// [`OpsError::Shape`], [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn prefill(
    rec: &mut Recorder,
    attention: &Attention,
    blocks: &Blocks,
    mask: &Mask,
    q: impl Into<BufferSlice>,
    cache: &KvCache,
    out: &Out,
) -> Result<(), OpsError> {
    const OP: &str = "attention/blocks";
    let (a, b) = (attention, blocks);
    a.check(OP)?;
    b.check(OP)?;
    let q = q.into();
    let width = a.heads * a.head_dim;
    check_cache(OP, a, cache, b.kv_len)?;
    holds(OP, "q", &q, span(0, b.tokens, width, width))?;
    holds(OP, "o", &out.o, span(0, b.tokens, width, width))?;
    holds(OP, "lse", &out.lse, u64::from(b.tokens) * u64::from(a.heads))?;
    holds(OP, "executed", &out.executed, 2)?;
    let (q_blocks, k_blocks, words) = (b.q_blocks(), b.k_blocks(), mask.words);
    if words < b.words() {
        let what = format!("a mask of {words} words a row for {k_blocks} key blocks");
        return Err(OpsError::shape(OP, what));
    }
    let head_words = if mask.shared { 0 } else { q_blocks * words };
    let masks = if mask.shared { 1 } else { u64::from(a.heads) };
    holds(OP, "mask", &mask.bits.all(), masks * u64::from(q_blocks) * u64::from(words))?;

    let list_stride = k_blocks + 1;
    let head_bytes = 4 * u64::from(q_blocks) * u64::from(list_stride);
    let limit = rec.gpu().limits().max_storage_buffer_binding_size;
    if head_bytes > limit {
        let what = format!(
            "the block lists of a head take {head_bytes} bytes of a binding's {limit}: use blocks larger than {} × {}",
            b.q_block, b.k_block
        );
        return Err(OpsError::shape(OP, what));
    }
    let together = (LISTS_BYTES / head_bytes).clamp(1, u64::from(a.heads)) as u32;
    let list = rec.gpu().kernel("attention/kept", &[])?;
    let (kernel, rows) = kernel(rec.gpu(), a, b, cache)?;
    for head0 in (0..a.heads).step_by(together as usize) {
        let heads = together.min(a.heads - head0);
        let kept = rec.gpu().scratch("kept blocks", u64::from(heads) * head_bytes)?;
        let params = KeptParams {
            rows: heads * q_blocks,
            q_blocks,
            k_blocks,
            head0,
            head_words,
            words,
            list_stride,
            tokens: b.tokens,
            pos0: b.pos0,
            kv_len: b.kv_len,
            causal: a.causal.into(),
            window: a.window,
            q_block: b.q_block,
            k_block: b.k_block,
            gap: b.gap,
            invert: mask.invert.into(),
        };
        let bindings = [("mask", mask.bits.all()), ("kept", kept.all())];
        rec.dispatch(&list, &bindings, &params, [(heads * q_blocks).div_ceil(64), 1, 1])?;
        let params = Params {
            tokens: b.tokens,
            heads: a.heads,
            kv_heads: a.kv_heads,
            pos0: b.pos0,
            kv_len: b.kv_len,
            ctx: cache.ctx,
            causal: a.causal.into(),
            window: a.window,
            q_stride: width / 4,
            o_stride: width / 4,
            scale: a.scale,
            soft_cap: a.soft_cap,
            q_block: b.q_block,
            k_block: b.k_block,
            q_blocks,
            list_stride,
            gap: b.gap,
            head0,
            pad: [0; 2],
        };
        let bindings = [
            ("q", q.clone()),
            ("k_cache", cache.k.all()),
            ("v_cache", cache.v.all()),
            ("o", out.o.clone()),
            ("kept", kept.all()),
            ("lse", out.lse.clone()),
            ("executed", out.executed.clone()),
        ];
        rec.dispatch(&kernel, &bindings, &params, [q_blocks * b.q_block.div_ceil(rows), heads, 1])?;
    }
    Ok(())
}

/// The kernel for the adapter and the shape, and the queries of a workgroup.
fn kernel(gpu: &Gpu, a: &Attention, b: &Blocks, cache: &KvCache) -> Result<(crate::gpu::Kernel, u32), OpsError> {
    let common = [("HEAD_DIM", a.head_dim.into()), ("KV_F16", cache.format.option()), ("BLOCKS", true.into())];
    let with = |name, rows: u32| -> Vec<_> { common.iter().cloned().chain([(name, rows.into())]).collect() };
    Ok(if a.variant.software(gpu) {
        // As dense attention, unless that leaves lanes without a query.
        let most = a.software_tile();
        let tile = if b.q_block >= 8 * most && b.tokens >= 8 * most { most } else { 1 };
        (gpu.kernel("attention/prefill_cpu", &with("Q_TILE", tile))?, 8 * tile)
    } else {
        let rows = if a.head_dim > 128 || b.q_block <= 16 { 2 } else { 4 };
        (gpu.kernel("attention/prefill", &with("Q_ROWS", rows))?, 8 * rows)
    })
}
