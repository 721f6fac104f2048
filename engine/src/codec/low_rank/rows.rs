//! How the rows of B are stored, and which codec A is in.

use std::sync::Arc;

use super::super::dense::Dense;
use super::super::ggml::{Block, Ggml};
use super::super::rows::for_each_chunk;
use super::super::spec::Options;
use super::super::{CodecError, CodecRef};
use super::super::{q4_0::Q4_0, q8_0::Q8_0};

/// Words before a row's numbers: where its columns of A x begin, and its bias.
pub(super) const HEAD: usize = 2;
/// Numbers in a block of Q8_0 and Q4_0.
const BLOCK: usize = 32;

/// The number format of both factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Factors {
    Bf16,
    F16,
    Q8_0,
    Q4_0,
}

impl Factors {
    /// Reads `factors=…`.
    pub(super) fn read(options: &Options) -> Result<Self, CodecError> {
        match options.text("factors") {
            None | Some("bf16") => Ok(Self::Bf16),
            Some("f16") => Ok(Self::F16),
            Some("q8_0") => Ok(Self::Q8_0),
            Some("q4_0") => Ok(Self::Q4_0),
            Some(value) => Err(CodecError::OptionValue {
                codec: options.codec(),
                option: "factors".into(),
                value: value.into(),
                valid: "bf16, f16, q8_0, q4_0 (what kernels decode beside any codec)".into(),
            }),
        }
    }

    /// What is added to a name.
    pub(super) fn suffix(self) -> String {
        if self == Self::Bf16 { String::new() } else { format!(",factors={}", self.codec().name()) }
    }

    /// The codec of A.
    pub(super) fn codec(self) -> CodecRef {
        match self {
            Self::Bf16 => Arc::new(Dense::Bf16),
            Self::F16 => Arc::new(Dense::F16),
            Self::Q8_0 => Arc::new(Ggml::<Q8_0>::new()),
            Self::Q4_0 => Arc::new(Ggml::<Q4_0>::new()),
        }
    }

    /// The codec of a matrix that is not worth factoring.
    pub(super) fn dense(self) -> CodecRef {
        if self == Self::F16 { Arc::new(Dense::F16) } else { Arc::new(Dense::Bf16) }
    }

    /// Ranks are multiples of this: kernels take octets of B, codes come in blocks.
    pub(super) fn step(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 8,
            Self::Q8_0 | Self::Q4_0 => BLOCK,
        }
    }

    /// The number by which kernels know it.
    pub(super) fn format(self) -> u32 {
        match self {
            Self::Bf16 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 2,
            Self::Q4_0 => 3,
        }
    }

    /// Words of a row's numbers. The scales of blocks stand before the codes, two in a word.
    pub(super) fn words(self, rank: usize) -> usize {
        match self {
            Self::Bf16 | Self::F16 => rank / 2,
            Self::Q8_0 => Self::scale_words(rank) + rank / 4,
            Self::Q4_0 => Self::scale_words(rank) + rank / 8,
        }
    }

    fn scale_words(rank: usize) -> usize {
        rank.div_ceil(2 * BLOCK)
    }

    /// The plane of B `[rows, rank]`, with heads of zeros.
    pub(super) fn encode_rows(self, b: &[f32], rows: usize, rank: usize) -> Result<Vec<u32>, CodecError> {
        let stored = self.codec().encode(b, rows, rank)?;
        // What a model file would have: numbers, or blocks of a scale and codes.
        let bytes = stored.codec.export(&stored).unwrap_or_default();
        let (words, row_bytes) = (HEAD + self.words(rank), bytes.len() / rows.max(1));
        let mut plane = vec![0; rows * words];
        for_each_chunk(&mut plane, words, |row, words| {
            let bytes = &bytes[row * row_bytes..][..row_bytes];
            let to: &mut [u8] = bytemuck::cast_slice_mut(&mut words[HEAD..]);
            let scales = 4 * Self::scale_words(rank);
            match self {
                Self::Bf16 | Self::F16 => to[..bytes.len()].copy_from_slice(bytes),
                Self::Q8_0 => {
                    for (i, block) in bytes.chunks_exact(Q8_0::BYTES).enumerate() {
                        to[2 * i..][..2].copy_from_slice(&block[..2]);
                        to[scales + BLOCK * i..][..BLOCK].copy_from_slice(&block[2..]);
                    }
                }
                Self::Q4_0 => {
                    for (i, block) in bytes.chunks_exact(Q4_0::BYTES).enumerate() {
                        to[2 * i..][..2].copy_from_slice(&block[..2]);
                        // The first half of a block's codes are ggml's low nibbles; here neighbours share a byte.
                        let code = |k: usize| (block[2 + k % 16] >> (4 * (k / 16))) & 15;
                        for (k, byte) in to[scales + BLOCK / 2 * i..][..BLOCK / 2].iter_mut().enumerate() {
                            *byte = code(2 * k) | code(2 * k + 1) << 4;
                        }
                    }
                }
            }
        });
        Ok(plane)
    }

    /// The numbers of a row, without its head.
    pub(super) fn decode_row(self, row: &[u32], rank: usize) -> Vec<f32> {
        let bytes: &[u8] = bytemuck::cast_slice(row);
        let codes = &bytes[4 * if self.step() == 8 { 0 } else { Self::scale_words(rank) }..];
        let scale = |k: usize| Dense::F16.get(bytes, k / BLOCK);
        let number = |k: usize| match self {
            Self::Bf16 => Dense::Bf16.get(bytes, k),
            Self::F16 => Dense::F16.get(bytes, k),
            Self::Q8_0 => scale(k) * f32::from(codes[k] as i8),
            Self::Q4_0 => scale(k) * (f32::from((codes[k / 2] >> (4 * (k % 2))) & 15) - 8.0),
        };
        (0..rank).map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_what_the_codec_of_their_name_does() {
        let (rows, rank) = (3, 96);
        let b: Vec<f32> = (0..rows * rank).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        for factors in [Factors::Bf16, Factors::F16, Factors::Q8_0, Factors::Q4_0] {
            let plane = factors.encode_rows(&b, rows, rank).unwrap();
            let expected = factors.codec().encode(&b, rows, rank).unwrap().decode();
            let words = HEAD + factors.words(rank);
            assert_eq!(plane.len(), rows * words);
            for row in 0..rows {
                let found = factors.decode_row(&plane[row * words + HEAD..][..words - HEAD], rank);
                assert_eq!(found, expected[row * rank..][..rank], "{factors:?}");
            }
        }
    }
}
