//! DFloat11 in safetensors: which tensors of a checkpoint are groups, and which weights they hold.
//!
//! `config.json` has a `dfloat11_config` whose `pattern_dict` says for every module that a pattern matches which linear layers inside
//! it are one group (none: the module itself is). A module `m` then has `m.luts`, `m.encoded_exponent`, `m.sign_mantissa`,
//! `m.output_positions`, `m.gaps` and `m.split_positions` in place of its layers' weights, whose shapes `config.json` tells.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use regex::RegexBuilder;
use serde_json::{Map, Value, json};

use super::Group;
use crate::codec::CodecError;
use crate::format::{Checkpoint, Dtype, Meta, TensorInfo, quoted};

/// Key in `config.json`.
const CONFIG_KEY: &str = "dfloat11_config";
/// Version of the package whose files these are.
const VERSION: &str = "0.5.0";
/// What a group's tensors are called behind the module's name.
pub(crate) const PARTS: [&str; 6] =
    ["luts", "encoded_exponent", "sign_mantissa", "output_positions", "gaps", "split_positions"];
/// Compiled size that one pattern may have: honest ones take a few kilobytes.
const PATTERN_LIMIT: usize = 1 << 20;

/// Patterns that a file may have: honest ones have a handful, at most one for each block.
const MOST_PATTERNS: usize = 1024;

/// A matrix inside a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The tensor it is in other files.
    pub name: String,
    pub rows: usize,
    pub cols: usize,
    /// Number of its first weight in the group.
    pub first: usize,
}

/// The groups of a checkpoint: modules and their members, in the file's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub groups: Vec<(String, Vec<Member>)>,
}

impl Container {
    /// Finds the groups of a checkpoint; an empty list where its configuration speaks of none.
    ///
    /// # Errors
    /// [`CodecError::Stored`]: another block size, a group that no pattern names, parts that are missing or have another type,
    /// weights whose shapes `config.json` does not tell.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, CodecError> {
        let Meta::HuggingFace { config, .. } = checkpoint.meta() else { return Ok(Self::default()) };
        let Some(settings) = config.get(CONFIG_KEY) else { return Ok(Self::default()) };
        let fail = |message: String| CodecError::Stored { file: checkpoint.name().to_owned(), message };
        let expected = [("threads_per_block", json!([512])), ("bytes_per_thread", json!(8))];
        for (key, value) in expected {
            if settings.get(key).is_some_and(|found| *found != value) {
                return Err(fail(format!("{CONFIG_KEY}: {key} is not {value}, the only size there are files of")));
            }
        }
        let patterns = settings.get("pattern_dict").and_then(Value::as_object);
        let patterns = patterns.ok_or_else(|| fail(format!("{CONFIG_KEY} has no pattern_dict")))?;
        if patterns.len() > MOST_PATTERNS {
            return Err(fail(format!("{CONFIG_KEY} has {} patterns, {MOST_PATTERNS} is the most", patterns.len())));
        }
        let mut rules = Vec::new();
        for (pattern, layers) in patterns {
            let whole = format!("^(?:{pattern})$");
            let regex = RegexBuilder::new(&whole).size_limit(PATTERN_LIMIT).build();
            let regex = regex.map_err(|_| fail(format!("{CONFIG_KEY}: pattern {} cannot be read", quoted(pattern))))?;
            let layers: Option<Vec<&str>> = layers.as_array().and_then(|all| all.iter().map(Value::as_str).collect());
            rules.push((regex, layers.ok_or_else(|| fail(format!("{CONFIG_KEY}: {} is no list", quoted(pattern))))?));
        }
        let mut groups = Vec::new();
        for info in checkpoint.tensors() {
            let Some(module) = info.name.strip_suffix(".luts") else { continue };
            let rule = rules.iter().find(|(regex, _)| regex.is_match(module));
            let (_, layers) = rule.ok_or_else(|| fail(format!("no pattern names the group {}", quoted(module))))?;
            let names: Vec<String> = match layers[..] {
                [] => vec![format!("{module}.weight")],
                _ => layers.iter().map(|layer| format!("{module}.{layer}.weight")).collect(),
            };
            groups.push((module.to_owned(), members(checkpoint, config, module, names)?));
        }
        Ok(Self { groups })
    }

    /// Reads a group.
    ///
    /// # Errors
    /// As [`Container::of`], and what [`Group::check`] finds.
    pub fn load(checkpoint: &Checkpoint, module: &str) -> Result<Group, CodecError> {
        let bytes = |part| Ok::<_, CodecError>(part_of(checkpoint, module, part, Dtype::U8)?.into_owned());
        let positions = part_of(checkpoint, module, "output_positions", Dtype::U8)?;
        let group = Group {
            luts: bytes("luts")?,
            encoded_exponent: bytes("encoded_exponent")?,
            sign_mantissa: bytes("sign_mantissa")?,
            output_positions: positions.chunks(4).map(little_endian).collect(),
            gaps: bytes("gaps")?,
        };
        group.check().map_err(|what| wrong(checkpoint, module, &what))?;
        Ok(group)
    }

    /// Bytes of a group's tensors in the file.
    pub fn bytes(checkpoint: &Checkpoint, module: &str) -> u64 {
        let of = |part: &&str| checkpoint.info(&format!("{module}.{part}")).map_or(0, TensorInfo::byte_len);
        PARTS.iter().map(of).sum()
    }
}

