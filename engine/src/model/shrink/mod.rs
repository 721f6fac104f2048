//! Takes dimensions away from a model before any codec packs what is left: whole heads and MLP channels ([`prune`]), or the dimensions that
//! MoDeGPT's decompositions can do without ([`modegpt`]). What it does to quality is in `docs/methods/structured.md`.
//!
//! In: a checkpoint, perhaps a rotation that comes first, a stage of a recipe ([`Shrink`]), and for some stages what activations look like on a
//! text ([`Statistics`]). Out: another checkpoint of the same model, smaller, whose metadata say the shape of each layer ([`SHAPES_KEY`]): it is
//! loaded, rotated, measured and written like any other. Tensors that stay as they are share the original's bytes; the others are in memory, in
//! the type they were stored in where numbers were only left out, else in f32.
//!
//! [`SHAPES_KEY`]: super::SHAPES_KEY

mod layer;
mod matrix;
pub mod modegpt;
pub mod prune;
mod statistics;

use std::collections::BTreeMap;

use self::prune::channels;
use super::names::{Role, matrix_of_a_decoder};
use super::shape::header;
use super::weights::{ROTATION_KEY, Rotated};
use super::{Architecture, Config, LayerShape, ModelError, SHAPES_KEY, Weights, is_shrunk};
use crate::codec::{Importance, Shrink, Stored};
use crate::format::{Checkpoint, Dtype, Meta, TensorInfo};
use crate::progress::{Monitor, Unit};

pub use layer::Layer;
pub use matrix::Matrix;
pub use statistics::{LayerStatistics, Statistics};

/// Which parts of a model stay: 0/1 gates as Compresso (arXiv 2310.05015) and others learn them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gates {
    /// Of the residual stream's dimensions; `None`: all.
    pub hidden: Option<Vec<bool>>,
    /// Of each layer.
    pub layers: Vec<LayerGates>,
}

/// Gates of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerGates {
    /// Of query heads. A KV head goes when all its query heads do; of the others each must keep as many.
    pub heads: Vec<bool>,
    /// Of the MLP's channels.
    pub ffn: Vec<bool>,
}

impl Gates {
    /// All open.
    pub fn open(config: &Config) -> Self {
        let layer = |shape: LayerShape| LayerGates {
            heads: vec![true; shape.heads as usize],
            ffn: vec![true; shape.intermediate as usize],
        };
        Self { hidden: None, layers: config.layer_shapes().map(layer).collect() }
    }
}

/// The numbers of the open gates.
fn open(gates: &[bool]) -> Vec<usize> {
    gates.iter().enumerate().filter_map(|(at, open)| open.then_some(at)).collect()
}

/// The shape that a stage will give the matrix called `name`, of a decoder, before anything is read. Channels are counted as they will be;
/// heads, and what MoDeGPT takes away, as if every layer lost the same share, so that the sum over layers is about right.
pub fn planned(stage: &Shrink, name: &str, [rows, cols]: [usize; 2]) -> [usize; 2] {
    let share = |percent: u32| f64::from(percent) / 100.0;
    let (heads, ffn, align, [mlp, qk, vo]) = match stage {
        Shrink::Prune(prune) => (share(prune.heads), share(prune.ffn), prune.align, [true; 3]),
        Shrink::Modegpt(m) => (share(m.ratio), share(m.ratio), m.align, [m.mlp, m.qk, m.vo]),
    };
    let fewer = |n: usize, goes: bool| {
        let share = if goes { heads } else { 0.0 };
        ((n as f64 * (1.0 - share)).round() as usize).max(1)
    };
    let stay =
        |n: usize| u32::try_from(n).map_or(n, |n| if mlp { channels(n, ffn, align) as usize } else { n as usize });
    match matrix_of_a_decoder(name) {
        Some(Role::Gate | Role::Up) => [stay(rows), cols],
        Some(Role::GateUp) => [2 * stay(rows / 2), cols],
        Some(Role::Down) => [rows, stay(cols)],
        Some(Role::Q | Role::K) => [fewer(rows, qk), cols],
        Some(Role::V) => [fewer(rows, vo), cols],
        Some(Role::Qkv) => [fewer(rows, qk || vo), cols],
        Some(Role::O) => [rows, fewer(cols, vo)],
        _ => [rows, cols],
    }
}

