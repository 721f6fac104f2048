//! Q3_K of ggml: 256 weights, `w = (q − 4)·(d·(scale − 32))`, q of 3 bits, a 6-bit scale for 16 weights, d an f16.
//! 3.4375 bits a weight.

use super::bits::{half, join_bit_pairs, pack, put_half, split_bit_pairs, unpack};
use super::ggml::{Block, Encoder};
use super::k_quant::{self, SUPERBLOCK, put_six_bit_pairs, six_bit_pairs};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q3K;

fn read_codes(block: &[u8]) -> [u8; SUPERBLOCK] {
    let mut q = [0; SUPERBLOCK];
    split_bit_pairs(&block[32..96], &mut q);
    for (e, q) in q.iter_mut().enumerate() {
        *q |= (block[e % 32] >> (e / 32) & 1) << 2;
    }
    q
}

fn write_codes(q: &[u8; SUPERBLOCK], block: &mut [u8]) {
    join_bit_pairs(q, &mut block[32..96]);
    block[..32].fill(0);
    for (e, q) in q.iter().enumerate() {
        block[e % 32] |= (q >> 2 & 1) << (e / 32);
    }
}

/// The 16 six-bit scales: low nibbles in 8 bytes (k and k + 8 share one), high bits in four (k, k + 4, … share one).
fn read_scales(bytes: &[u8]) -> [u8; 16] {
    std::array::from_fn(|k| (bytes[k % 8] >> (k / 8 * 4) & 15) | (bytes[8 + k % 4] >> (k / 4 * 2) & 3) << 4)
}

fn write_scales(scales: [u8; 16], bytes: &mut [u8]) {
    bytes.fill(0);
    for (k, scale) in scales.into_iter().enumerate() {
        bytes[k % 8] |= (scale & 15) << (k / 8 * 4);
        bytes[8 + k % 4] |= (scale >> 4) << (k / 4 * 2);
    }
}

impl Block for Q3K {
    const TYPE: GgmlType = GgmlType::Q3K;
    const NAME: &'static str = "q3_k";
    const LEN: usize = SUPERBLOCK;
    const BYTES: usize = 110;
    const CODE_WORDS: usize = 24;
    const HEAD_BYTES: usize = 16;
    const ENCODE: Option<Encoder> = Some(encode);
    const FALLBACK: &'static str = "iq4_nl";

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        pack(3, &read_codes(block), codes);
        let scales = read_scales(&block[96..108]);
        put_six_bit_pairs(std::array::from_fn(|r| [scales[2 * r], scales[2 * r + 1]]), head);
        head[12..14].copy_from_slice(&block[108..]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; SUPERBLOCK];
        unpack(3, codes, &mut q);
        write_codes(&q, block);
        let pairs = six_bit_pairs(head);
        write_scales(std::array::from_fn(|k| pairs[k / 2][k % 2]), &mut block[96..108]);
        block[108..].copy_from_slice(&head[12..14]);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let d = half(block, 108);
        let q = read_codes(block);
        let scales = read_scales(&block[96..108]);
        for (e, w) in weights.iter_mut().enumerate() {
            *w = (d * (f32::from(scales[e / 16]) - 32.0)) * (f32::from(q[e]) - 4.0);
        }
    }
}

fn encode(weights: &[f32], block: &mut [u8]) {
    let fit = k_quant::symmetric(weights, -4, -32);
    write_codes(&fit.codes, block);
    write_scales(fit.scales.map(|scale| (scale + 32) as u8), &mut block[96..108]);
    put_half(block, 108, fit.d);
}
