//! WordPiece: words are cut from the left into the longest known pieces (BERT).

use std::collections::HashMap;

use tokenizers::normalizers::BertNormalizer;
use tokenizers::{NormalizedString, Normalizer};

use super::TokenizerError;
use super::pretokenize::PreTokenizer;

/// Words with more characters than this are unknown.
const WORD_CHARS_MAX: usize = 100;

/// WordPiece with BERT's normalization and words.
#[derive(Debug)]
pub(super) struct WordPiece {
    pub(super) normalizer: BertNormalizer,
    pub(super) pre_tokenizer: PreTokenizer,
    /// Piece → id. Pieces that begin a word begin with a space.
    pub(super) pieces: HashMap<Box<[u8]>, u32>,
    /// Stands for a word that cannot be put together from pieces.
    pub(super) unknown: Option<u32>,
}

impl WordPiece {
    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut normalized = NormalizedString::from(text);
        self.normalizer.normalize(&mut normalized).map_err(|error| TokenizerError::Encode(error.to_string()))?;
        let mut spaced = String::new();
        self.pre_tokenizer.split(normalized.get(), |word| {
            let before = out.len();
            spaced.clear();
            spaced.push(' ');
            spaced.push_str(word);
            if word.chars().count() > WORD_CHARS_MAX || !self.cut(&spaced, out) {
                out.truncate(before);
                out.extend(self.unknown);
            }
        });
        Ok(())
    }

    /// Appends the pieces of a word with a space before it; false if there are none.
    fn cut(&self, word: &str, out: &mut Vec<u32>) -> bool {
        let mut start = 0;
        while start < word.len() {
            // The space alone is no piece.
            let shortest = start + usize::from(start == 0) + 1;
            let ends = (shortest..=word.len()).rev().filter(|&end| word.is_char_boundary(end));
            let found = ends.into_iter().find_map(|end| Some((end, *self.pieces.get(&word.as_bytes()[start..end])?)));
            let Some((end, id)) = found else { return false };
            out.push(id);
            start = end;
        }
        true
    }
}
