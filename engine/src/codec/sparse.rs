//! Sparse weights: a mask says which weights are kept, the kept ones of a row follow one another in any codec.
//!
//! `sparse:PATTERN[,method=M][,values=bf16|f16]` or `sparse:PATTERN[,method=M]+CODEC`, PATTERN being
//!
//! - `50%` – any weights; the share of every row that is *pruned*;
//! - `nnz=K` – any weights, K kept in every row;
//! - `2:4` – N kept of every M consecutive ones ([`super::sparse24`] has the layout of 2:4 with 16-bit values);
//! - `50%,block=16` – blocks of 16 × 16 (or 32 × 32) weights, the share of every row of blocks that is pruned.
//!
//! What is kept is [`prune`]'s affair. Rows (or rows of blocks) are comparison groups, as in Wanda (Sun et al. 2023, arXiv 2306.11695),
//! which makes all rows equally long, so that every plane has a length that the shape fixes.
//!
//! Planes: those of the kept rows, `[rows, kept]`, in their codec; then the mask. A line of the mask is a row, or a row of blocks:
//!
//! | pattern | line |
//! | --- | --- |
//! | any weights | a word a run, weight i in bit i; then, 16 bits a run, two a word, the kept weights before it |
//! | N:M, M up to 8 | a word a run, weight i in bit i: the eight columns of an octet have 8N/M kept weights |
//! | blocks | a word a run: for its halves (low, high) 0, or 1 + the half run of the kept row where it is; then a word for every run of the kept row: the half runs of the matrix that its halves are |

mod prune;
mod schedule;

use std::sync::Arc;

use super::dense::Dense;
use super::rows::{check_weights, for_each_chunk};
use super::sparse24::Sparse24;
use super::spec::Options;
use super::{Calibrates, Calibration, Codec, CodecError, CodecRef, Packed, Plane, PlaneLayout, RUN, Sparsity};

pub use schedule::cubic;

pub(super) use prune::{Method, Pruned, prune};

/// Columns whose counts fit 16 bits.
const MOST_COLS: usize = 1 << 16;
/// Codecs that kernels read kept weights in; shaders/wgsl/linear/sparse.wgsl has the same list.
const VALUES: &[&str] = &[
    "bf16", "f16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k", "iq4_nl",
    "uniform",
];
const PATTERNS: &str = "a share to prune (50%), N:M (2:4), nnz=K";

/// Which weights may be kept together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Any: so many thousandths of a row are pruned.
    Share { pruned: u32 },
    /// Any: so many of a row are kept.
    Count { kept: usize },
    /// `n` of every `m` consecutive ones.
    NofM { n: usize, m: usize },
    /// Blocks of `size` × `size`: so many thousandths of a row of blocks are pruned.
    Blocks { pruned: u32, size: usize },
}

impl Pattern {
    fn name(self) -> String {
        let percent = |thousandths: u32| match (thousandths / 10, thousandths % 10) {
            (whole, 0) => format!("{whole}%"),
            (whole, tenths) => format!("{whole}.{tenths}%"),
        };
        match self {
            Self::Share { pruned } => percent(pruned),
            Self::Count { kept } => format!("nnz={kept}"),
            Self::NofM { n, m } => format!("{n}:{m}"),
            Self::Blocks { pruned, size } => format!("{},block={size}", percent(pruned)),
        }
    }

    /// Kept weights of a row of `cols`, rounded up to whole blocks of the codec that packs them.
    fn kept(self, cols: usize, block: usize) -> usize {
        let share = |of: usize, pruned: u32| (of * (1000 - pruned as usize)).div_ceil(1000).max(1);
        let wanted = match self {
            Self::Share { pruned } => share(cols, pruned),
            Self::Count { kept } => kept.max(1),
            Self::NofM { n, m } => cols / m * n,
            Self::Blocks { pruned, size } => (share(cols / size, pruned) * size).next_multiple_of(RUN),
        };
        wanted.next_multiple_of(block).min(cols)
    }

    /// Kept weights of every eight columns, where all have the same number; otherwise ranks are stored.
    fn per_octet(self) -> usize {
        match self {
            Self::NofM { n, m } if m <= 8 => 8 / m * n,
            _ => 0,
        }
    }

