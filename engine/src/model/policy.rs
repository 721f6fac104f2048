//! What a decoder's queries see of a prompt: everything, or the blocks of keys that a policy keeps.
//!
//! In: a spelling, `dense`, `window:sinks=4,window=1024` or `asa:mass=0.95`. Out: the attention of a chunk of the prompt, and a count of
//! the blocks that were computed. Single tokens (decoding) always see everything, and weights have no part in it.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::ModelError;
use crate::gpu::{Buffer, BufferSlice, Gpu, Purpose, Recorder};
use crate::ops::attention::blocks::{self, Blocks, Mask, Out};
use crate::ops::attention::masks::{self, Adaptive, SAMPLES};
use crate::ops::attention::pooled::{self, Part};
use crate::ops::attention::{self, Attention};
use crate::ops::rope::KvCache;
use crate::spelling::nearest;

/// Which keys the queries of a prompt see.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum AttentionPolicy {
    /// All.
    #[default]
    Dense,
    /// Blocks within a window before the query, and those of the first keys.
    Window {
        /// Tokens of a block.
        block: u32,
        /// First keys.
        sinks: u32,
        /// Keys before a query, itself included.
        window: u32,
    },
    /// The blocks that hold most of the attention, by a sample.
    Adaptive {
        /// Tokens of a block.
        block: u32,
        /// How blocks are chosen.
        adaptive: Adaptive,
        /// Keys of blocks that are not kept are seen as means of this many; 0: not at all.
        pool: u32,
    },
}

/// Tokens of a block when nobody says.
const BLOCK: u32 = 64;

const WINDOW: AttentionPolicy = AttentionPolicy::Window { block: BLOCK, sinks: 4, window: 1024 };
const ASA: AttentionPolicy = AttentionPolicy::Adaptive { block: BLOCK, adaptive: Adaptive::CAUSAL, pool: 0 };

/// Samples of a block of this many tokens when nobody says.
fn samples_of(block: u32) -> u32 {
    if block < Adaptive::CAUSAL.samples { 16 } else { Adaptive::CAUSAL.samples }
}

/// Options of each policy, for messages.
const OPTIONS: [(&str, &[&str]); 3] = [
    ("dense", &[]),
    ("window", &["block", "sinks", "window"]),
    ("asa", &["block", "samples", "mass", "min", "max", "sinks", "near", "pool", "seed"]),
];

/// A policy that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No such policy.
    #[error("unknown attention `{name}`{}; there are dense, window and asa", near.as_ref().map_or(String::new(), |n| format!(" (did you mean `{n}`?)")))]
    Unknown {
        /// What was written.
        name: String,
        /// What may have been meant.
        near: Option<String>,
    },
    /// No such option.
    #[error("{policy}: unknown option `{option}`; valid options: {valid}")]
    Option {
        /// The policy.
        policy: String,
        /// What was written.
        option: String,
        /// What can be written.
        valid: String,
    },
    /// A value that an option cannot have.
    #[error("{policy}: `{value}` is no valid {option}: {valid}")]
    Value {
        /// The policy.
        policy: String,
        /// The option.
        option: String,
        /// What was written.
        value: String,
        /// What can be written.
        valid: String,
    },
}

