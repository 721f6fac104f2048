//! Text to token ids and back.
//!
//! In: what a checkpoint says about its vocabulary ([`Meta`]), texts, ids. Out: ids, texts, and which ids end a turn. A
//! [`Tokenizer`] made from GGUF metadata runs this module's own code: byte-level BPE, SentencePiece BPE, unigram and
//! WordPiece, all of them linear or nearly so in the text, and safe against metadata that lies. One made from a
//! `tokenizer.json` runs the `tokenizers` crate. Both give the ids that Hugging Face's transformers gives.

mod bpe;
mod charsmap;
mod gguf;
mod json;
mod json_guard;
mod pretokenize;
mod special;
mod unigram;
mod vocabulary;
mod wordpiece;

use std::collections::BTreeSet;

use thiserror::Error;
use tokenizers::NormalizedString;

use crate::format::{Checkpoint, Meta};
use vocabulary::{AddedTokens, Fragment, Vocabulary};

/// Why a tokenizer could not be made, or a text not be encoded.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The checkpoint has no tokenizer, or not all of it.
    #[error("the checkpoint has no {0}")]
    Missing(&'static str),
    /// A value of the metadata is not what it should be.
    #[error("{key}: {problem}")]
    Metadata {
        /// Metadata key.
        key: &'static str,
        /// What is wrong with the value.
        problem: String,
    },
    /// `tokenizer.ggml.model` names something this engine does not have.
    #[error("the tokenizer model {0:?} is not supported (supported: gpt2, llama, t5, bert, bytes)")]
    Model(String),
    /// `tokenizer.json` is not one.
    #[error("tokenizer.json: {0}")]
    Json(String),
    /// The added tokens could not be compiled.
    #[error("added tokens: {0}")]
    AddedTokens(String),
    /// A pre-tokenizer's pattern could not be compiled.
    #[error("pre-tokenizer: {0}")]
    Pattern(String),
    /// The text is longer than offsets can express.
    #[error("a text of {0} bytes is too long to be tokenized at once (the limit is 2 GiB)")]
    TooLong(usize),
    /// The text could not be encoded.
    #[error("cannot encode the text: {0}")]
    Encode(String),
}

/// How to read a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the tokens around the text that the model expects around every text (`<s>`, `[CLS]` … `[SEP]`).
    pub add_special: bool,
    /// Read the names of control tokens (`<|im_end|>`) as these tokens. Without it they are ordinary text, as what a user
    /// types should be.
    pub parse_special: bool,
}

/// Text to token ids and back, for one vocabulary.
#[derive(Debug)]
pub struct Tokenizer {
    model: Model,
    vocabulary: Vocabulary,
    added: AddedTokens,
    special: SpecialTokens,
    /// The first token of a text carries a space that is not in the text.
    space_prefix: bool,
    notes: Vec<String>,
}

/// Ids with a meaning, and what goes around a text.
#[derive(Debug, Default)]
struct SpecialTokens {
    bos: Option<u32>,
    eos: Option<u32>,
    end_of_turn: Option<u32>,
    separator: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    ends: BTreeSet<u32>,
    before_text: Option<u32>,
    after_text: Option<u32>,
}

#[derive(Debug)]
enum Model {
    ByteLevel(bpe::ByteLevel),
    SentencePiece(bpe::SentencePiece),
    Unigram(unigram::Unigram),
    WordPiece(wordpiece::WordPiece),
    Json(Box<json::JsonModel>),
}

