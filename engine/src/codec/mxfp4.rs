//! MXFP4 (OCP microscaling): 32 weights, `w = e2m1(q)·2^(e − 127)`, q a 4-bit float, e a byte. 4.25 bits a weight.
//!
//! As ggml does, the codebook is kept doubled (all integers) and the scale halved: `w = M[q]·2^(e − 128)`.

use super::bits::{join_nibbles, pack, split_nibbles, unpack};
use super::ggml::{Block, Encoder, largest};
use crate::format::GgmlType;

/// Twice the values of FP4 (E2M1); codes 8..16 are 0..8 with a minus.
pub(super) const E2M1_DOUBLED: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

#[derive(Debug)]
pub(super) struct Mxfp4;

/// 2^(e − 128), subnormal for e < 2.
fn scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

impl Block for Mxfp4 {
    const TYPE: GgmlType = GgmlType::MXFP4;
    const NAME: &'static str = "mxfp4";
    const LEN: usize = 32;
    const BYTES: usize = 17;
    const CODE_WORDS: usize = 4;
    const HEAD_BYTES: usize = 1;
    const ENCODE: Option<Encoder> = Some(encode);

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        let mut q = [0; 32];
        split_nibbles(&block[1..], &mut q);
        pack(4, &q, codes);
        head[0] = block[0];
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; 32];
        unpack(4, codes, &mut q);
        join_nibbles(&q, &mut block[1..]);
        block[0] = head[0];
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let d = scale(block[0]);
        let mut q = [0; 32];
        split_nibbles(&block[1..], &mut q);
        for (w, q) in weights.iter_mut().zip(q) {
            *w = E2M1_DOUBLED[usize::from(q)] * d;
        }
    }
}

/// The exponent of the largest weight is the codebook's largest exponent (2); codes are the nearest values, the first on ties.
fn encode(weights: &[f32], block: &mut [u8]) {
    let max = largest(weights).1.abs();
    let e = if max > 0.0 { (max.log2().floor() - 2.0 + 127.0) as u8 } else { 0 };
    let d = scale(e);
    let mut q = [0; 32];
    for (q, &w) in q.iter_mut().zip(weights) {
        let mut best = f32::INFINITY;
        for (code, m) in E2M1_DOUBLED.iter().enumerate() {
            let error = (m * d - w).abs();
            if error < best {
                (best, *q) = (error, code as u8);
            }
        }
    }
    block[0] = e;
    join_nibbles(&q, &mut block[1..]);
}
