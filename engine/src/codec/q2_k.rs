//! Q2_K of ggml: 256 weights, `w = q·(d·scale) − dmin·min`, q of 2 bits, 4-bit scale and min for 16 weights, d and dmin f16.
//! 2.625 bits a weight.

use super::bits::{half, join_bit_pairs, pack, put_half, split_bit_pairs, unpack};
use super::ggml::{Block, Encoder};
use super::k_quant::{self, SUPERBLOCK};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q2K;

impl Block for Q2K {
    const TYPE: GgmlType = GgmlType::Q2K;
    const NAME: &'static str = "q2_k";
    const LEN: usize = SUPERBLOCK;
    const BYTES: usize = 84;
    const CODE_WORDS: usize = 16;
    const HEAD_BYTES: usize = 20;
    const ENCODE: Option<Encoder> = Some(encode);
    const FALLBACK: &'static str = "iq4_nl";

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        let mut q = [0; SUPERBLOCK];
        split_bit_pairs(&block[16..80], &mut q);
        pack(2, &q, codes);
        head[..16].copy_from_slice(&block[..16]);
        head[16..].copy_from_slice(&block[80..]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; SUPERBLOCK];
        unpack(2, codes, &mut q);
        join_bit_pairs(&q, &mut block[16..80]);
        block[..16].copy_from_slice(&head[..16]);
        block[80..].copy_from_slice(&head[16..]);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let (d, dmin) = (half(block, 80), half(block, 82));
        let mut q = [0; SUPERBLOCK];
        split_bit_pairs(&block[16..80], &mut q);
        for (e, w) in weights.iter_mut().enumerate() {
            let levels = block[e / 16];
            *w = (d * f32::from(levels & 15)) * f32::from(q[e]) - dmin * f32::from(levels >> 4);
        }
    }
}

fn encode(weights: &[f32], block: &mut [u8]) {
    let fit = k_quant::affine::<16>(weights, 3, 15, -3..=5);
    for (byte, (scale, min)) in block.iter_mut().zip(fit.scales.iter().zip(fit.mins)) {
        *byte = scale | min << 4;
    }
    join_bit_pairs(&fit.codes, &mut block[16..80]);
    put_half(block, 80, fit.d);
    put_half(block, 82, fit.dmin);
}
