//! Q5_K of ggml: as Q4_K, with codes of 5 bits. 5.5 bits a weight.

use super::bits::{pack, unpack};
use super::ggml::{Block, Encoder};
use super::k_quant::{self, SUPERBLOCK};
use super::q4_k::{decode_codes, join_codes, join_head, split_codes, split_head, write_head};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q5K;

/// Bit k of byte l of the 32 bytes of fifth bits belongs to weight l of sub-block k.
fn read_codes(block: &[u8]) -> [u8; SUPERBLOCK] {
    let mut q = [0; SUPERBLOCK];
    split_codes(&block[48..], &mut q);
    for (e, q) in q.iter_mut().enumerate() {
        *q |= (block[16 + e % 32] >> (e / 32) & 1) << 4;
    }
    q
}

fn write_codes(q: &[u8; SUPERBLOCK], block: &mut [u8]) {
    join_codes(q, &mut block[48..]);
    block[16..48].fill(0);
    for (e, q) in q.iter().enumerate() {
        block[16 + e % 32] |= (q >> 4 & 1) << (e / 32);
    }
}

impl Block for Q5K {
    const TYPE: GgmlType = GgmlType::Q5K;
    const NAME: &'static str = "q5_k";
    const LEN: usize = SUPERBLOCK;
    const BYTES: usize = 176;
    const CODE_WORDS: usize = 40;
    const HEAD_BYTES: usize = 16;
    const SYMBOL_BITS: Option<usize> = Some(5);
    const ENCODE: Option<Encoder> = Some(encode);
    const FALLBACK: &'static str = "q5_1";

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        pack(5, &read_codes(block), codes);
        split_head(block, head);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; SUPERBLOCK];
        unpack(5, codes, &mut q);
        write_codes(&q, block);
        join_head(head, block);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        decode_codes(block, &read_codes(block), weights);
    }
}

fn encode(weights: &[f32], block: &mut [u8]) {
    let fit = k_quant::affine::<32>(weights, 31, 63, -3..=5);
    write_head(&fit, block);
    write_codes(&fit.codes, block);
}
