//! Layers with a low-rank part, `Ŵ x + B (A x)`, against their f64 twin: every kernel, tier and format of the factors, alone and on top of
//! codecs, stacked, gated, normalised.

use crate::turns::block_on;
use std::collections::HashSet;
use tersor_kernel_test_macro::kernel_test;

use crate::kernel::{Random, gpus};
use tersor_engine::codec::{self, Calibration, Packed};
use tersor_engine::gpu::{Gpu, GpuOptions, Purpose, Tier};
use tersor_engine::ops::elementwise::Activation;
use tersor_engine::ops::linear::{
    Decision, Device, Epilogue, Linear, Norm, Residual, Rows, Shape, forward, forward_with,
};
use tersor_engine::reference::linear as twin;

const GUARD: f32 = 12345.678;

#[derive(Clone, Debug)]
struct Case {
    recipe: &'static str,
    /// Rows of the matrices that are stacked; of a gated layer two of the same.
    rows: Vec<usize>,
    cols: usize,
    tokens: usize,
    gated: bool,
    norm: bool,
    bias: bool,
    activation: Option<Activation>,
    residual: Added,
    scale: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Added {
    Nothing,
    OtherBuffer,
    InPlace,
}

fn plain(recipe: &'static str, rows: &[usize], cols: usize, tokens: usize) -> Case {
    Case {
        recipe,
        rows: rows.to_vec(),
        cols,
        tokens,
        gated: false,
        norm: false,
        bias: false,
        activation: None,
        residual: Added::Nothing,
        scale: 1.0,
    }
}

/// The matrices of a case, stacked.
fn matrix(case: &Case) -> Packed {
    let codec = codec::parse(case.recipe).unwrap();
    let mut random = Random::new(7);
    let cols = case.cols;
    let inputs: Vec<f32> = random.normals(cols * cols);
    let mut moment = vec![0.0; cols * cols];
    for i in 0..cols {
        for j in 0..cols {
            moment[i * cols + j] =
                (0..cols).map(|k| inputs[i * cols + k] * inputs[j * cols + k]).sum::<f32>() / cols as f32;
        }
    }
    let mean = random.normals(cols).iter().map(|v| 0.1 * v).collect();
    let calibration = Calibration::new(100, mean, moment).unwrap();
    let parts: Vec<Packed> = case
        .rows
        .iter()
        .map(|&rows| codec.encode_for(&random.normals(rows * cols), rows, cols, Some(&calibration)).unwrap())
        .collect();
    Packed::concat(&parts.iter().collect::<Vec<_>>()).unwrap()
}

fn check(gpu: &Gpu, case: &Case, packed: &Packed, decision: Option<Decision>) {
    let what = format!("{case:?} {decision:?} on {} {:?}", gpu.name(), gpu.tier());
    let (rows, cols, tokens) = (packed.rows, case.cols, case.tokens);
    let outputs = if case.gated { rows / 2 } else { rows };
    let mut random = Random::new(99);
    let (x, bias, residual) = (random.normals(tokens * cols), random.normals(rows), random.normals(tokens * outputs));
    let norm_weight: Vec<f32> = random.normals(cols);
    let mut packed = packed.clone();
    if case.bias {
        assert!(packed.codec.clone().absorb_bias(&mut packed, &bias));
    }

    let (x_offset, x_stride) = (8, cols.next_multiple_of(4) + 4);
    let (y_offset, y_stride) = (5, outputs + 3);
    let spread = |data: &[f32], width: usize, offset: usize, stride: usize, fill: f32| {
        let mut all = vec![fill; offset + tokens * stride + 7];
        for (t, row) in data.chunks_exact(width).enumerate() {
            all[offset + t * stride..][..width].copy_from_slice(row);
        }
        gpu.upload("test", &all, Purpose::Activations).unwrap()
    };
    let start = if case.residual == Added::InPlace { residual.clone() } else { vec![0.0; tokens * outputs] };
    let x_buffer = spread(&x, cols, x_offset, x_stride, f32::INFINITY);
    let y_buffer = spread(&start, outputs, y_offset, y_stride, GUARD);
    let r_buffer = spread(&residual, outputs, 3, outputs + 1, GUARD);
    let norm_buffer = gpu.upload("norm", &norm_weight, Purpose::Activations).unwrap();
    let linear = if case.gated { Linear::upload_gated } else { Linear::upload }(gpu, &packed, "w").unwrap();
    assert_eq!(linear.bytes(), packed.bytes(), "what is packed is what is on the GPU");
    let rows_of = |buffer, offset: usize, stride: usize| Rows { buffer, offset: offset as u32, stride: stride as u32 };
    let (xs, ys) = (rows_of(&x_buffer, x_offset, x_stride), rows_of(&y_buffer, y_offset, y_stride));
    let epilogue = Epilogue {
        norm: case.norm.then_some(Norm { weight: &norm_buffer, eps: 1e-5 }),
        activation: case.activation,
        residual: match case.residual {
            Added::Nothing => Residual::None,
            Added::OtherBuffer => Residual::Add(rows_of(&r_buffer, 3, outputs + 1)),
            Added::InPlace => Residual::InPlace,
        },
        scale: case.scale,
        ..Epilogue::default()
    };
    let mut rec = gpu.record();
    match decision {
        Some(d) => forward_with(&mut rec, d, &linear, tokens as u32, xs, ys, &epilogue),
        None => forward(&mut rec, &linear, tokens as u32, xs, ys, &epilogue),
    }
    .unwrap_or_else(|e| panic!("{what}: {e}"));
    if !case.norm || case.residual != Added::OtherBuffer {
        // Kernels that do not decode entropy-coded rows themselves have them expanded first.
        let apart = case.recipe.starts_with("entropy:") && !matches!(decision, None | Some(Decision::Coded { .. }));
        assert_eq!(rec.dispatches(), 2 + u64::from(apart), "{what}");
    }
    rec.submit().unwrap_or_else(|e| panic!("{what}: {e}"));
    let got: Vec<f32> = block_on(gpu.read(&y_buffer, 0, y_buffer.size() / 4)).unwrap();

    let parts = packed.codec.low_rank(&packed).unwrap();
    let norm = case.norm.then_some((&norm_weight[..], 1e-5));
    let sums = twin::low_rank(&parts, rows, cols, &x, norm);
    let biases: Vec<f32> = parts.b.chunks_exact(parts.row_words).map(|row| f32::from_bits(row[1])).collect();
    let e = twin::Epilogue {
        gated: case.gated,
        bias: Some(&biases),
        activation: case.activation,
        residual: (case.residual != Added::Nothing).then_some(&residual[..]),
        scale: case.scale.into(),
        cap: None,
    };
    let want = twin::epilogue(&sums.value, rows, &e);
    // What rounding in f32 (in f16 tiles) explains; what the epilogue makes of that is found by trying.
    let f16 = matches!(decision, Some(Decision::Matmul { f16: true, .. }));
    let unit = if f16 { 2f64.powi(-10) } else { 4e-6 };
    let mut tolerance: Vec<f64> = want.iter().map(|y| 1e-6 * (1.0 + y.abs())).collect();
    for (first, second) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
        let sign = |i: usize| if case.gated && i % rows >= outputs { second } else { first };
        let moved = |i: usize| sums.value[i] + sign(i) * unit * sums.magnitude[i];
        let moved: Vec<f64> = (0..sums.value.len()).map(moved).collect();
        for ((tolerance, y), moved) in tolerance.iter_mut().zip(&want).zip(twin::epilogue(&moved, rows, &e)) {
            *tolerance = tolerance.max(1.2 * (moved - y).abs() + 1e-6 * (1.0 + y.abs()));
        }
    }
    for (i, &got) in got.iter().enumerate() {
        let place =
            i.checked_sub(y_offset).map(|i| (i / y_stride, i % y_stride)).filter(|p| p.0 < tokens && p.1 < outputs);
        match place {
            Some((t, j)) => {
                let (want, tolerance) = (want[t * outputs + j], tolerance[t * outputs + j]);
                let error = (f64::from(got) - want).abs();
                assert!(error <= tolerance, "{what}: y[{t}, {j}] = {got}, not {want} ± {tolerance:.1e}");
            }
            None => assert_eq!(got, GUARD, "{what}: float {i} of the output was overwritten"),
        }
    }
}

