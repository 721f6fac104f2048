//! What commands find out. Every report carries the name of its schema, described in `docs/json-schema.md`.
//!
//! Units are in the names: bytes, seconds, milliseconds, tokens a second; probabilities are fractions of 1, divergences
//! nats. Within a schema version fields are only added.

use serde::{Deserialize, Serialize};

pub use super::attend::{Attended, AttendedRow};
pub use super::bench::{Benchmark, ModelBenchmark};
use crate::eval::EmbeddingDrift;
use crate::gpu::{AdapterSummary, Tier};

/// A report of one command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "schema")]
pub enum Report {
    /// Of `Adapters`.
    #[serde(rename = "tersor.adapters/1")]
    Adapters(Adapters),
    /// Of `Load`.
    #[serde(rename = "tersor.load/1")]
    Load(Loaded),
    /// Of `Inspect`.
    #[serde(rename = "tersor.inspect/1")]
    Inspect(Inspection),
    /// Of `Generate`.
    #[serde(rename = "tersor.generate/1")]
    Generate(Generated),
    /// Of `Score`.
    #[serde(rename = "tersor.score/1")]
    Score(Scores),
    /// Of `Attend`.
    #[serde(rename = "tersor.attend/1")]
    Attend(Attended),
    /// Of `Compare`.
    #[serde(rename = "tersor.compare/1")]
    Compare(Comparison),
    /// Of `Evaluate`.
    #[serde(rename = "tersor.evaluate/1")]
    Evaluate(Box<Evaluation>),
    /// Of `Compress`.
    #[serde(rename = "tersor.compress/1")]
    Compress(Compressed),
    /// Of `Embed`.
    #[serde(rename = "tersor.embed/1")]
    Embed(Embedded),
    /// Of `Bench`.
    #[serde(rename = "tersor.bench/1")]
    Bench(Box<Benchmark>),
    /// Of `BenchModel`.
    #[serde(rename = "tersor.bench_model/1")]
    BenchModel(Box<ModelBenchmark>),
}

/// The adapters of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapters {
    /// All adapters.
    pub adapters: Vec<AdapterSummary>,
    /// Index of the one that the session's options choose; `None` when they choose none of them.
    pub chosen: Option<usize>,
}

/// The device that numbers were measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Backend and adapter's name.
    pub name: String,
    /// Driver and version.
    pub driver: String,
    /// Tier in use, which may be less than the adapter has.
    pub tier: Tier,
    /// Limits in use: "adapter" or "webgpu-default".
    pub limits: String,
    /// A software adapter, whose speeds say nothing about GPUs.
    pub software: bool,
}

/// A model, as its file describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// File or folder name.
    pub name: String,
    /// "llama", "qwen2", "bert" …
    pub architecture: String,
    /// Weights in all tensors.
    pub parameters: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Seed of the rotation applied before anything else, now or when the file was written.
    pub rotation: Option<u64>,
}

/// A tensor whose shape its codec cannot take, and what was used instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// The tensor's name.
    pub tensor: String,
    /// The codec that was asked for.
    pub asked: String,
    /// The codec that was used.
    pub used: String,
}

/// How well one tensor survived compression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorError {
    /// The tensor's name.
    pub tensor: String,
    /// The codec that was used.
    pub codec: String,
    /// ‖compressed − original‖² / ‖original‖².
    pub nmse: f64,
}

/// A model's weights in one form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// Bytes of the packed weights.
    pub bytes: u64,
    /// Bits for each weight, over all tensors.
    pub bits_per_weight: f64,
    /// How many tensors each codec holds, most first.
    pub codecs: Vec<(String, usize)>,
    /// Tensors that another codec had to take.
    pub fallbacks: Vec<Fallback>,
    /// Error of each compressed tensor; empty for the original.
    pub tensors: Vec<TensorError>,
    /// Seconds that compressing took; 0 for the original.
    pub encode_seconds: f64,
    /// What its codecs were calibrated on, if they were.
    #[serde(default)]
    pub calibration: Option<CalibrationInfo>,
}

/// What codecs were calibrated on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationInfo {
    /// The text's name.
    pub text: String,
    /// Tokens that went through the model.
    pub tokens: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// GPU memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Weights.
    pub weights: u64,
    /// KV cache.
    pub kv_cache: u64,
    /// Activations and everything else.
    pub scratch: u64,
    /// The most that was held at once, all in all.
    pub peak: u64,
}

