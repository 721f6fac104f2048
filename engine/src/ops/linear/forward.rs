//! Records a linear layer: checks shapes, splits work, binds and dispatches.

use super::decision::rows_of_a_lane;
use super::expand::expand;
use super::low_rank::Input;
use super::{Chunk, Decision, Device, Linear, Rows, Shape, Use, binding_limit, check_size, options_of};
use crate::codec::Codec;
use crate::gpu::{Buffer, Gpu, OptionValue, Recorder};
use crate::ops::elementwise::Activation;
use crate::ops::{Bindings, OpsError};
use bytemuck::{Pod, Zeroable};

/// RMS norm of the input, fused: `x · weight / √(mean(x²) + eps)`.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[cols]`; a model that multiplies by 1 + g adds the 1 when it loads g.
    pub weight: &'a Buffer,
    pub eps: f32,
}

/// What the result is added to.
#[derive(Clone, Copy, Debug, Default)]
pub enum Residual<'a> {
    #[default]
    None,
    /// `[tokens, outputs]` in another buffer than the output.
    Add(Rows<'a>),
    /// What the output holds: `y += …`.
    InPlace,
}

/// What is fused with the product:
/// `y = residual + cap·tanh(act(scale·W x + bias) / cap)`, W x with the layer's low-rank part; a gated layer has `act(gate) · up` for `act(…)`, each with its
/// scale and bias.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// Only for one column at a time ([`Decision::Rowwise`] with one token, or [`Decision::Matvec`]).
    pub norm: Option<Norm<'a>>,
    /// `[rows]`: outputs, or gate then up. A layer with a low-rank part has its bias in itself
    /// ([`Codec::absorb_bias`](crate::codec::Codec::absorb_bias)).
    pub bias: Option<&'a Buffer>,
    pub activation: Option<Activation>,
    pub residual: Residual<'a>,
    pub scale: f32,
    /// Soft cap (Gemma 2's logits).
    pub cap: Option<f32>,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Self { norm: None, bias: None, activation: None, residual: Residual::None, scale: 1.0, cap: None }
    }
}

/// `Params` of linear/layer.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    runs: u32,
    cols: u32,
    tokens: u32,
    outputs: u32,
    output0: u32,
    layer: u32,
    flags: u32,
    grid: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    residual_offset: u32,
    residual_stride: u32,
    scale: f32,
    cap: f32,
    eps: f32,
    octets: u32,
    words: u32,
    t_width: u32,
    sparse: [u32; 4],
}

/// Bits of `Params::flags`.
mod flag {
    pub const BIAS: u32 = 1;
    pub const RESIDUAL: u32 = 2;
    pub const ACCUMULATE: u32 = 4;
    pub const GATED: u32 = 8;
    pub const RAW: u32 = 16;
    pub const FORMAT: u32 = 5;
    pub const ACTIVATION: u32 = 8;
}

impl Linear {
    /// The kernel that [`forward`] runs for this many columns. `norm`: whether it normalises its input.
    pub fn decision(&self, gpu: &Gpu, tokens: u32, norm: bool) -> Decision {
        match self.tuned(tokens) {
            Some(found) if !norm || found.takes_norm() => found,
            _ => self.chosen(gpu, tokens, norm),
        }
    }

    /// The kernel that the rule chooses.
    pub(super) fn chosen(&self, gpu: &Gpu, tokens: u32, norm: bool) -> Decision {
        let shape = Shape { tokens, rows: self.rows(), cols: self.cols(), norm };
        let device = Device::of(gpu);
        self.adapted(match self.codec.coded() {
            Some(_) => Decision::choose_coded(device, shape, self.expands(binding_limit(gpu))),
            None => Decision::choose(device, shape),
        })
    }

    /// What becomes of a decision for weights like these.
    pub(super) fn adapted(&self, decision: Decision) -> Decision {
        self.sparsity.map_or(decision, |sparsity| decision.for_sparse(&sparsity, self.cols))
    }
}

/// `y[t, :] = W x[t, :]` for `tokens` rows of x `[tokens, cols]` and y `[tokens, outputs]`, with the epilogue, by the kernel
/// that suits the shape and the adapter.
///
/// # Errors
/// Buffers that are too small or misaligned, a norm with several tokens, or an error of the device.
pub fn forward(
    rec: &mut Recorder,
    linear: &Linear,
    tokens: u32,
    x: Rows,
    y: Rows,
    epilogue: &Epilogue,
) -> Result<(), OpsError> {
    let decision = linear.decision(rec.gpu(), tokens, epilogue.norm.is_some());
    forward_with(rec, decision, linear, tokens, x, y, epilogue)
}

/// `y = W (x · norm weight)`, without the norm's root mean square: what a low-rank layer's first factor makes of an input that the
/// second dispatch normalises. Without a norm, `y = W x`.
pub(super) fn forward_raw(
    rec: &mut Recorder,
    linear: &Linear,
    tokens: u32,
    x: Rows,
    y: Rows,
    norm: Option<Norm>,
) -> Result<(), OpsError> {
    let shape = Shape { tokens, rows: linear.rows(), cols: linear.cols(), norm: norm.is_some() };
    let decision = Decision::choose(Device::of(rec.gpu()), shape);
    run(rec, decision, linear, tokens, x, y, &Epilogue { norm, ..Epilogue::default() }, norm.is_some())
}

