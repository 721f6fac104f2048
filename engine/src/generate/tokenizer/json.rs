//! Tokenizers of Hugging Face folders: `tokenizer.json` through the `tokenizers` crate, or none at all where the
//! configuration says that tokens are bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokenizers::AddedToken;

use crate::generate::contained;

use super::bpe::{self, ByteLevel};
use super::gguf::byte_token;
use super::json_guard::Outline;
use super::vocabulary::{AddedTokens, Kind, Vocabulary};
use super::{EncodeOptions, Model, SpecialTokens, Tokenizer, TokenizerError};

/// What else a folder says about its tokenizer.
pub(super) struct Sources<'a> {
    /// `config.json`.
    pub(super) config: &'a Value,
    /// `generation_config.json`.
    pub(super) generation: Option<&'a Value>,
    /// `tokenizer_config.json`.
    pub(super) tokenizer_config: Option<&'a Value>,
}

/// The crate's tokenizer.
pub(super) struct JsonModel {
    /// Whether control tokens are recognised is a setting of the tokenizer, hence the lock.
    inner: Mutex<tokenizers::Tokenizer>,
    before_text: Option<u32>,
}

impl std::fmt::Debug for JsonModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsonModel").finish_non_exhaustive()
    }
}

impl JsonModel {
    /// `size` is the number of ids.
    fn new(inner: tokenizers::Tokenizer, size: usize) -> Result<Self, TokenizerError> {
        let mut model = Self { inner: Mutex::new(inner), before_text: None };
        let ids =
            |add_special| model.encode("a", EncodeOptions { add_special, parse_special: true }).unwrap_or_default();
        let (with, without) = (ids(true), ids(false));
        // The tokens around a text are numbers in the file.
        if let Some(id) = with.iter().find(|&&id| id as usize >= size) {
            return Err(TokenizerError::Json(format!(
                "token {id} is put around texts, but there are only {size} tokens"
            )));
        }
        if !with.starts_with(&without) {
            model.before_text = with.first().copied();
        }
        Ok(model)
    }

    /// The first of the tokens put around a text, if it stands before the text.
    pub(super) fn before_text(&self) -> Option<u32> {
        self.before_text
    }

    pub(super) fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        // A panic while the lock was held cannot have left the setting half-made.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.set_encode_special_tokens(!options.parse_special);
        let encoding = contained(|| inner.encode_fast(text, options.add_special))
            .ok_or_else(|| TokenizerError::Encode("the tokenizers library gave up".to_owned()))?;
        Ok(encoding.map_err(|error| TokenizerError::Encode(error.to_string()))?.get_ids().to_vec())
    }
}

/// Makes a tokenizer from the bytes of a `tokenizer.json`.
pub(super) fn tokenizer(json: &[u8], sources: &Sources) -> Result<Tokenizer, TokenizerError> {
    let outline = Outline::parse(json)?;
    let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| TokenizerError::Json(error.to_string()))?;
    // Cutting and filling up texts is for those who make batches.
    inner.with_truncation(None).map_err(|error| TokenizerError::Json(error.to_string()))?;
    inner.with_padding(None);

    let form = Form::of(outline.decoder.as_ref());
    // The crate gives added tokens ids of its own where the file's do not follow the vocabulary.
    let added: BTreeMap<u32, AddedToken> = inner.get_added_tokens_decoder().into_iter().collect();
    let size = outline.vocab.keys().chain(added.keys()).max().map_or(0, |&id| id as usize + 1);
    let mut vocabulary = Vocabulary::default();
    for id in 0..size as u32 {
        match (added.get(&id), outline.vocab.get(&id)) {
            (Some(token), _) if token.special => vocabulary.push(token.content.as_bytes(), Kind::Control),
            (Some(token), _) => form.push_user_defined(&token.content, &mut vocabulary),
            (None, Some(text)) => form.push(text, &mut vocabulary),
            (None, None) => vocabulary.push(&[], Kind::Unused),
        }
    }
    let added = added.iter().map(|(&id, token)| (token.content.as_str().into(), id, vocabulary.kind(id)));
    let added = AddedTokens::new(added)?;
    let mut special = special_tokens(sources, |name| added.id(name).or_else(|| inner.token_to_id(name)));
    special.unknown = outline.unknown.as_deref().and_then(|name| inner.token_to_id(name));
    let mut notes = Vec::new();
    special.drop_strangers(size, &mut notes);
    special.complete(&added);
    let model = Model::Json(Box::new(JsonModel::new(inner, size)?));
    Ok(Tokenizer { model, vocabulary, added, special, space_prefix: form.space_prefix, notes })
}

