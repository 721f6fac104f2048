//! The encoder of SpQR: [second-order](super::super::hessian) rounding in bands of 16 rows, which share a tile's statistics.
//!
//! What an error e of a weight costs is `(e / U_jj)²`, when the weights that follow make up for it. A weight is an outlier when that
//! exceeds τ, a share of what leaving out a weight of mean square would cost. Which ones a grid need not reach is found before they
//! are rounded: a weight whose absence would spare the others of its group (a coarser grid) more than τ is *likely* one, and does not
//! take part in the fit. Of the 64 grids that a group's two statistics can then name it takes the one that costs it least.

use std::sync::Arc;

use super::super::bits::pack;
use super::super::fit::level;
use super::super::ggml::{inverse, largest};
use super::super::hessian::{Group, Hessian, Order, Replace};
use super::super::rows::{check_weights, for_each_chunk};
use super::super::{Calibration, Codec, CodecError, Packed, Plane};
use super::{Grid, MOST_COLS, Outliers, RUN, STATISTIC_BITS, Spqr, TILE, put_six_bits, six_bits};

/// Share of the inputs' mean square that is added to all of them. The published encoder has 1, which lets weights do little for one
/// another; on what we tried (docs/methods/spqr.md) less is better.
const DAMPING: f64 = 0.01;
/// Bands on which the threshold for a number of outliers is tried out.
const SAMPLE: usize = 8;
/// Tries of that threshold.
const TRIES: usize = 5;
/// The largest code of a statistic.
const STATISTICS: f32 = ((1 << STATISTIC_BITS) - 1) as f32;
/// A tile's step is at least this share of its largest statistic: beyond, their common part would not fit an f16 zero point.
const FINEST: f32 = 1.0 / 1024.0;

pub(super) fn encode(
    codec: &Spqr,
    weights: &[f32],
    rows: usize,
    cols: usize,
    calibration: Option<&Calibration>,
) -> Result<Packed, CodecError> {
    check_weights(codec, weights, rows, cols)?;
    if cols > MOST_COLS {
        return Err(CodecError::TooWide { codec: codec.name(), cols, most: MOST_COLS });
    }
    let hessian = match calibration {
        Some(calibration) => {
            calibration.check(cols)?;
            let order = if codec.published { Order::Energy } else { Order::Groups(codec.group) };
            Hessian::new(calibration, DAMPING, order)?
        }
        None => Hessian::identity(cols),
    };
    let encoder = Encoder { codec, hessian: &hessian, unit: unit(&hessian, weights) };
    let tau = encoder.tau(weights);

    let layouts = codec.layouts(cols);
    let mut planes = [0, 1].map(|plane| Plane::zeroed(layouts[plane], rows));
    let mut outliers: Vec<Result<Vec<Vec<u32>>, CodecError>> = vec![Ok(Vec::new()); rows.div_ceil(TILE)];
    {
        let [rows_plane, tiles_plane] = &mut planes;
        let (row_words, tile_words) = (rows_plane.row_words as usize, tiles_plane.row_words as usize);
        let rows_words = rows_plane.data.chunks_mut((TILE * row_words).max(1));
        let tiles_words = tiles_plane.data.chunks_mut(tile_words.max(1));
        let mut bands: Vec<_> = rows_words.zip(tiles_words).zip(&mut outliers).collect();
        for_each_chunk(&mut bands, 1, |number, band| {
            let ((words, tile), outliers) = &mut band[0];
            let first = number * TILE;
            let weights = &weights[first * cols..rows.min(first + TILE) * cols];
            let mut state = Band::new(encoder, weights.len() / cols, tau, words, tile);
            state.run(weights);
            **outliers = if state.failed {
                let (at, value) = largest(weights);
                Err(CodecError::TooLarge { codec: codec.name(), row: first + at / cols, col: at % cols, value })
            } else {
                Ok(state.outliers)
            };
        });
    }
    let outliers: Vec<Vec<u32>> = outliers.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let permutation: Vec<u32> = if codec.published {
        hessian.order().chunks(2).map(|pair| pair[0] as u32 | (pair[1] as u32) << 16).collect()
    } else {
        Vec::new()
    };
    let [rows_plane, tiles_plane] = planes;
    let sparse = codec.sparse_plane(&permutation, outliers.iter().map(Vec::as_slice));
    Ok(Packed { codec: Arc::new(*codec), rows, cols, planes: vec![rows_plane, tiles_plane, sparse] })
}

