//! A group of weights in DFloat11's form: what the format's tensors hold, made from bf16 and decoded back on the CPU.
//!
//! The decoder is the twin of `shaders/wgsl/entropy/dfloat11.wgsl`: blocks of [`BLOCK_BYTES`] of the stream, which know the number of
//! their first weight, are cut into chunks of 64 bits, which know where their first code starts. Chunks count their codes, the counts
//! are summed, and then every chunk can write its weights.

use std::ops::Range;

use super::code::{Code, ESCAPE, LONGEST};
use crate::codec::rows::for_each_chunk;

/// Bytes of the stream that one block decodes.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of the stream that one thread of the reference decodes.
const CHUNK_BYTES: usize = 8;
/// Chunks of a block.
const CHUNKS: usize = BLOCK_BYTES / CHUNK_BYTES;
/// Bytes that the gaps of a block take: five bits a chunk.
const GAP_BYTES: usize = CHUNKS * 5 / 8;
/// Rows of `luts` at most: the root, 16 tables that an entry can lead to, the lengths.
pub const MOST_ROWS: usize = 18;

/// Why weights cannot be brought into this form; they stay bf16 then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This weight is 2^113 or more, or not a number: its exponent would be taken for an escape.
    #[error("weight {at} is 2^113 or more, or not a number: leave its matrix bf16")]
    Exponent { at: usize },
    /// Exponents so widely spread that their code needs too many tables.
    #[error("exponents are spread too widely to be coded: leave the matrix bf16")]
    Tables,
    /// Fewer than one weight, or more than positions of 32 bits can count.
    #[error("a group has 1 to 4294967295 weights")]
    Count,
}

/// Weights in DFloat11's form, as the tensors of the format hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// `[tables + 1, 256]`.
    pub luts: Vec<u8>,
    /// Codes of the exponents, first bit highest.
    pub encoded_exponent: Vec<u8>,
    /// Sign and mantissa of every weight.
    pub sign_mantissa: Vec<u8>,
    /// Number of the first weight whose code starts in each block; then the number of weights.
    pub output_positions: Vec<u32>,
    /// Offset of the first code that starts in each chunk, five bits each, first bit highest.
    pub gaps: Vec<u8>,
}

impl Group {
    /// Encodes bf16 weights.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn encode(weights: &[u16]) -> Result<Self, Refused> {
        if weights.is_empty() || u32::try_from(weights.len()).is_err() {
            return Err(Refused::Count);
        }
        let mut counts = [0u64; 256];
        weights.iter().for_each(|w| counts[usize::from(exponent(*w))] += 1);
        if counts[usize::from(ESCAPE)..].iter().any(|count| *count > 0) {
            let at = weights.iter().position(|w| exponent(*w) >= ESCAPE).unwrap_or(0);
            return Err(Refused::Exponent { at });
        }
        let code = Code::of(&counts).ok_or(Refused::Tables)?;
        let words = code.by_exponent();
        let bits: u64 = words.iter().zip(counts).map(|(word, count)| u64::from(word.len) * count).sum();
        let bytes = usize::try_from(bits.div_ceil(8)).map_err(|_| Refused::Count)?;
        let blocks = bytes.div_ceil(BLOCK_BYTES);

