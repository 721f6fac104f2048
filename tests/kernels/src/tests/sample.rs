//! The sampler on the GPU against its twin: the same token for the same seed, wherever the rounding of `exp` cannot decide.

use crate::kernel::{Random, gpus};
use crate::turns::block_on;
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::ops::OpsError;
use tersor_engine::ops::sample::{BEST, Sampled, Sampler, Sampling};
use tersor_engine::reference::metrics::log_softmax;
use tersor_engine::reference::sample::sample;
use tersor_kernel_test_macro::kernel_test;

/// The mass of a token is rounded to 2⁻²⁴ of the largest; exp on a GPU is off by a few of these. With this margin the choice
/// cannot hang on it.
const MARGIN: f64 = 1e-5;

fn draw(gpu: &Gpu, sampling: &Sampling, logits: &[f32], recent: &[u32], position: u32) -> Result<Sampled, OpsError> {
    let sampler = Sampler::new(gpu, 3, 64)?;
    // The row lies between others, which hold numbers that would show.
    let offset = 5u32;
    let mut rows = vec![1e9f32; offset as usize];
    rows.extend(logits);
    rows.extend([1e9f32; 300]);
    let buffer = gpu.upload("logits", &rows, Purpose::Activations)?;
    let recent = sampler.set_recent(gpu, recent);
    let mut rec = gpu.record();
    let shape = [offset, logits.len() as u32];
    sampler.sample(&mut rec, sampling, &buffer, shape, recent, position, 1)?;
    rec.submit()?;
    let after: Vec<f32> = block_on(gpu.read(&buffer, 0, rows.len() as u64))?;
    assert!(after.iter().zip(&rows).all(|(a, b)| a.to_bits() == b.to_bits()), "the logits changed");
    block_on(sampler.read(gpu, 1))
}

fn check_report(s: &Sampled, logits: &[f32], sampling: &Sampling) {
    let log = log_softmax(logits);
    let entropy = -log.iter().map(|l| l.exp() * l).sum::<f64>();
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|i, j| logits[*j as usize].total_cmp(&logits[*i as usize]).then(i.cmp(j)));
    assert!((f64::from(s.logprob) - log[s.token as usize]).abs() < 1e-4, "{s:?} {sampling:?}");
    assert!((f64::from(s.entropy) - entropy).abs() < 1e-4 * (1.0 + entropy), "{s:?} {entropy}");
    assert_eq!(s.best.len(), BEST.min(logits.len()));
    for ((token, logprob), expected) in s.best.iter().zip(&order) {
        assert_eq!(token, expected, "{s:?}");
        assert!((f64::from(*logprob) - log[*token as usize]).abs() < 1e-4);
    }
}

#[kernel_test]
fn greedy_is_argmax() {
    let mut random = Random::new(1);
    for gpu in gpus() {
        for vocab in [1, 3, 255, 256, 257, 49_152] {
            let logits: Vec<f32> = random.normals(vocab).iter().map(|l| 4.0 * l).collect();
            let s = draw(&gpu, &Sampling::default(), &logits, &[], 0).unwrap();
            assert_eq!(Some(s.token), sample(&Sampling::default(), &logits, &[], 0).token);
            assert_eq!((s.candidates, s.drawn_with), (1, 1.0));
            check_report(&s, &logits, &Sampling::default());
        }
    }
}

#[kernel_test]
fn the_penalty_changes_the_choice_and_not_the_report() {
    let mut random = Random::new(2);
    let gpu = &gpus()[0];
    let sampling = Sampling { repetition_penalty: 1.7, ..Default::default() };
    let mut changed = 0;
    for _ in 0..20 {
        let logits: Vec<f32> = random.normals(1000).iter().map(|l| 3.0 * l).collect();
        let mut recent: Vec<u32> = (0..40).map(|_| random.below(1000)).collect();
        let best = sample(&Sampling::default(), &logits, &[], 0).token.unwrap();
        recent.extend([best, best, 5000]);
        let mut unique = recent.clone();
        unique.sort_unstable();
        unique.dedup();
        let s = draw(gpu, &sampling, &logits, &recent, 0).unwrap();
        assert_eq!(Some(s.token), sample(&sampling, &logits, &unique, 0).token);
        changed += u32::from(s.token != best);
        check_report(&s, &logits, &sampling);
    }
    assert!(changed > 5, "a penalty that changes nothing tests nothing");
}