/// Up to four bytes as a number.
fn little_endian(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

fn wrong(checkpoint: &Checkpoint, module: &str, what: &str) -> CodecError {
    CodecError::Stored { file: checkpoint.name().to_owned(), message: format!("group {}: {what}", quoted(module)) }
}

/// One of a group's tensors.
fn part_of<'a>(
    checkpoint: &'a Checkpoint,
    module: &str,
    part: &str,
    dtype: Dtype,
) -> Result<Cow<'a, [u8]>, CodecError> {
    let read = checkpoint.read(&format!("{module}.{part}"));
    match read.map_err(|error| wrong(checkpoint, module, &error.to_string()))? {
        Some((info, bytes)) if info.dtype == dtype => Ok(bytes),
        Some((info, _)) => Err(wrong(checkpoint, module, &format!("{part} is {} instead of {dtype}", info.dtype))),
        None => Err(wrong(checkpoint, module, &format!("{part} is not in the file"))),
    }
}

/// The matrices of a group: counted by `split_positions`, shaped by the configuration.
fn members(
    checkpoint: &Checkpoint,
    config: &Value,
    module: &str,
    names: Vec<String>,
) -> Result<Vec<Member>, CodecError> {
    let fail = |what: &str| wrong(checkpoint, module, what);
    let weights = part_of(checkpoint, module, "sign_mantissa", Dtype::U8)?.len();
    let splits = part_of(checkpoint, module, "split_positions", Dtype::I64)?;
    let mut ends: Vec<usize> = Vec::new();
    for split in splits.chunks_exact(8) {
        let end = i64::from(little_endian(&split[..4])) | i64::from(little_endian(&split[4..])) << 32;
        ends.push(usize::try_from(end).map_err(|_| fail("split_positions has a number below 0"))?);
    }
    ends.push(weights);
    if ends.len() != names.len() || !ends.is_sorted() {
        return Err(fail("split_positions does not cut its weights into its layers"));
    }
    let mut first = 0;
    let mut all = Vec::new();
    for (name, end) in names.into_iter().zip(ends) {
        let unknown = || fail(&format!("config.json does not tell the shape of {}", quoted(&name)));
        let cols = columns(config, &name).filter(|cols| *cols > 0).ok_or_else(unknown)?;
        if !(end - first).is_multiple_of(cols) {
            return Err(fail(&format!("{} has {} weights, no rows of {cols}", quoted(&name), end - first)));
        }
        all.push(Member { rows: (end - first) / cols, cols, first, name });
        first = end;
    }
    Ok(all)
}

/// Width of the input of a linear layer, or of an embedding.
fn columns(config: &Value, tensor: &str) -> Option<usize> {
    let fields = config.get("text_config").filter(|section| section.is_object()).unwrap_or(config);
    let field = |key: &str| fields.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let (hidden, heads) = (field("hidden_size"), field("num_attention_heads"));
    match tensor.strip_suffix(".weight")?.rsplit('.').next()? {
        "q_proj" | "k_proj" | "v_proj" | "qkv_proj" | "gate_proj" | "up_proj" | "gate_up_proj" | "embed_tokens"
        | "lm_head" => hidden,
        "o_proj" => match field("head_dim") {
            Some(head_dim) => heads?.checked_mul(head_dim),
            None => hidden?.checked_div(heads?)?.checked_mul(heads?),
        },
        "down_proj" => field("intermediate_size"),
        _ => None,
    }
}

/// `config.json` with the entry that says what its groups hold: `groups` are modules with the layers inside them, as paths from the
/// module on (none for a module that is a group itself). Modules that differ only in numbers share a pattern if they hold the same.
pub fn config_entry(config: &mut Map<String, Value>, groups: &[(String, Vec<String>)]) {
    let escape = |module: &str| module.replace('.', "\\.");
    let general = |module: &str| {
        let digits =
            |part: &str| if part.bytes().all(|b| b.is_ascii_digit()) { "\\d+".to_owned() } else { part.to_owned() };
        module.split('.').map(digits).collect::<Vec<_>>().join("\\.")
    };
    let mut kinds: BTreeMap<String, BTreeSet<&[String]>> = BTreeMap::new();
    groups.iter().for_each(|(module, layers)| _ = kinds.entry(general(module)).or_default().insert(layers));
    let mut patterns = Map::new();
    for (module, layers) in groups {
        let alike = kinds.get(&general(module)).is_some_and(|kinds| kinds.len() == 1);
        patterns.insert(if alike { general(module) } else { escape(module) }, json!(layers));
    }
    config.insert(
        CONFIG_KEY.to_owned(),
        json!({"version": VERSION, "threads_per_block": [512], "bytes_per_thread": 8, "pattern_dict": patterns}),
    );
}

/// `config.json` without that entry.
#[cfg(not(target_arch = "wasm32"))] // Browsers write no files.
pub(crate) fn forget(config: &mut Map<String, Value>) {
    config.remove(CONFIG_KEY);
}
