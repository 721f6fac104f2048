//! Any bytes as a tokenizer, alternately a `tokenizer.json` and the metadata of a GGUF file, which then encodes and decodes
//! text that tokenizers stumble over.
#![no_main]

use std::collections::BTreeMap;

use serde_json::Value;
use tersor_engine::format::{Checkpoint, Meta};
use tersor_engine::generate::Tokenizer;

const TEXT: &str = "naïve 🦀🏳️‍🌈 漢字\r\n\t  let x = [1,2];\u{0}\u{ad}\u{200b} <|im_start|> ½ ﬁ\u{301} 1234567";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let tokenizer = if bytes.starts_with(b"GGUF") {
        let Ok(checkpoint) = Checkpoint::from_files(vec![("fuzz.gguf".to_owned(), bytes.to_vec())]) else {
            return;
        };
        Tokenizer::from_checkpoint(&checkpoint)
    } else {
        Tokenizer::from_meta(&Meta::HuggingFace {
            config: Value::Null,
            generation: None,
            tokenizer_json: Some(bytes.to_vec()),
            tokenizer_config: None,
            st_metadata: BTreeMap::new(),
        })
    };
    if let Ok(tokenizer) = tokenizer
        && let Ok(ids) = tokenizer.encode(TEXT, true)
    {
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "an id beyond the vocabulary");
        std::hint::black_box(tokenizer.decode(&ids, false));
    }
});
