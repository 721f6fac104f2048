//! Linear layers over packed weights: `y = W x` with everything that fuses into it.
//!
//! In: a [`Packed`] matrix, uploaded as it is ([`Linear`]), and activations on the GPU ([`Rows`]). Out: activations on the
//! GPU. Weights are never expanded: the kernels decode them in registers. Which kernel runs is a [`Decision`] from the
//! shape and the adapter; all of them compute the same function ([`crate::reference::linear`] is its twin).

mod decision;
mod embed;
mod expand;
mod expanded;
mod forward;
mod low_rank;
#[cfg(test)]
mod tests;
mod tune;

pub use decision::{Decision, Device, Shape};
pub use embed::embed;
pub use expand::expanded;
pub use expanded::{Filling, Span, Spans, WINDOW};
pub use forward::{Epilogue, Norm, Residual, forward, forward_with};
pub use tune::{tune, tune_for};

use self::low_rank::LowRank;
use super::OpsError;
use super::dfloat11::Stream;
use crate::codec::dfloat11::DFloat11;
use crate::codec::{Codec, CodecRef, Packed, RUN, Sparsity};
use crate::gpu::{Buffer, Gpu, GpuError, Kernel, OptionValue, Purpose};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Activations `[tokens, …]` inside a buffer of f32: row `t` starts at float `offset + t·stride`.
///
/// A kernel may not read and write one buffer in the same dispatch, even in different places, but for
/// [`Residual::InPlace`].
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub buffer: &'a Buffer,
    /// Floats before row 0; inputs of a linear layer need a multiple of 4.
    pub offset: u32,
    /// Floats from row to row; inputs of a linear layer need a multiple of 4.
    pub stride: u32,
}

impl<'a> Rows<'a> {
    /// Rows of `stride` floats from the start of `buffer`.
    pub fn new(buffer: &'a Buffer, stride: u32) -> Self {
        Self { buffer, offset: 0, stride }
    }

    /// The rows from row `first` on.
    fn skip(self, first: u32) -> Self {
        Self { offset: self.offset + first * self.stride, ..self }
    }

    /// Fails unless the buffer holds `tokens` rows of `width` floats.
    fn check(&self, name: &'static str, tokens: u32, width: u32) -> Result<(), OpsError> {
        if tokens > 1 && self.stride < width {
            return Err(OpsError::shape("linear", format!("{name}: rows of {width} floats every {}", self.stride)));
        }
        let floats = u64::from(self.offset) + u64::from(tokens - 1) * u64::from(self.stride) + u64::from(width);
        check_size("linear", name, self.buffer, floats)
    }
}

/// Fails unless `buffer` holds `floats` 32-bit elements.
fn check_size(op: &'static str, buffer: &'static str, have: &Buffer, floats: u64) -> Result<(), OpsError> {
    let need = 4 * floats;
    let have = have.size();
    if have < need { Err(OpsError::BufferTooSmall { op, buffer, have, need }) } else { Ok(()) }
}

/// Rows of a layer that fit the device's bindings.
#[derive(Debug)]
struct Chunk {
    /// First output.
    output0: u32,
    outputs: u32,
    /// `codec_0`, `codec_1`, …
    planes: Vec<Buffer>,
    /// Rows of the low-rank part's B.
    factor: Option<Buffer>,
}

/// A weight matrix `[rows, cols]` on the GPU, packed; also an embedding table ([`embed`]).
#[derive(Debug)]
pub struct Linear {
    label: Box<str>,
    codec: CodecRef,
    sparsity: Option<Sparsity>,
    /// Outputs: rows of the matrix, or half of them if gated.
    outputs: u32,
    cols: u32,
    gated: bool,
    chunks: Box<[Chunk]>,
    low_rank: Option<LowRank>,
    /// Where the weights are that it expands itself.
    expanded: Option<expanded::Expanded>,
    bytes: u64,
    /// The kernels that were used, so that finding one again puts no options together.
    kernels: Mutex<Vec<(Use, Kernel)>>,
    /// The variants that were found to be the fastest.
    tuned: OnceLock<Box<tune::Tuned>>,
}

/// What a layer's kernel is used for; with what is fixed for a layer, its options follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Rows of a table.
    Lookup,
    /// A product.
    Product {
        decision: Decision,
        norm: bool,
        /// By the low-rank part only.
        alone: bool,
        /// By the expanded form of a coded matrix.
        expanded: bool,
    },
}

impl Linear {
    /// Uploads a matrix. One that is larger than a binding may be is split by rows; GPU bytes are [`Packed::bytes`].
    ///
    /// # Errors
    /// If not even one group of rows fits a binding, or the device has no room.
    pub fn upload(gpu: &Gpu, packed: &Packed, label: &str) -> Result<Self, OpsError> {
        Self::upload_split(gpu, packed, label, false, binding_limit(gpu))
    }

