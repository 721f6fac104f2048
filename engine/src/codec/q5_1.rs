//! Q5_1 of ggml: 32 weights, `w = q·d + m`, q of 5 bits, d and m f16. 6 bits a weight.

use super::bits::{half, join_fifth_bits, join_nibbles, pack, put_half, split_fifth_bits, split_nibbles, unpack};
use super::ggml::{Block, Encoder, affine_codes};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q5_1;

fn read_codes(block: &[u8]) -> [u8; 32] {
    let mut q = [0; 32];
    split_nibbles(&block[8..], &mut q);
    split_fifth_bits(&block[4..8], &mut q);
    q
}

fn write_codes(q: &[u8; 32], block: &mut [u8]) {
    join_nibbles(q, &mut block[8..]);
    join_fifth_bits(q, &mut block[4..8]);
}

impl Block for Q5_1 {
    const TYPE: GgmlType = GgmlType::Q5_1;
    const NAME: &'static str = "q5_1";
    const LEN: usize = 32;
    const BYTES: usize = 24;
    const CODE_WORDS: usize = 5;
    const HEAD_BYTES: usize = 4;
    const SYMBOL_BITS: Option<usize> = Some(5);
    const ENCODE: Option<Encoder> = Some(encode);

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        pack(5, &read_codes(block), codes);
        head.copy_from_slice(&block[..4]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; 32];
        unpack(5, codes, &mut q);
        write_codes(&q, block);
        block[..4].copy_from_slice(head);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let (d, m) = (half(block, 0), half(block, 2));
        for (w, q) in weights.iter_mut().zip(read_codes(block)) {
            *w = f32::from(q) * d + m;
        }
    }
}

/// The smallest weight gets code 0, the largest 31.
fn encode(weights: &[f32], block: &mut [u8]) {
    let mut q = [0; 32];
    let (d, m) = affine_codes(weights, 31, &mut q);
    put_half(block, 0, d);
    put_half(block, 2, m);
    write_codes(&q, block);
}
