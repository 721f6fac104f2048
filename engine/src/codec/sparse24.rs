//! 2:4 sparsity with 16-bit values, `sparse:2:4`: of every four consecutive weights two are kept. 9 bits a weight.
//!
//! The pattern that sparse tensor cores and compressed-tensors' `sparse-24-bitmask` have (Mishra et al. 2021, arXiv 2104.08378).
//! Plane 0: the kept weights, two in a word (bf16 or f16, the first in the low half), 8 words a run. Plane 1: where they were, a word
//! a run; four bits for each four weights: the first's place in bits 0–1, the second's in bits 2–3. Rows are padded to whole runs with
//! zeros in places 0 and 1.

use std::sync::Arc;

use super::dense::Dense;
use super::rows::{check_weights, for_each_chunk, for_each_row};
use super::sparse::{Method, Pattern, Pruned, of, prune};
use super::spec::Options;
use super::{Calibrates, Calibration, Codec, CodecError, CodecRef, Packed, Plane, PlaneLayout, RUN};

/// Places 0 and 1 in all eight groups of four of a run.
const FIRST_TWO: u32 = 0x4444_4444;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sparse24 {
    pub(super) values: Dense,
    pub(super) method: Method,
}

/// Places of the two bits that are set among the lowest four.
fn places(nibble: u32) -> Option<[usize; 2]> {
    let nibble = nibble & 0xf;
    (nibble.count_ones() == 2).then(|| [nibble.trailing_zeros() as usize, 3 - (nibble << 28).leading_zeros() as usize])
}

const PATTERN: Pattern = Pattern::NofM { n: 2, m: 4 };

/// `sparse24`, as files of earlier versions call `sparse:2:4`.
pub(super) fn build(options: Options) -> Result<CodecRef, CodecError> {
    options.only(&["values"], "values")?;
    Ok(Arc::new(Sparse24 { values: options.values()?, method: Method::Magnitude }))
}

impl Codec for Sparse24 {
    fn name(&self) -> String {
        let values = if self.values == Dense::F16 { ",values=f16" } else { "" };
        format!("sparse:2:4{}{values}", self.method.option())
    }

    fn module(&self) -> &'static str {
        "sparse24"
    }

    fn defines(&self) -> Vec<(&'static str, u32)> {
        vec![("HALF", (self.values == Dense::F16).into())]
    }

    fn block_len(&self) -> usize {
        4
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        let runs = cols.div_ceil(RUN);
        vec![PlaneLayout::per_row(8 * runs), PlaneLayout::per_row(runs)]
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        self.encode_for(weights, rows, cols, None)
    }

    fn rows_apart(&self) -> bool {
        true
    }

    fn calibrates(&self) -> Calibrates {
        self.method.calibrates()
    }

    fn encode_for(
        &self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        calibration: Option<&Calibration>,
    ) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        let Pruned { weights, mask } = prune(self.method, PATTERN, cols / 2, weights, cols, calibration)?;
        self.encode_masked(&weights, &mask, rows, cols)
    }

    fn encode_masked(&self, weights: &[f32], mask: &[u32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        let [values, meta] = [0, 1].map(|plane| Plane::zeroed(self.layout(cols)[plane], rows));
        let mut planes = [values, meta];
        let runs = cols.div_ceil(RUN);
        for_each_row(&mut planes, |row, [values, meta]| {
            meta.fill(FIRST_TWO);
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
            for (group, four) in weights[row * cols..][..cols].chunks_exact(4).enumerate() {
                let (run, shift) = (group / 8, 4 * (group % 8));
                let kept = places(mask[row * runs + run] >> shift).ok_or_else(|| CodecError::Combination {
                    left: self.name(),
                    right: "a mask".into(),
                    why: format!("row {row} does not keep two of the four weights from column {} on", 4 * group),
                })?;
                meta[run] &= !(0xf << shift);
                meta[run] |= (kept[0] as u32 | (kept[1] as u32) << 2) << shift;
                for (slot, place) in kept.into_iter().enumerate() {
                    self.values.put(bytes, 2 * group + slot, four[place]);
                    if !self.values.get(bytes, 2 * group + slot).is_finite() {
                        let (col, value) = (4 * group + place, four[place]);
                        return Err(CodecError::TooLarge { codec: self.name(), row, col, value });
                    }
                }
            }
            Ok(())
        })?;
        Ok(Packed { codec: Arc::new(*self), rows, cols, planes: planes.into() })
    }

    fn with_values(&self, values: &CodecRef) -> Result<CodecRef, CodecError> {
        if self.values != Dense::Bf16 || !values.encodes() || values.sparsity(RUN).is_some() {
            let why = "kept weights are packed once, by a codec of dense weights that can be written".into();
            return Err(CodecError::Combination { left: self.name(), right: values.name(), why });
        }
        of(PATTERN, self.method, values)
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        let [values, meta] = [0, 1].map(|plane| &packed.planes[plane]);
        let mut weights = vec![0.0; packed.rows * packed.cols];
        for_each_chunk(&mut weights, packed.cols, |row, weights| {
            let words = &values.data[row * values.row_words as usize..][..values.row_words as usize];
            let meta = &meta.data[row * meta.row_words as usize..][..meta.row_words as usize];
            let bytes: &[u8] = bytemuck::cast_slice(words);
            for (group, four) in weights.chunks_mut(4).enumerate() {
                let places = meta[group / 8] >> (4 * (group % 8));
                for (slot, place) in [places & 3, (places >> 2) & 3].into_iter().enumerate() {
                    // A hostile file may name one place twice: the sum is what the shader makes of it.
                    if let Some(w) = four.get_mut(place as usize) {
                        *w += self.values.get(bytes, 2 * group + slot);
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
    fn the_two_largest_of_four_stay_where_they_were() {
        let weights = [1.0, -3.0, 2.0, 0.5, 0.0, 0.0, 0.0, -1.0, 5.0, 5.0, 5.0, 5.0];
        let packed = parse("sparse:2:4").unwrap().encode(&weights, 1, 12).unwrap();
        assert_eq!(packed.decode(), [0.0, -3.0, 2.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 5.0, 5.0]);
        assert_eq!(packed.bytes(), 36);
    }

    #[test]
    fn nine_bits_a_weight() {
        let packed = parse("sparse:2:4").unwrap().encode(&[1.0; 4 * 64], 4, 64).unwrap();
        assert_eq!(packed.bits_per_weight(), 9.0);
    }
}
