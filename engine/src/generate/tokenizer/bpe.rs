//! Byte pair encoding: neighbouring symbols are merged, the best pair first, until no pair is a token.
//!
//! Two dialects share the merging. *Byte-level* (GPT-2, Llama 3, Qwen, SmolLM): symbols are bytes, the order comes from a
//! list of merges, and a pre-tokenizer has cut the text into words. *SentencePiece* (Llama 2, Mistral, Gemma): symbols are
//! characters, the token with the highest score comes first, and a text is one word.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::pretokenize::PreTokenizer;

/// No neighbour, no token.
const NONE: u32 = u32::MAX;

/// Part `start..end` of the text, its token (if it is one) and its neighbours. A symbol merged into its left neighbour is
/// left empty.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: u32,
    end: u32,
    id: u32,
    prev: u32,
    next: u32,
}

/// A list of symbols under construction.
#[derive(Debug, Default)]
struct Word {
    symbols: Vec<Symbol>,
}

/// A pair that may be merged: `(rank, left symbol)` order the heap, the ends tell whether the pair is still there.
type Candidate = (Reverse<(u32, u32)>, u32, u32, u32);

impl Word {
    /// Appends `start..end`, which is token `id` or [`NONE`].
    fn push(&mut self, start: usize, end: usize, id: u32) {
        let at = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        let prev = at.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { start: start as u32, end: end as u32, id, prev, next: NONE });
    }

    /// Merges pairs, the lowest rank first, the leftmost among equals. `rule` tells a pair's rank and the id it becomes.
    fn merge(&mut self, rule: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let symbols = &mut self.symbols;
        let candidate = |symbols: &[Symbol], left: u32, right: u32| -> Option<Candidate> {
            let (a, b) = (&symbols[left as usize], &symbols[right as usize]);
            let (rank, id) = rule(a, b)?;
            Some((Reverse((rank, left)), a.end, b.end, id))
        };
        let mut heap: BinaryHeap<Candidate> =
            (1..symbols.len() as u32).filter_map(|right| candidate(symbols, right - 1, right)).collect();
        while let Some((Reverse((_, left)), middle, end, id)) = heap.pop() {
            let a = symbols[left as usize];
            // One of the two has been merged with something else since, or is gone.
            if a.end != middle || a.start == a.end || a.next == NONE || symbols[a.next as usize].end != end {
                continue;
            }
            let b = symbols[a.next as usize];
            symbols[a.next as usize].end = b.start;
            symbols[left as usize] = Symbol { end, id, next: b.next, ..a };
            if b.next != NONE {
                symbols[b.next as usize].prev = left;
                heap.extend(candidate(symbols, left, b.next));
            }
            if a.prev != NONE {
                heap.extend(candidate(symbols, a.prev, left));
            }
        }
        symbols.retain(|symbol| symbol.start != symbol.end);
    }
}

/// What pairs of tokens become: `(left, right)` → `(rank, merged)`.
pub(super) type Merges = HashMap<(u32, u32), (u32, u32)>;

/// Byte-level BPE.
#[derive(Debug)]
pub(super) struct ByteLevel {
    pub(super) pre_tokenizer: PreTokenizer,
    /// Token of each byte. Some vocabularies lack bytes that their training text lacked (SmolLM2 has no `0x04`): such
    /// bytes are dropped, as Hugging Face's tokenizers do.
    pub(super) bytes: Box<[Option<u32>; 256]>,
    pub(super) merges: Merges,
    /// Tokens that are taken whole where a word equals one, whatever the merges say (Llama 3).
    pub(super) whole_words: Option<HashMap<Box<[u8]>, u32>>,
}

impl ByteLevel {
    /// Tokens 0 to 255 are the bytes, and there is nothing to merge.
    pub(super) fn bytes() -> Self {
        Self {
            pre_tokenizer: PreTokenizer::none(),
            bytes: Box::new(std::array::from_fn(|byte| Some(byte as u32))),
            merges: HashMap::new(),
            whole_words: None,
        }
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let mut word = Word::default();
        self.pre_tokenizer.split(text, |piece| {
            if let Some(&id) = self.whole_words.as_ref().and_then(|words| words.get(piece.as_bytes())) {
                out.push(id);
                return;
            }
            word.symbols.clear();
            for (at, &byte) in piece.as_bytes().iter().enumerate() {
                if let Some(id) = self.bytes[byte as usize] {
                    word.push(at, at + 1, id);
                }
            }
            word.merge(|a, b| self.merges.get(&(a.id, b.id)).copied());
            out.extend(word.symbols.iter().map(|symbol| symbol.id));
        });
    }
}

