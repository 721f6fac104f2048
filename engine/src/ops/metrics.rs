//! Comparing logits and tensors on the GPU: only a few numbers a position come back. `engine::eval` makes statistics of them.

use super::{OpsError, Variant, holds, span};
use crate::gpu::{Buffer, BufferSlice, Gpu, Recorder};

/// Words of a record of [`compare`].
pub const COMPARE_WORDS: u32 = 12;
/// Words of a record of [`nll`].
pub const NLL_WORDS: u32 = 4;
/// Most workgroups, and so partial sums, of [`difference`].
const DIFFERENCE_GROUPS: u32 = 256;

/// What the original model (a) and the compressed one (b) say of one position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// −ln p of the target token, nats.
    pub nll: [f32; 2],
    /// KL divergence from a to b, nats.
    pub kl_divergence: f32,
    /// Probability of the target token.
    pub p_target: [f32; 2],
    /// Most probable token.
    pub argmax: [u32; 2],
    /// How many of the five most probable tokens are the same.
    pub top5_overlap: u32,
    /// Entropy of the distribution, nats.
    pub entropy: [f32; 2],
}

/// What one model says of one position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// −ln p of the target token, nats.
    pub nll: f32,
    /// Probability of the target token.
    pub p_target: f32,
    /// Most probable token.
    pub argmax: u32,
    /// Entropy of the distribution, nats.
    pub entropy: f32,
}

/// How many positions, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Positions.
    pub rows: u32,
    /// Logits of a position.
    pub vocab: u32,
    /// Which kernel to record.
    pub variant: Variant,
}

impl Positions {
    /// `rows` positions of `vocab` logits, with the kernel for the adapter at hand.
    pub fn new(rows: u32, vocab: u32) -> Self {
        Self { rows, vocab, variant: Variant::Auto }
    }

    /// A workgroup a position; on software adapters one SIMD register wide, so that its barriers cost nothing.
    fn lanes(&self, gpu: &Gpu) -> u32 {
        if self.variant.software(gpu) { 8 } else { 256 }
    }
}

/// Rows of f32 in a buffer: logits, or activations.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Where they are.
    pub buffer: BufferSlice,
    /// Of row 0, in floats.
    pub offset: u32,
    /// Floats from row to row.
    pub stride: u32,
}

