//! Pre-tokenizers: how a text is cut into words before byte-level BPE or WordPiece looks at it.
//!
//! The published patterns use one look-ahead, `\s+(?!\S)`: whitespace before a word leaves its last character to the word.
//! Here that rule is applied after matching a plain `\s+`, so that a linear-time regular expression engine without
//! look-around does: no text, however hostile, takes more than linear time.

use regex::Regex;

use super::TokenizerError;

/// GPT-2.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
/// Llama 3: contractions of any case, numbers in groups of three, line ends with the whitespace before them.
const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// Qwen 2: Llama 3 with single digits.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// Qwen 3.5: Qwen 2 with marks among the letters.
const QWEN35: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// Mistral's Tekken: words split where lower case ends.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
/// GPT-4o: Tekken with contractions and numbers in groups of three.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
/// BERT: whitespace separates, each punctuation sign (ASCII's symbols included) is a word.
const BERT: &str = r"[\p{P}$+<=>^`|~]|[^\s\p{P}$+<=>^`|~]+";

/// Cuts texts into words.
#[derive(Debug, Clone)]
pub(super) struct PreTokenizer {
    /// `None`: a text is one word.
    pattern: Option<Regex>,
    whitespace: Whitespace,
    /// Every digit (`\p{N}`) becomes a text of its own first.
    digits_apart: bool,
    /// The text is brought into Unicode normal form C before.
    pub(super) nfc: bool,
    /// Words that are tokens are to be taken whole, whatever the merges say.
    pub(super) whole_words: bool,
}

/// What becomes of a run of whitespace before a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whitespace {
    /// It stays as matched.
    Whole,
    /// Its last character goes to the next word.
    LeaveLast,
    /// The same, unless the run ends in a line end: then the pattern's own part for line ends has matched.
    LeaveLastUnlessLineEnd,
}

impl PreTokenizer {
    fn new(pattern: &str, whitespace: Whitespace) -> Result<Self, TokenizerError> {
        let pattern = Regex::new(pattern).map_err(|error| TokenizerError::Pattern(error.to_string()))?;
        Ok(Self { pattern: Some(pattern), whitespace, ..Self::none() })
    }

    fn gpt2() -> Result<Self, TokenizerError> {
        Self::new(GPT2, Whitespace::LeaveLast)
    }

    fn llama3_like(pattern: &str) -> Result<Self, TokenizerError> {
        Self::new(pattern, Whitespace::LeaveLastUnlessLineEnd)
    }

    /// A text is one word.
    pub(super) fn none() -> Self {
        Self { pattern: None, whitespace: Whitespace::Whole, digits_apart: false, nfc: false, whole_words: false }
    }

    /// The words of BERT; the whitespace between them belongs to none.
    pub(super) fn bert() -> Result<Self, TokenizerError> {
        Self::new(BERT, Whitespace::Whole)
    }

