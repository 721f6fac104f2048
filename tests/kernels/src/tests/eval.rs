//! Comparison of logits and tensors on the GPU against f64 twins.

use crate::kernel::{Guarded, Random, gpus, upload};
use crate::turns::block_on;
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::ops::metrics::{self, COMPARE_WORDS, Comparison, DIFFERENCE_FLOATS, Matrix, NLL_WORDS, Positions};
use tersor_engine::ops::{OpsError, Variant};
use tersor_engine::reference::metrics as twin;
use tersor_kernel_test_macro::kernel_test;

const VARIANTS: [Variant; 2] = [Variant::Gpu, Variant::Software];

fn compare(
    gpu: &Gpu,
    variant: Variant,
    vocab: usize,
    a: &[f32],
    b: &[f32],
    targets: &[u32],
) -> Result<Vec<Comparison>, OpsError> {
    let rows = targets.len() as u32;
    let up = |x: &[f32]| gpu.upload("logits", x, Purpose::Activations).unwrap();
    // Targets and records stand at offsets, as they do when windows are merged.
    let shifted: Vec<u32> = [0, 0, 0].iter().chain(targets).copied().collect();
    let targets = gpu.upload("targets", &shifted, Purpose::Activations)?;
    let records = gpu.storage("records", u64::from((rows + 2) * COMPARE_WORDS) * 4, Purpose::Activations)?;
    let mut rec = gpu.record();
    metrics::compare(
        &mut rec,
        &Positions { variant, ..Positions::new(rows, vocab as u32) },
        &Matrix::tight(up(a), vocab as u32),
        &Matrix::tight(up(b), vocab as u32),
        (targets.all(), 3),
        (records.all(), 2),
    )?;
    rec.submit()?;
    block_on(metrics::read_comparisons(gpu, &records, 2, rows))
}

fn close(what: &str, actual: f32, expected: f64, relative: f64, absolute: f64) {
    let error = (f64::from(actual) - expected).abs();
    assert!(error <= absolute + relative * expected.abs(), "{what}: {actual:e} for {expected:e}");
}

#[kernel_test]
fn comparisons_match_their_twin() {
    let mut random = Random::new(1);
    let cases = [
        (1, 1000, 0.1),
        (3, 49_152, 1e-3),
        (17, 257, 1.0),
        (65, 7, 0.3),
        (5, 3, 0.1),
        (2, 49_152, 3.0),
        (4, 500, 1e-4),
    ];
    for gpu in gpus() {
        for (variant, (rows, vocab, noise)) in VARIANTS.into_iter().flat_map(|v| cases.map(|c| (v, c))) {
            let a: Vec<f32> = random.normals(rows * vocab).iter().map(|l| 3.0 * l + 12.0).collect();
            // Noise, and a shift that must not matter.
            let b: Vec<f32> = a.iter().map(|l| l + noise * random.normal() - 2.0).collect();
            let targets: Vec<u32> = (0..rows).map(|_| random.below(vocab as u32)).collect();
            let records = compare(&gpu, variant, vocab, &a, &b, &targets).unwrap();
            for (t, r) in records.iter().enumerate() {
                let row = t * vocab..(t + 1) * vocab;
                let e = twin::compare(&a[row.clone()], &b[row], targets[t]);
                for m in 0..2 {
                    close("nll", r.nll[m], e.nll[m], 1e-6, 2e-6);
                    close("p", r.p_target[m], e.p_target[m], 3e-5, 1e-30);
                    close("entropy", r.entropy[m], e.entropy[m], 1e-5, 1e-6);
                }
                // What the f32 logits differ by is exact; a KL of 10⁻⁸ has three digits.
                close("KL", r.kl_divergence, e.kl_divergence, 1e-3, 1e-12);
                assert_eq!((r.argmax, r.top5_overlap), (e.argmax, e.top5_overlap), "{rows}×{vocab} row {t}");
            }
        }
    }
}

#[kernel_test]
fn equal_logits_have_no_divergence_and_small_ones_are_seen() {
    let mut random = Random::new(2);
    let gpu = &gpus()[0];
    let vocab = 32_000;
    let a: Vec<f32> = random.normals(vocab).iter().map(|l| 4.0 * l).collect();
    for variant in VARIANTS {
        let same = &compare(gpu, variant, vocab, &a, &a, &[5]).unwrap()[0];
        assert_eq!((same.kl_divergence, same.top5_overlap), (0.0, 5));
        assert_eq!(same.nll[0], same.nll[1]);
        for noise in [1e-2, 1e-3, 1e-4, 3e-5] {
            let b: Vec<f32> = a.iter().map(|l| l + noise * random.normal()).collect();
            let r = &compare(gpu, variant, vocab, &a, &b, &[5]).unwrap()[0];
            let e = twin::compare(&a, &b, 5);
            close(&format!("KL at noise {noise}"), r.kl_divergence, e.kl_divergence, 1e-3, 0.0);
        }
    }
}

#[kernel_test]
fn models_that_disagree_completely() {
    let gpu = &gpus()[0];
    let (vocab, variant) = (300, Variant::Auto);
    let (mut a, mut b) = (vec![-20f32; vocab], vec![-20f32; vocab]);
    (a[7], b[200]) = (30.0, 40.0);
    let r = &compare(gpu, variant, vocab, &a, &b, &[7]).unwrap()[0];
    let e = twin::compare(&a, &b, 7);
    close("KL", r.kl_divergence, e.kl_divergence, 1e-5, 0.0);
    close("nll", r.nll[1], 60.0, 1e-5, 0.0);
    assert_eq!((r.argmax, r.p_target[1] < 1e-20), ([7, 200], true));
    let nan = compare(gpu, variant, vocab, &a, &vec![f32::NAN; vocab], &[7]);
    assert!(matches!(nan, Err(OpsError::NotANumber { .. })));
}

