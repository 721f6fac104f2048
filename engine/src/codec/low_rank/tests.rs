use serde::Deserialize;

use super::super::{CodecRef, Recipe, parse};
use super::factor::{Product, eigenvalues, factor};
use super::*;
use crate::model::rotate::Orthogonal;

/// What `tests/golden/low_rank.py` found with numpy.
#[derive(Deserialize)]
struct Golden {
    rows: usize,
    cols: usize,
    rank: usize,
    tokens: u64,
    weights: Vec<f32>,
    moment: Vec<f32>,
    mean: Vec<f32>,
    eora: Vec<f32>,
    eora_cost: f64,
    svd: Vec<f32>,
    svd_cost: f64,
    lord: Vec<f32>,
    lord_bias: Vec<f32>,
    lord_cost: f64,
}

fn goldens() -> Vec<Golden> {
    serde_json::from_str(include_str!("../../../../tests/golden/low_rank.json")).unwrap()
}

impl Golden {
    fn calibration(&self) -> Calibration {
        Calibration::new(self.tokens, self.mean.clone(), self.moment.clone()).unwrap()
    }

    fn factor(&self, weighing: Weighing) -> Vec<f32> {
        multiplied(&factor(&self.weights, self.rows, self.cols, self.rank, weighing).unwrap(), self.rows)
    }
}

fn multiplied(found: &Product, rows: usize) -> Vec<f32> {
    let rank = found.b.len() / rows;
    let cols = found.a.len() / rank;
    let entry = |i: usize, j: usize| -> f64 {
        (0..rank).map(|k| f64::from(found.b[i * rank + k]) * f64::from(found.a[k * cols + j])).sum()
    };
    (0..rows * cols).map(|at| entry(at / cols, at % cols) as f32).collect()
}

fn minus(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance, "{what} {i}: {f} for {e}");
    }
}

fn near(what: &str, found: f64, expected: f64, relative: f64) {
    assert!((found / expected - 1.0).abs() <= relative, "{what}: {found} for {expected}");
}

#[test]
fn factors_are_numpys() {
    for golden in goldens() {
        let calibration = golden.calibration();
        let eora = golden.factor(Weighing::Moment(&calibration));
        close("EoRA", &eora, &golden.eora, 1e-4);
        // tr(E C Eᵀ) = Σ_{i>r} σ_i²
        near("EoRA's error", calibration.loss(&minus(&golden.weights, &eora)), golden.eora_cost, 1e-4);
        let svd = golden.factor(Weighing::Even);
        close("SVD", &svd, &golden.svd, 1e-4);
        let even = Calibration::even(golden.cols);
        near("the SVD's error", even.loss(&minus(&golden.weights, &svd)), golden.svd_cost, 1e-4);
        close("C = 1", &golden.factor(Weighing::Moment(&even)), &golden.svd, 1e-4);
        close("LoRD", &golden.factor(Weighing::Covariance(&calibration)), &golden.lord, 1e-4);
    }
}

/// E‖y − ŷ‖² of W x against Ŵ x + b, from the moments of x.
fn output_error(weights: &[f32], packed: &Packed, calibration: &Calibration) -> f64 {
    let left = minus(weights, &packed.decode());
    let mean: Vec<f64> = calibration.mean().iter().map(|m| f64::from(*m)).collect();
    let offsets = left.chunks_exact(packed.cols).zip(biases(packed)).map(|(row, bias)| {
        let mean = row.iter().zip(&mean).map(|(w, m)| f64::from(*w) * m).sum::<f64>();
        // E(e x − b)² = E(e x)² − 2 b E(e x) + b²
        bias * bias - 2.0 * bias * mean
    });
    calibration.loss(&left) + offsets.sum::<f64>()
}

fn biases(packed: &Packed) -> Vec<f64> {
    let parts = packed.codec.low_rank(packed).unwrap();
    parts.b.chunks_exact(parts.row_words).map(|row| f64::from(f32::from_bits(row[1]))).collect()
}

#[test]
fn lord_keeps_the_mean_output_and_costs_what_its_theory_says() {
    for golden in goldens() {
        let calibration = golden.calibration();
        let codec = parse(&format!("lord:rank={}", golden.rank)).unwrap();
        let packed = codec.encode_for(&golden.weights, golden.rows, golden.cols, Some(&calibration)).unwrap();
        assert_eq!(packed.codec.name(), codec.name());
        let bias: Vec<f32> = biases(&packed).iter().map(|b| *b as f32).collect();
        close("the bias", &bias, &golden.lord_bias, 3e-3);
        let kept = packed.decode();
        for (i, (w, k)) in golden.weights.chunks_exact(golden.cols).zip(kept.chunks_exact(golden.cols)).enumerate() {
            let mean = |row: &[f32]| row.iter().zip(&golden.mean).map(|(w, m)| f64::from(w * m)).sum::<f64>();
            assert!((mean(w) - mean(k) - f64::from(bias[i])).abs() <= 1e-5, "the mean of output {i}");
        }
        // bf16 rounds the factors.
        near("LoRD's error", output_error(&golden.weights, &packed, &calibration), golden.lord_cost, 2e-2);
    }
}