        let mut encoded_exponent = Vec::with_capacity(bytes + 8);
        let mut output_positions = Vec::with_capacity(blocks + 1);
        let mut starts = Bits { bytes: Vec::with_capacity(blocks * GAP_BYTES), pending: 0, count: 0 };
        let mut out = Bits { bytes: std::mem::take(&mut encoded_exponent), pending: 0, count: 0 };
        let (mut at, mut chunks) = (0u64, 0u64); // bits so far, chunks that a code has started in
        for (number, weight) in weights.iter().enumerate() {
            if at / 64 >= chunks {
                if chunks.is_multiple_of(CHUNKS as u64) {
                    output_positions.push(number as u32);
                }
                starts.push((at % 64) as u32, 5);
                chunks += 1;
            }
            let word = words[usize::from(exponent(*weight))];
            out.push(word.bits as u32, word.len);
            at += u64::from(word.len);
        }
        let missing = (8 - at % 8) % 8;
        let fill = code.end.len.min(missing as u32);
        out.push((code.end.bits >> (code.end.len - fill)) as u32, fill);
        encoded_exponent = out.finish();
        let mut gaps = starts.finish();
        gaps.resize(blocks * GAP_BYTES, 0);
        // A block in which only the end of the last code lies.
        output_positions.resize(blocks, weights.len() as u32);
        output_positions.push(weights.len() as u32);
        let mut sign_mantissa = vec![0; weights.len()];
        for_each_chunk(&mut sign_mantissa, 1 << 16, |piece, bytes| {
            for (byte, w) in bytes.iter_mut().zip(&weights[piece << 16..]) {
                *byte = ((w >> 8) & 0x80) as u8 | (w & 0x7f) as u8;
            }
        });
        Ok(Self { luts: code.luts(), encoded_exponent, sign_mantissa, output_positions, gaps })
    }

    /// Weights in it.
    pub fn len(&self) -> usize {
        self.sign_mantissa.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.sign_mantissa.is_empty()
    }

    /// Blocks of its stream.
    pub fn blocks(&self) -> usize {
        self.encoded_exponent.len().div_ceil(BLOCK_BYTES)
    }

    /// Bytes of all its tensors.
    pub fn bytes(&self) -> u64 {
        let Self { luts, encoded_exponent, sign_mantissa, output_positions, gaps } = self;
        let bytes = [luts.len(), encoded_exponent.len(), sign_mantissa.len(), 4 * output_positions.len(), gaps.len()];
        bytes.iter().map(|&n| n as u64).sum()
    }

    /// Refuses tensors that do not belong together, or tables that lead nowhere. A group that passes decodes to *something* in bounded
    /// time, whatever its stream says: a stream that is damaged gives wrong weights.
    ///
    /// # Errors
    /// What is wrong, naming the tensor.
    pub fn check(&self) -> Result<(), String> {
        let (rows, ragged) = (self.luts.len() / 256, self.luts.len() % 256);
        if ragged != 0 || !(2..=MOST_ROWS).contains(&rows) {
            return Err(format!("luts: {} bytes are not 2 to {MOST_ROWS} rows of 256", self.luts.len()));
        }
        let (tables, lengths) = self.luts.split_at(256 * (rows - 1));
        // Keys before the first code can only be the end of the file: they were never set.
        let unset = if lengths[0] == 0 { tables[..256].iter().take_while(|entry| **entry == 0).count() } else { 0 };
        for (at, &entry) in tables.iter().enumerate().skip(unset) {
            let table = 256 - usize::from(entry);
            if entry >= ESCAPE && table >= rows - 1 {
                return Err(format!("luts: entry {} of table {} leads to no table", at % 256, at / 256));
            }
            let len = lengths[usize::from(entry)];
            if entry < ESCAPE && !(1..=LONGEST).contains(&u32::from(len)) {
                return Err(format!("luts: exponent {entry} has a code of {len} bits"));
            }
        }
        let blocks = self.blocks();
        if self.output_positions.len() != blocks + 1 {
            return Err(format!("output_positions: {} for {blocks} blocks", self.output_positions.len()));
        }
        let ordered = self.output_positions.first() == Some(&0) && self.output_positions.is_sorted();
        if !ordered || self.output_positions.last().map(|&n| n as usize) != Some(self.len()) {
            return Err(format!("output_positions: they do not rise from 0 to the {} weights", self.len()));
        }
        if self.output_positions.windows(2).any(|pair| pair[1] - pair[0] > 8 * BLOCK_BYTES as u32) {
            return Err("output_positions: more weights in a block than it has bits".to_owned());
        }
        if self.gaps.len() != blocks * GAP_BYTES {
            return Err(format!("gaps: {} bytes for {blocks} blocks of {GAP_BYTES}", self.gaps.len()));
        }
        Ok(())
    }

    /// The weights, bf16.
    pub fn decode(&self) -> Vec<u16> {
        self.decode_range(0..self.len())
    }

    /// Some of the weights.
    pub fn decode_range(&self, range: Range<usize>) -> Vec<u16> {
        let range = range.start.min(self.len())..range.end.min(self.len());
        let mut weights = vec![0u16; range.len()];
        let positions = &self.output_positions;
        let bounds = |block: usize| (positions[block] as usize)..(positions[block + 1] as usize);
        let blocks = positions.len().saturating_sub(1);
        // Blocks own the weights between their positions, so that they can be decoded side by side.
        let mut rest = &mut weights[..];
        let mut work = Vec::new();
        for block in 0..blocks {
            let Range { start, end } = bounds(block);
            let (start, end) = (start.clamp(range.start, range.end), end.clamp(range.start, range.end));
            if start < end {
                let length = (end - start).min(rest.len());
                let (own, others) = std::mem::take(&mut rest).split_at_mut(length);
                rest = others;
                work.push((block, start, own));
            }
        }
        for_each_chunk(&mut work, 1, |_, piece| {
            for (block, start, own) in piece {
                self.decode_block(*block, *start, own);
            }
        });
        weights
    }

    /// Writes the weights of a block from number `first` on.
    fn decode_block(&self, block: usize, first: usize, out: &mut [u16]) {
        let mut at = self.output_positions[block] as usize;
        for chunk in block * CHUNKS..(block + 1) * CHUNKS {
            let mut bit = self.gap(chunk);
            while bit < 64 && at < first + out.len() {
                let (exponent, len) = self.symbol(self.window(64 * chunk as u64 + u64::from(bit)));
                if let Some(out) = at.checked_sub(first).and_then(|at| out.get_mut(at)) {
                    let sm = u16::from(self.sign_mantissa[at]);
                    *out = (sm & 0x80) << 8 | u16::from(exponent) << 7 | sm & 0x7f;
                }
                bit += len;
                at += 1;
            }
        }
    }

    /// 32 bits of the stream from bit `at` on; zeros past its end.
    fn window(&self, at: u64) -> u32 {
        let start = (at / 8) as usize;
        let bytes = (start..start + 5).map(|i| self.encoded_exponent.get(i).copied().unwrap_or(0));
        let wide = bytes.fold(0u64, |wide, byte| wide << 8 | u64::from(byte));
        (wide >> (8 - at % 8)) as u32
    }

    /// Offset of the first code of a chunk.
    fn gap(&self, chunk: usize) -> u32 {
        let byte = |i: usize| u32::from(self.gaps.get(i).copied().unwrap_or(0));
        let (at, shift) = (5 * chunk / 8, 5 * chunk % 8);
        ((byte(at) << 8 | byte(at + 1)) >> (11 - shift)) & 31
    }

    /// The exponent whose code `window` begins with, and the code's length.
    fn symbol(&self, window: u32) -> (u8, u32) {
        let lengths = self.luts.len() - 256;
        let mut entry = self.luts[(window >> 24) as usize];
        for shift in [16, 8, 0] {
            if entry < ESCAPE {
                break;
            }
            let table = (256 - usize::from(entry)).min(lengths / 256 - 1);
            entry = self.luts[256 * table + (window >> shift & 255) as usize];
        }
        (entry, u32::from(self.luts[lengths + usize::from(entry)]).clamp(1, LONGEST))
    }
}

/// The exponent's bits of a bf16.
fn exponent(weight: u16) -> u8 {
    (weight >> 7) as u8
}

/// Bits on their way to bytes, the first one highest.
struct Bits {
    bytes: Vec<u8>,
    /// Fewer than 8 bits that fill no byte yet.
    pending: u64,
    count: u32,
}

impl Bits {
    /// At most 32 bits.
    fn push(&mut self, bits: u32, len: u32) {
        self.pending = self.pending << len | u64::from(bits);
        self.count += len;
        while self.count >= 8 {
            self.count -= 8;
            self.bytes.push((self.pending >> self.count) as u8);
        }
        self.pending &= (1 << self.count) - 1;
    }

    /// Pads with zeros.
    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.push(0, 8 - self.count);
        }
        self.bytes
    }
}
