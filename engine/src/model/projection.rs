//! Linear layers whose matrices are several tensors in the file: one dispatch where their codecs agree.

use super::names::Role;
use super::{ModelError, Weights};
use crate::codec::Packed;
use crate::gpu::{Buffer, Gpu, Purpose, Recorder};
use crate::ops::elementwise::{self, Activation, Gated};
use crate::ops::linear::{self, Epilogue, Linear, Norm, Residual, Rows};

/// A matrix of rows from one or more tensors, with their biases.
#[derive(Debug)]
pub(super) struct Projection {
    parts: Vec<Part>,
}

/// Neighbouring rows of one codec.
#[derive(Debug)]
struct Part {
    /// First output.
    first: u32,
    linear: Linear,
    bias: Option<Buffer>,
}

/// Stacked tensors on their way to a [`Part`].
struct Group {
    first: u32,
    packed: Packed,
    /// Rows of each tensor, and its bias.
    biases: Vec<(u32, Option<Vec<f32>>)>,
    label: String,
}

impl Projection {
    /// Loads the tensors of `roles` (with their rows) as one matrix of `cols` columns; neighbours of one codec are stacked.
    pub(super) fn load(
        gpu: &Gpu,
        weights: &mut Weights,
        layer: u32,
        roles: &[(Role, u32)],
        cols: u32,
    ) -> Result<Self, ModelError> {
        let mut groups: Vec<Group> = Vec::new();
        let mut first = 0;
        for &(role, rows) in roles {
            let packed = weights.matrix(role, layer, rows, cols)?;
            let bias = weights.bias(role, layer, rows)?;
            let stacked = groups.last().and_then(|group| Packed::concat(&[&group.packed, &packed]));
            match (groups.last_mut(), stacked) {
                (Some(group), Some(stacked)) => {
                    group.packed = stacked;
                    group.biases.push((rows, bias));
                }
                _ => {
                    let label = format!("layer {layer} {role:?}");
                    groups.push(Group { first, packed, biases: vec![(rows, bias)], label });
                }
            }
            first += rows;
        }
        let parts = groups.into_iter().map(|mut group| {
            // Biases of stacked tensors lie behind one another; a tensor without one gets zeros if another has one.
            let bias = group.biases.iter().any(|(_, bias)| bias.is_some()).then(|| {
                let zeros = |rows: u32| vec![0.0; rows as usize];
                group.biases.into_iter().flat_map(|(rows, bias)| bias.unwrap_or_else(|| zeros(rows))).collect()
            });
            let bias = upload_bias(gpu, &mut group.packed, bias)?;
            Ok(Part { first: group.first, linear: Linear::upload(gpu, &group.packed, &group.label)?, bias })
        });
        let parts = parts.collect::<Result<_, ModelError>>()?;
        Ok(Self { parts })
    }

    /// One matrix that is there already.
    pub(super) fn single(linear: Linear, bias: Option<Buffer>) -> Self {
        Self { parts: vec![Part { first: 0, linear, bias }] }
    }

    /// The matrices.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.parts.iter().map(|part| &part.linear)
    }

    /// Bytes on the GPU.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|p| p.linear.bytes()).sum()
    }

    /// `y = W x + b`, with what [`Fused`] adds.
    pub(super) fn forward(
        &self,
        rec: &mut Recorder,
        tokens: u32,
        x: Rows,
        y: Rows,
        fused: &Fused,
    ) -> Result<(), ModelError> {
        for part in &self.parts {
            let epilogue = Epilogue {
                norm: fused.norm,
                bias: part.bias.as_ref(),
                activation: fused.activation,
                residual: if fused.accumulate { Residual::InPlace } else { Residual::None },
                ..Epilogue::default()
            };
            let y = Rows { offset: y.offset + part.first, ..y };
            linear::forward(rec, &part.linear, tokens, x, y, &epilogue)?;
        }
        Ok(())
    }
}

/// A bias on the GPU, unless the matrix takes it into itself.
fn upload_bias(gpu: &Gpu, packed: &mut Packed, bias: Option<Vec<f32>>) -> Result<Option<Buffer>, ModelError> {
    let Some(bias) = bias else { return Ok(None) };
    if packed.codec.clone().absorb_bias(packed, &bias) {
        return Ok(None);
    }
    Ok(Some(gpu.upload("bias", &bias, Purpose::Weights)?))
}

