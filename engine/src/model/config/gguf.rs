//! GGUF metadata, with the keys and the constants of llama.cpp.

use super::super::ModelError;
use super::super::names::Naming;
use super::{Architecture, Config};
use crate::format::{Checkpoint, GgufMetadata};
use crate::ops::elementwise::{Activation, Pooling};
use crate::ops::rope::{RopeConfig, RopeScaling, RopeStyle};

struct Keys<'a> {
    model: &'a str,
    architecture: &'a str,
    metadata: &'a GgufMetadata,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn bad(&self, key: &str, what: impl Into<String>) -> ModelError {
        ModelError::Config { model: self.model.to_owned(), key: self.key(key), what: what.into() }
    }

    fn maybe_u32(&self, key: &str) -> Result<Option<u32>, ModelError> {
        let name = self.key(key);
        let Some(value) = self.metadata.get(&name) else { return Ok(None) };
        // Some writers give a value per layer where all are the same.
        if let Some(list) = self.metadata.array(&name).and_then(|a| a.to_u64s()) {
            return match list.first().map(|first| (u32::try_from(*first), list.iter().all(|v| v == first))) {
                Some((Ok(first), true)) => Ok(Some(first)),
                _ => Err(self.bad(key, "differs from layer to layer, which is not supported")),
            };
        }
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.map(Some).ok_or_else(|| self.bad(key, format!("is a {}, not a small number", value.type_name())))
    }

    fn u32(&self, key: &str) -> Result<u32, ModelError> {
        self.maybe_u32(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    fn f32(&self, key: &str) -> Result<Option<f32>, ModelError> {
        let name = self.key(key);
        let Some(value) = self.metadata.get(&name) else { return Ok(None) };
        value.as_f32().map(Some).ok_or_else(|| self.bad(key, format!("is a {}, not a float", value.type_name())))
    }

    fn f64(&self, key: &str) -> Result<Option<f64>, ModelError> {
        Ok(self.f32(key)?.map(f64::from))
    }

    fn f64_or_u32(&self, key: &str) -> Result<Option<f64>, ModelError> {
        match self.metadata.u64(&self.key(key)) {
            Some(number) => Ok(Some(number as f64)),
            None => self.f64(key),
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.metadata.str(&self.key(key))
    }
}

pub(super) fn read(checkpoint: &Checkpoint, metadata: &GgufMetadata) -> Result<Config, ModelError> {
    let model = checkpoint.name();
    let unknown = |what: String| ModelError::Architecture { model: model.to_owned(), what };
    let name = metadata.str("general.architecture").ok_or_else(|| unknown("names no general.architecture".into()))?;
    let architecture =
        Architecture::from_name(name).ok_or_else(|| unknown(format!("its general.architecture is \"{name}\"")))?;
    let keys = Keys { model, architecture: name, metadata };
    let hidden = keys.u32("embedding_length")?;
    let heads = keys.u32("attention.head_count")?;
    let kv_heads = keys.maybe_u32("attention.head_count_kv")?.unwrap_or(heads);
    let head_dim = match keys.maybe_u32("attention.key_length")? {
        Some(dim) => dim,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    if let Some(values) = keys.maybe_u32("attention.value_length")?
        && values != head_dim
    {
        return Err(keys.bad("attention.value_length", format!("{values}, but keys have {head_dim} dimensions")));
    }
    let layers = keys.u32("block_count")?;
    let max_positions = keys.u32("context_length")?;
    let encoder = architecture == Architecture::Bert;
    let gemma = architecture.post_norms();
    // llama.cpp scales the queries of the 27B models by their share of the residual stream, not by their size.
    let scale_of = match (architecture, layers) {
        (Architecture::Gemma2, 46) | (Architecture::Gemma3, 62) => f64::from(hidden) / f64::from(heads.max(1)),
        _ => f64::from(head_dim),
    };
    let epsilon = if encoder { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
    let (rope, rope_local) = ropes(checkpoint, &keys, architecture, head_dim, max_positions)?;
    let vocab = match checkpoint.info("token_embd.weight").and_then(|info| info.shape.first()) {
        Some(rows) => u32::try_from(*rows).unwrap_or(u32::MAX),
        None => return Err(ModelError::MissingTensor { model: model.to_owned(), tensor: "token_embd.weight".into() }),
    };
    let token_types = match checkpoint.info("token_types.weight").and_then(|info| info.shape.first()) {
        Some(rows) if encoder => u32::try_from(*rows).unwrap_or(u32::MAX),
        _ => 0,
    };
    Ok(Config {
        architecture,
        naming: Naming::Gguf { encoder },
        hidden,
        intermediate: keys.u32("feed_forward_length")?,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab,
        max_positions,
        norm_eps: keys.f32(epsilon)?.ok_or_else(|| keys.bad(epsilon, "is missing"))?,
        norm_plus_one: false, // the converter has added it
        activation: match architecture {
            Architecture::Gemma2 | Architecture::Gemma3 => Activation::GeluTanh,
            Architecture::Bert => Activation::GeluErf,
            _ => Activation::Silu,
        },
        attention_scale: scale_of.sqrt().recip() as f32,
        attention_cap: keys.f32("attn_logit_softcapping")?.unwrap_or(0.0),
        logit_cap: keys.f32("final_logit_softcapping")?.filter(|cap| *cap != 0.0),
        embed_scale: if gemma { f64::from(hidden).sqrt() as f32 } else { 1.0 },
        rope_style: match architecture {
            Architecture::Bert => RopeStyle::None,
            // The converter reorders the rows of queries and keys.
            Architecture::Llama | Architecture::Mistral => RopeStyle::Interleaved,
            _ => RopeStyle::Half,
        },
        rope,
        rope_local,
        windows: windows(&keys, architecture, layers.min(1024))?,
        token_types,
        shapes: None,
        pooling: match keys.maybe_u32("pooling_type")? {
            Some(2) => Pooling::First,
            Some(3) => Pooling::Last,
            _ if encoder => Pooling::Mean,
            _ => Pooling::Last,
        },
    })
}

/// The window of every layer; 0 where it sees everything. Every n-th layer of Gemma does.
fn windows(keys: &Keys, architecture: Architecture, layers: u32) -> Result<Vec<u32>, ModelError> {
    let (default_window, default_period) = match architecture {
        Architecture::Gemma2 => (4096, 2),
        Architecture::Gemma3 => (0, 6),
        _ => return Ok(vec![keys.maybe_u32("attention.sliding_window")?.unwrap_or(0); layers as usize]),
    };
    let window = keys.maybe_u32("attention.sliding_window")?.unwrap_or(default_window);
    let period = keys.maybe_u32("attention.sliding_window_pattern")?.unwrap_or(default_period);
    // A period of 0: every layer has the window.
    let slides = |layer: u32| layer.checked_rem(period).is_none_or(|place| place + 1 < period);
    Ok((0..layers).map(|layer| if slides(layer) { window } else { 0 }).collect())
}

fn ropes(
    checkpoint: &Checkpoint,
    keys: &Keys,
    architecture: Architecture,
    head_dim: u32,
    max_positions: u32,
) -> Result<(RopeConfig, Option<RopeConfig>), ModelError> {
    if architecture == Architecture::Bert {
        return Ok((RopeConfig { rotary_dim: 4, base: 1.0, scaling: RopeScaling::None }, None));
    }
    let rotary_dim = keys.maybe_u32("rope.dimension_count")?.unwrap_or(head_dim) as usize;
    let base = keys.f64("rope.freq_base")?.unwrap_or(10_000.0);
    let list = |name: &str| -> Result<Option<Vec<f64>>, ModelError> {
        let Some((info, bytes)) = checkpoint.read(name).map_err(|error| keys.bad(name, error.to_string()))? else {
            return Ok(None);
        };
        let values = crate::format::decode_f32(info.dtype, &bytes);
        Ok(values.map(|values| values.into_iter().map(f64::from).collect()))
    };
    let trained = keys.f64_or_u32("rope.scaling.original_context_length")?;
    let factor = keys.f64("rope.scaling.factor")?.or(keys.f64("rope.scale_linear")?);
    let attention_factor = keys.f64("rope.scaling.attn_factor")?;
    let scaling = if let Some(factors) = list("rope_freqs.weight")? {
        RopeScaling::Divided { factors, attention_factor: 1.0 }
    } else if let (Some(short), Some(long)) = (list("rope_factors_short.weight")?, list("rope_factors_long.weight")?) {
        let original = trained.unwrap_or(f64::from(max_positions));
        RopeScaling::LongRope { short, long, original, factor: f64::from(max_positions) / original, attention_factor }
    } else {
        match (keys.text("rope.scaling.type"), factor) {
            (Some("yarn"), Some(factor)) => RopeScaling::Yarn {
                factor,
                beta_fast: keys.f64("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: keys.f64("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                original: trained.unwrap_or(f64::from(max_positions)),
                // llama.cpp multiplies it with the factor that YaRN itself asks for.
                attention_factor: attention_factor.map(|f| f * (0.1 * factor.ln() + 1.0)),
                mscale: None,
                mscale_all_dim: None,
                truncate: true,
            },
            (Some("none"), _) | (_, None) => RopeScaling::None,
            (Some("linear") | None, Some(factor)) => RopeScaling::Linear { factor },
            (Some(other), _) => return Err(keys.bad("rope.scaling.type", format!("\"{other}\" is not supported"))),
        }
    };
    let global = RopeConfig { rotary_dim, base, scaling };
    let local = (architecture == Architecture::Gemma3).then_some(RopeConfig {
        rotary_dim,
        base: keys.f64("rope.freq_base_swa")?.unwrap_or(10_000.0),
        scaling: RopeScaling::None,
    });
    Ok((global, local))
}