impl AttentionPolicy {
    /// Reads `dense`, `window:block=64,sinks=4,window=1024` or
    /// `asa:block=64,samples=32,mass=0.95,min=0.05,max=1,sinks=1,near=4,pool=0,seed=0`; what is left out has these values
    /// (of blocks of less than 32, 16 samples).
    ///
    /// `sinks` and `window` of a window are keys; `sinks` and `near` of asa are blocks: the first, and the last before the query.
    ///
    /// # Errors
    /// An unknown policy or option, or a value that is not allowed; the message lists what is.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let text = text.trim().to_ascii_lowercase();
        let (name, options) = text.split_once(':').unwrap_or((&text, ""));
        let name = name.trim();
        let mut policy = match name {
            "dense" => Self::Dense,
            "window" => WINDOW,
            "asa" => ASA,
            _ => {
                let near = nearest(name, OPTIONS.map(|(name, _)| name)).map(str::to_owned);
                return Err(PolicyError::Unknown { name: name.to_owned(), near });
            }
        };
        let mut sampled = false;
        for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            let (option, value) = option.split_once('=').unwrap_or((option, ""));
            sampled |= option.trim() == "samples";
            policy.set(name, option.trim(), value.trim())?;
        }
        if let (Self::Adaptive { block, adaptive, .. }, false) = (&mut policy, sampled) {
            adaptive.samples = samples_of(*block);
        }
        policy.check(name)?;
        Ok(policy)
    }

    fn set(&mut self, policy: &str, option: &str, value: &str) -> Result<(), PolicyError> {
        let bad = |valid: &str| PolicyError::Value {
            policy: policy.to_owned(),
            option: option.to_owned(),
            value: value.to_owned(),
            valid: valid.to_owned(),
        };
        let count = || value.parse::<u32>().ok().filter(|n| *n <= 1 << 24).ok_or_else(|| bad("a whole number"));
        let block = || count().and_then(|n| if (16..=128).contains(&n) { Ok(n) } else { Err(bad("16 to 128")) });
        let fraction = || {
            let number = value.parse::<f32>().ok().filter(|x| (0.0..=1.0).contains(x));
            number.ok_or_else(|| bad("a number between 0 and 1"))
        };
        match (self, option) {
            (Self::Window { block: b, .. } | Self::Adaptive { block: b, .. }, "block") => *b = block()?,
            (Self::Window { sinks, .. }, "sinks") => *sinks = count()?,
            (Self::Window { window, .. }, "window") => *window = count()?,
            (Self::Adaptive { adaptive, .. }, "samples") => {
                adaptive.samples = count()?;
                if !SAMPLES.contains(&adaptive.samples) {
                    return Err(bad("4, 8, 16, 32"));
                }
            }
            (Self::Adaptive { adaptive, .. }, "mass") => adaptive.mass = fraction()?,
            (Self::Adaptive { adaptive, .. }, "min") => adaptive.min_ratio = fraction()?,
            (Self::Adaptive { adaptive, .. }, "max") => adaptive.max_ratio = fraction()?,
            (Self::Adaptive { adaptive, .. }, "sinks") => adaptive.sinks = count()?,
            (Self::Adaptive { adaptive, .. }, "near") => {
                adaptive.near = count()?;
                if adaptive.near == 0 {
                    return Err(bad("1 or more: a query must see itself"));
                }
            }
            (Self::Adaptive { pool, .. }, "pool") => *pool = count()?,
            (Self::Adaptive { adaptive, .. }, "seed") => {
                adaptive.seed = value.parse().map_err(|_| bad("a whole number"))?;
            }
            _ => {
                let valid = OPTIONS.iter().find(|(name, _)| *name == policy).map_or(&[][..], |(_, options)| *options);
                let valid = if valid.is_empty() { "none".to_owned() } else { valid.join(", ") };
                return Err(PolicyError::Option { policy: policy.to_owned(), option: option.to_owned(), valid });
            }
        }
        Ok(())
    }

    /// Options that do not fit each other.
    fn check(&self, policy: &str) -> Result<(), PolicyError> {
        let bad = |option: &str, value: String, valid: String| {
            Err(PolicyError::Value { policy: policy.to_owned(), option: option.to_owned(), value, valid })
        };
        match *self {
            Self::Window { window: 0, .. } => bad("window", "0".into(), "a query must see itself".into()),
            Self::Adaptive { block, adaptive, .. } if adaptive.samples > block => {
                bad("samples", adaptive.samples.to_string(), format!("a block has {block} tokens"))
            }
            Self::Adaptive { adaptive: Adaptive { min_ratio, max_ratio, .. }, .. } if min_ratio > max_ratio => {
                bad("min", min_ratio.to_string(), format!("no more than max, {max_ratio}"))
            }
            Self::Adaptive { block, pool, .. } if pool > 0 && !block.is_multiple_of(pool) => {
                bad("pool", pool.to_string(), format!("divides the block, {block}"))
            }
            _ => Ok(()),
        }
    }

    /// Keys that stand together in a coarse view of the cache, where the policy has one.
    pub(super) fn pool(&self) -> Option<u32> {
        match self {
            Self::Adaptive { pool, .. } if *pool > 0 => Some(*pool),
            _ => None,
        }
    }
}

impl fmt::Display for AttentionPolicy {
    /// As [`AttentionPolicy::parse`] reads it; options at their defaults are left out, but for the block and what bounds the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense => f.write_str("dense"),
            Self::Window { block, sinks, window } => write!(f, "window:block={block},sinks={sinks},window={window}"),
            Self::Adaptive { block, adaptive: a, pool } => {
                write!(f, "asa:block={block}")?;
                let d = Adaptive::CAUSAL;
                let mut differs = |name: &str, value: String, default: String| {
                    if value == default { Ok(()) } else { write!(f, ",{name}={value}") }
                };
                differs("samples", a.samples.to_string(), samples_of(*block).to_string())?;
                differs("mass", a.mass.to_string(), String::new())?;
                differs("min", a.min_ratio.to_string(), d.min_ratio.to_string())?;
                differs("max", a.max_ratio.to_string(), d.max_ratio.to_string())?;
                differs("sinks", a.sinks.to_string(), d.sinks.to_string())?;
                differs("near", a.near.to_string(), d.near.to_string())?;
                differs("pool", pool.to_string(), "0".into())?;
                differs("seed", a.seed.to_string(), d.seed.to_string())
            }
        }
    }
}