/// Mean and tail of a quantity over positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Mean.
    pub mean: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
    /// Half are below.
    pub median: f64,
    /// 99 % are below.
    pub percentile_99: f64,
    /// 99.9 % are below.
    pub percentile_99_9: f64,
    /// Largest.
    pub max: f64,
}

/// A value with its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
}

/// Drift of a layer's output from the original's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerDrift {
    /// Layer, from 0.
    pub layer: u32,
    /// ‖compressed − original‖² / ‖original‖² of the residual stream after the layer.
    pub nmse: f64,
    /// Cosine between the two.
    pub cosine: f64,
}

/// What the compression changed, over the same windows for both models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// ln(perplexity / original's perplexity), with paired standard error.
    pub ln_perplexity_ratio: Estimate,
    /// KL divergence from the original's prediction to the compressed one's, in nats a position.
    pub kl_divergence: Distribution,
    /// Change of the probability of the actual token: mean.
    pub delta_p_mean: f64,
    /// Change of the probability of the actual token: root mean square.
    pub delta_p_rms: f64,
    /// Fraction of positions whose most likely token is the original's.
    pub same_top: Estimate,
    /// Mean fraction of the five most likely tokens that are among the original's five.
    pub top5_overlap: f64,
    /// Positions the original predicted right and the compressed one wrong, or the other way round.
    pub flips: u64,
    /// Drift of each layer.
    pub layers: Vec<LayerDrift>,
}

/// How well a model predicts a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// exp of the mean negative log-likelihood of a token.
    pub perplexity: Estimate,
    /// Bits for each byte of the text that was scored.
    pub bits_per_byte: Option<f64>,
    /// Difference to the original; `None` for the original itself.
    pub divergence: Option<Divergence>,
}

/// What quality was measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextInfo {
    /// Its name.
    pub name: String,
    /// Bytes of the text.
    pub bytes: u64,
    /// Tokens of a window.
    pub context: u32,
    /// Windows evaluated.
    pub windows: u64,
    /// Positions scored.
    pub positions: u64,
}

/// How fast a model ran.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Tokens of the prompt.
    pub prefill_tokens: u32,
    /// Tokens of the prompt a second.
    pub prefill_tokens_per_second: f64,
    /// Tokens generated after the first.
    pub decode_tokens: u32,
    /// Those a second.
    pub decode_tokens_per_second: f64,
    /// Milliseconds from the prompt to the first token, pipelines warm.
    pub first_token_ms: f64,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The model ended it.
    EndOfText,
    /// A stop string appeared.
    StopString,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
}

/// A generated text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The text that became complete with each token; joined they are `text`.
    pub pieces: Vec<String>,
    /// Why it ended.
    pub stop: Stop,
    /// Index of the first token that differs from the original's reply; `None` when none does.
    pub first_difference: Option<usize>,
}

/// How much of the attention of prompts was computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionUse {
    /// The policy: "asa:block=64,mass=0.95".
    pub policy: String,
    /// Pairs of query block and key block that were computed, over all layers and heads; counted by the kernels.
    pub kept_blocks: u64,
    /// Pairs that dense attention would have computed.
    pub visible_blocks: u64,
    /// The one through the other.
    pub kept_fraction: f64,
}

/// Of `Load`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// The device.
    pub device: Device,
    /// The model.
    pub model: Model,
    /// Its weights as they lie on the GPU.
    pub weights: Weights,
    /// Memory taken.
    pub memory: Memory,
    /// Positions the KV cache has room for.
    pub context: u32,
    /// Whether it can take a conversation.
    pub chat: bool,
}

/// Of `Generate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// The text.
    pub generation: Generation,
    /// How fast it came.
    pub speed: Speed,
    /// How much of the prompt's attention was computed; `None` where all was.
    #[serde(default)]
    pub attention: Option<AttentionUse>,
}

/// A token that a model holds possible.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its id.
    pub token: u32,
    /// Its text; bytes that are no whole character are U+FFFD.
    pub text: String,
    /// Its probability.
    pub probability: f64,
}