/// Numbers without a pattern.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Student's t with five degrees of freedom.
    fn student(&mut self) -> f64 {
        let chi: f64 = (0..5).map(|_| self.normal().powi(2)).sum();
        self.normal() / (chi / 5.0).sqrt()
    }
}

/// The synthetic layer of the survey's tables: 256 × 256 weights, t-distributed, and 2,048 inputs whose covariance has eigenvalues
/// that fall like 1/i; `mean` is added to each.
fn layer(mean: f64) -> (Vec<f32>, Vec<f32>, Calibration) {
    const N: usize = 256;
    let mut random = Random(1);
    let weights = (0..N * N).map(|_| (0.02 * random.student()) as f32).collect();
    let mut inputs: Vec<f32> = (0..2048)
        .flat_map(|_| (1..=N).map(|i| (random.normal() * (N as f64 / i as f64).sqrt()) as f32).collect::<Vec<_>>())
        .collect();
    Orthogonal::new(N, 3).rotate_columns(&mut inputs, N, 0);
    inputs.iter_mut().for_each(|x| *x += mean as f32);
    let (first, second) = crate::reference::moments::moments(&inputs, N);
    let scaled = |v: Vec<f64>| v.into_iter().map(|v| (v / 2048.0) as f32).collect();
    (weights, inputs, Calibration::new(2048, scaled(first), scaled(second)).unwrap())
}

/// 2:4 by magnitude, then 4 bits.
fn pruned_and_quantized(weights: &[f32], cols: usize) -> Vec<f32> {
    let mut pruned = weights.to_vec();
    for four in pruned.chunks_exact_mut(4) {
        let mut order = [0, 1, 2, 3];
        order.sort_by(|a, b| four[*a].abs().total_cmp(&four[*b].abs()));
        order[..2].iter().for_each(|i| four[*i] = 0.0);
    }
    let codec = parse("uniform:bits=4,group=64,zero").unwrap();
    codec.encode(&pruned, weights.len() / cols, cols).unwrap().decode()
}

/// EoRA's sentence of the survey: compensation at rank 32 of 256 over 4 bits and 2:4.
#[test]
fn eora_halves_the_output_error_of_four_bits_and_two_of_four() {
    let (weights, _, calibration) = layer(0.0);
    let cols = 256;
    let lost = minus(&weights, &pruned_and_quantized(&weights, cols));
    let whole = calibration.loss(&weights);
    let relative = |error: &[f32]| (calibration.loss(error) / whole).sqrt();
    let left = |weighing| {
        let found = factor(&lost, cols, cols, 32, weighing).unwrap();
        minus(&lost, &multiplied(&found, cols))
    };
    let by_inputs = left(Weighing::Moment(&calibration));
    let [none, svd, eora] = [relative(&lost), relative(&left(Weighing::Even)), relative(&by_inputs)];
    println!("uncompensated {none:.4}, SVD {svd:.4}, EoRA {eora:.4}");
    assert!((0.28..0.36).contains(&none), "{none}");
    assert!(eora <= 0.18 && eora <= 0.7 * svd, "SVD {svd}, EoRA {eora}");
    let all = eigenvalues(&lost, cols, cols, Weighing::Moment(&calibration));
    near("tr(E C Eᵀ)", calibration.loss(&by_inputs), all[32..].iter().sum(), 1e-4);
}

