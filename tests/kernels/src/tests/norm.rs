//! Norms, activations, copies and pooling on the GPU against their f64 twins.

use crate::kernel::{Guarded, Random, gpus, upload};
use crate::turns::block_on;
use tersor_engine::ops::Variant;
use tersor_engine::ops::elementwise::{self, Activation, Gated, Pooling, Rows};
use tersor_engine::ops::norm::{self, Norm};
use tersor_engine::reference::{self, nmse};
use tersor_kernel_test_macro::kernel_test;

/// f32 sums of a few hundred terms: relative error about 1e-7, squared.
const BOUND: f64 = 1e-12;

const SHAPES: [(u32, u32); 6] = [(1, 576), (3, 5), (17, 64), (65, 100), (2, 1), (1, 4099)];

#[kernel_test]
fn rms_norm_matches_its_twin() {
    let mut random = Random::new(1);
    for gpu in gpus() {
        for variant in [Variant::Gpu, Variant::Software] {
            for (rows, cols) in SHAPES {
                for with_residual in [false, true] {
                    let n = (rows * cols) as usize;
                    let (x, weight, residual) = (random.normals(n), random.normals(cols as usize), random.normals(n));
                    let y = Guarded::new(&gpu, n);
                    let norm = Norm { variant, ..Norm::tight(rows, cols, 1e-5) };
                    let extra = with_residual.then(|| upload(&gpu, &residual));
                    let mut rec = gpu.record();
                    norm::rms(&mut rec, &norm, upload(&gpu, &x), upload(&gpu, &weight), extra, y.slice()).unwrap();
                    rec.submit().unwrap();
                    let expected = reference::norm::rms(&x, &weight, with_residual.then_some(&residual), 1e-5);
                    let error = nmse(&y.floats(&gpu), &expected);
                    assert!(error < BOUND, "{rows}×{cols} {variant:?} residual {with_residual}: {error:e}");
                }
            }
        }
    }
}

#[kernel_test]
fn layer_norm_matches_its_twin() {
    let mut random = Random::new(2);
    for gpu in gpus() {
        for variant in [Variant::Gpu, Variant::Software] {
            for (rows, cols) in [(1, 384), (3, 5), (17, 64), (65, 100)] {
                for (with_residual, with_bias) in [(false, true), (true, true), (true, false)] {
                    let n = (rows * cols) as usize;
                    // A mean far from 0: a one-pass variance would cancel.
                    let x: Vec<f32> = random.normals(n).iter().map(|v| v + 30.0).collect();
                    let residual = random.normals(n);
                    let (weight, bias) = (random.normals(cols as usize), random.normals(cols as usize));
                    let y = Guarded::new(&gpu, n);
                    let norm = Norm { variant, ..Norm::tight(rows, cols, 1e-12) };
                    let mut rec = gpu.record();
                    norm::layer(
                        &mut rec,
                        &norm,
                        upload(&gpu, &x),
                        upload(&gpu, &weight),
                        with_bias.then(|| upload(&gpu, &bias)),
                        with_residual.then(|| upload(&gpu, &residual)),
                        y.slice(),
                    )
                    .unwrap();
                    rec.submit().unwrap();
                    let expected = reference::norm::layer(
                        &x,
                        &weight,
                        with_bias.then_some(&bias),
                        with_residual.then_some(&residual),
                        1e-12,
                    );
                    let error = nmse(&y.floats(&gpu), &expected);
                    // The mean is 30 standard deviations: its rounding weighs that much more.
                    assert!(error < 1e-10, "{rows}×{cols} {variant:?}: {error:e}");
                }
            }
        }
    }
}

