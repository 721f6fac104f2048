//! SmolLM2-135M as shipped (Q4_1, Q8_0) against a forward pass in f64 by another implementation (`golden/smollm2`).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use tersor_engine::codec::Stored;
use tersor_engine::eval::{self, Original, Windows};
use tersor_engine::format::Checkpoint;
use tersor_engine::generate::{ContinueOptions, Tokenizer, continue_text};
use tersor_engine::gpu::{Gpu, Purpose, Tier};
use tersor_engine::model::{Context, Decoder};
use tersor_engine::ops::linear::Rows;
use tersor_engine::progress::Monitor;
use tersor_tests::decoder::{Form, load, load_as};
use tersor_tests::golden::{Tensors, asset, json};
use tersor_tests::kernel::gpus;
use tersor_tests::models;

const TOP: usize = 128;
const BUCKETS: usize = 32;

static FILE: LazyLock<Checkpoint> = LazyLock::new(|| models::open("smollm2-135m"));

/// The model in every tier, portable first, loaded once for all tests. One test at a time has it.
static MODELS: LazyLock<Mutex<Vec<Decoder>>> =
    LazyLock::new(|| Mutex::new(gpus().iter().map(|gpu| load(gpu, &FILE, 1024)).collect()));

fn models() -> MutexGuard<'static, Vec<Decoder>> {
    MODELS.lock().unwrap_or_else(PoisonError::into_inner) // another test failed, which does the models no harm
}

fn device(gpu: &Gpu) -> String {
    format!("{}, {}", gpu.name(), gpu.tier())
}

/// Calls `with` for every position's ln-probabilities.
fn log_probabilities(decoder: &Decoder, tokens: &[u32], mut with: impl FnMut(usize, &[f64])) {
    let gpu = decoder.gpu();
    let vocab = decoder.config().vocab;
    let mut context = Context::new(decoder, tokens.len() as u32).unwrap();
    let rows = context.chunk();
    let ids = gpu.upload("ids", tokens, Purpose::Activations).unwrap();
    let logits = gpu.storage("logits", 4 * u64::from(vocab) * u64::from(rows), Purpose::Activations).unwrap();
    for first in (0..tokens.len() as u32).step_by(rows as usize) {
        let count = rows.min(tokens.len() as u32 - first);
        let mut rec = gpu.record();
        decoder.forward(&mut rec, &mut context, &ids, first, count, None).unwrap();
        decoder.logits(&mut rec, &context, 0, count, Rows::new(&logits, vocab)).unwrap();
        rec.submit().unwrap();
        let all: Vec<f32> = pollster::block_on(gpu.read(&logits, 0, u64::from(vocab * count))).unwrap();
        for (row, logits) in all.chunks_exact(vocab as usize).enumerate() {
            let most = logits.iter().copied().fold(f32::MIN, f32::max);
            let sum: f64 = logits.iter().map(|l| f64::from(l - most).exp()).sum();
            let norm = f64::from(most) + sum.ln();
            let logp: Vec<f64> = logits.iter().map(|l| f64::from(*l) - norm).collect();
            with(first as usize + row, &logp);
        }
    }
}

