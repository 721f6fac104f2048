//! Rotary position embedding: the table of angles, with every scaling, and the kernel that applies it and fills the KV cache.
//!
//! The shader only looks up (cos, sin): whatever a model does to its frequencies happens here, in f64.

use super::{Bindings, OpsError, fold, holds, span};
use crate::gpu::{Binding, Buffer, Gpu, GpuError, Purpose, Recorder};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// Most bytes a table may take: as much as WebGPU lets one binding have.
const MAX_TABLE_BYTES: u64 = 128 << 20;

/// How a model stretches its rotary frequencies to contexts longer than it was trained with.
/// The formulas are those of Hugging Face transformers' `modeling_rope_utils`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum RopeScaling {
    /// θᵢ = base^(−2i/dim).
    #[default]
    None,
    /// All frequencies divided by `factor` (positional interpolation, arXiv 2306.15595).
    Linear {
        /// Context now over context in training.
        factor: f64,
    },
    /// A larger base for contexts longer than `max_position` (NTK-aware interpolation). The base follows from the length the table
    /// is made for.
    Dynamic {
        /// As in `config.json`.
        factor: f64,
        /// Positions the model was trained with.
        max_position: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a linear blend between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Positions in training.
        original: f64,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Rotations over the original context above which a dimension is kept (32 by default).
        beta_fast: f64,
        /// Rotations below which a dimension is divided (1 by default).
        beta_slow: f64,
        /// Positions in training.
        original: f64,
        /// Factor on cos and sin; `None`: 0.1·ln(factor) + 1, or the ratio of the two below.
        attention_factor: Option<f64>,
        /// Scales the logarithm in the numerator (DeepSeek).
        mscale: Option<f64>,
        /// Scales the logarithm in the denominator.
        mscale_all_dim: Option<f64>,
        /// Round the range of blended dimensions outwards (the default).
        truncate: bool,
    },
    /// LongRoPE (arXiv 2402.13753): a divisor per dimension, one list for short and one for long contexts. A table longer
    /// than `original` is for a long context; it is used for all of it, so that keys of one cache agree.
    LongRope {
        /// Divisors up to `original` positions, one for each pair of dimensions.
        short: Vec<f64>,
        /// Divisors beyond.
        long: Vec<f64>,
        /// Positions in training.
        original: f64,
        /// Context now over context in training.
        factor: f64,
        /// Factor on cos and sin; `None`: √(1 + ln factor / ln original).
        attention_factor: Option<f64>,
    },
    /// Given divisors, as GGUF files carry them (`rope_freqs.weight`), and the factor on cos and sin.
    Divided {
        /// One for each pair of dimensions.
        factors: Vec<f64>,
        /// Factor on cos and sin.
        attention_factor: f64,
    },
}

/// A model's rotary embedding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeConfig {
    /// Dimensions of a head that rotate: a multiple of 4.
    pub rotary_dim: usize,
    /// `rope_theta`.
    pub base: f64,
    /// Beyond the trained context.
    pub scaling: RopeScaling,
}

