//! TQ1_0 of ggml: 256 ternary weights, `w = (t − 1)·d`, five base-3 digits t in a byte, d an f16. 1.6875 bits a weight.
//!
//! Digit n of byte b is `((b·3ⁿ mod 256)·3) >> 8`. The codes' plane keeps the 52 bytes as they are (13 words): other
//! layouts would lose the bytes that no encoder writes.

use super::bits::{half, put_half};
use super::ggml::{Block, Encoder, inverse, largest};
use crate::format::GgmlType;

#[derive(Debug)]
pub(super) struct Tq1_0;

/// Which byte holds weight `e`, and as which digit: 32 bytes of five digits, 16 bytes of five, 4 bytes of four.
fn place(e: usize) -> (usize, u32) {
    match e {
        0..160 => (e % 32, e as u32 / 32),
        160..240 => (32 + (e - 160) % 16, (e as u32 - 160) / 16),
        _ => (48 + (e - 240) % 4, (e as u32 - 240) / 4),
    }
}

impl Block for Tq1_0 {
    const TYPE: GgmlType = GgmlType::TQ1_0;
    const NAME: &'static str = "tq1_0";
    const LEN: usize = 256;
    const BYTES: usize = 54;
    const CODE_WORDS: usize = 13;
    const HEAD_BYTES: usize = 2;
    const ENCODE: Option<Encoder> = Some(encode);
    const FALLBACK: &'static str = "q4_0";

    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]) {
        bytemuck::cast_slice_mut(codes).copy_from_slice(&block[..52]);
        head.copy_from_slice(&block[52..]);
    }

    fn join(codes: &[u32], head: &[u8], block: &mut [u8]) {
        block[..52].copy_from_slice(bytemuck::cast_slice(codes));
        block[52..].copy_from_slice(head);
    }

    fn decode(block: &[u8], weights: &mut [f32]) {
        let d = half(block, 52);
        for (e, w) in weights.iter_mut().enumerate() {
            let (byte, digit) = place(e);
            let shifted = block[byte].wrapping_mul(3u8.pow(digit));
            *w = (f32::from(((u16::from(shifted) * 3) >> 8) as u8) - 1.0) * d;
        }
    }
}

/// Nearest of −1, 0, 1 in units of the largest magnitude, as codes 0, 1, 2. Returns that magnitude.
pub(super) fn ternary_codes(weights: &[f32], codes: &mut [u8; 256]) -> f32 {
    let d = largest(weights).1.abs();
    let id = inverse(d);
    for (q, w) in codes.iter_mut().zip(weights) {
        *q = ((w * id).round() as i8 + 1) as u8;
    }
    d
}

fn encode(weights: &[f32], block: &mut [u8]) {
    let mut q = [0; 256];
    let d = ternary_codes(weights, &mut q);
    // The digits of a byte as a number in base 3, the first one most significant; the last bytes' fifth digit stays 0.
    let mut number = [0u16; 52];
    for (e, q) in q.iter().enumerate() {
        let (byte, digit) = place(e);
        number[byte] += u16::from(*q) * 3u16.pow(4 - digit);
    }
    for (byte, number) in block.iter_mut().zip(number) {
        *byte = (number * 256).div_ceil(243) as u8;
    }
    put_half(block, 52, d);
}
