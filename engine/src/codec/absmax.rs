//! Block-wise 4-bit codebooks scaled by the largest magnitude, as QLoRA (arXiv 2305.14314) and bitsandbytes have them:
//! `w = code[q]·absmax`, one absmax for 32 to 4096 weights of a row.
//!
//! With double quantization the absmax of a block is a byte: `absmax = offset + step·byte`, offset and step f32 for the blocks
//! of 2^n rows, at most 256 of them (one row where a row alone has more). Codes are chosen for the absmax that comes back.
//!
//! Planes: bit-sliced codes; the bytes (or f32) of the blocks; offset and step of the groups of rows.

use std::sync::Arc;

use super::bits::{pack, unpack};
use super::ggml::{inverse, largest};
use super::rows::{check_weights, for_each_chunk, for_each_row};
use super::spec::Options;
use super::{Codec, CodecError, CodecRef, Packed, Plane, PlaneLayout, RUN, Symbols};

const BLOCKS: &[usize] = &[32, 64, 128, 256, 512, 1024, 2048, 4096];
/// Most blocks that share an offset and a step.
const GROUP_BLOCKS: u32 = 256;

/// 16 values between −1 and 1.
#[derive(Debug)]
pub(super) struct Codebook {
    /// Recipe spelling, and the WGSL module's name.
    pub(super) name: &'static str,
    pub(super) values: [f32; 16],
    /// Code of the value nearest to a weight divided by its block's absmax.
    pub(super) nearest: fn(f32) -> u8,
}

#[derive(Debug, Clone, Copy)]
struct Absmax {
    book: &'static Codebook,
    block: usize,
    double: bool,
}

/// Builds the codec from `block=…` and `double`.
pub(super) fn build(book: &'static Codebook, options: Options) -> Result<CodecRef, CodecError> {
    options.only(&["block", "double"], "block, double")?;
    let block = options.number("block", BLOCKS, Some(64))?;
    let double = options.switch("double", true)?;
    Ok(Arc::new(Absmax { book, block, double }))
}

/// Rows that share offset and step: the largest power of two with at most 256 blocks.
fn rows_per_group(blocks: usize) -> usize {
    (GROUP_BLOCKS as usize / blocks.clamp(1, GROUP_BLOCKS as usize)).checked_ilog2().map_or(1, |n| 1 << n)
}

impl Absmax {
    fn layouts(&self, cols: usize) -> (PlaneLayout, PlaneLayout, Option<PlaneLayout>) {
        let blocks = cols / self.block;
        let codes = PlaneLayout::per_row(cols / RUN * 4);
        if self.double {
            let lines = PlaneLayout::per_group(2, rows_per_group(blocks));
            (codes, PlaneLayout::per_row(blocks.div_ceil(4)), Some(lines))
        } else {
            (codes, PlaneLayout::per_row(blocks), None)
        }
    }

    /// Replaces the absmax of every block by what comes back from a byte. Returns the planes of bytes and of lines.
    fn quantize_scales(
        &self,
        scales: &mut [f32],
        rows: usize,
        cols: usize,
        bytes: PlaneLayout,
        lines: PlaneLayout,
    ) -> [Plane; 2] {
        let blocks = cols / self.block;
        let (mut bytes, mut lines) = (Plane::zeroed(bytes, rows), Plane::zeroed(lines, rows));
        let (row_bytes, group_rows) = (4 * bytes.row_words as usize, lines.rows_per_group as usize);
        let rows_of_bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut bytes.data);
        let groups = scales
            .chunks_mut((group_rows * blocks).max(1))
            .zip(rows_of_bytes.chunks_mut((group_rows * row_bytes).max(1)));
        for ((scales, bytes), line) in groups.zip(lines.data.chunks_exact_mut(2)) {
            let (min, max) = scales.iter().fold((f32::INFINITY, 0.0f32), |(min, max), &s| (min.min(s), max.max(s)));
            let step = (max - min) / 255.0;
            let inverse = inverse(step);
            line.copy_from_slice(&[min.to_bits(), step.to_bits()]);
            for (scales, bytes) in scales.chunks_mut(blocks).zip(bytes.chunks_mut(row_bytes)) {
                for (scale, byte) in scales.iter_mut().zip(bytes) {
                    *byte = ((*scale - min) * inverse).round() as u8;
                    *scale = min + f32::from(*byte) * step;
                }
            }
        }
        [bytes, lines]
    }

    /// Absmax of block `i` of a row.
    fn scale(&self, packed: &Packed, row: usize, i: usize) -> f32 {
        let plane = &packed.planes[1];
        let words = &plane.data[row * plane.row_words as usize..];
        if !self.double {
            return f32::from_bits(words[i]);
        }
        let lines = &packed.planes[2];
        let line = &lines.data[row / lines.rows_per_group as usize * 2..];
        let byte = (words[i / 4] >> (8 * (i % 4))) as u8;
        f32::from_bits(line[0]) + f32::from(byte) * f32::from_bits(line[1])
    }
}

