//! Tokenizers from the `tokenizer.ggml.*` metadata of a GGUF file.

use std::borrow::Cow;
use std::collections::HashMap;

use tokenizers::normalizers::BertNormalizer;

use crate::format::{GgufArray, GgufMetadata, GgufValue};

use super::bpe::{self, ByteLevel, Merges, SentencePiece};
use super::charsmap::CharsMap;
use super::pretokenize::PreTokenizer;
use super::unigram::{self, Unigram};
use super::vocabulary::{AddedTokens, Kind, Vocabulary};
use super::wordpiece::WordPiece;
use super::{Model, SpecialTokens, Tokenizer, TokenizerError};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_SEP: &str = "tokenizer.ggml.add_sep_token";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const EXTRA_WHITESPACE: &str = "tokenizer.ggml.remove_extra_whitespaces";
const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";
const STRIP_ACCENTS: &str = "tokenizer.ggml.normalizer.strip_accents";

/// Makes the tokenizer that `metadata` describes.
pub(super) fn tokenizer(metadata: &GgufMetadata) -> Result<Tokenizer, TokenizerError> {
    let name = string(metadata, MODEL)?.ok_or(TokenizerError::Missing(MODEL))?;
    let source = Source::new(metadata, name)?;
    match name {
        "gpt2" => source.byte_level(),
        "llama" => source.sentence_piece(),
        "t5" => source.unigram(),
        "bert" => source.word_piece(),
        "bytes" => source.bytes(),
        _ => Err(TokenizerError::Model(name.to_owned())),
    }
}

/// The parts of the metadata that all kinds share, checked.
struct Source<'a> {
    metadata: &'a GgufMetadata,
    texts: &'a [String],
    kinds: Vec<Kind>,
    special: SpecialTokens,
    notes: Vec<String>,
}

impl<'a> Source<'a> {
    fn new(metadata: &'a GgufMetadata, model: &str) -> Result<Self, TokenizerError> {
        let texts = strings(metadata, TOKENS)?.ok_or(TokenizerError::Missing(TOKENS))?;
        if texts.is_empty() || u32::try_from(texts.len()).is_err() {
            return Err(problem(TOKENS, format!("{} tokens", texts.len())));
        }
        let mut seen = HashMap::with_capacity(texts.len());
        for (id, text) in texts.iter().enumerate() {
            // Tokens without a text fill gaps; there may be many.
            if let Some(first) = seen.insert(text.as_str(), id).filter(|_| !text.is_empty()) {
                return Err(problem(TOKENS, format!("tokens {first} and {id} are both {text:?}")));
            }
        }
        let mut notes = Vec::new();
        let mut special = special_tokens(metadata, model)?;
        special.drop_strangers(texts.len(), &mut notes);
        let kinds = match array(metadata, TOKEN_TYPE)? {
            None => {
                let mut kinds = vec![Kind::Normal; texts.len()];
                let controls = [special.bos, special.eos, special.end_of_turn, special.padding, special.unknown];
                for id in controls.into_iter().flatten() {
                    kinds[id as usize] = Kind::Control;
                }
                kinds
            }
            Some(types) => {
                let types = types
                    .to_u64s()
                    .ok_or_else(|| wrong_type(TOKEN_TYPE, "non-negative integers", types.type_name()))?;
                same_length(TOKEN_TYPE, types.len(), texts)?;
                types.into_iter().map(Kind::from_gguf).collect()
            }
        };
        Ok(Self { metadata, texts, kinds, special, notes })
    }

