//! SmolLM2-135M as shipped (Q4_1, Q8_0) against a forward pass in f64 by another implementation (`golden/smollm2`).

use std::collections::HashMap;
use std::path::Path;

use tersor_engine::format::{Checkpoint, decode_f32};
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::model::{Config, Context, Decoder, Weights};
use tersor_engine::ops::linear::Rows;
use tersor_engine::progress::Monitor;
use tersor_tests::kernel::gpus;
use tersor_tests::models;

const TOP: usize = 128;
const BUCKETS: usize = 32;

struct Golden {
    file: Checkpoint,
}

impl Golden {
    fn open() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/smollm2/golden.safetensors");
        Self { file: Checkpoint::open(&path).unwrap() }
    }

    fn bytes(&self, name: &str) -> &[u8] {
        self.file.tensor(name).unwrap().1
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        let (info, bytes) = self.file.tensor(name).unwrap();
        decode_f32(info.dtype, bytes).unwrap()
    }

    fn f64s(&self, name: &str) -> Vec<f64> {
        self.bytes(name).chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn u32s(&self, name: &str) -> Vec<u32> {
        self.bytes(name).chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn u16s(&self, name: &str) -> Vec<u16> {
        self.bytes(name).chunks_exact(2).map(|b| u16::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

fn load(gpu: &Gpu, context: u32) -> Decoder {
    let checkpoint = models::open("smollm2-135m");
    let config = Config::read(&checkpoint).unwrap();
    let weights = Weights::new(&checkpoint, &config, None, None).unwrap();
    let monitor = Monitor::none();
    let load = Decoder::load(gpu, config, weights, checkpoint.name(), context, &monitor);
    pollster::block_on(load).unwrap().0
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
    let golden = Golden::open();
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
    for gpu in gpus() {
        let bound = if gpu.tier().f16 { 1e-3 } else { 1e-5 };
        let decoder = load(&gpu, 512);
        let (kl, exact) = divergences(&decoder);
        let worst = kl.iter().copied().fold(0.0, f64::max);
        println!("{} {:?}: KL at most {worst:.2e}; exact and over buckets: {exact:?}", gpu.name(), gpu.tier());
        assert_eq!((kl.len(), exact.len()), (512, 8));
        assert!(worst < bound, "{worst}");
        assert!(exact.iter().all(|(exact, _)| *exact < bound), "{exact:?}");
    }
}