    /// Rows of a block.
    fn block_rows(self) -> usize {
        if let Self::Blocks { size, .. } = self { size } else { 1 }
    }

    /// Reads the part of a spelling that has no name, with `block=…` and `nnz=…`.
    fn read(options: &Options) -> Result<Self, CodecError> {
        let wrong = |value: &str| CodecError::OptionValue {
            codec: "sparse".into(),
            option: "pattern".into(),
            value: value.into(),
            valid: PATTERNS.into(),
        };
        let mut bare = options.bare();
        let pattern = match (bare.next(), options.get("nnz")) {
            (None, Some(Some(kept))) => {
                let kept = kept.parse().ok().filter(|kept| (1..=MOST_COLS).contains(kept));
                Self::Count { kept: kept.ok_or_else(|| wrong(options.get("nnz").flatten().unwrap_or_default()))? }
            }
            (Some(text), None) => {
                let pattern = match (text.strip_suffix('%'), text.split_once(':')) {
                    (Some(percent), _) => thousandths(percent).map(|pruned| Self::Share { pruned }),
                    (None, Some((n, m))) => n.parse().ok().zip(m.parse().ok()).map(|(n, m)| Self::NofM { n, m }),
                    _ => None,
                };
                let valid = pattern.filter(|pattern| match *pattern {
                    Self::NofM { n, m } => (1..m).contains(&n) && [2, 4, 8, 16, 32].contains(&m),
                    _ => true,
                });
                valid.ok_or_else(|| wrong(text))?
            }
            (Some(text), Some(_)) => return Err(wrong(text)),
            (None, _) => {
                let option = "pattern".into();
                return Err(CodecError::MissingOption { codec: "sparse".into(), option, valid: PATTERNS.into() });
            }
        };
        if let Some(second) = bare.next() {
            return Err(wrong(second));
        }
        if options.get("block").is_none() {
            return Ok(pattern);
        }
        let size = options.number("block", &[16, 32], None)?;
        match pattern {
            Self::Share { pruned } => Ok(Self::Blocks { pruned, size }),
            other => Err(wrong(&format!("{},block={size}", other.name()))),
        }
    }
}

