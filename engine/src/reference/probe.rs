//! Twins of the probes that [`crate::bench`] measures ceilings with. (Copying needs none: y = x.)

use crate::ops::probe::Fma;

/// For each of `lanes` lanes the exclusive or of the `each` groups of four words that it reads; x: \[lanes · each · 4\].
pub fn read(x: &[u32], lanes: usize, each: usize) -> Vec<u32> {
    (0..lanes)
        .map(|lane| (0..each).flat_map(|i| &x[4 * (i * lanes + lane)..][..4]).fold(0, |all, word| all ^ word))
        .collect()
}

/// For each lane the sum of its 4·chains numbers after 8·rounds steps v = v·factor + addend. Number k of chain c starts at
/// (lane mod 64)/64 + k + c. In f64: the factor is below 1, so that rounding errors of f32 fade.
pub fn fma(what: &Fma) -> Vec<f32> {
    (0..what.lanes)
        .map(|lane| {
            let numbers =
                (0..what.chains).flat_map(|c| (0..4).map(move |k| f64::from(lane % 64) / 64.0 + f64::from(k + c)));
            let step = |v: f64| v * f64::from(what.factor) + f64::from(what.addend);
            numbers.map(|start| (0..8 * what.rounds).fold(start, |v, _| step(v))).sum::<f64>() as f32
        })
        .collect()
}
