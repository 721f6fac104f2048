//! Twins of `elementwise/*`.

use crate::ops::elementwise::{Activation, Pooling};

/// The error function, by its Taylor series (|x| < 3) or continued fraction: accurate to about 1e-15.
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        let mut n = 0.0;
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        return x.signum() * sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let fraction = (1..=60).rev().fold(a, |f, k| a + f64::from(k) / 2.0 / f);
    x.signum() * (1.0 - (-a * a).exp() / fraction / std::f64::consts::PI.sqrt())
}

/// The activation of one number.
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::Relu => x.max(0.0),
    }
}

/// `activation(gate) · up`.
pub fn gated(activation: Activation, gate: &[f32], up: Option<&[f32]>) -> Vec<f64> {
    let factor = |i: usize| up.map_or(1.0, |u| f64::from(u[i]));
    gate.iter().enumerate().map(|(i, g)| activate(activation, f64::from(*g)) * factor(i)).collect()
}

/// The embedding of `x` (`[tokens, cols]`).
pub fn pool(pooling: Pooling, normalize: bool, x: &[f32], cols: usize) -> Vec<f64> {
    let rows: Vec<&[f32]> = x.chunks_exact(cols).collect();
    let of = |row: &[f32]| row.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let mut y = match pooling {
        Pooling::Mean => {
            (0..cols).map(|c| rows.iter().map(|r| f64::from(r[c])).sum::<f64>() / rows.len() as f64).collect()
        }
        Pooling::First => of(rows[0]),
        Pooling::Last => of(rows[rows.len() - 1]),
    };
    if normalize {
        let norm = y.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
        y.iter_mut().for_each(|v| *v /= norm);
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_right_on_both_branches() {
        // Abramowitz & Stegun, table 7.1, and known digits of erf(3.5).
        for (x, y) in [(0.0, 0.0), (0.5, 0.520_499_877_813_046_5), (-1.0, -0.842_700_792_949_714_9)] {
            assert!((erf(x) - y).abs() < 1e-15, "erf({x}) = {}", erf(x));
        }
        assert!((erf(3.5) - 0.999_999_256_901_627_7).abs() < 1e-14);
        assert!((erf(2.999_999) - erf(3.000_001)).abs() < 1e-9);
    }
}
