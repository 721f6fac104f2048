//! Hugging Face checkpoints: one or several safetensors files and the JSON files beside them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::de::DeserializeSeed;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::bytes::FileBytes;
use super::error::{FETCH_AGAIN, FormatError, Item, quoted};
use super::folder::Folder;
use super::gguf_parts::index_tensors;
use super::{Checkpoint, Meta, TensorInfo, embedded, safetensors};

/// `config.json` and its kin: honest ones have some kilobytes, a few a megabyte.
pub(super) const CONFIG_LIMIT: u64 = 8 << 20;
/// `tokenizer.json`: vocabularies of 262,144 tokens take 35 MB.
const TOKENIZER_LIMIT: u64 = 256 << 20;

/// Opens the safetensors file `file`; `bytes` if they are at hand already. `name` is the checkpoint's.
pub(super) fn open_safetensors(
    mut folder: Folder,
    name: String,
    file: &str,
    bytes: Option<FileBytes>,
) -> Result<Checkpoint, FormatError> {
    let bytes = match bytes {
        Some(bytes) => bytes,
        None => folder.weights(file)?,
    };
    let label = folder.label(file);
    let parsed = bytes.header(&label, |head, size| safetensors::parse(&label, 0, head, size))?;
    let meta = side_files(&mut folder, &label, parsed.metadata)?;
    let index = index_tensors(&parsed.tensors, &[label])?;
    Ok(Checkpoint::assemble(name, vec![bytes], parsed.tensors, index, meta))
}

/// Opens the files that the index file `index_name` lists.
pub(super) fn open_sharded(mut folder: Folder, name: String, index_name: &str) -> Result<Checkpoint, FormatError> {
    let index_label = folder.label(index_name);
    let json = folder.side_file(index_name, safetensors::LONGEST_HEADER)?.ok_or_else(|| FormatError::Missing {
        file: folder.folder_label(),
        missing: index_name.to_owned(),
        remedy: "name the folder or file of a model",
    })?;
    let weight_map = parse_index(&index_label, &json)?;
    let shards: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
    let parts = Parts::read(&mut folder, shards)?;
    for (tensor, shard) in &weight_map {
        if !parts.found.contains(&(tensor.clone(), shard.clone())) {
            return Err(FormatError::Missing {
                file: folder.label(shard),
                missing: format!("tensor {}, which {index_label} says is here,", quoted(tensor)),
                remedy: FETCH_AGAIN,
            });
        }
    }
    parts.assemble(&mut folder, name, &index_label)
}

/// Opens all of these files of a folder, as one model without an index (DFloat11's releases, a file for each block).
pub(super) fn open_together(mut folder: Folder, name: String, files: &[String]) -> Result<Checkpoint, FormatError> {
    let parts = Parts::read(&mut folder, files.iter().map(String::as_str))?;
    let label = folder.folder_label();
    parts.assemble(&mut folder, name, &label)
}

/// Several safetensors files that are one model.
#[derive(Default)]
struct Parts {
    files: Vec<FileBytes>,
    tensors: Vec<TensorInfo>,
    labels: Vec<String>,
    metadata: BTreeMap<String, String>,
    index: HashMap<String, usize>,
    /// Tensors and the names of their files.
    found: HashSet<(String, String)>,
}

impl Parts {
    fn read<'a>(folder: &mut Folder, names: impl IntoIterator<Item = &'a str>) -> Result<Self, FormatError> {
        let mut all = Self::default();
        for (number, name) in (0..).zip(names) {
            let label = folder.label(name);
            let bytes = folder.weights(name)?;
            let parsed = bytes.header(&label, |head, size| safetensors::parse(&label, number, head, size))?;
            all.found.extend(parsed.tensors.iter().map(|info| (info.name.clone(), name.to_owned())));
            all.tensors.extend(parsed.tensors);
            for (key, value) in parsed.metadata {
                all.metadata.entry(key).or_insert(value);
            }
            all.files.push(bytes);
            all.labels.push(label);
        }
        all.index = index_tensors(&all.tensors, &all.labels)?;
        Ok(all)
    }

    fn assemble(self, folder: &mut Folder, name: String, label: &str) -> Result<Checkpoint, FormatError> {
        let meta = side_files(folder, label, self.metadata)?;
        Ok(Checkpoint::assemble(name, self.files, self.tensors, self.index, meta))
    }
}