/// KL divergence from the reference in every position: over the 128 most probable tokens and 32 buckets of the others, which is
/// never more than over all tokens; over all tokens at eight positions.
fn divergences(decoder: &Decoder) -> (Vec<f64>, Vec<(f64, f64)>) {
    let golden = Tensors::open("smollm2/golden.safetensors");
    let tokens = golden.u32s("tokens");
    let (top, top_logp, tail) = (golden.u16s("top_ids"), golden.f32s("top_logprobs"), golden.f32s("tail_mass"));
    let full: HashMap<u32, usize> = golden.u32s("full_positions").into_iter().zip(0..).collect();
    let (codes, low, step) = (golden.u16s("full_codes"), golden.f64s("full_low"), golden.f64s("full_step"));
    let mut kl = Vec::new();
    let mut exact = Vec::new();
    log_probabilities(decoder, &tokens, |position, logp| {
        let ids = &top[position * TOP..][..TOP];
        let mut rest = [0f64; BUCKETS];
        for (id, l) in logp.iter().enumerate() {
            rest[id % BUCKETS] += l.exp();
        }
        let mut sum = 0.0;
        for (id, reference) in ids.iter().zip(&top_logp[position * TOP..][..TOP]) {
            let (p, l) = (f64::from(*reference), logp[usize::from(*id)]);
            rest[usize::from(*id) % BUCKETS] -= l.exp();
            // Summed as p·(ln p − ln q) − p + q: the terms are positive, so that rounding of the reference does not add up.
            sum += p.exp() * (p - l) - p.exp() + l.exp();
        }
        for (bucket, p) in tail[position * BUCKETS..][..BUCKETS].iter().enumerate() {
            let (p, q) = (f64::from(*p), rest[bucket].max(1e-30));
            sum += if p > 0.0 { p * (p / q).ln() - p + q } else { q };
        }
        kl.push(sum);
        if let Some(i) = full.get(&(position as u32)) {
            let codes = &codes[i * logp.len()..][..logp.len()];
            let reference = codes.iter().map(|code| low[*i] + step[*i] * f64::from(*code));
            exact.push((reference.zip(logp).map(|(p, l)| p.exp() * (p - l) - p.exp() + l.exp()).sum(), sum));
        }
    });
    (kl, exact)
}

#[test]
fn logits_are_the_references() {
    for decoder in &*models() {
        let gpu = decoder.gpu();
        let bound = if gpu.tier().f16 { 1e-3 } else { 1e-5 };
        let (kl, exact) = divergences(decoder);
        let worst = kl.iter().copied().fold(0.0, f64::max);
        println!("{}: KL at most {worst:.2e}; exact and over buckets: {exact:?}", device(gpu));
        assert_eq!((kl.len(), exact.len()), (512, 8));
        assert!(worst < bound, "{worst}");
        assert!(exact.iter().all(|(exact, _)| *exact < bound), "{exact:?}");
    }
}

#[derive(Deserialize)]
struct Greedy {
    name: String,
    text: String,
    prompt_ids: Vec<u32>,
    ids: Vec<u32>,
    margins: Vec<f32>,
}

/// Two logits closer than this may change places.
const MARGIN: f32 = 1e-3;

#[test]
fn greedy_continuations_are_the_references() {
    let tokenizer = Arc::new(Tokenizer::from_checkpoint(&FILE).unwrap());
    let prompts: Vec<Greedy> = json("smollm2/greedy.json");
    assert_eq!(prompts.len(), 8);
    for decoder in &*models() {
        let mut context = Context::new(decoder, 256).unwrap();
        // A software adapter takes its time: a second tier of it shows by a few prompts that it goes the same way.
        let again = decoder.gpu().is_cpu() && decoder.gpu().tier() != Tier::PORTABLE;
        for prompt in prompts.iter().skip(if again { 6 } else { 0 }) {
            let ids = tokenizer.encode(&prompt.text, false).unwrap();
            assert_eq!(ids, prompt.prompt_ids, "{}", prompt.name);
            assert_eq!((prompt.ids.len(), prompt.margins.len()), (64, 64));
            context.truncate(0);
            let (mut given, mut done, mut close) = (ids, 0, 0);
            while done < prompt.ids.len() {
                let options =
                    ContinueOptions { ignore_end: true, ..ContinueOptions::greedy((prompt.ids.len() - done) as u32) };
                let monitor = Monitor::none();
                let found = continue_text(decoder, &mut context, &tokenizer, &given, &options, |_| (), &monitor);
                let found = pollster::block_on(found).unwrap().ids();
                let expected = &prompt.ids[done..];
                assert_eq!(found.len(), expected.len());
                let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) else { break };
                let margin = prompt.margins[done + at];
                assert!(
                    margin <= MARGIN,
                    "{} on {}: token {} is {}, not {}, by a margin of {margin}",
                    prompt.name,
                    device(decoder.gpu()),
                    done + at,
                    found[at],
                    expected[at]
                );
                // A tie. Go on as the reference did, from its token.
                done += at + 1;
                close += 1;
                context.truncate((prompt.prompt_ids.len() + done - 1) as u32);
                given = vec![prompt.ids[done - 1]];
            }
            println!("{} on {}: {close} ties decided otherwise", prompt.name, device(decoder.gpu()));
        }
    }
}

