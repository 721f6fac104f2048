//! Checks of a `tokenizer.json` before the `tokenizers` crate sees it, and the parts of it this engine needs itself.
//!
//! The crate trusts what it reads in a few places where a broken file makes it panic or allocate without bound: merges whose
//! result is no token, templates that name tokens they do not define, character maps that point outside of themselves,
//! pieces so long that dropping the trie of them overflows the stack, chunks of length zero. Such files are refused here.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use regex::Regex;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

use super::TokenizerError;
use super::charsmap::CharsMap;
use super::unigram::PIECE_BYTES_MAX;

/// What this engine needs of a `tokenizer.json`.
pub(super) struct Outline {
    /// Texts of the model's vocabulary by id.
    pub(super) vocab: HashMap<u32, String>,
    /// The decoder.
    pub(super) decoder: Option<Value>,
    /// Name of the token for the unknown.
    pub(super) unknown: Option<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: ModelPart,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
}

#[derive(Deserialize)]
struct ModelPart {
    vocab: Vocab,
    #[serde(default)]
    merges: Option<Vec<Merge>>,
    continuing_subword_prefix: Option<String>,
    unk_token: Option<String>,
    unk_id: Option<usize>,
}

/// `{"text": id, …}` or, for unigram models, `[["text", score], …]`.
enum Vocab {
    Ids(HashMap<String, u32>),
    Scores(Vec<String>),
}

/// `["a", "b"]` or `"a b"`.
struct Merge(String, String);

impl Outline {
    /// Parses and checks.
    pub(super) fn parse(json: &[u8]) -> Result<Self, TokenizerError> {
        let file: File = serde_json::from_slice(json).map_err(|error| TokenizerError::Json(error.to_string()))?;
        check(&file).map_err(TokenizerError::Json)?;
        let unknown = match (&file.model.vocab, file.model.unk_token, file.model.unk_id) {
            (Vocab::Scores(texts), _, Some(id)) => texts.get(id).cloned(),
            (_, token, _) => token,
        };
        let vocab = match file.model.vocab {
            Vocab::Ids(ids) => ids.into_iter().map(|(text, id)| (id, text)).collect(),
            Vocab::Scores(texts) => (0..).zip(texts).collect(),
        };
        Ok(Self { vocab, decoder: file.decoder, unknown })
    }
}

fn check(file: &File) -> Result<(), String> {
    let ids = match &file.model.vocab {
        Vocab::Ids(ids) => {
            check_merges(&file.model, ids)?;
            ids.values().copied().max()
        }
        Vocab::Scores(texts) => {
            if let Some(text) = texts.iter().find(|text| text.len() > PIECE_BYTES_MAX) {
                return Err(format!("a piece of {} bytes", text.len()));
            }
            None
        }
    };
    // Gaps between ids are normal; a table of four thousand million ids is not.
    let count = file.model.vocab.len() + file.added_tokens.len();
    let last = file.added_tokens.iter().map(|token| token.id).chain(ids).max().unwrap_or(0);
    if last as usize > 4 * count + 65_536 {
        return Err(format!("a token has the id {last}, but there are only {count} tokens"));
    }
    file.normalizer.as_ref().map_or(Ok(()), |value| each_object(value, &mut check_normalizer))?;
    file.pre_tokenizer.as_ref().map_or(Ok(()), |value| each_object(value, &mut check_pre_tokenizer))?;
    file.post_processor.as_ref().map_or(Ok(()), |value| each_object(value, &mut check_template))
}

fn check_merges(model: &ModelPart, ids: &HashMap<String, u32>) -> Result<(), String> {
    let prefix = model.continuing_subword_prefix.as_deref().unwrap_or("");
    let mut merged = String::new();
    for (rank, Merge(left, right)) in model.merges.iter().flatten().enumerate() {
        let rest = right.get(prefix.len()..).ok_or_else(|| format!("merge {rank} does not begin with {prefix:?}"))?;
        merged.clear();
        merged.push_str(left);
        merged.push_str(rest);
        for text in [left, right, &merged] {
            if !ids.contains_key(text) {
                return Err(format!("merge {rank} ({left:?}, {right:?}) needs {text:?}, which is no token"));
            }
        }
    }
    Ok(())
}

