//! Patterns, methods, layouts; what kernels make of them is tested in tests/kernels.

use super::super::tests::Lcg;
use super::*;
use crate::codec::parse;

fn gaussian(seed: u32, n: usize) -> Vec<f32> {
    let mut lcg = Lcg::new(seed);
    (0..n).map(|_| lcg.gaussian()).collect()
}

#[test]
fn spellings_have_one_canonical_form() {
    for (given, canonical) in [
        ("sparse:50%", "sparse:50%"),
        ("sparse: 97.5% , method=wanda", "sparse:97.5%,method=wanda"),
        ("sparse:method=magnitude,0.0%", "sparse:0%"),
        ("sparse:2:4", "sparse:2:4"),
        ("sparse24", "sparse:2:4"),
        ("sparse24:values=f16", "sparse:2:4,values=f16"),
        ("sparse:2:4+f16", "sparse:2:4,values=f16"),
        ("sparse:2:4+q4_k", "sparse:2:4+q4_k"),
        ("sparse:2:4,method=wanda+uniform:bits=4", "sparse:2:4,method=wanda+uniform:bits=4,group=64"),
        ("sparse:4:8,values=f16", "sparse:4:8,values=f16"),
        ("sparse:70%+q8_0", "sparse:70%+q8_0"),
        ("sparse:50%,block=16", "sparse:50%,block=16"),
        ("sparse:block=32,90%+q4_0", "sparse:90%,block=32+q4_0"),
        ("sparse:nnz=12", "sparse:nnz=12"),
    ] {
        let codec = parse(given).unwrap();
        assert_eq!(codec.name(), canonical);
        assert_eq!(parse(canonical).unwrap().name(), canonical);
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let message = |recipe: &str| parse(recipe).unwrap_err().to_string();
    assert_eq!(
        message("sparse"),
        "sparse: option `pattern` is missing; valid: a share to prune (50%), N:M (2:4), nnz=K"
    );
    for recipe in
        ["100%", "50.25%", "-1%", "x%", "4:4", "0:4", "3:6", "2:64", "nnz=0", "nnz=1e9", "50%,2:4", "50%,nnz=3", "half"]
    {
        let error = message(&format!("sparse:{recipe}"));
        assert!(error.contains("is no valid pattern"), "{recipe}: {error}");
    }
    assert!(message("sparse:2:4,block=16").contains("`2:4,block=16` is no valid pattern"));
    assert!(message("sparse:50%,block=8").contains("`8` is no valid block; valid: 16, 32"));
    assert!(
        message("sparse:50%,method=random").contains("`random` is no valid method; valid: magnitude, wanda, sparsegpt")
    );
    assert!(message("sparse:50%,keep=3").contains("unknown option `keep`"));
    assert!(message("sparse:50%+nf4").contains("kept weights can be stored as bf16, f16,"));
    assert!(message("sparse:50%+q8_0+q4_0").contains("its kept weights have a codec already"));
    assert!(message("sparse:50%+sparse:2:4").contains("cannot be combined"));
    assert!(message("sparse:2:4+sparse:50%").contains("cannot be combined"));
    assert!(message("sparse:50%+nvfp4").contains("cannot be combined"));
}

/// Bytes of every pattern at 4096 columns, counted from the documented layout.
#[test]
fn sizes_are_as_documented() {
    let bits = |recipe: &str| {
        let packed = parse(recipe).unwrap().encode(&vec![1.0; 64 * 4096], 64, 4096).unwrap();
        packed.bits_per_weight()
    };
    assert_eq!(bits("sparse:50%"), 8.0 + 1.0 + 0.5);
    assert_eq!(bits("sparse:75%"), 4.0 + 1.0 + 0.5);
    assert_eq!(bits("sparse:2:4"), 8.0 + 1.0);
    assert_eq!(bits("sparse:4:8"), 8.0 + 1.0);
    assert_eq!(bits("sparse:1:4"), 4.0 + 1.0);
    assert_eq!(bits("sparse:8:16"), 8.0 + 1.0 + 0.5);
    assert_eq!(bits("sparse:50%,block=16"), 8.0 + (1.0 + 0.5) / 16.0);
    assert_eq!(bits("sparse:50%,block=32"), 8.0 + (1.0 + 0.5) / 32.0);
    assert_eq!(bits("sparse:2:4+q4_k"), 2.25 + 1.0);
    assert_eq!(bits("sparse:50%+uniform:bits=4,group=64"), 2.125 + 1.0 + 0.5);
}

#[test]
fn the_largest_of_each_group_stay_and_nothing_else() {
    let (rows, cols) = (33, 96);
    let weights = gaussian(1, rows * cols);
    for (recipe, group, kept) in [
        ("sparse:50%", 96, 48),
        ("sparse:90%", 96, 10),
        ("sparse:4:8", 8, 4),
        ("sparse:1:2", 2, 1),
        ("sparse:3:4", 4, 3),
        ("sparse:5:16", 16, 5),
        ("sparse:nnz=7", 96, 7),
        ("sparse:0%", 96, 96),
    ] {
        let decoded = parse(&format!("{recipe}+f32")).unwrap().encode(&weights, rows, cols).unwrap().decode();
        for (weights, decoded) in weights.chunks(group).zip(decoded.chunks(group)) {
            let mut sorted: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for (w, d) in weights.iter().zip(decoded) {
                assert_eq!(*d, if w.abs() >= sorted[kept - 1] { *w } else { 0.0 }, "{recipe}");
            }
        }
    }
}

#[test]
fn blocks_of_the_most_energy_stay() {
    let (rows, cols) = (40, 192);
    for size in [16, 32] {
        let weights = gaussian(2, rows * cols);
        let packed = parse(&format!("sparse:60%,block={size}+f32")).unwrap().encode(&weights, rows, cols).unwrap();
        let decoded = packed.decode();
        for top in (0..rows).step_by(size) {
            let bottom = rows.min(top + size);
            let energy = |block: usize| {
                let of_row = |row: usize| &weights[row * cols + block * size..][..size];
                (top..bottom).flat_map(of_row).map(|w| f64::from(*w).powi(2)).sum::<f64>()
            };
            let mut blocks: Vec<usize> = (0..cols / size).collect();
            blocks.sort_by(|&a, &b| energy(b).total_cmp(&energy(a)));
            // 40 % of 12 (6) blocks, in whole runs.
            let kept = &blocks[..if size == 16 { 6 } else { 3 }];
            for row in top..bottom {
                for col in 0..cols {
                    let expected = if kept.contains(&(col / size)) { weights[row * cols + col] } else { 0.0 };
                    assert_eq!(decoded[row * cols + col], expected, "[{row}, {col}] of blocks of {size}");
                }
            }
        }
    }
}

/// Wanda's score against its formula, computed anew; and that it does what it is for.
#[test]
fn wanda_weighs_columns_by_their_inputs() {
    let (rows, cols, tokens) = (24, 64, 200);
    let weights = gaussian(3, rows * cols);
    let mut x = gaussian(4, tokens * cols);
    x.iter_mut().enumerate().for_each(|(i, v)| *v *= 1.0 + (i % cols % 7) as f32);
    let calibration = calibration(&x, cols);
    for (recipe, group, kept) in [("sparse:50%", 64, 32), ("sparse:2:4", 4, 2), ("sparse:4:8", 8, 4)] {
        let encode = |method: &str| {
            let codec = parse(&format!("{recipe},method={method}+f32")).unwrap();
            codec.encode_for(&weights, rows, cols, Some(&calibration)).unwrap().decode()
        };
        let [wanda, magnitude] = ["wanda", "magnitude"].map(encode);
        for (at, (weights, found)) in weights.chunks(group).zip(wanda.chunks(group)).enumerate() {
            let norm = |i: usize| {
                (0..tokens).map(|t| f64::from(x[t * cols + (at * group + i) % cols]).powi(2)).sum::<f64>().sqrt()
            };
            let scores: Vec<f64> = weights.iter().enumerate().map(|(i, w)| f64::from(w.abs()) * norm(i)).collect();
            let mut sorted = scores.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for (i, found) in found.iter().enumerate() {
                assert_eq!(*found, if scores[i] >= sorted[kept - 1] { weights[i] } else { 0.0 }, "{recipe} {i}");
            }
        }
        let loss = |found: &[f32]| {
            let error: Vec<f32> = weights.iter().zip(found).map(|(w, f)| w - f).collect();
            calibration.loss(&error)
        };
        assert!(loss(&wanda) < 0.8 * loss(&magnitude), "{recipe}: {} against {}", loss(&wanda), loss(&magnitude));
    }
    let codec = parse("sparse:50%,method=wanda").unwrap();
    let error = codec.encode_for(&gaussian(5, 4 * 96), 4, 96, Some(&calibration)).unwrap_err();
    assert!(error.to_string().contains("64 columns"), "{error}");
}

/// The update in the book's form, of one row: for every pruned column, w −= w_j / (H⁻¹)_jj · (H⁻¹)_j,: with H⁻¹ of the columns from j
/// on, inverted anew each time (Frantar & Alistarh 2023, eq. 3).
fn sparse_gpt_row(row: &[f32], moment: &[f64], n: usize, m: usize) -> Vec<f64> {
    let cols = row.len();
    let mut w: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
    let mut kept = vec![true; cols];
    for j in 0..cols {
        let diagonal = |i: usize| inverse(moment, cols, i)[0];
        if j % m == 0 {
            let mut order: Vec<usize> = (j..j + m).collect();
            order.sort_by(|&a, &b| (w[a] * w[a] / diagonal(a)).total_cmp(&(w[b] * w[b] / diagonal(b))));
            order[..m - n].iter().for_each(|&i| kept[i] = false);
        }
        if !kept[j] {
            let inverse = inverse(moment, cols, j);
            let error = w[j] / inverse[0];
            for i in j..cols {
                w[i] -= error * inverse[i - j];
            }
            w[j] = 0.0;
        }
    }
    w
}

/// The first row of the inverse of `moment[first.., first..]`, by Gaussian elimination.
fn inverse(moment: &[f64], cols: usize, first: usize) -> Vec<f64> {
    let n = cols - first;
    let mut a: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let row = (0..n).map(|j| moment[(first + i) * cols + first + j]);
            row.chain([f64::from(u8::from(i == 0))]).collect()
        })
        .collect();
    for i in 0..n {
        let pivot = a[i].clone();
        for j in (0..n).filter(|&j| j != i) {
            let factor = a[j][i] / pivot[i];
            (i..=n).for_each(|k| a[j][k] -= factor * pivot[k]);
        }
    }
    (0..n).map(|i| a[i][n] / a[i][i]).collect()
}

