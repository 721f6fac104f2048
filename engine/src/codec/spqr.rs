//! SpQR (Dettmers et al. 2023, arXiv 2306.03078): a coarse grid for almost all weights, 16 bits for those that would lose most.
//!
//! A weight is `s·(q − z)`, plus an outlier v where there is one. q has 3 or 4 bits; s and z belong to 16 (or 32) weights of a row
//! and are themselves quantized, to 3 bits, in tiles of 16 rows: `s = wss·(w_s − wsz)`, `z = wzs·(w_z − wzz)`. An outlier holds what
//! its weight differs from the grid's value at its place, so adding the two gives the weight up to the rounding of v to f16.
//!
//! Plane 0, by rows: bit-sliced codes q, then w_s | w_z << 3 for every group, six bits behind one another. Plane 1, by tiles of 16
//! rows: for every group the f16 wss | wzs << 16 and wsz | wzz << 16. Plane 2, of variable length: where the outliers of each row
//! start (a word of this plane, `rows + 1` of them), then the outliers, `column | f16 << 16`, by columns within a row.
//!
//! Groups of 16 at 3 bits are 3.625 bits a weight, at 4 bits 4.625, in groups of 32 3.3125 and 4.3125; every percent of outliers
//! adds 0.32, and a row's start 32 bits.
//!
//! `published` reads what the authors' program writes ([`import`]): the inputs are permuted, and every operation above is rounded to
//! f16. The permutation, two columns a word, then stands at the start of plane 2, and kernels gather their inputs with it. In our own
//! encoding whole groups are put in order instead ([`Order::Groups`](super::hessian::Order)), which leaves columns where they are.

pub(super) mod checkpoint;
mod encode;
mod import;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use super::bits::{round_half, unpack};
use super::rows::for_each_chunk;
use super::spec::Options;
use super::{Calibrates, Calibration, Codec, CodecError, CodecRef, Packed, Plane, PlaneLayout, RUN};

pub use import::Published;
use import::TILE;

/// Columns that 16 bits can count.
const MOST_COLS: usize = 1 << 16;
/// Bits of w_s, and of w_z.
const STATISTIC_BITS: usize = 3;

/// How many outliers there are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outliers {
    /// About so many percent of the weights.
    Percent(f32),
    /// Those whose squared error, made up for, exceeds this share of a weight's mean square.
    Threshold(f32),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spqr {
    bits: usize,
    group: usize,
    outliers: Outliers,
    published: bool,
}

/// Builds the codec from `bits=…`, `group=…`, `outliers=…` or `threshold=…`, and `published`.
pub(super) fn build(options: Options) -> Result<CodecRef, CodecError> {
    options.only(
        &["bits", "group", "outliers", "threshold", "published"],
        "bits, group, outliers (in percent) or threshold, published",
    )?;
    let bits = options.number("bits", &[3, 4], Some(3))?;
    let threshold = options.decimal_between("threshold", 0.001, 100.0)?;
    let percent = options.decimal_between("outliers", 0.0, 20.0)?;
    let outliers = match (threshold, percent) {
        (None, None) => default_outliers(bits),
        (None, Some(percent)) => Outliers::Percent(percent),
        (Some(threshold), None) => Outliers::Threshold(threshold),
        (Some(_), Some(_)) => {
            return Err(options.refuse("outliers", "none beside threshold, which says the same in another way"));
        }
    };
    let published = options.switch("published", false)?;
    let groups: &[usize] = if published { &[TILE] } else { &[TILE, RUN] };
    let group = options.number("group", groups, Some(TILE))?;
    Ok(Arc::new(Spqr { bits, group, outliers, published }))
}

/// What pays at this width.
fn default_outliers(bits: usize) -> Outliers {
    Outliers::Percent(if bits == 3 { 2.5 } else { 1.0 })
}

/// A step and a zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grid {
    s: f32,
    z: f32,
}

impl Spqr {
    /// Groups in a row of `cols`.
    fn groups(&self, cols: usize) -> usize {
        cols / self.group
    }

    /// Words of a row's codes, before those of its statistics.
    fn code_words(&self, cols: usize) -> usize {
        cols / RUN * self.bits
    }

    fn layouts(&self, cols: usize) -> [PlaneLayout; 3] {
        let groups = self.groups(cols);
        let statistics = (2 * STATISTIC_BITS * groups).div_ceil(32);
        [
            PlaneLayout::per_row(self.code_words(cols) + statistics),
            PlaneLayout::per_group(2 * groups, TILE),
            PlaneLayout::VARIABLE,
        ]
    }

    /// Words of plane 2 before the rows' starts: the permutation.
    fn head(&self, cols: usize) -> usize {
        if self.published { cols / 2 } else { 0 }
    }

    /// What an operation's result is rounded to.
    fn rounded(&self, value: f32) -> f32 {
        if self.published { round_half(value) } else { value }
    }

