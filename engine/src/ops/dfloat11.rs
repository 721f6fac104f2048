//! Weights that stay DFloat11 on the GPU: expanded to bf16 right before they are used, or looked up row by row.
//!
//! In: a [`Group`], uploaded in [`Stream::upload`] as it is but for the order of bytes in the stream's words. Out: bf16 weights in a
//! buffer ([`Stream::expand`]), in the layout of dense ones, or rows of an embedding table ([`Stream::embed`]). The kernel is
//! `entropy/dfloat11`, its twin [`Group::decode`].

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::linear::Rows;
use super::{Bindings, OpsError};
use crate::codec::dfloat11::{BLOCK_BYTES, Group};
use crate::gpu::{Binding, Buffer, BufferSlice, Gpu, OptionValue, Purpose, Recorder};

/// Words of `gaps` that a block has.
const GAP_WORDS: usize = BLOCK_BYTES / 8 * 5 / 32;
/// What decoding a weight costs, in the floating-point operations that submissions are measured in.
const WORK: u64 = 64;

/// `Params` of entropy/dfloat11.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Params {
    block0: u32,
    blocks: u32,
    first: u32,
    last: u32,
    sign0: u32,
    rows: u32,
    offset: u32,
    grid: u32,
    cols: u32,
    table_rows: u32,
    token_offset: u32,
    stride: u32,
    accumulate: u32,
    scale: f32,
    pad: [u32; 2],
}

/// A group on the GPU.
#[derive(Debug)]
pub struct Stream {
    label: String,
    weights: u32,
    rows: u32,
    luts: Buffer,
    pieces: Vec<Piece>,
    bytes: u64,
}

/// Blocks whose tensors fit the device's bindings.
#[derive(Debug)]
struct Piece {
    /// Number of the first weight of each block, and of the weight after the last one.
    starts: Vec<u32>,
    sign0: u32,
    stream: Buffer,
    gaps: Buffer,
    positions: Buffer,
    sign_mantissa: Buffer,
}

impl Stream {
    /// Uploads a group. One that is larger than a binding may be is cut at its blocks.
    ///
    /// # Errors
    /// A group that [`Group::check`] refuses, or that the device has no room for.
    pub fn upload(gpu: &Gpu, group: &Group, label: &str) -> Result<Self, OpsError> {
        let limits = gpu.limits();
        Self::upload_cut(gpu, group, label, limits.max_storage_buffer_binding_size.min(limits.max_buffer_size))
    }

    /// Uploads in pieces of which no tensor has more than `limit` bytes.
    fn upload_cut(gpu: &Gpu, group: &Group, label: &str, limit: u64) -> Result<Self, OpsError> {
        let fail = |what: String| OpsError::shape("dfloat11", format!("{label}: {what}"));
        group.check().map_err(fail)?;
        // The kernel reaches a window of weights past the last one.
        let weights = u32::try_from(group.len()).ok().filter(|n| *n <= u32::MAX - (1 << 16));
        let weights = weights.ok_or_else(|| fail(format!("{} weights in one group", group.len())))?;
        let positions = &group.output_positions;
        let upload = |what: &str, words: &[u32]| gpu.upload(&format!("{label} {what}"), words, Purpose::Weights);
        let mut pieces = Vec::new();
        let mut block = 0;
        while block < group.blocks() {
            // Of a block's tensors its stream is 4096 bytes, its signs and mantissas may be up to 32768.
            let fits = |end: usize| {
                let stream = (end - block) * BLOCK_BYTES + 8;
                let signs = (positions[end] - positions[block]) as usize + 8;
                stream.max(signs) as u64 <= limit
            };
            let mut end = group.blocks();
            while !fits(end) {
                // Halving wastes at most half of a binding, and a binding holds thousands of blocks.
                end = block + (end - block) / 2;
                if end == block {
                    return Err(fail(format!("a block does not fit a binding of {limit} bytes")));
                }
            }
            let starts = positions[block..=end].to_vec();
            let sign0 = positions[block] & !3;
            // The last lane of a block decodes the code after it, and a word of weights may need the byte after its last.
            let stream = big_endian(&group.encoded_exponent, block * BLOCK_BYTES, (end - block) * BLOCK_BYTES / 4 + 2);
            let gaps = big_endian(&group.gaps, 4 * GAP_WORDS * block, GAP_WORDS * (end - block) + 1);
            let signs = (positions[end] - sign0) as usize / 4 + 1;
            let signs = little_endian(&group.sign_mantissa, sign0 as usize, signs);
            pieces.push(Piece {
                sign0,
                stream: upload("stream", &stream)?,
                gaps: upload("gaps", &gaps)?,
                positions: upload("positions", &starts)?,
                sign_mantissa: upload("signs and mantissas", &signs)?,
                starts,
            });
            block = end;
        }
        let luts = upload("tables", &little_endian(&group.luts, 0, group.luts.len() / 4))?;
        let of_piece =
            |p: &Piece| [&p.stream, &p.gaps, &p.positions, &p.sign_mantissa].map(Buffer::size).iter().sum::<u64>();
        let bytes = luts.size() + pieces.iter().map(of_piece).sum::<u64>();
        Ok(Self { label: label.to_owned(), weights, rows: (group.luts.len() / 256) as u32, luts, pieces, bytes })
    }

