//! Twins of `eval/compare`, `eval/nll` and `eval/difference`.

use crate::ops::metrics::Difference;

/// [`crate::ops::metrics::Comparison`] in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    pub nll: [f64; 2],
    pub kl_divergence: f64,
    pub p_target: [f64; 2],
    pub argmax: [u32; 2],
    pub top5_overlap: u32,
    pub entropy: [f64; 2],
}

/// ln of the softmax.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().map(|l| f64::from(*l)).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (f64::from(*l) - max).exp()).sum();
    logits.iter().map(|l| f64::from(*l) - max - sum.ln()).collect()
}

/// Indices by logit, largest first, the lower index first where equal.
fn ranked(logits: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|i, j| logits[*j as usize].total_cmp(&logits[*i as usize]).then(i.cmp(j)));
    order
}

/// Compares the logits of one position.
pub fn compare(a: &[f32], b: &[f32], target: u32) -> Comparison {
    let (log_a, log_b) = (log_softmax(a), log_softmax(b));
    let (rank_a, rank_b) = (ranked(a), ranked(b));
    let entropy = |log: &[f64]| -log.iter().map(|l| l.exp() * l).sum::<f64>();
    let nll = [-log_a[target as usize], -log_b[target as usize]];
    Comparison {
        nll,
        kl_divergence: log_a.iter().zip(&log_b).map(|(a, b)| a.exp() * (a - b)).sum(),
        p_target: nll.map(|n| (-n).exp()),
        argmax: [rank_a[0], rank_b[0]],
        top5_overlap: rank_a.iter().take(5).filter(|i| rank_b.iter().take(5).any(|j| j == *i)).count() as u32,
        entropy: [entropy(&log_a), entropy(&log_b)],
    }
}

/// The sums over two tensors.
pub fn difference(a: &[f32], b: &[f32]) -> Difference {
    a.iter().zip(b).fold(Difference::default(), |sum, (a, b)| {
        let (a, b) = (f64::from(*a), f64::from(*b));
        sum.plus(&Difference { error: (a - b).powi(2), energy: a * a, product: a * b, other_energy: b * b })
    })
}
