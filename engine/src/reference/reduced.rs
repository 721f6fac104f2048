//! Twins of `attention/reduced_append` and `attention/compact`.

use crate::ops::rope::{RopeStyle, RopeTable};

/// One head of one token whose kept pairs of dimensions were `pairs` of the whole head: RMS norm with `norm = (weights, eps)` where there is
/// one, the rotation of position `pos` by the angles of those pairs, the two of a pair side by side, zeros up to `head_dim`.
pub fn head(
    x: &[f32],
    norm: Option<(&[f32], f32)>,
    table: &RopeTable,
    pairs: &[u32],
    style: RopeStyle,
    pos: usize,
    head_dim: usize,
) -> Vec<f64> {
    let x = match norm {
        Some((weights, eps)) => super::norm::rms(x, weights, None, eps),
        None => x.iter().map(|v| f64::from(*v)).collect(),
    };
    let mut y = Vec::new();
    for j in 0..x.len() / 2 {
        let Some(&pair) = pairs.get(j) else {
            y.extend([x[2 * j], x[2 * j + 1]]);
            continue;
        };
        let (a, b) = if style == RopeStyle::Half { (x[j], x[j + pairs.len()]) } else { (x[2 * j], x[2 * j + 1]) };
        let at = (pos * table.pairs + pair as usize) * 2;
        let (cos, sin) = (f64::from(table.values[at]), f64::from(table.values[at + 1]));
        y.extend([a * cos - b * sin, a * sin + b * cos]);
    }
    y.resize(head_dim, 0.0);
    y
}

/// The first `v_dim` of every `head_dim` numbers, then zeros up to `cols`: one token.
pub fn compact(x: &[f32], head_dim: usize, v_dim: usize, cols: usize) -> Vec<f64> {
    let mut y: Vec<f64> = x.chunks_exact(head_dim).flat_map(|head| &head[..v_dim]).map(|v| f64::from(*v)).collect();
    y.resize(cols, 0.0);
    y
}