/// [`forward`] by the kernel the caller chose.
///
/// # Errors
/// As [`forward`]; also if the device cannot run this variant.
pub fn forward_with(
    rec: &mut Recorder,
    decision: Decision,
    linear: &Linear,
    tokens: u32,
    x: Rows,
    y: Rows,
    epilogue: &Epilogue,
) -> Result<(), OpsError> {
    run(rec, decision, linear, tokens, x, y, epilogue, false)
}

fn run(
    rec: &mut Recorder,
    decision: Decision,
    linear: &Linear,
    tokens: u32,
    x: Rows,
    y: Rows,
    epilogue: &Epilogue,
    raw: bool,
) -> Result<(), OpsError> {
    if tokens == 0 {
        return Ok(());
    }
    let decision = linear.adapted(decision);
    check(decision, linear, tokens, x, y, epilogue)?;
    if let Some(expanded) = &linear.expanded {
        return expanded.forward(rec, decision, linear, tokens, x, y, epilogue);
    }
    let mut epilogue = *epilogue;
    if let (Some(_), Residual::Add(rows)) = (epilogue.norm, epilogue.residual) {
        // With a norm there is no buffer left for a residual of its own.
        let row = |rows: Rows, t: u32| 4 * (u64::from(rows.offset) + u64::from(t) * u64::from(rows.stride));
        for t in 0..tokens {
            rec.copy(rows.buffer, row(rows, t), y.buffer, row(y, t), 4 * u64::from(linear.outputs));
        }
        epilogue.residual = Residual::InPlace;
    }
    let epilogue = &epilogue;
    // No dispatch may keep the device for longer than a submission should last.
    let flops_per_token = 2 * linear.multiplications();
    let budget = rec.gpu().flops_per_submission() / flops_per_token.max(1);
    let tile = decision.tokens();
    let max_tiles = rec.gpu().limits().max_compute_workgroups_per_dimension;
    let tiles = (budget / u64::from(tile)).clamp(1, u64::from(max_tiles)) as u32;
    let mut first = 0;
    while first < tokens {
        let count = tokens.min(first.saturating_add(tiles.saturating_mul(tile))) - first;
        let residual = match epilogue.residual {
            Residual::Add(rows) => Residual::Add(rows.skip(first)),
            other => other,
        };
        let mut epilogue = Epilogue { residual, ..*epilogue };
        let mut x = x.skip(first);
        let input = linear.low_rank.as_ref().map(|low| low.input(rec, count, x, epilogue.norm)).transpose()?;
        if let Some(Input { t, low }) = &input
            && low.alone
        {
            // The first factor has normalised it, and nothing else looks at it.
            epilogue.norm = None;
            x = Rows::new(t, 0);
        }
        for chunk in &*linear.chunks {
            let (y, input) = (y.skip(first), input.as_ref());
            match linear.codec.coded().filter(|_| !matches!(decision, Decision::Coded { .. })) {
                Some((base, symbols)) => {
                    let planes = expand(rec, linear, chunk, symbols)?;
                    let weights = Weights { codec: &**base, expanded: true, planes: &planes };
                    dispatch(rec, decision, linear, chunk, weights, count, x, y, &epilogue, raw, input)?;
                }
                None => {
                    let weights = Weights { codec: &*linear.codec, expanded: false, planes: &chunk.planes };
                    dispatch(rec, decision, linear, chunk, weights, count, x, y, &epilogue, raw, input)?;
                }
            }
        }
        rec.work(flops_per_token * u64::from(count))?;
        first += count;
    }
    Ok(())
}

fn check(d: Decision, linear: &Linear, tokens: u32, x: Rows, y: Rows, epilogue: &Epilogue) -> Result<(), OpsError> {
    let fail = |what: String| Err(OpsError::shape("linear", format!("{}: {what}", linear.label)));
    if !linear.has_tail() && !(x.offset.is_multiple_of(4) && (tokens == 1 || x.stride.is_multiple_of(4))) {
        return fail(format!("x starts at float {} with stride {}, not at multiples of 4", x.offset, x.stride));
    }
    x.check("x", tokens, linear.cols)?;
    y.check("y", tokens, linear.outputs)?;
    if let Residual::Add(rows) = epilogue.residual {
        rows.check("residual", tokens, linear.outputs)?;
    }
    if epilogue.bias.is_some() && linear.low_rank.is_some() {
        return fail("the bias of a layer with a low-rank part is part of it".into());
    }
    if let Some(bias) = epilogue.bias {
        check_size("linear", "bias", bias, linear.rows().into())?;
    }
    if let Some(norm) = epilogue.norm {
        check_size("linear", "norm_weight", norm.weight, linear.cols.into())?;
        if !d.takes_norm() {
            return fail(format!("{tokens} tokens: a norm fuses with single columns only"));
        }
    }
    Ok(())
}

