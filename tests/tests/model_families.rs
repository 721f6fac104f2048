//! Every architecture against Hugging Face transformers, on small random models (`golden/families`): whole prompts, prompts in
//! pieces, one token at a time, in every tier, from both spellings of `config.json`, under WebGPU's smallest limits, and in
//! another basis.

use tersor_engine::gpu::{Gpu, GpuOptions, LimitsChoice};
use tersor_engine::model::{Config, Encoder, ModelError, Weights};
use tersor_engine::progress::Monitor;
use tersor_tests::decoder::{Form, load, load_as, logits, worst};
use tersor_tests::families::{DECODERS, golden, open, rotatable};
use tersor_tests::kernel::gpus;

/// A missing feature moves logits by 0.5 and more, f32 by 1e-5.
const TOLERANCE: f32 = 1e-4;

#[test]
fn decoders_compute_what_transformers_does() {
    for gpu in gpus() {
        // Tiles in f16 are within f16's precision.
        let tolerance = if gpu.tier().f16 && !gpu.is_cpu() { 0.03 } else { TOLERANCE };
        for family in DECODERS {
            let golden = golden(family);
            let (ids, expected) = (golden.u32s("input_ids"), golden.f32s("logits"));
            for config in ["config.json", "config_legacy.json"] {
                let decoder = load(&gpu, &open(family, config), 64);
                let ways: &[&[usize]] = if config == "config.json" { &[&[48], &[1]] } else { &[&[5, 17, 1, 1, 3]] };
                for &pieces in ways {
                    let worst = worst(&logits(&decoder, &ids, 64, pieces), &expected);
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
    let decoder = load(&gpus()[0], &open(family, "config.json"), 24);
    let golden = golden(family);
    let found = logits(&decoder, &golden.u32s("input_ids_short"), 24, &[24]);
    let worst = worst(&found, &golden.f32s("logits_short"));
    assert!(worst < TOLERANCE, "{worst}");
}

#[test]
fn another_basis_leaves_the_function_as_it_is() {
    let gpu = &gpus()[0];
    for family in rotatable() {
        let golden = golden(family);
        let form = Form { rotation: Some(7), ..Form::default() };
        let found = logits(&load_as(gpu, &open(family, "config.json"), form, 64), &golden.u32s("input_ids"), 64, &[48]);
        let worst = worst(&found, &golden.f32s("logits"));
        assert!(worst < 1e-3, "{family}: {worst}");
    }
}

#[test]
fn models_whose_norms_stand_in_the_way_of_a_rotation_are_refused() {
    for (family, why) in [("gemma2", "norms after"), ("gemma3", "norms after"), ("bert", "subtract the mean")] {
        let checkpoint = open(family, "config.json");
        let config = Config::read(&checkpoint).unwrap();
        match Weights::new(&checkpoint, &config, None, Some(1)).err() {
            Some(error @ ModelError::Rotation { .. }) => {
                let text = error.to_string();
                assert!(text.contains(family) && text.contains(why), "{text}");
            }
            other => panic!("{family}: {other:?}"),
        }
    }
}

#[test]
fn the_smallest_limits_are_enough() {
    let options = GpuOptions { limits: LimitsChoice::WebgpuDefault, ..GpuOptions::from_env().unwrap() };
    let gpu = pollster::block_on(Gpu::new(options)).unwrap();
    assert_eq!(gpu.limits().max_storage_buffers_per_shader_stage, 8);
    for family in DECODERS {
        let golden = golden(family);
        let decoder = load(&gpu, &open(family, "config.json"), 64);
        let worst = worst(&logits(&decoder, &golden.u32s("input_ids"), 64, &[40, 1]), &golden.f32s("logits"));
        assert!(worst < TOLERANCE, "{family}: {worst}");
    }
    the_encoder_computes_what_transformers_does_on(&gpu);
}

#[test]
fn the_encoder_computes_what_transformers_does() {
    gpus().iter().for_each(the_encoder_computes_what_transformers_does_on);
}

fn the_encoder_computes_what_transformers_does_on(gpu: &Gpu) {
    let checkpoint = open("bert", "config.json");
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
