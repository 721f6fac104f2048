//! The embedded model against Hugging Face transformers (`golden/tiny`): logits, likelihoods of windows, greedy texts.

use std::sync::Arc;

use serde::Deserialize;
use tersor_engine::eval::{self, Windows};
use tersor_engine::generate::{ContinueOptions, Tokenizer, continue_text};
use tersor_engine::model::Context;
use tersor_engine::progress::Monitor;
use tersor_tests::decoder::{load, logits, worst};
use tersor_tests::golden::{Tensors, asset, json};
use tersor_tests::kernel::gpus;
use tersor_tests::models;

#[derive(Deserialize)]
struct Golden {
    windows: Vec<WindowsOf>,
    greedy: Vec<Greedy>,
}

#[derive(Deserialize)]
struct WindowsOf {
    n_ctx: u32,
    nll_sums: Vec<f64>,
}

#[derive(Deserialize)]
struct Greedy {
    prompt: String,
    ids: Vec<u32>,
    margins: Vec<f32>,
}

/// Windows of each length that are evaluated.
const WINDOWS: u32 = 3;

#[test]
fn it_computes_what_transformers_does() {
    let checkpoint = models::open("tiny");
    let tokenizer = Arc::new(Tokenizer::from_checkpoint(&checkpoint).unwrap());
    let tensors = Tensors::open("tiny/golden.safetensors");
    let golden: Golden = json("tiny/golden.json");
    let heldout = std::fs::read_to_string(asset("tiny/heldout.txt")).unwrap();
    let text = tokenizer.encode(&heldout, false).unwrap();
    let tokens = tensors.u32s("tokens");
    assert_eq!(text[..tokens.len()], tokens);
    for gpu in gpus() {
        let device = format!("{} {}", gpu.name(), gpu.tier());
        let decoder = load(&gpu, &checkpoint, 1024);

        let all = logits(&decoder, &tokens, 1024, &[128]);
        let found = tensors.u32s("positions").into_iter().flat_map(|position| &all[position as usize * 288..][..288]);
        let worst = worst(&found.copied().collect::<Vec<_>>(), &tensors.f32s("logits"));
        println!("{device}: logits differ by {worst} at most");
        let tolerance = if gpu.tier().f16 && !gpu.is_cpu() { 0.03 } else { 2e-4 };
        assert!(worst < tolerance, "{device}: {worst}");

        for expected in &golden.windows {
            let windows = Windows::new(&text, expected.n_ctx, Some(WINDOWS), None).unwrap();
            let records = pollster::block_on(eval::likelihoods(&decoder, &windows, &Monitor::none())).unwrap();
            for (window, expected_sum) in records.chunks_exact(expected.n_ctx as usize - 1).zip(&expected.nll_sums) {
                let sum: f64 = window.iter().map(|record| f64::from(record.nll)).sum();
                let off = (sum / expected_sum - 1.0).abs();
                assert!(off < 1e-4, "{device}, windows of {}: {sum}, not {expected_sum}", expected.n_ctx);
            }
        }

        for expected in &golden.greedy {
            let options = ContinueOptions { ignore_end: true, ..ContinueOptions::greedy(expected.ids.len() as u32) };
            let mut context = Context::new(&decoder, 256).unwrap();
            let prompt = tokenizer.encode(&expected.prompt, false).unwrap();
            let monitor = Monitor::none();
            let found = continue_text(&decoder, &mut context, &tokenizer, &prompt, &options, |_| (), &monitor);
            let found = pollster::block_on(found).unwrap();
            // What comes after a tie says nothing.
            let sure = expected.margins.iter().take_while(|margin| **margin > 1e-3).count();
            assert!(sure > 32, "{}: a reference with a tie at {sure}", expected.prompt);
            assert_eq!(found.ids()[..sure], expected.ids[..sure], "{device}: {}", expected.prompt);
        }
    }
}