/// A percentage with at most one decimal, 0 to 99.9, in thousandths.
fn thousandths(percent: &str) -> Option<u32> {
    let (whole, tenths) = percent.split_once('.').unwrap_or((percent, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let value = digits(whole)?.checked_mul(10)?.checked_add(digits(tenths)?)?;
    (tenths.len() == 1 && value < 1000).then_some(value)
}

/// A pattern, how it is filled, and the codec of what is kept.
#[derive(Debug, Clone)]
struct Sparse {
    pattern: Pattern,
    method: Method,
    values: CodecRef,
}

pub(super) fn build(options: Options) -> Result<CodecRef, CodecError> {
    options.only_named(&["nnz", "block", "method", "values"], "a pattern, block, method, values")?;
    let pattern = Pattern::read(&options)?;
    let method = Method::read(&options, pattern)?;
    of(pattern, method, &(Arc::new(options.values()?) as CodecRef))
}

/// The codec of a pattern: 2:4 with 16-bit values has its own.
pub(super) fn of(pattern: Pattern, method: Method, values: &CodecRef) -> Result<CodecRef, CodecError> {
    let sparse = Sparse { pattern, method, values: values.clone() };
    let two_of_four = pattern == Pattern::NofM { n: 2, m: 4 };
    match values.module() {
        "bf16" if two_of_four => Ok(Arc::new(Sparse24 { values: Dense::Bf16, method })),
        "f16" if two_of_four => Ok(Arc::new(Sparse24 { values: Dense::F16, method })),
        module if VALUES.contains(&module) => Ok(Arc::new(sparse)),
        _ => Err(CodecError::Combination {
            left: sparse.head(),
            right: values.name(),
            why: format!("kept weights can be stored as {}", VALUES.join(", ")),
        }),
    }
}

impl Sparse {
    /// The spelling up to the values.
    fn head(&self) -> String {
        format!("sparse:{}{}", self.pattern.name(), self.method.option())
    }

    fn kept(&self, cols: usize) -> usize {
        self.pattern.kept(cols, self.values.block_len())
    }

    /// Layout of the mask.
    fn mask_layout(&self, cols: usize) -> PlaneLayout {
        let runs = cols.div_ceil(RUN);
        match self.pattern {
            Pattern::Blocks { size, .. } => PlaneLayout::per_group(runs + self.kept(cols).div_ceil(RUN), size),
            _ if self.pattern.per_octet() > 0 => PlaneLayout::per_row(runs),
            _ => PlaneLayout::per_row(runs + runs.div_ceil(2)),
        }
    }

    /// Writes a line of the mask from the bits of its (first) row.
    fn put_line(&self, bits: &[u32], line: &mut [u32]) {
        let runs = bits.len();
        let (first, second) = line.split_at_mut(runs);
        if matches!(self.pattern, Pattern::Blocks { .. }) {
            let halves = (0..2 * runs).filter(|half| bits[half / 2] >> (16 * (half % 2)) & 1 == 1);
            for (at, half) in halves.enumerate() {
                first[half / 2] |= (at as u32 + 1) << (16 * (half % 2));
                second[at / 2] |= (half as u32) << (16 * (at % 2));
            }
            return;
        }
        first.copy_from_slice(bits);
        if second.is_empty() {
            return;
        }
        let mut before = 0;
        for (run, word) in bits.iter().enumerate() {
            // 65536 kept weights before a run cannot be: a run follows.
            second[run / 2] |= (before & 0xffff) << (16 * (run % 2));
            before += word.count_ones();
        }
    }

    /// The kept row that each column of a row is taken from: its place, or `None` where the weight is zero.
    fn place(&self, line: &[u32], runs: usize, col: usize) -> Option<usize> {
        let (run, bit) = (col / RUN, col % RUN);
        let word = *line.get(run)?;
        if matches!(self.pattern, Pattern::Blocks { .. }) {
            let half = (word >> (16 * (bit / 16)) & 0xffff) as usize;
            return Some(half.checked_sub(1)? * 16 + bit % 16);
        }
        if word >> bit & 1 == 0 {
            return None;
        }
        let fixed = self.pattern.per_octet();
        let rank = match fixed {
            0 => (line.get(runs + run / 2)? >> (16 * (run % 2)) & 0xffff) as usize,
            _ => fixed * 4 * run,
        };
        Some(rank + (word & ((1u32 << bit) - 1)).count_ones() as usize)
    }

    /// Packs weights of which the mask `[rows, runs]` keeps [`Sparse::kept`] in every row, or fewer.
    fn pack(&self, weights: &[f32], mask: &[u32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        let (kept, runs) = (self.kept(cols), cols.div_ceil(RUN));
        let mut values = vec![0.0; rows * kept];
        for_each_chunk(&mut values, kept, |row, values| {
            let bits = &mask[row * runs..][..runs];
            for (value, col) in values.iter_mut().zip(columns(bits)) {
                *value = weights[row * cols + col];
            }
        });
        let failed = |error| match error {
            // Its column is one of the kept row.
            CodecError::TooLarge { row, col, value, .. } => {
                let col = columns(&mask[row * runs..][..runs]).nth(col).unwrap_or(col);
                CodecError::TooLarge { codec: self.name(), row, col, value }
            }
            other => other,
        };
        let mut planes = self.values.encode(&values, rows, kept).map_err(failed)?.planes;
        let layout = self.mask_layout(cols);
        let mut lines = Plane::zeroed(layout, rows);
        let step = self.pattern.block_rows();
        for_each_chunk(&mut lines.data, layout.row_words as usize, |line, words| {
            self.put_line(&mask[line * step * runs..][..runs], words);
        });
        planes.push(lines);
        Ok(Packed { codec: Arc::new(self.clone()), rows, cols, planes })
    }
}

/// Columns of a row whose bits are set, in order.
pub(super) fn columns(bits: &[u32]) -> impl Iterator<Item = usize> {
    let of_word = |(run, &word): (usize, &u32)| {
        let mut left = word;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros() as usize;
            (left != 0).then(|| {
                left &= left - 1;
                run * RUN + bit
            })
        })
    };
    bits.iter().enumerate().flat_map(of_word)
}

/// Greatest common divisor.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Codec for Sparse {
    fn name(&self) -> String {
        match self.values.module() {
            "bf16" => self.head(),
            "f16" => format!("{},values=f16", self.head()),
            _ => format!("{}+{}", self.head(), self.values.name()),
        }
    }

    fn module(&self) -> &'static str {
        self.values.module()
    }

    fn defines(&self) -> Vec<(&'static str, u32)> {
        self.values.defines()
    }

    fn block_len(&self) -> usize {
        let values = self.values.block_len();
        let whole = match self.pattern {
            Pattern::NofM { n, m } => values / gcd(values, n) * m,
            _ => values,
        };
        whole / gcd(whole, RUN) * RUN
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        let mut layout = self.values.layout(self.kept(cols));
        layout.push(self.mask_layout(cols));
        layout
    }

    fn sparsity(&self, cols: usize) -> Option<Sparsity> {
        let blocks = matches!(self.pattern, Pattern::Blocks { .. });
        Some(Sparsity {
            kept: self.kept(cols),
            line_words: self.mask_layout(cols).row_words,
            per_octet: self.pattern.per_octet() as u32,
            block_rows: if blocks { self.pattern.block_rows() as u32 } else { 0 },
        })
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        self.encode_for(weights, rows, cols, None)
    }

    fn rows_apart(&self) -> bool {
        self.values.rows_apart()
    }

    fn calibrates(&self) -> Calibrates {
        self.method.calibrates()
    }

    fn encode_for(
        &self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        calibration: Option<&Calibration>,
    ) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        if cols > MOST_COLS {
            return Err(CodecError::TooWide { codec: self.name(), cols, most: MOST_COLS });
        }
        let Pruned { weights, mask } = prune(self.method, self.pattern, self.kept(cols), weights, cols, calibration)?;
        self.pack(&weights, &mask, rows, cols)
    }

    fn encode_masked(&self, weights: &[f32], mask: &[u32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        let (kept, runs) = (self.kept(cols), cols.div_ceil(RUN));
        let fits = |bits: &[u32]| match self.pattern {
            Pattern::NofM { n, m } => (0..cols / m).all(|group| {
                let (run, shift) = (group * m / RUN, group * m % RUN);
                (bits[run] >> shift & (u32::MAX >> (RUN - m))).count_ones() as usize == n
            }),
            Pattern::Blocks { .. } => false,
            _ => bits.iter().map(|word| word.count_ones() as usize).sum::<usize>() <= kept,
        };
        if mask.len() != rows * runs || !mask.chunks_exact(runs.max(1)).all(fits) {
            let why = "it does not keep the weights that this codec keeps".into();
            return Err(CodecError::Combination { left: self.name(), right: "a mask".into(), why });
        }
        self.pack(weights, mask, rows, cols)
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        let (rows, cols) = (packed.rows, packed.cols);
        let (kept, runs) = (self.kept(cols), cols.div_ceil(RUN));
        let Some((lines, planes)) = packed.planes.split_last() else { return Vec::new() };
        let values = Packed { codec: self.values.clone(), rows, cols: kept, planes: planes.to_vec() }.decode();
        let step = self.pattern.block_rows();
        let mut weights = vec![0.0; rows * cols];
        for_each_chunk(&mut weights, cols, |row, weights| {
            let line = &lines.data[row / step * lines.row_words as usize..][..lines.row_words as usize];
            let values = &values[row * kept..][..kept];
            for (col, w) in weights.iter_mut().enumerate() {
                // A hostile file may count beyond the values.
                let value = self.place(line, runs, col).and_then(|at| values.get(at));
                *w = value.copied().unwrap_or(0.0);
            }
        });
        weights
    }

    fn with_values(&self, values: &CodecRef) -> Result<CodecRef, CodecError> {
        let combination =
            |why: &str| CodecError::Combination { left: self.name(), right: values.name(), why: why.to_owned() };
        if self.values.module() != "bf16" {
            return Err(combination("its kept weights have a codec already"));
        }
        if !values.encodes() || values.sparsity(RUN).is_some() {
            return Err(combination("kept weights are packed by a codec of dense weights that can be written"));
        }
        of(self.pattern, self.method, values)
    }

    fn fallback(&self) -> CodecRef {
        let values = self.values.fallback();
        match of(self.pattern, self.method, &values) {
            // 16-bit values ask least of a row.
            Ok(codec) if codec.block_len() < self.block_len() => codec,
            _ => Arc::new(Dense::F16),
        }
    }
}

#[cfg(test)]
mod tests;
