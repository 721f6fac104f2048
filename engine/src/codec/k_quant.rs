//! What the K-quants of ggml share: superblocks of 256 weights whose sub-blocks have integer scales.
//!
//! Q2_K, Q4_K, Q5_K: `y = q·(d·scale) − dmin·min` ([`affine`]). Q3_K, Q6_K: `y = q·(d·scale)` ([`symmetric`]).
//! The encoders fit every sub-block on its own, quantize the scales, and then settle scales, mins and codes together,
//! because a sub-block can make up for the error of its rounded scale.

use super::bits::round_half;
use super::fit::{self, level, sum};

/// Weights in a superblock.
pub(super) const SUPERBLOCK: usize = 256;

/// Reads 16 six-bit values from 12 bytes of a head: pair r is byte r (low nibbles of both) and nibble r of the last four
/// bytes (their high two bits).
pub(super) fn six_bit_pairs(head: &[u8]) -> [[u8; 2]; 8] {
    std::array::from_fn(|r| {
        let (low, high) = (head[r], head[8 + r / 2] >> (4 * (r % 2)));
        [low & 15 | (high & 3) << 4, low >> 4 | (high & 12) << 2]
    })
}

/// Undoes [`six_bit_pairs`].
pub(super) fn put_six_bit_pairs(pairs: [[u8; 2]; 8], head: &mut [u8]) {
    head[..12].fill(0);
    for (r, [a, b]) in pairs.into_iter().enumerate() {
        head[r] = a & 15 | b << 4;
        head[8 + r / 2] |= (a >> 4 & 3 | (b >> 2) & 12) << (4 * (r % 2));
    }
}

/// A superblock `y = q·(d·scale) − dmin·min`.
pub(super) struct Affine {
    pub(super) d: f32,
    pub(super) dmin: f32,
    pub(super) scales: [u8; 16],
    pub(super) mins: [u8; 16],
    pub(super) codes: [u8; SUPERBLOCK],
}

/// Fits a superblock of sub-blocks of `LEN` weights, codes `0..=levels`, scales and mins `0..=scale_max`. The range of a
/// sub-block is first spread over `levels` levels and `fifths` of one more.
pub(super) fn affine<const LEN: usize>(
    weights: &[f32],
    levels: u8,
    scale_max: u8,
    fifths: std::ops::RangeInclusive<i32>,
) -> Affine {
    let (levels, scale_max) = (f32::from(levels), f32::from(scale_max));
    let blocks = || weights.as_chunks::<LEN>().0.iter().enumerate();
    let mut grids = [fit::Affine::default(); 16];
    for (k, x) in blocks() {
        grids[k] = fit::affine(
            x,
            levels,
            true,
            fifths.clone().flat_map(|i| [0.0, 1.0].map(|low| (levels + 0.2 * i as f32, low))),
        );
    }
    let max = |of: fn(&fit::Affine) -> f32| grids.iter().map(of).fold(0.0, f32::max);
    let mut d = round_half(max(|grid| grid.s) / scale_max);
    let mut dmin = round_half(max(|grid| -grid.m) / scale_max);

    let mut best = settle::<LEN>(weights, &grids, levels, scale_max, d, dmin);
    for _ in 0..2 {
        // Given integers, the best (d, dmin) solve a 2 x 2 system over a = scale·q and b = −min.
        let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0f64, 0.0, 0.0, 0.0, 0.0);
        for (k, x) in blocks() {
            let (scale, min) = (f64::from(best.0.scales[k]), f64::from(best.0.mins[k]));
            for (&x, &q) in x.iter().zip(&best.0.codes[k * LEN..]) {
                let (x, a, b) = (f64::from(x), scale * f64::from(q), -min);
                aa += a * a;
                ab += a * b;
                bb += b * b;
                ax += a * x;
                bx += b * x;
            }
        }
        let determinant = aa * bb - ab * ab;
        if determinant > 1e-9 * aa * bb {
            d = round_half(((bb * ax - ab * bx) / determinant) as f32);
            dmin = round_half(((aa * bx - ab * ax) / determinant) as f32);
        } else if aa > 0.0 {
            d = round_half((ax / aa) as f32);
        }
        if d < 0.0 || dmin < 0.0 {
            break;
        }
        let found = settle::<LEN>(weights, &grids, levels, scale_max, d, dmin);
        if found.1 >= best.1 {
            break;
        }
        best = found;
    }
    best.0
}