impl Matrix {
    /// Rows that lie tightly one after the other from the start of a buffer.
    pub fn tight(buffer: impl Into<BufferSlice>, cols: u32) -> Self {
        Self { buffer: buffer.into(), offset: 0, stride: cols }
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CompareParams {
    rows: u32,
    vocab: u32,
    a_offset: u32,
    a_stride: u32,
    b_offset: u32,
    b_stride: u32,
    target_offset: u32,
    record_offset: u32,
}

/// Records the comparison of positions into `records` (`[_, COMPARE_WORDS]` u32, from row `first_record`).
///
/// `targets`: u32, row i's target token at `first_target + i`. Read the result with [`read_comparisons`].
///
/// # Errors
/// [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn compare(
    rec: &mut Recorder,
    positions: &Positions,
    a: &Matrix,
    b: &Matrix,
    (targets, first_target): (BufferSlice, u32),
    (records, first_record): (BufferSlice, u32),
) -> Result<(), OpsError> {
    const OP: &str = "eval/compare";
    let Positions { rows, vocab, .. } = *positions;
    if vocab == 0 {
        return Err(OpsError::shape(OP, "an empty vocabulary"));
    }
    holds(OP, "a", &a.buffer, span(a.offset, rows, a.stride, vocab))?;
    holds(OP, "b", &b.buffer, span(b.offset, rows, b.stride, vocab))?;
    holds(OP, "targets", &targets, u64::from(first_target) + u64::from(rows))?;
    holds(OP, "record", &records, (u64::from(first_record) + u64::from(rows)) * u64::from(COMPARE_WORDS))?;
    let params = CompareParams {
        rows,
        vocab,
        a_offset: a.offset,
        a_stride: a.stride,
        b_offset: b.offset,
        b_stride: b.stride,
        target_offset: first_target,
        record_offset: first_record,
    };
    let kernel = rec.gpu().kernel(OP, &[("LANES", positions.lanes(rec.gpu()).into())])?;
    let bindings = [("a", a.buffer.clone()), ("b", b.buffer.clone()), ("targets", targets), ("record", records)];
    Ok(rec.dispatch(&kernel, &bindings, &params, [rows, 1, 1])?)
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct NllParams {
    rows: u32,
    vocab: u32,
    offset: u32,
    stride: u32,
    target_offset: u32,
    record_offset: u32,
    pad: [u32; 2],
}

/// Records the likelihood of positions into `records` (`[_, NLL_WORDS]` u32, from row `first_record`).
///
/// `targets`: u32, row i's target token at `first_target + i`. Read the result with [`read_likelihoods`].
///
/// # Errors
/// [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
pub fn nll(
    rec: &mut Recorder,
    positions: &Positions,
    logits: &Matrix,
    (targets, first_target): (BufferSlice, u32),
    (records, first_record): (BufferSlice, u32),
) -> Result<(), OpsError> {
    const OP: &str = "eval/nll";
    let Positions { rows, vocab, .. } = *positions;
    if vocab == 0 {
        return Err(OpsError::shape(OP, "an empty vocabulary"));
    }
    holds(OP, "logits", &logits.buffer, span(logits.offset, rows, logits.stride, vocab))?;
    holds(OP, "targets", &targets, u64::from(first_target) + u64::from(rows))?;
    holds(OP, "record", &records, (u64::from(first_record) + u64::from(rows)) * u64::from(NLL_WORDS))?;
    let params = NllParams {
        rows,
        vocab,
        offset: logits.offset,
        stride: logits.stride,
        target_offset: first_target,
        record_offset: first_record,
        pad: [0; 2],
    };
    let kernel = rec.gpu().kernel(OP, &[("LANES", positions.lanes(rec.gpu()).into())])?;
    let bindings = [("logits", logits.buffer.clone()), ("targets", targets), ("record", records)];
    Ok(rec.dispatch(&kernel, &bindings, &params, [rows, 1, 1])?)
}

/// Waits for the device and reads `count` records of [`compare`] from record `first`.
///
/// # Errors
/// [`OpsError::NotANumber`] names the first position whose numbers are none; [`OpsError::Gpu`].
pub async fn read_comparisons(
    gpu: &Gpu,
    records: &Buffer,
    first: u32,
    count: u32,
) -> Result<Vec<Comparison>, OpsError> {
    let words = u64::from(COMPARE_WORDS);
    let all: Vec<u32> = gpu.read(records, u64::from(first) * words, u64::from(count) * words).await?;
    let float = f32::from_bits;
    all.chunks_exact(COMPARE_WORDS as usize)
        .enumerate()
        .map(|(i, w)| {
            let c = Comparison {
                nll: [float(w[0]), float(w[1])],
                kl_divergence: float(w[2]),
                p_target: [float(w[3]), float(w[4])],
                argmax: [w[5], w[6]],
                top5_overlap: w[7],
                entropy: [float(w[8]), float(w[9])],
            };
            let finite = c.nll[0].is_finite() && c.nll[1].is_finite() && c.kl_divergence.is_finite();
            if finite { Ok(c) } else { Err(not_a_number("eval/compare", i)) }
        })
        .collect()
}

/// Waits for the device and reads `count` records of [`nll`] from record `first`.
///
/// # Errors
/// [`OpsError::NotANumber`] names the first position whose numbers are none; [`OpsError::Gpu`].
pub async fn read_likelihoods(
    gpu: &Gpu,
    records: &Buffer,
    first: u32,
    count: u32,
) -> Result<Vec<Likelihood>, OpsError> {
    let words = u64::from(NLL_WORDS);
    let all: Vec<u32> = gpu.read(records, u64::from(first) * words, u64::from(count) * words).await?;
    let float = f32::from_bits;
    all.chunks_exact(NLL_WORDS as usize)
        .enumerate()
        .map(|(i, w)| {
            let l = Likelihood { nll: float(w[0]), p_target: float(w[1]), argmax: w[2], entropy: float(w[3]) };
            if l.nll.is_finite() { Ok(l) } else { Err(not_a_number("eval/nll", i)) }
        })
        .collect()
}

fn not_a_number(op: &'static str, position: usize) -> OpsError {
    OpsError::NotANumber { op, what: format!("the likelihood at position {position}") }
}

/// How far one tensor is from another, as sums.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Σ(a−b)².
    pub error: f64,
    /// Σa².
    pub energy: f64,
    /// Σab.
    pub product: f64,
    /// Σb².
    pub other_energy: f64,
}

impl Difference {
    /// Normalised mean squared error Σ(a−b)² / Σa²; 0 for equal tensors, infinite where a is zero and b is not.
    pub fn nmse(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.energy }
    }

    /// Cosine of the angle between the tensors; 1 for two zeros.
    pub fn cosine(&self) -> f64 {
        let norms = (self.energy * self.other_energy).sqrt();
        if norms > 0.0 { self.product / norms } else { f64::from(self.energy == self.other_energy) }
    }

