//! The models of `golden/families` as GGUF: what llama.cpp's converter makes of such a checkpoint.
//!
//! Keys, names and changes of weights are those of ggml-org/llama.cpp, `conversion/{base,llama,qwen,gemma,phi,bert}.py` and
//! `gguf-py/gguf/constants.py`, and what `src/models/*.cpp` expects of them; not what our reader happens to take.

use std::f64::consts::PI;
use std::io::Cursor;

use serde_json::Value;
use tersor_engine::format::{Checkpoint, CheckpointWriter, Dtype, GgufMetadata, GgufValue, TensorInfo, decode_f32};

use crate::families;

/// A tensor: name, row-major shape, values.
type Tensor = (String, Vec<u64>, Vec<f32>);

/// A GGUF file in the making.
#[derive(Clone, Debug)]
pub struct Converted {
    /// All keys.
    pub metadata: GgufMetadata,
    /// All tensors, in f32.
    pub tensors: Vec<Tensor>,
}

impl Converted {
    /// Converts a model of `golden/families`.
    ///
    /// # Panics
    /// If there is no such model.
    pub fn of(family: &str) -> Self {
        let path = crate::golden::path("families").join(family).join("config_legacy.json");
        let config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let checkpoint = families::open(family, "config.json");
        let mut this = Self { metadata: GgufMetadata::new(), tensors: Vec::new() };
        this.describe(&config);
        for info in checkpoint.tensors() {
            let (_, bytes) = checkpoint.tensor(&info.name).unwrap();
            let values = decode_f32(info.dtype, bytes).unwrap();
            let (name, values) = convert(&config, &info.name, values);
            this.tensors.push((name, info.shape.clone(), values));
        }
        this.add_rope_tensors(&config);
        this
    }

