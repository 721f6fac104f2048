//! Compressed files, read back.

use std::collections::BTreeMap;
use std::io::Cursor;

use super::*;
use crate::codec;
use crate::format::{Checkpoint, CheckpointWriter, GgufArray, GgufMetadata, GgufValue, TensorInfo};
use crate::progress::Cancel;

/// Two matrices, of which `odd.weight` only takes blocks of 32, and two tensors that recipes leave alone.
const SHAPES: [(&str, &[u64]); 4] =
    [("wide.weight", &[6, 512]), ("odd.weight", &[6, 96]), ("norm.weight", &[96]), ("ids", &[2, 256])];

fn tensors() -> Vec<TensorInfo> {
    let dtype = |name: &str| if name == "ids" { Dtype::I32 } else { Dtype::F32 };
    SHAPES.iter().map(|(name, shape)| TensorInfo::new(*name, shape.to_vec(), dtype(name)).unwrap()).collect()
}

/// The bytes of a tensor: made-up weights, or whatever integers they are.
fn bytes(tensor: &TensorInfo) -> Vec<u8> {
    let values = (0..tensor.elements()).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 0.1);
    values.flat_map(f32::to_le_bytes).collect()
}

fn written(mut writer: CheckpointWriter<Cursor<Vec<u8>>>) -> Vec<u8> {
    for tensor in tensors() {
        writer.write(&tensor.name, &bytes(&tensor)).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A GGUF model with a tokenizer, as the first of several parts.
fn gguf() -> Stored {
    let mut metadata = GgufMetadata::new();
    metadata.set("general.architecture", "llama".to_owned());
    metadata.set("general.file_type", 0u32);
    metadata.set("split.count", 1u32);
    metadata.set("tokenizer.ggml.tokens", GgufValue::Array(GgufArray::Str(vec!["<s>".into(), "\u{2581}a\"é".into()])));
    metadata.set("tokenizer.ggml.scores", GgufValue::Array(GgufArray::F32(vec![0.0, -1.5])));
    let file = written(CheckpointWriter::gguf(Cursor::new(Vec::new()), "m", &metadata, &tensors()).unwrap());
    Stored::of(&Checkpoint::from_files(vec![("m.gguf".to_owned(), file)]).unwrap()).unwrap()
}

const TOKENIZER: &str = "{\"model\": {\"vocab\": {\"é\\n\": 0}}}";

/// The same weights as a Hugging Face folder has them.
fn hugging_face() -> Stored {
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let file = written(CheckpointWriter::safetensors(Cursor::new(Vec::new()), "m", &metadata, &tensors()).unwrap());
    let side = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let files = vec![
        ("model.safetensors".to_owned(), file),
        side("config.json", r#"{"model_type":"llama","rope_theta":1e6}"#),
        side("tokenizer.json", TOKENIZER),
        side("tokenizer_config.json", r#"{"chat_template":"{{ messages }}"}"#),
        side("generation_config.json", r#"{"eos_token_id":[1,2]}"#),
    ];
    Stored::of(&Checkpoint::from_files(files).unwrap()).unwrap()
}

fn compressed(stored: &Stored, recipe: &str, name: &str) -> (Weights, Stored, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let weights =
        compress(stored, &Recipe::parse(recipe).unwrap(), None, &HashMap::new(), &path, &Monitor::none()).unwrap();
    let back = Stored::of(&Checkpoint::open(&path).unwrap()).unwrap();
    (weights, back, folder)
}

/// The file holds what the codecs make of the model, bit for bit, and everything else as it was.
fn is_identical(back: &Stored, stored: &Stored, codecs: [&str; 2]) {
    for (name, codec) in ["wide.weight", "odd.weight"].into_iter().zip(codecs) {
        let original = stored.load(name).unwrap().unwrap();
        let codec = codec::parse(codec).unwrap();
        let expected = codec.encode(&original.decode(), original.rows, original.cols).unwrap();
        let expected = expected.codec.clone().unless_larger(expected).unwrap();
        let found = back.load(name).unwrap().unwrap();
        assert_eq!(found.codec.name(), expected.codec.name());
        assert_eq!(found.planes, expected.planes, "{name}");
        assert_eq!(back.tensor(name).unwrap().shape, stored.tensor(name).unwrap().shape);
    }
    for name in ["norm.weight", "ids"] {
        assert_eq!(back.checkpoint().tensor(name).unwrap().1, stored.checkpoint().tensor(name).unwrap().1, "{name}");
    }
    let names = |stored: &Stored| {
        let mut names: Vec<String> = stored.tensors().iter().map(|tensor| tensor.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(back), names(stored), "planes are not listed");
}

/// The metadata is that of [`gguf`], but for what described its file.
fn has_the_metadata(back: &Stored) {
    let Meta::Gguf(meta) = back.checkpoint().meta() else { panic!() };
    assert_eq!(meta.str("general.architecture"), Some("llama"));
    assert_eq!((meta.get("general.file_type"), meta.get("split.count")), (None, None));
    let original = gguf();
    let Meta::Gguf(original) = original.checkpoint().meta() else { panic!() };
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.scores"] {
        assert!(meta.get(key).is_some() && meta.get(key) == original.get(key), "{key}");
    }
}

/// Every type of ggml that can be written, and what takes its place in rows of 96.
const GGML: [(&str, &str); 13] = [
    ("f16", "f16"),
    ("bf16", "bf16"),
    ("q4_0", "q4_0"),
    ("q4_1", "q4_1"),
    ("q5_0", "q5_0"),
    ("q5_1", "q5_1"),
    ("q8_0", "q8_0"),
    ("iq4_nl", "iq4_nl"),
    ("q2_k", "iq4_nl"),
    ("q3_k", "iq4_nl"),
    ("q4_k", "q5_0"),
    ("q5_k", "q5_1"),
    ("q6_k", "q8_0"),
];

#[test]
fn gguf_loads_back_identically_and_says_what_fell_back() {
    for (recipe, narrow) in GGML {
        let (weights, back, _folder) = compressed(&gguf(), recipe, "m.gguf");
        is_identical(&back, &gguf(), [recipe, narrow]);
        has_the_metadata(&back);
        let fallback = Fallback { tensor: "odd.weight".into(), asked: recipe.into(), used: narrow.into() };
        assert_eq!(weights.fallbacks, if recipe == narrow { vec![] } else { vec![fallback] });
        assert_eq!(weights.bytes, back.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>());
        assert!(weights.tensors.iter().all(|t| t.nmse < 0.1), "{recipe}: {:?}", weights.tensors);
    }
}

#[test]
fn safetensors_carries_the_whole_model_and_loads_back_identically() {
    let own = [
        "nf4:block=32",
        "fp4:block=32,double=off",
        "uniform:bits=3,group=32",
        "uniform:bits=5,group=16,zero",
        "entropy:bf16",
        "entropy:uniform:bits=4,group=32",
    ];
    for (recipe, narrow) in own.into_iter().map(|recipe| (recipe, recipe)).chain(GGML) {
        for model in [gguf(), hugging_face()] {
            let (weights, back, _folder) = compressed(&model, recipe, "m.safetensors");
            is_identical(&back, &model, [recipe, narrow]);
            assert_eq!(weights.bytes, back.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>());
        }
    }
    let (_, back, _folder) = compressed(&gguf(), "entropy:bf16", "m.safetensors");
    assert_eq!(back.load("wide.weight").unwrap().unwrap().codec.name(), "entropy:bf16", "worth coding");
    let (_, back, _folder) = compressed(&gguf(), "nf4:block=32", "m.safetensors");
    has_the_metadata(&back);
    let (_, back, _folder) = compressed(&gguf(), "bf16", "m.safetensors");
    assert_eq!(back.tensor("odd.weight").unwrap().encoding, "BF16", "a plain type stays readable by everyone");
}

/// A small matrix, whose decoding table alone is more than coding saves; also under a low-rank part.
#[test]
fn what_coding_would_make_larger_stays_plain_and_is_said() {
    for (recipe, plain) in [
        ("entropy:nf4:block=32", "nf4:block=32"),
        ("entropy:uniform:bits=3,group=32", "uniform:bits=3,group=32"),
        ("entropy:q8_0", "q8_0"),
    ] {
        let codec = codec::parse(recipe).unwrap();
        let weights = gguf().load("odd.weight").unwrap().unwrap().decode();
        let coded = codec.encode(&weights, 6, 96).unwrap();
        let kept = codec.unless_larger(coded.clone()).unwrap();
        assert!(coded.bytes() > kept.bytes(), "{recipe}");
        assert_eq!(kept.codec.name(), codec::parse(plain).unwrap().name());
        assert_eq!(kept.decode(), coded.decode(), "{recipe}");
        let (weights, back, _folder) = compressed(&gguf(), recipe, "m.safetensors");
        let odd = weights.fallbacks.iter().find(|fallback| fallback.tensor == "odd.weight").unwrap();
        assert_eq!([&odd.asked, &odd.used], [&codec.name(), &kept.codec.name()]);
        assert_eq!(back.load("odd.weight").unwrap().unwrap().planes, kept.planes);
        assert!(weights.codecs.iter().any(|(name, _)| *name == kept.codec.name()), "{:?}", weights.codecs);
    }
    let weights: Vec<f32> = (0..64 * 32).map(|i| (i as f32).sin()).collect();
    let codec = codec::parse("entropy:q8_0+svd:rank=8").unwrap();
    let coded = codec.encode(&weights, 64, 32).unwrap();
    let kept = codec.unless_larger(coded.clone()).unwrap();
    assert!(kept.bytes() < coded.bytes() && kept.codec.name().starts_with("q8_0+svd"), "{}", kept.codec.name());
    assert_eq!(kept.decode(), coded.decode());
}

#[test]
fn every_tensor_has_a_checksum_and_what_was_changed_is_found() {
    for (name, recipe) in [("m.gguf", "q4_0"), ("m.safetensors", "nf4:block=32")] {
        let (_, back, folder) = compressed(&gguf(), recipe, name);
        let path = folder.path().join(name);
        let file = std::fs::read(&path).unwrap();
        let infos = back.checkpoint().tensors().to_vec();
        assert!(infos.iter().all(|info| info.byte_len() > 0));
        for info in infos {
            let mut damaged = file.clone();
            damaged[(info.offset() + info.byte_len() - 1) as usize] ^= 16;
            let damaged = Checkpoint::from_files(vec![(name.to_owned(), damaged)]).unwrap();
            let damaged = Stored::of(&damaged).unwrap();
            let (tensor, plane) = info.name.split_once(".codec_").unwrap_or((&info.name, ""));
            let error = match damaged.tensor(tensor).unwrap().codec() {
                Some(_) => damaged.load(tensor).map(|_| ()).unwrap_err().to_string(),
                None => damaged.bytes(tensor).map(|_| ()).unwrap_err().to_string(),
            };
            let plane = if plane.is_empty() { String::new() } else { format!("plane {plane}: ") };
            assert!(
                error.contains(&format!("{name}: tensor \"{tensor}\": {plane}its bytes have the CRC-32")),
                "{error}"
            );
        }
        // Nor is damage passed on under a new checksum.
        let mut damaged = file.clone();
        let norm = back.checkpoint().tensor("norm.weight").unwrap().0.offset();
        damaged[norm as usize] ^= 1;
        let damaged = Stored::of(&Checkpoint::from_files(vec![(name.to_owned(), damaged)]).unwrap()).unwrap();
        let again = folder.path().join("again.safetensors");
        let error =
            compress(&damaged, &Recipe::parse("q8_0").unwrap(), None, &HashMap::new(), &again, &Monitor::none());
        assert!(error.unwrap_err().to_string().contains("norm.weight"));
        assert!(!again.exists());
    }
}

#[test]
fn files_without_checksums_still_load() {
    let mut list = codec::PackedList::default();
    let codec = codec::parse("nf4:block=32").unwrap();
    let packed = codec.encode(&[0.5; 64], 2, 32).unwrap();
    let places = list.add("w", &[2, 32], &codec, &[]).unwrap();
    let entries = BTreeMap::from([(PACKED_KEY.to_owned(), list.metadata().unwrap())]);
    let mut writer = CheckpointWriter::safetensors(Cursor::new(Vec::new()), "m", &entries, &places).unwrap();
    for (place, plane) in places.iter().zip(&packed.planes) {
        writer.write(&place.name, bytemuck::cast_slice(&plane.data)).unwrap();
    }
    let file = ("m.safetensors".to_owned(), writer.finish().unwrap().into_inner());
    let stored = Stored::of(&Checkpoint::from_files(vec![file]).unwrap()).unwrap();
    assert_eq!(stored.load("w").unwrap().unwrap().planes, packed.planes);
}

#[test]
fn a_hugging_face_folder_becomes_one_file() {
    let (_, back, folder) = compressed(&hugging_face(), "q4_k", "m.safetensors");
    let Meta::HuggingFace { config, generation, tokenizer_json, tokenizer_config, st_metadata } =
        back.checkpoint().meta()
    else {
        panic!()
    };
    assert_eq!((config["model_type"].as_str(), config["rope_theta"].as_f64()), (Some("llama"), Some(1e6)));
    assert_eq!(generation.as_ref().unwrap()["eos_token_id"][1], 2);
    assert_eq!(tokenizer_json.as_deref(), Some(TOKENIZER.as_bytes()));
    assert_eq!(tokenizer_config.as_ref().unwrap()["chat_template"], "{{ messages }}");
    assert_eq!(st_metadata.get("format").map(String::as_str), Some("pt"));
    // What the file says of itself comes before what happens to lie beside it.
    std::fs::write(folder.path().join("config.json"), r#"{"model_type":"other"}"#).unwrap();
    let again = Checkpoint::open(&folder.path().join("m.safetensors")).unwrap();
    assert!(matches!(again.meta(), Meta::HuggingFace { config, .. } if config["model_type"] == "llama"));
}

#[test]
fn a_compressed_model_can_be_compressed_again() {
    let (_, back, folder) = compressed(&gguf(), "nf4:block=32", "m.safetensors");
    let path = folder.path().join("again.gguf");
    compress(&back, &Recipe::parse("q4_0").unwrap(), None, &HashMap::new(), &path, &Monitor::none()).unwrap();
    let again = Stored::of(&Checkpoint::open(&path).unwrap()).unwrap();
    is_identical(&again, &back, ["q4_0", "q4_0"]);
    has_the_metadata(&again);
    let same = compress(
        &again,
        &Recipe::parse("q4_0").unwrap(),
        None,
        &HashMap::new(),
        &folder.path().join("x.gguf"),
        &Monitor::none(),
    );
    assert!(matches!(same, Err(CompressError::Nothing { .. })));
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let message = |model: &Stored, recipe: &str, name: &str| {
        let recipe = Recipe::parse(recipe).unwrap();
        compress(model, &recipe, None, &HashMap::new(), &folder.path().join(name), &Monitor::none())
            .unwrap_err()
            .to_string()
    };
    assert!(message(&gguf(), "nf4:block=32", "m.gguf").contains("nf4:block=32 (for wide.weight) is no type of GGUF"));
    assert!(message(&gguf(), "q4_0", "m.bin").contains("neither the ending .gguf nor .safetensors"));
    assert!(message(&hugging_face(), "q4_0", "m.gguf").contains("Hugging Face"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_cancel_in_the_middle_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["m.gguf", "m.safetensors"] {
        let path = folder.path().join(name);
        std::fs::write(&path, "old").unwrap();
        let cancel = Cancel::new();
        let switch = cancel.clone();
        let monitor = Monitor::new(cancel, move |progress| {
            if progress.done == 1 {
                switch.cancel()
            }
        });
        let cancelled = compress(&gguf(), &Recipe::parse("q4_0").unwrap(), None, &HashMap::new(), &path, &monitor);
        assert!(matches!(cancelled, Err(CompressError::Cancelled(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let tensor = TensorInfo::new("w", vec![2, 32], Dtype::F32).unwrap();
    let list = std::slice::from_ref(&tensor);
    let mut writer = CheckpointWriter::safetensors(Cursor::new(Vec::new()), "m", &BTreeMap::new(), list).unwrap();
    let mut values = [0.5f32; 64];
    values[40] = f32::NAN;
    writer.write("w", bytemuck::cast_slice(&values)).unwrap();
    let file = ("m.safetensors".to_owned(), writer.finish().unwrap().into_inner());
    let stored = Stored::of(&Checkpoint::from_files(vec![file]).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("x.safetensors");
    let error = compress(&stored, &Recipe::parse("q8_0").unwrap(), None, &HashMap::new(), &output, &Monitor::none())
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("tensor w: q8_0: weight [1, 8] is NaN"), "{error}");
    assert!(!output.exists());
}

#[test]
fn the_model_that_is_read_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let [model, other] = ["model.gguf", "other.gguf"].map(|name| folder.path().join(name));
    std::fs::write(&model, "").unwrap();
    assert!(keep_source(&model, &model).is_err());
    assert!(keep_source(folder.path(), &folder.path().join(".").join("model.gguf")).is_err());
    assert!(keep_source(folder.path(), &other).is_ok());
    std::fs::write(&other, "").unwrap();
    assert!(keep_source(&model, &other).is_ok());
}

/// A Llama of one layer, whose output projection is its embedding table.
fn llama() -> Checkpoint {
    let mut metadata = GgufMetadata::new();
    metadata.set("general.architecture", "llama".to_owned());
    for (key, value) in [
        ("vocab_size", 96),
        ("embedding_length", 64),
        ("feed_forward_length", 128),
        ("block_count", 1),
        ("context_length", 16),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("rope.dimension_count", 32),
    ] {
        metadata.set(format!("llama.{key}"), value as u32);
    }
    metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    let shapes: [(&str, &[u64]); 11] = [
        ("token_embd.weight", &[96, 64]),
        ("output_norm.weight", &[64]),
        ("blk.0.attn_norm.weight", &[64]),
        ("blk.0.attn_q.weight", &[64, 64]),
        ("blk.0.attn_k.weight", &[32, 64]),
        ("blk.0.attn_v.weight", &[32, 64]),
        ("blk.0.attn_output.weight", &[64, 64]),
        ("blk.0.ffn_norm.weight", &[64]),
        ("blk.0.ffn_gate.weight", &[128, 64]),
        ("blk.0.ffn_up.weight", &[128, 64]),
        ("blk.0.ffn_down.weight", &[64, 128]),
    ];
    let tensors = shapes.map(|(name, shape)| TensorInfo::new(name, shape.to_vec(), Dtype::F32).unwrap());
    let mut writer = CheckpointWriter::gguf(Cursor::new(Vec::new()), "m", &metadata, &tensors).unwrap();
    for tensor in &tensors {
        writer.write(&tensor.name, &bytes(tensor)).unwrap();
    }
    Checkpoint::from_files(vec![("m.gguf".to_owned(), writer.finish().unwrap().into_inner())]).unwrap()
}

fn rotation(checkpoint: &Checkpoint) -> Option<Rotation> {
    let config = model::Config::read(checkpoint).unwrap();
    Some(Rotation { seed: 5, weights: model::Weights::new(checkpoint, &config, None, Some(5)).unwrap() })
}

/// That rotated models compute the same is tested with whole models (`tests/tests/model_families.rs`).
#[test]
fn a_rotated_model_is_written_with_norms_of_one_and_an_output_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = llama();
    let stored = Stored::of(&checkpoint).unwrap();
    let recipe = Recipe::parse("f32").unwrap();
    for name in ["m.gguf", "m.safetensors"] {
        let path = folder.path().join(name);
        compress(&stored, &recipe, rotation(&checkpoint), &HashMap::new(), &path, &Monitor::none()).unwrap();
        let written = Checkpoint::open(&path).unwrap();
        let back = Stored::of(&written).unwrap();
        assert_eq!(back.tensors().len(), stored.tensors().len() + 1);
        assert_eq!(model::rotation_of(&written), Some(5));
        let load = |stored: &Stored, name: &str| stored.load(name).unwrap().unwrap().decode();
        for norm in ["output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"] {
            assert_eq!(load(&back, norm), [1.0; 64], "{norm}");
        }
        // Products of rows stay what they were: between embeddings, and of the output with an embedding.
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let row = |values: &[f32], row: usize| values[64 * row..][..64].to_vec();
        let (old, new) = (load(&stored, "token_embd.weight"), load(&back, "token_embd.weight"));
        assert!((dot(&row(&old, 3), &row(&old, 90)) - dot(&row(&new, 3), &row(&new, 90))).abs() < 1e-6);
        assert!(old.iter().zip(&new).any(|(a, b)| (a - b).abs() > 0.01));
        let scaled: Vec<f32> =
            row(&old, 3).iter().zip(load(&stored, "output_norm.weight")).map(|(a, b)| a * b).collect();
        let output = load(&back, "output.weight");
        assert!((dot(&scaled, &row(&old, 90)) - dot(&row(&output, 3), &row(&new, 90))).abs() < 1e-6);

        let again = compress(
            &back,
            &recipe,
            rotation(&written),
            &HashMap::new(),
            &folder.path().join("x.gguf"),
            &Monitor::none(),
        );
        assert!(matches!(again, Err(CompressError::RotatedTwice { seed: 5, .. })));
    }
}