    /// Uploads the stacked matrix `[gate; up]` (each `rows/2` rows) of a gated layer, `y = act(gate x) · (up x)`.
    ///
    /// # Errors
    /// As [`Linear::upload`]; also for an odd number of rows.
    pub fn upload_gated(gpu: &Gpu, packed: &Packed, label: &str) -> Result<Self, OpsError> {
        if !shares_columns(&packed.codec) {
            let what = format!("{label}: gate and up rows have blocks of their own ({})", packed.codec.name());
            return Err(OpsError::shape("linear", what));
        }
        if !packed.rows.is_multiple_of(2) {
            let what = format!("{label}: a gated layer has as many gate rows as up rows, not {} in all", packed.rows);
            return Err(OpsError::shape("linear", what));
        }
        Self::upload_split(gpu, packed, label, true, binding_limit(gpu))
    }

    /// Uploads in chunks whose planes have at most `limit` bytes each.
    fn upload_split(gpu: &Gpu, packed: &Packed, label: &str, gated: bool, limit: u64) -> Result<Self, OpsError> {
        if let Some(parts) = packed.codec.low_rank(packed) {
            return low_rank::upload(gpu, packed, &parts, label, gated, limit);
        }
        let fail = |what: String| OpsError::shape("linear", format!("{label}: {what}"));
        let size = |n: usize| u32::try_from(n).map_err(|_| fail(format!("{n} rows or columns")));
        let (rows, cols) = (size(packed.rows)?, size(packed.cols)?);
        if rows == 0 || cols == 0 {
            return Err(fail(format!("an empty matrix [{rows}, {cols}]")));
        }
        if packed.codec.name() == DFloat11::NAME {
            let group = DFloat11.group(packed).map_err(|error| fail(error.to_string()))?;
            let stream = Arc::new(Stream::upload(gpu, &group, label)?);
            let codec: CodecRef = Arc::new(DFloat11);
            let spans = [Span { first: 0, rows }];
            return Self::expanding(gpu, &Spans { label, codec: &codec, spans: &spans, cols, gated }, &stream);
        }
        let outputs = if gated { rows / 2 } else { rows };
        let mut chunks = Vec::new();
        for range in split(packed, gated, limit).map_err(fail)? {
            let (output0, count) = (range.start as u32, range.len() as u32);
            let part;
            let packed = if range.len() == outputs as usize {
                packed
            } else {
                part = part_of(packed, gated, range).map_err(fail)?;
                &part
            };
            let planes = packed.planes.iter().enumerate();
            let planes = planes
                .map(|(i, plane)| {
                    gpu.upload(&format!("{label} plane {i} from row {output0}"), &plane.data, Purpose::Weights)
                })
                .collect::<Result<_, _>>()?;
            chunks.push(Chunk { output0, outputs: count, planes, factor: None });
        }
        let bytes = chunks.iter().flat_map(|c| &c.planes).map(Buffer::size).sum();
        let (codec, sparsity) = (packed.codec.clone(), packed.codec.sparsity(packed.cols));
        let (label, chunks) = (label.into(), chunks.into());
        let (low_rank, expanded, kernels, tuned) = (None, None, Mutex::default(), OnceLock::new());
        Ok(Self { label, codec, sparsity, outputs, cols, gated, chunks, low_rank, expanded, bytes, kernels, tuned })
    }

    /// The kernel for a use of this layer, looked up once.
    fn kernel(&self, what: Use, find: impl FnOnce() -> Result<Kernel, GpuError>) -> Result<Kernel, GpuError> {
        // A panic elsewhere leaves the list consistent.
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, kernel)) = kernels.iter().find(|(known, _)| *known == what) {
            return Ok(kernel.clone());
        }
        let kernel = find()?;
        kernels.push((what, kernel.clone()));
        Ok(kernel)
    }

    /// Width of the output.
    pub fn outputs(&self) -> u32 {
        self.outputs
    }

    /// Rows of the matrix: the outputs, or twice as many if gated.
    pub fn rows(&self) -> u32 {
        if self.gated { 2 * self.outputs } else { self.outputs }
    }

    /// Width of the input.
    pub fn cols(&self) -> u32 {
        self.cols
    }

    pub fn is_gated(&self) -> bool {
        self.gated
    }

    pub fn codec(&self) -> &CodecRef {
        &self.codec
    }

    /// Multiplications that a token takes: one for every stored number of a matrix.
    pub fn multiplications(&self) -> u64 {
        let weights = u64::from(self.rows()) * u64::from(self.cols);
        match &self.low_rank {
            None => weights,
            Some(low) => {
                let base = if low.alone { 0 } else { weights };
                base + low.a.multiplications() + u64::from(self.rows()) * u64::from(low.rank)
            }
        }
    }

    /// Bytes of the planes on the GPU.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bindings' worth of rows the matrix is split into.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Runs of 32 columns in a row.
    fn runs(&self) -> u32 {
        self.cols.div_ceil(RUN as u32)
    }

    /// Columns that do not fill the last run: kernels must not read past them.
    fn has_tail(&self) -> bool {
        !self.cols.is_multiple_of(RUN as u32)
    }

    /// `Params::sparse` of linear/sparse.wgsl.
    fn sparse_params(&self) -> [u32; 4] {
        self.sparsity.map_or([0; 4], |s| [s.line_words, s.kept.div_ceil(RUN) as u32, s.per_octet, s.block_rows])
    }

    /// Bindings of a chunk's planes, in order.
    fn bindings<'a>(&self, planes: &'a [Buffer]) -> impl Iterator<Item = (&'static str, &'a Buffer)> {
        let mask = self.sparsity.and(planes.last());
        let weights = planes.len() - usize::from(mask.is_some());
        PLANES.into_iter().zip(&planes[..weights]).chain(mask.map(|mask| ("sparse_mask", mask)))
    }

    /// The options that name this layer's codec.
    fn codec_options(&self) -> Vec<(&'static str, OptionValue)> {
        options_of(&*self.codec, self.sparsity.as_ref())
    }
}