#[derive(Deserialize)]
struct Perplexities {
    results: Vec<PerplexityOf>,
}

#[derive(Deserialize)]
struct PerplexityOf {
    n_ctx: u32,
    windows: u32,
    perplexity: f64,
    nll_sums: Vec<f64>,
}

#[test]
fn perplexity_is_the_references() {
    let text = std::fs::read_to_string(asset("text/eval.txt")).unwrap();
    let ids = Tokenizer::from_checkpoint(&FILE).unwrap().encode(&text, false).unwrap();
    let golden: Perplexities = json("smollm2/perplexity.json");
    // The fastest tier: a software adapter takes half a minute.
    let models = models();
    let decoder = models.last().unwrap();
    for expected in golden.results.iter().filter(|result| result.windows <= 4) {
        let windows = Windows::new(&ids, expected.n_ctx, Some(expected.windows), None).unwrap();
        let records = pollster::block_on(eval::likelihoods(decoder, &windows, &Monitor::none())).unwrap();
        let found = eval::perplexity(&records, &windows.targets()).unwrap().perplexity.value;
        let off = (found / expected.perplexity - 1.0).abs();
        println!("{} windows of {}: {found}, the reference {}", expected.windows, expected.n_ctx, expected.perplexity);
        assert!(off < 1e-3, "{found}, not {}", expected.perplexity);
        for (window, sum) in records.chunks_exact(expected.n_ctx as usize - 1).zip(&expected.nll_sums) {
            let found: f64 = window.iter().map(|record| f64::from(record.nll)).sum();
            assert!((found / sum - 1.0).abs() < 1e-5, "a window of {}: {found}, not {sum}", expected.n_ctx);
        }
    }
}

#[test]
fn weights_stay_packed() {
    let stored = Stored::of(&FILE).unwrap();
    let matrices = stored.tensors().iter().filter(|tensor| tensor.shape.len() == 2);
    let packed: u64 = matrices.map(|tensor| FILE.tensor(&tensor.name).unwrap().1.len() as u64).sum();
    for decoder in &*models() {
        let (matrices, all) = (decoder.weight_bytes(), decoder.gpu().memory().weights);
        println!("{packed} bytes in the file, {matrices} on the device, {all} with norms: {}", device(decoder.gpu()));
        assert!(all as f64 <= 1.03 * packed as f64, "{all} bytes for {packed}");
        assert!(matrices <= all);
    }
}

/// Rotated in f32 against f32: the same function.
#[test]
fn another_basis_leaves_the_function_as_it_is() {
    let tokens = Tensors::open("smollm2/golden.safetensors").u32s("tokens");
    let windows = Windows::new(&tokens, 257, Some(1), None).unwrap();
    let monitor = Monitor::none();
    let models = models();
    let gpu = models[0].gpu();
    let form = Form { recipe: Some("f32"), rotation: None };
    let original = Original::record(load_as(gpu, &FILE, form, 257), &windows, &monitor);
    let original = pollster::block_on(original).unwrap();
    let rotated = load_as(gpu, &FILE, Form { rotation: Some(42), ..form }, 257);
    let (records, _) = pollster::block_on(original.compare(&rotated, &windows, &monitor)).unwrap();
    let worst = records.iter().map(|record| record.kl_divergence).fold(0.0, f32::max);
    println!("KL at most {worst:e} over {} positions", records.len());
    assert_eq!(records.len(), 256);
    assert!(records.iter().all(|record| record.kl_divergence < 1e-5), "{worst}");
}