/// Kernel and options of a decision, without those of the codec.
fn kernel_of(d: Decision, norm: bool, tail: bool) -> (&'static str, Vec<(&'static str, OptionValue)>) {
    let tail = ("TAIL", OptionValue::from(tail));
    let norm = ("NORM", OptionValue::from(norm));
    match d {
        Decision::Rowwise { share, tokens } => {
            let lanes: u32 = if share { 8 } else { 1 };
            let rows = rows_of_a_lane(share);
            let options = [("SHARE", lanes.into()), ("ROWS", rows.into()), ("TOKENS", tokens.into()), norm, tail];
            ("linear/rowwise", options.into())
        }
        Decision::Walk => ("linear/walk", [norm, tail].into()),
        Decision::Matvec { lanes, subgroup } => {
            ("linear/matvec", [("LANES", lanes.into()), ("SUBGROUP", subgroup.into()), norm, tail].into())
        }
        Decision::Coded { lanes, tokens } => {
            ("linear/coded", [("LANES", lanes.into()), ("TOKENS", tokens.into()), norm, tail].into())
        }
        Decision::Matmul { tile, f16 } => ("linear/matmul", [("TILE", tile.into()), ("F16", f16.into()), tail].into()),
    }
}

/// What a kernel reads weights from.
struct Weights<'a> {
    codec: &'a dyn Codec,
    /// Of a coded matrix, the expanded form.
    expanded: bool,
    planes: &'a [Buffer],
}

fn dispatch(
    rec: &mut Recorder,
    decision: Decision,
    linear: &Linear,
    chunk: &Chunk,
    weights: Weights,
    tokens: u32,
    x: Rows,
    y: Rows,
    epilogue: &Epilogue,
    raw: bool,
    input: Option<&Input>,
) -> Result<(), OpsError> {
    let gpu = rec.gpu().clone();
    let alone = input.is_some_and(|input| input.low.alone);
    let norm = epilogue.norm.is_some();
    let kernel = linear.kernel(Use::Product { decision, norm, alone, expanded: weights.expanded }, || {
        let (name, mut options) = kernel_of(decision, norm, linear.has_tail() && !alone);
        options.extend(options_of(weights.codec, linear.sparsity.as_ref()));
        gpu.kernel(name, &options)
    })?;

    let none = gpu.none()?;
    let mut flags = epilogue.activation.map_or(0, |a| 1 + a.option()) << flag::ACTIVATION;
    if linear.gated {
        flags |= flag::GATED;
    }
    if epilogue.bias.is_some() || input.is_some() {
        flags |= flag::BIAS;
    }
    if raw {
        flags |= flag::RAW;
    }
    let [mut octets, mut words, mut t_width] = [0; 3];
    if let Some(Input { low, .. }) = input {
        flags |= low.format << flag::FORMAT;
        (octets, words, t_width) = (low.rank / 8, low.row_words, low.a.outputs() / 4);
    }
    let residual = match epilogue.residual {
        Residual::None => Rows::new(none, 0),
        Residual::Add(rows) => {
            flags |= flag::RESIDUAL;
            rows
        }
        Residual::InPlace => {
            flags |= flag::ACCUMULATE;
            Rows::new(none, 0)
        }
    };
    let slots = if linear.gated { 2 * chunk.outputs } else { chunk.outputs };
    let groups = slots.div_ceil(decision.rows());
    let grid = groups.min(gpu.limits().max_compute_workgroups_per_dimension);
    let params = Params {
        runs: if alone { 0 } else { linear.runs() },
        cols: linear.cols,
        tokens,
        outputs: chunk.outputs,
        output0: chunk.output0,
        layer: linear.outputs,
        flags,
        grid,
        x_offset: x.offset,
        x_stride: x.stride,
        y_offset: y.offset,
        y_stride: y.stride,
        residual_offset: residual.offset,
        residual_stride: residual.stride,
        scale: epilogue.scale,
        cap: epilogue.cap.unwrap_or(0.0),
        eps: epilogue.norm.map_or(0.0, |norm| norm.eps),
        octets,
        words,
        t_width,
        sparse: linear.sparse_params(),
    };
    let mut bindings = Bindings::from_iter([
        ("x", x.buffer.into()),
        ("bias", chunk.factor.as_ref().or(epilogue.bias).unwrap_or(none).into()),
        ("low", input.map_or(none, |input| &input.t).into()),
        ("y", y.buffer.into()),
    ]);
    match epilogue.norm {
        Some(norm) => bindings.push(("norm_weight", norm.weight.into())),
        None => bindings.push(("residual", residual.buffer.into())),
    }
    bindings.extend(linear.bindings(weights.planes).map(|(name, plane)| (name, plane.into())));
    rec.dispatch(&kernel, &bindings, &params, [grid, groups.div_ceil(grid), tokens.div_ceil(decision.tokens())])?;
    Ok(())
}
