//! Q5_0 of ggml: 32 weights, `w = (q − 16)·d`, q of 5 bits, d an f16. 5.5 bits a weight.

use super::bits::{half, join_fifth_bits, join_nibbles, pack, put_half, split_fifth_bits, split_nibbles, unpack};
use super::ggml::{Block, Encoder, inverse, largest};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q5_0;

fn read_codes(block: &[u8]) -> [u8; 32] {
    let mut q = [0; 32];
    split_nibbles(&block[6..], &mut q);
    split_fifth_bits(&block[2..6], &mut q);
    q
}

fn write_codes(q: &[u8; 32], block: &mut [u8]) {
    join_nibbles(q, &mut block[6..]);
    join_fifth_bits(q, &mut block[2..6]);
}

impl Block for Q5_0 {
    const TYPE: GgmlType = GgmlType::Q5_0;
    const NAME: &'static str = "q5_0";
    const LEN: usize = 32;
    const BYTES: usize = 22;
    const CODE_WORDS: usize = 5;
    const HEAD_BYTES: usize = 2;
    const SYMBOL_BITS: Option<usize> = Some(5);
    const ENCODE: Option<Encoder> = Some(encode);

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        pack(5, &read_codes(block), codes);
        head.copy_from_slice(&block[..2]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; 32];
        unpack(5, codes, &mut q);
        write_codes(&q, block);
        block[..2].copy_from_slice(head);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let d = half(block, 0);
        for (w, q) in weights.iter_mut().zip(read_codes(block)) {
            *w = (f32::from(q) - 16.0) * d;
        }
    }
}

/// The largest weight, with its sign, gets code 0 (−16), the side of the grid that reaches further.
fn encode(weights: &[f32], block: &mut [u8]) {
    let (_, max) = largest(weights);
    let d = max / -16.0;
    let id = inverse(d);
    let mut q = [0; 32];
    for (q, &w) in q.iter_mut().zip(weights) {
        *q = ((w * id + 16.5) as u8).min(31);
    }
    put_half(block, 0, d);
    write_codes(&q, block);
}
