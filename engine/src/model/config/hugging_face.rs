//! `config.json` of Hugging Face transformers, with the field names of versions 4 and 5.

use serde_json::Value;

use super::super::ModelError;
use super::super::names::Naming;
use super::{Architecture, Config};
use crate::format::Checkpoint;
use crate::ops::elementwise::{Activation, Pooling};
use crate::ops::rope::{RopeConfig, RopeScaling, RopeStyle};

/// Reads fields and says which one is wrong.
#[derive(Clone, Copy)]
struct Fields<'a> {
    model: &'a str,
    value: &'a Value,
}

impl<'a> Fields<'a> {
    fn get(self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    fn at(self, key: &str) -> Option<Self> {
        self.get(key).filter(|v| v.is_object()).map(|value| Self { value, ..self })
    }

    fn bad(self, key: &str, what: impl Into<String>) -> ModelError {
        ModelError::Config { model: self.model.to_owned(), key: format!("config.json: {key}"), what: what.into() }
    }

    fn wrong(self, key: &str, value: &Value) -> ModelError {
        let text = value.to_string();
        let short: String = text.chars().take(60).collect();
        self.bad(key, format!("{short} makes no sense here"))
    }

    fn maybe_u32(self, key: &str) -> Result<Option<u32>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.map(Some).ok_or_else(|| self.wrong(key, value))
    }

    fn u32(self, key: &str) -> Result<u32, ModelError> {
        self.maybe_u32(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    fn maybe_f64(self, key: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, value))
    }

    fn f64(self, key: &str) -> Result<f64, ModelError> {
        self.maybe_f64(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    fn bool(self, key: &str) -> Result<Option<bool>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, value))
    }

    fn text(self, key: &str) -> Result<Option<&'a str>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, value))
    }

    fn f64s(self, key: &str) -> Result<Vec<f64>, ModelError> {
        let value = self.get(key).ok_or_else(|| self.bad(key, "is missing"))?;
        let list = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        list.ok_or_else(|| self.wrong(key, value))
    }
}

pub(super) fn read(checkpoint: &Checkpoint, json: &Value) -> Result<Config, ModelError> {
    let model = checkpoint.name();
    if json.is_null() {
        let what = "has no config.json beside it, which says how to run it".to_owned();
        return Err(ModelError::Architecture { model: model.to_owned(), what });
    }
    let outer = Fields { model, value: json };
    // Models that also see images keep the language model's fields in a section of their own.
    let fields = outer.at("text_config").unwrap_or(outer);
    let name = fields.text("model_type")?.unwrap_or_default();
    let architecture = Architecture::from_name(name).ok_or_else(|| ModelError::Architecture {
        model: model.to_owned(),
        what: format!("its config.json says model_type \"{name}\""),
    })?;
    if architecture == Architecture::Bert {
        encoder(checkpoint, fields)
    } else {
        decoder(checkpoint, fields, architecture)
    }
}

/// What stands before `stem` in the file's tensor names, "" if it is nowhere.
fn prefix(checkpoint: &Checkpoint, stem: &str) -> String {
    checkpoint.tensors().iter().find_map(|t| Some(t.name.split_once(stem)?.0.to_owned())).unwrap_or_default()
}

fn activation(fields: Fields) -> Result<Activation, ModelError> {
    let key = if fields.get("hidden_activation").is_some() { "hidden_activation" } else { "hidden_act" };
    Ok(match fields.text(key)? {
        Some("silu" | "swish") => Activation::Silu,
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Activation::GeluTanh,
        Some("gelu") => Activation::GeluErf,
        other => return Err(fields.bad(key, format!("{other:?} is not silu, gelu or gelu_pytorch_tanh"))),
    })
}