/// Runs a case in every variant of every tier.
fn check_all(gpus: &[Gpu], case: &Case) {
    let packed = matrix(case);
    let (rows, cols, tokens) = (packed.rows as u32, case.cols as u32, case.tokens as u32);
    let mut done = HashSet::new();
    for gpu in gpus {
        check(gpu, case, &packed, None);
        for decision in Decision::all(Device::of(gpu), Shape { tokens, rows, cols, norm: case.norm }) {
            if done.insert(decision) {
                check(gpu, case, &packed, Some(decision));
            }
        }
    }
}

#[kernel_test]
fn every_format_of_factors_on_codecs_and_alone() {
    let gpus = gpus();
    for recipe in [
        "q4_0+svd:rank=8",
        "uniform:bits=3,group=32+eora:rank=40",
        "bf16+svd:rank=16,factors=f16",
        "q8_0+svd:rank=96,factors=q8_0",
        "sparse24+eora:rank=32,factors=q4_0",
        "svd:rank=24",
        "lord:rank=32,factors=q8_0",
        "lord:rank=16,factors=f16",
    ] {
        for tokens in [1, 11] {
            check_all(&gpus, &plain(recipe, &[100], 96, tokens));
        }
    }
    check_all(&gpus, &plain("uniform:bits=3,group=32+svd:rank=40", &[131], 160, 70));
}

