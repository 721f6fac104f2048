//! What can be asked of a session.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::bench::Plan;
use crate::bench::model::ModelPlan;
use crate::format::Checkpoint;
use crate::gpu::Tuning;

/// A place in the session that holds one loaded model, chosen by the sender: loading into it replaces what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

/// How the session chooses and uses the GPU; fixed when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Part of an adapter's name, or its number in the list; the best one when `None`.
    pub adapter: Option<String>,
    /// `portable`, `f16`, `subgroup` or `full`; what the adapter has when `None`.
    pub tier: Option<String>,
    /// `adapter` (what it has) or `webgpu-default`; the former when `None`.
    pub limits: Option<String>,
    /// Bytes that buffers may take together; what the adapter has when `None`.
    pub memory: Option<u64>,
    /// `auto`, `always`, `again` or `never`: when variants of kernels are timed against one another ([`Tune`](crate::gpu::Tune)); `auto` when
    /// `None`.
    pub tune: Option<String>,
    /// What was found by that before, as [`EventKind::Tuned`](super::EventKind::Tuned) told it.
    pub tuning: Tuning,
}

/// Where a model's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A GGUF or safetensors file, or a Hugging Face folder (native only).
    Path(PathBuf),
    /// Files already in memory, by name; a folder that their names begin with is what reports call the model. They never
    /// travel as JSON: in a browser the worker's glue attaches them.
    #[serde(skip)]
    Files(Vec<(String, Vec<u8>)>),
    /// A model that the sender opened already and uses again and again. It never travels as JSON either.
    #[serde(skip)]
    Open(Checkpoint),
}

/// How the weights are compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// A codec with parameters: `q4_k`, `nf4:block=64`, `uniform:bits=3,group=64`.
    Codec(String),
    /// The text of a TOML file that maps tensor-name patterns to codecs, and a name for it.
    Toml {
        /// What reports call it, usually the file's name.
        name: String,
        /// The file's contents.
        text: String,
    },
}

impl Recipe {
    /// What reports call it.
    pub fn name(&self) -> &str {
        match self {
            Self::Codec(name) | Self::Toml { name, .. } => name,
        }
    }
}

/// A random orthogonal change of basis that leaves what the model computes unchanged, but moves its weights off the grid
/// of the format they were stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rotation {
    /// Seed of the rotation.
    pub seed: u64,
}

/// A text to evaluate on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// What reports call it, usually the file's name.
    pub name: String,
    /// UTF-8 contents.
    pub text: String,
}

/// What codecs calibrate on that weigh errors by what they do to a layer's outputs; others ignore it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// The text. When `None`, codecs that cannot do without get the one that is part of the engine, the others nothing.
    pub text: Option<Text>,
    /// Tokens of it that go through the model; 4,096 when `None`.
    pub tokens: Option<u32>,
}

/// Who says a [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the tone.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// What generation starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Text to be continued as it stands.
    Prompt(String),
    /// One message: put through the model's chat template where it has one, else continued as it stands.
    Message(String),
    /// A conversation, put through the model's chat template.
    Chat(Vec<Message>),
}

/// How the next token is drawn. The default is greedy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// 0 takes the most likely token; else logits are divided by it.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the most likely tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides the positive (multiplies the negative) logits of tokens that occurred; 1 does nothing.
    pub repetition_penalty: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// Reads a model, compresses it when a recipe is given, and uploads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Where to hold it.
    pub slot: Slot,
    /// The model.
    pub source: Source,
    /// How to compress it; as it is stored when `None`.
    pub recipe: Option<Recipe>,
    /// Change of basis before compressing.
    pub rotation: Option<Rotation>,
    /// What calibrated codecs look at.
    #[serde(default)]
    pub calibration: Calibration,
    /// Positions the KV cache has room for; the model's own limit, but at most 4,096, when `None`.
    pub context: Option<u32>,
    /// What the queries of a prompt see: `dense` (which `None` is), `window:window=1024`, `asa:mass=0.95`.
    #[serde(default)]
    pub attention: Option<String>,
}

/// Describes a model's file without running it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspect {
    /// The model.
    pub source: Source,
    /// Also statistics of this tensor's values.
    pub tensor: Option<String>,
}

/// Continues a text with a loaded model; every token is an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generate {
    /// The loaded model.
    pub slot: Slot,
    /// What to start from.
    pub input: Input,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// At most this many tokens.
    pub tokens: u32,
    /// Texts that end the reply when they appear; they are not part of it.
    pub stop: Vec<String>,
}