impl Tokenizer {
    /// The tokenizer of a checkpoint: from GGUF metadata, `tokenizer.json`, or a declaration that tokens are bytes.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, TokenizerError> {
        Self::from_meta(checkpoint.meta())
    }

    /// The tokenizer that a checkpoint's metadata describes.
    pub fn from_meta(meta: &Meta) -> Result<Self, TokenizerError> {
        match meta {
            Meta::Gguf(metadata) => gguf::tokenizer(metadata),
            Meta::HuggingFace { config, generation, tokenizer_json, tokenizer_config, st_metadata } => {
                let sources = json::Sources {
                    config,
                    generation: generation.as_ref(),
                    tokenizer_config: tokenizer_config.as_ref(),
                };
                match tokenizer_json {
                    Some(json) => json::tokenizer(json, &sources),
                    None if json::declares_bytes(&sources, st_metadata) => json::byte_tokenizer(&sources),
                    None => Err(TokenizerError::Missing("tokenizer.json")),
                }
            }
        }
    }

    /// Encodes a text whose control tokens are meant as such (a rendered chat template, a raw prompt).
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        self.encode_with(text, EncodeOptions { add_special, parse_special: true })
    }

    /// Encodes a text.
    pub fn encode_with(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        // Offsets are u32, and a space may be put in front of the text.
        if text.len() > i32::MAX as usize {
            return Err(TokenizerError::TooLong(text.len()));
        }
        if let Model::Json(model) = &self.model {
            return model.encode(text, options);
        }
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        if options.add_special {
            ids.extend(self.special.before_text);
        }
        let mut result = Ok(());
        self.added.split(text, options.parse_special, |fragment| match fragment {
            Fragment::Token(id) => ids.push(id),
            Fragment::Text(text) => {
                if result.is_ok() {
                    result = self.encode_fragment(text, &mut ids);
                }
            }
        });
        result?;
        if options.add_special {
            ids.extend(self.special.after_text);
        }
        Ok(ids)
    }

    /// Appends the tokens of a text without added tokens.
    fn encode_fragment(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        match &self.model {
            Model::ByteLevel(model) if model.pre_tokenizer.nfc && !text.is_ascii() => {
                let mut normalized = NormalizedString::from(text);
                normalized.nfc();
                model.encode(normalized.get(), ids);
            }
            Model::ByteLevel(model) => model.encode(text, ids),
            Model::SentencePiece(model) => model.encode(text, ids),
            Model::Unigram(model) => model.encode(text, ids),
            Model::WordPiece(model) => model.encode(text, ids)?,
            Model::Json(model) => {
                ids.extend(model.encode(text, EncodeOptions { add_special: false, parse_special: false })?);
            }
        }
        Ok(())
    }

    /// The text of `ids`; with `skip_special` without control tokens. Bytes that are no UTF-8 become U+FFFD; ids out of
    /// range stand for nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids.iter().filter(|&&id| !(skip_special && self.is_special(id))) {
            bytes.extend_from_slice(self.vocabulary.bytes(id));
        }
        let text = if self.space_prefix { bytes.strip_prefix(b" ").unwrap_or(&bytes) } else { &bytes };
        String::from_utf8_lossy(text).into_owned()
    }

    /// The bytes that `id` adds to a text: often not a whole character. A control token's bytes are its name. Nothing for an
    /// id out of range.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// The id of the control or user-defined token called `name`.
    pub fn token_id(&self, name: &str) -> Option<u32> {
        self.added.id(name)
    }

    /// Number of ids, gaps included. A model's logits may have more (padded) rows.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a text, whether or not this model wants one.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// The token that ends a turn of a chat; where the vocabulary has none of its own, [`Self::eos`].
    pub fn end_of_turn(&self) -> Option<u32> {
        self.special.end_of_turn.or(self.special.eos)
    }

    /// The token for what the vocabulary cannot express.
    pub fn unknown(&self) -> Option<u32> {
        self.special.unknown
    }

    /// The token that fills up a batch.
    pub fn padding(&self) -> Option<u32> {
        self.special.padding
    }

    /// The token put before a text by `add_special`, if any.
    pub fn before_text(&self) -> Option<u32> {
        match &self.model {
            Model::Json(model) => model.before_text(),
            _ => self.special.before_text,
        }
    }

    /// All ids at which generation ends, in ascending order.
    pub fn ends(&self) -> impl Iterator<Item = u32> {
        self.special.ends.iter().copied()
    }

    /// True if generation ends at `id`.
    pub fn is_end(&self, id: u32) -> bool {
        self.special.ends.contains(&id)
    }

    /// True for tokens that are no part of a text.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.kind(id).is_special()
    }

    /// True if the first token of a text carries a space that is not in the text (Llama 2).
    pub fn has_space_prefix(&self) -> bool {
        self.space_prefix
    }

    /// What is odd about this vocabulary and was worked around, for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}