    /// The pre-tokenizer that `tokenizer.ggml.pre` names; `None` for a name this engine does not know.
    pub(super) fn named(name: &str) -> Result<Option<Self>, TokenizerError> {
        Ok(Some(match name {
            "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "exaone4" | "modern-bert" | "jina-es"
            | "jina-de" | "jina-v1-en" | "jina-v2-es" | "jina-v2-de" | "jina-v2-code" | "roberta-bpe" => Self::gpt2()?,
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
                Self { digits_apart: true, ..Self::gpt2()? }
            }
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "lfm2" => {
                Self { whole_words: true, ..Self::llama3_like(LLAMA3)? }
            }
            "dbrx" | "smaug-bpe" | "glm4" | "chatglm-bpe" => Self::llama3_like(LLAMA3)?,
            "qwen2" | "deepseek-r1-qwen" | "megrez" => Self { nfc: true, ..Self::llama3_like(QWEN2)? },
            "qwen35" => Self { nfc: true, ..Self::llama3_like(QWEN35)? },
            "stablelm2" | "hunyuan" | "grok-2" => Self::llama3_like(QWEN2)?,
            "tekken" => Self { whole_words: true, ..Self::llama3_like(TEKKEN)? },
            "gpt-4o" | "llama4" => Self::llama3_like(GPT4O)?,
            _ => return Ok(None),
        }))
    }

    /// What a vocabulary without, or with an unknown, `tokenizer.ggml.pre` gets: GPT-2's.
    pub(super) fn fallback() -> Result<Self, TokenizerError> {
        Self::gpt2()
    }

    /// The words of `text`, in order; none is empty.
    pub(super) fn split(&self, text: &str, mut take: impl FnMut(&str)) {
        if !self.digits_apart {
            return self.split_part(text, &mut take);
        }
        let mut start = 0;
        for (at, digit) in text.char_indices().filter(|(_, character)| character.is_numeric()) {
            let end = at + digit.len_utf8();
            self.split_part(&text[start..at], &mut take);
            self.split_part(&text[at..end], &mut take);
            start = end;
        }
        self.split_part(&text[start..], &mut take);
    }

    fn split_part(&self, text: &str, take: &mut impl FnMut(&str)) {
        let Some(pattern) = &self.pattern else {
            if !text.is_empty() {
                take(text);
            }
            return;
        };
        let mut at = 0;
        while let Some(found) = pattern.find_at(text, at) {
            at = if found.end() < text.len() { found.start() + self.kept(found.as_str()) } else { found.end() };
            // All patterns but BERT's match every character, so nothing lies between two matches.
            take(&text[found.start()..at]);
        }
    }

    /// How many bytes of a match that more text follows belong to it.
    fn kept(&self, found: &str) -> usize {
        let mut characters = found.chars();
        let Some(last) = characters.next_back() else { return found.len() };
        let leaves_last = match self.whitespace {
            Whitespace::Whole => false,
            Whitespace::LeaveLast => true,
            Whitespace::LeaveLastUnlessLineEnd => !matches!(last, '\r' | '\n'),
        };
        let rest = characters.as_str();
        // A match that ends in whitespace and is not all whitespace is punctuation with its line ends.
        if leaves_last && !rest.is_empty() && last.is_whitespace() && rest.chars().all(char::is_whitespace) {
            rest.len()
        } else {
            found.len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        PreTokenizer::named(name).unwrap().unwrap().split(text, |word| out.push(word.to_owned()));
        assert_eq!(out.concat(), text, "{name}");
        out
    }

    #[test]
    fn the_last_space_goes_to_the_next_word() {
        assert_eq!(words("gpt-2", "a   b  "), ["a", "  ", " b", "  "]);
        assert_eq!(words("gpt-2", "a \t\n\nb"), ["a", " \t\n", "\n", "b"]);
        assert_eq!(words("llama-bpe", "a \t\n\nb"), ["a", " \t\n\n", "b"]);
        assert_eq!(words("llama-bpe", "a  \tb\n  c"), ["a", "  ", "\tb", "\n", " ", " c"]);
        assert_eq!(words("qwen2", "if x:\n\treturn"), ["if", " x", ":\n", "\treturn"]);
    }

    #[test]
    fn numbers_and_contractions() {
        assert_eq!(words("gpt-2", "12345 it's IT'S"), ["12345", " it", "'s", " IT", "'", "S"]);
        assert_eq!(words("smollm", "a  12"), ["a", "  ", "1", "2"]);
        assert_eq!(words("llama-bpe", "12345 IT'S"), ["123", "45", " IT", "'S"]);
        assert_eq!(words("qwen2", "125"), ["1", "2", "5"]);
        assert_eq!(words("gpt-4o", "HelloWorld's x"), ["Hello", "World's", " x"]);
    }

    #[test]
    fn bert_drops_whitespace_and_isolates_punctuation() {
        let mut out = Vec::new();
        PreTokenizer::bert().unwrap().split(" don't\tstop—now $5 ", |word| out.push(word.to_owned()));
        assert_eq!(out, ["don", "'", "t", "stop", "—", "now", "$", "5"]);
    }
}
