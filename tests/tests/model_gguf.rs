//! Every architecture from GGUF: the models of `golden/families` as llama.cpp's converter writes them compute what they did.

use tersor_engine::model::{Architecture, Config, Encoder, Weights};
use tersor_engine::progress::Monitor;
use tersor_tests::converted::Converted;
use tersor_tests::decoder::{load, logits, worst};
use tersor_tests::families::{DECODERS, golden};
use tersor_tests::kernel::gpus;

const TOLERANCE: f32 = 1e-4;

#[test]
fn decoders_from_gguf_compute_what_transformers_does() {
    let gpu = &gpus()[0];
    for family in DECODERS {
        let golden = golden(family);
        let decoder = load(gpu, &Converted::of(family).open(), 64);
        let found = logits(&decoder, &golden.u32s("input_ids"), 64, &[40, 1]);
        // The format has no place for Mistral's window of 12 positions; up to there it makes no difference.
        let sure = if family == "mistral" { 12 } else { 48 };
        let numbers = sure * decoder.config().vocab as usize;
        let worst = worst(&found[..numbers], &golden.f32s("logits")[..numbers]);
        assert!(worst < TOLERANCE, "{family}: {worst}");
    }
}

#[test]
fn longrope_has_other_divisors_for_short_contexts() {
    let decoder = load(&gpus()[0], &Converted::of("phi3_longrope_partial").open(), 24);
    let golden = golden("phi3_longrope_partial");
    let found = logits(&decoder, &golden.u32s("input_ids_short"), 24, &[24]);
    let worst = worst(&found, &golden.f32s("logits_short"));
    assert!(worst < TOLERANCE, "{worst}");
}

#[test]
fn the_encoder_from_gguf_computes_what_transformers_does() {
    let gpu = &gpus()[0];
    let checkpoint = Converted::of("bert").open();
    let config = Config::read(&checkpoint).unwrap();
    let weights = Weights::new(&checkpoint, &config, None, None).unwrap();
    let monitor = Monitor::none();
    let load = Encoder::load(gpu, config, weights, checkpoint.name(), &monitor);
    let encoder = pollster::block_on(load).unwrap().0;
    let golden = golden("bert");
    let mut rec = gpu.record();
    let state = encoder.forward(&mut rec, &golden.u32s("input_ids"), &golden.u32s("token_type_ids")).unwrap().clone();
    rec.submit().unwrap();
    let found: Vec<f32> = pollster::block_on(gpu.read(&state, 0, 48 * 64)).unwrap();
    let worst = worst(&found, &golden.f32s("last_hidden_state"));
    assert!(worst < TOLERANCE, "{worst}");
}

/// What llama.cpp takes where a file says nothing.
#[test]
fn what_a_file_leaves_out_is_llama_cpps_default() {
    let without = |family: &str, keys: &[&str]| {
        let mut converted = Converted::of(family);
        for key in keys {
            let key = format!("{}.{key}", converted.architecture());
            assert!(converted.metadata.remove(&key).is_some(), "{key}");
        }
        Config::read(&converted.open()).unwrap()
    };
    let gemma2 = without("gemma2", &["attention.sliding_window"]);
    assert_eq!((gemma2.architecture, gemma2.windows), (Architecture::Gemma2, vec![4096, 0]));
    let gemma3 = without("gemma3", &["attention.sliding_window_pattern", "rope.freq_base_swa"]);
    assert_eq!(gemma3.windows, [12, 12, 12]); // every sixth layer sees everything
    assert_eq!(gemma3.rope_local.map(|rope| rope.base), Some(10_000.0));
    assert_eq!(without("gemma3", &["attention.sliding_window"]).windows, [0, 0, 0]);
    let llama = without("llama", &["attention.head_count_kv", "rope.dimension_count", "rope.freq_base"]);
    assert_eq!((llama.kv_heads, llama.rope.rotary_dim, llama.rope.base), (4, 16, 10_000.0));
}