/// Shrinks a model. `rotation`: the seed of a change of basis before that; `statistics`: of the model in that basis.
///
/// # Errors
/// [`ModelError::Shrink`] for a model that cannot be shrunk so, [`ModelError::Config`] for shapes that no kernel covers, and what reading the
/// weights gives.
pub fn shrink(
    checkpoint: &Checkpoint,
    stage: &Shrink,
    rotation: Option<u64>,
    statistics: Option<&Statistics>,
    monitor: &Monitor,
) -> Result<Checkpoint, ModelError> {
    let mut work = Work::new(checkpoint, rotation)?;
    let needed = || work_needs(checkpoint, stage);
    match stage {
        Shrink::Prune(options) => {
            let statistics = match options.by {
                Importance::Magnitude => None,
                Importance::Activation => Some(statistics.ok_or_else(needed)?),
            };
            let gates = prune::gates(&mut work, options, statistics, monitor)?;
            work.slice(&gates, monitor)
        }
        Shrink::Modegpt(options) => {
            let statistics = statistics.ok_or_else(needed)?;
            modegpt::decompose(work, options, statistics, monitor)
        }
    }
}

/// Takes away what `gates` close; the result computes what the model does with those parts' outputs multiplied by 0.
///
/// # Errors
/// As [`shrink`].
pub fn slice(checkpoint: &Checkpoint, gates: &Gates, monitor: &Monitor) -> Result<Checkpoint, ModelError> {
    Work::new(checkpoint, None)?.slice(gates, monitor)
}

fn work_needs(checkpoint: &Checkpoint, stage: &Shrink) -> ModelError {
    let what = format!("`{}` needs a calibration text; name one with --calibrate FILE", stage.name());
    ModelError::Shrink { model: checkpoint.name().to_owned(), what }
}

/// A model on its way to fewer dimensions.
struct Work {
    config: Config,
    stored: Stored,
    weights: Weights,
    rotation: Option<u64>,
    /// Tensors that take the place of the stored ones.
    added: Vec<(TensorInfo, Vec<u8>)>,
    shapes: Vec<LayerShape>,
}

impl Work {
    fn new(checkpoint: &Checkpoint, rotation: Option<u64>) -> Result<Self, ModelError> {
        let config = Config::read(checkpoint)?;
        let refuse = |what: &str| ModelError::Shrink { model: checkpoint.name().to_owned(), what: what.to_owned() };
        if config.architecture == Architecture::Bert {
            return Err(refuse("it is an encoder, and only language models can be"));
        }
        if is_shrunk(checkpoint) {
            return Err(refuse("it has been shrunk already: start from the original"));
        }
        let weights = Weights::new(checkpoint, &config, None, rotation)?;
        let stored = Stored::of(checkpoint)?;
        Ok(Self { config, stored, weights, rotation, added: Vec::new(), shapes: Vec::new() })
    }

    fn refuse(&self, what: impl Into<String>) -> ModelError {
        ModelError::Shrink { model: self.stored.checkpoint().name().to_owned(), what: what.into() }
    }

    /// A layer's matrices, in the new basis if there is one.
    fn read(&mut self, layer: u32) -> Result<Layer, ModelError> {
        Layer::read(&mut self.weights, &self.config, layer)
    }

    /// Puts a layer's matrices, of this shape, in the place of the old ones. `sliced`: numbers were only left out, so that the type they are
    /// stored in holds them.
    fn write(&mut self, layer: u32, matrices: Layer, shape: LayerShape, sliced: bool) -> Result<(), ModelError> {
        self.config.check_shape(&shape).map_err(|what| self.refuse(format!("layer {layer} would have {what}")))?;
        self.shapes.push(shape);
        for (role, matrix, bias) in matrices.parts(&self.weights, layer) {
            let Some(stem) = self.config.naming.stem(role, layer) else { continue };
            let name = format!("{stem}.weight");
            let dtype = if sliced { self.stored_dtype(&name) } else { Dtype::F32 };
            self.add(name, &[matrix.rows, matrix.cols], dtype, &matrix.data)?;
            if let Some(bias) = bias {
                self.add(format!("{stem}.bias"), &[bias.len()], Dtype::F32, &bias)?;
            }
        }
        Ok(())
    }