    /// Weights in it.
    pub fn weights(&self) -> u32 {
        self.weights
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bindings' worth of blocks it is cut into.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Records the weights of `range` into `out` from its word `at` on: bf16, two a word, the first in the low half.
    ///
    /// # Errors
    /// A range that does not begin at an even weight or ends behind the last one, a buffer that is too small, what the device refuses.
    pub fn expand(&self, rec: &mut Recorder, range: Range<u32>, out: &BufferSlice, at: u32) -> Result<(), OpsError> {
        if !range.start.is_multiple_of(2) || range.start > range.end || range.end > self.weights {
            let (label, weights) = (&self.label, self.weights);
            let what = format!("{label}: weights {range:?} of {weights}; they must be there and begin at an even one");
            return Err(OpsError::shape("dfloat11", what));
        }
        super::holds("dfloat11", "weights", out, u64::from(at) + u64::from(range.end - range.start).div_ceil(2))?;
        let gpu = rec.gpu().clone();
        let kernel = gpu.kernel("entropy/dfloat11", &[("GATHER", OptionValue::from(false))])?;
        let most = gpu.limits().max_compute_workgroups_per_dimension;
        for piece in &self.pieces {
            let blocks = piece.blocks_of(&range);
            if blocks.is_empty() {
                continue;
            }
            let grid = (blocks.len() as u32).min(most);
            let params = Params {
                block0: blocks.start as u32,
                blocks: blocks.len() as u32,
                first: range.start,
                last: range.end,
                sign0: piece.sign0,
                rows: self.rows,
                offset: at,
                grid,
                ..Params::zeroed()
            };
            let mut bindings = Bindings::from_iter(self.bindings(piece));
            bindings.push(("weights", out.into()));
            rec.dispatch(&kernel, &bindings, &params, [grid, params.blocks.div_ceil(grid), 1])?;
        }
        rec.work(WORK * u64::from(range.end - range.start))?;
        Ok(())
    }

    /// `y[t, :] = scale · W[ids[first_id + t], :]` for `tokens` rows of the table `[rows, cols]` that the group is; `accumulate`:
    /// `y[t, :] += …`. Only the blocks in which those rows are get decoded. An id past the table leaves its row as it was.
    ///
    /// # Errors
    /// A group that is not that table, what the device refuses. The caller has checked `ids` and `y`.
    pub(super) fn embed(
        &self,
        rec: &mut Recorder,
        [rows, cols]: [u32; 2],
        ids: &Buffer,
        first_id: u32,
        tokens: u32,
        y: Rows,
        scale: f32,
        accumulate: bool,
    ) -> Result<(), OpsError> {
        if u64::from(rows) * u64::from(cols) != u64::from(self.weights) {
            let what = format!("{}: {} weights are no table of {rows} x {cols}", self.label, self.weights);
            return Err(OpsError::shape("dfloat11", what));
        }
        let gpu = rec.gpu().clone();
        let kernel = gpu.kernel("entropy/dfloat11", &[("GATHER", OptionValue::from(true))])?;
        let most = gpu.limits().max_compute_workgroups_per_dimension;
        for piece in &self.pieces {
            for start in (0..tokens).step_by(most as usize) {
                let count = most.min(tokens - start);
                let params = Params {
                    blocks: piece.starts.len() as u32 - 1,
                    sign0: piece.sign0,
                    rows: self.rows,
                    offset: y.offset + start * y.stride,
                    grid: 1,
                    cols,
                    table_rows: rows,
                    token_offset: first_id + start,
                    stride: y.stride,
                    accumulate: accumulate.into(),
                    scale,
                    ..Params::zeroed()
                };
                let mut bindings = Bindings::from_iter(self.bindings(piece));
                bindings.extend([("tokens", ids.into()), ("y", y.buffer.into())]);
                rec.dispatch(&kernel, &bindings, &params, [1, count, 1])?;
            }
        }
        // A row is in a block or two.
        rec.work(WORK * u64::from(tokens) * (2 * 8 * BLOCK_BYTES as u64 / 3 + u64::from(cols)))?;
        Ok(())
    }

    fn bindings<'a>(&'a self, piece: &'a Piece) -> [(&'static str, Binding<'a>); 5] {
        [
            ("luts", (&self.luts).into()),
            ("stream", (&piece.stream).into()),
            ("gaps", (&piece.gaps).into()),
            ("positions", (&piece.positions).into()),
            ("sign_mantissa", (&piece.sign_mantissa).into()),
        ]
    }
}

