//! What holds for every codec, whatever the weights.

use proptest::prelude::*;

use super::{Lcg, nmse};
use crate::codec::{CodecError, CodecRef, Packed, export_ggml, import, parse};
use crate::format::{Dtype, GgmlType, TensorInfo};

/// Every encoder, and the largest error of a weight it may make, in units of the largest magnitude of its block (of 256).
pub(super) const ENCODERS: [(&str, f32); 47] = [
    ("f32", 0.0),
    ("f16", 0.0005),
    ("bf16", 0.004),
    ("q4_0", 0.13),
    ("q4_1", 0.07),
    ("q5_0", 0.07),
    ("q5_1", 0.04),
    ("q8_0", 0.005),
    ("q2_k", 1.0),
    ("q3_k", 0.5),
    ("q4_k", 0.3),
    ("q5_k", 0.2),
    ("q6_k", 0.1),
    ("iq4_nl", 0.3),
    ("tq1_0", 0.51),
    ("tq2_0", 0.51),
    ("mxfp4", 0.26),
    ("uniform:bits=2,group=16", 1.0),
    ("uniform:bits=3,group=64,zero", 0.7),
    ("uniform:bits=3,group=32", 0.7),
    ("uniform:bits=4,group=16,zero", 0.3),
    ("uniform:bits=5,group=128", 0.2),
    ("uniform:bits=6,group=256,zero", 0.1),
    ("uniform:bits=8,group=64", 0.02),
    ("nf4", 0.17),
    ("nf4:block=32,double=off", 0.16),
    ("fp4:block=256", 0.18),
    ("fp4:block=64,double=off", 0.17),
    // What is pruned is lost: up to the largest.
    ("sparse24", 1.0),
    ("sparse:2:4,values=f16", 1.0),
    ("sparse:75%", 1.0),
    ("sparse:25%,values=f16", 1.0),
    ("sparse:4:8", 1.0),
    ("sparse:3:4+q8_0", 1.0),
    ("sparse:50%+uniform:bits=4,group=64", 1.0),
    ("sparse:50%,block=16", 1.0),
    ("sparse:50%,block=32+q4_0", 1.0),
    ("sparse:nnz=9,method=wanda", 1.0),
    ("spqr:bits=3", 0.3),
    ("spqr:bits=4,group=32,outliers=0", 0.2),
    ("spqr:bits=4,threshold=0.01", 0.2),
    ("spqr:bits=3,published", 0.3),
    ("entropy:bf16", 0.004),
    ("entropy:q8_0", 0.005),
    ("entropy:q6_k", 0.1),
    ("entropy:nf4", 0.17),
    ("entropy:uniform:bits=3,group=64,zero", 0.7),
];

fn encoders() -> impl Iterator<Item = (CodecRef, f32)> {
    ENCODERS.iter().map(|(name, bound)| (parse(name).unwrap(), *bound))
}

/// The largest magnitude of each 256 weights, which covers a whole number of any codec's blocks and groups.
fn magnitude(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |max, w| w.abs().max(max))
}

fn heavy_tailed(seed: u32, n: usize) -> Vec<f32> {
    let mut lcg = Lcg::new(seed);
    (0..n).map(|_| lcg.gaussian()).map(|g| g * g * g).collect()
}