    /// The sums over both.
    pub fn plus(&self, other: &Difference) -> Difference {
        Difference {
            error: self.error + other.error,
            energy: self.energy + other.energy,
            product: self.product + other.product,
            other_energy: self.other_energy + other.other_energy,
        }
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct DifferenceParams {
    rows: u32,
    cols: u32,
    a_offset: u32,
    a_stride: u32,
    b_offset: u32,
    b_stride: u32,
    sum_offset: u32,
    groups: u32,
}

/// Floats that the partial sums of one [`difference`] take, whatever the tensor.
pub const DIFFERENCE_FLOATS: u32 = DIFFERENCE_GROUPS * 4;

/// Records the sums of two tensors `[rows, cols]` into place `slot` of `sums` (`[_, DIFFERENCE_FLOATS]` f32, zeroed before).
///
/// # Errors
/// [`OpsError::BufferTooSmall`], [`OpsError::Shape`], or [`OpsError::Gpu`] from recording.
pub fn difference(
    rec: &mut Recorder,
    [rows, cols]: [u32; 2],
    a: &Matrix,
    b: &Matrix,
    sums: impl Into<BufferSlice>,
    slot: u32,
) -> Result<(), OpsError> {
    const OP: &str = "eval/difference";
    let sums = sums.into();
    let n = u64::from(rows) * u64::from(cols);
    if n == 0 || n + u64::from(DIFFERENCE_GROUPS) * 64 > u64::from(u32::MAX) {
        return Err(OpsError::shape(OP, format!("{rows} × {cols} numbers")));
    }
    holds(OP, "a", &a.buffer, span(a.offset, rows, a.stride, cols))?;
    holds(OP, "b", &b.buffer, span(b.offset, rows, b.stride, cols))?;
    holds(OP, "sums", &sums, (u64::from(slot) + 1) * u64::from(DIFFERENCE_FLOATS))?;
    let groups = (n.div_ceil(64) as u32).min(DIFFERENCE_GROUPS);
    let params = DifferenceParams {
        rows,
        cols,
        a_offset: a.offset,
        a_stride: a.stride,
        b_offset: b.offset,
        b_stride: b.stride,
        sum_offset: slot * DIFFERENCE_GROUPS,
        groups,
    };
    let kernel = rec.gpu().kernel(OP, &[])?;
    let bindings = [("a", a.buffer.clone()), ("b", b.buffer.clone()), ("sums", sums)];
    Ok(rec.dispatch(&kernel, &bindings, &params, [groups, 1, 1])?)
}

/// Waits for the device and reads the results of the [`difference`]s in places `0..count`.
///
/// # Errors
/// [`OpsError::Gpu`].
pub async fn read_differences(gpu: &Gpu, sums: &Buffer, count: u32) -> Result<Vec<Difference>, OpsError> {
    let floats: Vec<f32> = gpu.read(sums, 0, u64::from(count) * u64::from(DIFFERENCE_FLOATS)).await?;
    let total = |slot: &[f32]| {
        slot.chunks_exact(4).fold(Difference::default(), |d, s| {
            let [error, energy, product, other_energy] = [0, 1, 2, 3].map(|i| f64::from(s[i]));
            d.plus(&Difference { error, energy, product, other_energy })
        })
    };
    Ok(floats.chunks_exact(DIFFERENCE_FLOATS as usize).map(total).collect())
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CosineParams {
    rows: u32,
    cols: u32,
    y_offset: u32,
    pad: u32,
}

/// Records the cosine between each row of `a` and of `b` (`[rows, cols]`) into `y`, the first at float `y_offset`.
///
/// # Errors
/// [`OpsError::BufferTooSmall`], [`OpsError::Shape`], or [`OpsError::Gpu`] from recording.
pub fn cosine(
    rec: &mut Recorder,
    [rows, cols]: [u32; 2],
    a: impl Into<BufferSlice>,
    b: impl Into<BufferSlice>,
    y: impl Into<BufferSlice>,
    y_offset: u32,
) -> Result<(), OpsError> {
    const OP: &str = "eval/cosine";
    let (a, b, y) = (a.into(), b.into(), y.into());
    if rows == 0 || rows > rec.gpu().limits().max_compute_workgroups_per_dimension {
        return Err(OpsError::shape(OP, format!("{rows} rows")));
    }
    holds(OP, "a", &a, u64::from(rows) * u64::from(cols))?;
    holds(OP, "b", &b, u64::from(rows) * u64::from(cols))?;
    holds(OP, "y", &y, u64::from(y_offset) + u64::from(rows))?;
    let params = CosineParams { rows, cols, y_offset, pad: 0 };
    let kernel = rec.gpu().kernel(OP, &[])?;
    Ok(rec.dispatch(&kernel, &[("a", a), ("b", b), ("y", y)], &params, [rows, 1, 1])?)
}
