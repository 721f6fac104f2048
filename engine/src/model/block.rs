//! The matrices of a layer, and those of a layer that is expanded as a whole right before it runs.
//!
//! Where all of a layer's matrices are in one DFloat11 group, it stays compressed on the GPU, and two sets of bf16 buffers serve all
//! such layers in turns: while one set is multiplied by, the next layer can be expanded into the other. Whether both really happen at
//! once is the implementation's choice, for WebGPU has one queue; see docs/methods/dfloat11.md.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::Role;
use super::projection::{GatedPair, Projection};
use super::{Config, ModelError, Weights};
use crate::codec::CodecRef;
use crate::codec::dfloat11::DFloat11;
use crate::gpu::{Buffer, Gpu, Purpose, Recorder};
use crate::ops::dfloat11::Stream;
use crate::ops::linear::{Filling, Linear, Span, Spans};

/// Buffers for expanded weights, by the set they belong to, the matrix and its part, and their bytes.
pub(super) type Scratch = HashMap<(u32, usize, usize, u64), Buffer>;

/// What a layer multiplies by.
#[derive(Debug)]
pub(super) struct Matrices {
    pub(super) qkv: Projection,
    pub(super) o: Projection,
    pub(super) gate_up: GatedPair,
    pub(super) down: Projection,
    /// What has to be expanded before.
    pub(super) block: Option<Block>,
}

/// A layer's compressed weights and where they go.
#[derive(Debug)]
pub(super) struct Block {
    stream: Stream,
    fillings: Vec<Filling>,
}

impl Block {
    /// Records the expansion of the layer's weights.
    pub(super) fn expand(&self, rec: &mut Recorder) -> Result<(), ModelError> {
        for filling in &self.fillings {
            filling.record(rec, &self.stream)?;
        }
        Ok(())
    }
}

/// The matrices of a layer in the order of the published files, `[rows, cols]` each, in the four products that they make.
fn products(c: &Config, w: &Weights, layer: u32) -> [Vec<(Role, u32, u32)>; 4] {
    let (shape, hidden) = (c.shape(layer), c.hidden);
    let width = shape.intermediate;
    let qkv = if w.has(Role::Qkv, layer) {
        vec![(Role::Qkv, shape.qkv_width(), hidden)]
    } else {
        vec![(Role::Q, shape.q_width(), hidden), (Role::K, shape.k_width(), hidden), (Role::V, shape.v_width(), hidden)]
    };
    let gate_up = if w.has(Role::Gate, layer) {
        vec![(Role::Gate, width, hidden), (Role::Up, width, hidden)]
    } else {
        vec![(Role::GateUp, 2 * width, hidden)]
    };
    [qkv, vec![(Role::O, hidden, shape.o_width(c.head_dim))], gate_up, vec![(Role::Down, hidden, width)]]
}

impl Matrices {
    pub(super) fn load(
        gpu: &Gpu,
        c: &Config,
        w: &mut Weights,
        layer: u32,
        scratch: &mut Scratch,
    ) -> Result<Self, ModelError> {
        let products = products(c, w, layer);
        let wanted = products.concat();
        let Some((group, firsts)) = w.group(layer, &wanted)? else {
            let shape = c.shape(layer);
            let qkv: Vec<(Role, u32)> = products[0].iter().map(|&(role, rows, _)| (role, rows)).collect();
            return Ok(Self {
                qkv: Projection::load(gpu, w, layer, &qkv, c.hidden)?,
                o: Projection::load(gpu, w, layer, &[(Role::O, c.hidden)], shape.o_width(c.head_dim))?,
                gate_up: GatedPair::load(gpu, w, layer, [shape.intermediate, c.hidden])?,
                down: Projection::load(gpu, w, layer, &[(Role::Down, c.hidden)], shape.intermediate)?,
                block: None,
            });
        };
        let stream = Stream::upload(gpu, &group, &format!("layer {layer}"))?;
        drop(group);
        let codec: CodecRef = Arc::new(DFloat11);
        let (mut fillings, mut linears) = (Vec::new(), Vec::new());
        let mut firsts = firsts.into_iter();
        for (slot, list) in products.into_iter().enumerate() {
            let spans: Vec<Span> =
                list.iter().zip(firsts.by_ref()).map(|(&(_, rows, _), first)| Span { first, rows }).collect();
            let label = format!("layer {layer} {:?}", list[0].0);
            let (cols, gated) = (list[0].2, slot == 2);
            let spans = Spans { label: &label, codec: &codec, spans: &spans, cols, gated };
            let (linear, mut filling) = Linear::expanded_ahead(gpu, &spans, |part, bytes| {
                let key = (layer % 2, slot, part, bytes);
                if let Some(buffer) = scratch.get(&key) {
                    return Ok(buffer.clone());
                }
                let buffer = gpu.storage("expanded weights", bytes, Purpose::Activations)?;
                scratch.insert(key, buffer.clone());
                Ok(buffer)
            })?;
            fillings.append(&mut filling);
            linears.push((linear, biases(gpu, w, layer, &list)?));
        }
        let block = Some(Block { stream, fillings });
        let Ok([qkv, o, (linear, bias), down]) = <[_; 4]>::try_from(linears) else {
            return Err(crate::ops::OpsError::shape("layer", "not four products").into());
        };
        let single = |(linear, bias)| Projection::single(linear, bias);
        let gate_up = GatedPair::Stacked { linear, bias };
        Ok(Self { qkv: single(qkv), o: single(o), gate_up, down: single(down), block })
    }

    /// The matrices.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let attention = self.qkv.linears().chain(self.o.linears());
        attention.chain(self.gate_up.linears()).chain(self.down.linears())
    }

    /// Bytes on the GPU.
    pub(super) fn bytes(&self) -> u64 {
        let block = self.block.as_ref().map_or(0, |block| block.stream.bytes());
        self.qkv.bytes() + self.o.bytes() + self.gate_up.bytes() + self.down.bytes() + block
    }
}

/// The biases of stacked matrices; zeros for one that has none beside one that has.
fn biases(gpu: &Gpu, w: &mut Weights, layer: u32, list: &[(Role, u32, u32)]) -> Result<Option<Buffer>, ModelError> {
    let mut all = Vec::new();
    for &(role, rows, _) in list {
        all.push((rows, w.bias(role, layer, rows)?));
    }
    if all.iter().all(|(_, bias)| bias.is_none()) {
        return Ok(None);
    }
    let values = all.into_iter().flat_map(|(rows, bias)| bias.unwrap_or_else(|| vec![0.0; rows as usize]));
    Ok(Some(gpu.upload("bias", &values.collect::<Vec<f32>>(), Purpose::Weights)?))
}

/// A table: compressed as a group of its own, or packed.
pub(super) fn table(
    gpu: &Gpu,
    w: &mut Weights,
    role: Role,
    rows: u32,
    cols: u32,
    label: &str,
) -> Result<Linear, ModelError> {
    match w.group(0, &[(role, rows, cols)])? {
        Some((group, firsts)) => {
            let stream = Arc::new(Stream::upload(gpu, &group, label)?);
            let codec: CodecRef = Arc::new(DFloat11);
            let spans: Vec<Span> = firsts.into_iter().map(|first| Span { first, rows }).collect();
            Ok(Linear::expanding(gpu, &Spans { label, codec: &codec, spans: &spans, cols, gated: false }, &stream)?)
        }
        None => Ok(Linear::upload(gpu, &w.matrix(role, 0, rows, cols)?, label)?),
    }
}
