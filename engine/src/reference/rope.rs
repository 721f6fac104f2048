//! Twin of `attention/rope_append`.

use crate::ops::rope::{RopeStyle, RopeTable};

/// One head of one token: RMS norm with `norm = (weights, eps)` where there is one, then the rotation of position `pos`.
pub fn head(
    x: &[f32],
    norm: Option<(&[f32], f32)>,
    table: Option<&RopeTable>,
    style: RopeStyle,
    pos: usize,
) -> Vec<f64> {
    let mut y = match norm {
        Some((weights, eps)) => super::norm::rms(x, weights, None, eps),
        None => x.iter().map(|v| f64::from(*v)).collect(),
    };
    let Some(table) = table else { return y };
    for i in 0..table.pairs {
        let at = (pos * table.pairs + i) * 2;
        let (cos, sin) = (f64::from(table.values[at]), f64::from(table.values[at + 1]));
        let (a, b) = match style {
            RopeStyle::Half => (i, i + table.pairs),
            RopeStyle::Interleaved => (2 * i, 2 * i + 1),
            RopeStyle::None => return y,
        };
        (y[a], y[b]) = (y[a] * cos - y[b] * sin, y[a] * sin + y[b] * cos);
    }
    y
}
