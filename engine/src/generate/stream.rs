//! A stream of token ids as a stream of text: characters are never split, and generation stops at stop strings.
//!
//! In: ids, one by one. Out: text that may be shown at once, because no later id can change it. What may still change is
//! held back: bytes that do not end a character yet, and text that may be the beginning of a stop string.

use std::sync::Arc;

use super::Tokenizer;

/// What a stream of text leaves out and where it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// The text ends before the first of these strings. Empty ones are ignored.
    pub stop: Vec<String>,
    /// Show control tokens by name instead of leaving them out.
    pub show_special: bool,
    /// The text continues a prompt: a leading space belongs to it even where the tokenizer puts one before every text.
    pub continues: bool,
}

/// Turns ids into text.
#[derive(Debug)]
pub struct StreamDecoder {
    tokenizer: Arc<Tokenizer>,
    options: StreamOptions,
    /// Bytes that do not end a character yet: at most three.
    bytes: Vec<u8>,
    /// Text held back since it may begin a stop string.
    held: String,
    /// The next bytes are the first.
    at_start: bool,
    stopped: Option<usize>,
}

impl StreamDecoder {
    /// A stream that has seen nothing yet.
    pub fn new(tokenizer: Arc<Tokenizer>, mut options: StreamOptions) -> Self {
        options.stop.retain(|stop| !stop.is_empty());
        Self { tokenizer, options, bytes: Vec::new(), held: String::new(), at_start: true, stopped: None }
    }

    /// Takes the next id. Returns the text that is certain by now, if any; nothing after a stop string.
    pub fn push(&mut self, id: u32) -> Option<String> {
        if self.stopped.is_some() || (self.tokenizer.is_special(id) && !self.options.show_special) {
            return None;
        }
        let mut bytes = self.tokenizer.token_bytes(id);
        if self.at_start && !bytes.is_empty() {
            self.at_start = false;
            if self.tokenizer.has_space_prefix() && !self.options.continues {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
        }
        self.bytes.extend_from_slice(bytes);
        take_characters(&mut self.bytes, &mut self.held);
        self.release(false)
    }

    /// Ends the stream: returns what was held back, unfinished characters as U+FFFD. The stream must not be used further.
    pub fn finish(&mut self) -> Option<String> {
        if self.stopped.is_some() {
            return None;
        }
        self.held.push_str(&String::from_utf8_lossy(&self.bytes));
        self.bytes.clear();
        self.release(true)
    }

    /// The stop string that ended the text.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.map(|index| self.options.stop[index].as_str())
    }

    /// Takes from the held text what is certain.
    fn release(&mut self, all: bool) -> Option<String> {
        let stops = self.options.stop.iter().enumerate();
        // The stop string that begins first ends the text; of several that begin there, the one listed first.
        let found = stops.filter_map(|(index, stop)| Some((self.held.find(stop)?, index))).min();
        let certain = match found {
            Some((at, index)) => {
                self.stopped = Some(index);
                at
            }
            None if all => self.held.len(),
            None => self.held.len() - self.longest_open_stop(),
        };
        let rest = self.held.split_off(certain);
        let text = std::mem::replace(&mut self.held, rest);
        if self.stopped.is_some() {
            self.held.clear();
            self.bytes.clear();
        }
        (!text.is_empty()).then_some(text)
    }

    /// Length of the longest end of the held text that begins, but does not complete, a stop string.
    fn longest_open_stop(&self) -> usize {
        let open = |stop: &String| {
            let most = stop.len().saturating_sub(1).min(self.held.len());
            (1..=most)
                .rev()
                .find(|&length| stop.is_char_boundary(length) && self.held.ends_with(&stop[..length]))
                .unwrap_or(0)
        };
        self.options.stop.iter().map(open).max().unwrap_or(0)
    }
}

/// Moves all complete characters from `bytes` to `text`, each run of bytes that can be no character as U+FFFD.
fn take_characters(bytes: &mut Vec<u8>, text: &mut String) {
    let mut unfinished = 0;
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        if chunks.peek().is_none() && could_begin_character(invalid) {
            unfinished = invalid.len();
        } else if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    bytes.drain(..bytes.len() - unfinished);
}

