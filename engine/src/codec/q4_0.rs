//! Q4_0 of ggml: 32 weights, `w = (q − 8)·d`, q of 4 bits, d an f16. 4.5 bits a weight.

use super::bits::{half, join_nibbles, pack, put_half, split_nibbles, unpack};
use super::ggml::{Block, Encoder, inverse, largest};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q4_0;

impl Block for Q4_0 {
    const TYPE: GgmlType = GgmlType::Q4_0;
    const NAME: &'static str = "q4_0";
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
            *w = (f32::from(q) - 8.0) * d;
        }
    }
}

/// The largest weight, with its sign, gets code 0 (−8), the side of the grid that reaches further.
fn encode(weights: &[f32], block: &mut [u8]) {
    let (_, max) = largest(weights);
    let d = max / -8.0;
    let id = inverse(d);
    let mut q = [0; 32];
    for (q, &w) in q.iter_mut().zip(weights) {
        *q = ((w * id + 8.5) as u8).min(15);
    }
    put_half(block, 0, d);
    join_nibbles(&q, &mut block[2..]);
}
