//! Statistics over positions: perplexity, KL divergence, Δp, agreement.
//!
//! Standard errors are those of a mean over independent positions, s/√n with the sample's standard deviation s, and first-order
//! propagation through exp and √, as llama.cpp's `--kl-divergence` reports them, so numbers can be compared with its own.
//! Neighbouring positions of a text are not quite independent: take the errors for a lower bound.

use crate::ops::metrics::{Comparison, Likelihood};
use serde::{Deserialize, Serialize};

/// Why there is no statistic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Fewer values than the statistic needs.
    #[error("{what} needs at least {least} values, there are {have}")]
    TooFew {
        /// The statistic.
        what: &'static str,
        /// Values it needs.
        least: usize,
        /// Values there are.
        have: usize,
    },
    /// Two lists that belong together have different lengths.
    #[error("{what}: {a} values against {b}")]
    Unequal {
        /// The statistic.
        what: &'static str,
        /// Length of the first.
        a: usize,
        /// Length of the second.
        b: usize,
    },
}

/// A number and its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
}

impl Estimate {
    /// Mean of a sample; a sample of one has error 0.
    fn mean(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let n = values.len() as f64;
        let value = values.clone().sum::<f64>() / n;
        let spread: f64 = values.map(|v| (v - value).powi(2)).sum();
        let error = if n > 1.0 { (spread / (n - 1.0) / n).sqrt() } else { 0.0 };
        Self { value, error }
    }

    /// exp of an estimate.
    fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, error: value * self.error }
    }

    /// Square root of an estimate.
    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        Self { value, error: if value > 0.0 { self.error / (2.0 * value) } else { 0.0 } }
    }
}

/// How well one model predicts a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// Positions scored.
    pub positions: usize,
    /// exp of the mean negative log-likelihood.
    pub perplexity: Estimate,
    /// Mean negative log-likelihood, nats a token.
    pub nll: Estimate,
    /// Mean entropy of the predictions, nats.
    pub entropy: f64,
    /// Mean probability of the true token.
    pub p_target: f64,
    /// Fraction of positions whose most probable token is the true one.
    pub accuracy: f64,
}

impl Perplexity {
    /// Bits a byte of a text of `bytes` bytes, all of whose tokens were scored.
    pub fn bits_per_byte(&self, bytes: usize) -> f64 {
        self.nll.value * self.positions as f64 / std::f64::consts::LN_2 / bytes as f64
    }
}

/// Perplexity over all positions of all windows.
///
/// # Errors
/// [`EvalError`] without positions, or if `targets` does not match.
pub fn perplexity(records: &[Likelihood], targets: &[u32]) -> Result<Perplexity, EvalError> {
    let n = check("perplexity", records.len(), targets.len())?;
    let mean = |f: fn(&Likelihood) -> f32| records.iter().map(|r| f64::from(f(r))).sum::<f64>() / n;
    let nll = Estimate::mean(records.iter().map(|r| f64::from(r.nll)));
    Ok(Perplexity {
        positions: records.len(),
        perplexity: nll.exp(),
        nll,
        entropy: mean(|r| r.entropy),
        p_target: mean(|r| r.p_target),
        accuracy: records.iter().zip(targets).filter(|(r, t)| r.argmax == **t).count() as f64 / n,
    })
}

/// What changed from the original model (a) to the compressed one (b), over the same positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ComparisonStatistics {
    /// Positions compared.
    pub positions: usize,
    /// Perplexity of the original.
    pub perplexity_a: Estimate,
    /// Perplexity of the compressed model.
    pub perplexity_b: Estimate,
    /// Correlation of the two models' log-likelihoods over positions.
    pub nll_correlation: f64,
    /// ln(perplexity b / perplexity a), its error from the paired differences: far smaller than from the two perplexities.
    pub ln_ratio: Estimate,
    /// perplexity b / perplexity a.
    pub ratio: Estimate,
    /// Mean KL divergence from a to b, nats.
    pub kl: Estimate,
    /// Median KL divergence.
    pub kl_median: f64,
    /// 99th percentile.
    pub kl_99: f64,
    /// 99.9th percentile.
    pub kl_99_9: f64,
    /// Largest.
    pub kl_max: f64,
    /// Mean change of the true token's probability, p b − p a.
    pub delta_p: Estimate,
    /// Root of the mean square of that change.
    pub delta_p_rms: Estimate,
    /// Fraction of positions with the same most probable token.
    pub same_top: Estimate,
    /// Mean share of the five most probable tokens that both models name.
    pub top5_overlap: Estimate,
    /// Fraction of positions whose most probable token was the true one and no longer is, or the other way round: the
    /// flips of Dutta et al. 2024 (arXiv 2407.09141), with next-token prediction as the task. Changes from one wrong token
    /// to another are not flips; `same_top` counts them.
    pub flips: Estimate,
    /// Of the flips, the fraction of positions that went from right to wrong.
    pub flips_to_wrong: f64,
    /// Fraction of positions at which the original's most probable token is the true one.
    pub accuracy_a: f64,
    /// The same of the compressed model.
    pub accuracy_b: f64,
    /// Mean entropy of the original's predictions, nats.
    pub entropy_a: f64,
    /// Mean entropy of the compressed model's.
    pub entropy_b: f64,
}

