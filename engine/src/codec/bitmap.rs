//! `bitmap:keep=P`, the first layout of unstructured sparsity: read from files and turned into `sparse:nnz=K` on the way.
//!
//! Plane 0: the kept weights of a row, two in a word (bf16 or f16, the first in the low half). Plane 1: the bitmap, a word a run,
//! weight i in bit i. Plane 2: 16 bits a run, which the bitmap implies.

use std::sync::Arc;

use super::dense::Dense;
use super::rows::for_each_chunk;
use super::spec::Options;
use super::{Codec, CodecError, CodecRef, Packed, PlaneLayout, RUN, parse};

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

impl Codec for Bitmap {
    fn name(&self) -> String {
        let values = if self.values == Dense::F16 { ",values=f16" } else { "" };
        format!("bitmap:keep={}{values}", self.keep)
    }

    /// None: [`Codec::current`] is what kernels read.
    fn module(&self) -> &'static str {
        ""
    }

    fn block_len(&self) -> usize {
        1
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        let runs = cols.div_ceil(RUN);
        let values = (self.keep * runs * RUN).div_ceil(100).div_ceil(2);
        [values, runs, runs.div_ceil(2)].map(PlaneLayout::per_row).to_vec()
    }

    fn encodes(&self) -> bool {
        false
    }

    fn encode(&self, _weights: &[f32], _rows: usize, _cols: usize) -> Result<Packed, CodecError> {
        Err(CodecError::ReadOnly { codec: self.name() })
    }

    fn current(&self, packed: Packed) -> Result<Packed, CodecError> {
        let (rows, cols) = (packed.rows, packed.cols);
        let weights = packed.decode();
        if !cols.is_multiple_of(RUN) {
            return parse(self.values.module())?.encode(&weights, rows, cols);
        }
        let mask = packed.planes.get(1).map(|plane| plane.data.as_slice()).unwrap_or_default();
        let most = mask.chunks((cols / RUN).max(1)).map(|bits| bits.iter().map(|word| word.count_ones()).sum::<u32>());
        let values = if self.values == Dense::F16 { ",values=f16" } else { "" };
        parse(&format!("sparse:nnz={}{values}", most.max().unwrap_or(0).max(1)))?
            .encode_masked(&weights, mask, rows, cols)
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        let mut weights = vec![0.0; packed.rows * packed.cols];
        for_each_chunk(&mut weights, packed.cols, |row, weights| {
            let [values, bits] = [0, 1].map(|plane| {
                let plane = &packed.planes[plane];
                &plane.data[row * plane.row_words as usize..][..plane.row_words as usize]
            });
            let bytes: &[u8] = bytemuck::cast_slice(values);
            let mut slot = 0;
            for (col, w) in weights.iter_mut().enumerate() {
                // A hostile file may have more bits than values.
                if bits[col / RUN] >> (col % RUN) & 1 == 1 && slot < 2 * values.len() {
                    *w = self.values.get(bytes, slot);
                    slot += 1;
                }
            }
        });
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Plane, parse};
    use super::*;

    #[test]
    fn files_of_the_first_layout_still_load() {
        let codec = parse("bitmap:keep=25,values=f16").unwrap();
        let half = |v: f32| u32::from(half::f16::from_f32(v).to_bits());
        // Two rows of 64: sixteen values each, ten of them used.
        let mut mask = [0u32; 4];
        let mut values = [0u32; 16];
        let mut expected = vec![0.0; 128];
        for row in 0..2 {
            for i in 0..10 {
                let (col, value) = (i * 6 + row, (i + 1) as f32 * if row == 0 { 0.5 } else { -2.0 });
                mask[row * 2 + col / 32] |= 1 << (col % 32);
                values[row * 8 + i / 2] |= half(value) << (16 * (i % 2));
                expected[row * 64 + col] = value;
            }
        }
        let planes = codec.layout(64).into_iter().zip([values.to_vec(), mask.to_vec(), vec![0; 2]]);
        let planes = planes.map(|(layout, data)| Plane::of(layout, data)).collect();
        let packed = Packed::new(codec.clone(), 2, 64, planes).unwrap();
        assert_eq!(packed.decode(), expected);
        let current = codec.current(packed).unwrap();
        assert_eq!((current.codec.name(), current.decode()), ("sparse:nnz=10,values=f16".into(), expected));
        assert!(codec.encode(&[0.0; 64], 1, 64).unwrap_err().to_string().contains("can be read but not written"));
    }
}
