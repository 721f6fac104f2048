//! Which heads and channels a model can do without best.
//!
//! By magnitude: the energy Σ w² of all weights that would vanish with a part. By activation: the energy that the part writes to the residual
//! stream, E‖W_part z‖² = tr(W_part E[z zᵀ]_part W_partᵀ), z being what goes into the output projection or into the MLP's second product.
//!
//! A head is a KV head with its query heads. Heads of all layers compete with each other, by their share of their layer's sum; every layer keeps
//! one. Of channels every layer loses the same share.

use super::super::ModelError;
use super::layer::Layer;
use super::{Gates, LayerStatistics, Statistics, Work};
use crate::codec::Prune;
use crate::progress::{Monitor, Unit};

/// The gates of a model that is pruned.
pub(super) fn gates(
    work: &mut Work,
    options: &Prune,
    statistics: Option<&Statistics>,
    monitor: &Monitor,
) -> Result<Gates, ModelError> {
    let c = work.config.clone();
    let (kv_heads, group) = (c.kv_heads as usize, (c.heads / c.kv_heads) as usize);
    let stays = channels(c.intermediate, f64::from(options.ffn) / 100.0, options.align);
    if options.ffn > 0 && stays == c.intermediate {
        let (percent, all, align) = (options.ffn, c.intermediate, options.align);
        return Err(work.refuse(format!("{percent} % of {all} channels, in steps of {align}, is none: take more")));
    }
    let going = (f64::from(options.heads) / 100.0 * f64::from(c.layers * c.kv_heads)).round() as usize;
    if options.heads > 0 && going == 0 {
        let what = format!("{} % of {} KV heads is none: take more", options.heads, c.layers * c.kv_heads);
        return Err(work.refuse(what));
    }
    let mut gates = Gates::open(&c);
    // Of every KV head: its share of the layer, the layer, its number.
    let mut heads: Vec<(f64, usize, usize)> = Vec::new();
    for layer in 0..c.layers {
        monitor.step("ranking heads and channels", layer.into(), c.layers.into(), Unit::Layers)?;
        let matrices = work.read(layer)?;
        let at = layer as usize;
        let statistics = statistics.and_then(|s| s.layers.get(at));
        if options.ffn > 0 {
            let scores = channel_scores(&matrices, statistics);
            let keep = largest(&scores, stays as usize);
            gates.layers[at].ffn.fill(false);
            keep.into_iter().for_each(|channel| gates.layers[at].ffn[channel] = true);
        }
        if options.heads > 0 {
            let scores = head_scores(&matrices, c.head_dim as usize, kv_heads, statistics);
            let sum: f64 = scores.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            heads.extend(scores.into_iter().enumerate().map(|(head, score)| (score / sum, at, head)));
        }
    }
    heads.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut left = vec![kv_heads; c.layers as usize];
    let mut gone = 0;
    for (_, layer, head) in heads {
        if gone < going && left[layer] > 1 {
            gates.layers[layer].heads[head * group..(head + 1) * group].fill(false);
            left[layer] -= 1;
            gone += 1;
        }
    }
    Ok(gates)
}

/// Channels that stay when a share goes: the nearest multiple of `align`, at least one.
pub(super) fn channels(all: u32, share: f64, align: u32) -> u32 {
    let steps = (f64::from(all) * (1.0 - share) / f64::from(align)).round().max(1.0) as u32;
    (steps * align).min(all)
}

/// The numbers of the `count` largest scores, in order; of equal ones the first.
pub fn largest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// What each channel of the MLP is worth.
pub fn channel_scores(m: &Layer, statistics: Option<&LayerStatistics>) -> Vec<f64> {
    let written = m.down.col_energies();
    match statistics {
        Some(statistics) => {
            let squares = statistics.hidden.mean_squares();
            written.iter().zip(squares).map(|(w, square)| w * f64::from(square)).collect()
        }
        None => (0..written.len()).map(|i| written[i] + m.gate.row_energy(i) + m.up.row_energy(i)).collect(),
    }
}

/// What each KV head, of `dim` dimensions, is worth with its query heads.
pub fn head_scores(m: &Layer, dim: usize, kv_heads: usize, statistics: Option<&LayerStatistics>) -> Vec<f64> {
    let width = m.o.cols / kv_heads; // of the query heads of one KV head
    let score = |head: usize| match statistics {
        Some(statistics) => {
            let (moments, cols) = (statistics.attended.second_moment(), m.o.cols);
            let range = head * width..(head + 1) * width;
            m.o.data
                .chunks_exact(cols)
                .map(|row| {
                    let row = &row[range.clone()];
                    let moved = |i: usize| -> f64 {
                        let moments = &moments[i * cols..][range.clone()];
                        moments.iter().zip(row).map(|(m, w)| f64::from(*m) * f64::from(*w)).sum()
                    };
                    row.iter().zip(range.clone()).map(|(w, i)| f64::from(*w) * moved(i)).sum::<f64>()
                })
                .sum()
        }
        None => {
            let written: f64 = m.o.col_energies()[head * width..(head + 1) * width].iter().sum();
            let queries: f64 = (head * width..(head + 1) * width).map(|row| m.q.row_energy(row)).sum();
            let kv = |row| m.k.row_energy(row) + m.v.row_energy(row);
            written + queries + (head * dim..(head + 1) * dim).map(kv).sum::<f64>()
        }
    };
    (0..kv_heads).map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_stay_in_steps() {
        assert_eq!(channels(768, 0.25, 32), 576);
        assert_eq!(channels(1536, 0.3, 256), 1024);
        assert_eq!(channels(768, 0.01, 32), 768);
        assert_eq!(channels(64, 0.9, 32), 32);
        assert_eq!(channels(24, 0.5, 32), 24);
    }

    #[test]
    fn the_largest_are_in_order() {
        assert_eq!(largest(&[1.0, 3.0, 2.0, 3.0, 0.5], 3), [1, 2, 3]);
        assert_eq!(largest(&[1.0, 1.0, 1.0], 2), [0, 1]);
    }
}