#[kernel_test]
fn likelihoods_match_their_twin() {
    let mut random = Random::new(3);
    for gpu in gpus() {
        let cases = [(1, 1), (3, 49_152), (17, 257), (65, 7)];
        for (variant, (rows, vocab)) in VARIANTS.into_iter().flat_map(|v| cases.map(|c| (v, c))) {
            let logits: Vec<f32> = random.normals(rows * vocab).iter().map(|l| 5.0 * l).collect();
            let targets: Vec<u32> = (0..rows).map(|_| random.below(vocab as u32)).collect();
            let up = gpu.upload("logits", &logits, Purpose::Activations).unwrap();
            let wanted = gpu.upload("targets", &targets, Purpose::Activations).unwrap();
            let bytes = rows as u64 * u64::from(NLL_WORDS) * 4;
            let records = gpu.storage("records", bytes, Purpose::Activations).unwrap();
            let mut rec = gpu.record();
            let positions = Positions { variant, ..Positions::new(rows as u32, vocab as u32) };
            let all = Matrix::tight(up, vocab as u32);
            metrics::nll(&mut rec, &positions, &all, (wanted.all(), 0), (records.all(), 0)).unwrap();
            rec.submit().unwrap();
            let found = block_on(metrics::read_likelihoods(&gpu, &records, 0, rows as u32)).unwrap();
            for (t, l) in found.iter().enumerate() {
                let row = &logits[t * vocab..(t + 1) * vocab];
                let e = twin::compare(row, row, targets[t]);
                close("nll", l.nll, e.nll[0], 1e-6, 2e-6);
                close("p", l.p_target, e.p_target[0], 3e-5, 0.0);
                close("entropy", l.entropy, e.entropy[0], 1e-5, 1e-6);
                assert_eq!(l.argmax, e.argmax[0]);
            }
        }
    }
}

#[kernel_test]
fn differences_match_their_twin() {
    let mut random = Random::new(4);
    for gpu in gpus() {
        let shapes = [(1usize, 5usize), (17, 100), (512, 576)];
        let sums =
            gpu.storage("sums", shapes.len() as u64 * u64::from(DIFFERENCE_FLOATS) * 4, Purpose::Activations).unwrap();
        let mut rec = gpu.record();
        let mut expected = Vec::new();
        for (slot, (rows, cols)) in shapes.into_iter().enumerate() {
            let a = random.normals(rows * cols);
            let b: Vec<f32> = a.iter().map(|x| x + 0.01 * random.normal()).collect();
            // b has padding, which must not count.
            let padded: Vec<f32> = b.chunks(cols).flat_map(|r| r.iter().copied().chain([1e6; 3])).collect();
            let up = |x: &[f32]| gpu.upload("tensor", x, Purpose::Activations).unwrap().all();
            let a_rows = Matrix::tight(up(&a), cols as u32);
            let b_rows = Matrix { buffer: up(&padded), offset: 0, stride: cols as u32 + 3 };
            let shape = [rows as u32, cols as u32];
            metrics::difference(&mut rec, shape, &a_rows, &b_rows, &sums, slot as u32).unwrap();
            expected.push(twin::difference(&a, &b));
        }
        rec.submit().unwrap();
        let found = block_on(metrics::read_differences(&gpu, &sums, shapes.len() as u32)).unwrap();
        for (d, e) in found.iter().zip(&expected) {
            assert!((d.nmse() / e.nmse() - 1.0).abs() < 1e-4, "{d:?} {e:?}");
            assert!((d.cosine() - e.cosine()).abs() < 1e-6 && (d.energy / e.energy - 1.0).abs() < 1e-5);
        }
    }
}

#[kernel_test]
fn cosines_match_their_twin() {
    let mut random = Random::new(17);
    for gpu in gpus() {
        for [rows, cols] in [[1u32, 576u32], [3, 5], [130, 67]] {
            let n = (rows * cols) as usize;
            let (a, mut b) = (random.normals(n), random.normals(n));
            // A row of zeros, a row of large numbers, equal rows.
            b[..cols as usize].fill(0.0);
            if rows > 2 {
                let at = cols as usize;
                b[at..2 * at].copy_from_slice(&a[at..2 * at]);
                b[2 * at..3 * at].iter_mut().for_each(|v| *v *= 1e15);
            }
            let y = Guarded::new(&gpu, rows as usize);
            let mut rec = gpu.record();
            metrics::cosine(&mut rec, [rows, cols], upload(&gpu, &a), upload(&gpu, &b), y.slice(), 0).unwrap();
            rec.submit().unwrap();
            let expected: Vec<f64> = a
                .chunks_exact(cols as usize)
                .zip(b.chunks_exact(cols as usize))
                .map(|(a, b)| {
                    let dot = |a: &[f32], b: &[f32]| -> f64 {
                        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                    };
                    let norms = (dot(a, a) * dot(b, b)).sqrt();
                    if norms > 0.0 { dot(a, b) / norms } else { 1.0 }
                })
                .collect();
            let found = y.floats(&gpu);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-5, "{rows} x {cols}: {found} instead of {expected}");
            }
        }
    }
}