#[test]
fn every_codec_that_encodes_is_tested_here() {
    for name in crate::codec::valid_codecs().split(", ") {
        // Low-rank factors have no bound for single weights, DFloat11 loses nothing: they have tests of their own.
        if ["svd", "lord", "dfloat11"].contains(&name) {
            continue;
        }
        if ["uniform", "sparse"].contains(&name) || parse(name).unwrap().encodes() {
            assert!(ENCODERS.iter().any(|(tested, _)| tested.split(':').next() == Some(name)), "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Weights of one magnitude, from far below f16 to its edge, with zeros and repeated values among them.
    #[test]
    fn errors_are_bounded(
        scale in prop_oneof![Just(0.0f32), Just(1e-40), Just(3e-9), Just(1e-6), Just(1e-3), Just(1.0), Just(6e3)],
        shape in prop::collection::vec(prop_oneof![4 => -1.0f32..1.0, 1 => Just(0.0f32), 1 => Just(-1.0f32)], 256),
        offset in prop_oneof![Just(0.0f32), Just(1.0), Just(-3.0)],
    ) {
        let weights: Vec<f32> = shape.iter().map(|v| (v + offset) * scale).collect();
        let max = magnitude(&weights);
        for (codec, bound) in encoders() {
            let decoded = codec.encode(&weights, 1, 256).unwrap().decode();
            // Where f16 scales run out of bits, codes cannot help: allow half of the smallest f16 for every level.
            let bound = bound * max + 256.0 / (1 << 25) as f32;
            for (w, y) in weights.iter().zip(&decoded) {
                prop_assert!((w - y).abs() <= bound, "{}: {w} became {y}, of {max}", codec.name());
            }
        }
    }

    /// Any finite bits: an error that names a weight of the matrix, or finite weights; never a panic.
    #[test]
    fn any_finite_weights(bits in prop::collection::vec(any::<u32>(), 512)) {
        let weights: Vec<f32> = bits.into_iter().map(f32::from_bits).map(|w| if w.is_finite() { w } else { 1.0 }).collect();
        for (codec, _) in encoders() {
            match codec.encode(&weights, 2, 256) {
                Ok(packed) => prop_assert!(packed.decode().iter().all(|y| y.is_finite()), "{}", codec.name()),
                Err(CodecError::TooLarge { row, col, value, .. }) => prop_assert_eq!(weights[row * 256 + col], value),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }

    /// File bytes → planes → the same bytes, for bytes that no encoder would write too.
    #[test]
    fn repacking_loses_nothing(seed in any::<u32>(), rows in 1usize..4, blocks in 1usize..6) {
        for ggml_type in GgmlType::all() {
            let cols = blocks * ggml_type.block_len();
            let bytes = Lcg::new(seed).bytes(rows * blocks * ggml_type.block_bytes());
            let info = TensorInfo::new("w", vec![rows as u64, cols as u64], Dtype::Ggml(ggml_type)).unwrap();
            let packed = import(&info, &bytes).unwrap();
            prop_assert_eq!(export_ggml(&packed), Some(bytes), "{}", ggml_type);
            prop_assert_eq!(packed.codec.dtype(), Some(Dtype::Ggml(ggml_type)));
        }
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let cols = blocks * 7;
            let bytes = Lcg::new(seed).bytes(rows * cols * dtype.block_bytes());
            let info = TensorInfo::new("w", vec![rows as u64, cols as u64], dtype).unwrap();
            prop_assert_eq!(export_ggml(&import(&info, &bytes).unwrap()), Some(bytes), "{}", dtype);
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    for (codec, _) in encoders() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = vec![0.5; 2 * 256];
            weights[256 + 17] = bad;
            let error = codec.encode(&weights, 2, 256).unwrap_err().to_string();
            assert_eq!(error, format!("{}: weight [1, 17] is {bad}: only finite numbers can be packed", codec.name()));
        }
    }
}

#[test]
fn shapes_are_checked() {
    for (codec, _) in encoders() {
        assert!(matches!(codec.encode(&[0.0; 256], 2, 256), Err(CodecError::Shape { len: 256, .. })));
        assert!(matches!(codec.encode(&[], usize::MAX, 2), Err(CodecError::Shape { .. })));
        let cols = codec.block_len() + 1;
        let ragged = codec.encode(&vec![0.0; cols], 1, cols);
        assert_eq!(ragged.is_ok(), codec.block_len() == 1, "{}", codec.name());
        let empty = codec.encode(&[], 0, 256).unwrap();
        assert_eq!((empty.decode(), empty.bits_per_weight()), (vec![], 0.0));
    }
    let info = TensorInfo::new("w", vec![2, 32], Dtype::Ggml(GgmlType::Q8_0)).unwrap();
    let error = import(&info, &[0; 67]).unwrap_err().to_string();
    assert_eq!(error, "q8_0: 67 bytes where 2 x 32 weights take 68");
}

#[test]
fn zeros_stay_zeros() {
    for (codec, _) in encoders() {
        let decoded = codec.encode(&[0.0; 512], 2, 256).unwrap().decode();
        assert!(decoded.iter().all(|&y| y == 0.0), "{}", codec.name());
    }
}

#[test]
fn rows_are_cut_and_stacked() {
    let (rows, cols) = (300, 256);
    let weights = heavy_tailed(9, rows * cols);
    for (codec, _) in encoders() {
        let packed = codec.encode(&weights, rows, cols).unwrap();
        let all = packed.decode();
        let granularity = packed.row_granularity();
        let cut = granularity.max(1) * (100 / granularity).max(1);
        let [top, bottom] = [0..cut, cut..rows].map(|range| packed.rows(range).unwrap());
        assert_eq!([top.decode(), bottom.decode()].concat(), all, "{}", codec.name());
        let back = Packed::concat(&[&top, &bottom]).unwrap();
        assert_eq!((back.rows, &back.planes), (rows, &packed.planes), "{}", codec.name());
        assert_eq!(packed.rows(0..rows).unwrap().planes, packed.planes);
        assert!(packed.rows(cut..rows + 1).is_err());
        let aligned = packed.rows(1..2).is_ok() && Packed::concat(&[&packed.rows(0..1).unwrap(), &bottom]).is_some();
        assert_eq!(aligned, granularity == 1, "{}", codec.name());
        // A file's planes are checked before they are believed.
        assert!(Packed::new(codec.clone(), rows, cols, packed.planes.clone()).is_ok());
        assert!(Packed::new(codec.clone(), rows + granularity, cols, packed.planes).is_err());
    }
    let [a, b] = ["q4_0", "q8_0"].map(|name| parse(name).unwrap().encode(&weights, rows, cols).unwrap());
    assert!(Packed::concat(&[&a, &b]).is_none() && Packed::concat(&[]).is_none());
}

#[test]
fn planes_take_no_more_than_the_file() {
    for ggml_type in GgmlType::all() {
        for cols in [256, 1024, 4096] {
            let bytes = 8 * cols / ggml_type.block_len() * ggml_type.block_bytes();
            let packed = parse(ggml_type.name()).unwrap().import(&vec![0; bytes], 8, cols).unwrap();
            let ratio = packed.bytes() as f64 / bytes as f64;
            assert!(ratio <= 1.03 || cols == 256, "{ggml_type}: {ratio}");
        }
    }
    let bits = |recipe: &str| {
        let packed = parse(recipe).unwrap().encode(&vec![1.0; 4096 * 8], 8, 4096).unwrap();
        packed.bits_per_weight()
    };
    assert_eq!(bits("q4_k"), 4.5);
    assert_eq!(bits("uniform:bits=3,group=64"), 3.25);
    assert_eq!(bits("uniform:bits=2,group=16,zero"), 4.0);
    assert_eq!(bits("nf4:double=off"), 4.5);
    assert_eq!(bits("nf4"), 4.0 + 8.0 / 64.0 + 64.0 / (64.0 * 256.0));
}

/// Against the grid between the extremes, which is what quantizers without a search use.
#[test]
fn least_squares_grids_beat_plain_ones() {
    let mut lcg = Lcg::new(3);
    let gaussian: Vec<f32> = (0..64 * 1024).map(|_| lcg.gaussian()).collect();
    let heavy = heavy_tailed(4, 64 * 1024);
    for (weights, gain) in [(&gaussian, [0.25, 0.51, 0.71]), (&heavy, [0.42, 0.62, 0.77])] {
        for (bits, gain) in [2u32, 3, 4].into_iter().zip(gain) {
            let plain: Vec<f32> = weights
                .chunks(64)
                .flat_map(|group| {
                    let step = magnitude(group) / ((1 << (bits - 1)) - 1) as f32;
                    group.iter().map(move |w| (w / step).round() * step)
                })
                .collect();
            let fitted =
                parse(&format!("uniform:bits={bits},group=64")).unwrap().encode(weights, 64, 1024).unwrap().decode();
            let ratio = nmse(weights, &fitted) / nmse(weights, &plain);
            assert!(ratio <= gain, "{bits} bits: {ratio}");
        }
    }
}

/// Weights around 1 waste half of a grid around 0.
#[test]
fn zero_points_pay_for_offset_weights() {
    let mut lcg = Lcg::new(5);
    let weights: Vec<f32> = (0..64 * 256).map(|_| lcg.gaussian() * 0.25 + 1.0).collect();
    for bits in [2, 3, 4, 5, 6, 8] {
        let error =
            |recipe: String| nmse(&weights, &parse(&recipe).unwrap().encode(&weights, 64, 256).unwrap().decode());
        let ratio = error(format!("uniform:bits={bits},zero")) / error(format!("uniform:bits={bits}"));
        assert!(ratio < 0.3, "{bits} bits: {ratio}");
    }
}

/// Files hold 8-bit and 64-bit floats too.
#[test]
fn other_floats_are_imported() {
    let f64s: Vec<u8> = [1.5f64, -2.0, 1e-3, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let packed = import(&TensorInfo::new("w", vec![2, 2], Dtype::F64).unwrap(), &f64s).unwrap();
    assert_eq!(packed.decode(), [1.5, -2.0, 1e-3, 0.0]);
    let packed = import(&TensorInfo::new("w", vec![4], Dtype::F8E4M3).unwrap(), &[0x38, 0xc0, 0x01, 0x7e]).unwrap();
    assert_eq!(packed.decode(), [1.0, -2.0, 1.0 / 512.0, 448.0]);
    let error = import(&TensorInfo::new("ids", vec![4], Dtype::I32).unwrap(), &[0; 16]).unwrap_err().to_string();
    assert!(error.starts_with("tensor `ids`: weights of type I32"), "{error}");
}