/// Pairs of query block and key block, over all layers and heads of what went through a decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCount {
    /// Computed, as the kernels counted them.
    pub kept: u64,
    /// That dense attention would have computed.
    pub visible: u64,
}

/// The key blocks that a block of a prompt's queries sees, in one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRow {
    /// Position of the first query.
    pub position: u32,
    /// Queries.
    pub tokens: u32,
    /// Key blocks that dense attention would compute.
    pub visible: Range<u32>,
    /// Those of them that are kept, by head, in rising order.
    pub kept: Vec<Vec<u32>>,
}

/// The masks of one layer, of all chunks since watching began.
#[derive(Debug)]
struct Watch {
    layer: usize,
    masks: Mutex<Vec<(Attention, Blocks, Mask)>>,
}

/// A policy with what it needs on the device.
#[derive(Debug)]
pub(super) struct BlockAttention {
    policy: AttentionPolicy,
    block: u32,
    /// Sampled offsets, by head.
    offsets: Option<Buffer>,
    /// Computed pairs: two words.
    executed: Buffer,
    visible: AtomicU64,
    watch: Option<Watch>,
}

impl BlockAttention {
    /// `None` for dense attention.
    pub(super) fn new(gpu: &Gpu, policy: AttentionPolicy, heads: u32) -> Result<Option<Self>, ModelError> {
        let (block, offsets) = match &policy {
            AttentionPolicy::Dense => return Ok(None),
            AttentionPolicy::Window { block, .. } => (*block, None),
            AttentionPolicy::Adaptive { block, adaptive, .. } => {
                (*block, Some(adaptive.upload(gpu, heads, *block, *block)?))
            }
        };
        let executed = gpu.upload("executed blocks", &[0u32; 2], Purpose::Activations)?;
        Ok(Some(Self { policy, block, offsets, executed, visible: AtomicU64::new(0), watch: None }))
    }

    pub(super) async fn count(&self, gpu: &Gpu) -> Result<BlockCount, ModelError> {
        let words: Vec<u32> = gpu.read(&self.executed, 0, 2).await?;
        let kept = words.iter().rev().fold(0, |sum, word| sum << 32 | u64::from(*word));
        Ok(BlockCount { kept, visible: self.visible.load(Ordering::Relaxed) })
    }

    pub(super) fn policy(&self) -> AttentionPolicy {
        self.policy
    }

    /// Keeps the masks of this layer from now on, or of none.
    pub(super) fn watch(&mut self, layer: Option<usize>) {
        self.watch = layer.map(|layer| Watch { layer, masks: Mutex::default() });
    }

    /// What the masks keep that were made since watching began. The recordings that made them must have been submitted.
    pub(super) async fn watched(&self, gpu: &Gpu) -> Result<Vec<KeptRow>, ModelError> {
        let Some(watch) = &self.watch else { return Ok(Vec::new()) };
        let masks = std::mem::take(&mut *watch.masks.lock().unwrap_or_else(PoisonError::into_inner));
        let mut rows = Vec::new();
        for (a, b, mask) in masks {
            let (q_blocks, words) = (b.q_blocks(), mask.words);
            let heads = if mask.shared { 1 } else { a.heads };
            let bits: Vec<u32> = gpu.read(&mask.bits, 0, u64::from(heads * q_blocks * words)).await?;
            for i in 0..q_blocks {
                let visible = b.visible(&a, i);
                let keeps = |head: u32, j: u32| {
                    let row = if mask.shared { i } else { head * q_blocks + i };
                    (bits[(row * words + j / 32) as usize] >> (j % 32) & 1 == 1) != mask.invert
                };
                let kept = |head| visible.clone().filter(|j| keeps(head, *j)).collect();
                let first = i * b.q_block;
                rows.push(KeptRow {
                    position: b.pos0 + first,
                    tokens: b.q_block.min(b.tokens - first),
                    kept: (0..a.heads).map(kept).collect(),
                    visible: visible.clone(),
                });
            }
        }
        Ok(rows)
    }

