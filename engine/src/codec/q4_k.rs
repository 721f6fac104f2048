//! Q4_K of ggml: 256 weights, `w = q·(d·scale) − dmin·min`, q of 4 bits, 6-bit scale and min for 32 weights, d and dmin f16.
//! 4.5 bits a weight.

use super::bits::{half, join_nibbles, pack, put_half, split_nibbles, unpack};
use super::ggml::{Block, Encoder};
use super::k_quant::{self, SUPERBLOCK, put_six_bit_pairs, six_bit_pairs};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q4K;

/// Scale and min of each of the eight sub-blocks, from the 12 bytes of Q4_K and Q5_K: the first four of each take six bits of
/// a byte, the others a nibble and the two bits that are left above the first ones.
pub(super) fn read_levels(bytes: &[u8]) -> [[u8; 2]; 8] {
    std::array::from_fn(|k| match k {
        0..4 => [bytes[k] & 63, bytes[k + 4] & 63],
        _ => [bytes[k + 4] & 15 | bytes[k - 4] >> 6 << 4, bytes[k + 4] >> 4 | bytes[k] >> 6 << 4],
    })
}

/// Undoes [`read_levels`].
pub(super) fn write_levels(levels: [[u8; 2]; 8], bytes: &mut [u8]) {
    for k in 0..4 {
        let ([scale, min], [scale_above, min_above]) = (levels[k], levels[k + 4]);
        bytes[k] = scale & 63 | scale_above >> 4 << 6;
        bytes[k + 4] = min & 63 | min_above >> 4 << 6;
        bytes[k + 8] = scale_above & 15 | min_above << 4;
    }
}

/// Codes of four bits: 32 bytes hold two sub-blocks, the even one in the low nibbles.
pub(super) fn split_codes(bytes: &[u8], codes: &mut [u8; SUPERBLOCK]) {
    for (bytes, codes) in bytes.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
        split_nibbles(bytes, codes);
    }
}

/// Undoes [`split_codes`]; bits above the fourth are ignored.
pub(super) fn join_codes(codes: &[u8; SUPERBLOCK], bytes: &mut [u8]) {
    for (bytes, codes) in bytes.chunks_exact_mut(32).zip(codes.chunks_exact(64)) {
        join_nibbles(codes, bytes);
    }
}

/// The weights of Q4_K and Q5_K, which differ in their codes only.
pub(super) fn decode_codes(head: &[u8], codes: &[u8; SUPERBLOCK], weights: &mut [f32]) {
    let (d, dmin) = (half(head, 0), half(head, 2));
    let levels = read_levels(&head[4..16]);
    for (e, w) in weights.iter_mut().enumerate() {
        let [scale, min] = levels[e / 32].map(f32::from);
        *w = (d * scale) * f32::from(codes[e]) - dmin * min;
    }
}

/// Writes the first 16 bytes of a block of Q4_K or Q5_K.
pub(super) fn write_head(fit: &k_quant::Affine, block: &mut [u8]) {
    put_half(block, 0, fit.d);
    put_half(block, 2, fit.dmin);
    write_levels(std::array::from_fn(|k| [fit.scales[k], fit.mins[k]]), &mut block[4..16]);
}

/// The 16 bytes of a head, from the first 16 bytes of a block of Q4_K or Q5_K.
pub(super) fn split_head(block: &[u8], head: &mut [u8]) {
    put_six_bit_pairs(read_levels(&block[4..16]), head);
    head[12..].copy_from_slice(&block[..4]);
}

/// Undoes [`split_head`].
pub(super) fn join_head(head: &[u8], block: &mut [u8]) {
    write_levels(six_bit_pairs(head), &mut block[4..16]);
    block[..4].copy_from_slice(&head[12..]);
}

impl Block for Q4K {
    const TYPE: GgmlType = GgmlType::Q4K;
    const NAME: &'static str = "q4_k";
    const LEN: usize = SUPERBLOCK;
    const BYTES: usize = 144;
    const CODE_WORDS: usize = 32;
    const HEAD_BYTES: usize = 16;
    const SYMBOL_BITS: Option<usize> = Some(4);
    const ENCODE: Option<Encoder> = Some(encode);
    const FALLBACK: &'static str = "q5_0";

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        let mut q = [0; SUPERBLOCK];
        split_codes(&block[16..], &mut q);
        pack(4, &q, codes);
        split_head(block, head);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; SUPERBLOCK];
        unpack(4, codes, &mut q);
        join_codes(&q, &mut block[16..]);
        join_head(head, block);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let mut q = [0; SUPERBLOCK];
        split_codes(&block[16..], &mut q);
        decode_codes(block, &q, weights);
    }
}

fn encode(weights: &[f32], block: &mut [u8]) {
    let fit = k_quant::affine::<32>(weights, 15, 63, -5..=5);
    write_head(&fit, block);
    join_codes(&fit.codes, &mut block[16..]);
}