/// Whether neighbouring rows multiply the same columns, so that gate and up rows can take turns.
pub fn shares_columns(codec: &CodecRef) -> bool {
    codec.sparsity(RUN).is_none_or(|sparsity| sparsity.block_rows == 0)
}

/// The options that name a codec.
fn options_of(codec: &dyn Codec, sparsity: Option<&Sparsity>) -> Vec<(&'static str, OptionValue)> {
    let mut options = vec![("CODEC", OptionValue::from(codec.module()))];
    if let Some(sparsity) = sparsity {
        options.push(("SPARSE", OptionValue::from(true)));
        // `MASK` of linear/sparse.wgsl.
        let mask: u32 = match sparsity {
            Sparsity { block_rows: 1.., .. } => 2,
            Sparsity { per_octet: 4, .. } => 1,
            _ => 0,
        };
        options.push(("MASK", mask.into()));
    }
    options.extend(codec.defines().into_iter().map(|(name, value)| (name, value.into())));
    options
}

/// Bytes that one plane of a chunk may have.
fn binding_limit(gpu: &Gpu) -> u64 {
    let limits = gpu.limits();
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
}

/// Names of the planes' bindings.
const PLANES: [&str; 3] = ["codec_0", "codec_1", "codec_2"];

/// The matrix of some of the outputs: their rows, or their gate rows and then their up rows.
fn part_of(packed: &Packed, gated: bool, range: Range<usize>) -> Result<Packed, String> {
    let rows = |range| packed.rows(range).map_err(|error| error.to_string());
    if !gated {
        return rows(range);
    }
    let n = packed.rows / 2;
    let (gate, up) = (rows(range.clone())?, rows(n + range.start..n + range.end)?);
    let stacked = Packed::concat(&[&gate, &up]);
    stacked.ok_or_else(|| "its gate and up rows cannot be split for this device".into())
}

/// Cuts the outputs so that every plane of every part has at most `limit` bytes.
fn split(packed: &Packed, gated: bool, limit: u64) -> Result<Vec<Range<usize>>, String> {
    let granularity = packed.row_granularity();
    let outputs = if gated { packed.rows / 2 } else { packed.rows };
    let fits = |packed: &Packed| packed.planes.iter().all(|plane| 4 * plane.data.len() as u64 <= limit);
    if fits(packed) {
        return Ok(vec![0..outputs; 1]);
    }
    let too_wide = || format!("{granularity} rows of {} columns are more than a binding's {limit} bytes", packed.cols);
    let halves = if gated { 2 } else { 1 };
    let fixed = packed.planes.iter().filter(|plane| !plane.layout().is_variable());
    let most = fixed.map(|p| (limit / 4 / u64::from(p.row_words.max(1))) as usize * p.rows_per_group as usize);
    let step = (most.min().unwrap_or(usize::MAX) / halves).min(outputs) / granularity * granularity;
    if step == 0 {
        return Err(too_wide());
    }
    let mut parts: Vec<Range<usize>> =
        (0..outputs).step_by(step).map(|start| start..outputs.min(start + step)).collect();
    if packed.planes.iter().all(|plane| !plane.layout().is_variable()) {
        return Ok(parts);
    }
    // How long the other planes become is known only when they are cut: parts that are too large are halved. From the back, so that
    // they stay in order.
    let mut fitting = Vec::new();
    while let Some(range) = parts.pop() {
        if fits(&part_of(packed, gated, range.clone())?) {
            fitting.push(range);
            continue;
        }
        if range.len() <= granularity {
            return Err(too_wide());
        }
        let half = (range.len() / 2).next_multiple_of(granularity).max(granularity);
        parts.extend([range.start..range.start + half, range.start + half..range.end]);
    }
    fitting.reverse();
    Ok(fitting)
}
