//! Moments of activations, summed up on the GPU: Σ x xᵀ and Σ x over the tokens of a text, of which calibrated codecs are made.

use super::linear::Rows;
use super::{OpsError, span};
use crate::gpu::{Buffer, Gpu, Purpose, Recorder};

const OP: &str = "calibrate/moments";
/// Columns of a tile of Σ x xᵀ.
const TILE: u32 = 64;
/// Bytes of a tile.
const TILE_BYTES: u64 = 4 * (TILE as u64) * (TILE as u64);
/// Tokens that one dispatch sums in registers: what rounding costs grows with this and with the number of such pieces.
const TOKENS: u32 = 128;

/// `Params` of calibrate/moments.wgsl.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    cols: u32,
    tokens: u32,
    x_offset: u32,
    x_stride: u32,
    side: u32,
    width: u32,
    first: u32,
    count: u32,
    base: u32,
    grid: u32,
    pad: [u32; 2],
}

/// Sums over tokens that are still going on: Σ x xᵀ, of which only the tiles on and above the diagonal are kept, and Σ x.
#[derive(Debug)]
pub struct Moments {
    cols: u32,
    /// Tiles of each buffer.
    buffer_tiles: u32,
    /// `[tiles, 64, 64]`, as many tiles as a binding may hold in each.
    tiles: Vec<Buffer>,
    /// `[cols]`, padded to whole tiles.
    sums: Buffer,
    tokens: u64,
}

/// What was summed up, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// Inputs that were seen.
    pub tokens: u64,
    /// Σ x, `[cols]`.
    pub first: Vec<f32>,
    /// Σ x xᵀ, `[cols, cols]`, symmetric.
    pub second: Vec<f32>,
}

/// Tiles in a row of the matrix, of the rectangle they are numbered in, and in all.
fn tiles_of(cols: u32) -> [u32; 3] {
    let side = cols.div_ceil(TILE);
    [side, side | 1, side * (side + 1) / 2]
}

/// Tile row and tile column of a tile; as in the kernel.
fn place_of(tile: u32, side: u32) -> [u32; 2] {
    let width = side | 1;
    let (r, c) = (tile / width, tile % width);
    if c < side - r {
        return [r, r + c];
    }
    let row = 2 * side - width - r;
    [row, row + c - (side - r)]
}

impl Moments {
    /// Zeros for inputs of `cols` columns.
    ///
    /// # Errors
    /// [`OpsError::Shape`] for no columns or more than a kernel can index; what the device has no room for.
    pub fn new(gpu: &Gpu, cols: u32) -> Result<Self, OpsError> {
        // Up to here tiles and the floats of one buffer are numbered in u32 with room to spare.
        if cols == 0 || cols > 1 << 20 {
            return Err(OpsError::shape(OP, format!("inputs of {cols} columns")));
        }
        let [side, _, count] = tiles_of(cols);
        let binding = gpu.limits().max_storage_buffer_binding_size.min(gpu.limits().max_buffer_size);
        let buffer_tiles = (binding / TILE_BYTES).clamp(1, 1 << 17) as u32;
        let make = |first: u32| {
            let bytes = u64::from(buffer_tiles.min(count - first)) * TILE_BYTES;
            gpu.storage("second moments", bytes, Purpose::Activations)
        };
        let tiles = (0..count).step_by(buffer_tiles as usize).map(make).collect::<Result<_, _>>()?;
        let sums = gpu.storage("first moments", 4 * u64::from(side) * u64::from(TILE), Purpose::Activations)?;
        Ok(Self { cols, buffer_tiles, tiles, sums, tokens: 0 })
    }

    /// Bytes on the GPU that the sums of `cols` columns take.
    pub fn bytes(cols: u32) -> u64 {
        let [side, _, count] = tiles_of(cols);
        u64::from(count) * TILE_BYTES + 4 * u64::from(side) * u64::from(TILE)
    }

    /// Columns of the inputs.
    pub fn cols(&self) -> u32 {
        self.cols
    }