/// What leaving out a weight costs, on average: mean of `w² / U_jj²`.
fn unit(hessian: &Hessian, weights: &[f32]) -> f64 {
    let cols = hessian.cols();
    let mut costs = vec![0.0f64; cols];
    for row in weights.chunks_exact(cols.max(1)) {
        for (cost, &col) in costs.iter_mut().zip(hessian.order()) {
            *cost += f64::from(row[col]).powi(2);
        }
    }
    let costs = costs.iter().zip(hessian.diagonal()).map(|(cost, &u)| cost / f64::from(u).powi(2));
    costs.sum::<f64>() / weights.len().max(1) as f64
}

#[derive(Debug, Clone, Copy)]
struct Encoder<'a> {
    codec: &'a Spqr,
    hessian: &'a Hessian,
    unit: f64,
}

impl Encoder<'_> {
    /// The cost from which a weight is an outlier.
    fn tau(&self, weights: &[f32]) -> f32 {
        let of = |share: f64| (share * self.unit) as f32;
        let percent = match self.codec.outliers {
            Outliers::Threshold(threshold) => return of(threshold.into()),
            Outliers::Percent(percent) => f64::from(percent),
        };
        if percent == 0.0 || self.unit == 0.0 {
            return f32::INFINITY;
        }
        // How many there are falls like a power of τ: a secant through the last two tries, on logarithms.
        let target = percent.ln();
        let mut share = if self.codec.bits == 3 { 0.2 * 2.5 / percent } else { 0.05 * 2.5 / percent };
        let mut last: Option<(f64, f64)> = None;
        for _ in 0..TRIES {
            let found = self.percent(weights, of(share)).max(1e-3).ln();
            if (found - target).abs() < 0.03 {
                break;
            }
            let slope = match last {
                Some((other, before)) if (found - before).abs() > 1e-6 && share != other => {
                    ((found - before) / (share / other).ln()).clamp(-8.0, -0.25)
                }
                _ => -1.25,
            };
            last = Some((share, found));
            share *= ((target - found) / slope).clamp(-2.0, 2.0).exp();
        }
        of(share)
    }

    /// Percent of outliers among the weights of a few bands.
    fn percent(&self, weights: &[f32], tau: f32) -> f64 {
        let cols = self.hessian.cols();
        let bands: Vec<&[f32]> = weights.chunks((TILE * cols).max(1)).collect();
        let step = bands.len().div_ceil(SAMPLE).max(1);
        let mut sample: Vec<(&[f32], usize)> = bands.iter().step_by(step).map(|band| (*band, 0)).collect();
        for_each_chunk(&mut sample, 1, |_, band| {
            let (weights, count) = &mut band[0];
            let layouts = self.codec.layouts(cols);
            let [words, tile] = [0, 1].map(|plane| layouts[plane].row_words as usize);
            let rows = weights.len() / cols;
            let (mut words, mut tile) = (vec![0; rows * words], vec![0; tile]);
            let mut state = Band::new(*self, rows, tau, &mut words, &mut tile);
            state.run(weights);
            *count = state.outliers.iter().map(Vec::len).sum();
        });
        let (count, of) =
            sample.iter().fold((0, 0), |(count, of), (weights, found)| (count + found, of + weights.len()));
        100.0 * count as f64 / of.max(1) as f64
    }
}

/// A band of 16 rows while it is encoded.
struct Band<'a> {
    encoder: Encoder<'a>,
    tau: f32,
    /// Words of the rows in plane 0, and of the tile in plane 1.
    words: &'a mut [u32],
    tile: &'a mut [u32],
    /// `[rows, cols]`, as they are stored.
    codes: Vec<u8>,
    /// The current group's, by rows.
    grids: Vec<Grid>,
    /// Entries of plane 2, by rows.
    outliers: Vec<Vec<u32>>,
    /// Something does not fit an f16.
    failed: bool,
}

