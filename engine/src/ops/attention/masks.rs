//! Block masks made on the GPU: a sliding window with sinks, and adaptive sparse attention (Video-BLADE, arXiv 2508.10774).

use super::blocks::{Blocks, Mask};
use super::{Attention, check_cache};
use crate::gpu::{Buffer, BufferSlice, Gpu, Purpose, Recorder};
use crate::ops::rope::KvCache;
use crate::ops::{OpsError, holds, span};

/// Key blocks of a row that the selecting kernel ranks in workgroup memory.
const MOST_BLOCKS: u32 = 1024;
/// Bytes of sampled scores at a time; heads beyond take another round.
const SCORES_BYTES: u64 = 64 << 20;
/// Samples of a block that the kernels are made for.
pub const SAMPLES: [u32; 4] = [4, 8, 16, 32];

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct WindowParams {
    q_blocks: u32,
    k_blocks: u32,
    words: u32,
    tokens: u32,
    pos0: u32,
    q_block: u32,
    k_block: u32,
    sinks: u32,
    window: u32,
    pad: [u32; 3],
}

/// Records the mask of a sliding window: the blocks of the first `sinks` keys, and those with a key at most `window − 1` positions away
/// from a query of the block. The same for all heads.
///
/// # Errors
/// [`OpsError`] from shapes or recording.
pub fn window(rec: &mut Recorder, blocks: &Blocks, sinks: u32, window: u32) -> Result<Mask, OpsError> {
    const OP: &str = "attention/window_mask";
    if sinks == 0 && window == 0 {
        return Err(OpsError::shape(OP, "neither sinks nor a window: nothing would be attended"));
    }
    bounds(rec, blocks, sinks, window.min(i32::MAX as u32))
}

/// Records the mask that keeps everything.
///
/// # Errors
/// As [`window`].
pub fn full(rec: &mut Recorder, blocks: &Blocks) -> Result<Mask, OpsError> {
    bounds(rec, blocks, 0, 0)
}

fn bounds(rec: &mut Recorder, b: &Blocks, sinks: u32, window: u32) -> Result<Mask, OpsError> {
    const OP: &str = "attention/window_mask";
    b.check(OP)?;
    let (q_blocks, k_blocks, words) = (b.q_blocks(), b.k_blocks(), b.words());
    let bits = rec.gpu().scratch("block mask", 4 * u64::from(q_blocks) * u64::from(words))?;
    let kernel = rec.gpu().kernel(OP, &[])?;
    let &Blocks { tokens, pos0, q_block, k_block, .. } = b;
    let params = WindowParams { q_blocks, k_blocks, words, tokens, pos0, q_block, k_block, sinks, window, pad: [0; 3] };
    rec.dispatch(&kernel, &[("mask", bits.all())], &params, [(q_blocks * words).div_ceil(64), 1, 1])?;
    Ok(Mask { bits, words, shared: true, invert: false })
}

/// Adaptive sparse attention: keeps the blocks that hold most of the attention, by a sample of queries and keys.
///
/// Of every block `samples` tokens stand for it. With t(i, J) the largest score of sampled query i with block J's samples and
/// M(i) = max over J of t(i, J), block J weighs P(J) = max over the block's queries of exp(t(i, J) − M(i)). Blocks are kept by falling P
/// until they hold `mass` of ΣP, at least `min_ratio` and at most `max_ratio` of those that can be seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    /// Tokens that stand for a block: 4, 8, 16 or 32, and no more than it has.
    pub samples: u32,
    /// Part of ΣP that the kept blocks hold.
    pub mass: f32,
    /// Least part of the visible blocks to keep; one block is kept in any case.
    pub min_ratio: f32,
    /// Largest part of the visible blocks to keep.
    pub max_ratio: f32,
    /// First key blocks that are kept whatever they weigh; they count for the budget.
    pub sinks: u32,
    /// Last key blocks seen by a causal query block that are kept whatever they weigh: 1 is the block of the queries themselves.
    pub near: u32,
    /// Last query blocks and key blocks that are kept whole, beyond the budget: text tokens behind a video's.
    pub tail: u32,
    /// Seed of the samples.
    pub seed: u64,
}