#[test]
fn sparsegpt_makes_up_for_what_it_prunes() {
    let (rows, cols, tokens) = (70, 64, 300);
    let weights = gaussian(9, rows * cols);
    // Neighbouring inputs have much in common.
    let noise = gaussian(10, tokens * cols + 8);
    let x: Vec<f32> =
        (0..tokens * cols).map(|i| noise[i..i + 8].iter().sum::<f32>() * (1.0 + (i % cols % 5) as f32)).collect();
    let calibration = calibration(&x, cols);
    let mean = calibration.mean_squares().iter().map(|&v| f64::from(v)).sum::<f64>() / cols as f64;
    let mut moment: Vec<f64> = calibration.second_moment().iter().map(|&v| f64::from(v)).collect();
    (0..cols).for_each(|i| moment[i * cols + i] += 0.01 * mean);
    for (recipe, n, m) in [("sparse:2:4", 2, 4), ("sparse:4:8", 4, 8), ("sparse:50%", 32, 64)] {
        let encode = |method: &str| {
            let codec = parse(&format!("{recipe},method={method}+f32")).unwrap();
            codec.encode_for(&weights, rows, cols, Some(&calibration)).unwrap().decode()
        };
        let found = encode("sparsegpt");
        for row in [0, 1, rows - 1] {
            let expected = sparse_gpt_row(&weights[row * cols..][..cols], &moment, n, m);
            for (col, (found, expected)) in found[row * cols..].iter().zip(&expected).enumerate() {
                let close = (f64::from(*found) - expected).abs() < 1e-3;
                assert!(close, "{recipe} [{row}, {col}]: {found}, not {expected}");
            }
        }
        let loss = |found: &[f32]| {
            let error: Vec<f32> = weights.iter().zip(found).map(|(w, f)| w - f).collect();
            calibration.loss(&error)
        };
        let [gpt, wanda] = [loss(&found), loss(&encode("wanda"))];
        assert!(gpt < 0.6 * wanda, "{recipe}: {gpt} against Wanda's {wanda}");
    }
    let error = parse("sparse:50%,block=16,method=sparsegpt").unwrap_err().to_string();
    assert!(error.ends_with("valid: magnitude, wanda"), "{error}");
}