    /// Scores, one a token, all finite.
    fn scores(&self) -> Result<&'a [f32], TokenizerError> {
        let scores = array(self.metadata, SCORES)?.ok_or(TokenizerError::Missing(SCORES))?;
        let scores = scores.f32s().ok_or_else(|| wrong_type(SCORES, "f32", scores.type_name()))?;
        same_length(SCORES, scores.len(), self.texts)?;
        match scores.iter().position(|score| !score.is_finite()) {
            Some(id) => Err(problem(SCORES, format!("token {id} has the score {}", scores[id]))),
            None => Ok(scores),
        }
    }

    fn flag(&self, key: &'static str, default: bool) -> Result<bool, TokenizerError> {
        match self.metadata.get(key) {
            None => Ok(default),
            Some(GgufValue::Bool(value)) => Ok(*value),
            Some(other) => Err(wrong_type(key, "a boolean", other.type_name())),
        }
    }

    /// Byte-level BPE.
    fn byte_level(mut self) -> Result<Tokenizer, TokenizerError> {
        let pre = string(self.metadata, PRE)?.unwrap_or("default");
        let pre_tokenizer = match PreTokenizer::named(pre)? {
            Some(known) => known,
            None => {
                self.notes.push(format!(
                    "the pre-tokenizer {pre:?} is not known; GPT-2's stands in, so ids may differ a little"
                ));
                PreTokenizer::fallback()?
            }
        };
        let mut vocabulary = Vocabulary::default();
        let mut pieces = HashMap::with_capacity(self.texts.len());
        let mut scratch = Vec::new();
        for (id, (text, &kind)) in self.texts.iter().zip(&self.kinds).enumerate() {
            let printable = matches!(kind, Kind::Normal | Kind::Unused | Kind::Byte);
            if printable && bpe::bytes_of_stand_ins(text, &mut scratch).is_some() {
                vocabulary.push(&scratch, kind);
                if kind == Kind::Normal && !scratch.is_empty() {
                    pieces.entry(Box::from(scratch.as_slice())).or_insert(id as u32);
                }
            } else {
                vocabulary.push(text.as_bytes(), kind);
            }
        }
        let mut bytes = Box::new([None; 256]);
        for (byte, slot) in bytes.iter_mut().enumerate() {
            *slot = pieces.get(&[byte as u8][..]).copied();
        }
        let merges = self.merges(&pieces)?;
        let whole_words = pre_tokenizer.whole_words.then_some(pieces);
        let llama3 = pre_tokenizer.whole_words;
        let roberta = matches!(pre, "roberta-bpe" | "jina-v1-en" | "jina-v2-code");
        self.text_ends(llama3 || roberta, false, roberta)?;
        let model = ByteLevel { pre_tokenizer, bytes, merges, whole_words };
        self.finish(Model::ByteLevel(model), vocabulary, false)
    }

    /// The list of merges, all of them of tokens to a token.
    fn merges(&self, pieces: &HashMap<Box<[u8]>, u32>) -> Result<Merges, TokenizerError> {
        let lines = strings(self.metadata, MERGES)?.ok_or(TokenizerError::Missing(MERGES))?;
        let mut merges = Merges::with_capacity(lines.len());
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (rank, line) in lines.iter().enumerate() {
            let token = |bytes: &[u8]| {
                let id = pieces.get(bytes).copied();
                id.ok_or_else(|| {
                    problem(
                        MERGES,
                        format!(
                            "merge {rank}, {line:?}, needs {:?}, which is no token",
                            String::from_utf8_lossy(bytes)
                        ),
                    )
                })
            };
            let (a, b) = line.split_once(' ').unwrap_or((line, ""));
            let parsed = bpe::bytes_of_stand_ins(a, &mut left).and_then(|()| bpe::bytes_of_stand_ins(b, &mut right));
            if parsed.is_none() || left.is_empty() || right.is_empty() {
                return Err(problem(MERGES, format!("merge {rank}, {line:?}, is not two byte-level tokens")));
            }
            let pair = (token(&left)?, token(&right)?);
            left.extend_from_slice(&right);
            // Of a pair that is listed twice the last counts, as in the crate `tokenizers`.
            merges.insert(pair, (rank as u32, token(&left)?));
        }
        Ok(merges)
    }

    /// SentencePiece BPE: Llama 2, Mistral, Gemma.
    fn sentence_piece(mut self) -> Result<Tokenizer, TokenizerError> {
        let mut ranks = bpe::ranks(self.scores()?);
        let (vocabulary, mut pieces) = self.spaced_pieces(usize::MAX);
        // Runs of spaces (Gemma has them as user-defined tokens): whatever their scores, they are put together first, as far
        // as possible from the left.
        ranks.iter_mut().for_each(|rank| *rank += 1);
        for (id, text) in self.texts.iter().enumerate().filter(|(id, text)| self.is_space_run(*id, text)) {
            ranks[id] = 0;
            pieces.entry(vec![b' '; text.chars().count()].into()).or_insert(id as u32);
        }
        let longest = pieces.keys().map(|piece| piece.len()).max().unwrap_or(0);
        let add_space_prefix = self.flag(SPACE_PREFIX, true)?;
        self.text_ends(true, false, false)?;
        let model = SentencePiece {
            pieces,
            ranks,
            longest,
            bytes: self.byte_tokens(),
            unknown: self.special.unknown,
            add_space_prefix,
        };
        self.finish(Model::SentencePiece(model), vocabulary, add_space_prefix)
    }

    /// SentencePiece unigram: T5, XLM-RoBERTa.
    fn unigram(mut self) -> Result<Tokenizer, TokenizerError> {
        let scores = self.scores()?;
        let (vocabulary, pieces) = self.spaced_pieces(usize::MAX);
        if let Some((piece, id)) = pieces.iter().find(|(piece, _)| piece.len() > unigram::PIECE_BYTES_MAX) {
            return Err(problem(TOKENS, format!("token {id} has {} bytes", piece.len())));
        }
        let pieces =
            pieces.into_iter().map(|(bytes, id)| unigram::Piece { bytes, score: scores[id as usize].into(), id });
        let charsmap = match array(self.metadata, CHARSMAP)? {
            None => None,
            Some(GgufArray::U8(bytes)) => Some(bytes.clone()),
            Some(GgufArray::I8(bytes)) => Some(bytes.iter().map(|&byte| byte as u8).collect()),
            Some(other) => return Err(wrong_type(CHARSMAP, "bytes", other.type_name())),
        };
        let charsmap = match charsmap.filter(|bytes| !bytes.is_empty()) {
            None => None,
            Some(bytes) => {
                Some(CharsMap::parse(&bytes).ok_or_else(|| problem(CHARSMAP, "not a character map".to_owned()))?)
            }
        };
        let add_space_prefix = self.flag(SPACE_PREFIX, true)?;
        self.text_ends(false, true, false)?;
        let mut model = Unigram::new(pieces.collect());
        model.unknown = self.special.unknown;
        model.bytes = self.byte_tokens();
        model.charsmap = charsmap;
        model.remove_extra_whitespace = self.flag(EXTRA_WHITESPACE, false)?;
        model.add_space_prefix = add_space_prefix;
        self.finish(Model::Unigram(model), vocabulary, add_space_prefix)
    }

    /// WordPiece. GGUF writes pieces that begin a word with U+2581 and those that continue one without `##`.
    fn word_piece(mut self) -> Result<Tokenizer, TokenizerError> {
        let (vocabulary, pieces) = self.spaced_pieces(1);
        // A vocabulary that knows capitals is made for text that keeps them.
        let cased = pieces.keys().any(|piece| piece.iter().any(u8::is_ascii_uppercase));
        let lowercase = self.flag(LOWERCASE, !cased)?;
        let strip_accents = self.flag(STRIP_ACCENTS, lowercase)?;
        self.text_ends(true, false, true)?;
        let model = WordPiece {
            normalizer: BertNormalizer::new(true, true, Some(strip_accents), lowercase),
            pre_tokenizer: PreTokenizer::bert()?,
            pieces,
            unknown: self.special.unknown,
        };
        self.finish(Model::WordPiece(model), vocabulary, true)
    }

    /// Tokens 0 to 255 are the bytes; names of further tokens follow. (The engine's own tiny models.)
    fn bytes(mut self) -> Result<Tokenizer, TokenizerError> {
        if self.texts.len() < 256 {
            return Err(problem(TOKENS, format!("{} tokens cannot be all bytes", self.texts.len())));
        }
        let mut vocabulary = Vocabulary::default();
        for (id, (text, &kind)) in self.texts.iter().zip(&self.kinds).enumerate() {
            match u8::try_from(id) {
                Ok(byte) => vocabulary.push(&[byte], Kind::Byte),
                Err(_) => vocabulary.push(text.as_bytes(), kind),
            }
        }
        self.kinds[..256].fill(Kind::Byte);
        self.text_ends(false, false, false)?;
        self.finish(Model::ByteLevel(ByteLevel::bytes()), vocabulary, false)
    }

    /// The vocabulary with spaces as spaces, and its ordinary pieces. `spaces` is the number of U+2581 in a text that stand
    /// for spaces.
    fn spaced_pieces(&self, spaces: usize) -> (Vocabulary, HashMap<Box<[u8]>, u32>) {
        let mut vocabulary = Vocabulary::default();
        let mut pieces = HashMap::with_capacity(self.texts.len());
        for (id, (text, &kind)) in self.texts.iter().zip(&self.kinds).enumerate() {
            match (kind, byte_token(text)) {
                (Kind::Byte, Some(byte)) => vocabulary.push(&[byte], kind),
                (Kind::Normal | Kind::UserDefined, _) => {
                    let text = text.replacen('\u{2581}', " ", spaces);
                    vocabulary.push(text.as_bytes(), kind);
                    if kind == Kind::Normal && !text.is_empty() {
                        pieces.entry(Box::from(text.as_bytes())).or_insert(id as u32);
                    }
                }
                _ => vocabulary.push(text.as_bytes(), kind),
            }
        }
        (vocabulary, pieces)
    }

    /// The tokens `<0x00>` to `<0xFF>`, if all are there.
    fn byte_tokens(&self) -> Option<Box<[u32; 256]>> {
        let mut ids = [None; 256];
        for (id, (text, _)) in
            self.texts.iter().zip(&self.kinds).enumerate().filter(|(_, (_, kind))| **kind == Kind::Byte)
        {
            if let Some(byte) = byte_token(text) {
                ids[byte as usize] = Some(id as u32);
            }
        }
        let mut all = Box::new([0; 256]);
        for (slot, id) in all.iter_mut().zip(ids) {
            *slot = id?;
        }
        Some(all)
    }

    /// Settles what goes around a text, given what the kind of tokenizer usually does.
    fn text_ends(&mut self, bos: bool, eos: bool, sep: bool) -> Result<(), TokenizerError> {
        if self.flag(ADD_BOS, bos)? {
            self.special.before_text = self.special.bos;
        }
        if self.flag(ADD_EOS, eos)? {
            self.special.after_text = self.special.eos;
        }
        if self.flag(ADD_SEP, sep)? && self.special.after_text.is_none() {
            self.special.after_text = self.special.separator.or(self.special.eos);
        }
        Ok(())
    }

    /// True for user-defined tokens that are nothing but spaces, written as spaces or as U+2581.
    fn is_space_run(&self, id: usize, text: &str) -> bool {
        self.kinds[id] == Kind::UserDefined && !text.is_empty() && text.chars().all(|c| matches!(c, ' ' | '\u{2581}'))
    }

    fn finish(mut self, model: Model, vocabulary: Vocabulary, space_prefix: bool) -> Result<Tokenizer, TokenizerError> {
        let tokens = self.texts.iter().zip(&self.kinds).enumerate();
        let tokens = tokens.map(|(id, (text, &kind))| {
            // SentencePiece has its own way with runs of spaces; here they stay what they are called there.
            let called = matches!(model, Model::SentencePiece(_)) && self.is_space_run(id, text);
            let name = if called { Cow::from(text.replace(' ', "\u{2581}")) } else { Cow::from(text) };
            (name, id as u32, kind)
        });
        let mut added = AddedTokens::new(tokens)?;
        self.special.complete(&added);
        // Phi-3's control tokens swallow the whitespace behind them; GGUF has no place to say so.
        if self.metadata.str("general.architecture") == Some("phi3") && matches!(model, Model::SentencePiece(_)) {
            for (id, kind) in self.kinds.iter().enumerate() {
                let name = self.texts[id].as_str();
                if matches!(kind, Kind::Control | Kind::UserDefined)
                    && !matches!(name, "<unk>" | "<s>" | "<|endoftext|>")
                {
                    added.strip_right_of(id as u32);
                }
            }
        }
        Ok(Tokenizer { model, vocabulary, added, special: self.special, space_prefix, notes: self.notes })
    }
}