impl Codec for Absmax {
    fn name(&self) -> String {
        let Self { book, block, double } = self;
        format!("{}:block={block}{}", book.name, if *double { "" } else { ",double=off" })
    }

    fn module(&self) -> &'static str {
        self.book.name
    }

    fn defines(&self) -> Vec<(&'static str, u32)> {
        vec![("DOUBLE", self.double.into()), ("BLOCK_RUNS", (self.block / RUN) as u32)]
    }

    fn block_len(&self) -> usize {
        self.block
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        let (codes, scales, lines) = self.layouts(cols);
        [codes, scales].into_iter().chain(lines).collect()
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        let blocks = cols / self.block;
        let mut scales = vec![0.0; rows * blocks];
        for_each_chunk(&mut scales, blocks, |row, scales| {
            for (scale, weights) in scales.iter_mut().zip(weights[row * cols..][..cols].chunks(self.block)) {
                *scale = largest(weights).1.abs();
            }
        });
        let (codes, per_block, lines) = self.layouts(cols);
        let rest = match lines {
            Some(lines) => self.quantize_scales(&mut scales, rows, cols, per_block, lines).into(),
            None => {
                let data = scales.iter().map(|scale| scale.to_bits()).collect();
                vec![Plane { data, row_words: per_block.row_words, rows_per_group: 1 }]
            }
        };
        let mut codes = [Plane::zeroed(codes, rows)];
        for_each_row(&mut codes, |row, [words]| {
            let mut q = vec![0; cols];
            let weights = weights[row * cols..][..cols].chunks(self.block);
            for ((q, weights), scale) in q.chunks_mut(self.block).zip(weights).zip(&scales[row * blocks..]) {
                let inverse = inverse(*scale);
                for (q, w) in q.iter_mut().zip(weights) {
                    *q = (self.book.nearest)(w * inverse);
                }
            }
            pack(4, &q, words);
            Ok::<(), CodecError>(())
        })?;
        let planes = codes.into_iter().chain(rest).collect();
        Ok(Packed { codec: Arc::new(*self), rows, cols, planes })
    }

    fn rows_apart(&self) -> bool {
        true
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        let words_a_row = packed.planes[0].row_words as usize;
        let mut weights = vec![0.0; packed.rows * packed.cols];
        for_each_chunk(&mut weights, packed.cols, |row, weights| {
            let mut codes = vec![0; weights.len()];
            unpack(4, &packed.planes[0].data[row * words_a_row..][..words_a_row], &mut codes);
            for (i, (weights, codes)) in weights.chunks_mut(self.block).zip(codes.chunks(self.block)).enumerate() {
                let scale = self.scale(packed, row, i);
                for (w, &q) in weights.iter_mut().zip(codes) {
                    *w = self.book.values[usize::from(q)] * scale;
                }
            }
        });
        weights
    }

    fn symbols(&self) -> Option<Symbols> {
        Some(Symbols::Codes(4))
    }

    fn fallback(&self) -> CodecRef {
        match self.block / 2 {
            block if block >= BLOCKS[0] => Arc::new(Self { block, ..*self }),
            _ => Arc::new(super::dense::Dense::F16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shader computes the same from the number of leading zeros.
    #[test]
    fn groups_of_rows() {
        for (blocks, rows) in [(1, 256), (2, 128), (3, 64), (9, 16), (128, 2), (129, 1), (256, 1), (257, 1), (5000, 1)]
        {
            assert_eq!(rows_per_group(blocks), rows, "{blocks} blocks");
            assert_eq!(1 << ((blocks as u32 - 1).leading_zeros().max(24) - 24), rows, "{blocks} blocks");
        }
        assert_eq!(rows_per_group(0), 256);
    }
}
