//! Damaged and malicious vocabularies, read under a memory cap and a clock (see `tersor_tests::hostile`): each must give an
//! error, or a tokenizer and a chat template that hold their promises on any text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tersor_engine::format::{Checkpoint, GgufArray, GgufMetadata, GgufValue, Meta};
use tersor_engine::generate::{ChatTemplate, EncodeOptions, Message, StreamDecoder, StreamOptions, Tokenizer};
use tersor_tests::checksum::Lcg;
use tersor_tests::hostile::{Cage, in_a_cage, json_lies, wounds};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/tokenizers")
}

const TEXTS: [&str; 5] = [
    "",
    "Hello, world! It's 1234 o'clock\r\n\n  \tx",
    "<|im_end|></s>[SEP]<0x0A> \u{2581}\u{2581} \u{120}",
    "\u{0}\u{1f600}\u{200d}\u{301}e\u{301}\u{6f22}\u{ac00}\u{fe0f}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// Uses all that a tokenizer offers. What was accepted must keep its promises: a broken one is a panic.
fn exercise(meta: &Meta) -> Result<(), String> {
    if let Ok(template) = ChatTemplate::from_meta(meta) {
        std::hint::black_box(template.render(&[Message::new("user", "hi"), Message::new("assistant", "ho")], true))
            .ok();
    }
    let tokenizer = Arc::new(Tokenizer::from_meta(meta).map_err(|error| error.to_string())?);
    let size = tokenizer.vocab_size() as u32;
    let special = [tokenizer.bos(), tokenizer.eos(), tokenizer.end_of_turn(), tokenizer.unknown(), tokenizer.padding()];
    for id in special.into_iter().flatten().chain(tokenizer.ends()) {
        assert!(id < size, "a special token is none of the vocabulary's");
    }
    for text in TEXTS {
        for (add_special, parse_special) in [(true, true), (false, false)] {
            let options = EncodeOptions { add_special, parse_special };
            // A tokenizer.json may lack what it needs for a text; the crate says so.
            let Ok(ids) = tokenizer.encode_with(text, options) else { continue };
            assert!(ids.iter().all(|&id| id < size), "an id is out of range");
            let decoded = tokenizer.decode(&ids, true);
            let stop = vec!["o".to_owned(), "\u{301}\u{6f22}".to_owned()];
            for options in [StreamOptions::default(), StreamOptions { stop, ..StreamOptions::default() }] {
                let whole = options.stop.is_empty();
                let mut stream = StreamDecoder::new(Arc::clone(&tokenizer), options);
                let mut streamed: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
                streamed.extend(stream.finish());
                assert!(if whole { streamed == decoded } else { decoded.starts_with(&streamed) });
            }
        }
    }
    std::hint::black_box(tokenizer.decode(&[0, size, u32::MAX], false));
    Ok(())
}

fn metadata(name: &str) -> GgufMetadata {
    match Checkpoint::open(&folder().join(format!("{name}.gguf"))).expect("golden files can be read").meta() {
        Meta::Gguf(metadata) => metadata.clone(),
        Meta::HuggingFace { .. } => unreachable!("a GGUF file"),
    }
}

const KINDS: [&str; 10] = ["gpt2", "smollm", "qwen2", "tekken", "gpt4o", "llama3", "llama2", "gemma", "t5", "bert"];

/// A value that has no business being there.
fn strange(lcg: &mut Lcg) -> GgufValue {
    match lcg.below(14) {
        0 => GgufValue::U32(u32::MAX),
        1 => GgufValue::U64(1 << 40),
        2 => GgufValue::I32(-1),
        3 => GgufValue::F32(f32::NAN),
        4 => GgufValue::Bool(lcg.below(2) == 0),
        5 => GgufValue::Str(String::new()),
        6 => GgufValue::Str(["llama", "gpt2", "bert", "t5", "bytes", "rwkv"][lcg.below(6)].to_owned()),
        7 => GgufValue::Str(["qwen2", "default", "llama-bpe", "?"][lcg.below(4)].to_owned()),
        8 => GgufArray::Str(Vec::new()).into(),
        9 => GgufArray::Str(vec!["a".to_owned(); lcg.below(300)]).into(),
        10 => GgufArray::F32(vec![f32::INFINITY; lcg.below(1200)]).into(),
        11 => GgufArray::I32(vec![-3; lcg.below(1200)]).into(),
        12 => GgufArray::U8((0..lcg.below(4000)).map(|_| lcg.byte()).collect()).into(),
        _ => GgufValue::U32(lcg.below(1200) as u32),
    }
}

/// Damages one element, the order or the length of an array.
fn damage(array: &mut GgufArray, lcg: &mut Lcg) {
    fn shuffle<T: Clone>(values: &mut Vec<T>, lcg: &mut Lcg) {
        if values.is_empty() {
            return;
        }
        let (a, b) = (lcg.below(values.len()), lcg.below(values.len()));
        match lcg.below(5) {
            0 => values.swap(a, b),
            1 => values.truncate(a),
            2 => values[a] = values[b].clone(),
            3 => values.push(values[a].clone()),
            _ => drop(values.remove(a)),
        }
    }
    let place = lcg.below(array.len().max(1));
    match array {
        GgufArray::Str(values) if lcg.below(2) == 0 && !values.is_empty() => {
            values[place] = match lcg.below(7) {
                0 => String::new(),
                1 => "x".repeat(100_000),
                2 => " ".to_owned(),
                3 => "\u{2581}".repeat(9),
                4 => format!("{} {}", values[lcg.below(values.len())], values[place]),
                5 => "<0x41>".to_owned(),
                _ => "\u{0}\u{10ffff}".to_owned(),
            };
        }
        GgufArray::F32(values) if lcg.below(2) == 0 && !values.is_empty() => {
            values[place] = [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN, -0.0][lcg.below(5)];
        }
        GgufArray::I32(values) if lcg.below(2) == 0 && !values.is_empty() => {
            values[place] = [0, 2, 3, 4, 5, 6, 7, -1, i32::MAX][lcg.below(9)];
        }
        GgufArray::U8(values) if lcg.below(2) == 0 && !values.is_empty() => values[place] = lcg.byte(),
        GgufArray::Str(values) => shuffle(values, lcg),
        GgufArray::F32(values) => shuffle(values, lcg),
        GgufArray::I32(values) => shuffle(values, lcg),
        GgufArray::U8(values) => shuffle(values, lcg),
        _ => {}
    }
}

fn mutated(seed: &GgufMetadata, lcg: &mut Lcg) -> GgufMetadata {
    let mut metadata = seed.clone();
    let keys: Vec<String> =
        seed.iter().map(|(key, _)| key.to_owned()).filter(|key| key.starts_with("tokenizer.")).collect();
    for _ in 0..=lcg.below(3) {
        let key = &keys[lcg.below(keys.len())];
        match metadata.get(key).cloned() {
            Some(GgufValue::Array(mut array)) if lcg.below(4) > 0 => {
                for _ in 0..=lcg.below(20) {
                    damage(&mut array, lcg);
                }
                metadata.set(key.as_str(), array);
            }
            Some(_) if lcg.below(4) == 0 => drop(metadata.remove(key)),
            _ => metadata.set(key.as_str(), strange(lcg)),
        }
    }
    metadata
}

/// Vocabularies that no mutation finds.
fn crafted(mut run: impl FnMut(&str, GgufMetadata)) {
    const MANY: usize = 1_000_000;
    let with = |model: &str, tokens: Vec<String>, more: Vec<(&str, GgufValue)>| {
        let mut metadata = GgufMetadata::new();
        metadata.set("tokenizer.ggml.model", model);
        metadata.set("tokenizer.ggml.tokens", GgufArray::Str(tokens));
        more.into_iter().for_each(|(key, value)| metadata.set(format!("tokenizer.ggml.{key}"), value));
        metadata
    };
    let bytes =
        || (0..256u32).map(|byte| char::from_u32(if byte < 0x21 { byte + 0x100 } else { byte }).unwrap().to_string());
    let letters: Vec<String> = bytes().collect();
    let merges = |list: Vec<String>| vec![("merges", GgufArray::Str(list).into())];
    run("no merges", with("gpt2", letters.clone(), merges(Vec::new())));
    let tokens: Vec<String> = letters.iter().cloned().chain((1..1000).map(|n| "a".repeat(n + 1))).collect();
    let chain = (1..1000).map(|n| format!("{} a", "a".repeat(n))).collect();
    run("a chain of merges", with("gpt2", tokens.clone(), merges(chain)));
    run("a million equal merges", with("gpt2", tokens.clone(), merges(vec!["a a".to_owned(); MANY])));
    let pairs = (0..MANY).map(|n| format!("{} {}", "a".repeat(n % 499 + 1), "a".repeat(n / 499 % 499 + 1))).collect();
    run("a million merges", with("gpt2", tokens.clone(), merges(pairs)));
    for line in ["", " ", "a", "a ", " a", "a b", "a  a", "a a a", "\u{1} a"] {
        run("a strange merge", with("gpt2", tokens.clone(), merges(vec![line.to_owned()])));
    }
    let numbers: Vec<String> = (0..MANY).map(|n| format!("<{n}>")).collect();
    let scores = |count: usize| ("scores", GgufArray::F32(vec![0.0; count]).into());
    let types = |kind: i32, count: usize| ("token_type", GgufArray::I32(vec![kind; count]).into());
    run("a million tokens", with("llama", numbers.clone(), vec![scores(MANY)]));
    run("a million control tokens", with("llama", numbers.clone(), vec![scores(MANY), types(3, MANY)]));
    run("a million empty tokens", with("llama", vec![String::new(); MANY], vec![scores(MANY)]));
    run("a million byte tokens", with("t5", numbers, vec![scores(MANY), types(6, MANY)]));
    let long: Vec<String> = (1..64).map(|n| "a".repeat(n * 10_000)).collect();
    for model in ["llama", "t5", "bert", "gpt2"] {
        run("long tokens", with(model, long.clone(), vec![scores(63), ("merges", GgufArray::Str(Vec::new()).into())]));
        run("long control tokens", with(model, long.clone(), vec![scores(63), types(3, 63)]));
        run(
            "one token",
            with(model, vec!["a".to_owned()], vec![scores(1), ("merges", GgufArray::Str(Vec::new()).into())]),
        );
    }
    run("bytes that are too few", with("bytes", vec!["a".to_owned(); 1], Vec::new()));
}

#[test]
fn hostile_gguf_vocabularies() {
    in_a_cage("hostile_gguf_vocabularies", 3000, |cage| {
        let mut run = |label: &str, metadata| cage.case(label, "", || exercise(&Meta::Gguf(metadata)));
        for kind in KINDS {
            let seed = metadata(kind);
            run(kind, seed.clone());
            let mut lcg = Lcg(7);
            for number in 0..300 {
                run(&format!("{kind} {number}"), mutated(&seed, &mut lcg));
            }
        }
        crafted(run);
    });
}

fn hugging_face(json: Vec<u8>, config: Option<Value>) -> Meta {
    Meta::HuggingFace {
        config: Value::Null,
        generation: None,
        tokenizer_json: Some(json),
        tokenizer_config: config,
        st_metadata: BTreeMap::new(),
    }
}

/// Small files with something of everything.
fn small() -> [Value; 4] {
    let added = |id: u32, content: &str| json!({"id": id, "content": content, "special": true, "normalized": false, "lstrip": false, "rstrip": true, "single_word": false});
    let template = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]}}});
    let bpe = json!({"version": "1.0", "truncation": {"max_length": 8, "stride": 0, "strategy": "LongestFirst", "direction": "Right"},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
        "added_tokens": [added(5, "<s>"), added(6, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"String": "q"}, "content": "a"}, {"type": "Prepend", "prepend": "a"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\p{L}+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false}, {"type": "FixedLength", "length": 3}, {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
        "post_processor": template, "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": "a", "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": true, "ignore_merges": true,
            "vocab": {"a": 0, "b": 1, "ab": 2, "l": 3, "abl": 4}, "merges": [["a", "b"], ["ab", "l"]]}});
    let unigram = json!({"added_tokens": [added(3, "<s>")], "normalizer": {"type": "Strip", "strip_left": true, "strip_right": false},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true},
        "post_processor": null, "decoder": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["u", 0.0], ["a", -1.0], ["\u{2581}a", -2.0]], "byte_fallback": false}});
    let word_piece = json!({"added_tokens": [], "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": {"type": "BertProcessing", "sep": ["s", 3], "cls": ["c", 4]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {"u": 0, "h": 1, "##e": 2, "s": 3, "c": 4}}});
    let word_level = json!({"added_tokens": [added(2, "<s>")], "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "Contiguous"}]},
        "post_processor": {"type": "RobertaProcessing", "sep": ["a", 0], "cls": ["b", 1], "trim_offsets": true, "add_prefix_space": false},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}});
    [bpe, unigram, word_piece, word_level]
}

