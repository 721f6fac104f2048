//! IQ4_NL of ggml: 32 weights, `w = value[q]·d`, q an index into 16 fixed values, d an f16. 4.5 bits a weight.

use super::bits::{half, join_nibbles, pack, put_half, round_half, split_nibbles, unpack};
use super::fit::{level, sum};
use super::ggml::{Block, Encoder, inverse, largest};
use crate::format::GgmlType;

/// The values of IQ4_NL and IQ4_XS: denser around zero, where most weights are.
pub(super) const VALUES: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

#[derive(Debug)]
pub(super) struct Iq4Nl;

impl Block for Iq4Nl {
    const TYPE: GgmlType = GgmlType::IQ4NL;
    const NAME: &'static str = "iq4_nl";
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const CODE_WORDS: usize = 4;
    const HEAD_BYTES: usize = 2;
    const SYMBOL_BITS: Option<usize> = Some(4);
    const ENCODE: Option<Encoder> = Some(encode);

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        let mut q = [0; 32];
        split_nibbles(&block[2..], &mut q);
        pack(4, &q, codes);
        head.copy_from_slice(&block[..2]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; 32];
        unpack(4, codes, &mut q);
        join_nibbles(&q, &mut block[2..]);
        block[..2].copy_from_slice(head);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let d = half(block, 0);
        let mut q = [0; 32];
        split_nibbles(&block[2..], &mut q);
        for (w, q) in weights.iter_mut().zip(q) {
            *w = VALUES[usize::from(q)] * d;
        }
    }
}

/// The midpoints between neighbouring values.
const MIDPOINTS: [f32; 15] = {
    let mut midpoints = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        midpoints[i] = (VALUES[i] + VALUES[i + 1]) / 2.0;
        i += 1;
    }
    midpoints
};

/// Index of the value nearest to `v`: the number of midpoints below it, counted without branches.
#[inline]
fn nearest_value(v: f32) -> u8 {
    MIDPOINTS.iter().map(|&midpoint| u8::from(v > midpoint)).sum()
}

/// The value nearest to each integer from −128 to 127.
const NEAREST: [f32; 256] = {
    let mut nearest = [0.0; 256];
    let (mut i, mut q) = (0, 0);
    while i < 256 {
        while q < 15 && i as f32 - 128.0 > MIDPOINTS[q] {
            q += 1;
        }
        nearest[i] = VALUES[q];
        i += 1;
    }
    nearest
};

/// The step that fits 32 weights best, found by trying steps that place the largest weight around either end of the values,
/// each followed by the closed form for the values chosen.
fn fit(weights: &[f32]) -> f32 {
    let (_, max) = largest(weights);
    let (mut gain, mut step) = (0.0, 0.0);
    if inverse(max) == 0.0 {
        return step;
    }
    for end in [VALUES[0], VALUES[15]] {
        for i in -7..=7 {
            let inverse = (end + 3.0 * i as f32) / max;
            let [xv, vv] = sum(weights, |w| {
                // Near enough for a search; the codes that are written are exact.
                let v = NEAREST[(level(w * inverse, -128.0, 127.0) + 128.0) as u8 as usize];
                [w * v, v * v]
            });
            let found = xv * (xv / vv);
            if found > gain {
                (gain, step) = (found, xv / vv);
            }
        }
    }
    step
}

fn encode(weights: &[f32], block: &mut [u8]) {
    let d = round_half(fit(weights));
    let id = inverse(d);
    let mut q = [0; 32];
    for (q, &w) in q.iter_mut().zip(weights) {
        *q = nearest_value(w * id);
    }
    put_half(block, 0, d);
    join_nibbles(&q, &mut block[2..]);
}
