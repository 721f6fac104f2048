//! The small random models of every family under `golden/families`.

use tersor_engine::format::Checkpoint;

use crate::golden::{Tensors, path};

/// Those that write text.
pub const DECODERS: [&str; 13] = [
    "gemma2",
    "gemma3",
    "llama",
    "llama_bias",
    "llama_mha_tied_odd",
    "llama_rope_linear",
    "llama_rope_llama3",
    "llama_rope_yarn",
    "mistral",
    "phi3",
    "phi3_longrope_partial",
    "qwen2",
    "qwen3",
];

/// Those whose function a change of basis leaves as it is.
pub fn rotatable() -> impl Iterator<Item = &'static str> {
    DECODERS.into_iter().filter(|family| !family.starts_with("gemma"))
}

/// Opens a model; `config` is the file that describes it.
///
/// # Panics
/// If it is not there.
pub fn open(family: &str, config: &str) -> Checkpoint {
    let read = |file: &str| std::fs::read(path("families").join(family).join(file)).unwrap();
    let files = [("config.json", config), ("model.safetensors", "model.safetensors")];
    Checkpoint::from_files(files.map(|(name, file)| (name.to_owned(), read(file))).to_vec()).unwrap()
}

/// What transformers computed with it.
///
/// # Panics
/// If it is not there.
pub fn golden(family: &str) -> Tensors {
    Tensors::open(&format!("families/{family}/golden.safetensors"))
}
