//! Q4_1 of ggml: 32 weights, `w = q·d + m`, q of 4 bits, d and m f16. 5 bits a weight.

use super::bits::{half, join_nibbles, pack, put_half, split_nibbles, unpack};
use super::ggml::{Block, Encoder, affine_codes};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q4_1;

impl Block for Q4_1 {
    const TYPE: GgmlType = GgmlType::Q4_1;
    const NAME: &'static str = "q4_1";
    const LEN: usize = 32;
    const BYTES: usize = 20;
    const CODE_WORDS: usize = 4;
    const HEAD_BYTES: usize = 4;
    const SYMBOL_BITS: Option<usize> = Some(4);
    const ENCODE: Option<Encoder> = Some(encode);

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        let mut q = [0; 32];
        split_nibbles(&block[4..], &mut q);
        pack(4, &q, codes);
        head.copy_from_slice(&block[..4]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; 32];
        unpack(4, codes, &mut q);
        join_nibbles(&q, &mut block[4..]);
        block[..4].copy_from_slice(head);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let (d, m) = (half(block, 0), half(block, 2));
        let mut q = [0; 32];
        split_nibbles(&block[4..], &mut q);
        for (w, q) in weights.iter_mut().zip(q) {
            *w = f32::from(q) * d + m;
        }
    }
}

/// The smallest weight gets code 0, the largest 15.
fn encode(weights: &[f32], block: &mut [u8]) {
    let mut q = [0; 32];
    let (d, m) = affine_codes(weights, 15, &mut q);
    put_half(block, 0, d);
    put_half(block, 2, m);
    join_nibbles(&q, &mut block[4..]);
}
