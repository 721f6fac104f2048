//! Q6_K of ggml: 256 weights, `w = (q − 32)·(d·scale)`, q of 6 bits, a signed 8-bit scale for 16 weights, d an f16.
//! 6.5625 bits a weight.

use super::bits::{half, join_bit_pairs, pack, put_half, split_bit_pairs, unpack};
use super::ggml::{Block, Encoder};
use super::k_quant::{self, SUPERBLOCK};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q6K;

/// Byte and shift of the low four bits of weight `e`: 64 bytes hold 128 weights, the first 64 in the low nibbles.
fn low_nibble(e: usize) -> (usize, usize) {
    (e / 128 * 64 + e % 64, e % 128 / 64 * 4)
}

fn read_codes(block: &[u8]) -> [u8; SUPERBLOCK] {
    let mut q = [0; SUPERBLOCK];
    split_bit_pairs(&block[128..192], &mut q);
    for (e, q) in q.iter_mut().enumerate() {
        let (byte, shift) = low_nibble(e);
        *q = block[byte] >> shift & 15 | *q << 4;
    }
    q
}

fn write_codes(q: &[u8; SUPERBLOCK], block: &mut [u8]) {
    block[..128].fill(0);
    for (e, q) in q.iter().enumerate() {
        let (byte, shift) = low_nibble(e);
        block[byte] |= (q & 15) << shift;
    }
    join_bit_pairs(&q.map(|q| q >> 4), &mut block[128..192]);
}

impl Block for Q6K {
    const TYPE: GgmlType = GgmlType::Q6K;
    const NAME: &'static str = "q6_k";
    const LEN: usize = SUPERBLOCK;
    const BYTES: usize = 210;
    const CODE_WORDS: usize = 48;
    const HEAD_BYTES: usize = 20;
    const SYMBOL_BITS: Option<usize> = Some(6);
    const ENCODE: Option<Encoder> = Some(encode);
    const FALLBACK: &'static str = "q8_0";

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        pack(6, &read_codes(block), codes);
        head[..18].copy_from_slice(&block[192..]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; SUPERBLOCK];
        unpack(6, codes, &mut q);
        write_codes(&q, block);
        block[192..].copy_from_slice(&head[..18]);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let d = half(block, 208);
        let q = read_codes(block);
        for (e, w) in weights.iter_mut().enumerate() {
            let scale = f32::from(block[192 + e / 16] as i8);
            *w = (d * scale) * (f32::from(q[e]) - 32.0);
        }
    }
}

fn encode(weights: &[f32], block: &mut [u8]) {
    let fit = k_quant::symmetric(weights, -32, -128);
    write_codes(&fit.codes, block);
    for (byte, scale) in block[192..208].iter_mut().zip(fit.scales) {
        *byte = scale as u8;
    }
    put_half(block, 208, fit.d);
}