    /// Records the attention of a chunk of `layer`. `coarse`: means of the keys and values so far, where the policy pools them.
    pub(super) fn prefill(
        &self,
        rec: &mut Recorder,
        a: &Attention,
        layer: usize,
        [tokens, pos0]: [u32; 2],
        q: &Buffer,
        (cache, coarse): (&KvCache, Option<&KvCache>),
        o: &Buffer,
    ) -> Result<(), ModelError> {
        let b = Blocks::square(tokens, pos0, pos0 + tokens, self.block);
        self.visible.fetch_add(b.visible_pairs(a), Ordering::Relaxed);
        let lse = |rec: &Recorder| rec.gpu().scratch("log-sums", 4 * u64::from(tokens) * u64::from(a.heads));
        let fine = Out { o: o.all(), lse: lse(rec)?.all(), executed: self.executed.all() };
        let mask = match (&self.policy, &self.offsets) {
            (AttentionPolicy::Window { sinks, window, .. }, _) => masks::window(rec, &b, *sinks, *window)?,
            (AttentionPolicy::Adaptive { adaptive, .. }, Some(offsets)) => {
                masks::adaptive(rec, a, &b, adaptive, q, cache, offsets)?
            }
            _ => return Ok(attention::prefill(rec, a, tokens, pos0, pos0 + tokens, q, cache, o)?),
        };
        if let Some(watch) = self.watch.as_ref().filter(|watch| watch.layer == layer) {
            let mut masks = watch.masks.lock().unwrap_or_else(PoisonError::into_inner);
            masks.push((*a, b, mask.clone()));
        }
        blocks::prefill(rec, a, &b, &mask, q, cache, &fine)?;
        match (self.policy.pool(), coarse) {
            // A window of the model's own leaves nothing far away to see.
            (Some(gap), Some(coarse)) if a.window == 0 => self.add_coarse(rec, a, &b, &mask, gap, q, coarse, &fine),
            _ => Ok(()),
        }
    }

    /// Adds what the mask left out, as means of `gap` keys: those blocks that lie in the past as a whole.
    fn add_coarse(
        &self,
        rec: &mut Recorder,
        a: &Attention,
        b: &Blocks,
        mask: &Mask,
        gap: u32,
        q: &Buffer,
        coarse: &KvCache,
        fine: &Out,
    ) -> Result<(), ModelError> {
        let groups = b.kv_len / gap;
        if groups == 0 {
            return Ok(());
        }
        let rough = Blocks { kv_len: groups, k_block: b.k_block / gap, gap, ..*b };
        let rows = u64::from(b.tokens) * u64::from(a.heads);
        let scratch = |rec: &Recorder, words: u64| rec.gpu().scratch("coarse attention", 4 * words);
        let part = Part { o: scratch(rec, rows * u64::from(a.head_dim))?.all(), lse: scratch(rec, rows)?.all() };
        let uncounted = scratch(rec, 2)?;
        let out = Out { o: part.o.clone(), lse: part.lse.clone(), executed: uncounted.all() };
        blocks::prefill(rec, a, &rough, &mask.inverted(), q, coarse, &out)?;
        let merged: BufferSlice = scratch(rec, rows)?.all();
        let first = Part { o: fine.o.clone(), lse: fine.lse.clone() };
        Ok(pooled::merge(rec, a, b.tokens, &first, &part, gap as f32, merged)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_round_trip() {
        for (given, canonical) in [
            ("dense", "dense"),
            (" Window:sinks=64 , window=512", "window:block=64,sinks=64,window=512"),
            ("window", "window:block=64,sinks=4,window=1024"),
            ("asa", "asa:block=64,mass=0.95"),
            ("asa:block=16", "asa:block=16,mass=0.95"),
            ("asa:block=24,samples=16", "asa:block=24,mass=0.95"),
            ("asa:max=0.25,block=32,seed=7,pool=16,mass=0.9", "asa:block=32,mass=0.9,max=0.25,pool=16,seed=7"),
            ("asa:samples=8,near=2,sinks=0,min=0.1", "asa:block=64,samples=8,mass=0.95,min=0.1,sinks=0,near=2"),
        ] {
            let policy = AttentionPolicy::parse(given).unwrap();
            assert_eq!(policy.to_string(), canonical);
            assert_eq!(AttentionPolicy::parse(canonical).unwrap(), policy);
        }
    }

    #[test]
    fn errors_say_what_is_valid() {
        let message = |text: &str| AttentionPolicy::parse(text).unwrap_err().to_string();
        assert_eq!(
            message("windw"),
            "unknown attention `windw` (did you mean `window`?); there are dense, window and asa"
        );
        assert_eq!(message("dense:block=3"), "dense: unknown option `block`; valid options: none");
        assert_eq!(message("window:max=1"), "window: unknown option `max`; valid options: block, sinks, window");
        assert_eq!(message("asa:block=15"), "asa: `15` is no valid block: 16 to 128");
        assert_eq!(message("asa:max=2"), "asa: `2` is no valid max: a number between 0 and 1");
        assert_eq!(message("asa:min=0.6,max=0.5"), "asa: `0.6` is no valid min: no more than max, 0.5");
        assert_eq!(message("asa:block=16,samples=32"), "asa: `32` is no valid samples: a block has 16 tokens");
        assert_eq!(message("asa:pool=48"), "asa: `48` is no valid pool: divides the block, 64");
        assert_eq!(message("asa:near=0"), "asa: `0` is no valid near: 1 or more: a query must see itself");
        assert_eq!(message("window:window=0"), "window: `0` is no valid window: a query must see itself");
    }
}