/// What happens in the same dispatch as a product.
#[derive(Clone, Copy, Default)]
pub(super) struct Fused<'a> {
    /// Norm of the input; one token only.
    pub(super) norm: Option<Norm<'a>>,
    /// Of the output.
    pub(super) activation: Option<Activation>,
    /// Adds to what the output holds.
    pub(super) accumulate: bool,
}

/// Gate and first layer of a gated MLP: `y = act(gate x) · (up x)`.
#[derive(Debug)]
pub(super) enum GatedPair {
    /// One stacked matrix, one dispatch.
    Stacked { linear: Linear, bias: Option<Buffer> },
    /// Two codecs: two products and their combination.
    Apart { gate: Projection, up: Projection },
}

impl GatedPair {
    pub(super) fn load(
        gpu: &Gpu,
        weights: &mut Weights,
        layer: u32,
        [width, cols]: [u32; 2],
    ) -> Result<Self, ModelError> {
        let label = format!("layer {layer} gate and up");
        if !weights.has(Role::Gate, layer) {
            let stacked = weights.matrix(Role::GateUp, layer, 2 * width, cols)?;
            let bias = weights.bias(Role::GateUp, layer, 2 * width)?;
            return Self::stacked(gpu, stacked, bias, &label);
        }
        let gate = weights.matrix(Role::Gate, layer, width, cols)?;
        let up = weights.matrix(Role::Up, layer, width, cols)?;
        let biases = [weights.bias(Role::Gate, layer, width)?, weights.bias(Role::Up, layer, width)?];
        if let Some(stacked) = Packed::concat(&[&gate, &up]).filter(|stacked| linear::shares_columns(&stacked.codec)) {
            let bias = if biases.iter().any(Option::is_some) {
                let zeros = || vec![0.0; width as usize];
                Some(biases.into_iter().flat_map(|b| b.unwrap_or_else(zeros)).collect())
            } else {
                None
            };
            return Self::stacked(gpu, stacked, bias, &label);
        }
        let [gate_bias, up_bias] = biases;
        let alone = |mut packed: Packed, bias: Option<Vec<f32>>| {
            let bias = upload_bias(gpu, &mut packed, bias)?;
            let linear = Linear::upload(gpu, &packed, &label)?;
            Ok::<_, ModelError>(Projection { parts: vec![Part { first: 0, linear, bias }] })
        };
        Ok(Self::Apart { gate: alone(gate, gate_bias)?, up: alone(up, up_bias)? })
    }

    fn stacked(gpu: &Gpu, mut packed: Packed, bias: Option<Vec<f32>>, label: &str) -> Result<Self, ModelError> {
        let bias = upload_bias(gpu, &mut packed, bias)?;
        Ok(Self::Stacked { linear: Linear::upload_gated(gpu, &packed, label)?, bias })
    }

    /// The matrices.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let (stacked, apart) = match self {
            Self::Stacked { linear, .. } => (Some(linear), None),
            Self::Apart { gate, up } => (None, Some(gate.linears().chain(up.linears()))),
        };
        stacked.into_iter().chain(apart.into_iter().flatten())
    }

    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Stacked { linear, .. } => linear.bytes(),
            Self::Apart { gate, up } => gate.bytes() + up.bytes(),
        }
    }

    /// Records the pair into `y` (`[tokens, width]`, tight).
    pub(super) fn forward(
        &self,
        rec: &mut Recorder,
        tokens: u32,
        x: Rows,
        y: &Buffer,
        width: u32,
        activation: Activation,
        norm: Option<Norm>,
    ) -> Result<(), ModelError> {
        match self {
            Self::Stacked { linear, bias } => {
                let epilogue =
                    Epilogue { norm, bias: bias.as_ref(), activation: Some(activation), ..Epilogue::default() };
                linear::forward(rec, linear, tokens, x, Rows::new(y, width), &epilogue)?;
            }
            Self::Apart { gate, up } => {
                let bytes = 4 * u64::from(tokens) * u64::from(width);
                let [a, b] = [rec.gpu().scratch("gate", bytes)?, rec.gpu().scratch("up", bytes)?];
                let fused = Fused { norm, ..Fused::default() };
                gate.forward(rec, tokens, x, Rows::new(&a, width), &fused)?;
                up.forward(rec, tokens, x, Rows::new(&b, width), &fused)?;
                let shape = Gated {
                    rows: tokens,
                    cols: width,
                    gate_offset: 0,
                    gate_stride: width,
                    up_offset: 0,
                    up_stride: width,
                    y_stride: width,
                    activation,
                };
                elementwise::gated(rec, &shape, &a, Some((&b).into()), y)?;
            }
        }
        Ok(())
    }
}