/// Statistics of inputs `[tokens, cols]`.
fn calibration(x: &[f32], cols: usize) -> Calibration {
    let tokens = x.len() / cols;
    let mut moment = vec![0.0f64; cols * cols];
    for row in x.chunks_exact(cols) {
        for (i, a) in row.iter().enumerate() {
            for (j, b) in row.iter().enumerate() {
                moment[i * cols + j] += f64::from(*a) * f64::from(*b) / tokens as f64;
            }
        }
    }
    let mean = (0..cols).map(|i| x.iter().skip(i).step_by(cols).sum::<f32>() / tokens as f32).collect();
    Calibration::new(tokens as u64, mean, moment.into_iter().map(|v| v as f32).collect()).unwrap()
}

#[test]
fn rows_that_values_do_not_fit_fall_back() {
    let chain = |recipe: &str, cols: usize| {
        let choice = crate::codec::Recipe::parse(recipe).unwrap().choose("w", 4, cols);
        choice.codec.name()
    };
    assert_eq!(chain("sparse:2:4+q4_k", 1536), "sparse:2:4+q4_k");
    assert_eq!(chain("sparse:2:4+q4_k", 576), "sparse:2:4+q5_0");
    assert_eq!(chain("sparse:50%+q4_k", 576), "sparse:50%+q5_0");
    assert_eq!(chain("sparse:2:4+q8_0", 96), "sparse:2:4,values=f16");
    assert_eq!(chain("sparse:50%", 576), "sparse:50%");
    assert_eq!(chain("sparse:50%", 100), "f16");
    assert_eq!(chain("sparse:3:4+q8_0", 576), "sparse:3:4,values=f16");
}