    /// The grid of a group from its codes w_s | w_z << 3 and its tile's two words.
    fn grid(&self, codes: u32, tile: &[u32]) -> Grid {
        let half = |bits: u32| half::f16::from_bits(bits as u16).to_f32();
        let statistic =
            |code: u32, step: u32, zero: u32| self.rounded(half(step) * self.rounded((code & 7) as f32 - half(zero)));
        Grid {
            s: statistic(codes, tile[0], tile[1]),
            z: statistic(codes >> STATISTIC_BITS, tile[0] >> 16, tile[1] >> 16),
        }
    }

    /// The value of a code.
    fn value(&self, grid: Grid, q: f32) -> f32 {
        self.rounded(grid.s * self.rounded(q - grid.z))
    }

    /// The parts of plane 2: the permutation, the rows' starts. `None` if it is too short for them.
    fn starts<'a>(&self, packed: &'a Packed) -> Option<(&'a [u32], &'a [u32])> {
        let (permutation, rest) = packed.planes.get(2)?.data.split_at_checked(self.head(packed.cols))?;
        Some((permutation, rest.get(..packed.rows.checked_add(1)?)?))
    }

    /// Plane 2 of rows with these outliers.
    fn sparse_plane<'a>(&self, permutation: &[u32], rows: impl ExactSizeIterator<Item = &'a [u32]> + Clone) -> Plane {
        let entries: usize = rows.clone().map(<[u32]>::len).sum();
        let mut at = permutation.len() + rows.len() + 1;
        let mut data = Vec::with_capacity(at + entries);
        data.extend(permutation);
        data.push(at as u32);
        for row in rows.clone() {
            at += row.len();
            data.push(at as u32);
        }
        rows.for_each(|row| data.extend(row));
        Plane::of(PlaneLayout::VARIABLE, data)
    }

    /// The outliers of each row of a matrix that was checked.
    fn outliers<'a>(&self, packed: &'a Packed) -> Vec<&'a [u32]> {
        let data = &packed.planes[2].data;
        let starts = self.starts(packed).map_or(&[][..], |(_, starts)| starts);
        starts.windows(2).map(|pair| data.get(pair[0] as usize..pair[1] as usize).unwrap_or_default()).collect()
    }

    /// What is wrong with plane 2, if anything.
    fn flaw(&self, packed: &Packed) -> Option<String> {
        let data = &packed.planes[2].data;
        let Some((permutation, starts)) = self.starts(packed) else {
            return Some(format!("{} words are too few for {} rows", data.len(), packed.rows));
        };
        let mut seen = vec![false; if self.published { packed.cols } else { 0 }];
        for column in columns(permutation) {
            match seen.get_mut(column) {
                Some(seen) if !*seen => *seen = true,
                _ => return Some(format!("column {column} is in its permutation twice, or not a column")),
            }
        }
        let first = permutation.len() + starts.len();
        if starts[0] as usize != first || starts.last().is_some_and(|&end| end as usize != data.len()) {
            return Some("its rows do not start behind their list, or do not end where it ends".into());
        }
        for (row, pair) in starts.windows(2).enumerate() {
            let Some(entries) = data.get(pair[0] as usize..pair[1] as usize) else {
                return Some(format!("row {row} ends before it starts, or outside"));
            };
            let mut columns = entries.iter().map(|entry| entry & 0xffff);
            if !columns.clone().is_sorted() || columns.any(|column| column as usize >= packed.cols) {
                return Some(format!("the outliers of row {row} are not in the order of columns, or not in any"));
            }
        }
        None
    }
}

/// The columns of a permutation, of which two are in a word.
fn columns(permutation: &[u32]) -> impl Iterator<Item = usize> + '_ {
    permutation.iter().flat_map(|word| [word & 0xffff, word >> 16]).map(|column| column as usize)
}

impl Codec for Spqr {
    fn name(&self) -> String {
        let Self { bits, group, outliers, published } = self;
        let mut name = format!("spqr:bits={bits}");
        if *group != TILE {
            name += &format!(",group={group}");
        }
        match outliers {
            outliers if *outliers == default_outliers(*bits) => {}
            Outliers::Percent(percent) => name += &format!(",outliers={percent}"),
            Outliers::Threshold(threshold) => name += &format!(",threshold={threshold}"),
        }
        name + if *published { ",published" } else { "" }
    }