impl RopeConfig {
    /// Angles per position for each pair of dimensions, and the factor on cos and sin, for contexts of `max_pos` positions.
    ///
    /// # Errors
    /// [`OpsError::Shape`] if the dimensions are no multiple of 4, a list has the wrong length, or a number makes no sense.
    pub fn frequencies(&self, max_pos: usize) -> Result<(Vec<f64>, f64), OpsError> {
        let bad = |what: String| OpsError::shape("rope", what);
        let dim = self.rotary_dim;
        if dim == 0 || !dim.is_multiple_of(4) {
            return Err(bad(format!("{dim} rotary dimensions, not a positive multiple of 4")));
        }
        let pairs = dim / 2;
        let plain = |base: f64| (0..pairs).map(move |i| base.powf(-2.0 * i as f64 / dim as f64));
        let divided = |divisors: &[f64]| {
            if divisors.len() != pairs {
                return Err(bad(format!("{} divisors for {pairs} pairs of dimensions", divisors.len())));
            }
            Ok(plain(self.base).zip(divisors).map(|(f, d)| f / d).collect::<Vec<f64>>())
        };
        let (frequencies, attention) = match &self.scaling {
            RopeScaling::None => (plain(self.base).collect(), 1.0),
            RopeScaling::Linear { factor } => (plain(self.base).map(|f| f / factor).collect(), 1.0),
            RopeScaling::Dynamic { factor, max_position } => {
                let length = (max_pos as f64).max(*max_position);
                let stretch = (factor * length / max_position) - (factor - 1.0);
                let base = self.base * stretch.powf(dim as f64 / (dim as f64 - 2.0));
                (plain(base).collect(), 1.0)
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let blend = |f: f64| {
                    let wavelength = TAU / f;
                    if wavelength > original / low_freq_factor {
                        f / factor
                    } else if wavelength < original / high_freq_factor {
                        f
                    } else {
                        let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                };
                (plain(self.base).map(blend).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, attention_factor, mscale, mscale_all_dim, .. } => {
                let scale = |m: f64| if *factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
                let attention = attention_factor.unwrap_or_else(|| match (mscale, mscale_all_dim) {
                    (Some(m), Some(all)) if *m != 0.0 && *all != 0.0 => scale(*m) / scale(*all),
                    _ => scale(1.0),
                });
                (self.yarn(&plain(self.base).collect::<Vec<_>>()), attention)
            }
            RopeScaling::LongRope { short, long, original, factor, attention_factor } => {
                let attention = attention_factor
                    .unwrap_or_else(|| if *factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() });
                (divided(if max_pos as f64 > *original { long } else { short })?, attention)
            }
            RopeScaling::Divided { factors, attention_factor } => (divided(factors)?, *attention_factor),
        };
        if !frequencies.iter().chain([&attention]).all(|f| f.is_finite()) {
            return Err(bad(format!("the frequencies are not finite: {self:?}")));
        }
        Ok((frequencies, attention))
    }

    /// Dimensions that turn often within the original context keep their frequency, those that turn rarely are divided.
    fn yarn(&self, plain: &[f64]) -> Vec<f64> {
        let RopeScaling::Yarn { factor, beta_fast, beta_slow, original, truncate, .. } = &self.scaling else {
            return plain.to_vec();
        };
        let dim = self.rotary_dim as f64;
        let pair_with = |rotations: f64| dim * (original / (rotations * TAU)).ln() / (2.0 * self.base.ln());
        let (mut low, mut high) = (pair_with(*beta_fast), pair_with(*beta_slow));
        if *truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        let kept = |i: usize| 1.0 - ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        plain.iter().enumerate().map(|(i, f)| f / factor * (1.0 - kept(i)) + f * kept(i)).collect()
    }
}

/// cos and sin of every position and pair of dimensions, made in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// Positions.
    pub max_pos: usize,
    /// Pairs of dimensions.
    pub pairs: usize,
    /// `[max_pos, pairs, 2]`: cos, sin.
    pub values: Vec<f32>,
}

impl RopeTable {
    /// Makes the table of positions `0..max_pos`.
    ///
    /// # Errors
    /// As [`RopeConfig::frequencies`], or if the table were larger than a binding may be.
    pub fn new(config: &RopeConfig, max_pos: usize) -> Result<Self, OpsError> {
        let (frequencies, attention) = config.frequencies(max_pos)?;
        let pairs = frequencies.len();
        let bytes = (max_pos as u64).saturating_mul(pairs as u64 * 8);
        if bytes > MAX_TABLE_BYTES {
            let what = format!("a table of {max_pos} positions has {bytes} bytes, {MAX_TABLE_BYTES} is the most");
            return Err(OpsError::shape("rope", what));
        }
        let mut values = Vec::with_capacity(max_pos * pairs * 2);
        for pos in 0..max_pos {
            for f in &frequencies {
                let (sin, cos) = (pos as f64 * f).sin_cos();
                values.extend([(cos * attention) as f32, (sin * attention) as f32]);
            }
        }
        Ok(Self { max_pos, pairs, values })
    }