    /// The type of a tensor where it is a plain float and not in another basis, else f32.
    fn stored_dtype(&self, name: &str) -> Dtype {
        match self.stored.tensor(name).and_then(|tensor| tensor.dtype) {
            Some(dtype @ (Dtype::F16 | Dtype::BF16)) if self.rotation.is_none() => dtype,
            _ => Dtype::F32,
        }
    }

    fn add(&mut self, name: String, shape: &[usize], dtype: Dtype, values: &[f32]) -> Result<(), ModelError> {
        let shape = shape.iter().map(|n| *n as u64).collect();
        let bytes = match dtype {
            Dtype::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        let info = TensorInfo::new(name, shape, dtype).map_err(|error| self.refuse(error.to_string()))?;
        self.added.push((info, bytes));
        Ok(())
    }

    /// Which pairs of the head's dimensions a layer kept: `[kv_heads, pairs]`.
    fn add_pairs(&mut self, layer: u32, pairs: &[Vec<u32>]) -> Result<(), ModelError> {
        let Some(name) = self.weights.pairs_name(layer) else { return Ok(()) };
        let shape = vec![pairs.len() as u64, pairs.first().map_or(0, Vec::len) as u64];
        let bytes = pairs.iter().flatten().flat_map(|pair| pair.to_le_bytes()).collect();
        let info = TensorInfo::new(name, shape, Dtype::U32).map_err(|error| self.refuse(error.to_string()))?;
        self.added.push((info, bytes));
        Ok(())
    }

    /// Takes away what `gates` close.
    fn slice(mut self, gates: &Gates, monitor: &Monitor) -> Result<Checkpoint, ModelError> {
        let fits = gates.layers.len() as u64 == u64::from(self.config.layers)
            && gates.hidden.as_ref().is_none_or(|hidden| hidden.len() as u64 == u64::from(self.config.hidden));
        if !fits {
            return Err(self.refuse("the gates are those of another model"));
        }
        let hidden = gates.hidden.as_deref().map(open);
        for (layer, gates) in (0u32..).zip(&gates.layers) {
            monitor.step("slicing weights", layer.into(), self.config.layers.into(), Unit::Layers)?;
            let whole = self.config.whole_shape();
            if gates.heads.len() != whole.heads as usize || gates.ffn.len() != whole.intermediate as usize {
                return Err(self.refuse(format!("layer {layer}: the gates are those of another model")));
            }
            let (heads, ffn) = (open(&gates.heads), open(&gates.ffn));
            let group = (whole.heads / whole.kv_heads) as usize;
            let mut counts = BTreeMap::new();
            heads.iter().for_each(|head| *counts.entry(head / group).or_insert(0u32) += 1);
            if counts.values().min() != counts.values().max() {
                return Err(self.refuse(format!(
                    "layer {layer}: KV heads would have {} to {} query heads, and the kernels take as many for each",
                    counts.values().min().unwrap_or(&0),
                    counts.values().max().unwrap_or(&0)
                )));
            }
            let kv_heads: Vec<usize> = counts.keys().copied().collect();
            let shape = LayerShape {
                heads: heads.len() as u32,
                kv_heads: kv_heads.len() as u32,
                intermediate: ffn.len() as u32,
                ..whole
            };
            if shape.heads == 0 || shape.intermediate == 0 {
                return Err(self.refuse(format!("layer {layer} would have nothing left of its attention or its MLP")));
            }
            let mut matrices = self.read(layer)?;
            matrices.keep_heads(&heads, &kv_heads, self.config.head_dim as usize);
            matrices.keep_channels(&ffn);
            if let Some(hidden) = &hidden {
                matrices.keep_hidden(hidden);
                self.slice_norms(layer, hidden)?;
            }
            self.write(layer, matrices, shape, true)?;
        }
        if let Some(hidden) = &hidden {
            self.slice_tables(hidden)?;
        }
        self.finish(hidden.map(|hidden| hidden.len() as u32))
    }

    /// Norms of a residual stream that lost dimensions: they divide by the root of fewer squares' mean, which their weights make up for.
    fn slice_norms(&mut self, layer: u32, hidden: &[usize]) -> Result<(), ModelError> {
        let mut roles = vec![Role::AttentionNorm, Role::MlpNorm];
        if self.config.architecture.post_norms() {
            roles.extend([Role::PostAttentionNorm, Role::PostMlpNorm]);
        }
        if layer == 0 {
            roles.push(Role::FinalNorm);
        }
        // The masked stream's squares are divided by n, the sliced one's by n' ≤ n: w' = w √(n / n'), and ε' = ε n / n' (Config::take_shapes).
        let scale = (f64::from(self.config.hidden) / hidden.len() as f64).sqrt() as f32;
        for role in roles {
            let norm = self.weights.norm(role, layer, self.config.hidden)?;
            let one = if self.config.norm_plus_one { 1.0 } else { 0.0 };
            let norm: Vec<f32> = hidden.iter().map(|at| norm[*at] * scale - one).collect();
            if let Some(stem) = self.config.naming.stem(role, layer) {
                self.add(format!("{stem}.weight"), &[norm.len()], Dtype::F32, &norm)?;
            }
        }
        Ok(())
    }

    /// The embedding table and, where it is another, the output projection of a residual stream that lost dimensions.
    fn slice_tables(&mut self, hidden: &[usize]) -> Result<(), ModelError> {
        for role in [Role::Embed, Role::Head] {
            if !self.weights.has(role, 0) {
                continue;
            }
            let values = self.weights.rotated_matrix(role, 0)?;
            let mut table = Matrix::new(self.config.vocab as usize, self.config.hidden as usize, values);
            table.keep_cols(hidden);
            if let Some(stem) = self.config.naming.stem(role, 0) {
                let name = format!("{stem}.weight");
                let dtype = self.stored_dtype(&name);
                self.add(name, &[table.rows, table.cols], dtype, &table.data)?;
            }
        }
        Ok(())
    }

    /// What a rotation changes besides the layers' matrices.
    fn rotate_rest(&mut self) -> Result<(), ModelError> {
        let mut rotated: Vec<(String, Rotated)> = self.weights.rotated()?.into_iter().collect();
        rotated.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(head) = self.weights.parted_head() {
            rotated.push((head.name, Rotated::Matrix(Role::Head, 0)));
        }
        let (vocab, hidden) = (self.config.vocab as usize, self.config.hidden as usize);
        for (name, rotated) in rotated {
            // What a layer's decomposition wrote stands.
            if self.added.iter().any(|(info, _)| info.name == name) {
                continue;
            }
            match rotated {
                Rotated::Vector(values) => self.add(name, &[values.len()], Dtype::F32, &values)?,
                Rotated::Matrix(role @ (Role::Embed | Role::Head), layer) => {
                    let values = self.weights.rotated_matrix(role, layer)?;
                    self.add(name, &[vocab, hidden], Dtype::F32, &values)?;
                }
                Rotated::Matrix(..) => return Err(self.refuse(format!("tensor `{name}` belongs to no layer"))),
            }
        }
        Ok(())
    }

    /// The smaller model.
    fn finish(mut self, hidden: Option<u32>) -> Result<Checkpoint, ModelError> {
        if self.rotation.is_some() {
            self.rotate_rest()?;
        }
        let mut meta = self.stored.checkpoint().meta().clone();
        let text = header(hidden, &self.shapes);
        match &mut meta {
            Meta::Gguf(metadata) => {
                metadata.set(SHAPES_KEY, text);
                if let Some(seed) = self.rotation {
                    metadata.set(ROTATION_KEY, seed);
                }
            }
            Meta::HuggingFace { config, st_metadata, .. } => {
                st_metadata.insert(SHAPES_KEY.to_owned(), text);
                if let Some(seed) = self.rotation {
                    st_metadata.insert(ROTATION_KEY.to_owned(), seed.to_string());
                    if let Some(config) = config.as_object_mut() {
                        config.insert("tie_word_embeddings".to_owned(), false.into());
                    }
                }
            }
        }
        Ok(self.stored.overlay(meta, self.added)?)
    }
}