#[test]
fn masks_of_other_software_are_taken_as_they_are() {
    let weights = gaussian(6, 2 * 64);
    let mask = [0x8000_0001, 0, 0xff, 1];
    let packed = parse("sparse:nnz=9+f32").unwrap().encode_masked(&weights, &mask, 2, 64).unwrap();
    let bit = |i: usize| mask[i / 32] >> (i % 32) & 1 == 1;
    let expected: Vec<f32> = weights.iter().enumerate().map(|(i, w)| if bit(i) { *w } else { 0.0 }).collect();
    assert_eq!(packed.decode(), expected);
    for (recipe, mask) in [
        ("sparse:nnz=8", &mask[..]),
        ("sparse:2:4", &mask),
        ("sparse:4:8", &mask),
        ("bf16", &mask),
        ("sparse:nnz=9", &mask[..2]),
    ] {
        let error = parse(recipe).unwrap().encode_masked(&weights, mask, 2, 64).unwrap_err();
        assert!(error.to_string().contains("cannot be combined"), "{recipe}: {error}");
    }
}

/// Lines that lie give wrong numbers, and no panic.
#[test]
fn hostile_masks_decode_to_something() {
    for recipe in ["sparse:50%", "sparse:4:8+q8_0", "sparse:50%,block=16"] {
        let mut packed = parse(recipe).unwrap().encode(&gaussian(7, 40 * 128), 40, 128).unwrap();
        let mut lcg = Lcg::new(8);
        for word in &mut packed.planes.last_mut().unwrap().data {
            *word = u32::from(lcg.u16()) << 16 | u32::from(lcg.u16());
        }
        let packed = Packed::new(packed.codec.clone(), 40, 128, packed.planes).unwrap();
        assert_eq!(packed.decode().len(), 40 * 128);
    }
}
