//! Low rank: a matrix, or what a codec lost of one, as a product B A of rank r that kernels never multiply out.
//!
//! ```text
//! CODEC+eora:rank=R   W ≈ Ŵ + B A   B A is best for E‖(W − Ŵ − B A) x‖² over the inputs x of a calibration text
//! CODEC+svd:rank=R    W ≈ Ŵ + B A   B A is best for ‖W − Ŵ − B A‖²
//! lord:rank=R         W ≈ B A       B A and a bias are best for E‖W x − B A x − b‖², and keep the mean output
//! svd:rank=R          W ≈ B A       B A is best for ‖W − B A‖²
//! ```
//!
//! Sources: EoRA (Liu et al. 2024, arXiv 2410.21271), LoRD (Kaushal et al. 2023, arXiv 2309.14021), whose decompositions are one and
//! the same (see `factor.rs`). `ratio=P` instead of `rank` gives a factorisation P percent of the matrix's parameters.
//!
//! Planes: those of Ŵ; then B, of which every row has, in words, the column of A x at which its own columns begin (0 but for stacked
//! matrices), a bias (f32), and r numbers; then the planes of A `[r, cols]`. Matrices that are stacked keep an A each: theirs lie
//! behind one another. `factors=` says how B and A are stored: bf16 (the default), f16, q8_0, q4_0. Kernels compute A x first and add
//! B (A x) where they sum up Ŵ x (`linear/layer.wgsl`).

mod factor;
mod rows;

use std::ops::Range;
use std::sync::Arc;

use self::factor::Weighing;
use self::rows::{Factors, HEAD};
use super::rows::{check_weights, for_each_chunk};
use super::spec::Options;
use super::{
    Calibrates, Calibration, Codec, CodecError, CodecRef, LowRankParts, Packed, Plane, PlaneLayout, Sparsity, Symbols,
};

/// The largest rank.
const MAX_RANK: usize = 4096;

/// What is factored, and by which measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// The weights' own.
    Svd,
    /// What inputs make of an error.
    Eora,
    /// How outputs vary.
    Lord,
}

/// How large the factors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Rank(usize),
    /// Percent of the matrix's parameters.
    Ratio(usize),
}

/// Two factors, alone or added to what another codec makes of the weights.
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    base: Option<CodecRef>,
    measure: Measure,
    size: Size,
    factors: Factors,
}

/// Reads the options of `svd` and `lord`.
fn alone(measure: Measure, options: &Options) -> Result<CodecRef, CodecError> {
    options.only(&["rank", "ratio", "factors"], "rank=8..4096, ratio=1..99, factors=bf16|f16|q8_0|q4_0")?;
    let factors = Factors::read(options)?;
    let size = match options.count("ratio", 1, 1..=99)? {
        Some(_) if options.has("rank") => {
            let (codec, option) = (options.codec(), "rank beside ratio".into());
            return Err(CodecError::UnknownOption { codec, option, valid: "one of the two".into() });
        }
        Some(ratio) => Size::Ratio(ratio),
        None => Size::Rank(options.required_count("rank", factors.step(), factors.step()..=MAX_RANK)?),
    };
    Ok(Arc::new(LowRank { base: None, measure, size, factors }))
}

/// Builds `svd:rank=R`.
pub(super) fn svd(options: Options) -> Result<CodecRef, CodecError> {
    alone(Measure::Svd, &options)
}

/// Builds `lord:rank=R`.
pub(super) fn lord(options: Options) -> Result<CodecRef, CodecError> {
    alone(Measure::Lord, &options)
}

/// Puts `+svd:rank=R` behind a codec.
pub(super) fn add_svd(base: CodecRef, options: Options) -> Result<CodecRef, CodecError> {
    added(base, Measure::Svd, &options)
}

/// Puts `+eora:rank=R` behind a codec.
pub(super) fn add_eora(base: CodecRef, options: Options) -> Result<CodecRef, CodecError> {
    added(base, Measure::Eora, &options)
}

