//! Uniform group quantization: integer codes of 2 to 8 bits, a scale for a group of 16 to 256 weights of a row.
//!
//! `w = (q − 2^(bits−1))·d`, or with a zero point `w = q·d + m`; d and m are f16. Scales (and mins) are least-squares fits,
//! see [`super::fit`]. d may be negative, so the side of the grid that reaches further can be either.
//!
//! With `gptq` the weights of a row make up for one another's errors on inputs like those of a calibration text (Frantar et al. 2022,
//! arXiv 2210.17323; [`super::hessian`]): grids are fitted to what a group's weights have become by then. The format is the same.
//!
//! Planes: bit-sliced codes; then one word d | m << 16 a group, or without zero point two scales a word.

use std::sync::Arc;

use super::bits::{pack, unpack};
use super::fit::{self, level};
use super::ggml::{inverse, largest};
use super::hessian::{self, Hessian, Order, Replace};
use super::rows::{check_weights, for_each_chunk, for_each_row};
use super::spec::Options;
use super::{Calibrates, Calibration, Codec, CodecError, CodecRef, Packed, Plane, PlaneLayout, RUN, Symbols};

const BITS: &[usize] = &[2, 3, 4, 5, 6, 8];
const GROUPS: &[usize] = &[16, 32, 64, 128, 256];
/// Tries of the scale search.
const STARTS: i32 = 16;
/// Share of the inputs' mean square that `gptq` adds to all of them.
const DAMPING: f64 = 0.01;

#[derive(Debug, Clone, Copy)]
struct Uniform {
    bits: usize,
    group: usize,
    zero: bool,
    gptq: bool,
}

/// Builds the codec from `bits=…`, `group=…`, `zero` and `gptq`.
pub(super) fn build(options: Options) -> Result<CodecRef, CodecError> {
    options.only(&["bits", "group", "zero", "gptq"], "bits, group, zero, gptq")?;
    Ok(Arc::new(Uniform {
        bits: options.number("bits", BITS, None)?,
        group: options.number("group", GROUPS, Some(64))?,
        zero: options.switch("zero", false)?,
        gptq: options.switch("gptq", false)?,
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

    /// Fits group `i` of a row and stores its grid; returns it, unless it does not fit an f16.
    fn put(&self, scales: &mut [u32], i: usize, weights: &[f32]) -> Option<(f32, f32)> {
        let grid = self.fit(weights);
        if self.zero {
            scales[i] = grid;
        } else {
            scales[i / 2] |= grid << (16 * (i % 2));
        }
        Some(self.grid(scales, i)).filter(|(d, first)| d.is_finite() && first.is_finite())
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

/// A row while its weights make up for one another.
struct Row<'a> {
    codec: &'a Uniform,
    hessian: &'a Hessian,
    scales: &'a mut [u32],
    codes: Vec<u8>,
    /// The current group's.
    grid: (f32, f32),
    failed: bool,
}

impl Replace for Row<'_> {
    fn group(&mut self, group: hessian::Group) {
        let place = self.hessian.order()[group.first()] / self.codec.group;
        for weights in group.rows() {
            let grid = self.codec.put(self.scales, place, weights);
            self.failed |= grid.is_none();
            self.grid = grid.unwrap_or_default();
        }
    }

    fn column(&mut self, at: usize, weights: &mut [f32]) {
        let (d, first) = self.grid;
        let place = self.hessian.order()[at];
        for w in weights {
            self.codec.codes(&[*w], d, first, &mut self.codes[place..=place]);
            *w = f32::from(self.codes[place]) * d + first;
            self.failed |= !w.is_finite();
        }
    }
}

impl Codec for Uniform {
    fn name(&self) -> String {
        let Self { bits, group, zero, gptq } = self;
        let [zero, gptq] = [(zero, ",zero"), (gptq, ",gptq")].map(|(on, name)| if *on { name } else { "" });
        format!("uniform:bits={bits},group={group}{zero}{gptq}")
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
                let Some((d, first)) = self.put(scales, i, weights) else {
                    let (at, value) = largest(weights);
                    return Err(CodecError::TooLarge { codec: self.name(), row, col: i * self.group + at, value });
                };
                self.codes(weights, d, first, codes);
            }
            pack(self.bits, &codes, words);
            Ok(())
        })?;
        Ok(Packed { codec: Arc::new(*self), rows, cols, planes: planes.into() })
    }

    fn rows_apart(&self) -> bool {
        true
    }

    fn calibrates(&self) -> Calibrates {
        if self.gptq { Calibrates::Always } else { Calibrates::No }
    }

    fn encode_for(
        &self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        calibration: Option<&Calibration>,
    ) -> Result<Packed, CodecError> {
        // Tables that are looked up have no inputs: nothing makes up for their errors.
        let Some(calibration) = calibration.filter(|_| self.gptq) else { return self.encode(weights, rows, cols) };
        check_weights(self, weights, rows, cols)?;
        calibration.check(cols)?;
        let hessian = Hessian::new(calibration, DAMPING, Order::Groups(self.group))?;
        let mut planes = self.layouts(cols).map(|layout| Plane::zeroed(layout, rows));
        for_each_row(&mut planes, |row, [words, scales]| {
            let weights = &weights[row * cols..][..cols];
            let grid = (0.0, 0.0);
            let mut state = Row { codec: self, hessian: &hessian, scales, codes: vec![0; cols], grid, failed: false };
            hessian.replace(&mut weights.to_vec(), self.group, &mut state);
            if state.failed {
                let (col, value) = largest(weights);
                return Err(CodecError::TooLarge { codec: self.name(), row, col, value });
            }
            pack(self.bits, &state.codes, words);
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

    fn symbols(&self) -> Option<Symbols> {
        Some(Symbols::Codes(self.bits))
    }

    fn fallback(&self) -> CodecRef {
        match self.group / 2 {
            group if group >= RUN => Arc::new(Self { group, ..*self }),
            _ => Arc::new(super::dense::Dense::F16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Lcg;
    use super::super::{Calibration, parse};

    /// Inputs that go along with one another leave room to make up for errors; such that do not leave none.
    #[test]
    fn gptq_makes_up_for_errors_where_inputs_are_alike() {
        let (rows, cols) = (24, 128);
        let mut lcg = Lcg::new(4);
        let weights: Vec<f32> = (0..rows * cols).map(|_| lcg.gaussian()).collect();
        let moment = |shared: f32| {
            let element = |i: usize| shared.powi((i / cols).abs_diff(i % cols) as i32);
            Calibration::new(100, vec![0.0; cols], (0..cols * cols).map(element).collect()).unwrap()
        };
        let loss = |recipe: &str, calibration: &Calibration| {
            let packed = parse(recipe).unwrap().encode_for(&weights, rows, cols, Some(calibration)).unwrap();
            let error: Vec<f32> = weights.iter().zip(packed.decode()).map(|(a, b)| a - b).collect();
            calibration.loss(&error)
        };
        for recipe in ["uniform:bits=3,group=64", "uniform:bits=4,group=16,zero", "uniform:bits=2,group=128"] {
            let gain = |shared: f32| loss(&format!("{recipe},gptq"), &moment(shared)) / loss(recipe, &moment(shared));
            let [alike, apart] = [0.95, 0.0].map(gain);
            println!("{recipe}: {alike:.3} of the loss with inputs that are alike, {apart:.3} without");
            assert!(alike < 0.65 && (apart - 1.0).abs() < 0.01, "{recipe}: {alike}, {apart}");
        }
    }
}