/// Ids with a meaning: those the metadata names, else those the kind of tokenizer is known for.
fn special_tokens(metadata: &GgufMetadata, model: &str) -> Result<SpecialTokens, TokenizerError> {
    let (bos, eos, unknown, padding) = match model {
        "llama" => (Some(1), Some(2), Some(0), None),
        "t5" => (None, Some(1), Some(2), Some(0)),
        "bert" => (Some(101), Some(102), Some(100), Some(0)),
        _ => (None, None, None, None),
    };
    let mut special = SpecialTokens {
        bos: id(metadata, "tokenizer.ggml.cls_token_id")?.or(bos),
        eos: id(metadata, "tokenizer.ggml.eos_token_id")?.or(eos),
        end_of_turn: id(metadata, "tokenizer.ggml.eot_token_id")?,
        separator: id(metadata, "tokenizer.ggml.seperator_token_id")?, // sic
        unknown: id(metadata, "tokenizer.ggml.unknown_token_id")?.or(unknown),
        padding: id(metadata, "tokenizer.ggml.padding_token_id")?.or(padding),
        ..SpecialTokens::default()
    };
    special.bos = id(metadata, "tokenizer.ggml.bos_token_id")?.or(special.bos);
    special.ends.extend(id(metadata, "tokenizer.ggml.eom_token_id")?);
    Ok(special)
}