    /// Puts the table on the device.
    ///
    /// # Errors
    /// [`GpuError`] if it does not fit.
    pub fn upload(&self, gpu: &Gpu) -> Result<Buffer, GpuError> {
        gpu.upload("rope table", &self.values, Purpose::Activations)
    }
}

/// Which dimensions turn together. The number is option `STYLE` of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RopeStyle {
    /// i and i + rotary/2: every Hugging Face model, GPT-NeoX.
    Half = 0,
    /// 2i and 2i + 1: the original Llama layout, which GGUF keeps for Llama.
    Interleaved = 1,
    /// No rotation: encoders with learned positions.
    None = 2,
}

/// Number format of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KvFormat {
    /// 4 bytes a number.
    #[default]
    F32,
    /// 2 bytes a number; needs no device feature.
    F16,
}

impl KvFormat {
    /// Bytes of one number.
    pub fn bytes(self) -> u64 {
        match self {
            KvFormat::F32 => 4,
            KvFormat::F16 => 2,
        }
    }

    /// Bytes of a cache of keys (or of values) of one layer: `[kv_heads, ctx, head_dim]`.
    pub fn cache_bytes(self, kv_heads: u32, ctx: u32, head_dim: u32) -> u64 {
        u64::from(kv_heads) * u64::from(ctx) * u64::from(head_dim) * self.bytes()
    }

    pub(crate) fn option(self) -> crate::gpu::OptionValue {
        (self == KvFormat::F16).into()
    }
}

/// Keys and values of one layer: `[kv_heads, ctx, head_dim]` each.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Keys, rotated.
    pub k: Buffer,
    /// Values.
    pub v: Buffer,
    /// Their number format.
    pub format: KvFormat,
    /// Positions there is room for.
    pub ctx: u32,
}

impl KvCache {
    /// Allocates a layer's cache.
    ///
    /// # Errors
    /// [`GpuError`] if it does not fit.
    pub fn new(gpu: &Gpu, kv_heads: u32, ctx: u32, head_dim: u32, format: KvFormat) -> Result<Self, GpuError> {
        let bytes = format.cache_bytes(kv_heads, ctx, head_dim);
        let make = |label| gpu.storage(label, bytes, Purpose::KvCache);
        Ok(Self { k: make("keys")?, v: make("values")?, format, ctx })
    }
}

/// Shapes of [`append`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeAppend {
    /// New tokens.
    pub tokens: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Dimensions of a head: a multiple of 4.
    pub head_dim: u32,
    /// Of them, how many rotate: a multiple of 4.
    pub rotary: u32,
    /// Position of token 0, and so its place in the cache.
    pub pos0: u32,
    /// Floats from token to token of q, k and v.
    pub strides: [u32; 3],
    /// Where token 0 of q, k and v begins, in floats.
    pub offsets: [u32; 3],
    /// Which dimensions turn together.
    pub style: RopeStyle,
    /// Of the per-head norm of queries and keys, where there is one.
    pub norm_eps: f32,
}