impl Piece {
    /// The blocks in which weights of `range` start.
    fn blocks_of(&self, range: &Range<u32>) -> Range<usize> {
        let blocks = self.starts.len() - 1;
        // Block b ends where the next one starts.
        let start = self.starts[1..].partition_point(|end| *end <= range.start);
        let end = self.starts[..blocks].partition_point(|begin| *begin < range.end);
        start..end.max(start)
    }
}

/// `words` words from byte `start` on, the first byte highest; zeros past the end.
fn big_endian(bytes: &[u8], start: usize, words: usize) -> Vec<u32> {
    little_endian(bytes, start, words).into_iter().map(u32::swap_bytes).collect()
}

/// `words` words from byte `start` on, the first byte lowest; zeros past the end.
fn little_endian(bytes: &[u8], start: usize, words: usize) -> Vec<u32> {
    let rest = bytes.get(start..).unwrap_or_default();
    let mut all: Vec<u32> = rest
        .chunks(4)
        .take(words)
        .map(|chunk| chunk.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
        .collect();
    all.resize(words, 0);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::dfloat11::bf16_bits;
    use crate::gpu::GpuOptions;

    #[test]
    fn pieces_of_a_cut_group_and_ranges_that_end_inside_blocks_give_the_same_weights() {
        let gpu = pollster::block_on(Gpu::new(GpuOptions::default())).unwrap();
        let weights: Vec<f32> =
            (0..70_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.0).collect();
        let bits = bf16_bits(&weights);
        let group = Group::encode(&bits).unwrap();
        let whole = Stream::upload(&gpu, &group, "whole").unwrap();
        let cut = Stream::upload_cut(&gpu, &group, "cut", 20_000).unwrap();
        assert!(whole.pieces() == 1 && cut.pieces() > 3, "{} pieces", cut.pieces());
        for stream in [&whole, &cut] {
            for range in [0..70_001, 0..2, 12_346..12_347, 16_000..50_000, 69_998..70_001, 8..8] {
                let words = range.len().div_ceil(2);
                let out = gpu.upload("out", &vec![0xdead_beef_u32; words + 1], Purpose::Activations).unwrap();
                let mut rec = gpu.record();
                stream.expand(&mut rec, range.clone(), &out.all(), 0).unwrap();
                rec.submit().unwrap();
                let found: Vec<u16> = pollster::block_on(gpu.read(&out, 0, 2 * words as u64 + 2)).unwrap();
                let mut expected = bits[range.start as usize..range.end as usize].to_vec();
                expected.resize(2 * words, 0);
                assert_eq!(found[..2 * words], expected, "{range:?}");
                assert_eq!(found[2 * words..], [0xbeef, 0xdead], "{range:?}: a write behind the end");
            }
        }
        let out = gpu.storage("out", 64, Purpose::Activations).unwrap().all();
        let mut rec = gpu.record();
        for range in [1..3, 0..70_002, 0..60] {
            assert!(whole.expand(&mut rec, range, &out, 0).is_err());
        }
    }
}
