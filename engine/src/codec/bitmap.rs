//! Unstructured sparsity: a bit a weight says whether it is kept, the kept ones of a row lie behind one another.
//!
//! Of every row the `keep` percent of largest magnitude stay: magnitude pruning with rows as comparison groups, as Wanda (Sun et al.
//! 2023, arXiv 2306.11695) has them, so that all rows are equally long. Plane 0: the kept weights, two in a word (bf16 or f16, the
//! first in the low half). Plane 1: the bitmap, a word a run, weight i in bit i. Plane 2: how many kept weights come before each run,
//! 16 bits each, two a word. At 50 % that is 9.5 bits a weight.

use std::sync::Arc;

use super::dense::Dense;
use super::rows::{check_weights, for_each_chunk, for_each_row};
use super::spec::Options;
use super::{Codec, CodecError, CodecRef, Packed, Plane, PlaneLayout, RUN};

/// Columns whose counts fit 16 bits.
const MOST_COLS: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bitmap {
    /// Percent of the weights that are kept.
    keep: usize,
    values: Dense,
}

pub(super) fn build(options: Options) -> Result<CodecRef, CodecError> {
    options.only(&["keep", "values"], "keep, values")?;
    let percents: Vec<usize> = (1..100).collect();
    let keep = options.number("keep", &percents, Some(50))?;
    Ok(Arc::new(Bitmap { keep, values: options.values()? }))
}

impl Bitmap {
    /// Kept weights of a row of `cols`.
    fn kept(&self, cols: usize) -> usize {
        (self.keep * cols / 100).max(1).min(cols)
    }

    /// Words of a row's values: a function of whole runs, which is all that the shader knows.
    fn value_words(&self, cols: usize) -> usize {
        (self.keep * cols.div_ceil(RUN) * RUN).div_ceil(100).div_ceil(2)
    }
}

/// Columns of the `count` largest magnitudes, in order; of equals the first.
fn largest(row: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].abs().total_cmp(&row[a].abs()));
    order.truncate(count);
    order.sort_unstable();
    order
}

impl Codec for Bitmap {
    fn name(&self) -> String {
        let values = if self.values == Dense::F16 { ",values=f16" } else { "" };
        format!("bitmap:keep={}{values}", self.keep)
    }

    fn module(&self) -> &'static str {
        "bitmap"
    }

    fn defines(&self) -> Vec<(&'static str, u32)> {
        vec![("HALF", (self.values == Dense::F16).into()), ("KEEP", self.keep as u32)]
    }

    fn block_len(&self) -> usize {
        1
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        let runs = cols.div_ceil(RUN);
        [self.value_words(cols), runs, runs.div_ceil(2)].map(PlaneLayout::per_row).to_vec()
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        if cols > MOST_COLS {
            return Err(CodecError::TooWide { codec: self.name(), cols, most: MOST_COLS });
        }
        let layout = self.layout(cols);
        let mut planes = [0, 1, 2].map(|plane| Plane::zeroed(layout[plane], rows));
        for_each_row(&mut planes, |row, [values, bits, starts]| {
            let weights = &weights[row * cols..][..cols];
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
            for (slot, col) in largest(weights, self.kept(cols)).into_iter().enumerate() {
                self.values.put(bytes, slot, weights[col]);
                if !self.values.get(bytes, slot).is_finite() {
                    return Err(CodecError::TooLarge { codec: self.name(), row, col, value: weights[col] });
                }
                bits[col / RUN] |= 1 << (col % RUN);
            }
            let mut before = 0;
            for (run, word) in bits.iter().enumerate() {
                // 65536 kept weights before a run cannot be: a run follows.
                starts[run / 2] |= (before & 0xffff) << (16 * (run % 2));
                before += word.count_ones();
            }
            Ok(())
        })?;
        Ok(Packed { codec: Arc::new(*self), rows, cols, planes: planes.into() })
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        let mut weights = vec![0.0; packed.rows * packed.cols];
        for_each_chunk(&mut weights, packed.cols, |row, weights| {
            let [values, bits, starts] = [0, 1, 2].map(|plane| {
                let plane = &packed.planes[plane];
                &plane.data[row * plane.row_words as usize..][..plane.row_words as usize]
            });
            let bytes: &[u8] = bytemuck::cast_slice(values);
            for (run, weights) in weights.chunks_mut(RUN).enumerate() {
                let mut slot = ((starts[run / 2] >> (16 * (run % 2))) & 0xffff) as usize;
                for (i, w) in weights.iter_mut().enumerate() {
                    if bits[run] >> i & 1 == 1 {
                        // A hostile file may count beyond its values, which then are its last.
                        let last = 2 * values.len() - 1;
                        *w = self.values.get(bytes, slot.min(last));
                        slot += 1;
                    }
                }
            }
        });
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn the_largest_of_a_row_stay() {
        let mut weights = vec![0.0f32; 2 * 40];
        for (i, w) in weights.iter_mut().enumerate() {
            *w = if i % 4 == 1 { -8.0 - (i % 40) as f32 } else { 0.125 };
        }
        let packed = parse("bitmap:keep=25").unwrap().encode(&weights, 2, 40).unwrap();
        let expected: Vec<f32> = weights.iter().map(|w| if *w < 0.0 { *w } else { 0.0 }).collect();
        assert_eq!(packed.decode(), expected);
    }

    #[test]
    fn sizes_are_as_documented() {
        let packed = parse("bitmap:keep=50").unwrap().encode(&[1.0; 4 * 64], 4, 64).unwrap();
        assert_eq!(packed.bits_per_weight(), 9.5);
        let error = parse("bitmap").unwrap().encode(&vec![0.0; 70_000], 1, 70_000).unwrap_err();
        assert_eq!(error.to_string(), "bitmap:keep=50: rows of 70000 weights are too long, 65536 is the most");
    }
}