    /// Records the addition of `tokens` inputs `[tokens, cols]`.
    ///
    /// # Errors
    /// [`OpsError::BufferTooSmall`], rows that are not aligned ([`Rows`]), or [`OpsError::Gpu`] from recording.
    pub fn add(&mut self, rec: &mut Recorder, tokens: u32, x: Rows) -> Result<(), OpsError> {
        let gpu = rec.gpu().clone();
        let aligned = self.cols.is_multiple_of(4) && x.offset.is_multiple_of(4) && x.stride.is_multiple_of(4);
        let kernel = gpu.kernel(OP, &[("TAIL", (!aligned).into())])?;
        if tokens > 1 && x.stride < self.cols {
            return Err(OpsError::shape(OP, format!("rows of {} floats every {}", self.cols, x.stride)));
        }
        super::holds(OP, "x", &x.buffer.all(), span(x.offset, tokens, x.stride, self.cols))?;
        let [side, width, count] = tiles_of(self.cols);
        let most_groups = gpu.limits().max_compute_workgroups_per_dimension;
        for start in (0..tokens).step_by(TOKENS as usize) {
            let piece = TOKENS.min(tokens - start);
            let tile_flops = 2 * u64::from(TILE * TILE) * u64::from(piece);
            // No dispatch may keep the device for longer than a submission should last.
            let at_once = (gpu.flops_per_submission() / tile_flops).clamp(1, u64::from(self.buffer_tiles)) as u32;
            for (buffer, base) in self.tiles.iter().zip((0..count).step_by(self.buffer_tiles as usize)) {
                let end = count.min(base + self.buffer_tiles);
                for first in (base..end).step_by(at_once as usize) {
                    let count = at_once.min(end - first);
                    let grid = count.min(most_groups);
                    let params = Params {
                        cols: self.cols,
                        tokens: piece,
                        x_offset: x.offset + start * x.stride,
                        x_stride: x.stride,
                        side,
                        width,
                        first,
                        count,
                        base,
                        grid,
                        pad: [0; 2],
                    };
                    let bindings = [("x", x.buffer), ("moments", buffer), ("sums", &self.sums)];
                    rec.dispatch(&kernel, &bindings, &params, [grid, count.div_ceil(grid), 1])?;
                    rec.work(tile_flops * u64::from(count))?;
                }
            }
        }
        self.tokens += u64::from(tokens);
        Ok(())
    }

    /// Waits for the device and reads the sums.
    ///
    /// # Errors
    /// [`OpsError::Gpu`].
    pub async fn read(&self, gpu: &Gpu) -> Result<Sums, OpsError> {
        let [side, ..] = tiles_of(self.cols);
        let cols = self.cols as usize;
        let tile = TILE as usize;
        let mut second = vec![0.0f32; cols * cols];
        let mut number = 0;
        for buffer in &self.tiles {
            // A part of the buffer at a time, for what is mapped is in memory twice.
            let (floats, step) = (buffer.size() / 4, 1u64 << 22);
            for first in (0..floats).step_by(step as usize) {
                let part: Vec<f32> = gpu.read(buffer, first, step.min(floats - first)).await?;
                for values in part.chunks_exact(tile * tile) {
                    let [i0, j0] = place_of(number, side).map(|t| t as usize * tile);
                    for i in i0..cols.min(i0 + tile) {
                        let row = &values[(i - i0) * tile..][..tile];
                        for j in j0..cols.min(j0 + tile) {
                            second[i * cols + j] = row[j - j0];
                            second[j * cols + i] = row[j - j0];
                        }
                    }
                    number += 1;
                }
            }
        }
        let first = gpu.read(&self.sums, 0, u64::from(self.cols)).await?;
        Ok(Sums { tokens: self.tokens, first, second })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_of_the_triangle_has_one_number() {
        for side in 1..40 {
            let [_, _, count] = tiles_of(side * TILE);
            let mut seen: Vec<[u32; 2]> = (0..count).map(|tile| place_of(tile, side)).collect();
            seen.sort();
            let expected: Vec<[u32; 2]> = (0..side).flat_map(|i| (i..side).map(move |j| [i, j])).collect();
            assert_eq!(seen, expected, "{side} tiles in a row");
        }
    }

    #[test]
    fn a_wide_layer_is_split_into_bindings_of_the_default_size() {
        // 14,336 columns: half of 14,336² · 4 bytes and the diagonal's tiles; four bindings of 128 MiB.
        assert_eq!(tiles_of(14336), [224, 225, 25200]);
        assert_eq!(Moments::bytes(14336), 25200 * 16384 + 4 * 14336);
        assert_eq!((128u64 << 20) / TILE_BYTES, 8192);
    }
}