    fn module(&self) -> &'static str {
        "spqr"
    }

    fn defines(&self) -> Vec<(&'static str, u32)> {
        vec![("BITS", self.bits as u32), ("SPLIT", (self.group < RUN).into()), ("PUBLISHED", self.published.into())]
    }

    fn block_len(&self) -> usize {
        RUN
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        self.layouts(cols).into()
    }

    fn planned_bytes(&self, rows: usize, cols: usize) -> u64 {
        let fixed: u64 = self.layout(cols).iter().filter_map(|plane| plane.words(rows)).map(|words| words as u64).sum();
        // A threshold of 0.2 makes about as many as are the default.
        let percent = match self.outliers {
            Outliers::Percent(percent) => percent,
            Outliers::Threshold(_) => 5.0,
        };
        let outliers = rows as f64 * cols as f64 * f64::from(percent) / 100.0;
        4 * (fixed + (self.head(cols) + rows + 1) as u64 + outliers as u64)
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        self.encode_for(weights, rows, cols, None)
    }

    /// The method is to weigh errors by the inputs. Tables that are looked up have none; they are encoded as if all weighed alike.
    fn calibrates(&self) -> Calibrates {
        Calibrates::Always
    }

    fn encode_for(
        &self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        calibration: Option<&Calibration>,
    ) -> Result<Packed, CodecError> {
        encode::encode(self, weights, rows, cols, calibration)
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        let (cols, code_words) = (packed.cols, self.code_words(packed.cols));
        let [row_words, tile_words] = [0, 1].map(|plane| packed.planes[plane].row_words as usize);
        let outliers = self.outliers(packed);
        let permutation: Vec<usize> = self.starts(packed).map_or(Vec::new(), |(words, _)| columns(words).collect());
        let mut weights = vec![0.0; packed.rows * cols];
        for_each_chunk(&mut weights, cols, |row, weights| {
            let (words, statistics) = packed.planes[0].data[row * row_words..][..row_words].split_at(code_words);
            let tile = &packed.planes[1].data[row / TILE * tile_words..][..tile_words];
            let mut codes = vec![0; cols];
            unpack(self.bits, words, &mut codes);
            for (group, (weights, codes)) in weights.chunks_mut(self.group).zip(codes.chunks(self.group)).enumerate() {
                let grid = self.grid(six_bits(statistics, group), &tile[2 * group..]);
                weights.iter_mut().zip(codes).for_each(|(w, &q)| *w = self.value(grid, q.into()));
            }
            for entry in outliers[row] {
                weights[(entry & 0xffff) as usize] += half::f16::from_bits((entry >> 16) as u16).to_f32();
            }
            if self.published {
                let permuted = weights.to_vec();
                permuted.iter().zip(&permutation).for_each(|(&w, &column)| weights[column] = w);
            }
        });
        weights
    }

    fn check(&self, packed: &Packed) -> Result<(), CodecError> {
        if packed.cols > MOST_COLS {
            return Err(CodecError::TooWide { codec: self.name(), cols: packed.cols, most: MOST_COLS });
        }
        match self.flaw(packed) {
            None => Ok(()),
            Some(what) => Err(CodecError::Content { codec: self.name(), plane: 2, what }),
        }
    }

    fn cut(&self, packed: &Packed, range: Range<usize>) -> Result<Packed, CodecError> {
        let (rows, cols) = (packed.rows, packed.cols);
        let lost = |plane| CodecError::Layout { codec: self.name(), plane, rows, cols };
        let mut planes = Vec::with_capacity(3);
        for (number, plane) in packed.planes.iter().take(2).enumerate() {
            let words = plane.layout().words(range.start).zip(plane.layout().words(range.end));
            let data = words.and_then(|(start, end)| plane.data.get(start..end)).ok_or_else(|| lost(number))?;
            planes.push(Plane { data: data.to_vec(), ..*plane });
        }
        let (permutation, _) = self.starts(packed).ok_or_else(|| lost(2))?;
        let outliers = self.outliers(packed);
        let outliers = outliers.get(range.clone()).ok_or_else(|| lost(2))?;
        planes.push(self.sparse_plane(permutation, outliers.iter().copied()));
        Ok(Packed { codec: packed.codec.clone(), rows: range.len(), cols, planes })
    }

    fn stack(&self, parts: &[&Packed]) -> Option<Packed> {
        let first = parts.first()?;
        let (permutation, _) = self.starts(first)?;
        if !parts.iter().all(|part| self.starts(part).is_some_and(|(other, _)| other == permutation)) {
            return None; // their inputs differ
        }
        let mut planes: Vec<Plane> = (0..2)
            .map(|i| {
                let data = parts.iter().flat_map(|part| &part.planes[i].data).copied().collect();
                Plane { data, ..first.planes[i] }
            })
            .collect();
        let outliers: Vec<&[u32]> = parts.iter().flat_map(|part| self.outliers(part)).collect();
        planes.push(self.sparse_plane(permutation, outliers.iter().copied()));
        let rows = parts.iter().map(|part| part.rows).sum();
        Some(Packed { codec: first.codec.clone(), rows, cols: first.cols, planes })
    }

    fn fallback(&self) -> CodecRef {
        Arc::new(super::dense::Dense::F16)
    }
}

/// The six bits of a group in a row's statistics.
fn six_bits(words: &[u32], group: usize) -> u32 {
    let at = 2 * STATISTIC_BITS * group;
    let low = words[at / 32] >> (at % 32);
    let high = if at % 32 > 26 { words[at / 32 + 1] << (32 - at % 32) } else { 0 };
    (low | high) & 63
}

/// Writes what [`six_bits`] reads; the words are zero before.
fn put_six_bits(words: &mut [u32], group: usize, bits: u32) {
    let at = 2 * STATISTIC_BITS * group;
    words[at / 32] |= bits << (at % 32);
    if at % 32 > 26 {
        words[at / 32 + 1] |= bits >> (32 - at % 32);
    }
}