/// True if the folder says that its tokens are bytes: `"tokenizer_class": "bytes"`, or `tokenizer = bytes` in the
/// safetensors metadata.
pub(super) fn declares_bytes(sources: &Sources, st_metadata: &BTreeMap<String, String>) -> bool {
    let class = |value: &Value| value.get("tokenizer_class").and_then(Value::as_str) == Some("bytes");
    class(sources.config)
        || sources.tokenizer_config.is_some_and(class)
        || st_metadata.get("tokenizer").is_some_and(|kind| kind == "bytes")
}

/// The most ids a byte-level model may have beyond the bytes.
const BYTE_MODEL_EXTRA_MAX: u64 = 1 << 16;

/// Tokens 0 to 255 are the bytes; `added_tokens_decoder` of `tokenizer_config.json` may name more.
pub(super) fn byte_tokenizer(sources: &Sources) -> Result<Tokenizer, TokenizerError> {
    let size = sources.config.get("vocab_size").and_then(Value::as_u64).unwrap_or(256);
    if !(256..=256 + BYTE_MODEL_EXTRA_MAX).contains(&size) {
        return Err(TokenizerError::Json(format!("a vocabulary of {size} tokens for a byte-level model")));
    }
    let named = |id: u64| {
        let entry = sources.tokenizer_config?.get("added_tokens_decoder")?.get(id.to_string())?;
        let special = entry.get("special").and_then(Value::as_bool).unwrap_or(true);
        Some((entry.get("content")?.as_str()?, if special { Kind::Control } else { Kind::UserDefined }))
    };
    let mut vocabulary = Vocabulary::default();
    for byte in 0..=255 {
        vocabulary.push(&[byte], Kind::Byte);
    }
    let mut tokens = Vec::new();
    for id in 256..size {
        let (text, kind) = named(id).unwrap_or(("", Kind::Unused));
        vocabulary.push(text.as_bytes(), kind);
        tokens.push((text.into(), id as u32, kind)); // at most 2^16 + 256
    }
    let added = AddedTokens::new(tokens.into_iter())?;
    let mut special = special_tokens(sources, |name| added.id(name));
    let mut notes = Vec::new();
    special.drop_strangers(vocabulary.len(), &mut notes);
    special.complete(&added);
    let flag = |key| sources.tokenizer_config.and_then(|config| config.get(key)?.as_bool()).unwrap_or(false);
    special.before_text = special.bos.filter(|_| flag("add_bos_token"));
    special.after_text = special.eos.filter(|_| flag("add_eos_token"));
    let model = Model::ByteLevel(ByteLevel::bytes());
    Ok(Tokenizer { model, vocabulary, added, special, space_prefix: false, notes })
}

