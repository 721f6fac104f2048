//! Q8_0 of ggml: 32 weights, `w = q·d`, q a signed byte, d an f16. 8.5 bits a weight.

use super::bits::{half, pack, put_half, unpack};
use super::ggml::{Block, Encoder, inverse, largest};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Q8_0;

impl Block for Q8_0 {
    const TYPE: GgmlType = GgmlType::Q8_0;
    const NAME: &'static str = "q8_0";
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const CODE_WORDS: usize = 8;
    const HEAD_BYTES: usize = 2;
    const SYMBOL_BITS: Option<usize> = Some(8);
    const ENCODE: Option<Encoder> = Some(encode);

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        pack(8, &block[2..], codes);
        head.copy_from_slice(&block[..2]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        unpack(8, codes, &mut block[2..]);
        block[..2].copy_from_slice(head);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let d = half(block, 0);
        for (w, &q) in weights.iter_mut().zip(&block[2..]) {
            *w = f32::from(q as i8) * d;
        }
    }
}

fn encode(weights: &[f32], block: &mut [u8]) {
    let d = largest(weights).1.abs() / 127.0;
    let id = inverse(d);
    put_half(block, 0, d);
    for (q, &w) in block[2..].iter_mut().zip(weights) {
        *q = (w * id).round() as i8 as u8;
    }
}