/// LoRD's sentence: the error over the inputs themselves is the sum of the eigenvalues that are left out, at no rank more than that
/// of the plain SVD, and the mean output stays.
#[test]
fn lord_is_never_worse_than_the_svd_of_the_weights() {
    let (weights, inputs, calibration) = layer(0.3);
    let n = 256;
    let measured = |packed: &Packed| {
        let (left, bias) = (minus(&weights, &packed.decode()), biases(packed));
        let mut squares = 0.0;
        for x in inputs.chunks_exact(n).step_by(8) {
            for (i, row) in left.chunks_exact(n).enumerate() {
                let e = row.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum::<f64>() - bias[i];
                squares += e * e / 256.0;
            }
        }
        squares
    };
    let encode = |recipe: String| parse(&recipe).unwrap().encode_for(&weights, n, n, Some(&calibration)).unwrap();
    let all = eigenvalues(&weights, n, n, Weighing::Covariance(&calibration));
    for rank in [16, 48, 96, 120] {
        let [lord, svd] = ["lord", "svd"].map(|measure| encode(format!("{measure}:rank={rank},factors=f16")));
        let (by_theory, by_svd) =
            (output_error(&weights, &lord, &calibration), output_error(&weights, &svd, &calibration));
        assert!(by_theory < by_svd, "rank {rank}: {by_theory} and {by_svd}");
        near("a sample of the inputs", measured(&lord), by_theory, 0.1);
        near("Σ S_i", by_theory, all[rank..].iter().sum(), 1e-3);
        let kept = lord.decode();
        for (i, (row, kept)) in weights.chunks_exact(n).zip(kept.chunks_exact(n)).enumerate() {
            let lost: f64 =
                row.iter().zip(kept).zip(calibration.mean()).map(|((w, k), m)| f64::from(w - k) * f64::from(*m)).sum();
            assert!((lost - biases(&lord)[i]).abs() < 1e-4, "mean of output {i}");
        }
    }
}

fn matrix(rows: usize, cols: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..rows * cols).map(|_| random.normal() as f32).collect()
}

fn codec(recipe: &str) -> CodecRef {
    parse(recipe).unwrap()
}

const RECIPES: [&str; 5] = [
    "q4_0+svd:rank=8",
    "uniform:bits=3,group=32+svd:rank=32,factors=q8_0",
    "sparse24+svd:rank=32,factors=q4_0",
    "bf16+svd:rank=16,factors=f16",
    "svd:rank=16",
];

#[test]
fn a_low_rank_part_brings_a_matrix_nearer() {
    let (rows, cols) = (48, 64);
    let weights = matrix(rows, cols, 5);
    for recipe in ["uniform:bits=3,group=32", "sparse24", "q4_0"] {
        let error = |recipe: &str| {
            let left = minus(&weights, &codec(recipe).encode(&weights, rows, cols).unwrap().decode());
            left.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()
        };
        let plain = error(recipe);
        for (factors, at_most) in [("", 0.4), (",factors=f16", 0.4), (",factors=q8_0", 0.41), (",factors=q4_0", 0.5)] {
            let found = error(&format!("{recipe}+svd:rank=32{factors}"));
            assert!(found < at_most * plain, "{recipe} {factors}: {found} of {plain}");
        }
    }
}

#[test]
fn planes_survive_a_file_a_cut_and_a_stack() {
    let cols = 64;
    for recipe in RECIPES {
        let codec = codec(recipe);
        let packed: Vec<Packed> = [40, 64, 32]
            .iter()
            .map(|rows| codec.encode(&matrix(*rows, cols, *rows as u64), *rows, cols).unwrap())
            .collect();
        for packed in &packed {
            assert_eq!(packed.bytes(), codec.planned_bytes(packed.rows, cols), "{recipe}");
            let back = Packed::new(codec.clone(), packed.rows, cols, packed.planes.clone()).unwrap();
            assert_eq!(back.decode(), packed.decode());
        }
        let all = Packed::concat(&packed.iter().collect::<Vec<_>>()).unwrap();
        let each: Vec<f32> = packed.iter().flat_map(Packed::decode).collect();
        assert_eq!((all.rows, all.decode()), (136, each.clone()), "{recipe}");
        assert_eq!(all.codec.low_rank(&all).unwrap().a.rows, 3 * codec.low_rank(&packed[0]).unwrap().rank);
        let again = Packed::new(codec.clone(), all.rows, cols, all.planes.clone()).unwrap();
        // Cuts across the stacked matrices keep to their own factors.
        let [first, second] = [again.rows(0..50).unwrap(), again.rows(50..136).unwrap()];
        assert_eq!([first.decode(), second.decode()].concat(), each);
        let other = parse("f16").unwrap().encode(&vec![1.0; cols], 1, cols).unwrap();
        assert!(Packed::concat(&[&packed[0], &other]).is_none());
    }
}

