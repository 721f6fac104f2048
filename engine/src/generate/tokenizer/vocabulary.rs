//! What the tokens of a vocabulary stand for: their bytes, their kinds, and the added tokens that are cut out of a text
//! before anything else looks at it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use aho_corasick::{AhoCorasick, MatchKind};

use super::TokenizerError;

/// What a token is for, as `tokenizer.ggml.token_type` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ordinary piece of text.
    Normal,
    /// Stands for what the vocabulary cannot express.
    Unknown,
    /// Steers the model (`<|im_end|>`); never part of a text.
    Control,
    /// Text that is always one token, cut out before the tokenizer proper runs.
    UserDefined,
    /// Takes up an id, nothing more.
    Unused,
    /// One byte, used where no piece fits.
    Byte,
}

impl Kind {
    /// The kind behind a GGUF token type; 0 ("undefined") and unknown numbers are ordinary pieces.
    pub(super) fn from_gguf(token_type: u64) -> Self {
        match token_type {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }

    /// True for tokens that are no part of a text.
    pub(super) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// The bytes and the kind of every token, by id.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token's bytes end; they begin where its predecessor's end.
    ends: Vec<usize>,
    kinds: Vec<Kind>,
}

impl Vocabulary {
    /// Appends the next id.
    pub(super) fn push(&mut self, bytes: &[u8], kind: Kind) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.kinds.push(kind);
    }

    /// Number of ids.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes that token `id` adds to a text; nothing for an id out of range.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = id.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied());
        match (start, self.ends.get(id)) {
            (Some(start), Some(&end)) => &self.bytes[start..end],
            _ => &[],
        }
    }

    /// The kind of token `id`; unused for an id out of range.
    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }
}

/// A stretch of a text between, or one of, the added tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    Text(&'a str),
    Token(u32),
}

/// Finds added tokens in a text: leftmost first, the longest where several begin.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    by_name: HashMap<String, u32>,
    /// All of them, and the user-defined ones only (for text whose control tokens are to be read as text).
    all: Option<Matcher>,
    user_defined: Option<Matcher>,
    /// Tokens that swallow the whitespace behind them.
    strip_right: HashSet<u32>,
}

#[derive(Debug)]
struct Matcher {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

impl Matcher {
    fn new(tokens: &[(Cow<str>, u32)]) -> Result<Option<Self>, TokenizerError> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|(text, _)| text.as_bytes()))
            .map_err(|error| TokenizerError::AddedTokens(error.to_string()))?;
        Ok(Some(Self { automaton, ids: tokens.iter().map(|&(_, id)| id).collect() }))
    }
}

/// The most bytes all added tokens together may have. Gemma 3, with the most of all known models, has 70 kB; the automaton
/// takes a small multiple of it.
const ADDED_BYTES_MAX: usize = 4 << 20;

impl AddedTokens {
    /// Takes the tokens in order of their ids; of equal names the first counts. Kinds other than control, unknown and
    /// user-defined are passed over.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = (Cow<'a, str>, u32, Kind)>) -> Result<Self, TokenizerError> {
        let mut by_name = HashMap::new();
        let mut all: Vec<(Cow<str>, u32)> = Vec::new();
        let mut user_defined: Vec<(Cow<str>, u32)> = Vec::new();
        let mut bytes = 0usize;
        for (text, id, kind) in tokens {
            if text.is_empty() || !(kind.is_special() || kind == Kind::UserDefined) || by_name.contains_key(&*text) {
                continue;
            }
            bytes += text.len();
            if bytes > ADDED_BYTES_MAX {
                return Err(TokenizerError::AddedTokens(format!("more than {ADDED_BYTES_MAX} bytes of added tokens")));
            }
            by_name.insert(text.to_string(), id);
            if kind == Kind::UserDefined {
                user_defined.push((text.clone(), id));
            }
            all.push((text, id));
        }
        Ok(Self {
            all: Matcher::new(&all)?,
            user_defined: Matcher::new(&user_defined)?,
            by_name,
            strip_right: HashSet::new(),
        })
    }

    /// Makes `id` swallow the whitespace that follows it.
    pub(super) fn strip_right_of(&mut self, id: u32) {
        self.strip_right.insert(id);
    }

    /// The id of the added token `name`.
    pub(super) fn id(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Cuts `text` at its added tokens, control tokens only where `control` says so. Texts are never empty.
    pub(super) fn split<'a>(&self, text: &'a str, control: bool, mut take: impl FnMut(Fragment<'a>)) {
        let matcher = if control { &self.all } else { &self.user_defined };
        let mut at = 0;
        if let Some(matcher) = matcher {
            for found in matcher.automaton.find_iter(text) {
                if found.start() > at {
                    take(Fragment::Text(&text[at..found.start()]));
                }
                let id = matcher.ids[found.pattern().as_usize()];
                take(Fragment::Token(id));
                at = found.end();
                if self.strip_right.contains(&id) {
                    at = text.len() - text[at..].trim_start().len();
                }
            }
        }
        if at < text.len() {
            take(Fragment::Text(&text[at..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments<'a>(added: &AddedTokens, text: &'a str, control: bool) -> Vec<Fragment<'a>> {
        let mut out = Vec::new();
        added.split(text, control, |fragment| out.push(fragment));
        out
    }

    #[test]
    fn splits_leftmost_longest() {
        let tokens = [("<a>", 7, Kind::Control), ("<a><b>", 8, Kind::Control), ("\n\n", 9, Kind::UserDefined)];
        let tokens = tokens.into_iter().map(|(text, id, kind)| (text.into(), id, kind));
        let mut added = AddedTokens::new(tokens).unwrap();
        use Fragment::{Text, Token};
        assert_eq!(fragments(&added, "x<a><b>\n\n\n<a>", true), [Text("x"), Token(8), Token(9), Text("\n"), Token(7)]);
        assert_eq!(fragments(&added, "<a>\n\n", false), [Text("<a>"), Token(9)]);
        assert_eq!(fragments(&added, "", true), []);
        added.strip_right_of(7);
        assert_eq!(fragments(&added, "<a> \n b<a> ", true), [Token(7), Text("b"), Token(7)]);
    }

    #[test]
    fn bytes_of_ids() {
        let mut vocabulary = Vocabulary::default();
        vocabulary.push(b"ab", Kind::Normal);
        vocabulary.push(b"", Kind::Unused);
        vocabulary.push(b"\xff", Kind::Byte);
        assert_eq!([vocabulary.bytes(0), vocabulary.bytes(1), vocabulary.bytes(2)], [&b"ab"[..], b"", b"\xff"]);
        assert_eq!((vocabulary.bytes(3), vocabulary.bytes(u32::MAX)), (&b""[..], &b""[..]));
        assert_eq!(vocabulary.kind(9), Kind::Unused);
    }
}