impl Adaptive {
    /// As published for Wan 2.1's video tokens, in blocks of 128.
    pub const VIDEO: Self =
        Self { samples: 32, mass: 0.95, min_ratio: 0.05, max_ratio: 0.17, sinks: 0, near: 0, tail: 0, seed: 0 };

    /// For causal language models, in blocks of 64. No bound on a row: some heads look everywhere and lose more by a bound than all others
    /// save, and the first rows have few blocks to choose among (docs/methods/attention.md has the figures).
    pub const CAUSAL: Self =
        Self { samples: 32, mass: 0.95, min_ratio: 0.05, max_ratio: 1.0, sinks: 1, near: 4, tail: 0, seed: 0 };

    /// The sampled offsets in every block: `[heads, 2, samples]`, of queries and of keys, without repetition.
    pub fn draw(&self, heads: u32, q_block: u32, k_block: u32) -> Vec<u32> {
        let mut state = self.seed;
        // SplitMix64 (Steele et al., OOPSLA 2014).
        let mut next = move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        let mut offsets = Vec::new();
        for _ in 0..heads {
            for block in [q_block, k_block] {
                let mut all: Vec<u32> = (0..block).collect();
                for i in 0..self.samples.min(block) as usize {
                    let rest = (all.len() - i) as u64;
                    let pick = i + ((u128::from(next()) * u128::from(rest)) >> 64) as usize;
                    all.swap(i, pick);
                }
                offsets.extend(&all[..self.samples.min(block) as usize]);
            }
        }
        offsets
    }

    /// [`Adaptive::draw`], on the device.
    ///
    /// # Errors
    /// If there is no room.
    pub fn upload(&self, gpu: &Gpu, heads: u32, q_block: u32, k_block: u32) -> Result<Buffer, OpsError> {
        Ok(gpu.upload("sampled offsets", &self.draw(heads, q_block, k_block), Purpose::Activations)?)
    }