/// Integers for given d and dmin, sub-block by sub-block, and the squared error.
fn settle<const LEN: usize>(
    weights: &[f32],
    grids: &[fit::Affine; 16],
    levels: f32,
    scale_max: f32,
    d: f32,
    dmin: f32,
) -> (Affine, f32) {
    let mut out = Affine { d, dmin, scales: [0; 16], mins: [0; 16], codes: [0; SUPERBLOCK] };
    let inverse = |v: f32| if v > 0.0 { 1.0 / v } else { 0.0 };
    let mut total = 0.0;
    for (k, x) in weights.as_chunks::<LEN>().0.iter().enumerate() {
        let grid = grids[k];
        let mut best = f32::INFINITY;
        let near = level(grid.s * inverse(d), 0.0, scale_max);
        for scale in [near, near - 1.0, near + 1.0] {
            if scale < 0.0 || scale > scale_max {
                continue;
            }
            let step = d * scale;
            let mut min = level(-grid.m * inverse(dmin), 0.0, scale_max);
            for _ in 0..3 {
                let offset = dmin * min;
                let inverse_step = inverse(step);
                let code = |x: f32| level((x + offset) * inverse_step, 0.0, levels);
                let [error, rest] = sum(x, |x| {
                    let left = code(x) * step - x;
                    [(left - offset) * (left - offset), left]
                });
                if error < best {
                    best = error;
                    (out.scales[k], out.mins[k]) = (scale as u8, min as u8);
                    for (q, &x) in out.codes[k * LEN..].iter_mut().zip(x) {
                        *q = code(x) as u8;
                    }
                }
                // The best offset for these codes is the mean of what they leave.
                let better = level(rest / LEN as f32 * inverse(dmin), 0.0, scale_max);
                if better == min {
                    break;
                }
                min = better;
            }
        }
        total += best;
    }
    (out, total)
}

/// A superblock `y = q·(d·scale)` of 16 sub-blocks.
pub(super) struct Symmetric {
    pub(super) d: f32,
    pub(super) scales: [i8; 16],
    /// Codes less their lowest value: 0 stands for `lo`.
    pub(super) codes: [u8; SUPERBLOCK],
}

/// Fits a superblock with codes `lo..-lo` and scales `scale_lo..-scale_lo` (the ends of two's complement numbers).
pub(super) fn symmetric(weights: &[f32], lo: i8, scale_lo: i8) -> Symmetric {
    const LEN: usize = 16;
    let (lo, hi) = (f32::from(lo), f32::from(-lo - 1));
    let (scale_lo, scale_hi) = (f32::from(scale_lo), -f32::from(scale_lo) - 1.0);
    let blocks = || weights.as_chunks::<LEN>().0.iter().enumerate();
    let mut steps = [0.0f32; 16];
    for (k, x) in blocks() {
        steps[k] = fit::symmetric(x, lo, hi, (-9..=9).map(|i| lo + 0.1 * i as f32));
    }
    let extreme = steps.iter().fold(0.0f32, |best, &s| if s.abs() > best.abs() { s } else { best });

    let settle = |d: f32| {
        let mut out = Symmetric { d, scales: [0; 16], codes: [(-lo) as u8; SUPERBLOCK] };
        let inverse = |v: f32| if v == 0.0 { 0.0 } else { 1.0 / v };
        let mut total = 0.0;
        for (k, x) in blocks() {
            let mut best = f32::INFINITY;
            let near = level(steps[k] * inverse(d), scale_lo, scale_hi);
            for scale in [near, near - 1.0, near + 1.0] {
                if scale < scale_lo || scale > scale_hi {
                    continue;
                }
                let step = d * scale;
                let inverse_step = inverse(step);
                let code = |x: f32| level(x * inverse_step, lo, hi);
                let [error] = sum(x, |x| {
                    let left = code(x) * step - x;
                    [left * left]
                });
                if error < best {
                    best = error;
                    out.scales[k] = scale as i8;
                    for (q, &x) in out.codes[k * LEN..].iter_mut().zip(x) {
                        *q = (code(x) - lo) as u8;
                    }
                }
            }
            total += best;
        }
        (out, total)
    };
    let mut best = settle(round_half(extreme / scale_lo));
    for _ in 0..2 {
        let (mut aa, mut ax) = (0.0f64, 0.0f64);
        for (k, x) in blocks() {
            let scale = f64::from(best.0.scales[k]);
            for (&x, &q) in x.iter().zip(&best.0.codes[k * LEN..]) {
                let a = scale * (f64::from(q) + f64::from(lo));
                aa += a * a;
                ax += a * f64::from(x);
            }
        }
        if aa == 0.0 {
            break;
        }
        let found = settle(round_half((ax / aa) as f32));
        if found.1 >= best.1 {
            break;
        }
        best = found;
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_bit_pairs_round_trip() {
        let pairs: [[u8; 2]; 8] = std::array::from_fn(|r| [(r * 9 + 1) as u8 & 63, (r * 23 + 40) as u8 & 63]);
        let mut head = [0xff; 12];
        put_six_bit_pairs(pairs, &mut head);
        assert_eq!(six_bit_pairs(&head), pairs);
        assert_eq!(head[0], pairs[0][0] & 15 | pairs[0][1] << 4);
        assert_eq!(head[8] & 15, pairs[0][0] >> 4 | pairs[0][1] >> 4 << 2);
    }
}