/// Compares two models over all positions of all windows.
///
/// # Errors
/// [`EvalError`] without positions, or if `targets` does not match.
pub fn compare(records: &[Comparison], targets: &[u32]) -> Result<ComparisonStatistics, EvalError> {
    let n = check("a comparison", records.len(), targets.len())?;
    let nll = |m: usize| records.iter().map(move |r| f64::from(r.nll[m]));
    let entropy = |m: usize| records.iter().map(|r| f64::from(r.entropy[m])).sum::<f64>() / n;
    let ln_ratio = Estimate::mean(records.iter().map(|r| f64::from(r.nll[1]) - f64::from(r.nll[0])));
    let mut kl: Vec<f64> = records.iter().map(|r| f64::from(r.kl_divergence)).collect();
    let kl_mean = Estimate::mean(kl.iter().copied());
    kl.sort_by(f64::total_cmp);
    let delta = records.iter().map(|r| f64::from(r.p_target[1]) - f64::from(r.p_target[0]));
    let right = |m: usize| records.iter().zip(targets).map(move |(r, t)| r.argmax[m] == *t);
    let share = |hits: usize| hits as f64 / n;
    let proportion = |hits: usize| {
        let value = share(hits);
        Estimate { value, error: if n > 1.0 { (value * (1.0 - value) / (n - 1.0)).sqrt() } else { 0.0 } }
    };
    Ok(ComparisonStatistics {
        positions: records.len(),
        perplexity_a: Estimate::mean(nll(0)).exp(),
        perplexity_b: Estimate::mean(nll(1)).exp(),
        nll_correlation: correlation(&nll(0).collect::<Vec<_>>(), &nll(1).collect::<Vec<_>>()),
        ln_ratio,
        ratio: ln_ratio.exp(),
        kl: kl_mean,
        kl_median: quantile(&kl, 0.5),
        kl_99: quantile(&kl, 0.99),
        kl_99_9: quantile(&kl, 0.999),
        kl_max: quantile(&kl, 1.0),
        delta_p: Estimate::mean(delta.clone()),
        delta_p_rms: Estimate::mean(delta.map(|d| d * d)).sqrt(),
        same_top: proportion(records.iter().filter(|r| r.argmax[0] == r.argmax[1]).count()),
        top5_overlap: Estimate::mean(records.iter().map(|r| f64::from(r.top5_overlap) / 5.0)),
        flips: proportion(right(0).zip(right(1)).filter(|(a, b)| a != b).count()),
        flips_to_wrong: share(right(0).zip(right(1)).filter(|(a, b)| *a && !*b).count()),
        accuracy_a: share(right(0).filter(|r| *r).count()),
        accuracy_b: share(right(1).filter(|r| *r).count()),
        entropy_a: entropy(0),
        entropy_b: entropy(1),
    })
}

fn check(what: &'static str, a: usize, b: usize) -> Result<f64, EvalError> {
    if a != b {
        return Err(EvalError::Unequal { what, a, b });
    }
    if a == 0 { Err(EvalError::TooFew { what, least: 1, have: 0 }) } else { Ok(a as f64) }
}

/// Quantile of sorted values, linear between neighbours (as numpy's default); NaN of nothing.
pub fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = fraction.clamp(0.0, 1.0) * last as f64;
    let low = at.floor() as usize;
    let high = (low + 1).min(last);
    sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
}

/// Pearson's correlation; 1 where both are constant, 0 where one is.
pub(super) fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (dx, dy) = (x - mean_x, y - mean_y);
        xx += dx * dx;
        yy += dy * dy;
        xy += dx * dy;
    }
    if xx > 0.0 && yy > 0.0 { xy / (xx * yy).sqrt() } else { f64::from(u8::from(xx == yy)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(nll: [f32; 2], argmax: [u32; 2]) -> Comparison {
        Comparison {
            nll,
            kl_divergence: 0.0,
            p_target: nll.map(|n| (-n).exp()),
            argmax,
            top5_overlap: 5,
            entropy: [0.0; 2],
        }
    }

    #[test]
    fn a_model_compared_with_itself_loses_nothing() {
        let records: Vec<_> = (0..10).map(|i| record([i as f32; 2], [i, i])).collect();
        let s = compare(&records, &[0; 10]).unwrap();
        assert_eq!((s.ln_ratio, s.ratio.value, s.kl), (Estimate::default(), 1.0, Estimate::default()));
        assert_eq!((s.same_top.value, s.flips.value, s.delta_p_rms.value), (1.0, 0.0, 0.0));
        assert!((s.nll_correlation - 1.0).abs() < 1e-12);
    }

    #[test]
    fn only_changes_of_correctness_are_flips() {
        // Right to wrong, wrong to right, wrong to wrong, right to right.
        let argmax = [[7, 1], [1, 7], [1, 2], [7, 7]];
        let records: Vec<_> = argmax.iter().map(|a| record([1.0; 2], *a)).collect();
        let s = compare(&records, &[7; 4]).unwrap();
        assert_eq!((s.flips.value, s.flips_to_wrong, s.same_top.value), (0.5, 0.25, 0.25));
        assert_eq!((s.accuracy_a, s.accuracy_b), (0.5, 0.5));
    }

    #[test]
    fn nothing_to_compare_is_an_error() {
        assert!(matches!(compare(&[], &[]), Err(EvalError::TooFew { .. })));
        assert!(matches!(compare(&[record([1.0; 2], [0; 2])], &[]), Err(EvalError::Unequal { .. })));
        assert!(matches!(perplexity(&[], &[]), Err(EvalError::TooFew { .. })));
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn one_position_has_no_error_bar() {
        let s = compare(&[record([1.0, 1.5], [0, 0])], &[0]).unwrap();
        assert_eq!((s.ln_ratio.value, s.ln_ratio.error), (0.5, 0.0));
        assert_eq!(s.kl_99_9, 0.0);
    }
}
