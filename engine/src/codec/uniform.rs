//! Uniform group quantization: integer codes of 2 to 8 bits, a scale for a group of 16 to 256 weights of a row.
//!
//! `w = (q − 2^(bits−1))·d`, or with a zero point `w = q·d + m`; d and m are f16. Scales (and mins) are least-squares fits,
//! see [`super::fit`]. d may be negative, so the side of the grid that reaches further can be either.
//!
//! Planes: bit-sliced codes; then one word d | m << 16 a group, or without zero point two scales a word.

use std::sync::Arc;

use super::bits::{pack, unpack};
use super::fit::{self, level};
use super::ggml::{inverse, largest};
use super::rows::{check_weights, for_each_chunk, for_each_row};
use super::spec::Options;
use super::{Codec, CodecError, CodecRef, Packed, Plane, PlaneLayout, RUN};

const BITS: &[usize] = &[2, 3, 4, 5, 6, 8];
const GROUPS: &[usize] = &[16, 32, 64, 128, 256];
/// Tries of the scale search.
const STARTS: i32 = 16;

#[derive(Debug, Clone, Copy)]
struct Uniform {
    bits: usize,
    group: usize,
    zero: bool,
}

/// Builds the codec from `bits=…`, `group=…` and `zero`.
pub(super) fn build(options: Options) -> Result<CodecRef, CodecError> {
    options.only(&["bits", "group", "zero"], "bits, group, zero")?;
    Ok(Arc::new(Uniform {
        bits: options.number("bits", BITS, None)?,
        group: options.number("group", GROUPS, Some(64))?,
        zero: options.switch("zero", false)?,
    }))
}

/// Bits of the f16 nearest to a value.
fn half_bits(value: f32) -> u32 {
    half::f16::from_f32(value).to_bits().into()
}

/// The f16 in the low bits of a word.
fn half_value(bits: u32) -> f32 {
    half::f16::from_bits(bits as u16).to_f32()
}

impl Uniform {
    fn layouts(&self, cols: usize) -> [PlaneLayout; 2] {
        let groups = cols / self.group;
        let scales = if self.zero { groups } else { groups.div_ceil(2) };
        [cols / RUN * self.bits, scales].map(PlaneLayout::per_row)
    }

    /// The value of code 0 in steps, without a zero point.
    fn lowest(&self) -> f32 {
        -((1 << (self.bits - 1)) as f32)
    }

    /// Step and value of code 0 of group `i` of a row.
    fn grid(&self, scales: &[u32], i: usize) -> (f32, f32) {
        if self.zero {
            (half_value(scales[i]), half_value(scales[i] >> 16))
        } else {
            let d = half_value(scales[i / 2] >> (16 * (i % 2)));
            (d, self.lowest() * d)
        }
    }

    /// Fits a group; returns the words' worth of its grid: d, or d | m << 16.
    fn fit(&self, weights: &[f32]) -> u32 {
        // Coarse grids gain by clipping: the extreme weight is tried at up to (1 + 4 / 2^(bits − 1)) times the range.
        let reach = 4.0 / -self.lowest();
        let spread = |i: i32| 1.0 + reach * (i as f32 / STARTS as f32) - 0.05;
        if self.zero {
            let levels = -2.0 * self.lowest() - 1.0;
            let starts = (0..STARTS).flat_map(|i| [0.25, 0.5, 0.75].map(|low| (levels * spread(i), low)));
            let grid = fit::affine(weights, levels, false, starts);
            half_bits(grid.s) | half_bits(grid.m) << 16
        } else {
            let (lo, hi) = (self.lowest(), -self.lowest() - 1.0);
            let starts = (0..STARTS).flat_map(|i| [lo, -lo].map(|end| end * spread(i)));
            half_bits(fit::symmetric(weights, lo, hi, starts))
        }
    }

    /// The nearest codes of a group on its (rounded) grid.
    fn codes(&self, weights: &[f32], d: f32, first: f32, codes: &mut [u8]) {
        let levels = -2.0 * self.lowest() - 1.0;
        let id = inverse(d);
        for (q, w) in codes.iter_mut().zip(weights) {
            *q = level((w - first) * id, 0.0, levels) as u8;
        }
    }
}

impl Codec for Uniform {
    fn name(&self) -> String {
        let Self { bits, group, zero } = self;
        format!("uniform:bits={bits},group={group}{}", if *zero { ",zero" } else { "" })
    }

    fn module(&self) -> &'static str {
        "uniform"
    }

    fn defines(&self) -> Vec<(&'static str, u32)> {
        let split = self.group < RUN;
        let mut defines = vec![("BITS", self.bits as u32), ("ZERO", self.zero.into()), ("SPLIT", split.into())];
        if !split {
            defines.push(("GROUP_RUNS", (self.group / RUN) as u32));
        }
        defines
    }

    fn block_len(&self) -> usize {
        self.group.max(RUN)
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        self.layouts(cols).into()
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        let mut planes = self.layouts(cols).map(|layout| Plane::zeroed(layout, rows));
        for_each_row(&mut planes, |row, [words, scales]| {
            let weights = &weights[row * cols..][..cols];
            let mut codes = vec![0; cols];
            for (i, (weights, codes)) in weights.chunks(self.group).zip(codes.chunks_mut(self.group)).enumerate() {
                let grid = self.fit(weights);
                if self.zero {
                    scales[i] = grid;
                } else {
                    scales[i / 2] |= grid << (16 * (i % 2));
                }
                let (d, first) = self.grid(scales, i);
                if !(d.is_finite() && first.is_finite()) {
                    let (at, value) = largest(weights);
                    return Err(CodecError::TooLarge { codec: self.name(), row, col: i * self.group + at, value });
                }
                self.codes(weights, d, first, codes);
            }
            pack(self.bits, &codes, words);
            Ok(())
        })?;
        Ok(Packed { codec: Arc::new(*self), rows, cols, planes: planes.into() })
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        let [words_a_row, scales_a_row] = [0, 1].map(|plane| packed.planes[plane].row_words as usize);
        let mut weights = vec![0.0; packed.rows * packed.cols];
        for_each_chunk(&mut weights, packed.cols, |row, weights| {
            let mut codes = vec![0; weights.len()];
            unpack(self.bits, &packed.planes[0].data[row * words_a_row..][..words_a_row], &mut codes);
            let scales = &packed.planes[1].data[row * scales_a_row..][..scales_a_row];
            for (i, (weights, codes)) in weights.chunks_mut(self.group).zip(codes.chunks(self.group)).enumerate() {
                let (d, first) = self.grid(scales, i);
                for (w, &q) in weights.iter_mut().zip(codes) {
                    let q = f32::from(q);
                    *w = if self.zero { q * d + first } else { (q + self.lowest()) * d };
                }
            }
        });
        weights
    }

    fn fallback(&self) -> CodecRef {
        match self.group / 2 {
            group if group >= RUN => Arc::new(Self { group, ..*self }),
            _ => Arc::new(super::dense::Dense::F16),
        }
    }
}