fn run_json(cage: &mut Cage, label: &str, json: Vec<u8>) {
    cage.case(label, "", || exercise(&hugging_face(json, None)));
}

#[test]
fn hostile_tokenizer_json() {
    in_a_cage("hostile_tokenizer_json", 3000, |cage| {
        for seed in small() {
            let json = seed.to_string();
            run_json(cage, "untouched", json.clone().into());
            json_lies(&json, |label, json| run_json(cage, &label, json.into()));
            wounds(json.as_bytes(), 300, |label, json| run_json(cage, &label, json));
        }
        for kind in KINDS {
            let json = std::fs::read(folder().join(format!("{kind}.json"))).expect("golden files can be read");
            wounds(&json, 20, |label, json| run_json(cage, &format!("{kind}, {label}"), json));
        }
        let deep = "[".repeat(100_000);
        for key in ["normalizer", "model", "added_tokens", "decoder", "unknown"] {
            run_json(cage, "deep nesting", format!("{{\"{key}\":{deep}").into());
        }
    });
}

#[test]
fn hostile_tokenizer_config() {
    in_a_cage("hostile_tokenizer_config", 500, |cage| {
        let config = json!({"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "tokenizer_class": "bytes",
            "added_tokens_decoder": {"256": {"content": "<s>", "special": true}, "257": {"content": "</s>"}}, "add_bos_token": true,
            "chat_template": [{"name": "default", "template": "{% for m in messages %}{{ m.role + ': ' + m['content'] | trim }}{{ eos_token }}{% endfor %}"}]});
        let model =
            json!({"vocab_size": 258, "bos_token_id": 256, "eos_token_id": [257, 3], "tokenizer_class": "bytes"});
        let meta = |config: &str, tokenizer: &str| -> Result<Meta, String> {
            Ok(Meta::HuggingFace {
                config: serde_json::from_str(config).map_err(|error| error.to_string())?,
                generation: None,
                tokenizer_json: None,
                tokenizer_config: Some(serde_json::from_str(tokenizer).map_err(|error| error.to_string())?),
                st_metadata: BTreeMap::new(),
            })
        };
        let (config, model) = (config.to_string(), model.to_string());
        json_lies(&config, |label, config| cage.case(&label, "", || exercise(&meta(&model, &config)?)));
        json_lies(&model, |label, model| cage.case(&label, "", || exercise(&meta(&model, &config)?)));
        wounds(config.as_bytes(), 500, |label, bytes| {
            cage.case(&label, "", || exercise(&meta(&model, &String::from_utf8_lossy(&bytes))?));
        });
    });
}