impl<'a> Band<'a> {
    fn new(encoder: Encoder<'a>, rows: usize, tau: f32, words: &'a mut [u32], tile: &'a mut [u32]) -> Self {
        let codes = vec![0; rows * encoder.hessian.cols()];
        let outliers = vec![Vec::new(); rows];
        Self { encoder, tau, words, tile, codes, grids: Vec::new(), outliers, failed: false }
    }

    fn run(&mut self, weights: &[f32]) {
        let Encoder { codec, hessian, .. } = self.encoder;
        let cols = hessian.cols();
        let mut band = weights.to_vec();
        hessian.replace(&mut band, codec.group, self);
        let row_words = self.words.len() / self.outliers.len().max(1);
        let code_words = codec.code_words(cols);
        for (codes, words) in self.codes.chunks_exact(cols).zip(self.words.chunks_exact_mut(row_words)) {
            pack(codec.bits, codes, &mut words[..code_words]);
        }
        self.outliers.iter_mut().for_each(|row| row.sort_unstable_by_key(|entry| entry & 0xffff));
    }

    /// Where a column is stored that is replaced as the `at`-th.
    fn place(&self, at: usize) -> usize {
        if self.encoder.codec.published { at } else { self.encoder.hessian.order()[at] }
    }

    /// The largest code.
    fn levels(&self) -> f32 {
        ((1 << self.encoder.codec.bits) - 1) as f32
    }

    /// The grid from the smallest to the largest of `weights`, 0 among them.
    fn fit(&self, weights: impl Iterator<Item = f32>) -> Grid {
        let (min, max) = weights.fold((0.0f32, 0.0f32), |(min, max), w| (min.min(w), max.max(w)));
        let s = (max - min) / self.levels();
        Grid { s, z: -min * inverse(s) }
    }

    /// What rounding to a grid costs, weight for weight.
    fn costs(&self, grid: Grid, weights: &[f32], scales: &[f32], costs: &mut [f32]) {
        let levels = self.levels();
        let inverse = inverse(grid.s);
        for ((cost, &w), u) in costs.iter_mut().zip(weights).zip(scales) {
            let rounded = (level(w * inverse + grid.z, 0.0, levels) - grid.z) * grid.s;
            *cost = ((w - rounded) / u).powi(2);
        }
    }

    /// The codes of a group's statistics, on the grids of their tile, that cost the group least. The nearest to what was fitted are where
    /// it starts from, but a step and a zero point that are each rounded to nearest seldom are the best pair.
    fn best_codes(&self, nearest: u32, tile: &[u32], weights: &[f32], scales: &[f32]) -> u32 {
        let mut costs = [0.0; RUN];
        let mut cost = |codes: u32| {
            let costs = &mut costs[..weights.len()];
            self.costs(self.encoder.codec.grid(codes, tile), weights, scales, costs);
            capped(costs, self.tau)
        };
        let mut best = (cost(nearest), nearest);
        for codes in 0..1 << (2 * STATISTIC_BITS) {
            let cost = cost(codes);
            if cost < best.0 {
                best = (cost, codes);
            }
        }
        best.1
    }

    /// The grid of a row's group without its likely outliers.
    fn fit_without_outliers(&self, weights: &[f32], scales: &[f32]) -> Grid {
        let plain = self.fit(weights.iter().copied());
        if self.tau == f32::INFINITY {
            return plain;
        }
        let (mut all, mut without) = ([0.0; RUN], [0.0; RUN]);
        self.costs(plain, weights, scales, &mut all);
        let total: f32 = all[..weights.len()].iter().sum();
        let mut likely = [false; RUN];
        for k in 0..weights.len() {
            let others = || (0..weights.len()).filter(|&j| j != k);
            let grid = self.fit(others().map(|j| weights[j]));
            // Without a weight that is not the only extreme one the grid is the same, and only its own error is spared.
            let spared = if grid == plain {
                all[k]
            } else {
                self.costs(grid, weights, scales, &mut without);
                total - others().map(|j| without[j]).sum::<f32>()
            };
            likely[k] = spared > self.tau;
        }
        self.fit(weights.iter().zip(likely).filter(|(_, likely)| !likely).map(|(&w, _)| w))
    }
}