#[kernel_test]
fn sampling_chooses_what_the_twin_chooses() {
    let mut random = Random::new(3);
    let warm = Sampling { temperature: 0.8, ..Default::default() };
    let settings = [
        warm,
        Sampling { temperature: 1.5, ..warm },
        Sampling { top_k: 40, ..warm },
        Sampling { top_k: 1, ..warm },
        Sampling { top_k: 100_000, ..warm },
        Sampling { top_p: 0.9, ..warm },
        Sampling { top_p: 0.1, temperature: 2.0, ..warm },
        Sampling { min_p: 0.05, ..warm },
        Sampling { top_k: 50, top_p: 0.95, min_p: 0.02, repetition_penalty: 1.1, ..warm },
    ];
    for gpu in gpus() {
        for vocab in [5, 300, 49_152] {
            let scale = if vocab == 300 { 0.3 } else { 3.0 };
            let logits: Vec<f32> = random.normals(vocab).iter().map(|l| scale * l).collect();
            let recent: Vec<u32> = (0..vocab.min(20) as u32).collect();
            let (mut decided, mut first) = (0, None);
            let mut different = false;
            for (i, sampling) in settings.iter().enumerate() {
                for position in 0..4 {
                    let sampling = Sampling { seed: 0x1234_5678_9abc_def0 + i as u64, ..*sampling };
                    let expected = sample(&sampling, &logits, &recent, position);
                    let s = draw(&gpu, &sampling, &logits, &recent, position).unwrap();
                    if expected.margin > MARGIN {
                        decided += 1;
                        assert_eq!(Some(s.token), expected.token, "{vocab} {position} {sampling:?}");
                        assert_eq!(s.candidates as usize, expected.candidates, "{vocab} {position} {sampling:?}");
                    }
                    check_report(&s, &logits, &sampling);
                    different |= *first.get_or_insert(s.token) != s.token;
                    if position == 0 {
                        assert_eq!(draw(&gpu, &sampling, &logits, &recent, position).unwrap(), s, "not deterministic");
                    }
                }
            }
            assert!(decided > 30 && (different || vocab < 10), "{decided} of 36 decided");
        }
    }
}

#[kernel_test]
fn equal_and_impossible_logits() {
    let gpu = &gpus()[0];
    let warm = Sampling { temperature: 1.0, top_k: 3, ..Default::default() };
    // Equal logits stay together, as in transformers.
    let s = draw(gpu, &warm, &[1.0; 700], &[], 7).unwrap();
    assert_eq!(s.candidates, 700);
    assert_eq!(Some(s.token), sample(&warm, &[1.0; 700], &[], 7).token);
    assert!((s.drawn_with * 700.0 - 1.0).abs() < 1e-3);
    // One possible token.
    let mut logits = vec![-1e30f32; 500];
    logits[321] = 3.0;
    let all = Sampling { top_k: 0, ..warm };
    for position in 0..5 {
        assert_eq!(draw(gpu, &all, &logits, &[], position).unwrap().token, 321);
    }
    let error = draw(gpu, &all, &[f32::NAN; 300], &[], 0).unwrap_err();
    assert!(matches!(error, OpsError::NotANumber { .. }), "{error}");
}

#[kernel_test]
fn settings_without_sense_are_refused() {
    let gpu = &gpus()[0];
    for bad in [
        Sampling { temperature: -1.0, ..Default::default() },
        Sampling { temperature: f32::NAN, ..Default::default() },
        Sampling { top_p: 0.0, ..Default::default() },
        Sampling { min_p: 1.5, ..Default::default() },
        Sampling { repetition_penalty: 0.0, ..Default::default() },
    ] {
        assert!(draw(gpu, &bad, &[0.0; 10], &[], 0).is_err(), "{bad:?}");
    }
}

#[kernel_test]
fn a_large_vocabulary_is_sampled_evenly() {
    // 262,144 equal tokens, the largest vocabulary: every lane's share is used.
    let gpu = &gpus()[0];
    let logits = vec![0.0f32; 262_144];
    let warm = Sampling { temperature: 1.0, seed: 9, ..Default::default() };
    let mut shares = std::collections::HashSet::new();
    for position in 0..12 {
        let s = draw(gpu, &warm, &logits, &[], position).unwrap();
        let expected = sample(&warm, &logits, &[], position);
        assert_eq!((Some(s.token), s.candidates), (expected.token, 262_144));
        shares.insert(s.token / 32_768);
    }
    assert!(shares.len() > 3, "{shares:?}");
}
