//! What a model is, in one vocabulary, whatever file it comes from.

mod gguf;
mod hugging_face;

use super::names::Naming;
use super::{LayerShape, ModelError};
use crate::format::{Checkpoint, Meta};
use crate::ops::attention::HEAD_DIMS;
use crate::ops::elementwise::{Activation, Pooling};
use crate::ops::rope::{RopeConfig, RopeStyle};

/// Families of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1–3, SmolLM2, and Mistral where a file says "llama".
    Llama,
    /// Llama with a sliding window.
    Mistral,
    /// Biases on queries, keys and values; Qwen 2 and 2.5.
    Qwen2,
    /// Norms of queries and keys.
    Qwen3,
    /// Soft caps, norms before and after, alternating windows.
    Gemma2,
    /// Norms of queries and keys, two rotary bases.
    Gemma3,
    /// Fused projections, LongRoPE.
    Phi3,
    /// Encoders: BERT, MiniLM.
    Bert,
}

impl Architecture {
    /// For error messages.
    pub const LIST: &'static str = "llama, mistral, qwen2, qwen3, gemma2, gemma3, phi3 and bert";

    /// As files and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
            Self::Bert => "bert",
        }
    }

    /// The architecture of a file's word for it.
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "llama" => Self::Llama,
            "mistral" => Self::Mistral,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "gemma2" => Self::Gemma2,
            "gemma3" | "gemma3_text" => Self::Gemma3,
            "phi3" => Self::Phi3,
            "bert" => Self::Bert,
            _ => return None,
        })
    }

    /// Whether a norm also follows each block (Gemma).
    pub fn post_norms(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// Whether queries and keys are normalised per head.
    pub fn qk_norm(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3)
    }
}

/// A model's shapes and constants.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Family.
    pub architecture: Architecture,
    /// What its tensors are called.
    pub naming: Naming,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the MLP.
    pub intermediate: u32,
    /// Layers.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Dimensions of a head.
    pub head_dim: u32,
    /// Tokens.
    pub vocab: u32,
    /// Positions the model was made for.
    pub max_positions: u32,
    /// Added to the variance in every norm.
    pub norm_eps: f32,
    /// Norm weights are stored as w, applied as 1 + w (Gemma in Hugging Face files).
    pub norm_plus_one: bool,
    /// Of the MLP.
    pub activation: Activation,
    /// Factor on q·k.
    pub attention_scale: f32,
    /// Soft cap of attention scores; 0: none.
    pub attention_cap: f32,
    /// Soft cap of the logits.
    pub logit_cap: Option<f32>,
    /// Factor on embeddings.
    pub embed_scale: f32,
    /// Which dimensions rotate together; `None` in encoders.
    pub rope_style: RopeStyle,
    /// Rotary embedding of layers with full attention.
    pub rope: RopeConfig,
    /// Of layers with a window, where it differs (Gemma 3).
    pub rope_local: Option<RopeConfig>,
    /// Keys a query of each layer sees, itself included; 0: all.
    pub windows: Vec<u32>,
    /// Segments that an encoder distinguishes; 0 in decoders.
    pub token_types: u32,
    /// How an encoder makes one vector of many.
    pub pooling: Pooling,
    /// Where layers were shrunk: the shape of each ([`Config::shape`]). Then `heads`, `kv_heads`, `head_dim` and `intermediate` are what the
    /// model was made with.
    pub shapes: Option<Vec<LayerShape>>,
}