fn encoder(checkpoint: &Checkpoint, fields: Fields) -> Result<Config, ModelError> {
    let hidden = fields.u32("hidden_size")?;
    let heads = fields.u32("num_attention_heads")?;
    if let Some(kind @ ("relative_key" | "relative_key_query")) = fields.text("position_embedding_type")? {
        return Err(fields.bad("position_embedding_type", format!("{kind}; only absolute positions are supported")));
    }
    let head_dim = hidden.checked_div(heads).unwrap_or(0);
    let layers = fields.u32("num_hidden_layers")?;
    Ok(Config {
        architecture: Architecture::Bert,
        naming: Naming::Bert { prefix: prefix(checkpoint, "embeddings.word_embeddings.") },
        hidden,
        intermediate: fields.u32("intermediate_size")?,
        layers,
        heads,
        kv_heads: heads,
        head_dim,
        vocab: fields.u32("vocab_size")?,
        max_positions: fields.u32("max_position_embeddings")?,
        norm_eps: fields.maybe_f64("layer_norm_eps")?.unwrap_or(1e-12) as f32,
        norm_plus_one: false,
        activation: activation(fields)?,
        attention_scale: f64::from(head_dim).sqrt().recip() as f32,
        attention_cap: 0.0,
        logit_cap: None,
        embed_scale: 1.0,
        rope_style: RopeStyle::None,
        rope: RopeConfig { rotary_dim: 4, base: 1.0, scaling: RopeScaling::None },
        rope_local: None,
        windows: vec![0; layers.min(1024) as usize],
        token_types: fields.maybe_u32("type_vocab_size")?.unwrap_or(0),
        pooling: Pooling::Mean,
        shapes: None,
    })
}