/// Ids with a meaning, by name from `tokenizer_config.json`, else by number from the other files.
fn special_tokens(sources: &Sources, id: impl Fn(&str) -> Option<u32>) -> SpecialTokens {
    let named = |key: &str| {
        let value = sources.tokenizer_config?.get(key)?;
        id(value.as_str().or_else(|| value.get("content")?.as_str())?)
    };
    let numbered = |file: Option<&Value>, key: &str| -> BTreeSet<u32> {
        let numbers = match file.and_then(|file| file.get(key)) {
            Some(Value::Array(list)) => list.as_slice(),
            Some(number) => std::slice::from_ref(number),
            None => &[],
        };
        numbers.iter().filter_map(|number| number.as_u64()?.try_into().ok()).collect()
    };
    let first = |key: &str| {
        let config = numbered(Some(sources.config), key);
        config.first().or(numbered(sources.generation, key).first()).copied()
    };
    let mut ends = numbered(sources.generation, "eos_token_id");
    ends.extend(numbered(Some(sources.config), "eos_token_id"));
    SpecialTokens {
        bos: named("bos_token").or_else(|| first("bos_token_id")),
        eos: named("eos_token").or_else(|| first("eos_token_id")),
        padding: named("pad_token").or_else(|| first("pad_token_id")),
        ends,
        ..SpecialTokens::default()
    }
}

/// How the texts of a vocabulary are to be read, which its decoder tells.
#[derive(Debug, Default)]
struct Form {
    /// Characters stand for bytes, as GPT-2 does it.
    byte_level: bool,
    /// U+2581 stands for a space.
    spaces: bool,
    /// `<0xAB>` stands for a byte.
    byte_tokens: bool,
    /// Put before pieces that continue a word; others begin with a space.
    continuing: Option<String>,
    /// The first token of a text carries a space that is not in the text.
    space_prefix: bool,
}

impl Form {
    fn of(decoder: Option<&Value>) -> Self {
        let mut form = Self::default();
        if let Some(decoder) = decoder {
            form.read(decoder);
        }
        form
    }

    fn read(&mut self, decoder: &Value) {
        let text = |key: &str| decoder.get(key).and_then(Value::as_str);
        match text("type") {
            Some("Sequence") => {
                let parts = decoder.get("decoders").and_then(Value::as_array);
                parts.into_iter().flatten().for_each(|part| self.read(part));
            }
            Some("ByteLevel") => self.byte_level = true,
            Some("ByteFallback") => self.byte_tokens = true,
            Some("Replace") => {
                let pattern = decoder.get("pattern").and_then(|pattern| pattern.get("String")?.as_str());
                self.spaces |= pattern == Some("\u{2581}") && text("content") == Some(" ");
            }
            Some("Strip") => {
                let start = decoder.get("start").and_then(Value::as_u64);
                self.space_prefix |= text("content") == Some(" ") && start.is_some_and(|start| start > 0);
            }
            Some("Metaspace") => {
                self.spaces = true;
                let prefix = decoder.get("add_prefix_space").and_then(Value::as_bool);
                self.space_prefix |= text("prepend_scheme").map_or(prefix != Some(false), |scheme| scheme != "never");
            }
            Some("WordPiece") => {
                self.continuing = Some(text("prefix").unwrap_or("##").to_owned());
                self.space_prefix = true;
            }
            _ => {}
        }
    }

    /// Appends an added token that is part of the text.
    fn push_user_defined(&self, text: &str, vocabulary: &mut Vocabulary) {
        let text = if self.spaces { text.replace('\u{2581}', " ") } else { text.to_owned() };
        vocabulary.push(text.as_bytes(), Kind::UserDefined);
    }

    /// Appends a piece of the model's vocabulary.
    fn push(&self, text: &str, vocabulary: &mut Vocabulary) {
        let mut bytes = Vec::new();
        if self.byte_level && bpe::bytes_of_stand_ins(text, &mut bytes).is_some() {
            vocabulary.push(&bytes, Kind::Normal);
        } else if let Some(byte) = byte_token(text).filter(|_| self.byte_tokens) {
            vocabulary.push(&[byte], Kind::Byte);
        } else if let Some(prefix) = &self.continuing {
            match text.strip_prefix(prefix.as_str()) {
                Some(rest) => vocabulary.push(rest.as_bytes(), Kind::Normal),
                None => vocabulary.push(format!(" {text}").as_bytes(), Kind::Normal),
            }
        } else if self.spaces {
            vocabulary.push(text.replace('\u{2581}', " ").as_bytes(), Kind::Normal);
        } else {
            vocabulary.push(text.as_bytes(), Kind::Normal);
        }
    }
}