/// What a group of weights pays on a grid: an outlier pays τ.
fn capped(costs: &[f32], tau: f32) -> f32 {
    costs.iter().map(|&cost| if cost < tau { cost } else { tau }).sum()
}

/// Codes of statistics on their tile's grid, with its step and zero point in f16.
fn second_level(values: &[f32], codes: &mut [u32]) -> (u32, u32) {
    let (min, max) = values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &v| (min.min(v), max.max(v)));
    let step = ((max - min) / STATISTICS).max(min.abs().max(max.abs()) * FINEST);
    let step = half::f16::from_f32(step);
    let inverse = inverse(step.to_f32());
    let zero = half::f16::from_f32(-min * inverse);
    for (code, v) in codes.iter_mut().zip(values) {
        *code = level(v * inverse + zero.to_f32(), 0.0, STATISTICS) as u32;
    }
    (step.to_bits().into(), zero.to_bits().into())
}

impl Replace for Band<'_> {
    fn group(&mut self, group: Group) {
        let Encoder { codec, hessian, .. } = self.encoder;
        let scales = &hessian.diagonal()[group.first()..][..group.len()];
        let place = self.place(group.first()) / codec.group;
        let grids: Vec<Grid> = group.rows().map(|row| self.fit_without_outliers(row, scales)).collect();
        let mut codes = [[0; TILE]; 2];
        let steps: Vec<f32> = grids.iter().map(|grid| grid.s).collect();
        // A row of zeros takes any zero point.
        let mean = grids.iter().filter(|grid| grid.s > 0.0).map(|grid| grid.z).sum::<f32>()
            / grids.iter().filter(|grid| grid.s > 0.0).count().max(1) as f32;
        let zeros: Vec<f32> = grids.iter().map(|grid| if grid.s > 0.0 { grid.z } else { mean }).collect();
        let (wss, wsz) = second_level(&steps, &mut codes[0]);
        let (wzs, wzz) = second_level(&zeros, &mut codes[1]);
        self.tile[2 * place..][..2].copy_from_slice(&[wss | wzs << 16, wsz | wzz << 16]);
        let row_words = self.words.len() / self.outliers.len().max(1);
        let code_words = codec.code_words(hessian.cols());
        let tile = &self.tile[2 * place..][..2];
        let best =
            |(row, weights)| self.best_codes(codes[0][row] | codes[1][row] << STATISTIC_BITS, tile, weights, scales);
        let best: Vec<u32> = group.rows().enumerate().map(best).collect();
        self.grids.clear();
        for (words, codes) in self.words.chunks_exact_mut(row_words).zip(best) {
            let statistics = &mut words[code_words..];
            put_six_bits(statistics, place, codes);
            let grid = codec.grid(six_bits(statistics, place), &self.tile[2 * place..]);
            self.failed |= !(grid.s.is_finite() && grid.z.is_finite());
            self.grids.push(grid);
        }
    }

    fn column(&mut self, at: usize, weights: &mut [f32]) {
        let Encoder { codec, hessian, .. } = self.encoder;
        let (cols, levels, place) = (hessian.cols(), self.levels(), self.place(at));
        let scale = hessian.diagonal()[at];
        for (row, w) in weights.iter_mut().enumerate() {
            let grid = self.grids[row];
            let code = |w: f32| level(w * inverse(grid.s) + grid.z, 0.0, levels);
            let mut q = code(*w);
            let mut replaced = codec.value(grid, q);
            if ((*w - replaced) / scale).powi(2) > self.tau {
                // The code of 0 leaves the least to what is added to it, if 0 is on the grid.
                q = code(0.0);
                let value = half::f16::from_f32(*w - codec.value(grid, q));
                self.outliers[row].push(place as u32 | u32::from(value.to_bits()) << 16);
                replaced = codec.value(grid, q) + value.to_f32();
            }
            self.failed |= !replaced.is_finite();
            self.codes[row * cols + place] = q as u8;
            *w = replaced;
        }
    }
}
