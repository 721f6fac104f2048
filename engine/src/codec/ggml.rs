//! What all block types of ggml have in common: a row is a sequence of blocks of fixed length and size.
//!
//! A type's file says how its blocks are decoded and encoded, and how their bytes are laid out in two planes: codes
//! (bit-sliced, see [`super::bits`]) and heads (scales). Nothing is lost on the way, so exporting gives the file's
//! bytes back, and decoding a packed matrix is decoding those bytes.

use std::marker::PhantomData;
use std::sync::Arc;

use super::dense::Dense;
use super::rows::{check_weights, for_each_chunk, for_each_row};
use super::{Codec, CodecError, CodecRef, Packed, Plane, PlaneLayout, Symbols, parse};
use crate::format::{Dtype, GgmlType};

/// One block type of ggml.
pub(super) trait Block: std::fmt::Debug + Send + Sync + 'static {
    const TYPE: GgmlType;
    /// ggml's name in lower case: the recipe spelling, and the WGSL module's name.
    const NAME: &'static str;
    /// Weights in a block.
    const LEN: usize;
    /// Bytes of a block in a file.
    const BYTES: usize;
    /// Words a block takes in the plane of codes.
    const CODE_WORDS: usize;
    /// Bytes a block takes in the plane of heads: 1, 2, or a multiple of 4. Rows are padded to words.
    const HEAD_BYTES: usize;

    /// Bits of the codes, where the plane of codes is those bit-sliced and nothing else, and the WGSL module can do without it.
    const SYMBOL_BITS: Option<usize> = None;

    /// Lays a block's bytes out in its part of the planes.
    fn split(block: &[u8], codes: &mut [u32], head: &mut [u8]);

    /// Undoes [`Block::split`] for any bytes.
    fn join(codes: &[u32], head: &[u8], block: &mut [u8]);

    /// The weights of a block of a file.
    fn decode(block: &[u8], weights: &mut [f32]);

    /// Writes the block that stands for weights, all finite, over zeros; `None` for types that are only read.
    const ENCODE: Option<Encoder> = None;
    /// Spelling of the codec for rows that are no multiple of `LEN`, as llama.cpp chooses it; `f16` where it has none.
    const FALLBACK: &'static str = "f16";
}

/// Turns `LEN` weights into the `BYTES` of a block.
pub(super) type Encoder = fn(weights: &[f32], block: &mut [u8]);

/// The codec of a block type.
#[derive(Debug)]
pub(super) struct Ggml<B>(PhantomData<B>);

impl<B: Block> Ggml<B> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }

    /// Planes of zeros for `rows` rows.
    fn planes(&self, rows: usize, cols: usize) -> [Plane; 2] {
        let blocks = cols / B::LEN;
        let words = [blocks * B::CODE_WORDS, (blocks * B::HEAD_BYTES).div_ceil(4)];
        words.map(|words| Plane::zeroed(PlaneLayout::per_row(words), rows))
    }

    fn packed(&self, rows: usize, cols: usize, planes: [Plane; 2]) -> Packed {
        Packed { codec: Arc::new(Self::new()), rows, cols, planes: planes.into() }
    }
}

fn split_row<B: Block>(bytes: &[u8], codes: &mut [u32], heads: &mut [u32]) {
    let heads: &mut [u8] = bytemuck::cast_slice_mut(heads);
    let places = codes.chunks_exact_mut(B::CODE_WORDS).zip(heads.chunks_exact_mut(B::HEAD_BYTES));
    for (block, (codes, head)) in bytes.chunks_exact(B::BYTES).zip(places) {
        B::split(block, codes, head);
    }
}

/// The `i`-th block of a row as a file holds it.
fn join_block<B: Block>(packed: &Packed, row: usize, i: usize, block: &mut [u8]) {
    let [codes, heads] = [&packed.planes[0], &packed.planes[1]]
        .map(|plane| &plane.data[row * plane.row_words as usize..][..plane.row_words as usize]);
    let heads: &[u8] = bytemuck::cast_slice(heads);
    B::join(&codes[i * B::CODE_WORDS..][..B::CODE_WORDS], &heads[i * B::HEAD_BYTES..][..B::HEAD_BYTES], block);
}

impl<B: Block> Codec for Ggml<B> {
    fn name(&self) -> String {
        B::NAME.into()
    }