impl RopeAppend {
    /// One buffer `[tokens, (heads + 2·kv_heads)·head_dim]`: queries, keys, values.
    pub fn fused(tokens: u32, heads: u32, kv_heads: u32, head_dim: u32, pos0: u32) -> Self {
        let stride = (heads + 2 * kv_heads) * head_dim;
        Self {
            tokens,
            heads,
            kv_heads,
            head_dim,
            rotary: head_dim,
            pos0,
            strides: [stride; 3],
            offsets: [0, heads * head_dim, (heads + kv_heads) * head_dim],
            style: RopeStyle::Half,
            norm_eps: 0.0,
        }
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    rotary: u32,
    pos0: u32,
    ctx: u32,
    q_stride: u32,
    k_stride: u32,
    v_stride: u32,
    q_offset: u32,
    k_offset: u32,
    v_offset: u32,
    eps: f32,
    width: u32,
    pad: u32,
}

/// Records the rotation of queries into `q_out` (`[tokens, heads, head_dim]`), and of keys, with the values, into the cache.
///
/// `q`, `k`, `v` may be one fused buffer. `table`: [`RopeTable`] on the device (`None` with [`RopeStyle::None`]). `qk_norm`:
/// `[2, head_dim]`, weights of an RMS norm over every head of the queries, then of the keys, taken before the rotation.
///
/// # Errors
/// [`OpsError::Shape`] if the cache has no room or the shapes do not fit, [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`].
pub fn append<'a>(
    rec: &mut Recorder,
    shape: &RopeAppend,
    [q, k, v]: [impl Into<Binding<'a>>; 3],
    table: Option<Binding<'a>>,
    qk_norm: Option<Binding<'a>>,
    q_out: impl Into<Binding<'a>>,
    cache: &KvCache,
) -> Result<(), OpsError> {
    const OP: &str = "attention/rope_append";
    let s = *shape;
    let rotates = s.style != RopeStyle::None;
    let rotary = if rotates { s.rotary } else { 0 };
    if !s.head_dim.is_multiple_of(4) || !rotary.is_multiple_of(4) || rotary > s.head_dim || rotates != table.is_some() {
        let what = format!("{rotary} of {} dimensions, table given: {}", s.head_dim, table.is_some());
        return Err(OpsError::shape(OP, what));
    }
    if u64::from(s.pos0) + u64::from(s.tokens) > u64::from(cache.ctx) {
        let what = format!("{} tokens at position {} in a cache of {} positions", s.tokens, s.pos0, cache.ctx);
        return Err(OpsError::shape(OP, what));
    }
    let (q, k, v, q_out) = (q.into(), k.into(), v.into(), q_out.into());
    let widths = [s.heads, s.kv_heads, s.kv_heads].map(|h| h * s.head_dim);
    for (i, (name, slice)) in [("q_in", q), ("k_in", k), ("v_in", v)].into_iter().enumerate() {
        holds(OP, name, slice, span(s.offsets[i], s.tokens, s.strides[i], widths[i]))?;
    }
    holds(OP, "q_out", q_out, span(0, s.tokens, widths[0], widths[0]))?;
    let words = cache.format.cache_bytes(s.kv_heads, cache.ctx, s.head_dim) / 4;
    let mut bindings = Bindings::from_iter([("q_in", q), ("k_in", k), ("v_in", v), ("q_out", q_out)]);
    for (name, buffer) in [("k_cache", &cache.k), ("v_cache", &cache.v)] {
        holds(OP, name, buffer, words)?;
        bindings.push((name, buffer.into()));
    }
    let options =
        [("STYLE", (s.style as u32).into()), ("QK_NORM", qk_norm.is_some().into()), ("KV_F16", cache.format.option())];
    if let Some(table) = table {
        holds(OP, "rope", table, u64::from(s.pos0 + s.tokens) * u64::from(rotary))?;
        bindings.push(("rope", table));
    }
    if let Some(weights) = qk_norm {
        holds(OP, "qk_norm", weights, 2 * u64::from(s.head_dim))?;
        bindings.push(("qk_norm", weights));
    }
    let lanes = u64::from(s.tokens) * u64::from(s.heads + 2 * s.kv_heads) * u64::from(s.head_dim / 4);
    let grid = fold(OP, rec.gpu(), lanes, 64)?;
    let params = Params {
        tokens: s.tokens,
        heads: s.heads,
        kv_heads: s.kv_heads,
        head_dim: s.head_dim,
        rotary,
        pos0: s.pos0,
        ctx: cache.ctx,
        q_stride: s.strides[0],
        k_stride: s.strides[1],
        v_stride: s.strides[2],
        q_offset: s.offsets[0],
        k_offset: s.offsets[1],
        v_offset: s.offsets[2],
        eps: s.norm_eps,
        width: grid[0],
        pad: 0,
    };
    let kernel = rec.gpu().kernel(OP, &options)?;
    Ok(rec.dispatch(&kernel, &bindings, &params, grid)?)
}
