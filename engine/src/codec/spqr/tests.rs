use serde_json::Value;

use super::*;
use crate::codec::parse;
use crate::codec::tests::Lcg;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/spqr.json");

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(GOLDEN).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn words(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Student's t with five degrees of freedom: tails as weights have them.
fn student(lcg: &mut Lcg) -> f32 {
    let square: f32 = (0..5).map(|_| lcg.gaussian().powi(2)).sum();
    lcg.gaussian() / (square / 5.0).sqrt()
}

/// A tile of codes from LCG(42), wss = 2^-6, wzs = 1/2, wsz = -1, wzz = 2, and four outliers; beside it a tile of zeros, which
/// makes up a run of 32 columns.
struct Tile {
    dense_weights: Vec<u64>,
}

impl Tile {
    fn new() -> Self {
        #[rustfmt::skip]
        let tile: [u64; 16] = [
            0x003c08977e54e118, 0x00111af315f2f75e, 0x090ab52d96d766a3, 0x091b7bd990fb2258,
            0x002d7df08fa138a0, 0x00344dcecb55f276, 0x0e08974e38a98462, 0x0e1f37b0083d5ad6,
            0x0030e9a437f5d18f, 0x00315dc2cee0b656, 0x2f1529ce3a77effa, 0x2f2f4a625db78ae7,
            0x0034e7dabe4ca4fc, 0x002045c7f6efe27c, 0x103fc874bb73d1e8, 0x1026f23ad8bd2e8f,
        ];
        Self { dense_weights: tile.into_iter().chain([0; 16]).collect() }
    }

    fn pack(&self, row_offsets: &[u32], col_vals: &[u32]) -> Packed {
        let Self { dense_weights } = self;
        Published { rows: 16, cols: 32, dense_weights, row_offsets, col_vals, in_perm: &[] }.pack().unwrap()
    }
}

const CSR: [u32; 17] = [0, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4];
const OUTLIERS: [u32; 4] = [0x3e00_0003, 0xba00_0009, 0x3400_0000, 0xc000_000f];

#[test]
fn a_published_tile_decodes_bit_for_bit() {
    let weights = Tile::new().pack(&[0; 17], &[]).decode();
    let tile: Vec<f32> = weights.chunks(32).flat_map(|row| row[..16].to_vec()).collect();
    assert!(weights.chunks(32).all(|row| row[16..].iter().all(|w| *w == 0.0)));
    let first = [
        0.0546875, -0.0078125, 0.0859375, 0.0078125, 0.0703125, 0.0234375, 0.0859375, 0.1015625, 0.0703125, 0.0390625,
        0.0078125, 0.0078125, 0.0234375, -0.0078125, 0.0546875, 0.1015625,
    ];
    assert_eq!(tile[..16], first);
    assert_eq!(crc32(tile.iter().flat_map(|w| half::f16::from_f32(*w).to_le_bytes())), 0x81e9_bebe);
}

#[test]
fn both_kinds_of_sparse_rows_are_the_same_outliers() {
    let tile = Tile::new();
    let by_rows = tile.pack(&CSR, &OUTLIERS);
    let mut padded = [0; 32];
    for (slot, outlier) in [0, 16, 2, 15].into_iter().zip(OUTLIERS) {
        padded[slot] = outlier;
    }
    assert_eq!(by_rows.planes, tile.pack(&[0, 32], &padded).planes);

    let x: Vec<f32> = (0..16).map(|c| (c as f32 - 7.5) / 8.0).chain([0.0; 16]).collect();
    let y: Vec<f32> = by_rows.decode().chunks(32).map(|row| row.iter().zip(&x).map(|(w, x)| w * x).sum()).collect();
    let expected = [
        -0.988281, -0.970703, -0.566406, 0.078125, 0.111328, 0.47168, 0.213867, 0.123047, -0.367188, 0.581055,
        -0.591797, 0.132812, 0.786133, -0.43457, 0.040039, -1.296875,
    ];
    for (y, expected) in y.iter().zip(expected) {
        assert!((y - expected).abs() <= 1e-5, "{y}, not {expected}");
    }
}

/// Rows that do not fill a tile, permuted inputs, statistics of all sizes.
#[test]
fn published_matrices_decode_as_in_float16() {
    let golden = &golden()["format"];
    let hex = |v: &Value| u64::from_str_radix(v.as_str().unwrap(), 16).unwrap();
    let dense_weights: Vec<u64> = golden["dense_weights"].as_array().unwrap().iter().map(hex).collect();
    let in_perm = words(&golden["in_perm"]);
    let (rows, cols) = (number(&golden["rows"]), number(&golden["cols"]));
    for kind in ["csr", "ptcsr"] {
        let [row_offsets, col_vals] = ["row_offsets", "col_vals"].map(|key| words(&golden[kind][key]));
        let matrix = Published {
            rows,
            cols,
            dense_weights: &dense_weights,
            row_offsets: &row_offsets,
            col_vals: &col_vals,
            in_perm: &in_perm,
        };
        let packed = matrix.pack().unwrap();
        assert_eq!(packed.decode(), floats(&golden["weights"]), "{kind}");
        assert_eq!(packed.codec.name(), "spqr:bits=3,published");

        let refused = |matrix: Published, says: &str| {
            let error = matrix.pack().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        refused(Published { cols: 48, ..matrix }, "blocks of 32");
        refused(Published { cols: 96, ..matrix }, "dense_weights has 128 words for 20 x 96");
        refused(Published { rows: 33, ..matrix }, "dense_weights has 128 words");
        refused(Published { row_offsets: &row_offsets[1..], ..matrix }, "entries for 20 rows");
        refused(Published { in_perm: &in_perm[1..], ..matrix }, "in_perm has 31 words");
        refused(Published { in_perm: &[3; 32], ..matrix }, "in its permutation twice");
        refused(Published { col_vals: &col_vals[..3], ..matrix }, "row_offsets go from");
        let mut outside = col_vals.clone();
        outside.iter_mut().for_each(|entry| *entry |= 64);
        refused(Published { col_vals: &outside, ..matrix }, "not in the order of columns");
        let mut backwards = row_offsets.clone();
        backwards[1] = u32::MAX;
        refused(Published { row_offsets: &backwards, ..matrix }, "row_offsets go from");
    }
}

#[test]
fn the_encoder_does_what_numpy_does() {
    let golden = &golden()["encoder"];
    let (rows, cols) = (number(&golden["rows"]), number(&golden["cols"]));
    let weights = floats(&golden["weights"]);
    let calibration = Calibration::new(400, vec![0.0; cols], floats(&golden["moment"])).unwrap();
    let codec = parse("spqr:threshold=0.2").unwrap();
    let packed = codec.encode_for(&weights, rows, cols, Some(&calibration)).unwrap();
    let (decoded, expected) = (packed.decode(), floats(&golden["encoded"]));
    let alike = decoded.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() < 2e-5).count();
    println!("{alike} of {} weights alike", decoded.len());
    // Where two codes are as near, rounding decides, and what follows differs.
    assert!(alike * 100 >= decoded.len() * 97, "{alike} of {}", decoded.len());
    let outliers = packed.planes[2].data.len() - rows - 1;
    assert!(outliers.abs_diff(number(&golden["outliers"])) <= 3, "{outliers}, not {}", golden["outliers"]);
    let error: Vec<f32> = weights.iter().zip(&decoded).map(|(a, b)| a - b).collect();
    let ratio = calibration.loss(&error) / golden["loss"].as_f64().unwrap();
    assert!((ratio - 1.0).abs() < 0.02, "{ratio} of numpy's loss");
}

/// Inputs as language models have them, whose covariance has the eigenvalues 1/i in a random basis.
fn long_tailed(cols: usize) -> Calibration {
    let mut lcg = Lcg::new(3);
    let random = faer::Mat::<f64>::from_fn(cols, cols, |_, _| lcg.gaussian().into());
    let basis = random.qr().compute_Q();
    let mut moment = vec![0.0f32; cols * cols];
    for (i, m) in moment.iter_mut().enumerate() {
        let (a, b) = (i / cols, i % cols);
        *m = (0..cols).map(|k| basis[(a, k)] * basis[(b, k)] / (k + 1) as f64).sum::<f64>() as f32;
    }
    Calibration::new(2048, vec![0.0; cols], moment).unwrap()
}

/// The error of the outputs relative to them, and percent of outliers.
fn output_error(spelling: &str, weights: &[f32], rows: usize, calibration: &Calibration) -> (f64, f64) {
    let cols = calibration.cols();
    let packed = parse(spelling).unwrap().encode_for(weights, rows, cols, Some(calibration)).unwrap();
    let error: Vec<f32> = weights.iter().zip(packed.decode()).map(|(a, b)| a - b).collect();
    let share = (calibration.loss(&error) / calibration.loss(weights)).sqrt();
    let outliers = packed.planes.get(2).map_or(0, |plane| plane.data.len().saturating_sub(rows + 1));
    let percent = 100.0 * outliers as f64 / weights.len() as f64;
    println!("{spelling:32} error {share:.4}, {percent:.2} % outliers, {:.3} bits a weight", packed.bits_per_weight());
    (share, percent)
}

#[test]
fn outliers_pay() {
    let calibration = long_tailed(256);
    let mut lcg = Lcg::new(38);
    let weights: Vec<f32> = (0..256 * 256).map(|_| 0.02 * student(&mut lcg)).collect();
    let error = |spelling: &str| output_error(spelling, &weights, 256, &calibration);
    let (with, percent) = error("spqr:bits=3");
    let (without, none) = error("spqr:bits=3,outliers=0");
    assert!((2.0..=3.0).contains(&percent) && none == 0.0, "{percent} and {none} % outliers");
    assert!(with <= 0.80 * without, "{with} with outliers, {without} without");
    let (by_threshold, percent) = error("spqr:bits=3,threshold=0.2");
    assert!((1.5..=4.0).contains(&percent) && by_threshold <= 0.80 * without, "{by_threshold}, {percent} %");
    // Against rounding to nearest with as many bits.
    let (nearest, _) = error("uniform:bits=4,group=32");
    let (four, _) = error("spqr:bits=4,group=32");
    assert!(four < 0.75 * nearest, "{four}, nearest {nearest}");
    let (published, _) = error("spqr:bits=3,published");
    assert!((published / with - 1.0).abs() < 0.05, "{published} in the order of energy, {with} in that of groups");
}

#[test]
fn as_many_outliers_as_asked_for() {
    let mut lcg = Lcg::new(5);
    let (rows, cols) = (160, 320);
    let weights: Vec<f32> = (0..rows * cols).map(|_| student(&mut lcg)).collect();
    for percent in [0.5, 1.0, 2.5, 6.0] {
        for bits in [3, 4] {
            let packed = parse(&format!("spqr:bits={bits},outliers={percent}")).unwrap().encode(&weights, rows, cols);
            let found = (packed.unwrap().planes[2].data.len() - rows - 1) as f32 * 100.0 / weights.len() as f32;
            assert!((found / percent - 1.0).abs() < 0.15, "{bits} bits: {found} % instead of {percent}");
        }
    }
}

/// What the authors' kernel computes, the grid's value plus the outlier, is the weight itself.
#[test]
fn outliers_are_exact_up_to_f16() {
    let mut lcg = Lcg::new(6);
    let weights: Vec<f32> = (0..32 * 64).map(|_| student(&mut lcg)).collect();
    let packed = parse("spqr:outliers=5").unwrap().encode(&weights, 32, 64).unwrap();
    let codec = Spqr { bits: 3, group: 16, outliers: Outliers::Percent(5.0), published: false };
    let decoded = packed.decode();
    let mut seen = 0;
    for (row, outliers) in codec.outliers(&packed).into_iter().enumerate() {
        for entry in outliers {
            let at = row * 64 + (entry & 0xffff) as usize;
            let value = half::f16::from_bits((entry >> 16) as u16).to_f32();
            assert!(
                (decoded[at] - weights[at]).abs() <= value.abs() / 2048.0 + 1e-6,
                "{} for {}",
                decoded[at],
                weights[at]
            );
            seen += 1;
        }
    }
    assert!(seen > 50);
}

#[test]
fn hostile_rows_are_refused() {
    let mut lcg = Lcg::new(8);
    let weights: Vec<f32> = (0..20 * 64).map(|_| student(&mut lcg)).collect();
    for spelling in ["spqr:outliers=10", "spqr:outliers=10,published"] {
        let good = parse(spelling).unwrap().encode(&weights, 20, 64).unwrap();
        let head = if spelling.ends_with("published") { 32 } else { 0 };
        let first = head + 21;
        let refused = |what: &str, change: &dyn Fn(&mut Vec<u32>), says: &str| {
            let mut planes = good.planes.clone();
            change(&mut planes[2].data);
            let error = Packed::new(good.codec.clone(), 20, 64, planes).unwrap_err().to_string();
            assert!(error.contains("plane 2: ") && error.contains(says), "{what}: {error}");
        };
        assert!(Packed::new(good.codec.clone(), 20, 64, good.planes.clone()).is_ok());
        refused("empty", &|data| data.clear(), "too few for 20 rows");
        refused("short", &|data| data.truncate(first - 1), "too few for 20 rows");
        refused("cut off", &|data| data.truncate(first + 1), "end where it ends");
        refused("longer", &|data| data.push(0), "end where it ends");
        refused("outside", &|data| data[head + 3] = u32::MAX, "ends before it starts, or outside");
        refused("backwards", &|data| data[head + 3] = 0, "ends before it starts, or outside");
        refused("in the list", &|data| data[head] = 0, "do not start behind their list");
        refused("no column", &|data| data[first] |= 0xffff, "not in the order of columns");
        let last = good.planes[2].data.len() - 1;
        refused("last no column", &|data| data[last] = data[last] & !0xffff | 64, "or not in any");
        if head > 0 {
            refused("twice", &|data| data[1] = data[0], "in its permutation twice");
            refused("permuted outside", &|data| data[1] = 64, "in its permutation twice, or not a column");
        }
    }
}

#[test]
fn sizes_are_as_documented() {
    let bits = |spelling: &str| {
        let packed = parse(spelling).unwrap().encode(&vec![1.0; 32 * 4096], 32, 4096).unwrap();
        packed.bits_per_weight() - 33.0 * 32.0 / (32.0 * 4096.0)
    };
    assert_eq!(bits("spqr:outliers=0"), 3.625);
    assert_eq!(bits("spqr:outliers=0,group=32"), 3.3125);
    assert_eq!(bits("spqr:outliers=0,bits=4"), 4.625);
    assert_eq!(bits("spqr:outliers=0,bits=4,group=32"), 4.3125);
    let wide = parse("spqr").unwrap().encode(&vec![0.0; 65_568], 1, 65_568).unwrap_err();
    assert_eq!(wide.to_string(), "spqr:bits=3: rows of 65568 weights are too long, 65536 is the most");
    let other = Calibration::new(1, vec![0.0; 64], vec![0.0; 64 * 64]).unwrap();
    let error = parse("spqr").unwrap().encode_for(&[0.0; 32], 1, 32, Some(&other)).unwrap_err().to_string();
    assert_eq!(error, "calibration: statistics of 64 columns for a matrix of 32");
}

#[test]
fn matrices_with_other_inputs_do_not_stack() {
    let mut lcg = Lcg::new(9);
    let calibrations = [3.0, 0.1].map(|late| {
        let energies: Vec<f32> = (0..64).map(|i| if i < 32 { 1.0 } else { late }).collect();
        let moment = (0..64 * 64).map(|i| if i / 64 == i % 64 { energies[i / 64] } else { 0.0 }).collect();
        Calibration::new(9, vec![0.0; 64], moment).unwrap()
    });
    let weights: Vec<f32> = (0..16 * 64).map(|_| student(&mut lcg)).collect();
    for (spelling, stacks) in [("spqr", true), ("spqr:published", false)] {
        let codec = parse(spelling).unwrap();
        let [a, b] = calibrations.each_ref().map(|c| codec.encode_for(&weights, 16, 64, Some(c)).unwrap());
        assert_eq!(Packed::concat(&[&a, &b]).is_some(), stacks, "{spelling}");
        let both = Packed::concat(&[&a, &a]).unwrap();
        assert_eq!(both.decode(), [a.decode(), a.decode()].concat(), "{spelling}");
    }
}
