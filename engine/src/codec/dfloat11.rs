//! DFloat11: bf16 weights without loss in about 11 bits (Zhang et al. 2025, arXiv 2504.11651).
//!
//! A bf16's sign and mantissa are as good as random and stay a byte. Its exponent, of which trained weights use some forty values with
//! an entropy of about 2.6 bits, is Huffman-coded. [`Group`] is the form that the format's tensors have, for one matrix or for all of
//! a transformer block's, which then share a code; [`DFloat11`] is the codec of recipes, whose matrices are groups of their own.
//!
//! Kernels read bf16: a group stays compressed on the GPU and is expanded right before it is used
//! ([`ops::dfloat11`](crate::ops::dfloat11)). So the codec's WGSL module is `bf16`'s, and rows must be whole runs: others stay bf16.
//!
//! # The plane
//!
//! One, of variable length, in words: rows of `luts`, bytes of `encoded_exponent`; then `luts`, `output_positions`, `gaps`,
//! `encoded_exponent` and `sign_mantissa` behind one another, each padded to whole words. What they hold is the format's, byte for
//! byte.

mod code;
mod container;
mod stream;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use half::bf16;

use super::dense::Dense;
use super::rows::check_weights;
use super::{Codec, CodecError, CodecRef, Packed, Plane, PlaneLayout, RUN};

pub(crate) use container::PARTS;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use container::forget;
pub use container::{Container, Member, config_entry};
pub use stream::{BLOCK_BYTES, Group, MOST_ROWS, Refused};

/// Bits a weight that plans count with: what weights of real models take, with a margin.
const PLANNED_BITS: u64 = 12;

/// The codec: every matrix a [`Group`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DFloat11;

impl DFloat11 {
    /// The spelling in recipes, and what files' tensors in this form are called.
    pub const NAME: &'static str = "dfloat11";

    /// Packs bf16 weights, row-major.
    ///
    /// # Errors
    /// A length that does not match, columns that are no whole runs, weights that the format cannot hold.
    pub fn pack(self, weights: &[u16], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        if rows.checked_mul(cols) != Some(weights.len()) {
            return Err(CodecError::Shape { codec: self.name(), len: weights.len(), rows, cols });
        }
        super::rows::check_cols(&self, cols)?;
        let group = Group::encode(weights).map_err(|why| self.refusal(why, weights, cols))?;
        let plane = Plane::of(PlaneLayout::VARIABLE, to_words(&group));
        Ok(Packed { codec: Arc::new(self), rows, cols, planes: vec![plane] })
    }

    /// The group of a packed matrix.
    ///
    /// # Errors
    /// [`CodecError::Content`] for a plane that is none.
    pub fn group(self, packed: &Packed) -> Result<Group, CodecError> {
        let wrong = |what| CodecError::Content { codec: self.name(), plane: 0, what };
        let words = packed.planes.first().map(|plane| &plane.data[..]).unwrap_or_default();
        let group = from_words(words, packed.rows.saturating_mul(packed.cols)).map_err(wrong)?;
        group.check().map_err(wrong)?;
        Ok(group)
    }

    fn refusal(self, why: Refused, weights: &[u16], cols: usize) -> CodecError {
        match why {
            Refused::Exponent { at } => {
                let value = weights.get(at).map_or(f32::NAN, |w| bf16::from_bits(*w).to_f32());
                let (row, col) = (at / cols.max(1), at % cols.max(1));
                CodecError::TooLarge { codec: self.name(), row, col, value }
            }
            why => CodecError::Content { codec: self.name(), plane: 0, what: why.to_string() },
        }
    }
}

/// The bits of weights rounded to bf16.
pub fn bf16_bits(weights: &[f32]) -> Vec<u16> {
    weights.iter().map(|w| bf16::from_f32(*w).to_bits()).collect()
}

impl Codec for DFloat11 {
    fn name(&self) -> String {
        Self::NAME.into()
    }

    fn module(&self) -> &'static str {
        "bf16"
    }

    fn block_len(&self) -> usize {
        RUN
    }

    fn layout(&self, _cols: usize) -> Vec<PlaneLayout> {
        vec![PlaneLayout::VARIABLE]
    }

    fn planned_bytes(&self, rows: usize, cols: usize) -> u64 {
        let weights = (rows as u64).saturating_mul(cols as u64);
        (weights.saturating_mul(PLANNED_BITS) / 8).saturating_add((BLOCK_BYTES + 256 * MOST_ROWS) as u64)
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        match self.pack(&bf16_bits(weights), rows, cols) {
            // What the format cannot hold stays as it is.
            Err(CodecError::TooLarge { .. } | CodecError::Content { .. }) => Dense::Bf16.encode(weights, rows, cols),
            packed => packed,
        }
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        // A plane that cannot be read has been refused where it came in.
        let bits = self.group(packed).map(|group| group.decode()).unwrap_or_default();
        let mut weights: Vec<f32> = bits.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect();
        weights.resize(packed.rows * packed.cols, 0.0);
        weights
    }

    fn check(&self, packed: &Packed) -> Result<(), CodecError> {
        self.group(packed).map(|_| ())
    }

    fn cut(&self, packed: &Packed, range: Range<usize>) -> Result<Packed, CodecError> {
        let (group, cols) = (self.group(packed)?, packed.cols);
        self.pack(&group.decode_range(range.start * cols..range.end * cols), range.len(), cols)
    }

    fn stack(&self, parts: &[&Packed]) -> Option<Packed> {
        let groups = parts.iter().map(|part| self.group(part).ok()).collect::<Option<Vec<_>>>()?;
        let weights: Vec<u16> = groups.iter().flat_map(Group::decode).collect();
        self.pack(&weights, parts.iter().map(|part| part.rows).sum(), parts.first()?.cols).ok()
    }

    fn fallback(&self) -> CodecRef {
        Arc::new(Dense::Bf16)
    }
}

/// The plane of a group.
fn to_words(group: &Group) -> Vec<u32> {
    let mut words = vec![(group.luts.len() / 256) as u32, group.encoded_exponent.len() as u32];
    let mut put = |bytes: &[u8]| {
        words.extend(bytes.chunks(4).map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(word)
        }));
    };
    put(&group.luts);
    put(bytemuck::cast_slice(&group.output_positions.iter().map(|n| n.to_le()).collect::<Vec<_>>()));
    put(&group.gaps);
    put(&group.encoded_exponent);
    put(&group.sign_mantissa);
    words
}

/// The group of a plane with this many weights.
fn from_words(words: &[u32], weights: usize) -> Result<Group, String> {
    let (&[rows, stream], mut rest) = words.split_first_chunk().ok_or("it is too short")?;
    let stream = stream as usize;
    let blocks = stream.div_ceil(BLOCK_BYTES);
    let mut take = |bytes: usize| -> Result<Vec<u8>, String> {
        let (own, others) = rest.split_at_checked(bytes.div_ceil(4)).ok_or("it is too short")?;
        rest = others;
        let mut all: Vec<u8> = own.iter().flat_map(|word| word.to_le_bytes()).collect();
        all.truncate(bytes);
        Ok(all)
    };
    let luts = take(256 * rows.min(MOST_ROWS as u32 + 1) as usize)?;
    let positions = take(4 * (blocks + 1))?;
    let group = Group {
        luts,
        output_positions: positions.chunks_exact(4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]])).collect(),
        gaps: take(blocks * (BLOCK_BYTES / 8 * 5 / 8))?,
        encoded_exponent: take(stream)?,
        sign_mantissa: take(weights)?,
    };
    if rest.is_empty() { Ok(group) } else { Err("it is too long".to_owned()) }
}
