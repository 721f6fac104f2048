//! A model's metadata inside a safetensors file, so that one file is a whole model.
//!
//! Flows in: the [`Meta`] of the model a file is made from. Flows out: entries of `__metadata__`, and back again when such
//! a file is opened. `tersor.file.config.json`, `tersor.file.tokenizer.json`, `tersor.file.tokenizer_config.json` and
//! `tersor.file.generation_config.json` hold those files' text; `tersor.file.header.gguf` holds, in base64, a GGUF file
//! with the metadata and no tensors, for models that come from GGUF.

use std::collections::BTreeMap;
use std::io::Cursor;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::bytes::FileBytes;
use super::error::{FETCH_AGAIN, FormatError, Item};
use super::folder::Folder;
use super::{CheckpointWriter, GgufMetadata, Meta, gguf};

/// What the keys of embedded files begin with.
pub(crate) const FILE_PREFIX: &str = "tersor.file.";
const GGUF_KEY: &str = "tersor.file.header.gguf";

/// The entries of `__metadata__` that carry a model's metadata.
pub fn embed(meta: &Meta) -> Result<BTreeMap<String, String>, FormatError> {
    let mut entries = BTreeMap::new();
    match meta {
        Meta::Gguf(metadata) => {
            let writer = CheckpointWriter::gguf(Cursor::new(Vec::new()), GGUF_KEY, metadata, &[])?;
            entries.insert(GGUF_KEY.to_owned(), BASE64_STANDARD.encode(writer.finish()?.into_inner()));
        }
        Meta::HuggingFace { config, generation, tokenizer_json, tokenizer_config, st_metadata } => {
            entries.extend(st_metadata.iter().map(|(key, value)| (key.clone(), value.clone())));
            let mut put = |name: &str, text: String| entries.insert(format!("{FILE_PREFIX}{name}"), text);
            if !config.is_null() {
                put("config.json", config.to_string());
            }
            for (name, json) in [("generation_config.json", generation), ("tokenizer_config.json", tokenizer_config)] {
                json.as_ref().map(|json: &Value| put(name, json.to_string()));
            }
            if let Some(bytes) = tokenizer_json {
                let text = std::str::from_utf8(bytes).map_err(|error| FormatError::Invalid {
                    file: "tokenizer.json".to_owned(),
                    item: Item::Header,
                    offset: error.valid_up_to() as u64,
                    reason: "the text is not UTF-8".to_owned(),
                    remedy: FETCH_AGAIN,
                })?;
                put("tokenizer.json", text.to_owned());
            }
        }
    }
    Ok(entries)
}

/// Takes the embedded files out of the `__metadata__` of the file `label`.
pub(super) fn take_files(label: &str, st_metadata: &mut BTreeMap<String, String>) -> Folder {
    let mut files = BTreeMap::new();
    st_metadata.retain(|key, value| match key.strip_prefix(FILE_PREFIX) {
        Some(name) if key != GGUF_KEY => {
            files.insert(name.to_owned(), FileBytes::Owned(std::mem::take(value).into_bytes()));
            false
        }
        _ => true,
    });
    Folder::Embedded(label.to_owned(), files)
}

/// Takes the embedded GGUF metadata out of the `__metadata__` of the file `label`, with what else is there added to it as strings.
pub(super) fn take_gguf(
    label: &str,
    st_metadata: &mut BTreeMap<String, String>,
) -> Result<Option<GgufMetadata>, FormatError> {
    let Some(text) = st_metadata.remove(GGUF_KEY) else { return Ok(None) };
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| FormatError::Invalid {
        file: label.to_owned(),
        item: Item::Key(GGUF_KEY.to_owned()),
        offset: 0,
        reason: format!("it is no base64: {error}"),
        remedy: FETCH_AGAIN,
    })?;
    let mut metadata = gguf::parse(&format!("{label}: {GGUF_KEY}"), 0, &bytes, bytes.len() as u64)?.metadata;
    for (key, value) in std::mem::take(st_metadata) {
        metadata.set(key, value);
    }
    Ok(Some(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Checkpoint, Dtype, TensorInfo};

    /// A safetensors file with one tensor and this metadata.
    fn file(entries: &BTreeMap<String, String>) -> Result<Checkpoint, FormatError> {
        let tensors = [TensorInfo::new("w", vec![1], Dtype::F32).unwrap()];
        let mut writer = CheckpointWriter::safetensors(Cursor::new(Vec::new()), "m", entries, &tensors)?;
        writer.write("w", &1f32.to_le_bytes())?;
        Checkpoint::from_files(vec![("m.safetensors".to_owned(), writer.finish()?.into_inner())])
    }

    #[test]
    fn gguf_metadata_survives() {
        let mut metadata = GgufMetadata::new();
        metadata.set("general.architecture", "llama".to_owned());
        metadata.set("llama.block_count", 30u32);
        let mut entries = embed(&Meta::Gguf(metadata)).unwrap();
        entries.insert("note".to_owned(), "kept".to_owned());
        let checkpoint = file(&entries).unwrap();
        let Meta::Gguf(back) = checkpoint.meta() else { panic!() };
        assert_eq!((back.str("general.architecture"), back.u32("llama.block_count")), (Some("llama"), Some(30)));
        assert_eq!(back.str("note"), Some("kept"));
        entries.insert(GGUF_KEY.to_owned(), "!".to_owned());
        assert!(file(&entries).is_err());
    }

    #[test]
    fn hugging_face_files_survive() {
        let meta = Meta::HuggingFace {
            config: serde_json::json!({"model_type": "llama"}),
            generation: None,
            tokenizer_json: Some(b"{}".to_vec()),
            tokenizer_config: Some(serde_json::json!({"chat_template": "x"})),
            st_metadata: BTreeMap::from([("format".to_owned(), "pt".to_owned())]),
        };
        let checkpoint = file(&embed(&meta).unwrap()).unwrap();
        let Meta::HuggingFace { config, generation, tokenizer_json, tokenizer_config, st_metadata } = checkpoint.meta()
        else {
            panic!()
        };
        assert_eq!(config["model_type"], "llama");
        assert_eq!((generation, tokenizer_json.as_deref()), (&None, Some(&b"{}"[..])));
        assert_eq!(tokenizer_config.as_ref().unwrap()["chat_template"], "x");
        assert_eq!(st_metadata.len(), 1);
    }
}
