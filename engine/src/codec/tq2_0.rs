//! TQ2_0 of ggml: 256 ternary weights, `w = (q − 1)·d`, q of 2 bits, d an f16. 2.0625 bits a weight.

use super::bits::{half, join_bit_pairs, pack, put_half, split_bit_pairs, unpack};
use super::ggml::{Block, Encoder};
use super::tq1_0::ternary_codes;
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Tq2_0;

impl Block for Tq2_0 {
    const TYPE: GgmlType = GgmlType::TQ2_0;
    const NAME: &'static str = "tq2_0";
    const LEN: usize = 256;
    const BYTES: usize = 66;
    const CODE_WORDS: usize = 16;
    const HEAD_BYTES: usize = 2;
    const ENCODE: Option<Encoder> = Some(encode);
    const FALLBACK: &'static str = "q4_0";

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        let mut q = [0; 256];
        split_bit_pairs(&block[..64], &mut q);
        pack(2, &q, codes);
        head.copy_from_slice(&block[64..]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; 256];
        unpack(2, codes, &mut q);
        join_bit_pairs(&q, &mut block[..64]);
        block[64..].copy_from_slice(head);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let d = half(block, 64);
        let mut q = [0; 256];
        split_bit_pairs(&block[..64], &mut q);
        for (w, q) in weights.iter_mut().zip(q) {
            *w = (f32::from(q) - 1.0) * d;
        }
    }
}

fn encode(weights: &[f32], block: &mut [u8]) {
    let mut q = [0; 256];
    let d = ternary_codes(weights, &mut q);
    join_bit_pairs(&q, &mut block[..64]);
    put_half(block, 64, d);
}
