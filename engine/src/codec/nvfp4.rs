//! NVFP4: 64 weights, `w = e2m1(q)·s`, q a 4-bit float, s an unsigned E4M3 float for 16 weights. 4.5 bits a weight. Read only:
//! a useful encoder needs the per-tensor scale that the block format does not hold.

use super::bits::{join_nibbles, pack, split_nibbles, unpack};
use super::ggml::Block;
use super::mxfp4::E2M1_DOUBLED;
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Nvfp4;

/// Half of an unsigned E4M3 number (the codebook is doubled). As in ggml, 0x7f is zero and bit 7 is ignored in the others.
fn half_scale(x: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(x >> 3) & 15, f32::from(x & 7));
    match (x, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa * f32::from_bits((127 - 10) << 23),
        _ => (1.0 + mantissa / 8.0) * f32::from_bits((exponent + 127 - 8) << 23),
    }
}

fn read_codes(block: &[u8]) -> [u8; 64] {
    let mut q = [0; 64];
    for (bytes, q) in block[4..].chunks_exact(8).zip(q.chunks_exact_mut(16)) {
        split_nibbles(bytes, q);
    }
    q
}

impl Block for Nvfp4 {
    const TYPE: GgmlType = GgmlType::NVFP4;
    const NAME: &'static str = "nvfp4";
    const LEN: usize = 64;
    const BYTES: usize = 36;
    const CODE_WORDS: usize = 8;
    const HEAD_BYTES: usize = 4;

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        pack(4, &read_codes(block), codes);
        head.copy_from_slice(&block[..4]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; 64];
        unpack(4, codes, &mut q);
        for (bytes, q) in block[4..].chunks_exact_mut(8).zip(q.chunks_exact(16)) {
            join_nibbles(q, bytes);
        }
        block[..4].copy_from_slice(head);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let q = read_codes(block);
        for (e, w) in weights.iter_mut().enumerate() {
            *w = E2M1_DOUBLED[usize::from(q[e])] * half_scale(block[e / 16]);
        }
    }
}