/// The byte a token named `<0xAB>` stands for.
pub(super) fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if hex { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn problem(key: &'static str, problem: String) -> TokenizerError {
    TokenizerError::Metadata { key, problem }
}

fn wrong_type(key: &'static str, expected: &str, found: &str) -> TokenizerError {
    problem(key, format!("expected {expected}, found {found}"))
}

fn same_length(key: &'static str, length: usize, texts: &[String]) -> Result<(), TokenizerError> {
    if length == texts.len() {
        return Ok(());
    }
    Err(problem(key, format!("{length} entries for {} tokens", texts.len())))
}

fn string<'a>(metadata: &'a GgufMetadata, key: &'static str) -> Result<Option<&'a str>, TokenizerError> {
    match metadata.get(key) {
        None => Ok(None),
        Some(GgufValue::Str(value)) => Ok(Some(value)),
        Some(other) => Err(wrong_type(key, "a string", other.type_name())),
    }
}

fn array<'a>(metadata: &'a GgufMetadata, key: &'static str) -> Result<Option<&'a GgufArray>, TokenizerError> {
    match metadata.get(key) {
        None => Ok(None),
        Some(GgufValue::Array(value)) => Ok(Some(value)),
        Some(other) => Err(wrong_type(key, "an array", other.type_name())),
    }
}

fn strings<'a>(metadata: &'a GgufMetadata, key: &'static str) -> Result<Option<&'a [String]>, TokenizerError> {
    match array(metadata, key)? {
        None => Ok(None),
        Some(values) => values.strings().map(Some).ok_or_else(|| wrong_type(key, "strings", values.type_name())),
    }
}

/// A token id; one too large for a u32 is as good as out of range.
fn id(metadata: &GgufMetadata, key: &'static str) -> Result<Option<u32>, TokenizerError> {
    match metadata.get(key) {
        None => Ok(None),
        // −1 says "none".
        Some(GgufValue::I32(..0)) | Some(GgufValue::I64(..0)) => Ok(None),
        Some(value) => {
            let id = value.as_u64().ok_or_else(|| wrong_type(key, "a token id", value.type_name()))?;
            Ok(Some(u32::try_from(id).unwrap_or(u32::MAX)))
        }
    }
}
