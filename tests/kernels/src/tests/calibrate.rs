//! Moments of activations on the GPU against their f64 twin.

use crate::kernel::{Random, gpus};
use crate::turns::block_on;
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::ops::linear::Rows;
use tersor_engine::ops::moments::{Moments, Sums};
use tersor_engine::reference::moments as twin;
use tersor_kernel_test_macro::kernel_test;

/// Sends inputs through in pieces; `stride` floats from one to the next, the first at `offset`, NaN between them.
fn moments(gpu: &Gpu, x: &[f32], cols: usize, offset: usize, stride: usize, pieces: &[usize]) -> Sums {
    let mut padded = vec![f32::NAN; offset];
    for row in x.chunks_exact(cols) {
        padded.extend(row);
        padded.resize(padded.len() + stride - cols, f32::NAN);
    }
    let buffer = gpu.upload("x", &padded, Purpose::Activations).unwrap();
    let mut moments = Moments::new(gpu, cols as u32).unwrap();
    let mut rec = gpu.record();
    let mut first = 0;
    for &tokens in pieces {
        let x = Rows { buffer: &buffer, offset: (offset + first * stride) as u32, stride: stride as u32 };
        moments.add(&mut rec, tokens as u32, x).unwrap();
        first += tokens;
    }
    rec.submit().unwrap();
    block_on(moments.read(gpu)).unwrap()
}

#[kernel_test]
fn moments_match_their_twin() {
    let mut random = Random::new(1);
    // Columns, offset, stride, tokens of each piece: whole tiles, ragged ones, rows that are not aligned, one token.
    let cases: [(usize, usize, usize, &[usize]); 7] = [
        (64, 0, 64, &[1]),
        (576, 0, 576, &[130, 1]),
        (200, 4, 208, &[33, 128, 7]),
        (65, 0, 65, &[40]),
        (67, 3, 71, &[5, 5]),
        (1, 0, 1, &[300]),
        (320, 1, 320, &[9]),
    ];
    for gpu in gpus() {
        for (cols, offset, stride, pieces) in cases {
            let tokens: usize = pieces.iter().sum();
            let x: Vec<f32> = random.normals(tokens * cols).iter().map(|v| 2.0 * v + 0.3).collect();
            let found = moments(&gpu, &x, cols, offset, stride, pieces);
            let (first, second) = twin::moments(&x, cols);
            assert_eq!((found.tokens, found.first.len()), (tokens as u64, cols));
            // By what an entry's terms add up to without their signs; the diagonal's are all positive.
            let size = |i: usize, j: usize| (second[i * cols + i] * second[j * cols + j]).sqrt();
            for i in 0..cols {
                let bound = 2e-6 * (tokens as f64 * second[i * cols + i]).sqrt();
                assert!((f64::from(found.first[i]) - first[i]).abs() <= bound, "{cols} columns, sum {i}");
                for j in 0..cols {
                    let (is, at) = (f64::from(found.second[i * cols + j]), i * cols + j);
                    let error = (is - second[at]).abs();
                    assert!(error <= 2e-6 * size(i, j), "{cols} columns, [{i}, {j}]: {is} for {}", second[at]);
                    assert_eq!(found.second[at], found.second[j * cols + i], "symmetric");
                }
            }
        }
    }
}

/// Ten thousand tokens whose products are all positive: a single f32 sum would lose more than this allows.
#[kernel_test]
fn many_tokens_lose_little() {
    let (cols, tokens) = (8, 10_000);
    let mut random = Random::new(2);
    let x: Vec<f32> = (0..cols * tokens).map(|_| 1.0 + random.unit()).collect();
    for gpu in gpus() {
        let found = moments(&gpu, &x, cols, 0, cols, &[4096, 4096, 1808]);
        let (first, second) = twin::moments(&x, cols);
        for (is, expected) in found.second.iter().zip(&second).chain(found.first.iter().zip(&first)) {
            assert!((f64::from(*is) / expected - 1.0).abs() < 2e-6, "{is} for {expected}");
        }
    }
}

#[kernel_test]
fn moments_that_do_not_fit_are_refused() {
    let gpu = &gpus()[0];
    let x = gpu.storage("x", 4 * 64 * 3, Purpose::Activations).unwrap();
    let mut moments = Moments::new(gpu, 64).unwrap();
    let mut rec = gpu.record();
    let error = moments.add(&mut rec, 4, Rows::new(&x, 64)).unwrap_err().to_string();
    assert!(error.contains("calibrate/moments: buffer `x` holds 768 bytes, 1024 are needed"), "{error}");
    assert!(moments.add(&mut rec, 3, Rows::new(&x, 32)).is_err(), "rows that overlap");
    assert!(Moments::new(gpu, 0).is_err());
}
