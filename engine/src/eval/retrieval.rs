//! Encoders: how far embeddings drift, and what that does to retrieval.

use super::statistics::{EvalError, correlation, quantile};
use serde::{Deserialize, Serialize};

/// Cosine of the angle between two vectors; 0 where one is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

/// Indices of the `k` highest scores, best first; equal scores in the order of their indices.
pub fn top(scores: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|i, j| scores[*j].total_cmp(&scores[*i]).then(i.cmp(j)));
    order.truncate(k);
    order
}

/// Fraction of `relevant` found among the first `k` of `ranked`; 1 where nothing is relevant.
pub fn recall_at(k: usize, relevant: &[usize], ranked: &[usize]) -> f64 {
    if relevant.is_empty() {
        return 1.0;
    }
    let found = relevant.iter().filter(|r| ranked.iter().take(k).any(|x| x == *r)).count();
    found as f64 / relevant.len() as f64
}

/// Ranks from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|i, j| values[*i].total_cmp(&values[*j]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let same = order[start..].iter().take_while(|i| values[**i] == values[order[start]]).count().max(1);
        let shared = start as f64 + (same as f64 + 1.0) / 2.0;
        for i in &order[start..start + same] {
            ranks[*i] = shared;
        }
        start += same;
    }
    ranks
}

/// Spearman's rank correlation.
///
/// # Errors
/// [`EvalError`] for lists of different lengths or of fewer than two values.
pub fn rank_correlation(x: &[f64], y: &[f64]) -> Result<f64, EvalError> {
    let what = "rank correlation";
    if x.len() != y.len() {
        return Err(EvalError::Unequal { what, a: x.len(), b: y.len() });
    }
    if x.len() < 2 {
        return Err(EvalError::TooFew { what, least: 2, have: x.len() });
    }
    Ok(correlation(&ranks(x), &ranks(y)))
}

/// What compression did to an encoder's embeddings of the same texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingDrift {
    /// Texts.
    pub texts: usize,
    /// Mean cosine between a text's two embeddings.
    pub cosine_mean: f64,
    /// Median cosine.
    pub cosine_median: f64,
    /// Smallest cosine.
    pub cosine_min: f64,
    /// Every text as a query against all others: share of the original's k nearest that are among the compressed model's k nearest.
    pub recall: f64,
    /// k of the recall.
    pub k: usize,
    /// Spearman correlation of all pairwise similarities.
    pub rank_correlation: f64,
}

/// Compares embeddings of the same texts by the original model (a) and the compressed one (b). Recall is at 10, or at half the
/// other texts where there are fewer than 20.
///
/// # Errors
/// [`EvalError`] for lists of different lengths or of fewer than three texts.
pub fn embedding_drift(a: &[Vec<f32>], b: &[Vec<f32>]) -> Result<EmbeddingDrift, EvalError> {
    let what = "embedding drift";
    if a.len() != b.len() {
        return Err(EvalError::Unequal { what, a: a.len(), b: b.len() });
    }
    let n = a.len();
    if n < 3 {
        return Err(EvalError::TooFew { what, least: 3, have: n });
    }
    let mut same: Vec<f64> = a.iter().zip(b).map(|(a, b)| cosine(a, b)).collect();
    same.sort_by(f64::total_cmp);

    let k = 10.min((n - 1) / 2);
    let (mut recall, mut pairs_a, mut pairs_b) = (0.0, Vec::new(), Vec::new());
    for query in 0..n {
        let scores = |all: &[Vec<f32>]| -> Vec<f64> {
            // A text is not its own result.
            (0..n).map(|d| if d == query { f64::NEG_INFINITY } else { cosine(&all[query], &all[d]) }).collect()
        };
        let (of_a, of_b) = (scores(a), scores(b));
        recall += recall_at(k, &top(&of_a, k), &top(&of_b, k));
        pairs_a.extend_from_slice(&of_a[query + 1..]);
        pairs_b.extend_from_slice(&of_b[query + 1..]);
    }
    Ok(EmbeddingDrift {
        texts: n,
        cosine_mean: same.iter().sum::<f64>() / n as f64,
        cosine_median: quantile(&same, 0.5),
        cosine_min: same[0],
        recall: recall / n as f64,
        k,
        rank_correlation: rank_correlation(&pairs_a, &pairs_b)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert_eq!(rank_correlation(&[1.0, 2.0, 3.0], &[10.0, 100.0, 1000.0]), Ok(1.0));
        assert_eq!(rank_correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Ok(-1.0));
        assert!(rank_correlation(&[1.0], &[1.0]).is_err());
    }

    #[test]
    fn recall_counts_what_was_found() {
        assert_eq!(top(&[0.1, 0.9, 0.5, 0.9], 3), [1, 3, 2]);
        assert_eq!(recall_at(2, &[1, 2], &[2, 3, 1]), 0.5);
        assert_eq!(recall_at(10, &[], &[1]), 1.0);
    }

    #[test]
    fn equal_embeddings_do_not_drift() {
        let a: Vec<Vec<f32>> = (0..30).map(|i| vec![(i as f32).sin(), (i as f32).cos(), 0.1 * i as f32]).collect();
        let d = embedding_drift(&a, &a).unwrap();
        assert_eq!((d.recall, d.k, d.texts), (1.0, 10, 30));
        assert!((d.cosine_min - 1.0).abs() < 1e-12 && (d.rank_correlation - 1.0).abs() < 1e-12);
    }
}