/// True if more bytes could make a character of these, which are a maximal invalid run at the end of the input.
fn could_begin_character(bytes: &[u8]) -> bool {
    // The standard library reports an unfinished but so far valid sequence as an error without a length.
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use crate::format::Meta;

    use super::*;

    /// A vocabulary of bytes and one control token, 256.
    fn tokenizer() -> Arc<Tokenizer> {
        let meta = Meta::HuggingFace {
            config: json!({"vocab_size": 257, "tokenizer_class": "bytes"}),
            generation: None,
            tokenizer_json: None,
            tokenizer_config: Some(json!({"added_tokens_decoder": {"256": {"content": "<end>", "special": true}}})),
            st_metadata: Default::default(),
        };
        Arc::new(Tokenizer::from_meta(&meta).unwrap())
    }

    fn stream(stop: &[&str]) -> StreamDecoder {
        let stop = stop.iter().map(|&stop| stop.to_owned()).collect();
        StreamDecoder::new(tokenizer(), StreamOptions { stop, ..StreamOptions::default() })
    }

    /// The pieces that come out for the bytes that go in, and what the end adds.
    fn run(stream: &mut StreamDecoder, bytes: &[u8]) -> (Vec<Option<String>>, Option<String>) {
        (bytes.iter().map(|&byte| stream.push(byte.into())).collect(), stream.finish())
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn characters_come_whole() {
        let (pieces, end) = run(&mut stream(&[]), "aé😀".as_bytes());
        assert_eq!(pieces, [some("a"), None, some("é"), None, None, None, some("😀")]);
        assert_eq!(end, None);
    }

    #[test]
    fn broken_bytes_become_replacement_characters_at_once_unfinished_ones_at_the_end() {
        let (pieces, end) = run(&mut stream(&[]), b"\xff\xc3a\xf0\x9f");
        assert_eq!(pieces, [some("\u{fffd}"), None, some("\u{fffd}a"), None, None]);
        assert_eq!(end, some("\u{fffd}"));
    }

    #[test]
    fn stop_strings_end_the_text() {
        let mut stream = stream(&["abcd", "\n\n", ""]);
        let (pieces, end) = run(&mut stream, "xabcabcdef".as_bytes());
        let x = some("x");
        assert_eq!(pieces, [x, None, None, None, some("abc"), None, None, None, None, None]);
        assert_eq!((end, stream.stopped()), (None, Some("abcd")));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_comes_at_the_end() {
        let mut stream = stream(&["ab😀"]);
        let (pieces, end) = run(&mut stream, "zab".as_bytes());
        assert_eq!((pieces, end), (vec![some("z"), None, None], some("ab")));
        assert_eq!(stream.stopped(), None);
    }

    #[test]
    fn control_tokens_are_left_out_or_shown() {
        assert_eq!(stream(&[]).push(256), None);
        let options = StreamOptions { show_special: true, ..StreamOptions::default() };
        assert_eq!(StreamDecoder::new(tokenizer(), options).push(256), some("<end>"));
        assert_eq!(stream(&[]).push(u32::MAX), None);
    }

    proptest! {
        /// The pieces add up to the text before its first stop string.
        #[test]
        fn pieces_add_up(text in "[ab\u{e9}\u{1f600}\n]{0,40}", stops in prop::collection::vec("[ab\u{e9}\n]{1,4}", 0..4)) {
            let stop: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (pieces, end) = run(&mut stream(&stop), text.as_bytes());
            let streamed: String = pieces.into_iter().flatten().chain(end).collect();
            // The end of a stop string decides: a stop string that begins earlier but ends later comes too late.
            let ends = |stop: &&str| text.match_indices(stop).map(|(at, found)| at + found.len()).min();
            let expected = match stop.iter().filter_map(ends).min() {
                None => text.as_str(),
                Some(end) => {
                    let starts = stop.iter().filter(|stop| text[..end].ends_with(**stop)).map(|stop| end - stop.len());
                    &text[..starts.min().unwrap_or(end)]
                }
            };
            prop_assert_eq!(streamed, expected);
        }

        /// Any bytes come out as the standard library would decode them.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let (pieces, end) = run(&mut stream(&[]), &bytes);
            let streamed: String = pieces.into_iter().flatten().chain(end).collect();
            prop_assert_eq!(streamed, String::from_utf8_lossy(&bytes));
        }
    }
}
