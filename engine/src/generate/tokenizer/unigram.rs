//! Unigram language model: the segmentation with the highest sum of piece scores (T5, XLM-RoBERTa).

use super::charsmap::CharsMap;

/// Score of an unknown character, below that of the worst piece.
const UNKNOWN_PENALTY: f64 = 10.0;
/// The longest piece in bytes: bounds the work per character.
pub(super) const PIECE_BYTES_MAX: usize = 1024;

/// A piece: its bytes (spaces as spaces, not as U+2581), score and id.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Box<[u8]>,
    pub(super) score: f64,
    pub(super) id: u32,
}

/// A unigram model with SentencePiece's normalization before it.
#[derive(Debug)]
pub(super) struct Unigram {
    /// Sorted by bytes.
    pieces: Vec<Piece>,
    unknown_score: f64,
    /// Stands for a run of unknown characters where there are no byte tokens.
    pub(super) unknown: Option<u32>,
    /// Tokens of single bytes; all 256 or none.
    pub(super) bytes: Option<Box<[u32; 256]>>,
    pub(super) charsmap: Option<CharsMap>,
    /// Spaces at the ends go, runs of them become one.
    pub(super) remove_extra_whitespace: bool,
    /// A space is put before every text that has anything in it.
    pub(super) add_space_prefix: bool,
}

/// The best way to a place in the text: its score and its last step, which begins at `start`.
#[derive(Clone, Copy)]
struct Step {
    score: f64,
    start: usize,
    /// `None`: an unknown character.
    id: Option<u32>,
}

impl Unigram {
    /// A model without normalization, byte tokens or a token for the unknown.
    pub(super) fn new(mut pieces: Vec<Piece>) -> Self {
        pieces.sort_by(|a, b| a.bytes.cmp(&b.bytes));
        let worst = pieces.iter().map(|piece| piece.score).fold(f64::INFINITY, f64::min);
        Self {
            unknown_score: worst - UNKNOWN_PENALTY,
            pieces,
            unknown: None,
            bytes: None,
            charsmap: None,
            remove_extra_whitespace: false,
            add_space_prefix: false,
        }
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let text = self.normalize(text);
        let bytes = text.as_bytes();
        let unreached = Step { score: f64::NEG_INFINITY, start: usize::MAX, id: None };
        let mut best = vec![unreached; bytes.len() + 1];
        best[0].score = 0.0;
        for (start, character) in text.char_indices() {
            let score = best[start].score;
            let single = character.len_utf8();
            let mut known = false;
            self.prefixes(&bytes[start..], |piece| {
                let length = piece.bytes.len();
                known |= length == single;
                improve(&mut best[start + length], score + piece.score, start, Some(piece.id));
            });
            if !known {
                improve(&mut best[start + single], score + self.unknown_score, start, None);
            }
        }
        let mut steps = Vec::new();
        let mut end = bytes.len();
        while end > 0 {
            // Every character boundary is reached, if need be by an unknown character.
            let Step { start, id, .. } = best[end];
            steps.push((start, end, id));
            end = start;
        }
        let mut after_unknown = false;
        for (start, end, id) in steps.into_iter().rev() {
            match (id, &self.bytes) {
                (Some(id), _) => out.push(id),
                (None, Some(ids)) => out.extend(bytes[start..end].iter().map(|&byte| ids[byte as usize])),
                (None, None) if after_unknown => {}
                (None, None) => out.extend(self.unknown),
            }
            after_unknown = id.is_none();
        }
    }

    fn normalize(&self, text: &str) -> String {
        let text = self.charsmap.as_ref().map_or_else(|| text.to_owned(), |map| map.apply(text));
        let text = text.replace('\u{2581}', " ");
        let mut out = String::with_capacity(text.len() + 1);
        if self.remove_extra_whitespace {
            for word in text.split(' ').filter(|word| !word.is_empty()) {
                if self.add_space_prefix || !out.is_empty() {
                    out.push(' ');
                }
                out.push_str(word);
            }
        } else if !text.is_empty() {
            if self.add_space_prefix {
                out.push(' ');
            }
            out.push_str(&text);
        }
        out
    }

    /// All pieces that `text` begins with, short ones first: the sorted pieces that agree in the first n bytes are one
    /// range, which narrows with n, and of which a piece of n bytes is the first.
    fn prefixes(&self, text: &[u8], mut take: impl FnMut(&Piece)) {
        let mut range = &self.pieces[..];
        for (index, &byte) in text.iter().enumerate() {
            let low = range.partition_point(|piece| piece.bytes.get(index).is_none_or(|&b| b < byte));
            let high = range.partition_point(|piece| piece.bytes.get(index).is_none_or(|&b| b <= byte));
            range = &range[low..high];
            let Some(first) = range.first() else { return };
            if first.bytes.len() == index + 1 {
                take(first);
            }
        }
    }
}

fn improve(step: &mut Step, score: f64, start: usize, id: Option<u32>) {
    if step.start == usize::MAX || score > step.score {
        *step = Step { score, start, id };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Unigram {
        let pieces =
            [("a", 0.0), ("b", 0.0), ("c", 0.0), ("d", 0.0), ("cd", 1.0), ("ab", 2.0), ("abc", 5.0), ("abcd", 10.0)];
        let piece = |(id, (text, score)): (usize, &(&str, f64))| Piece {
            bytes: text.as_bytes().into(),
            score: *score,
            id: id as u32,
        };
        Unigram { unknown: Some(99), ..Unigram::new(pieces.iter().enumerate().map(piece).collect()) }
    }

    fn encode(model: &Unigram, text: &str) -> Vec<u32> {
        let mut out = Vec::new();
        model.encode(text, &mut out);
        out
    }

    #[test]
    fn best_path_and_fused_unknowns() {
        assert_eq!(encode(&model(), "abcdacdxxé"), [7, 0, 4, 99]);
        assert!(encode(&model(), "").is_empty());
        assert!(encode(&Unigram::new(Vec::new()), "ab").is_empty());
    }

    #[test]
    fn whitespace() {
        let model = Unigram { remove_extra_whitespace: true, add_space_prefix: true, ..model() };
        assert_eq!(model.normalize("  a \u{2581} b "), " a b");
        assert_eq!(model.normalize("  "), "");
    }
}
