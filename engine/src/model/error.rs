//! What can go wrong between a checkpoint and a running model.

use crate::codec::CodecError;
use crate::gpu::GpuError;
use crate::ops::OpsError;
use crate::progress::Cancelled;

/// Errors of the model room.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file names no architecture, or one that tersor does not run.
    #[error("{model}: {what}; tersor runs {}", super::Architecture::LIST)]
    Architecture {
        /// File or folder.
        model: String,
        /// What it says.
        what: String,
    },
    /// A configuration that is missing, makes no sense, or that no kernel covers.
    #[error("{model}: {key}: {what}")]
    Config {
        /// File or folder.
        model: String,
        /// Metadata key or field of `config.json`.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error("{model}: tensor `{tensor}` is missing: the file is incomplete or of another architecture than it says")]
    MissingTensor {
        /// File or folder.
        model: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("{model}: tensor `{tensor}` has shape {found:?}, the configuration asks for {expected:?}")]
    TensorShape {
        /// File or folder.
        model: String,
        /// The tensor.
        tensor: String,
        /// Row-major.
        found: Vec<u64>,
        /// Row-major.
        expected: Vec<u64>,
    },
    /// Statistics for calibrated codecs that are more than the host is asked to hold.
    #[error(
        "the statistics of its layers' inputs would take {} of memory, more than {}: write a recipe that calibrates fewer tensors",
        super::fit::megabytes(*need),
        super::fit::megabytes(*limit)
    )]
    Calibration {
        /// Bytes.
        need: u64,
        /// Bytes.
        limit: u64,
    },
    /// The model is larger than the device has room for; nothing was uploaded.
    #[error(
        "{model} needs {} of GPU memory ({} weights, {} KV cache for {context} positions, {} activations), {} are free; {remedy}",
        super::fit::megabytes(*weights + *kv_cache + *activations),
        super::fit::megabytes(*weights),
        super::fit::megabytes(*kv_cache),
        super::fit::megabytes(*activations),
        super::fit::megabytes(*free)
    )]
    DoesNotFit {
        /// File or folder.
        model: String,
        /// Bytes of packed weights.
        weights: u64,
        /// Bytes of keys and values.
        kv_cache: u64,
        /// Bytes of activations.
        activations: u64,
        /// Positions of the KV cache.
        context: u32,
        /// Bytes that are free.
        free: u64,
        /// What would help.
        remedy: String,
    },
    /// More tokens than the context has room for.
    #[error(
        "{tokens} tokens do not fit the context: {used} of its {capacity} positions are taken; shorten the text or load the model with a longer context (up to {model_limit})"
    )]
    ContextFull {
        /// Tokens to add.
        tokens: u64,
        /// Positions taken.
        used: u32,
        /// Positions there are.
        capacity: u32,
        /// What the model was made for.
        model_limit: u32,
    },
    /// Models that cannot be compared.
    #[error("the models cannot be compared: one has {original} tokens, the other {other}")]
    Vocabulary {
        /// Tokens of the original.
        original: u32,
        /// Tokens of the other.
        other: u32,
    },
    /// Nothing to continue.
    #[error("the prompt is empty: there is nothing to continue")]
    EmptyPrompt,
    /// A token id that the model does not have.
    #[error("token {token} is not in the model's vocabulary of {vocab}")]
    Token {
        /// The id.
        token: u32,
        /// Tokens there are.
        vocab: u32,
    },
    /// A change of basis that this architecture's function is not invariant under.
    #[error("a {architecture} model cannot be rotated: {why}")]
    Rotation {
        /// The architecture.
        architecture: String,
        /// What stands against it.
        why: &'static str,
    },
    /// Dimensions that cannot be taken away from this model.
    #[error("{model} cannot be shrunk: {what}")]
    Shrink {
        /// File or folder.
        model: String,
        /// What stands against it.
        what: String,
    },
    /// Weights that cannot be packed.
    #[error("{model}: tensor `{tensor}`: {error}")]
    Codec {
        /// File or folder.
        model: String,
        /// The tensor.
        tensor: String,
        /// Why.
        error: Box<CodecError>,
    },
    /// A list of packed tensors that cannot be read, or statistics that are no numbers.
    #[error(transparent)]
    Stored(#[from] CodecError),
    /// An operation was refused.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// The caller changed its mind.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<GpuError> for ModelError {
    fn from(error: GpuError) -> Self {
        Self::Ops(error.into())
    }
}
