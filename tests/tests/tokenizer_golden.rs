//! Tokenizers against transformers' ids on texts that tokenizers get wrong (tests/golden/tokenizers/).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tersor_engine::format::{Checkpoint, Meta};
use tersor_engine::generate::{EncodeOptions, Tokenizer};
use tersor_tests::models;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/tokenizers")
}

/// What other libraries say about each text.
#[derive(Deserialize)]
struct Golden {
    /// With the tokens around a text, control tokens recognised (transformers).
    special: Vec<Vec<u32>>,
    /// Without either (transformers; for T5 sentencepiece).
    plain: Vec<Vec<u32>>,
    /// The text of `plain`.
    decoded: Vec<String>,
    /// T5: what transformers says about `plain`. It takes the names of control tokens for the tokens all the same.
    #[serde(rename = "crate", default)]
    plain_of_transformers: Vec<Vec<u32>>,
    /// T5: texts that sentencepiece and transformers normalize differently.
    #[serde(default)]
    differs: Vec<usize>,
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let path = folder().join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const SPECIAL: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };
const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

/// Compares ids and decoded text with what they should be; reports all texts that differ.
fn compare(name: &str, tokenizer: &Tokenizer, golden: &Golden) {
    let texts: Vec<String> = read("texts.json");
    assert!(tokenizer.notes().is_empty(), "{name}: {:?}", tokenizer.notes());
    assert_eq!(texts.len(), golden.special.len());
    let mut wrong = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let mut check = |what: &str, ids: Vec<u32>, expected: &[u32]| {
            if ids != expected {
                let pieces = |ids: &[u32]| -> Vec<String> {
                    ids.iter().map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()).collect()
                };
                let at = ids.iter().zip(expected).take_while(|(a, b)| a == b).count();
                let (ids, expected) = (pieces(&ids[at..]), pieces(&expected[at..]));
                wrong.push(format!("{what} {index} {text:?}\n  from {at}: {ids:?}\n  not {expected:?}"));
            }
        };
        if !golden.differs.contains(&index) {
            check("special", tokenizer.encode_with(text, SPECIAL).unwrap(), &golden.special[index]);
        }
        check("plain", tokenizer.encode_with(text, PLAIN).unwrap(), &golden.plain[index]);
        let decoded = tokenizer.decode(&golden.plain[index], true);
        if let Some(expected) = golden.decoded.get(index).filter(|&expected| *expected != decoded) {
            wrong.push(format!("decodes {index} to {decoded:?}\n  not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} differences:\n{}", wrong.len(), wrong.join("\n"));
}

fn from_gguf(name: &str) -> Tokenizer {
    let checkpoint = Checkpoint::open(&folder().join(format!("{name}.gguf"))).unwrap();
    Tokenizer::from_checkpoint(&checkpoint).unwrap()
}

/// The same tokenizer from a folder with nothing but `tokenizer.json`.
fn from_json(name: &str) -> Tokenizer {
    let meta = Meta::HuggingFace {
        config: serde_json::Value::Null,
        generation: None,
        tokenizer_json: Some(std::fs::read(folder().join(format!("{name}.json"))).unwrap()),
        tokenizer_config: None,
        st_metadata: BTreeMap::new(),
    };
    Tokenizer::from_meta(&meta).unwrap()
}

/// For T5 the crate agrees with transformers, not with sentencepiece.
fn as_transformers(mut golden: Golden) -> Golden {
    if !golden.plain_of_transformers.is_empty() {
        golden.plain = std::mem::take(&mut golden.plain_of_transformers);
        golden.differs.clear();
        golden.decoded.clear();
    }
    golden
}

macro_rules! golden {
    ($($name:ident),*) => {
        mod gguf { $(#[test] fn $name() {
            let name = stringify!($name);
            super::compare(name, &super::from_gguf(name), &super::read(&format!("{name}.ids.json")));
        })* }
        mod json { $(#[test] fn $name() {
            let name = stringify!($name);
            let golden = super::as_transformers(super::read(&format!("{name}.ids.json")));
            super::compare(name, &super::from_json(name), &golden);
        })* }
    };
}

golden!(gpt2, smollm, qwen2, tekken, gpt4o, llama3, llama2, gemma, t5, bert);

#[test]
fn smollm2() {
    let tokenizer = Tokenizer::from_checkpoint(&models::open("smollm2-135m")).unwrap();
    compare("SmolLM2", &tokenizer, &read("smollm2.ids.json"));
    let im_end = tokenizer.token_id("<|im_end|>");
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eos()), (49_152, Some(1), im_end));
    assert_eq!(tokenizer.ends().collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn minilm() {
    let tokenizer = Tokenizer::from_checkpoint(&models::open("minilm-l6")).unwrap();
    let file = |name| std::fs::read(folder().join("../minilm").join(name)).unwrap();
    let sentences: Vec<String> = serde_json::from_slice(&file("sentences.json")).unwrap();
    let ids: Vec<Vec<u32>> = serde_json::from_slice(&file("ids.json")).unwrap();
    assert_eq!(sentences.len(), ids.len());
    for (sentence, ids) in sentences.iter().zip(ids) {
        assert_eq!(tokenizer.encode(sentence, true).unwrap(), ids, "{sentence:?}");
    }
    let [cls, sep] = [101, 102];
    assert_eq!((tokenizer.before_text(), tokenizer.token_id("[SEP]"), tokenizer.bos()), (Some(cls), Some(sep), None));
}

#[test]
fn tiny() {
    let tokenizer = Tokenizer::from_checkpoint(&models::open("tiny")).unwrap();
    for text in read::<Vec<String>>("texts.json") {
        let ids = tokenizer.encode(&text, true).unwrap();
        assert_eq!(ids, text.bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!(tokenizer.decode(&ids, true), text);
    }
    assert_eq!((tokenizer.vocab_size(), tokenizer.ends().count()), (288, 0));
}
