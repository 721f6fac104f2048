//! Twin of the linear kernels (`shaders/wgsl/linear/`): `y = W x` and its epilogue in f64.
//!
//! In: decoded weights and activations in f32. Out: what exact arithmetic makes of them, and how much cancels in each sum,
//! which is what a bound on rounding errors is measured against.

use super::elementwise;
use crate::codec::LowRankParts;
use crate::ops::elementwise::Activation;

/// Sums `[tokens, rows]`.
#[derive(Clone, Debug)]
pub struct Sums {
    /// Σ w·x
    pub value: Vec<f64>,
    /// Σ |w·x|
    pub magnitude: Vec<f64>,
}

/// `W x` for weights `[rows, cols]` and x `[tokens, cols]`, with x normalised by `norm` (weight `[cols]`, eps) first.
pub fn product(weights: &[f32], rows: usize, cols: usize, x: &[f32], norm: Option<(&[f32], f32)>) -> Sums {
    assert_eq!(weights.len(), rows * cols);
    let mut sums = Sums { value: Vec::new(), magnitude: Vec::new() };
    for x in x.chunks_exact(cols) {
        let mut x: Vec<f64> = x.iter().map(|&v| v.into()).collect();
        if let Some((weight, eps)) = norm {
            let mean_square = x.iter().map(|v| v * v).sum::<f64>() / cols as f64;
            let scale = 1.0 / (mean_square + f64::from(eps)).sqrt();
            for (v, &g) in x.iter_mut().zip(weight) {
                *v *= scale * f64::from(g);
            }
        }
        for row in weights.chunks_exact(cols) {
            let terms = || row.iter().zip(&x).map(|(&w, x)| f64::from(w) * x);
            sums.value.push(terms().sum());
            sums.magnitude.push(terms().map(f64::abs).sum());
        }
    }
    sums
}

/// [`product`] for a matrix with a low-rank part, `Ŵ x + B (A x)`, by itself: A x is made first, B's numbers are taken from their bits.
pub fn low_rank(parts: &LowRankParts, rows: usize, cols: usize, x: &[f32], norm: Option<(&[f32], f32)>) -> Sums {
    let mut sums = match &parts.base {
        Some(base) => product(&base.decode(), rows, cols, x, norm),
        None => product(&vec![0.0; rows * cols], rows, cols, x, norm),
    };
    let width = parts.a.rows;
    let t = product(&parts.a.decode(), width, cols, x, norm);
    for (i, (value, magnitude)) in sums.value.iter_mut().zip(&mut sums.magnitude).enumerate() {
        let (token, row) = (i / rows, i % rows);
        let b = &parts.b[row * parts.row_words..][..parts.row_words];
        let first = token * width + b[0] as usize;
        for k in 0..parts.rank {
            let factor = factor(&b[2..], k, parts.rank, parts.format);
            *value += factor * t.value[first + k];
            *magnitude += factor.abs() * t.magnitude[first + k];
        }
    }
    sums
}

/// Number `k` of a row of B.
fn factor(words: &[u32], k: usize, rank: usize, format: u32) -> f64 {
    let half = |at: usize| (words[at / 2] >> (16 * (at % 2))) as u16;
    let scale = half::f16::from_bits(half(k / 32)).to_f64();
    let codes = &words[if format < 2 { 0 } else { rank.div_ceil(64) }..];
    match format {
        0 => half::bf16::from_bits(half(k)).to_f64(),
        1 => half::f16::from_bits(half(k)).to_f64(),
        2 => scale * f64::from((codes[k / 4] >> (8 * (k % 4))) as u8 as i8),
        _ => scale * (f64::from((codes[k / 8] >> (4 * (k % 8))) & 15) - 8.0),
    }
}

/// What follows the product; the fields of [`crate::ops::linear::Epilogue`].
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// Rows are gate rows, then as many up rows.
    pub gated: bool,
    /// `[rows]`
    pub bias: Option<&'a [f32]>,
    pub activation: Option<Activation>,
    /// `[tokens, outputs]`
    pub residual: Option<&'a [f32]>,
    pub scale: f64,
    pub cap: Option<f64>,
}

/// The layer's outputs `[tokens, outputs]` from its sums `[tokens, rows]`.
pub fn epilogue(sums: &[f64], rows: usize, e: &Epilogue) -> Vec<f64> {
    let outputs = if e.gated { rows / 2 } else { rows };
    let mut y = Vec::with_capacity(sums.len() / rows * outputs);
    for (token, sums) in sums.chunks_exact(rows).enumerate() {
        let with_bias = |row: usize| sums[row] * e.scale + e.bias.map_or(0.0, |bias| bias[row].into());
        for j in 0..outputs {
            let mut v = activate(e.activation, with_bias(j));
            if e.gated {
                v *= with_bias(outputs + j);
            }
            if let Some(cap) = e.cap {
                v = cap * (v / cap).tanh();
            }
            y.push(v + e.residual.map_or(0.0, |r| f64::from(r[token * outputs + j])));
        }
    }
    y
}

fn activate(which: Option<Activation>, x: f64) -> f64 {
    which.map_or(x, |activation| elementwise::activate(activation, x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gated_layer_by_hand() {
        let sums = product(&[1.0, 2.0, 3.0, 4.0], 2, 2, &[1.0, -1.0], None);
        assert_eq!(sums.value, [-1.0, -1.0]);
        assert_eq!(sums.magnitude, [3.0, 7.0]);
        let e = Epilogue {
            gated: true,
            bias: Some(&[3.0, 1.0]),
            activation: None,
            residual: Some(&[10.0]),
            scale: 2.0,
            cap: None,
        };
        // (2·−1 + 3) · (2·−1 + 1) + 10
        assert_eq!(epilogue(&sums.value, 2, &e), [9.0]);
    }

    #[test]
    fn a_norm_scales_to_unit_mean_square() {
        let sums = product(&[1.0, 0.0, 0.0, 1.0], 2, 2, &[3.0, 4.0], Some((&[1.0, 2.0], 0.0)));
        let rms = 12.5f64.sqrt();
        assert!((sums.value[0] - 3.0 / rms).abs() < 1e-12 && (sums.value[1] - 8.0 / rms).abs() < 1e-12);
    }
}