#[kernel_test]
fn a_norm_reads_and_writes_rows_at_strides() {
    let gpu = &gpus()[0];
    let (rows, cols) = (3usize, 7usize);
    let x = Random::new(3).normals(5 + 2 * 20 + cols);
    let weight = vec![1.0; cols];
    let norm = Norm { x_offset: 5, x_stride: 20, y_stride: 9, ..Norm::tight(rows as u32, cols as u32, 0.0) };
    let y = gpu.upload("y", &[-1f32; 27], tersor_engine::gpu::Purpose::Activations).unwrap();
    let mut rec = gpu.record();
    norm::rms(&mut rec, &norm, upload(gpu, &x), upload(gpu, &weight), None, &y).unwrap();
    rec.submit().unwrap();
    let y: Vec<f32> = block_on(gpu.read(&y, 0, 27)).unwrap();
    for r in 0..rows {
        let expected = reference::norm::rms(&x[5 + r * 20..5 + r * 20 + cols], &weight, None, 0.0);
        assert!(nmse(&y[r * 9..r * 9 + cols], &expected) < BOUND);
        assert!(y[r * 9 + cols..(r + 1) * 9].iter().all(|v| *v == -1.0), "padding was touched");
    }
}

#[kernel_test]
fn norms_that_do_not_fit_are_refused() {
    let gpu = &gpus()[0];
    let small = upload(gpu, &[0.0; 8]);
    let mut rec = gpu.record();
    let norm = Norm::tight(3, 8, 0.0);
    let error = norm::rms(&mut rec, &norm, small.clone(), small.clone(), None, small.clone()).unwrap_err().to_string();
    assert!(error.contains("`x` holds 32 bytes, 96 are needed"), "{error}");
    let norm = Norm { x_stride: 4, ..Norm::tight(1, 8, 0.0) };
    assert!(norm::rms(&mut rec, &norm, small.clone(), small.clone(), None, small).is_err());
}

#[kernel_test]
fn activations_match_their_twins() {
    let mut random = Random::new(4);
    for gpu in gpus() {
        for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::Relu] {
            let (rows, cols) = (17, 33);
            let mut gate: Vec<f32> = random.normals(rows * cols).iter().map(|v| v * 3.0).collect();
            gate[..6].copy_from_slice(&[0.0, 100.0, -100.0, 1e4, -1e4, 1e-8]);
            let up = random.normals(rows * cols);
            for factor in [None, Some(&up)] {
                let y = Guarded::new(&gpu, rows * cols);
                let shape = Gated {
                    rows: rows as u32,
                    cols: cols as u32,
                    gate_offset: 0,
                    gate_stride: cols as u32,
                    up_offset: 0,
                    up_stride: cols as u32,
                    y_stride: cols as u32,
                    activation,
                };
                let mut rec = gpu.record();
                let up = factor.map(|u| upload(&gpu, u));
                elementwise::gated(&mut rec, &shape, upload(&gpu, &gate), up, y.slice()).unwrap();
                rec.submit().unwrap();
                let expected = reference::elementwise::gated(activation, &gate, factor.map(Vec::as_slice));
                for (actual, expected) in y.floats(&gpu).iter().zip(&expected) {
                    let error = (f64::from(*actual) - expected).abs();
                    assert!(error < 1e-6 * (1.0 + expected.abs()), "{activation:?}: {actual} for {expected}");
                }
            }
        }
    }
}

#[kernel_test]
fn gate_and_factor_may_share_a_buffer() {
    let gpu = &gpus()[0];
    let x = Random::new(5).normals(2 * 10);
    let shape = Gated {
        rows: 2,
        cols: 5,
        gate_offset: 0,
        gate_stride: 10,
        up_offset: 5,
        up_stride: 10,
        y_stride: 5,
        activation: Activation::Silu,
    };
    let (both, y) = (upload(gpu, &x), Guarded::new(gpu, 10));
    let mut rec = gpu.record();
    elementwise::gated(&mut rec, &shape, both.clone(), Some(both), y.slice()).unwrap();
    rec.submit().unwrap();
    let gate = [&x[0..5], &x[10..15]].concat();
    let up = [&x[5..10], &x[15..20]].concat();
    let expected = reference::elementwise::gated(Activation::Silu, &gate, Some(&up));
    assert!(nmse(&y.floats(gpu), &expected) < BOUND);
}