    fn check(&self, op: &'static str, b: &Blocks) -> Result<(), OpsError> {
        let refuse = |what: String| Err(OpsError::shape(op, what));
        if !SAMPLES.contains(&self.samples) || self.samples > b.q_block.min(b.k_block) {
            return refuse(format!(
                "{} samples of blocks of {} × {}: there are kernels for {SAMPLES:?}",
                self.samples, b.q_block, b.k_block
            ));
        }
        let fraction = |x: f32| (0.0..=1.0).contains(&x);
        if !fraction(self.mass) || !fraction(self.min_ratio) || !fraction(self.max_ratio) {
            return refuse(format!(
                "mass {}, ratios {} to {}: fractions are between 0 and 1",
                self.mass, self.min_ratio, self.max_ratio
            ));
        }
        if b.k_blocks() > MOST_BLOCKS {
            return refuse(format!(
                "{} key blocks, at most {MOST_BLOCKS} can be ranked: use blocks of {} or more",
                b.k_blocks(),
                b.kv_len.div_ceil(MOST_BLOCKS)
            ));
        }
        if b.gap != 1 {
            return refuse("pooled keys are not sampled".into());
        }
        Ok(())
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct AsaParams {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    pos0: u32,
    kv_len: u32,
    ctx: u32,
    causal: u32,
    window: u32,
    q_stride: u32,
    head0: u32,
    q_blocks: u32,
    k_blocks: u32,
    q_block: u32,
    k_block: u32,
    samples: u32,
    words: u32,
    scale: f32,
    soft_cap: f32,
    mass: f32,
    min_ratio: f32,
    max_ratio: f32,
    sinks: u32,
    near: u32,
    tail: u32,
}

/// Records the adaptive mask of every head.
///
/// `q`: `[tokens, heads, head_dim]`. `offsets`: of [`Adaptive::upload`] for the same blocks and heads.
///
/// # Errors
/// [`OpsError::Shape`], [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn adaptive(
    rec: &mut Recorder,
    attention: &Attention,
    blocks: &Blocks,
    adaptive: &Adaptive,
    q: impl Into<BufferSlice>,
    cache: &KvCache,
    offsets: &Buffer,
) -> Result<Mask, OpsError> {
    const OP: &str = "attention/asa_scores";
    let (a, b, s) = (attention, blocks, adaptive);
    a.check(OP)?;
    b.check(OP)?;
    s.check(OP, b)?;
    let q = q.into();
    let width = a.heads * a.head_dim;
    check_cache(OP, a, cache, b.kv_len)?;
    holds(OP, "q", &q, span(0, b.tokens, width, width))?;
    holds(OP, "offsets", &offsets.all(), 2 * u64::from(a.heads) * u64::from(s.samples))?;
    let (q_blocks, k_blocks, words) = (b.q_blocks(), b.k_blocks(), b.words());
    let bits = rec.gpu().scratch("block mask", 4 * u64::from(a.heads) * u64::from(q_blocks) * u64::from(words))?;

    let head_bytes = 4 * u64::from(q_blocks) * u64::from(k_blocks) * u64::from(s.samples);
    let limit = rec.gpu().limits().max_storage_buffer_binding_size;
    if head_bytes > limit {
        let what = format!(
            "the sampled scores of a head take {head_bytes} bytes of a binding's {limit}: use larger blocks or fewer samples"
        );
        return Err(OpsError::shape(OP, what));
    }
    let common = [("HEAD_DIM", a.head_dim.into()), ("KV_F16", cache.format.option())];
    let sampled = q_blocks * s.samples;
    let (scores, grid) = if a.variant.software(rec.gpu()) {
        let tile = a.software_tile();
        let options: Vec<_> = common.into_iter().chain([("Q_TILE", tile.into())]).collect();
        (rec.gpu().kernel("attention/asa_scores_cpu", &options)?, [sampled.div_ceil(8 * tile), 1])
    } else {
        (rec.gpu().kernel(OP, &common)?, [sampled.div_ceil(32), (k_blocks * s.samples).div_ceil(32)])
    };
    let select = rec.gpu().kernel("attention/asa_select", &[])?;
    let together = (SCORES_BYTES / head_bytes).clamp(1, u64::from(a.heads)) as u32;
    for head0 in (0..a.heads).step_by(together as usize) {
        let heads = together.min(a.heads - head0);
        let t = rec.gpu().scratch("sampled scores", u64::from(heads) * head_bytes)?;
        let params = AsaParams {
            tokens: b.tokens,
            heads: a.heads,
            kv_heads: a.kv_heads,
            pos0: b.pos0,
            kv_len: b.kv_len,
            ctx: cache.ctx,
            causal: a.causal.into(),
            window: a.window,
            q_stride: width / 4,
            head0,
            q_blocks,
            k_blocks,
            q_block: b.q_block,
            k_block: b.k_block,
            samples: s.samples,
            words,
            scale: a.scale,
            soft_cap: a.soft_cap,
            mass: s.mass,
            min_ratio: s.min_ratio,
            max_ratio: s.max_ratio,
            sinks: s.sinks,
            near: s.near,
            tail: s.tail,
        };
        let bindings = [
            ("q", q.clone()),
            ("k_cache", cache.k.all()),
            ("v_cache", cache.v.all()),
            ("offsets", offsets.all()),
            ("t", t.all()),
        ];
        rec.dispatch(&scores, &bindings, &params, [grid[0], heads, grid[1]])?;
        rec.dispatch(&select, &[("t", t.all()), ("mask", bits.all())], &params, [q_blocks, heads, 1])?;
    }
    Ok(Mask { bits, words, shared: false, invert: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_drawn_without_repetition_and_the_same_again() {
        let adaptive = Adaptive { samples: 32, seed: 7, ..Adaptive::VIDEO };
        let drawn = adaptive.draw(3, 128, 40);
        assert_eq!(drawn.len(), 3 * 2 * 32);
        for (i, offsets) in drawn.chunks_exact(32).enumerate() {
            let mut sorted = offsets.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            let block = if i % 2 == 0 { 128 } else { 40 };
            assert!(sorted.len() == 32 && sorted[31] < block, "{offsets:?}");
        }
        assert_eq!(drawn, adaptive.draw(3, 128, 40));
        assert_ne!(drawn, Adaptive { seed: 8, ..adaptive }.draw(3, 128, 40));
    }
}