/// Calls `check` on every object in `value`. (Nesting is bounded by the JSON parser.)
fn each_object(
    value: &Value,
    check: &mut impl FnMut(&serde_json::Map<String, Value>) -> Result<(), String>,
) -> Result<(), String> {
    match value {
        Value::Object(object) => {
            check(object)?;
            object.values().try_for_each(|value| each_object(value, check))
        }
        Value::Array(values) => values.iter().try_for_each(|value| each_object(value, check)),
        _ => Ok(()),
    }
}

fn check_normalizer(object: &serde_json::Map<String, Value>) -> Result<(), String> {
    if object.contains_key("content")
        && let Some(pattern) = object.get("pattern")
    {
        check_replaced(pattern)?;
    }
    let map = match object.get("precompiled_charsmap") {
        None if object.get("type").and_then(Value::as_str) == Some("Precompiled") => None,
        None => return Ok(()),
        Some(value) => value.as_str(),
    };
    let bytes = map.and_then(|map| base64::engine::general_purpose::STANDARD.decode(map).ok());
    match bytes.and_then(|bytes| CharsMap::parse(&bytes)) {
        Some(map) if map.is_closed() => Ok(()),
        _ => Err("precompiled_charsmap is not a character map".to_owned()),
    }
}

/// The crate cannot replace nothing by something.
fn check_replaced(pattern: &Value) -> Result<(), String> {
    let text = |key: &str| pattern.get(key).and_then(Value::as_str);
    let pattern = text("Regex").map(|pattern| (pattern, Regex::new(pattern)));
    let finds_nothing = |regex: &Regex| {
        ["", "a", "a ", " .", "0"].iter().any(|text| regex.find_iter(text).any(|found| found.is_empty()))
    };
    match pattern {
        Some((pattern, Ok(regex))) if finds_nothing(&regex) => {
            Err(format!("a normalizer replaces {pattern:?}, which matches nothing at all"))
        }
        _ if text("String") == Some("") => Err("a normalizer replaces an empty text".to_owned()),
        _ => Ok(()),
    }
}

fn check_pre_tokenizer(object: &serde_json::Map<String, Value>) -> Result<(), String> {
    match object.get("length").map(Value::as_u64) {
        Some(Some(0)) => Err("a pre-tokenizer cuts pieces of length 0".to_owned()),
        _ => Ok(()),
    }
}

fn check_template(object: &serde_json::Map<String, Value>) -> Result<(), String> {
    let tokens = object.get("special_tokens").and_then(Value::as_object);
    let name = |piece: &Value, kind: &str| Some(piece.get(kind)?.get("id")?.as_str()?.to_owned());
    for (template, sequences) in [("single", &["A"][..]), ("pair", &["A", "B"])] {
        for piece in object.get(template).and_then(Value::as_array).into_iter().flatten() {
            if let Some(token) = name(piece, "SpecialToken")
                && !tokens.is_some_and(|tokens| tokens.contains_key(&token))
            {
                return Err(format!("the template names {token:?}, which it does not define"));
            }
            if let Some(sequence) = name(piece, "Sequence")
                && !sequences.contains(&sequence.as_str())
            {
                return Err(format!("the template {template:?} names the sequence {sequence:?}"));
            }
        }
    }
    Ok(())
}

impl Vocab {
    fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Scores(texts) => texts.len(),
        }
    }
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Vocab;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map from texts to ids, or a list of texts with scores")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Vocab, M::Error> {
                let mut ids = HashMap::new();
                while let Some((text, id)) = map.next_entry()? {
                    ids.insert(text, id);
                }
                Ok(Vocab::Ids(ids))
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Vocab, S::Error> {
                let mut texts = Vec::new();
                while let Some((text, _)) = seq.next_element::<(String, f64)>()? {
                    texts.push(text);
                }
                Ok(Vocab::Scores(texts))
            }
        }
        deserializer.deserialize_any(Parts)
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("two texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Merge, E> {
                let (left, right) = text.split_once(' ').ok_or_else(|| E::custom("a merge without a space"))?;
                Ok(Merge(left.to_owned(), right.to_owned()))
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Merge, S::Error> {
                let missing = || de::Error::custom("a merge of less than two texts");
                let left = seq.next_element()?.ok_or_else(missing)?;
                let right = seq.next_element()?.ok_or_else(missing)?;
                Ok(Merge(left, right))
            }
        }
        deserializer.deserialize_any(Parts)
    }
}