/// SentencePiece BPE.
#[derive(Debug)]
pub(super) struct SentencePiece {
    /// Piece → id, spaces as spaces (not as U+2581).
    pub(super) pieces: HashMap<Box<[u8]>, u32>,
    /// Place of each id when sorted by falling score; equal scores share a place.
    pub(super) ranks: Vec<u32>,
    /// Length of the longest piece in bytes.
    pub(super) longest: usize,
    /// Tokens of single bytes, for characters that are no piece; all 256 or none.
    pub(super) bytes: Option<Box<[u32; 256]>>,
    /// Stands for a run of characters that are no piece, where there are no byte tokens.
    pub(super) unknown: Option<u32>,
    /// A space is put before every text.
    pub(super) add_space_prefix: bool,
}

impl SentencePiece {
    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        // U+2581 is how SentencePiece writes a space, so the two are one to it.
        let prefix = if self.add_space_prefix { " " } else { "" };
        let text = format!("{prefix}{}", text.replace('\u{2581}', " "));
        let bytes = text.as_bytes();
        let piece = |start: usize, end: usize| {
            if end - start > self.longest { None } else { self.pieces.get(&bytes[start..end]).copied() }
        };
        let mut word = Word::default();
        for (start, character) in text.char_indices() {
            let end = start + character.len_utf8();
            word.push(start, end, piece(start, end).unwrap_or(NONE));
        }
        word.merge(|a, b| {
            let id = piece(a.start as usize, b.end as usize)?;
            Some((self.ranks[id as usize], id))
        });
        let mut after_unknown = false;
        for symbol in &word.symbols {
            let known = symbol.id != NONE;
            if known {
                out.push(symbol.id);
            } else if let Some(ids) = &self.bytes {
                let part = &bytes[symbol.start as usize..symbol.end as usize];
                out.extend(part.iter().map(|&byte| ids[byte as usize]));
            } else if !after_unknown {
                out.extend(self.unknown);
            }
            after_unknown = !known;
        }
    }
}

/// Ranks of scores: 0 for the highest, equal scores alike. The scores are finite.
pub(super) fn ranks(scores: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
    let mut ranks = vec![0; scores.len()];
    let mut rank = 0;
    for pair in order.windows(2) {
        rank += u32::from(scores[pair[0] as usize] != scores[pair[1] as usize]);
        ranks[pair[1] as usize] = rank;
    }
    ranks
}

/// GPT-2's printable stand-ins for bytes: ASCII and Latin-1 letters and signs stand for themselves, the other 68 bytes are
/// numbered from U+0100. Returns the byte of a stand-in.
pub(super) fn byte_of_stand_in(character: char) -> Option<u8> {
    let code = character as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The bytes a byte-level token's printable form stands for; `None` if it holds a character that stands for no byte.
pub(super) fn bytes_of_stand_ins(text: &str, out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    for character in text.chars() {
        out.push(byte_of_stand_in(character)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_cover_all_bytes_once() {
        let mut seen = [false; 256];
        for code in 0..0x200 {
            if let Some(byte) = byte_of_stand_in(char::from_u32(code).unwrap()) {
                assert!(!std::mem::replace(&mut seen[byte as usize], true), "{byte}");
            }
        }
        assert!(seen.iter().all(|&seen| seen));
        assert_eq!((byte_of_stand_in('Ġ'), byte_of_stand_in('Ċ')), (Some(b' '), Some(b'\n')));
    }

    #[test]
    fn equal_scores_share_a_rank() {
        assert_eq!(ranks(&[-1.0, 0.0, -1.0, -0.0, 5.0]), [2, 1, 2, 1, 0]);
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn merges_best_pair_first_and_leftmost_among_equals() {
        let mut word = Word::default();
        for at in 0..5 {
            word.push(at, at + 1, 0);
        }
        // aaaaa with aa and aaaa as tokens: (aa)(aa)a, then (aaaa)a.
        word.merge(|a, b| match (a.id, b.id) {
            (0, 0) => Some((0, 1)),
            (1, 1) => Some((1, 2)),
            _ => None,
        });
        assert_eq!(word.symbols.iter().map(|s| (s.id, s.start, s.end)).collect::<Vec<_>>(), [(2, 0, 4), (0, 4, 5)]);
    }
}
