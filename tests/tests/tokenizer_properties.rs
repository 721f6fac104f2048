//! What holds for any text: encoding loses nothing, and a stream of ids is the text of its ids.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use tersor_engine::format::Checkpoint;
use tersor_engine::generate::{EncodeOptions, StreamDecoder, StreamOptions, Tokenizer};

/// A tokenizer that was trained for tests/golden/tokenizers/.
struct Kind {
    name: &'static str,
    tokenizer: Arc<Tokenizer>,
}

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/tokenizers");
    let load = |name| {
        let checkpoint = Checkpoint::open(&folder.join(format!("{name}.gguf"))).unwrap();
        Kind { name, tokenizer: Arc::new(Tokenizer::from_checkpoint(&checkpoint).unwrap()) }
    };
    ["gpt2", "tekken", "gpt4o", "llama3", "llama2", "gemma"].map(load).into()
});

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

/// Any text, with much of what words, white space and control tokens are made of.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z' ]{1,8}",
        2 => "[ \t\r\n]{1,5}",
        2 => "[0-9.,!?<>|/]{1,5}",
        1 => "<\\|im_end\\|>|<s>|</s>|<tool>|<\\|eot_id\\|>|<end_of_turn>|<b>|<0x41>",
        2 => "\\PC{1,4}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost(text in texts()) {
        for Kind { name, tokenizer } in KINDS.iter() {
            // To SentencePiece U+2581 is a space.
            let spaced = matches!(*name, "llama2" | "gemma");
            let expected = if spaced { text.replace('\u{2581}', " ") } else { text.clone() };
            let ids = tokenizer.encode_with(&text, PLAIN).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids, false), &expected, "{}", name);
            prop_assert!(ids.iter().all(|&id| !tokenizer.is_special(id)), "{}: text became a control token", name);
        }
    }

    /// With control tokens recognised, too, unless a space was put in front of the text behind one.
    #[test]
    fn control_tokens_come_back_by_name(text in texts()) {
        for Kind { name, tokenizer } in KINDS.iter().filter(|kind| !matches!(kind.name, "llama2" | "gemma")) {
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids, false), &text, "{}", name);
        }
    }

    #[test]
    fn a_stream_is_the_text_of_its_ids(ids in prop::collection::vec(0u32..1010, 0..30), skip in any::<bool>()) {
        for Kind { name, tokenizer } in KINDS.iter() {
            let options = StreamOptions { show_special: !skip, ..StreamOptions::default() };
            let mut stream = StreamDecoder::new(Arc::clone(tokenizer), options);
            let mut streamed = String::new();
            for &id in &ids {
                let piece = stream.push(id);
                prop_assert!(piece.as_ref().is_none_or(|piece| !piece.is_empty()), "{}: an empty piece", name);
                streamed.extend(piece);
            }
            streamed.extend(stream.finish());
            prop_assert_eq!(&streamed, &tokenizer.decode(&ids, skip), "{}", name);
        }
    }
}
