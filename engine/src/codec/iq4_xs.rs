//! IQ4_XS of ggml: 256 weights, `w = value[q]·(d·(scale − 32))`, values as in IQ4_NL, a 6-bit scale for 32 weights, d an f16.
//! 4.25 bits a weight. Read only.
//!
//! The head is 8 bytes: the low nibbles of the scales, their high bits, d.

use super::bits::{half, join_nibbles, pack, split_nibbles, unpack};
use super::ggml::Block;
use super::iq4_nl::VALUES;
use super::k_quant::SUPERBLOCK;
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Iq4Xs;

fn read_codes(block: &[u8]) -> [u8; SUPERBLOCK] {
    let mut q = [0; SUPERBLOCK];
    for (bytes, q) in block[8..].chunks_exact(16).zip(q.chunks_exact_mut(32)) {
        split_nibbles(bytes, q);
    }
    q
}

impl Block for Iq4Xs {
    const TYPE: GgmlType = GgmlType::IQ4XS;
    const NAME: &'static str = "iq4_xs";
    const LEN: usize = SUPERBLOCK;
    const BYTES: usize = 136;
    const CODE_WORDS: usize = 32;
    const HEAD_BYTES: usize = 8;
    const FALLBACK: &'static str = "iq4_nl";

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        pack(4, &read_codes(block), codes);
        head[..4].copy_from_slice(&block[4..8]);
        head[4..6].copy_from_slice(&block[2..4]);
        head[6..].copy_from_slice(&block[..2]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; SUPERBLOCK];
        unpack(4, codes, &mut q);
        for (bytes, q) in block[8..].chunks_exact_mut(16).zip(q.chunks_exact(32)) {
            join_nibbles(q, bytes);
        }
        block[4..8].copy_from_slice(&head[..4]);
        block[2..4].copy_from_slice(&head[4..6]);
        block[..2].copy_from_slice(&head[6..]);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let d = half(block, 0);
        let high = u16::from_le_bytes([block[2], block[3]]);
        let q = read_codes(block);
        for (e, w) in weights.iter_mut().enumerate() {
            let b = e / 32;
            let scale = block[4 + b / 2] >> (b % 2 * 4) & 15 | ((high >> (2 * b) & 3) as u8) << 4;
            *w = (d * (f32::from(scale) - 32.0)) * VALUES[usize::from(q[e])];
        }
    }
}