    fn module(&self) -> &'static str {
        B::NAME
    }

    fn block_len(&self) -> usize {
        B::LEN
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        self.planes(0, cols).iter().map(Plane::layout).collect()
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        let encode = B::ENCODE.ok_or_else(|| CodecError::ReadOnly { codec: self.name() })?;
        check_weights(self, weights, rows, cols)?;
        let mut planes = self.planes(rows, cols);
        for_each_row(&mut planes, |row, [codes, heads]| {
            let weights = &weights[row * cols..][..cols];
            let mut bytes = vec![0; cols / B::LEN * B::BYTES];
            let mut decoded = vec![0.0; B::LEN];
            for (i, block) in bytes.chunks_exact_mut(B::BYTES).enumerate() {
                let weights = &weights[i * B::LEN..][..B::LEN];
                encode(weights, block);
                B::decode(block, &mut decoded);
                if decoded.iter().any(|w| !w.is_finite()) {
                    let (at, value) = largest(weights);
                    return Err(CodecError::TooLarge { codec: self.name(), row, col: i * B::LEN + at, value });
                }
            }
            split_row::<B>(&bytes, codes, heads);
            Ok(())
        })?;
        Ok(self.packed(rows, cols, planes))
    }

    fn rows_apart(&self) -> bool {
        true
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        let mut weights = vec![0.0; packed.rows * packed.cols];
        for_each_chunk(&mut weights, packed.cols, |row, weights| {
            let mut block = vec![0; B::BYTES];
            for (i, weights) in weights.chunks_exact_mut(B::LEN).enumerate() {
                join_block::<B>(packed, row, i, &mut block);
                B::decode(&block, weights);
            }
        });
        weights
    }

    fn symbols(&self) -> Option<Symbols> {
        B::SYMBOL_BITS.map(Symbols::Codes)
    }

    fn dtype(&self) -> Option<Dtype> {
        Some(Dtype::Ggml(B::TYPE))
    }

    fn fallback(&self) -> CodecRef {
        // Every block type's fallback is the name of another codec, which a test walks through.
        parse(B::FALLBACK).unwrap_or_else(|_| Arc::new(Dense::F16))
    }

    fn encodes(&self) -> bool {
        B::ENCODE.is_some()
    }

    fn import(&self, bytes: &[u8], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        super::rows::check_cols(self, cols)?;
        let row_bytes = cols / B::LEN * B::BYTES;
        let expected = rows.saturating_mul(row_bytes);
        if bytes.len() != expected {
            return Err(CodecError::Bytes { codec: self.name(), rows, cols, expected, found: bytes.len() });
        }
        let mut planes = self.planes(rows, cols);
        for_each_row(&mut planes, |row, [codes, heads]| {
            split_row::<B>(&bytes[row * row_bytes..][..row_bytes], codes, heads);
            Ok::<(), CodecError>(())
        })?;
        Ok(self.packed(rows, cols, planes))
    }

    fn export(&self, packed: &Packed) -> Option<Vec<u8>> {
        let row_bytes = packed.cols / B::LEN * B::BYTES;
        let mut bytes = vec![0; packed.rows * row_bytes];
        for_each_chunk(&mut bytes, row_bytes, |row, bytes| {
            for (i, block) in bytes.chunks_exact_mut(B::BYTES).enumerate() {
                join_block::<B>(packed, row, i, block);
            }
        });
        Some(bytes)
    }
}

/// The weight of largest magnitude and where it is; the first one on ties.
pub(super) fn largest(weights: &[f32]) -> (usize, f32) {
    let mut best = (0, 0.0f32);
    for (i, &w) in weights.iter().enumerate() {
        if w.abs() > best.1.abs() {
            best = (i, w);
        }
    }
    best
}

/// `1 / scale`, or 0 where that is infinite: weights then get the code of zero instead of that of 0 · inf.
pub(super) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Codes 0..=`levels` on the grid from the smallest to the largest weight. Returns its step and the smallest weight.
pub(super) fn affine_codes(weights: &[f32], levels: u8, codes: &mut [u8]) -> (f32, f32) {
    let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
    for &w in weights {
        (min, max) = (min.min(w), max.max(w));
    }
    let d = (max - min) / f32::from(levels);
    let id = inverse(d);
    for (q, &w) in codes.iter_mut().zip(weights) {
        *q = (((w - min) * id + 0.5) as u8).min(levels);
    }
    (d, min)
}
