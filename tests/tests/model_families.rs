//! Every architecture against Hugging Face transformers, on small random models (`golden/families`): whole prompts, prompts in
//! pieces, one token at a time, in every tier, from both spellings of `config.json`.

use std::path::{Path, PathBuf};

use tersor_engine::format::{Checkpoint, decode_f32};
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::model::{Config, Context, Decoder, Encoder, Weights};
use tersor_engine::ops::linear::Rows;
use tersor_engine::progress::Monitor;
use tersor_tests::kernel::gpus;

/// A missing feature moves logits by 0.5 and more, f32 by 1e-5.
const TOLERANCE: f32 = 1e-4;

const DECODERS: [&str; 13] = [
    "gemma2",
    "gemma3",
    "llama",
    "llama_bias",
    "llama_mha_tied_odd",
    "llama_rope_linear",
    "llama_rope_llama3",
    "llama_rope_yarn",
    "mistral",
    "phi3",
    "phi3_longrope_partial",
    "qwen2",
    "qwen3",
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/families")
}

fn open(family: &str, config: &str) -> Checkpoint {
    let read = |file: &str| std::fs::read(golden().join(family).join(file)).unwrap();
    let files = [("config.json", config), ("model.safetensors", "model.safetensors")];
    Checkpoint::from_files(files.map(|(name, file)| (name.to_owned(), read(file))).to_vec()).unwrap()
}

fn numbers(family: &str, name: &str) -> Vec<f32> {
    let file = Checkpoint::open(&golden().join(family).join("golden.safetensors")).unwrap();
    let (info, bytes) = file.tensor(name).unwrap();
    decode_f32(info.dtype, bytes).unwrap()
}

fn ids(family: &str, name: &str) -> Vec<u32> {
    let file = Checkpoint::open(&golden().join(family).join("golden.safetensors")).unwrap();
    let (_, bytes) = file.tensor(name).unwrap();
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn load(gpu: &Gpu, checkpoint: &Checkpoint, context: u32) -> Decoder {
    let config = Config::read(checkpoint).unwrap();
    let weights = Weights::new(checkpoint, &config, None, None).unwrap();
    let monitor = Monitor::none();
    let load = Decoder::load(gpu, config, weights, checkpoint.name(), context, &monitor);
    pollster::block_on(load).unwrap().0
}

/// Logits of all tokens, sent through the layers in pieces of the given lengths (the last one again and again).
fn logits(decoder: &Decoder, ids: &[u32], capacity: u32, pieces: &[usize]) -> Vec<f32> {
    let gpu = decoder.gpu();
    let mut context = Context::new(decoder, capacity).unwrap();
    let vocab = decoder.config().vocab;
    let all = gpu.storage("logits", 4 * u64::from(vocab) * ids.len() as u64, Purpose::Activations).unwrap();
    let buffer = gpu.upload("ids", ids, Purpose::Activations).unwrap();
    let mut rec = gpu.record();
    let (mut first, mut turn) = (0, 0);
    while first < ids.len() {
        let count = pieces[turn.min(pieces.len() - 1)].min(ids.len() - first);
        decoder.forward(&mut rec, &mut context, &buffer, first as u32, count as u32, None).unwrap();
        let y = Rows { buffer: &all, offset: first as u32 * vocab, stride: vocab };
        decoder.logits(&mut rec, &context, 0, count as u32, y).unwrap();
        (first, turn) = (first + count, turn + 1);
    }
    rec.submit().unwrap();
    pollster::block_on(gpu.read(&all, 0, u64::from(vocab) * ids.len() as u64)).unwrap()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn decoders_compute_what_transformers_does() {
    for gpu in gpus() {
        // Tiles in f16 are within f16's precision.
        let tolerance = if gpu.tier().f16 && !gpu.is_cpu() { 0.03 } else { TOLERANCE };
        for family in DECODERS {
            for config in ["config.json", "config_legacy.json"] {
                let checkpoint = open(family, config);
                let (ids, expected) = (ids(family, "input_ids"), numbers(family, "logits"));
                let decoder = load(&gpu, &checkpoint, 64);
                let ways: &[&[usize]] = if config == "config.json" { &[&[48], &[1]] } else { &[&[5, 17, 1, 1, 3]] };
                for &pieces in ways {
                    let found = logits(&decoder, &ids, 64, pieces);
                    let worst = worst(&found, &expected);
                    let device = format!("{} {:?}", gpu.name(), gpu.tier());
                    assert!(worst < tolerance, "{family} {config} in pieces of {pieces:?} on {device}: {worst}");
                }
            }
        }
    }
}

#[test]
fn longrope_has_other_divisors_for_short_contexts() {
    let family = "phi3_longrope_partial";
    let gpu = &gpus()[0];
    let decoder = load(gpu, &open(family, "config.json"), 24);
    let found = logits(&decoder, &ids(family, "input_ids_short"), 24, &[24]);
    let worst = worst(&found, &numbers(family, "logits_short"));
    assert!(worst < TOLERANCE, "{worst}");
}

#[test]
fn the_encoder_computes_what_transformers_does() {
    for gpu in gpus() {
        let checkpoint = open("bert", "config.json");
        let config = Config::read(&checkpoint).unwrap();
        let weights = Weights::new(&checkpoint, &config, None, None).unwrap();
        let monitor = Monitor::none();
        let load = Encoder::load(&gpu, config, weights, checkpoint.name(), &monitor);
        let encoder = pollster::block_on(load).unwrap().0;
        let (ids, segments) = (ids("bert", "input_ids"), ids("bert", "token_type_ids"));
        let mut rec = gpu.record();
        let state = encoder.forward(&mut rec, &ids, &segments).unwrap().clone();
        rec.submit().unwrap();
        let found: Vec<f32> = pollster::block_on(gpu.read(&state, 0, 48 * 64)).unwrap();
        let worst = worst(&found, &numbers("bert", "last_hidden_state"));
        assert!(worst < TOLERANCE, "{worst}");
    }
}