/// Asks two loaded models of one vocabulary what they think of a text that one of them wrote: token by token, each given all
/// tokens before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The original.
    pub original: Slot,
    /// The model compared with it.
    pub slot: Slot,
    /// What the text continues.
    pub input: Input,
    /// The text's tokens.
    pub tokens: Vec<u32>,
}

/// Asks a loaded model which blocks of keys the queries of a prompt see. From then on the model has this attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attend {
    /// The loaded model.
    pub slot: Slot,
    /// The prompt.
    pub input: Input,
    /// At most this many of its first tokens.
    pub tokens: u32,
    /// What the queries see: `window:window=1024`, `asa:mass=0.95`.
    pub attention: String,
    /// The layer, counted from 0.
    pub layer: u32,
}

/// Compares compressions of a model with its dense original: quality, speed, memory, and a generated text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    /// The model.
    pub source: Source,
    /// The compressions. A codec may name the attention it is to have, `q4_k@asa:mass=0.95`; dense attention where it does not.
    pub recipes: Vec<Recipe>,
    /// The codec of the original they are compared with: `bf16`, `f16` or `f32`.
    pub dense: String,
    /// Change of basis before compressing, the same for all.
    pub rotation: Option<Rotation>,
    /// What calibrated codecs look at, with the original.
    #[serde(default)]
    pub calibration: Calibration,
    /// What to measure quality on; skipped when `None`.
    pub text: Option<Text>,
    /// Tokens of a window.
    pub context: u32,
    /// At most this many windows; the whole text when `None`.
    pub windows: Option<u32>,
    /// What to generate from; skipped when `None`.
    pub input: Option<Input>,
    /// Tokens to generate, greedily.
    pub tokens: u32,
    /// Block-sparse attention to compare with dense attention: the original and every recipe run with each of them too.
    #[serde(default)]
    pub attention: Vec<String>,
}

/// Measures a model on a text, against another model of the same vocabulary when one is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    /// The model.
    pub source: Source,
    /// How to compress it.
    pub recipe: Option<Recipe>,
    /// The model to compare it with.
    pub against: Option<Source>,
    /// Change of basis before compressing.
    pub rotation: Option<Rotation>,
    /// What calibrated codecs look at.
    #[serde(default)]
    pub calibration: Calibration,
    /// The text.
    pub text: Text,
    /// Tokens of a window.
    pub context: u32,
    /// At most this many windows; the whole text when `None`.
    pub windows: Option<u32>,
    /// What the queries see, as in [`Load`]; the model it is compared with always sees everything.
    #[serde(default)]
    pub attention: Option<String>,
}

/// Writes a compressed model to a file (native only).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compress {
    /// The model.
    pub source: Source,
    /// How to compress it.
    pub recipe: Recipe,
    /// Change of basis before compressing.
    pub rotation: Option<Rotation>,
    /// What calibrated codecs look at.
    #[serde(default)]
    pub calibration: Calibration,
    /// The file; `.gguf` or `.safetensors` says the format. Without an ending a folder, for DFloat11.
    pub output: PathBuf,
}

/// Turns texts into vectors with an encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embed {
    /// The encoder.
    pub source: Source,
    /// How to compress it.
    pub recipe: Option<Recipe>,
    /// What calibrated codecs look at.
    #[serde(default)]
    pub calibration: Calibration,
    /// The texts.
    pub texts: Vec<String>,
}

/// Measures a language model end to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchModel {
    /// The model.
    pub source: Source,
    /// How to compress it.
    pub recipe: Option<Recipe>,
    /// Change of basis before compressing.
    pub rotation: Option<Rotation>,
    /// What calibrated codecs look at.
    #[serde(default)]
    pub calibration: Calibration,
    /// What to measure.
    pub plan: ModelPlan,
}

/// One request to a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Lists the adapters, and the one this session uses.
    Adapters,
    /// See [`Load`].
    Load(Load),
    /// Frees a slot.
    Unload(Slot),
    /// See [`Inspect`].
    Inspect(Inspect),
    /// See [`Generate`].
    Generate(Generate),
    /// See [`Score`].
    Score(Score),
    /// See [`Attend`].
    Attend(Attend),
    /// See [`Compare`].
    Compare(Compare),
    /// See [`Evaluate`].
    Evaluate(Evaluate),
    /// See [`Compress`].
    Compress(Compress),
    /// See [`Embed`].
    Embed(Embed),
    /// Measures the adapter and the kernels; see [`Plan`].
    Bench(Plan),
    /// See [`BenchModel`].
    BenchModel(BenchModel),
}