    /// The file's bytes.
    ///
    /// # Panics
    /// If it cannot be written: a mistake in the tensors.
    pub fn bytes(&self) -> Vec<u8> {
        let infos: Vec<TensorInfo> = self
            .tensors
            .iter()
            .map(|(name, shape, _)| TensorInfo::new(name, shape.clone(), Dtype::F32).unwrap())
            .collect();
        let mut writer = CheckpointWriter::gguf(Cursor::new(Vec::new()), "model.gguf", &self.metadata, &infos).unwrap();
        for (name, _, values) in &self.tensors {
            writer.write(name, bytemuck::cast_slice(values)).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    /// The file, opened.
    ///
    /// # Panics
    /// As [`Converted::bytes`].
    pub fn open(&self) -> Checkpoint {
        Checkpoint::from_files(vec![("model.gguf".to_owned(), self.bytes())]).unwrap()
    }

    /// The architecture, as keys begin with it.
    ///
    /// # Panics
    /// If the file names none.
    pub fn architecture(&self) -> &str {
        self.metadata.str("general.architecture").unwrap()
    }

    /// Sets a key of the architecture.
    pub fn set(&mut self, key: &str, value: impl Into<GgufValue>) {
        let key = format!("{}.{key}", self.architecture());
        self.metadata.set(key, value);
    }

    /// Every metadata key that the converter writes for this model.
    fn describe(&mut self, config: &Value) {
        let kind = config["model_type"].as_str().unwrap();
        let architecture = match kind {
            "mistral" => "llama", // one class converts both; a window is not among the keys of llama
            "gemma3_text" => "gemma3",
            other => other,
        };
        self.metadata.set("general.architecture", architecture.to_owned());
        self.metadata.set("general.file_type", 0u32);
        let number = |key: &str| config[key].as_u64().map(|n| n as u32);
        let float = |key: &str| config[key].as_f64().map(|n| n as f32);
        for (key, field) in [
            ("block_count", "num_hidden_layers"),
            ("context_length", "max_position_embeddings"),
            ("embedding_length", "hidden_size"),
            ("feed_forward_length", "intermediate_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.head_count_kv", "num_key_value_heads"),
            ("attention.key_length", "head_dim"),
            ("attention.value_length", "head_dim"),
        ] {
            if let Some(value) = number(field) {
                self.set(key, value);
            }
        }
        for (key, field) in [
            ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            ("attention.layer_norm_epsilon", "layer_norm_eps"),
            ("rope.freq_base", "rope_theta"),
            ("rope.freq_base_swa", "rope_local_base_freq"),
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
        ] {
            // Gemma 2 has a list of keys of its own, without the rotary base.
            if let Some(value) = float(field).filter(|_| (kind, field) != ("gemma2", "rope_theta")) {
                self.set(key, value);
            }
        }
        if kind.starts_with("gemma") || kind == "phi3" {
            self.set("attention.sliding_window", number("sliding_window").unwrap_or(0));
        }
        match kind {
            "llama" | "mistral" => {
                self.set("vocab_size", number("vocab_size").unwrap());
                self.set("rope.dimension_count", number("head_dim").unwrap());
            }
            "gemma3_text" => {
                // llama.cpp takes 6 where this is missing, as it is in files of published models.
                self.set("attention.sliding_window_pattern", number("sliding_window_pattern").unwrap());
            }
            "phi3" => {
                self.set("rope.dimension_count", rotary_dimensions(config) as u32);
                let original = number("original_max_position_embeddings").unwrap();
                self.set("rope.scaling.original_context_length", original);
                if !config["rope_scaling"].is_null() {
                    let (original, now) = (f64::from(original), f64::from(number("max_position_embeddings").unwrap()));
                    let factor = (1.0 + (now / original).ln() / original.ln()).sqrt();
                    self.set("rope.scaling.attn_factor", factor as f32);
                }
            }
            "bert" => {
                self.set("attention.causal", false);
                self.set("pooling_type", 1u32);
                self.metadata.set("tokenizer.ggml.token_type_count", number("type_vocab_size").unwrap());
            }
            _ => {}
        }
        let scaling = &config["rope_scaling"];
        let in_scaling = |key: &str| scaling[key].as_f64().map(|n| n as f32);
        match scaling["rope_type"].as_str() {
            Some(kind @ "linear") => {
                self.set("rope.scaling.type", kind.to_owned());
                self.set("rope.scaling.factor", in_scaling("factor").unwrap());
            }
            Some(kind @ "yarn") => {
                self.set("rope.scaling.type", kind.to_owned());
                self.set("rope.scaling.factor", in_scaling("factor").unwrap());
                let original = scaling["original_max_position_embeddings"].as_u64().unwrap();
                self.set("rope.scaling.original_context_length", original as u32);
                self.set("rope.scaling.yarn_beta_fast", in_scaling("beta_fast").unwrap());
                self.set("rope.scaling.yarn_beta_slow", in_scaling("beta_slow").unwrap());
            }
            _ => {} // llama3 and LongRoPE are tensors
        }
    }

    /// Rotary divisors, which GGUF keeps as tensors.
    fn add_rope_tensors(&mut self, config: &Value) {
        let scaling = &config["rope_scaling"];
        let number = |key: &str| scaling[key].as_f64().unwrap();
        let mut add = |name: &str, values: Vec<f32>| {
            self.tensors.push((format!("{name}.weight"), vec![values.len() as u64], values));
        };
        if scaling["rope_type"] == "llama3" {
            let (factor, original) = (number("factor"), number("original_max_position_embeddings"));
            let (low, high) = (number("low_freq_factor"), number("high_freq_factor"));
            let dim = config["head_dim"].as_u64().unwrap();
            let divisor = |i: u64| {
                let wavelength = 2.0 * PI * config["rope_theta"].as_f64().unwrap().powf(i as f64 / dim as f64);
                if wavelength < original / high {
                    return 1.0;
                }
                if wavelength > original / low {
                    return factor as f32;
                }
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            };
            add("rope_freqs", (0..dim).step_by(2).map(divisor).collect());
        }
        for (name, key) in [("rope_factors_long", "long_factor"), ("rope_factors_short", "short_factor")] {
            if let Some(list) = scaling[key].as_array() {
                add(name, list.iter().map(|v| v.as_f64().unwrap() as f32).collect());
            }
        }
    }
}

/// Dimensions of a head that rotate in Phi-3.
fn rotary_dimensions(config: &Value) -> u64 {
    let share = config["partial_rotary_factor"].as_f64().unwrap_or(1.0);
    (share * config["hidden_size"].as_f64().unwrap()) as u64 / config["num_attention_heads"].as_u64().unwrap()
}

/// A tensor's new name and values.
fn convert(config: &Value, name: &str, mut values: Vec<f32>) -> (String, Vec<f32>) {
    let kind = config["model_type"].as_str().unwrap();
    let count = |key: &str| config[key].as_u64().unwrap() as usize;
    if kind == "llama" || kind == "mistral" {
        // Rows that rotate together become neighbours.
        for (projection, heads) in [("q_proj.", "num_attention_heads"), ("k_proj.", "num_key_value_heads")] {
            if name.contains(projection) {
                values = permuted(&values, count(heads), count("head_dim"));
            }
        }
    }
    if kind.starts_with("gemma") {
        if name.ends_with("norm.weight") {
            values.iter_mut().for_each(|w| *w += 1.0);
        }
        // llama.cpp scales queries by the size of a head, and has no key for `query_pre_attn_scalar`, which published models
        // but the largest set to that size. These models have another: their ratio goes where queries are made.
        let scaled = if kind == "gemma2" { "q_proj.weight" } else { "q_norm.weight" };
        if name.ends_with(scaled) {
            let ratio = count("head_dim") as f64 / config["query_pre_attn_scalar"].as_f64().unwrap();
            values.iter_mut().for_each(|w| *w *= ratio.sqrt() as f32);
        }
    }
    (renamed(name, kind), values)
}

/// `[heads, 2, half, …]` to `[heads, half, 2, …]`.
fn permuted(values: &[f32], heads: usize, dim: usize) -> Vec<f32> {
    let cols = values.len() / (heads * dim);
    let row = |index: usize| &values[index * cols..][..cols];
    let old = |new: usize| {
        let (head, inside) = (new / dim, new % dim);
        head * dim + (inside % 2) * (dim / 2) + inside / 2
    };
    (0..heads * dim).flat_map(|new| row(old(new)).to_vec()).collect()
}

/// What llama.cpp calls a tensor.
fn renamed(name: &str, kind: &str) -> String {
    let (stem, end) = name.rsplit_once('.').unwrap();
    let outside = match stem {
        "model.embed_tokens" | "embeddings.word_embeddings" => Some("token_embd"),
        "model.norm" => Some("output_norm"),
        "lm_head" => Some("output"),
        "embeddings.position_embeddings" => Some("position_embd"),
        "embeddings.token_type_embeddings" => Some("token_types"),
        "embeddings.LayerNorm" => Some("token_embd_norm"),
        _ => None,
    };
    if let Some(new) = outside {
        return format!("{new}.{end}");
    }
    let inside = stem.strip_prefix("model.layers.").or(stem.strip_prefix("encoder.layer.")).unwrap();
    let (layer, part) = inside.split_once('.').unwrap();
    let gemma = kind.starts_with("gemma");
    let new = match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" | "attention.self.query" => "attn_q",
        "self_attn.k_proj" | "attention.self.key" => "attn_k",
        "self_attn.v_proj" | "attention.self.value" => "attn_v",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.o_proj" | "attention.output.dense" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" if gemma => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" | "mlp.gate_up_proj" | "intermediate.dense" => "ffn_up",
        "mlp.down_proj" | "output.dense" => "ffn_down",
        "attention.output.LayerNorm" => "attn_output_norm",
        "output.LayerNorm" => "layer_output_norm",
        other => panic!("{other} of {kind} has no name in GGUF"),
    };
    format!("blk.{layer}.{new}.{end}")
}
