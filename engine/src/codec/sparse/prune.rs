//! What is pruned: scores of weights, and masks from scores.
//!
//! | method | score of w_ij | |
//! | --- | --- | --- |
//! | `magnitude` | \|w_ij\| | the default |
//! | `wanda` | \|w_ij\| ‖x_j‖ | Sun et al. 2023, arXiv 2306.11695 |
//! | `sparsegpt` | (w_ij / U_jj)², the others make up for what is lost | Frantar & Alistarh 2023, arXiv 2301.00774 |
//!
//! SparseGPT goes from column to column. It chooses what to prune of a row within 128 columns at a time (N of every M for that pattern),
//! by the weights as they then are, and adds the best correction of each pruned weight to the columns that follow ([`Hessian`]).
//!
//! A matrix without statistics (the embedding table) is pruned by magnitude, which is what the others are for inputs of independent
//! columns of one mean square.

use std::borrow::Cow;

use super::super::hessian::{Group, Hessian, Order, Replace};
use super::super::rows::for_each_chunk;
use super::super::{Calibrates, Calibration, CodecError, RUN};
use super::{Options, Pattern};

/// How weights are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Method {
    Magnitude,
    Wanda,
    SparseGpt,
}

impl Method {
    const NAMES: [(&str, Self); 3] =
        [("magnitude", Self::Magnitude), ("wanda", Self::Wanda), ("sparsegpt", Self::SparseGpt)];

    pub(super) fn read(options: &Options, pattern: Pattern) -> Result<Self, CodecError> {
        let Some(given) = options.get("method") else { return Ok(Self::Magnitude) };
        let given = given.unwrap_or_default();
        // The columns of a block would have to be pruned at once, before there is anything to make up for.
        let valid = match pattern {
            Pattern::Blocks { .. } => &Self::NAMES[..2],
            _ => &Self::NAMES,
        };
        let found = valid.iter().find(|(name, _)| *name == given).map(|(_, method)| *method);
        found.ok_or_else(|| CodecError::OptionValue {
            codec: "sparse".into(),
            option: "method".into(),
            value: given.into(),
            valid: valid.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The option as the canonical spelling has it.
    pub(in super::super) fn option(self) -> String {
        match Self::NAMES.iter().find(|(_, method)| *method == self) {
            Some((name, method)) if *method != Self::Magnitude => format!(",method={name}"),
            _ => String::new(),
        }
    }

    pub(in super::super) fn calibrates(self) -> Calibrates {
        if self == Self::Magnitude { Calibrates::No } else { Calibrates::Always }
    }
}

/// A pruned matrix.
pub(in super::super) struct Pruned<'a> {
    /// `[rows, cols]`; those that the mask does not have are not looked at.
    pub(in super::super) weights: Cow<'a, [f32]>,
    /// `[rows, runs]`, weight i of a run in bit i.
    pub(in super::super) mask: Vec<u32>,
}

/// Chooses `kept` weights of every row (or fewer, where `pattern` says so).
///
/// # Errors
/// Statistics of other columns.
pub(in super::super) fn prune<'a>(
    method: Method,
    pattern: Pattern,
    kept: usize,
    weights: &'a [f32],
    cols: usize,
    calibration: Option<&Calibration>,
) -> Result<Pruned<'a>, CodecError> {
    let norms: Option<Vec<f32>> = match (method, calibration) {
        (Method::Magnitude, _) | (_, None) => None,
        (Method::SparseGpt, Some(calibration)) => {
            calibration.check(cols)?;
            let hessian = Hessian::new(calibration, DAMPING, Order::Stored)?;
            return Ok(sparse_gpt(&hessian, pattern, kept, weights, cols));
        }
        (Method::Wanda, Some(calibration)) => {
            calibration.check(cols)?;
            Some(calibration.mean_squares().into_iter().map(f32::sqrt).collect())
        }
    };
    let rows = weights.len() / cols.max(1);
    let runs = cols.div_ceil(RUN);
    let mut mask = vec![0; rows * runs];
    let score = |row: usize, scores: &mut Vec<f32>| {
        let row = weights[row * cols..][..cols].iter().map(|w| w.abs());
        scores.clear();
        match &norms {
            None => scores.extend(row),
            Some(norms) => scores.extend(row.zip(norms).map(|(w, norm)| w * norm)),
        }
    };
    if let Pattern::Blocks { size, .. } = pattern {
        for_each_chunk(&mut mask, size * runs, |line, bits| {
            let mut energies = vec![0.0f64; cols / size];
            let mut scores = Vec::new();
            for row in line * size..(line * size + size).min(rows) {
                score(row, &mut scores);
                for (energy, block) in energies.iter_mut().zip(scores.chunks(size)) {
                    *energy += block.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>();
                }
            }
            for block in largest(&energies, kept / size, false) {
                let columns = block * size..(block + 1) * size;
                bits.chunks_mut(runs).for_each(|bits| columns.clone().for_each(|col| set(bits, col)));
            }
        });
    } else {
        for_each_chunk(&mut mask, runs, |row, bits| {
            let mut scores = Vec::new();
            score(row, &mut scores);
            choose(pattern, kept, &scores, bits);
        });
    }
    Ok(Pruned { weights: Cow::Borrowed(weights), mask })
}

