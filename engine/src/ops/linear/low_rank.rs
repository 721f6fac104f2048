//! The low-rank part of a layer: `y = W x + B (A x)` in two dispatches. The first makes t = A x, an ordinary product; the second adds
//! B t to the sums of W x while they are in registers.

use super::forward::forward_raw;
use super::{Chunk, Linear, Norm, Rows};
use crate::codec::{LowRankParts, Packed};
use crate::gpu::{Buffer, Gpu, Purpose, Recorder};
use crate::ops::OpsError;

/// A, and what kernels must know of B, whose rows lie with the [`Chunk`]s.
#[derive(Debug)]
pub(super) struct LowRank {
    /// `[n · rank, cols]` for n stacked matrices.
    pub(super) a: Box<Linear>,
    /// Columns of B; a multiple of 8.
    pub(super) rank: u32,
    /// Words of a row of B.
    pub(super) row_words: u32,
    /// How B is stored, as the kernels number it.
    pub(super) format: u32,
    /// There is no W.
    pub(super) alone: bool,
}

/// What the second dispatch is given.
pub(super) struct Input<'a> {
    /// `[tokens, n · rank]`
    pub(super) t: Buffer,
    pub(super) low: &'a LowRank,
}

impl LowRank {
    /// Records t = A x; of a normalised input without its root mean square, unless there is no second dispatch that knows it.
    pub(super) fn input(
        &self,
        rec: &mut Recorder,
        tokens: u32,
        x: Rows,
        norm: Option<Norm>,
    ) -> Result<Input<'_>, OpsError> {
        let width = self.a.outputs();
        let t = rec.gpu().scratch("low rank", 4 * u64::from(tokens) * u64::from(width))?;
        let y = Rows::new(&t, width);
        match norm {
            Some(_) if self.alone => {
                let epilogue = super::Epilogue { norm, ..super::Epilogue::default() };
                super::forward(rec, &self.a, tokens, x, y, &epilogue)?;
            }
            norm => forward_raw(rec, &self.a, tokens, x, y, norm)?,
        }
        Ok(Input { t, low: self })
    }
}

/// Uploads a matrix with a low-rank part.
pub(super) fn upload(
    gpu: &Gpu,
    packed: &Packed,
    parts: &LowRankParts,
    label: &str,
    gated: bool,
    limit: u64,
) -> Result<Linear, OpsError> {
    let fail = |what: String| OpsError::shape("linear", format!("{label}: {what}"));
    let size = |n: usize| u32::try_from(n).map_err(|_| fail(format!("{n} rows or columns")));
    let (rank, row_words) = (size(parts.rank)?, size(parts.row_words)?);
    if parts.rank == 0 || !parts.rank.is_multiple_of(8) || parts.b.len() != packed.rows * parts.row_words {
        return Err(fail(format!("a low-rank part of rank {rank} for {} rows", packed.rows)));
    }
    let mut linear = match &parts.base {
        Some(base) => Linear::upload_split(gpu, base, label, gated, limit)?,
        None => without_weights(gpu, packed, parts.row_words, label, gated, limit)?,
    };
    let a = Linear::upload_split(gpu, &parts.a, &format!("{label}, low rank"), false, limit)?;
    let (outputs, words) = (linear.outputs as usize, parts.row_words);
    linear.bytes += a.bytes();
    for chunk in &mut *linear.chunks {
        let range = chunk.output0 as usize..(chunk.output0 + chunk.outputs) as usize;
        let mut rows = parts.b[range.start * words..range.end * words].to_vec();
        if gated {
            rows.extend(&parts.b[(outputs + range.start) * words..(outputs + range.end) * words]);
        }
        if 4 * rows.len() as u64 > limit {
            return Err(fail(format!("{} rows of rank {rank} are more than a binding's {limit} bytes", range.len())));
        }
        let factor = gpu.upload(&format!("{label} low rank from row {}", range.start), &rows, Purpose::Weights)?;
        linear.bytes += factor.size();
        chunk.factor = Some(factor);
    }
    let (format, alone) = (parts.format, parts.base.is_none());
    linear.low_rank = Some(LowRank { a: Box::new(a), rank, row_words, format, alone });
    linear.codec = packed.codec.clone();
    Ok(linear)
}

/// A layer of which there is a low-rank part only: kernels decode no runs of the codec that they are made with, f32.
fn without_weights(
    gpu: &Gpu,
    packed: &Packed,
    row_words: usize,
    label: &str,
    gated: bool,
    limit: u64,
) -> Result<Linear, OpsError> {
    let fail = |what: String| OpsError::shape("linear", format!("{label}: {what}"));
    let halves = if gated { 2 } else { 1 };
    let sizes = (u32::try_from(packed.rows / halves), u32::try_from(packed.cols));
    let (Ok(outputs @ 1..), Ok(cols @ 1..)) = sizes else {
        return Err(fail(format!("a matrix [{}, {}]", packed.rows, packed.cols)));
    };
    let step = (limit / (4 * row_words * halves) as u64).clamp(1, outputs.into()) as u32;
    let none = gpu.none()?;
    let chunks = (0..outputs).step_by(step as usize).map(|output0| Chunk {
        output0,
        outputs: step.min(outputs - output0),
        planes: vec![none.clone()],
        factor: None,
    });
    Ok(Linear {
        label: label.into(),
        codec: packed.codec.clone(),
        outputs,
        cols,
        gated,
        chunks: chunks.collect(),
        sparsity: None,
        low_rank: None,
        expanded: None,
        bytes: 0,
        kernels: Default::default(),
        tuned: Default::default(),
    })
}