#[kernel_test]
fn maps_change_their_numbers_only() {
    let gpu = &gpus()[0];
    let (y, x) = (Random::new(6).normals(1001), Random::new(7).normals(1000));
    let close = |a: f32, b: f32| (a - b).abs() <= 1e-6 * (1.0 + b.abs());
    for (kind, expected) in [
        (0, Box::new(|y: f32, x: f32| y + 0.5 * x) as Box<dyn Fn(f32, f32) -> f32>),
        (1, Box::new(|y, _| y * 24.0)),
        (2, Box::new(|y, _| 2.0 * (y / 2.0f32).tanh())),
    ] {
        let buffer = gpu.upload("y", &y, tersor_engine::gpu::Purpose::Activations).unwrap();
        let mut rec = gpu.record();
        match kind {
            0 => elementwise::add(&mut rec, 1000, &buffer, upload(gpu, &x), 0.5),
            1 => elementwise::scale(&mut rec, 1000, &buffer, 24.0),
            _ => elementwise::soft_cap(&mut rec, 1000, &buffer, 2.0),
        }
        .unwrap();
        rec.submit().unwrap();
        let out: Vec<f32> = block_on(gpu.read(&buffer, 0, 1001)).unwrap();
        assert!((0..1000).all(|i| close(out[i], expected(y[i], x[i]))), "map {kind}");
        assert_eq!(out[1000], y[1000]);
    }
    assert!(elementwise::soft_cap(&mut gpu.record(), 1, upload(gpu, &x), 0.0).is_err());
}

#[kernel_test]
fn rows_are_copied_and_packed() {
    let gpu = &gpus()[0];
    let x = Random::new(8).normals(9 * 6);
    let indices = gpu.upload("rows", &[8u32, 0, 3, 3, 1000], tersor_engine::gpu::Purpose::Activations).unwrap();
    let (y, packed) = (Guarded::new(gpu, 5 * 6), Guarded::new(gpu, 5 * 3));
    let shape = Rows { n: 5, cols: 6, x_rows: 9, x_stride: 6, y_stride: 6 };
    let mut rec = gpu.record();
    elementwise::rows(&mut rec, &shape, upload(gpu, &x), &indices, y.slice()).unwrap();
    let narrow = Rows { y_stride: 3, ..shape };
    elementwise::pack_rows(&mut rec, &narrow, upload(gpu, &x), &indices, packed.slice()).unwrap();
    rec.submit().unwrap();
    let expected: Vec<f32> = [8, 0, 3, 3, 8].iter().flat_map(|r| x[r * 6..r * 6 + 6].to_vec()).collect();
    assert_eq!(y.floats(gpu), expected);
    let halves: Vec<f32> = packed
        .words(gpu)
        .iter()
        .flat_map(|w| [*w as u16, (*w >> 16) as u16].map(|h| half::f16::from_bits(h).to_f32()))
        .collect();
    assert!(halves.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-3 * b.abs()));
}

#[kernel_test]
fn pooling_matches_its_twin() {
    let mut random = Random::new(9);
    for gpu in gpus() {
        for (tokens, cols) in [(1, 384), (17, 30), (65, 384)] {
            let x = random.normals(tokens * cols);
            for pooling in [Pooling::Mean, Pooling::First, Pooling::Last] {
                for normalize in [false, true] {
                    let y = Guarded::new(&gpu, cols);
                    let mut rec = gpu.record();
                    let shape = [tokens as u32, cols as u32];
                    elementwise::pool(&mut rec, pooling, normalize, shape, upload(&gpu, &x), y.slice(), 0).unwrap();
                    rec.submit().unwrap();
                    let expected = reference::elementwise::pool(pooling, normalize, &x, cols);
                    let error = nmse(&y.floats(&gpu), &expected);
                    assert!(error < BOUND, "{tokens}×{cols} {pooling:?} {normalize}: {error:e}");
                }
            }
        }
    }
}