/// What is under the low-rank part may itself be made of several methods.
#[kernel_test]
fn low_rank_parts_on_sparse_and_coded_weights() {
    let gpus = gpus();
    for (recipe, cols) in [
        ("sparse:2:4+q4_k+eora:rank=64", 512),
        ("sparse:50%+uniform:bits=4,group=32+eora:rank=40", 96),
        // So sparse that alone `linear/walk` would take it.
        ("sparse:95%+eora:rank=16", 352),
        ("sparse:50%,block=16+svd:rank=16", 96),
        ("entropy:uniform:bits=4,group=32+eora:rank=24", 96),
        ("entropy:bf16+svd:rank=16", 96),
    ] {
        check_all(&gpus, &plain(recipe, &[35], cols, 1));
        check_all(&gpus, &plain(recipe, &[35], cols, 11));
    }
}

/// Matrices that are stacked keep their own factors, wherever their rows fall in a kernel's tiles.
#[kernel_test]
fn stacked_matrices_have_factors_of_their_own() {
    let gpus = gpus();
    for (rows, tokens) in [(&[37usize, 40, 75][..], 1), (&[64, 16, 16], 5), (&[33, 130], 66)] {
        check_all(&gpus, &plain("q4_0+svd:rank=16", rows, 64, tokens));
    }
    check_all(&gpus, &plain("svd:rank=16", &[40, 50, 60], 64, 1));
    check_all(&gpus, &plain("svd:rank=16", &[40, 50, 60], 64, 7));
}