/// What two models say of one token of a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The token that stands there.
    pub token: u32,
    /// KL divergence from the original's prediction to the other one's, in nats.
    pub kl_divergence: f64,
    /// Probability of the token: the original's, the other one's.
    pub probability: [f64; 2],
    /// The most probable tokens, best first: the original's, the other one's.
    pub best: [Vec<Candidate>; 2],
}

/// Of `Score`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// One entry for each token of the text.
    pub tokens: Vec<Scored>,
}

/// One form of the model in a [`Comparison`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The recipe; the original's codec for the first one. Behind an `@`, the attention where it is not dense.
    pub recipe: String,
    /// How much of the prompts' attention was computed, for the texts it was measured on; `None` where all was.
    #[serde(default)]
    pub attention: Option<AttentionUse>,
    /// Its weights.
    pub weights: Weights,
    /// How well it predicts the text.
    pub quality: Option<Quality>,
    /// Of an encoder: how far its vectors moved from the original's.
    #[serde(default)]
    pub embeddings: Option<EmbeddingDrift>,
    /// How fast it ran.
    pub speed: Option<Speed>,
    /// GPU memory it took.
    pub memory: Memory,
    /// What it wrote.
    pub generation: Option<Generation>,
}

/// Of `Compare`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Version of tersor.
    pub version: String,
    /// The device.
    pub device: Device,
    /// The model.
    pub model: Model,
    /// What quality was measured on.
    pub text: Option<TextInfo>,
    /// The prompt, or the last message of the conversation.
    pub prompt: Option<String>,
    /// The original first, then the compressions in the order asked.
    pub variants: Vec<Variant>,
    /// Seconds that the whole comparison took.
    pub seconds: f64,
}

/// Of `Evaluate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Version of tersor.
    pub version: String,
    /// The device.
    pub device: Device,
    /// The model.
    pub model: Model,
    /// How it was compressed; `None` where it is as it is stored.
    #[serde(default)]
    pub recipe: Option<String>,
    /// How much of the attention was computed; `None` where all was.
    #[serde(default)]
    pub attention: Option<AttentionUse>,
    /// Its weights as they were measured.
    #[serde(default)]
    pub weights: Weights,
    /// The model it was compared with.
    pub against: Option<Model>,
    /// The original's own quality, where there is one.
    pub against_quality: Option<Quality>,
    /// What it was measured on.
    pub text: TextInfo,
    /// The result.
    pub quality: Quality,
    /// Positions scored a second.
    pub positions_per_second: f64,
}

/// One tensor of an [`Inspection`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorRow {
    /// Its name.
    pub name: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// Its element or block type.
    pub dtype: String,
    /// Its bytes.
    pub bytes: u64,
}

/// Statistics of one tensor's values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorStatistics {
    /// The tensor.
    pub tensor: TensorRow,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub standard_deviation: f64,
    /// Fraction of values that are zero.
    pub zeros: f64,
    /// Values that are NaN or infinite.
    pub not_finite: u64,
    /// Excess kurtosis: 0 for a normal distribution, large for one with outliers.
    pub kurtosis: f64,
    /// Counts in equal bins from `min` to `max`.
    pub histogram: Vec<u64>,
    /// The first values.
    pub first: Vec<f32>,
}

/// Of `Inspect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The model; its architecture is empty when the file names none.
    pub model: Model,
    /// "GGUF" or "safetensors".
    pub container: String,
    /// Metadata, each value shortened for people.
    pub metadata: Vec<(String, String)>,
    /// All tensors.
    pub tensors: Vec<TensorRow>,
    /// The tensor that was asked for.
    pub statistics: Option<TensorStatistics>,
}

/// Of `Compress`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compressed {
    /// The model that was read.
    pub model: Model,
    /// The recipe.
    pub recipe: String,
    /// The file that was written.
    pub output: String,
    /// Its bytes.
    pub output_bytes: u64,
    /// Its weights.
    pub weights: Weights,
}

/// Of `Embed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedded {
    /// The device.
    pub device: Device,
    /// The model.
    pub model: Model,
    /// Its weights.
    pub weights: Weights,
    /// The texts.
    pub texts: Vec<String>,
    /// Unit vectors, one for each text.
    pub embeddings: Vec<Vec<f32>>,
    /// Cosine of each pair of texts, row by row.
    pub similarity: Vec<Vec<f32>>,
}
