//! The linear kernels and the codecs' WGSL against the f64 twin and the codecs' own decoders.

use crate::kernel::gpus;
use crate::turns::block_on;
use std::collections::{BTreeSet, HashSet};
use tersor_engine::codec::{self, Calibrates, Calibration, CodecRef, Packed, Plane, PlaneLayout};
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::ops::elementwise::Activation;
use tersor_engine::ops::linear::{
    Decision, Device, Epilogue, Linear, Norm, Residual, Rows, Shape, embed, forward, forward_with,
};
use tersor_engine::reference::linear as twin;
use tersor_kernel_test_macro::kernel_test;

/// Every codec module.
const MODULES: &[&str] = &[
    "f32",
    "f16",
    "bf16",
    "q4_0",
    "q4_1",
    "q5_0",
    "q5_1",
    "q8_0",
    "q2_k",
    "q3_k",
    "q4_k",
    "q5_k",
    "q6_k",
    "iq4_nl",
    "iq4_xs",
    "tq1_0",
    "tq2_0",
    "mxfp4",
    "nvfp4",
    "q1_0",
    "q2_0",
    "nf4",
    "fp4",
    "uniform:bits=3",
    "sparse:2:4",
    "sparse:70%",
    "sparse:4:8+q4_0",
    "sparse:50%,block=16",
    "sparse:60%,block=32+q8_0",
    "spqr:bits=3",
];

/// Codecs that kept weights can be in.
const VALUES: &[&str] =
    &["bf16", "f16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k", "iq4_nl"];

/// Every codec module with every set of its options.
fn recipes() -> Vec<String> {
    let mut all: Vec<String> = MODULES.iter().map(|m| (*m).to_owned()).collect();
    for kind in ["nf4", "fp4"] {
        all.extend(
            ["block=256", "block=64,double=off", "block=128,double=off"].map(|options| format!("{kind}:{options}")),
        );
    }
    all.extend(
        [
            "2:4,values=f16",
            "30%",
            "91.5%,values=f16",
            "0%",
            "4:8",
            "1:2",
            "3:4",
            "7:8",
            "5:16",
            "80%,block=16",
            "nnz=3",
        ]
        .map(|p| format!("sparse:{p}")),
    );
    all.extend(VALUES.iter().map(|values| format!("sparse:60%+{values}")));
    all.extend(["bits=3,group=32", "bits=4,outliers=7", "bits=4,group=32", "published"].map(|o| format!("spqr:{o}")));
    for bits in [2, 3, 4, 5, 6, 8] {
        for group in [16, 32, 64, 256] {
            all.push(format!("uniform:bits={bits},group={group}"));
            all.push(format!("uniform:bits={bits},group={group},zero"));
            if group <= 32 {
                all.push(format!("sparse:60%+uniform:bits={bits},group={group}"));
                all.push(format!("sparse:60%+uniform:bits={bits},group={group},zero"));
            }
        }
    }
    let coded: Vec<String> = all.iter().filter(|recipe| parse(recipe).symbols().is_some()).cloned().collect();
    all.extend(coded.iter().map(|recipe| format!("entropy:{recipe}")));
    all
}

/// A float no kernel writes.
const GUARD: f32 = 12345.678;

fn parse(recipe: &str) -> CodecRef {
    codec::parse(recipe).unwrap_or_else(|e| panic!("{recipe}: {e}"))
}