/// The shard of each tensor. Shards are plain names of safetensors files in the index's own folder: nothing a hostile
/// index says leads anywhere else.
fn parse_index(label: &str, json: &[u8]) -> Result<BTreeMap<String, String>, FormatError> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(deserialize_with = "unique_strings")]
        weight_map: BTreeMap<String, String>,
    }

    fn unique_strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
        safetensors::UniqueStrings.deserialize(deserializer)
    }

    let index: Index = serde_json::from_slice(json).map_err(|error| json_error(label, json, &error))?;
    let invalid = |item, offset, reason| FormatError::Invalid {
        file: label.to_owned(),
        item,
        offset,
        reason,
        remedy: "the index is damaged or hostile: fetch the model again from a source you trust",
    };
    if index.weight_map.is_empty() {
        return Err(invalid(Item::Key("weight_map".to_owned()), 0, "it lists no tensors".to_owned()));
    }
    for (tensor, shard) in &index.weight_map {
        let plain =
            !shard.contains(['/', '\\', ':', '\0']) && shard.ends_with(".safetensors") && !shard.starts_with('.');
        if !plain {
            let offset = json.windows(shard.len().max(1)).position(|at| at == shard.as_bytes()).unwrap_or(0);
            let reason = format!("its file {} is no plain name of a .safetensors file", quoted(shard));
            return Err(invalid(Item::Tensor(tensor.clone()), offset as u64, reason));
        }
    }
    Ok(index.weight_map)
}

/// Reads what lies beside the weights. All of it is optional here; whoever needs a file says so when it is missing.
///
/// What the file `label` carries inside itself ([`embedded`]) comes before what lies beside it.
fn side_files(
    folder: &mut Folder,
    label: &str,
    mut st_metadata: BTreeMap<String, String>,
) -> Result<Meta, FormatError> {
    if let Some(metadata) = embedded::take_gguf(label, &mut st_metadata)? {
        return Ok(Meta::Gguf(metadata));
    }
    let mut own = embedded::take_files(label, &mut st_metadata);
    let folder = if own.contains("config.json") { &mut own } else { folder };
    let config = json_file(folder, "config.json")?.unwrap_or(Value::Null);
    let generation = json_file(folder, "generation_config.json")?;
    let tokenizer_json = folder.side_file("tokenizer.json", TOKENIZER_LIMIT)?;
    let mut tokenizer_config = json_file(folder, "tokenizer_config.json")?;
    if let Some(template) = folder.side_file("chat_template.jinja", CONFIG_LIMIT)? {
        let template = String::from_utf8(template).map_err(|error| FormatError::Invalid {
            file: folder.label("chat_template.jinja"),
            item: Item::Header,
            offset: error.utf8_error().valid_up_to() as u64,
            reason: "the text is not UTF-8".to_owned(),
            remedy: FETCH_AGAIN,
        })?;
        let config = tokenizer_config.get_or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Value::Object(config) = config {
            config.entry("chat_template").or_insert(Value::String(template));
        }
    }
    Ok(Meta::HuggingFace { config, generation, tokenizer_json, tokenizer_config, st_metadata })
}

fn json_file(folder: &mut Folder, name: &str) -> Result<Option<Value>, FormatError> {
    let label = folder.label(name);
    let Some(json) = folder.side_file(name, CONFIG_LIMIT)? else {
        return Ok(None);
    };
    serde_json::from_slice(&json).map(Some).map_err(|error| json_error(&label, &json, &error))
}

fn json_error(label: &str, json: &[u8], error: &serde_json::Error) -> FormatError {
    FormatError::Invalid {
        file: label.to_owned(),
        item: Item::Header,
        offset: safetensors::byte_of(json, error.line(), error.column()),
        reason: error.to_string(),
        remedy: FETCH_AGAIN,
    }
}