#[test]
fn hostile_planes_are_refused() {
    let (rows, cols) = (24, 32);
    let codec = codec("q4_0+svd:rank=8");
    let packed = codec.encode(&matrix(rows, cols, 2), rows, cols).unwrap();
    let with = |change: &dyn Fn(&mut Vec<Plane>)| {
        let mut planes = packed.planes.clone();
        change(&mut planes);
        Packed::new(codec.clone(), rows, cols, planes).unwrap_err().to_string()
    };
    let at = packed.planes.len() - 2;
    let words = packed.planes[at].row_words as usize;
    for first in [8, 3, u32::MAX] {
        let error = with(&|planes| planes[at].data[5 * words] = first);
        assert!(error.contains(&format!("row 5 begins at {first} of 8 columns of rank 8")), "{error}");
    }
    assert!(with(&|planes| planes[at + 1].data.truncate(16)).contains("no whole number of factors of rank 8"));
    assert!(with(&|planes| planes[at + 1].data.clear()).contains("no whole number of factors"));
    assert!(with(&|planes| planes[at].data.truncate(words)).contains("layout"));
    assert!(with(&|planes| drop(planes.pop())).contains("layout"));
}

#[test]
fn ranks_fit_the_shape() {
    let chosen = |recipe: &str, rows, cols| {
        let choice = Recipe::parse(recipe).unwrap().choose("w", rows, cols);
        (choice.codec.name(), choice.fallback_from)
    };
    let plain = |name: &str| (name.to_owned(), None);
    // 50 % of 576² parameters are rank 144.
    assert_eq!(chosen("lord:ratio=50", 576, 576), plain("lord:rank=144"));
    assert_eq!(chosen("lord:ratio=50", 192, 576), plain("lord:rank=72"));
    assert_eq!(chosen("svd:rank=64", 576, 1536), plain("svd:rank=64"));
    // r(m + n) < m n, or it is not worth it.
    assert_eq!(chosen("svd:rank=144", 192, 576), ("bf16".to_owned(), Some("svd:rank=144".to_owned())));
    assert_eq!(chosen("svd:rank=136", 192, 576), plain("svd:rank=136"));
    assert_eq!(chosen("q4_0+eora:rank=256", 192, 576), plain("q4_0+eora:rank=192"));
    assert_eq!(chosen("q4_0+eora:rank=8", 4, 576), ("q4_0".to_owned(), Some("q4_0+eora:rank=8".to_owned())));
    // The base falls back by itself; factors that rows cannot be cut for are bf16.
    let fallen = |name: &str, from: &str| (name.to_owned(), Some(from.to_owned()));
    assert_eq!(chosen("q4_k+eora:rank=8", 64, 576), fallen("q5_0+eora:rank=8", "q4_k+eora:rank=8"));
    assert_eq!(
        chosen("bf16+svd:rank=32,factors=q8_0", 64, 100),
        fallen("bf16+svd:rank=32", "bf16+svd:rank=32,factors=q8_0")
    );
    let table = Recipe::parse("q4_0+eora:rank=8").unwrap().choose("w", 64, 64).for_table();
    assert_eq!(table.codec.name(), "q4_0");
    assert_eq!(Recipe::parse("lord:ratio=50").unwrap().choose("w", 64, 64).for_table().codec.name(), "bf16");
}

#[test]
fn calibrated_measures_ask_for_a_calibration() {
    let weights = matrix(32, 32, 1);
    for recipe in ["q4_0+eora:rank=8", "lord:rank=8"] {
        let codec = codec(recipe);
        assert_eq!(codec.calibrates(), Calibrates::Always);
        assert!(matches!(codec.encode(&weights, 32, 32), Err(CodecError::Uncalibrated { .. })));
        let other = codec.encode_for(&weights, 32, 32, Some(&Calibration::even(16)));
        assert!(matches!(other, Err(CodecError::Calibration { .. })));
    }
    assert_eq!(codec("q4_0+svd:rank=8").calibrates(), Calibrates::No);
}

#[test]
fn a_bias_goes_into_the_matrix() {
    let codec = codec("lord:rank=8");
    let calibration = Calibration::new(1, vec![1.0; 32], vec![1.0; 32 * 32]).unwrap();
    let mut packed = codec.encode_for(&matrix(32, 32, 1), 32, 32, Some(&calibration)).unwrap();
    let before = biases(&packed);
    assert!(before.iter().any(|b| *b != 0.0));
    assert!(codec.absorb_bias(&mut packed, &[2.0; 32]));
    for (a, b) in before.iter().zip(biases(&packed)) {
        assert!((a + 2.0 - b).abs() < 1e-6);
    }
    assert!(!codec.absorb_bias(&mut packed, &[2.0; 31]));
    let plain = super::super::parse("q4_0").unwrap();
    let mut packed = plain.encode(&[0.0; 32], 1, 32).unwrap();
    assert!(!plain.absorb_bias(&mut packed, &[1.0]));
}