/// SparseGPT's share of the mean square on the second moment's diagonal.
const DAMPING: f64 = 0.01;
/// Columns of which SparseGPT chooses at a time.
const AT_A_TIME: usize = 128;
/// Rows that are worked on together.
const BAND: usize = 64;

fn sparse_gpt(hessian: &Hessian, pattern: Pattern, kept: usize, weights: &[f32], cols: usize) -> Pruned<'static> {
    let runs = cols.div_ceil(RUN);
    let mut weights = weights.to_vec();
    let mut mask = vec![0; weights.len() / cols.max(1) * runs];
    let group = if let Pattern::NofM { m, .. } = pattern { m } else { AT_A_TIME };
    let mut bands: Vec<_> =
        weights.chunks_mut((BAND * cols).max(1)).zip(mask.chunks_mut((BAND * runs).max(1))).collect();
    for_each_chunk(&mut bands, 1, |_, band| {
        for (weights, bits) in band {
            let mut chosen = Chosen { bits, runs, pattern, kept, cols, diagonal: hessian.diagonal() };
            hessian.replace(weights, group, &mut chosen);
        }
    });
    Pruned { weights: Cow::Owned(weights), mask }
}

/// What is kept of a band of rows so far.
struct Chosen<'a> {
    /// `[rows, runs]`
    bits: &'a mut [u32],
    runs: usize,
    pattern: Pattern,
    kept: usize,
    cols: usize,
    /// U_jj
    diagonal: &'a [f32],
}

impl Replace for Chosen<'_> {
    fn group(&mut self, group: Group) {
        let (start, end) = (group.first(), group.first() + group.len());
        let (kept, last) = match self.pattern {
            Pattern::NofM { n, .. } => (n, true),
            // The row's share, so that all groups together keep what they should.
            _ => (self.kept * end / self.cols - self.kept * start / self.cols, false),
        };
        for (row, bits) in group.rows().zip(self.bits.chunks_exact_mut(self.runs)) {
            let scores: Vec<f32> = row.iter().zip(&self.diagonal[start..end]).map(|(w, u)| (w / u).abs()).collect();
            largest(&scores, kept, last).into_iter().for_each(|i| set(bits, start + i));
        }
    }

    fn column(&mut self, at: usize, weights: &mut [f32]) {
        for (w, bits) in weights.iter_mut().zip(self.bits.chunks_exact(self.runs)) {
            if bits[at / RUN] >> (at % RUN) & 1 == 0 {
                *w = 0.0;
            }
        }
    }
}

/// Sets the bits of what is kept of a row.
fn choose(pattern: Pattern, kept: usize, scores: &[f32], bits: &mut [u32]) {
    match pattern {
        Pattern::NofM { n, m } => {
            for (group, scores) in scores.chunks_exact(m).enumerate() {
                // Of equals the later ones, as an ascending stable sort has it.
                largest(scores, n, true).into_iter().for_each(|i| set(bits, group * m + i));
            }
        }
        _ => largest(scores, kept, false).into_iter().for_each(|col| set(bits, col)),
    }
}

fn set(bits: &mut [u32], col: usize) {
    bits[col / RUN] |= 1 << (col % RUN);
}

/// Where the `count` largest are, in no order; of equals the first ones, or the last.
fn largest<T: PartialOrd + Copy>(scores: &[T], count: usize, last: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    if count < order.len() {
        let descending = |&a: &usize, &b: &usize| {
            let (low, high) = if last { (b, a) } else { (a, b) };
            // Scores are sums and products of finite magnitudes: no NaN but 0 · ∞, which is no larger than others.
            scores[b].partial_cmp(&scores[a]).unwrap_or(std::cmp::Ordering::Equal).then(low.cmp(&high))
        };
        if count > 0 {
            order.select_nth_unstable_by(count - 1, descending);
        }
        order.truncate(count);
    }
    order
}