impl Config {
    /// Reads GGUF metadata or `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Architecture`] for a family that is not there, [`ModelError::Config`] naming the key that is missing or
    /// makes no sense.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let mut config = match checkpoint.meta() {
            Meta::Gguf(metadata) => gguf::read(checkpoint, metadata)?,
            Meta::HuggingFace { config, .. } => hugging_face::read(checkpoint, config)?,
        };
        config.check(checkpoint.name())?;
        config.take_shapes(checkpoint)?;
        Ok(config)
    }

    /// Width of the queries of a token.
    pub fn q_width(&self) -> u32 {
        self.heads * self.head_dim
    }

    /// Width of the keys (or of the values) of a token.
    pub fn kv_width(&self) -> u32 {
        self.kv_heads * self.head_dim
    }

    /// Width of queries, keys and values of a token.
    pub fn qkv_width(&self) -> u32 {
        self.q_width() + 2 * self.kv_width()
    }

    /// Refuses what no kernel covers, and numbers whose products could overflow.
    fn check(&self, model: &str) -> Result<(), ModelError> {
        // What the file calls a value: in GGUF, in `config.json`.
        let key = |gguf: &str, json: &str| match self.naming {
            Naming::Gguf { .. } => format!("{}.{gguf}", self.architecture.name()),
            _ => format!("config.json: {json}"),
        };
        let bad = |key: String, what: String| Err(ModelError::Config { model: model.to_owned(), key, what });
        let ranges = [
            (self.hidden, 65_536, "embedding_length", "hidden_size"),
            (self.intermediate, 1 << 20, "feed_forward_length", "intermediate_size"),
            (self.layers, 1024, "block_count", "num_hidden_layers"),
            (self.heads, 1024, "attention.head_count", "num_attention_heads"),
            (self.kv_heads, 1024, "attention.head_count_kv", "num_key_value_heads"),
            (self.vocab, 1 << 22, "vocab_size", "vocab_size"),
            (self.max_positions, 1 << 26, "context_length", "max_position_embeddings"),
        ];
        for (value, most, gguf, json) in ranges {
            if value == 0 || value > most {
                return bad(key(gguf, json), format!("{value} is not between 1 and {most}"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let what = format!("{} query heads cannot share {} of keys and values", self.heads, self.kv_heads);
            return bad(key("attention.head_count_kv", "num_key_value_heads"), what);
        }
        if !HEAD_DIMS.contains(&self.head_dim) {
            let what = format!("heads of {} dimensions; there are kernels for {HEAD_DIMS:?}", self.head_dim);
            return bad(key("attention.key_length", "head_dim"), what);
        }
        for (value, gguf, json) in [
            (self.hidden, "embedding_length", "hidden_size"),
            (self.intermediate, "feed_forward_length", "intermediate_size"),
        ] {
            if !value.is_multiple_of(4) {
                return bad(key(gguf, json), format!("{value} is no multiple of 4"));
            }
        }
        let rms = self.architecture != Architecture::Bert;
        let epsilon = if rms {
            key("attention.layer_norm_rms_epsilon", "rms_norm_eps")
        } else {
            key("attention.layer_norm_epsilon", "layer_norm_eps")
        };
        let scale = key("attention.key_length", "query_pre_attn_scalar");
        for (key, value) in [(scale, self.attention_scale), (epsilon, self.norm_eps)] {
            if !(value.is_finite() && value > 0.0) {
                return bad(key, format!("makes {value}, which must be positive"));
            }
        }
        for (name, cap) in
            [("attn_logit_softcapping", self.attention_cap), ("final_logit_softcapping", self.logit_cap.unwrap_or(0.0))]
        {
            if !(cap.is_finite() && cap >= 0.0) {
                return bad(key(name, name), format!("{cap} is no bound"));
            }
        }
        if self.token_types > 65_536 {
            return bad(key("token_types", "type_vocab_size"), format!("{} is more than 65536", self.token_types));
        }
        if self.rope_style != RopeStyle::None {
            for rope in [Some(&self.rope), self.rope_local.as_ref()].into_iter().flatten() {
                if rope.rotary_dim as u64 > u64::from(self.head_dim) {
                    let what = format!("{} of a head's {} dimensions rotate", rope.rotary_dim, self.head_dim);
                    return bad(key("rope.dimension_count", "partial_rotary_factor"), what);
                }
                if let Err(error) = rope.frequencies(self.max_positions as usize) {
                    return bad(key("rope", "rope_parameters"), error.to_string());
                }
            }
        }
        Ok(())
    }
}
