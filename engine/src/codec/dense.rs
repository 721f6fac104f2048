//! Dense weights: f32, f16 or bf16, rows padded with zeros to whole runs.
//!
//! One plane: a run is 32 words (f32) or 16 (f16, bf16: two weights a word, the even one in the low half).

use std::sync::Arc;

use super::rows::{check_weights, for_each_chunk, for_each_row};
use super::{Codec, CodecError, Packed, Plane, PlaneLayout, RUN, Symbols};
use crate::format::Dtype;

/// Dense weights of one number format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dense {
    F32,
    F16,
    Bf16,
}

impl Dense {
    /// The spelling of the codec.
    pub(super) fn dense_name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of a weight.
    pub(super) fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// Weight `col` of a row's bytes.
    pub(super) fn get(self, bytes: &[u8], col: usize) -> f32 {
        let [b0, b1] = [bytes[col * self.bytes()], bytes[col * self.bytes() + 1]];
        match self {
            Self::F32 => f32::from_le_bytes([b0, b1, bytes[col * 4 + 2], bytes[col * 4 + 3]]),
            Self::F16 => half::f16::from_le_bytes([b0, b1]).to_f32(),
            Self::Bf16 => half::bf16::from_le_bytes([b0, b1]).to_f32(),
        }
    }

    /// Rounds weight `col` into a row's bytes; too large ones become infinite.
    pub(super) fn put(self, bytes: &mut [u8], col: usize, value: f32) {
        let at = col * self.bytes();
        match self {
            Self::F32 => bytes[at..at + 4].copy_from_slice(&value.to_le_bytes()),
            Self::F16 => bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes()),
            Self::Bf16 => bytes[at..at + 2].copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
        }
    }

    fn plane(self, rows: usize, cols: usize) -> Plane {
        let words = cols.div_ceil(RUN) * RUN * self.bytes() / 4;
        Plane::zeroed(PlaneLayout::per_row(words), rows)
    }
}

/// The padded bytes of a row.
fn row_of(packed: &Packed, row: usize) -> &[u8] {
    let row_words = packed.planes[0].row_words as usize;
    bytemuck::cast_slice(&packed.planes[0].data[row * row_words..][..row_words])
}

impl Codec for Dense {
    fn name(&self) -> String {
        self.module().into()
    }

    fn module(&self) -> &'static str {
        self.dense_name()
    }

    fn block_len(&self) -> usize {
        1
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        vec![self.plane(0, cols).layout()]
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        let mut planes = [self.plane(rows, cols)];
        for_each_row(&mut planes, |row, [words]| {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(words);
            for (col, &value) in weights[row * cols..][..cols].iter().enumerate() {
                self.put(bytes, col, value);
                if !self.get(bytes, col).is_finite() {
                    return Err(CodecError::TooLarge { codec: self.name(), row, col, value });
                }
            }
            Ok(())
        })?;
        Ok(Packed { codec: Arc::new(*self), rows, cols, planes: planes.into() })
    }

    fn rows_apart(&self) -> bool {
        true
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        let mut weights = vec![0.0; packed.rows * packed.cols];
        for_each_chunk(&mut weights, packed.cols, |row, weights| {
            let bytes = row_of(packed, row);
            for (col, w) in weights.iter_mut().enumerate() {
                *w = self.get(bytes, col);
            }
        });
        weights
    }

    fn symbols(&self) -> Option<Symbols> {
        (*self == Self::Bf16).then_some(Symbols::Exponents)
    }

    fn dtype(&self) -> Option<Dtype> {
        Some(match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        })
    }

    fn import(&self, bytes: &[u8], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        let row_bytes = cols * self.bytes();
        let expected = rows.saturating_mul(row_bytes);
        if bytes.len() != expected {
            return Err(CodecError::Bytes { codec: self.name(), rows, cols, expected, found: bytes.len() });
        }
        let mut planes = [self.plane(rows, cols)];
        for_each_row(&mut planes, |row, [words]| {
            let padded: &mut [u8] = bytemuck::cast_slice_mut(words);
            padded[..row_bytes].copy_from_slice(&bytes[row * row_bytes..][..row_bytes]);
            Ok::<(), CodecError>(())
        })?;
        Ok(Packed { codec: Arc::new(*self), rows, cols, planes: planes.into() })
    }

    fn export(&self, packed: &Packed) -> Option<Vec<u8>> {
        let row_bytes = packed.cols * self.bytes();
        let mut bytes = vec![0; packed.rows * row_bytes];
        for_each_chunk(&mut bytes, row_bytes, |row, bytes| {
            bytes.copy_from_slice(&row_of(packed, row)[..row_bytes]);
        });
        Some(bytes)
    }
}