#[kernel_test]
fn everything_that_fuses_with_a_low_rank_part() {
    let gpus = gpus();
    let silu = Some(Activation::Silu);
    let base = plain("q8_0+svd:rank=24", &[50], 96, 1);
    let alone = plain("lord:rank=16", &[50], 96, 1);
    let pair = |case: &Case| Case { rows: vec![34, 34], gated: true, activation: silu, ..case.clone() };
    for case in [base, alone] {
        for case in [
            Case { bias: true, residual: Added::InPlace, tokens: 6, ..case.clone() },
            Case { residual: Added::OtherBuffer, scale: 0.5, tokens: 5, ..case.clone() },
            Case { norm: true, ..case.clone() },
            Case { norm: true, bias: true, residual: Added::InPlace, ..case.clone() },
            Case { norm: true, residual: Added::OtherBuffer, scale: 2.0, ..case.clone() },
            Case { bias: true, activation: Some(Activation::GeluErf), ..case.clone() },
            pair(&case),
            Case { norm: true, bias: true, ..pair(&case) },
            Case { tokens: 9, bias: true, residual: Added::InPlace, ..pair(&case) },
            Case { tokens: 67, rows: vec![75, 75], ..pair(&case) },
        ] {
            check_all(&gpus, &case);
        }
    }
}

#[kernel_test]
fn low_rank_parts_of_columns_that_do_not_fill_a_run() {
    let gpus = gpus();
    for (recipe, cols, tokens, norm) in [
        ("f16+svd:rank=8", 37, 1, true),
        ("bf16+svd:rank=8,factors=f16", 100, 6, false),
        ("svd:rank=8", 37, 1, true),
        ("svd:rank=8", 35, 9, false),
    ] {
        check_all(&gpus, &Case { norm, ..plain(recipe, &[30], cols, tokens) });
    }
}

/// A low-rank layer multiplies r (in + out) numbers a token, and no more.
#[kernel_test]
fn multiplications_are_counted() {
    let gpu = &gpus()[0];
    let count = |recipe, rows: &[usize], cols| {
        let packed = matrix(&plain(recipe, rows, cols, 1));
        Linear::upload(gpu, &packed, "w").unwrap().multiplications()
    };
    assert_eq!(count("lord:rank=16", &[96], 64), 16 * (96 + 64));
    assert_eq!(count("svd:rank=8", &[96], 64), 8 * (96 + 64));
    assert_eq!(count("q4_0+svd:rank=8", &[96], 64), 96 * 64 + 8 * (96 + 64));
    // Two matrices, two A.
    assert_eq!(count("svd:rank=8", &[64, 32], 64), 8 * (2 * 64 + 64 + 32));
    assert_eq!(count("q4_0", &[96], 64), 96 * 64);
}

#[kernel_test]
fn low_rank_parts_that_do_not_fit_are_refused() {
    let gpu = &gpus()[0];
    let packed = matrix(&plain("q4_0+svd:rank=8", &[32], 64, 1));
    let linear = Linear::upload(gpu, &packed, "w").unwrap();
    let buffer = gpu.storage("test", 4 * 64, Purpose::Activations).unwrap();
    let y = gpu.storage("test", 4 * 64, Purpose::Activations).unwrap();
    let epilogue = Epilogue { bias: Some(&buffer), ..Epilogue::default() };
    let (xs, ys) = (Rows::new(&buffer, 64), Rows::new(&y, 32));
    let error = forward(&mut gpu.record(), &linear, 1, xs, ys, &epilogue).unwrap_err().to_string();
    assert!(error.contains("the bias of a layer with a low-rank part is part of it"), "{error}");
    let error =
        tersor_engine::ops::linear::embed(&mut gpu.record(), &linear, &buffer, 0, 1, Rows::new(&y, 64), 1.0, false);
    assert!(error.unwrap_err().to_string().contains("cannot be looked up"));
}

/// Limits of a browser, where matrices are cut.
#[kernel_test]
fn default_limits_suffice() {
    let limits = tersor_engine::gpu::LimitsChoice::WebgpuDefault;
    let options = GpuOptions { limits, tier: Some(Tier::PORTABLE), ..GpuOptions::from_env().unwrap() };
    let gpu = block_on(Gpu::new(options)).unwrap();
    let case = Case {
        norm: true,
        bias: true,
        residual: Added::InPlace,
        ..plain("uniform:bits=3,group=32+svd:rank=8", &[40], 64, 1)
    };
    check(&gpu, &case, &matrix(&case), None);
}