fn decoder(checkpoint: &Checkpoint, fields: Fields, architecture: Architecture) -> Result<Config, ModelError> {
    let hidden = fields.u32("hidden_size")?;
    let heads = fields.u32("num_attention_heads")?;
    let kv_heads = fields.maybe_u32("num_key_value_heads")?.unwrap_or(heads);
    let head_dim = match fields.maybe_u32("head_dim")? {
        Some(dim) => dim,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    let layers = fields.u32("num_hidden_layers")?;
    let max_positions = fields.u32("max_position_embeddings")?;
    let gemma = matches!(architecture, Architecture::Gemma2 | Architecture::Gemma3);
    let scale_of = match fields.maybe_f64("query_pre_attn_scalar")? {
        Some(scalar) if gemma => scalar,
        _ => f64::from(head_dim),
    };
    let partial = match fields.maybe_f64("partial_rotary_factor")? {
        Some(factor) => Some(factor),
        None => fields.at("rope_parameters").map(|p| p.maybe_f64("partial_rotary_factor")).transpose()?.flatten(),
    };
    let rotary_dim = (f64::from(head_dim) * partial.unwrap_or(1.0)) as usize;
    let (rope, rope_local) = ropes(fields, architecture, rotary_dim, f64::from(max_positions))?;
    Ok(Config {
        architecture,
        naming: Naming::HuggingFace {
            prefix: prefix(checkpoint, "embed_tokens."),
            post_norms: architecture.post_norms(),
        },
        hidden,
        intermediate: fields.u32("intermediate_size")?,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab: fields.u32("vocab_size")?,
        max_positions,
        norm_eps: fields.maybe_f64("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        norm_plus_one: gemma,
        activation: activation(fields)?,
        attention_scale: scale_of.sqrt().recip() as f32,
        attention_cap: fields.maybe_f64("attn_logit_softcapping")?.unwrap_or(0.0) as f32,
        logit_cap: fields.maybe_f64("final_logit_softcapping")?.map(|cap| cap as f32).filter(|cap| *cap != 0.0),
        embed_scale: if gemma { f64::from(hidden).sqrt() as f32 } else { 1.0 },
        rope_style: RopeStyle::Half,
        rope,
        rope_local,
        windows: windows(fields, architecture, layers.min(1024))?,
        token_types: 0,
        pooling: Pooling::Last,
        shapes: None,
    })
}

/// The window of every layer; 0 where it sees everything.
fn windows(fields: Fields, architecture: Architecture, layers: u32) -> Result<Vec<u32>, ModelError> {
    let Some(window) = fields.maybe_u32("sliding_window")? else { return Ok(vec![0; layers as usize]) };
    let qwen = matches!(architecture, Architecture::Qwen2 | Architecture::Qwen3);
    // Qwen names a window in every configuration and says elsewhere whether it is used.
    if !fields.bool("use_sliding_window")?.unwrap_or(!qwen) {
        return Ok(vec![0; layers as usize]);
    }
    if let Some(types) = fields.get("layer_types") {
        let types = types.as_array().filter(|list| list.len() == layers as usize);
        let types = types.ok_or_else(|| fields.bad("layer_types", format!("is no list of {layers} layers")))?;
        let window_of = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Ok(window),
            Some("full_attention") => Ok(0),
            _ => Err(fields.wrong("layer_types", kind)),
        };
        return types.iter().map(window_of).collect();
    }
    let pattern = match fields.maybe_u32("sliding_window_pattern")? {
        Some(pattern) => Some(pattern),
        None => fields.maybe_u32("_sliding_window_pattern")?,
    };
    let first_with_window = fields.maybe_u32("max_window_layers")?.unwrap_or(28);
    let slides = |layer: u32| match architecture {
        Architecture::Gemma2 => layer.is_multiple_of(2),
        Architecture::Gemma3 => !(layer + 1).is_multiple_of(pattern.unwrap_or(6).max(1)),
        Architecture::Qwen2 | Architecture::Qwen3 => layer >= first_with_window,
        Architecture::Mistral | Architecture::Phi3 => true,
        Architecture::Llama | Architecture::Bert => false,
    };
    Ok((0..layers).map(|layer| if slides(layer) { window } else { 0 }).collect())
}

/// Rotary embeddings of layers with full attention, and of the others where they differ.
fn ropes(
    fields: Fields,
    architecture: Architecture,
    rotary_dim: usize,
    max_positions: f64,
) -> Result<(RopeConfig, Option<RopeConfig>), ModelError> {
    let one = |section: Option<Fields>, base: f64| {
        let scaling = section.map_or(Ok(RopeScaling::None), |s| scaling(fields, s, max_positions))?;
        Ok::<_, ModelError>(RopeConfig { rotary_dim, base, scaling })
    };
    let base_of = |section: Fields| section.maybe_f64("rope_theta");
    let default_base = 10_000.0;
    if let Some(parameters) = fields.at("rope_parameters") {
        if let (Some(full), Some(sliding)) = (parameters.at("full_attention"), parameters.at("sliding_attention")) {
            let global = one(Some(full), base_of(full)?.unwrap_or(default_base))?;
            let local = one(Some(sliding), base_of(sliding)?.unwrap_or(default_base))?;
            return Ok((global, Some(local)));
        }
        let base = base_of(parameters)?.or(base_of(fields)?).unwrap_or(default_base);
        return Ok((one(Some(parameters), base)?, None));
    }
    let gemma3 = architecture == Architecture::Gemma3;
    let base = base_of(fields)?.unwrap_or(if gemma3 { 1_000_000.0 } else { default_base });
    let global = one(fields.at("rope_scaling"), base)?;
    let local = match fields.maybe_f64("rope_local_base_freq")? {
        Some(base) => Some(one(None, base)?),
        None if gemma3 => Some(one(None, default_base)?),
        None => None,
    };
    Ok((global, local))
}

/// The scaling that a section (`rope_parameters` or `rope_scaling`) describes.
fn scaling(config: Fields, section: Fields, max_positions: f64) -> Result<RopeScaling, ModelError> {
    let kind = match section.text("rope_type")? {
        Some(kind) => kind,
        None => section.text("type")?.unwrap_or("default"),
    };
    let original = match section.maybe_f64("original_max_position_embeddings")? {
        Some(original) => Some(original),
        None => config.maybe_f64("original_max_position_embeddings")?,
    };
    let trained = original.unwrap_or(max_positions);
    let factor = || match section.maybe_f64("factor")? {
        Some(factor) => Ok(factor),
        None => Ok::<_, ModelError>(max_positions / trained),
    };
    Ok(match kind {
        "default" | "none" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: section.f64("factor")? },
        "dynamic" => RopeScaling::Dynamic { factor: section.f64("factor")?, max_position: trained },
        "llama3" => RopeScaling::Llama3 {
            factor: section.f64("factor")?,
            low_freq_factor: section.f64("low_freq_factor")?,
            high_freq_factor: section.f64("high_freq_factor")?,
            original: trained,
        },
        "yarn" => RopeScaling::Yarn {
            factor: factor()?,
            beta_fast: section.maybe_f64("beta_fast")?.unwrap_or(32.0),
            beta_slow: section.maybe_f64("beta_slow")?.unwrap_or(1.0),
            original: trained,
            attention_factor: section.maybe_f64("attention_factor")?,
            mscale: section.maybe_f64("mscale")?,
            mscale_all_dim: section.maybe_f64("mscale_all_dim")?,
            truncate: section.bool("truncate")?.unwrap_or(true),
        },
        "longrope" | "su" => RopeScaling::LongRope {
            short: section.f64s("short_factor")?,
            long: section.f64s("long_factor")?,
            original: trained,
            // With an original length given, transformers takes the ratio of the two even where a factor is written.
            factor: if original.is_some() { max_positions / trained } else { factor()? },
            attention_factor: section.maybe_f64("attention_factor")?,
        },
        other => return Err(section.bad("rope_type", format!("\"{other}\" is not supported"))),
    })
}