fn added(base: CodecRef, measure: Measure, options: &Options) -> Result<CodecRef, CodecError> {
    options.only(&["rank", "factors"], "rank=8..4096, factors=bf16|f16|q8_0|q4_0")?;
    if base.is_low_rank() {
        let why = "it has a low-rank part already: one of a higher rank does as much as two".into();
        return Err(CodecError::Combination { left: base.name(), right: options.codec(), why });
    }
    let factors = Factors::read(options)?;
    let rank = options.required_count("rank", factors.step(), factors.step()..=MAX_RANK)?;
    Ok(Arc::new(LowRank { base: Some(base), measure, size: Size::Rank(rank), factors }))
}

impl LowRank {
    /// The rank; 0 as long as it depends on a shape that is not known.
    fn rank(&self) -> usize {
        if let Size::Rank(rank) = self.size { rank } else { 0 }
    }

    /// Planes of Ŵ.
    fn base_planes(&self, cols: usize) -> usize {
        self.base.as_ref().map_or(0, |base| base.layout(cols).len())
    }

    /// Ŵ alone.
    fn base_of(&self, packed: &Packed) -> Option<Packed> {
        let base = self.base.as_ref()?;
        let planes = packed.planes.get(..self.base_planes(packed.cols))?.to_vec();
        Some(Packed { codec: base.clone(), rows: packed.rows, cols: packed.cols, planes })
    }

    fn b_layout(&self) -> PlaneLayout {
        PlaneLayout::per_row(HEAD + self.factors.words(self.rank()))
    }

    /// The plane of B.
    fn b_of<'a>(&self, packed: &'a Packed) -> Option<&'a Plane> {
        packed.planes.get(self.base_planes(packed.cols))
    }

    /// A of all that is stacked; `None` where its planes do not have a whole number of rows.
    fn a_of(&self, packed: &Packed) -> Option<Packed> {
        let codec = self.factors.codec();
        let layout = codec.layout(packed.cols);
        let found = packed.planes.get(self.base_planes(packed.cols) + 1..)?;
        let first = layout.first()?.row_words as usize;
        // No columns, no words: as many rows as one matrix has.
        let rows = found.first()?.data.len().checked_div(first).unwrap_or(self.rank());
        let planes = layout.iter().zip(found).map(|(layout, plane)| {
            let fits = layout.words(rows) == Some(plane.data.len());
            fits.then(|| Plane::of(*layout, plane.data.clone()))
        });
        let planes: Vec<Plane> = planes.collect::<Option<_>>()?;
        if planes.len() != layout.len() || !rows.is_multiple_of(self.rank().max(1)) || rows < self.rank() {
            return None;
        }
        Some(Packed { codec, rows, cols: packed.cols, planes })
    }

    /// Multiplies the factors out and adds them to `weights`.
    fn add_product(&self, packed: &Packed, weights: &mut [f32]) {
        let (Some(b), Some(a)) = (self.b_of(packed), self.a_of(packed)) else { return };
        let (a, cols, rank, words) = (a.decode(), packed.cols, self.rank(), b.row_words as usize);
        for_each_chunk(weights, cols, |row, weights| {
            let row = &b.data[row * words..][..words];
            let first = row[0] as usize;
            let mut sums: Vec<f64> = weights.iter().map(|&w| w.into()).collect();
            for (k, factor) in self.factors.decode_row(&row[HEAD..], rank).into_iter().enumerate() {
                let a = a.get((first + k) * cols..(first + k + 1) * cols).unwrap_or_default();
                sums.iter_mut().zip(a).for_each(|(sum, &a)| *sum += f64::from(factor) * f64::from(a));
            }
            weights.iter_mut().zip(sums).for_each(|(w, sum)| *w = sum as f32);
        });
    }

    /// The bias of LoRD, by which the mean output stays what it was: W μ − B (A μ), with the factors as they are stored.
    fn mean_kept(&self, weights: &[f32], packed: &mut Packed, mean: &[f32]) {
        let (rows, cols) = (packed.rows, packed.cols);
        let mut product = vec![0.0; rows * cols];
        self.add_product(packed, &mut product);
        let at = self.base_planes(cols);
        let Some(b) = packed.planes.get_mut(at) else { return };
        let words = b.row_words as usize;
        let dot = |row: &[f32]| row.iter().zip(mean).map(|(w, m)| f64::from(*w) * f64::from(*m)).sum::<f64>();
        for (row, b) in b.data.chunks_exact_mut(words).enumerate() {
            let lost = dot(&weights[row * cols..][..cols]) - dot(&product[row * cols..][..cols]);
            b[1] = (lost as f32).to_bits();
        }
    }

    fn wrong(&self, plane: usize, what: String) -> CodecError {
        CodecError::Content { codec: self.name(), plane, what }
    }

    fn with_base(&self, base: CodecRef) -> CodecRef {
        Arc::new(Self { base: Some(base), ..self.clone() })
    }
}

