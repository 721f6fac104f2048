//! Q1_0 of ggml: 128 weights, `w = ±d`, d an f16. 1.125 bits a weight. Read only.

use super::bits::{half, pack, unpack};
use super::ggml::Block;
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q1_0;

fn read_codes(block: &[u8]) -> [u8; 128] {
    std::array::from_fn(|e| block[2 + e / 8] >> (e % 8) & 1)
}

impl Block for Q1_0 {
    const TYPE: GgmlType = GgmlType::Q1_0;
    const NAME: &'static str = "q1_0";
    const LEN: usize = 128;
    const BYTES: usize = 18;
    const CODE_WORDS: usize = 4;
    const HEAD_BYTES: usize = 2;

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        pack(1, &read_codes(block), codes);
        head.copy_from_slice(&block[..2]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        let mut q = [0; 128];
        unpack(1, codes, &mut q);
        block[2..].fill(0);
        for (e, q) in q.iter().enumerate() {
            block[2 + e / 8] |= q << (e % 8);
        }
        block[..2].copy_from_slice(head);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let d = half(block, 0);
        for (w, q) in weights.iter_mut().zip(read_codes(block)) {
            *w = if q == 1 { d } else { -d };
        }
    }
}