/// Uniform in −1..1.
struct Random(u32);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1664525).wrapping_add(1013904223);
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    fn many(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// A matrix whose rows have different ranges.
fn matrix(codec: &CodecRef, rows: usize, cols: usize, seed: u32) -> Packed {
    let mut random = Random(seed);
    if !codec.encodes() {
        return noise(codec, rows, cols, &mut random);
    }
    let weights: Vec<f32> = (0..rows * cols).map(|i| random.next() * (1 + i / cols % 3) as f32).collect();
    let calibration = (codec.calibrates() != Calibrates::No).then(|| calibration(cols));
    codec.encode_for(&weights, rows, cols, calibration.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", codec.name()))
}

/// Statistics of inputs that differ in size and know nothing of one another.
fn calibration(cols: usize) -> Calibration {
    let energy = |col: usize| 0.1 + (col * 29 % 17) as f32;
    let moment = (0..cols * cols).map(|i| if i / cols == i % cols { energy(i / cols) } else { 0.0 }).collect();
    Calibration::new(100, vec![0.0; cols], moment).expect("sound statistics")
}

/// A matrix of a codec that only reads: random codes under random scales, all of them below 2.
fn noise(codec: &CodecRef, rows: usize, cols: usize, random: &mut Random) -> Packed {
    let planes = codec.layout(cols).into_iter().enumerate().map(|(i, layout)| {
        let PlaneLayout { row_words, rows_per_group } = layout;
        // Two f16 (or four exponents, or scales) a word, none of them infinite.
        let mask = if i == 0 { u32::MAX } else { 0x3fff_3fff };
        let data = (0..layout.words(rows).unwrap())
            .map(|_| (random.next().to_bits() << 9 ^ random.next().to_bits()) & mask)
            .collect();
        Plane { data, row_words, rows_per_group }
    });
    Packed::new(codec.clone(), rows, cols, planes.collect()).expect("planes have the codec's layout")
}

/// The smallest multiple of the codec's block from `n` on.
fn cols_for(codec: &CodecRef, n: usize) -> usize {
    n.next_multiple_of(codec.block_len())
}

/// A layer with everything that fuses into it.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    tokens: usize,
    gated: bool,
    norm: bool,
    bias: bool,
    activation: Option<Activation>,
    residual: Added,
    scale: f32,
    cap: Option<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Added {
    Nothing,
    OtherBuffer,
    InPlace,
}

const PLAIN: Case = Case {
    rows: 17,
    cols: 96,
    tokens: 1,
    gated: false,
    norm: false,
    bias: false,
    activation: None,
    residual: Added::Nothing,
    scale: 1.0,
    cap: None,
};

/// Runs a case by the given kernel (or the chosen one) and holds it against the twin.
fn check(gpu: &Gpu, codec: &CodecRef, case: Case, decision: Option<Decision>) {
    let what = format!("{} {case:?} {decision:?} on {} {:?}", codec.name(), gpu.name(), gpu.tier());
    let Case { rows, cols, tokens, .. } = case;
    let packed = matrix(codec, rows, cols, 7);
    let mut random = Random(99);
    let outputs = if case.gated { rows / 2 } else { rows };
    let x = random.many(tokens * cols);
    let bias = random.many(rows);
    let norm_weight = random.many(cols);
    let residual = random.many(tokens * outputs);

    // Room around each row, so that a wrong stride, or a read or write too far, shows.
    let (x_offset, x_stride) = (8, cols.next_multiple_of(4) + 4);
    let (y_offset, y_stride) = (5, outputs + 3);
    let (r_offset, r_stride) = (3, outputs + 1);
    let spread = |data: &[f32], width: usize, offset: usize, stride: usize, fill: f32| {
        let mut all = vec![fill; offset + tokens * stride + 7];
        for (t, row) in data.chunks_exact(width).enumerate() {
            all[offset + t * stride..][..width].copy_from_slice(row);
        }
        gpu.upload("test", &all, Purpose::Activations).expect("fits")
    };
    let start = if case.residual == Added::InPlace { residual.clone() } else { vec![0.0; tokens * outputs] };
    let x_buffer = spread(&x, cols, x_offset, x_stride, f32::INFINITY);
    let y_buffer = spread(&start, outputs, y_offset, y_stride, GUARD);
    let r_buffer = spread(&residual, outputs, r_offset, r_stride, GUARD);
    let bias_buffer = gpu.upload("bias", &bias, Purpose::Activations).expect("fits");
    let norm_buffer = gpu.upload("norm", &norm_weight, Purpose::Activations).expect("fits");
    let upload = if case.gated { Linear::upload_gated } else { Linear::upload };
    let linear = upload(gpu, &packed, "w").expect("fits");
    let rows_of = |buffer, offset: usize, stride: usize| Rows { buffer, offset: offset as u32, stride: stride as u32 };
    let (xs, ys) = (rows_of(&x_buffer, x_offset, x_stride), rows_of(&y_buffer, y_offset, y_stride));
    let epilogue = Epilogue {
        norm: case.norm.then_some(Norm { weight: &norm_buffer, eps: 1e-5 }),
        bias: case.bias.then_some(&bias_buffer),
        activation: case.activation,
        residual: match case.residual {
            Added::Nothing => Residual::None,
            Added::OtherBuffer => Residual::Add(rows_of(&r_buffer, r_offset, r_stride)),
            Added::InPlace => Residual::InPlace,
        },
        scale: case.scale,
        cap: case.cap,
    };
    let mut rec = gpu.record();
    match decision {
        Some(d) => forward_with(&mut rec, d, &linear, tokens as u32, xs, ys, &epilogue),
        None => forward(&mut rec, &linear, tokens as u32, xs, ys, &epilogue),
    }
    .unwrap_or_else(|e| panic!("{what}: {e}"));
    rec.submit().unwrap_or_else(|e| panic!("{what}: {e}"));
    let got = read(gpu, &y_buffer);

    let norm = case.norm.then_some((&norm_weight[..], 1e-5));
    let sums = twin::product(&packed.decode(), rows, cols, &x, norm);
    let e = twin::Epilogue {
        gated: case.gated,
        bias: case.bias.then_some(&bias[..]),
        activation: case.activation,
        residual: (case.residual != Added::Nothing).then_some(&residual[..]),
        scale: case.scale.into(),
        cap: case.cap.map(f64::from),
    };
    let want = twin::epilogue(&sums.value, rows, &e);
    // The sums may be off by what rounding in f32 (f16 tiles) explains; what the epilogue makes of that is found by trying.
    let f16 = matches!(decision, Some(Decision::Matmul { f16: true, .. }));
    let unit = if f16 { 2f64.powi(-10) } else { 2e-6 * (cols as f64).sqrt() };
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
        if let Some((t, j)) = place {
            let (want, tolerance) = (want[t * outputs + j], tolerance[t * outputs + j]);
            let error = (f64::from(got) - want).abs();
            assert!(error <= tolerance, "{what}: y[{t}, {j}] = {got}, not {want} ± {tolerance:.1e}");
        } else {
            assert_eq!(got, GUARD, "{what}: float {i} of the output was overwritten");
        }
    }
}

fn read(gpu: &Gpu, buffer: &tersor_engine::gpu::Buffer) -> Vec<f32> {
    block_on(gpu.read(buffer, 0, buffer.size() / 4)).expect("the device reads back")
}

/// Runs a case in every variant of every tier; a variant that a lower tier has is the same shader, and runs once.
fn check_all(gpus: &[Gpu], codec: &CodecRef, case: Case) {
    let (rows, cols, tokens) = (case.rows as u32, case.cols as u32, case.tokens as u32);
    let mut done = HashSet::new();
    for gpu in gpus {
        let all = if codec.coded().is_some() { Decision::all_coded } else { Decision::all };
        for decision in all(Device::of(gpu), Shape { tokens, rows, cols, norm: case.norm }) {
            if done.insert(decision) {
                check(gpu, codec, case, Some(decision));
            }
        }
    }
}

#[kernel_test]
fn every_codec_module_has_a_recipe_here() {
    let tested: Vec<BTreeSet<String>> = recipes()
        .iter()
        .map(|recipe| {
            let codec = parse(recipe);
            let defines = codec.defines().into_iter().map(|(name, value)| format!("{name}={value}"));
            let sparse = u32::from(codec.sparsity(codec.block_len()).is_some());
            let plain = codec.coded().is_none().then(|| "CODED=0".to_owned());
            let module = [format!("CODEC={}", codec.module()), format!("SPARSE={sparse}")];
            defines.chain(module).chain(plain).collect()
        })
        .collect();
    for options in tersor_shaders::permutations("embed/gather").expect("the kernel exists") {
        let options: BTreeSet<String> = options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert!(tested.iter().any(|recipe| options.is_subset(recipe)), "no recipe tests {options:?}");
    }
}

/// Decoding in WGSL equals decoding in Rust, up to the one rounding a fused multiply-add saves.
#[kernel_test]
fn the_gpu_decodes_what_the_codec_decodes() {
    // The lookup is the same shader in all tiers.
    let gpu = gpus().pop().unwrap();
    for recipe in &recipes() {
        let codec = parse(recipe);
        let (rows, cols) = (19, cols_for(&codec, 320));
        let packed = matrix(&codec, rows, cols, 3);
        let table = Linear::upload(&gpu, &packed, "table").expect("fits");
        let ids: Vec<u32> = (0..rows as u32).rev().collect();
        let ids = gpu.upload("ids", &ids, Purpose::Activations).expect("fits");
        let y = gpu.upload("y", &vec![GUARD; rows * cols + 8], Purpose::Activations).expect("fits");
        let out = Rows { buffer: &y, offset: 4, stride: cols as u32 };
        let mut rec = gpu.record();
        embed(&mut rec, &table, &ids, 0, rows as u32, out, 1.0, false).expect(recipe);
        rec.submit().expect(recipe);
        let got = read(&gpu, &y);
        let want = packed.decode();
        assert!(got[..4].iter().chain(&got[4 + rows * cols..]).all(|&v| v == GUARD), "{recipe}: guard words");
        for row in 0..rows {
            let want = &want[row * cols..][..cols];
            let got = &got[4 + (rows - 1 - row) * cols..][..cols];
            let largest = want.iter().fold(0f32, |m, w| m.max(w.abs()));
            for (col, (want, got)) in want.iter().zip(got).enumerate() {
                let close = (want - got).abs() <= 2f32.powi(-22) * largest;
                assert!(close, "{recipe}: weight [{row}, {col}] is {want}, decoded as {got} on {}", gpu.name());
            }
        }
    }
}

#[kernel_test]
fn every_codec_multiplies() {
    let gpus = gpus();
    for recipe in MODULES {
        let codec = parse(recipe);
        let case = Case { cols: cols_for(&codec, 96), ..PLAIN };
        for gpu in &gpus {
            check(gpu, &codec, case, None);
            check(gpu, &codec, Case { rows: 35, tokens: 11, ..case }, None);
        }
        if !gpus[0].is_cpu() {
            continue;
        }
        // The kernels of GPUs, which ask a codec for single octets.
        check(&gpus[0], &codec, case, Some(Decision::Matvec { lanes: 32, subgroup: 0 }));
        if ["q5_k", "nf4", "uniform:bits=3"].contains(recipe) || recipe.starts_with("sparse:") {
            check(&gpus[0], &codec, Case { tokens: 3, ..case }, Some(Decision::Matmul { tile: 64, f16: false }));
        }
    }
}

#[kernel_test]
fn odd_shapes_in_every_kernel() {
    let codec = parse("q4_0");
    let shapes =
        [(1, 32, 1), (3, 96, 1), (17, 576, 1), (130, 1024, 1), (3, 32, 2), (17, 96, 5), (130, 576, 9), (67, 160, 70)];
    let gpus = gpus();
    for (rows, cols, tokens) in shapes {
        check_all(&gpus, &codec, Case { rows, cols, tokens, ..PLAIN });
    }
}

/// Sparse weights in every kernel that has a twin for them, in every tier.
#[kernel_test]
fn sparse_weights_in_every_kernel() {
    let gpus = gpus();
    for recipe in
        ["sparse:50%", "sparse:95%", "sparse:4:8", "sparse:2:4+q4_0", "sparse:50%,block=16", "sparse:70%,block=32"]
    {
        let codec = parse(recipe);
        let cols = cols_for(&codec, 160);
        for (rows, cols, tokens) in [(3, cols, 1), (70, 4 * cols, 1), (17, cols, 5), (67, cols, 66)] {
            check_all(&gpus, &codec, Case { rows, cols, tokens, ..PLAIN });
        }
        let norm = Case { norm: true, bias: true, residual: Added::InPlace, rows: 34, cols, ..PLAIN };
        check_all(&gpus, &codec, norm);
        if !recipe.contains("block") {
            check_all(&gpus, &codec, Case { gated: true, activation: Some(Activation::Silu), ..norm });
        }
    }
    let blocks = matrix(&parse("sparse:50%,block=16"), 32, 64, 1);
    let error = Linear::upload_gated(&gpus[0], &blocks, "w").unwrap_err().to_string();
    assert!(error.contains("blocks of their own"), "{error}");
}

/// A matrix-vector product depends on every word of the kept weights and of the bits, and on nothing that is not packed: what is on
/// the GPU is what was packed, byte for byte.
#[kernel_test]
fn sparse_products_read_the_packed_bytes_alone() {
    let gpu = gpus().pop().unwrap();
    let (rows, cols) = (4, 64);
    let x = Random(5).many(cols);
    let x = gpu.upload("x", &x, Purpose::Activations).expect("fits");
    let y = gpu.upload("y", &[0f32; 4], Purpose::Activations).expect("fits");
    let product = |packed: &Packed| {
        let linear = Linear::upload(&gpu, packed, "w").expect("fits");
        assert_eq!(linear.bytes(), packed.bytes());
        let mut rec = gpu.record();
        let (xs, ys) = (Rows::new(&x, cols as u32), Rows::new(&y, rows as u32));
        forward(&mut rec, &linear, 1, xs, ys, &Epilogue::default()).expect("runs");
        rec.submit().expect("runs");
        read(&gpu, &y)
    };
    // Words of values and of bits (or places) in a row; 16-bit ranks come on top, for kernels that start in the middle.
    for (recipe, values, bits, ranks) in
        [("sparse:50%", 16, 2, 1), ("sparse:75%", 16, 2, 1), ("sparse:2:4", 16, 2, 0), ("sparse:4:8", 16, 2, 0)]
    {
        let codec = parse(recipe);
        let packed = matrix(&codec, rows, cols, 11);
        assert_eq!(packed.bytes(), 4 * rows as u64 * (values + bits + ranks), "{recipe}");
        let before = product(&packed);
        let mut touched = 0;
        for plane in 0..packed.planes.len() {
            for word in 0..packed.planes[plane].data.len() {
                let mut changed = packed.clone();
                // Another finite value, other bits.
                changed.planes[plane].data[word] ^= 0x0055_0055;
                touched += usize::from(product(&changed) != before);
            }
        }
        let kept = packed.codec.sparsity(cols).map_or(cols / 2, |s| s.kept);
        assert_eq!(touched, rows * (kept / 2 + bits as usize), "{recipe}: words that the product depends on");
    }
}

/// Weights beside the grid, rows with and without; inputs in their own order and in another.
#[kernel_test]
fn outliers_in_every_kernel() {
    let gpus = gpus();
    for recipe in ["spqr:bits=3,outliers=6", "spqr:bits=4,group=32,outliers=1", "spqr:outliers=6,published"] {
        let codec = parse(recipe);
        for (rows, cols, tokens) in [(1, 32, 1), (17, 576, 1), (35, 96, 5), (130, 1024, 1), (67, 160, 70)] {
            check_all(&gpus, &codec, Case { rows, cols, tokens, ..PLAIN });
        }
        let gated = Case { gated: true, activation: Some(Activation::Silu), rows: 34, ..PLAIN };
        check_all(&gpus, &codec, Case { norm: true, ..gated });
        check_all(&gpus, &codec, Case { bias: true, tokens: 9, residual: Added::InPlace, scale: 0.5, ..gated });
    }
}

/// Chunks of 128 columns, the last one shorter; 33 of them, which take a second base; more rows than a workgroup has.
#[kernel_test]
fn entropy_coded_rows_in_every_kernel() {
    let gpus = gpus();
    for (recipe, rows, cols, tokens, norm) in [
        ("entropy:bf16", 1, 32, 1, false),
        ("entropy:bf16", 67, 576, 1, true),
        ("entropy:bf16", 17, 160, 9, false),
        ("entropy:bf16", 3, 4128, 1, false),
        ("entropy:bf16", 5, 1000, 1, true),
        ("entropy:bf16", 5, 100, 6, false),
        ("entropy:q8_0", 35, 320, 1, true),
        ("entropy:q4_k", 19, 512, 5, false),
        ("entropy:nf4", 66, 128, 2, false),
        ("entropy:uniform:bits=2,group=16,zero", 33, 160, 3, false),
    ] {
        check_all(&gpus, &parse(recipe), Case { rows, cols, tokens, norm, ..PLAIN });
    }
    let gated = Case { gated: true, activation: Some(Activation::Silu), norm: true, rows: 150, cols: 288, ..PLAIN };
    check_all(&gpus, &parse("entropy:bf16"), gated);
}

#[kernel_test]
fn columns_that_do_not_fill_a_run() {
    let gpus = gpus();
    for (recipe, rows, cols, tokens, norm) in [
        ("f32", 5, 1000, 1, false),
        ("f32", 5, 1000, 1, true),
        ("f32", 2, 3, 1, true),
        ("f32", 9, 37, 6, false),
        ("f16", 5, 100, 1, false),
        ("bf16", 5, 100, 1, false),
        ("sparse:2:4", 5, 100, 1, false),
        ("sparse:2:4", 6, 36, 7, false),
    ] {
        check_all(&gpus, &parse(recipe), Case { rows, cols, tokens, norm, ..PLAIN });
    }
}

#[kernel_test]
fn everything_that_fuses() {
    let codec = parse("q8_0");
    let cases = [
        Case { bias: true, ..PLAIN },
        Case { bias: true, activation: Some(Activation::GeluErf), tokens: 5, ..PLAIN },
        Case { residual: Added::OtherBuffer, scale: 0.5, tokens: 6, ..PLAIN },
        Case { residual: Added::InPlace, tokens: 6, ..PLAIN },
        Case { cap: Some(3.0), scale: 2.0, ..PLAIN },
        Case { norm: true, ..PLAIN },
        Case { norm: true, residual: Added::InPlace, bias: true, rows: 34, ..PLAIN },
        Case { norm: true, gated: true, activation: Some(Activation::Silu), rows: 34, ..PLAIN },
        Case { gated: true, activation: Some(Activation::GeluTanh), rows: 6, tokens: 3, ..PLAIN },
        Case {
            gated: true,
            activation: Some(Activation::Silu),
            rows: 150,
            tokens: 67,
            bias: true,
            residual: Added::OtherBuffer,
            ..PLAIN
        },
    ];
    let gpus = gpus();
    for case in cases {
        check_all(&gpus, &codec, case);
    }
}

#[kernel_test]
fn products_that_do_not_fit_are_refused() {
    let gpu = gpus().pop().unwrap();
    let packed = matrix(&parse("q4_0"), 6, 64, 1);
    let linear = Linear::upload(&gpu, &packed, "w").expect("fits");
    let buffer = |floats: u64| gpu.storage("test", 4 * floats, Purpose::Activations).expect("fits");
    let (x, y, short) = (buffer(128), buffer(64), buffer(3));
    let refused = |tokens, x, y, epilogue: Epilogue| {
        let error = forward(&mut gpu.record(), &linear, tokens, x, y, &epilogue).expect_err("does not fit");
        error.to_string()
    };
    let (xs, ys) = (Rows::new(&x, 64), Rows::new(&y, 6));
    assert!(refused(3, xs, ys, Epilogue::default()).contains("`x` holds 512 bytes, 768"));
    assert!(refused(2, xs, Rows::new(&short, 6), Epilogue::default()).contains("`y`"));
    assert!(refused(1, Rows { offset: 2, ..xs }, ys, Epilogue::default()).contains("multiples of 4"));
    assert!(refused(1, xs, ys, Epilogue { bias: Some(&short), ..Epilogue::default() }).contains("`bias`"));
    let norm = Some(Norm { weight: &x, eps: 1e-5 });
    assert!(refused(2, xs, ys, Epilogue { norm, ..Epilogue::default() }).contains("norm"));
    assert!(Linear::upload_gated(&gpu, &matrix(&parse("q4_0"), 5, 64, 1), "odd").is_err());
}