impl Codec for LowRank {
    fn name(&self) -> String {
        let measure = match self.measure {
            Measure::Svd => "svd",
            Measure::Eora => "eora",
            Measure::Lord => "lord",
        };
        let base = self.base.as_ref().map_or(String::new(), |base| base.name() + "+");
        let size = match self.size {
            Size::Rank(rank) => format!("rank={rank}"),
            Size::Ratio(ratio) => format!("ratio={ratio}"),
        };
        format!("{base}{measure}:{size}{}", self.factors.suffix())
    }

    fn module(&self) -> &'static str {
        self.base.as_ref().map_or("f32", |base| base.module())
    }

    fn defines(&self) -> Vec<(&'static str, u32)> {
        self.base.as_ref().map_or_else(Vec::new, |base| base.defines())
    }

    fn sparsity(&self, cols: usize) -> Option<Sparsity> {
        self.base.as_ref().and_then(|base| base.sparsity(cols))
    }

    fn coded(&self) -> Option<(&CodecRef, Symbols)> {
        self.base.as_ref().and_then(|base| base.coded())
    }

    fn block_len(&self) -> usize {
        let (base, factors) = (self.base.as_ref().map_or(1, |base| base.block_len()), self.factors.codec().block_len());
        // Both are powers of two.
        base.max(factors)
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        let base = self.base.as_ref().map_or_else(Vec::new, |base| base.layout(cols));
        let a = self.factors.codec().layout(cols).into_iter().map(|_| PlaneLayout::VARIABLE);
        base.into_iter().chain([self.b_layout()]).chain(a).collect()
    }

    fn planned_bytes(&self, rows: usize, cols: usize) -> u64 {
        let base = self.base.as_ref().map_or(0, |base| base.planned_bytes(rows, cols));
        let b = 4 * self.b_layout().words(rows).unwrap_or(0) as u64;
        base + b + self.factors.codec().planned_bytes(self.rank(), cols)
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        self.encode_for(weights, rows, cols, None)
    }

    fn calibrates(&self) -> Calibrates {
        let own = if self.measure == Measure::Svd { Calibrates::No } else { Calibrates::Always };
        own.max(self.base.as_ref().map_or(Calibrates::No, |base| base.calibrates()))
    }

    fn encode_for(
        &self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        calibration: Option<&Calibration>,
    ) -> Result<Packed, CodecError> {
        if let Some(fitting) = self.for_shape(rows, cols) {
            return fitting.encode_for(weights, rows, cols, calibration);
        }
        check_weights(self, weights, rows, cols)?;
        if let Some(calibration) = calibration {
            calibration.check(cols)?;
        }
        let base = self.base.as_ref().map(|base| base.encode_for(weights, rows, cols, calibration)).transpose()?;
        let lost: Vec<f32> = match &base {
            Some(base) => weights.iter().zip(base.decode()).map(|(w, kept)| w - kept).collect(),
            None => weights.to_vec(),
        };
        let needed = || calibration.ok_or_else(|| CodecError::Uncalibrated { codec: self.name() });
        let weighing = match self.measure {
            Measure::Svd => Weighing::Even,
            Measure::Eora => Weighing::Moment(needed()?),
            Measure::Lord => Weighing::Covariance(needed()?),
        };
        let rank = self.rank();
        let found = factor::factor(&lost, rows, cols, rank, weighing)?;
        let (b, a) =
            (self.factors.encode_rows(&found.b, rows, rank)?, self.factors.codec().encode(&found.a, rank, cols)?);
        let mut planes = base.map_or_else(Vec::new, |base| base.planes);
        planes.push(Plane::of(self.b_layout(), b));
        planes.extend(a.planes.into_iter().map(|plane| Plane::of(PlaneLayout::VARIABLE, plane.data)));
        let mut packed = Packed { codec: Arc::new(self.clone()), rows, cols, planes };
        if let (Measure::Lord, Some(calibration)) = (self.measure, calibration) {
            self.mean_kept(weights, &mut packed, calibration.mean());
        }
        Ok(packed)
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        let mut weights = match self.base_of(packed) {
            Some(base) => base.decode(),
            None => vec![0.0; packed.rows * packed.cols],
        };
        self.add_product(packed, &mut weights);
        weights
    }

    fn check(&self, packed: &Packed) -> Result<(), CodecError> {
        if let Some(base) = self.base_of(packed) {
            base.codec.check(&base)?;
        }
        let at = self.base_planes(packed.cols);
        let Some(a) = self.a_of(packed) else {
            return Err(self.wrong(at + 1, format!("no whole number of factors of rank {}", self.rank())));
        };
        let (Some(b), rank) = (self.b_of(packed), self.rank()) else {
            return Err(self.wrong(at, "it is missing".into()));
        };
        let mut rows = b.data.chunks_exact(b.row_words as usize);
        let outside = |first: u32| {
            let first = first as usize;
            rank == 0 || !first.is_multiple_of(rank) || first.checked_add(rank).is_none_or(|end| end > a.rows)
        };
        match rows.position(|row| outside(row[0])) {
            Some(row) => {
                let first = b.data[row * b.row_words as usize];
                Err(self.wrong(at, format!("row {row} begins at {first} of {} columns of rank {rank}", a.rows)))
            }
            None => Ok(()),
        }
    }

    fn cut(&self, packed: &Packed, range: Range<usize>) -> Result<Packed, CodecError> {
        let (rows, cols, at) = (packed.rows, packed.cols, self.base_planes(packed.cols));
        let lost = || CodecError::Layout { codec: self.name(), plane: at, rows, cols };
        let base = self.base_of(packed).map(|base| base.rows(range.clone())).transpose()?;
        let b = self.b_of(packed).ok_or_else(lost)?;
        let words = b.row_words as usize;
        let cut = b.data.get(range.start * words..range.end * words).ok_or_else(lost)?;
        let mut planes = base.map_or_else(Vec::new, |base| base.planes);
        planes.push(Plane::of(b.layout(), cut.to_vec()));
        planes.extend(packed.planes.get(at + 1..).unwrap_or_default().iter().cloned());
        Ok(Packed { codec: packed.codec.clone(), rows: range.len(), cols, planes })
    }

    fn stack(&self, parts: &[&Packed]) -> Option<Packed> {
        let first = parts.first()?;
        let at = self.base_planes(first.cols);
        let bases: Vec<Packed> = parts.iter().filter_map(|part| self.base_of(part)).collect();
        let mut planes = match &self.base {
            Some(base) => base.stack(&bases.iter().collect::<Vec<_>>())?.planes,
            None => Vec::new(),
        };
        let mut b = Plane::of(self.b_layout(), Vec::new());
        let mut before = 0;
        for part in parts {
            let from = b.data.len();
            b.data.extend(&self.b_of(part)?.data);
            b.data[from..].iter_mut().step_by(b.row_words as usize).for_each(|start| *start += before);
            before += u32::try_from(self.a_of(part)?.rows).ok()?;
        }
        planes.push(b);
        for plane in at + 1..first.planes.len() {
            let data = parts.iter().flat_map(|part| &part.planes[plane].data).copied().collect();
            planes.push(Plane::of(PlaneLayout::VARIABLE, data));
        }
        let rows = parts.iter().map(|part| part.rows).sum();
        Some(Packed { codec: first.codec.clone(), rows, cols: first.cols, planes })
    }

    fn encodes(&self) -> bool {
        self.base.as_ref().is_none_or(|base| base.encodes())
    }

    fn unless_larger(&self, packed: Packed) -> Result<Packed, CodecError> {
        let Some(base) = self.base_of(&packed) else { return Ok(packed) };
        let mut base = base.codec.clone().unless_larger(base)?;
        base.planes.extend_from_slice(&packed.planes[self.base_planes(packed.cols)..]);
        Ok(Packed { codec: self.with_base(base.codec), ..base })
    }

    fn fallback(&self) -> CodecRef {
        let bf16 = Self { factors: Factors::Bf16, ..self.clone() };
        match &self.base {
            // Factors that rows cannot be cut for are not worth the codec.
            Some(base) if base.block_len() < self.block_len() => bf16.with_base(base.clone()),
            Some(base) => self.with_base(base.fallback()),
            None => Arc::new(bf16),
        }
    }

    fn for_shape(&self, rows: usize, cols: usize) -> Option<CodecRef> {
        let step = self.factors.step();
        let wanted = match self.size {
            Size::Rank(rank) => rank,
            Size::Ratio(percent) => {
                let parameters = percent as u128 * rows as u128 * cols as u128 / 100;
                ((parameters / (rows + cols).max(1) as u128) as usize).max(step)
            }
        };
        let rank = wanted.min(rows.min(cols)).min(MAX_RANK) / step * step;
        match &self.base {
            Some(base) if rank == 0 => Some(base.for_shape(rows, cols).unwrap_or_else(|| base.clone())),
            Some(base) => {
                let base = base.for_shape(rows, cols);
                let same = base.is_none() && self.size == Size::Rank(rank);
                let fitting =
                    || Self { base: base.or_else(|| self.base.clone()), size: Size::Rank(rank), ..self.clone() };
                (!same).then(|| Arc::new(fitting()) as CodecRef)
            }
            // Factors that are no smaller than the matrix are not worth what they lose.
            None if rank == 0 || rank * (rows + cols) >= rows * cols => Some(self.factors.dense()),
            None if self.size == Size::Rank(rank) => None,
            None => Some(Arc::new(Self { size: Size::Rank(rank), ..self.clone() })),
        }
    }

    fn for_table(&self) -> Option<CodecRef> {
        match &self.base {
            Some(base) => Some(base.for_table().unwrap_or_else(|| base.clone())),
            None => Some(self.factors.dense()),
        }
    }

    fn rewrap(&self, wrap: &dyn Fn(CodecRef) -> Result<CodecRef, CodecError>) -> Option<Result<CodecRef, CodecError>> {
        Some(wrap(self.base.clone()?).map(|base| self.with_base(base)))
    }

    fn low_rank<'a>(&self, packed: &'a Packed) -> Option<LowRankParts<'a>> {
        let b = self.b_of(packed)?;
        Some(LowRankParts {
            base: self.base_of(packed),
            a: self.a_of(packed)?,
            rank: self.rank(),
            b: &b.data,
            row_words: b.row_words as usize,
            format: self.factors.format(),
        })
    }

    fn is_low_rank(&self) -> bool {
        true
    }

    fn between(&self) -> usize {
        self.rank()
    }

    fn absorb_bias(&self, packed: &mut Packed, bias: &[f32]) -> bool {
        let at = self.base_planes(packed.cols);
        let Some(b) = packed.planes.get_mut(at).filter(|_| bias.len() == packed.rows) else { return false };
        for (row, bias) in b.data.chunks_exact_mut(b.row_words as usize).zip(bias) {
            row[1] = (f32::from_bits(row[1]) + bias).to_bits();
        }
        true
    }
}

#[cfg(test)]
mod tests;
