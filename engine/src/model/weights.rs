//! Reads a model's tensors one at a time: rotated, compressed or as they are stored.
//!
//! In: a checkpoint, a recipe, a rotation. Out: [`Packed`] matrices and plain vectors by their [`Role`]; no more than one
//! tensor is in memory at a time. What was done to each is in [`Weights::reports`].

mod grouped;
mod rotated;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use web_time::Instant;

use super::basis::Basis;
use super::config::Config;
use super::names::Role;
use super::{LayerShape, ModelError};
use crate::codec::dfloat11::DFloat11;
use crate::codec::{
    Calibrates, Calibration, Choice, CodecRef, Encoded, Encoding, Packed, Recipe, Stored, StoredRows, StoredTensor,
    parse,
};
use crate::format::{Checkpoint, Dtype, decode_f32};

pub use grouped::Place;
pub use rotated::{ROTATION_KEY, Rotated, rotation_of};

/// Statistics of the inputs of matrices, by role and layer. Matrices with the same input share them.
pub type Calibrations = HashMap<(Role, u32), Arc<Calibration>>;

/// What became of one matrix.
#[derive(Clone, Debug)]
pub struct TensorReport {
    /// Its name in the file.
    pub name: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The codec it is in.
    pub codec: String,
    /// The codec that the recipe asked for, where another had to take over.
    pub fallback_from: Option<String>,
    /// Packed bytes.
    pub bytes: u64,
    /// ‖packed − original‖² / ‖original‖²; `None` where it was taken as it is stored.
    pub nmse: Option<f64>,
}

/// A model's tensors.
pub struct Weights {
    config: Config,
    stored: Stored,
    recipe: Option<Recipe>,
    basis: Option<Basis>,
    calibrations: Calibrations,
    reports: Vec<TensorReport>,
    encode_seconds: f64,
}

impl Weights {
    /// The tensors of `checkpoint`. `recipe`: how to compress matrices (`None`: as they are stored). `rotation`: the seed of a
    /// random orthogonal change of basis, which leaves the model's function unchanged; without a recipe, matrices are then f32.
    ///
    /// # Errors
    /// [`ModelError::Rotation`] where the architecture has norms that do not commute with a rotation; lists of packed tensors
    /// that cannot be read.
    pub fn new(
        checkpoint: &Checkpoint,
        config: &Config,
        recipe: Option<Recipe>,
        rotation: Option<u64>,
    ) -> Result<Self, ModelError> {
        let basis = rotation
            .map(|seed| {
                if config.shapes.is_some() {
                    Err("it is shrunk: rotate first, then shrink")
                } else {
                    Basis::new(config, seed)
                }
            })
            .transpose()
            .map_err(|why| ModelError::Rotation { architecture: config.architecture.name().to_owned(), why })?;
        if let Some(stage) = recipe.as_ref().and_then(Recipe::shrink).filter(|_| config.shapes.is_none()) {
            let what =
                format!("`{}` was to come before these weights were read; encoders have no such stage", stage.name());
            return Err(ModelError::Shrink { model: checkpoint.name().to_owned(), what });
        }
        let stored = Stored::of(checkpoint)?;
        Ok(Self {
            config: config.clone(),
            stored,
            recipe,
            basis,
            calibrations: Calibrations::new(),
            reports: Vec::new(),
            encode_seconds: 0.0,
        })
    }

    /// Statistics for the codecs that [calibrate](crate::codec::Codec::calibrates): of this model's inputs, in the basis that these
    /// weights are turned into.
    pub fn calibrated(mut self, calibrations: Calibrations) -> Self {
        self.calibrations = calibrations;
        self
    }

    /// The model's shapes and names.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// How much the codec that the recipe gives to a matrix calibrates; not at all if the file has no such matrix.
    pub(super) fn calibrates(&self, role: Role, layer: u32) -> Calibrates {
        let codec = self.recipe_for(role).and_then(|_| self.planned(role, layer)?.1);
        codec.map_or(Calibrates::No, |codec| codec.calibrates())
    }

    /// Statistics by the names that the file has for the matrices.
    pub fn by_name(&self, calibrations: &Calibrations) -> HashMap<String, Arc<Calibration>> {
        let named = |((role, layer), found): (&(Role, u32), &Arc<Calibration>)| {
            Some((format!("{}.weight", self.config.naming.stem(*role, *layer)?), found.clone()))
        };
        calibrations.iter().filter_map(named).collect()
    }

    /// What reading the matrices is, in words for people.
    pub fn stage(&self) -> &'static str {
        match (&self.basis, &self.recipe) {
            (Some(_), Some(_)) => "rotating and encoding weights",
            (Some(_), None) => "rotating weights",
            (None, Some(_)) => "encoding weights",
            (None, None) => "loading weights",
        }
    }

    /// What became of the matrices read so far.
    pub fn reports(&self) -> &[TensorReport] {
        &self.reports
    }

    /// Seconds that compressing and rotating took so far.
    pub fn encode_seconds(&self) -> f64 {
        self.encode_seconds
    }

    /// Whether the file has this tensor.
    pub fn has(&self, role: Role, layer: u32) -> bool {
        self.find(role, layer, "weight").is_some()
    }

    /// Whether the output projection needs a matrix of its own: it has one, or the rotation parts it from the embeddings.
    pub fn has_own_head(&self) -> bool {
        self.has(Role::Head, 0) || self.basis.is_some()
    }

    /// Packed bytes of a matrix, without reading it; 0 if it is not there.
    pub fn bytes_of(&self, role: Role, layer: u32) -> u64 {
        let Some((tensor, codec)) = self.planned(role, layer) else { return 0 };
        match (codec, tensor.matrix()) {
            (Some(codec), Some([rows, cols])) => codec.planned_bytes(rows, cols),
            _ => 2 * tensor.elements(), // 8-bit floats become f16
        }
    }

    /// Numbers that a product with a matrix keeps for each token between its dispatches.
    pub fn between(&self, role: Role, layer: u32) -> u64 {
        self.planned(role, layer).and_then(|(_, codec)| Some(codec?.between() as u64)).unwrap_or(0)
    }

    /// Whether two matrices will be in one codec, so that they can be stacked.
    pub fn alike(&self, a: Role, b: Role, layer: u32) -> bool {
        let [a, b] = [a, b].map(|role| self.planned(role, layer).map(|(_, codec)| codec.map(|codec| codec.name())));
        a == b
    }

    /// Bytes of all norms and biases.
    pub fn vector_bytes(&self) -> u64 {
        let vectors = self.stored.tensors().iter().filter(|tensor| tensor.shape.len() == 1);
        vectors.map(|tensor| 4 * tensor.elements()).sum()
    }

    /// The tensor that a matrix is made of and the codec it will be in (`None`: the one of 16-bit floats).
    fn planned(&self, role: Role, layer: u32) -> Option<(&StoredTensor, Option<CodecRef>)> {
        let own = self.find(role, layer, "weight");
        let tensor = match role {
            Role::Head if self.basis.is_some() => own.or(self.find(Role::Embed, 0, "weight")),
            _ => own,
        }?;
        let [rows, cols] = tensor.matrix()?;
        let codec = match (self.recipe_for(role), &self.basis) {
            (Some(recipe), _) => Some(choose(recipe, role, &tensor.name, rows, cols).codec),
            (None, Some(_)) => parse("f32").ok(),
            (None, None) => tensor.codec(),
        };
        Some((tensor, codec))
    }

    /// A matrix of `[rows, cols]`.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::TensorShape`], or what a codec refuses.
    pub fn matrix(&mut self, role: Role, layer: u32, rows: u32, cols: u32) -> Result<Packed, ModelError> {
        let (name, stored) = self.stored_rows(role, layer, [rows, cols])?;
        let model = self.model();
        let failed = |error| ModelError::Codec { model: model.clone(), tensor: name.clone(), error: Box::new(error) };
        let (rows, cols) = (rows as usize, cols as usize);
        let choice = self.recipe_for(role).map(|recipe| choose(recipe, role, &name, rows, cols));
        let asked: Option<CodecRef> = match (&choice, &self.basis) {
            (Some(choice), _) => Some(choice.codec.clone()),
            (None, Some(_)) => Some(parse("f32").map_err(failed)?),
            (None, None) => None,
        };
        let as_stored =
            self.basis.is_none() && asked.as_ref().is_none_or(|codec| codec.name() == stored.codec().name());
        let (packed, larger, nmse) = match asked {
            Some(codec) if !as_stored => {
                let start = Instant::now();
                let norm = self.norm_to_fold(role, layer)?;
                let calibration = self.calibrations.get(&(role, layer)).map(|found| &**found);
                let together = self.basis.is_some() && Basis::turns_outputs(role);
                let piece = if together { usize::MAX } else { stored.piece() };
                let basis = &mut self.basis;
                let read = |range| {
                    let mut values = stored.decode(range).map_err(failed)?;
                    if let Some(basis) = basis {
                        basis.turn(role, layer, &mut values, cols, norm.as_deref());
                    }
                    Ok(Cow::Owned(values))
                };
                let encoding = Encoding { codec: &codec, rows, cols, calibration, piece };
                let Encoded { packed, larger, nmse } = encoding.encode(read, failed)?;
                self.encode_seconds += start.elapsed().as_secs_f64();
                (packed, larger, Some(nmse))
            }
            _ => (stored.all().map_err(failed)?, None, None),
        };
        self.reports.push(TensorReport {
            name: if self.is_tied(role) { format!("{name} (as output)") } else { name },
            shape: [rows, cols],
            codec: packed.codec.name(),
            fallback_from: choice.and_then(|c| c.fallback_from).or(larger),
            bytes: packed.bytes(),
            nmse,
        });
        Ok(packed)
    }

    /// Whether a matrix is the embedding table, used a second time.
    fn is_tied(&self, role: Role) -> bool {
        role == Role::Head && !self.has(Role::Head, 0)
    }

    /// A matrix as it is stored, with its tensor's name.
    fn stored_matrix(&self, role: Role, layer: u32, shape: [u32; 2]) -> Result<(String, Packed), ModelError> {
        let (name, stored) = self.stored_rows(role, layer, shape)?;
        match stored.all() {
            Ok(packed) => Ok((name, packed)),
            Err(error) => Err(ModelError::Codec { model: self.model(), tensor: name, error: Box::new(error) }),
        }
    }

    /// A matrix as it is stored, to be read row by row, with its tensor's name.
    fn stored_rows(&self, role: Role, layer: u32, shape: [u32; 2]) -> Result<(String, StoredRows), ModelError> {
        // A rotation folds the last norm into the output projection, so that it is no longer the embedding table.
        let source = if self.is_tied(role) { Role::Embed } else { role };
        let missing = || self.missing(source, layer, "weight");
        let tensor = self.find(source, layer, "weight").ok_or_else(missing)?;
        let shape = shape.map(u64::from);
        if tensor.shape != shape {
            return Err(ModelError::TensorShape {
                model: self.model(),
                tensor: tensor.name.clone(),
                found: tensor.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let stored = self.stored.rows(&tensor.name);
        let stored = stored.map_err(|error| ModelError::Codec {
            model: self.model(),
            tensor: tensor.name.clone(),
            error: Box::new(error),
        })?;
        Ok((tensor.name.clone(), stored.ok_or_else(missing)?))
    }

    /// A norm's weights as they are applied.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn norm(&self, role: Role, layer: u32, len: u32) -> Result<Vec<f32>, ModelError> {
        if Basis::folds(role) && self.basis.is_some() {
            return Ok(vec![1.0; len as usize]);
        }
        self.stored_norm(role, layer, len)
    }

    fn stored_norm(&self, role: Role, layer: u32, len: u32) -> Result<Vec<f32>, ModelError> {
        let mut values = self.vector(role, layer, "weight", len)?.ok_or_else(|| self.missing(role, layer, "weight"))?;
        if self.config.norm_plus_one {
            values.iter_mut().for_each(|w| *w += 1.0);
        }
        Ok(values)
    }

    /// A bias, if the file has it.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn bias(&mut self, role: Role, layer: u32, len: u32) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(mut values) = self.vector(role, layer, "bias", len)? else { return Ok(None) };
        if let Some(basis) = &mut self.basis {
            basis.turn_outputs(role, layer, &mut values, 1);
        }
        Ok(Some(values))
    }

    /// Of a layer whose heads lost dimensions: which pairs of the whole head's rotating dimensions theirs were, `[kv_heads, pairs]`. All of
    /// them, if the file does not say.
    ///
    /// # Errors
    /// [`ModelError::TensorShape`] for another number of them, [`ModelError::Config`] for pairs that the head does not have.
    pub fn pairs(&self, layer: u32, shape: &LayerShape) -> Result<Vec<u32>, ModelError> {
        let whole = self.config.rope.rotary_dim as u32 / 2;
        let kept = (shape.qk_dim - self.config.still_dims()) / 2;
        let Some(name) = self.pairs_name(layer) else { return Ok(Vec::new()) };
        let failed = |error| ModelError::Codec { model: self.model(), tensor: name.clone(), error: Box::new(error) };
        let Some((info, bytes)) = self.stored.bytes(&name).map_err(failed)? else {
            return if kept == whole {
                Ok((0..shape.kv_heads).flat_map(|_| 0..whole).collect())
            } else {
                Err(ModelError::MissingTensor { model: self.model(), tensor: name })
            };
        };
        let expected = [shape.kv_heads, kept].map(u64::from);
        if info.shape != expected || info.dtype != Dtype::U32 {
            return Err(ModelError::TensorShape {
                model: self.model(),
                tensor: name,
                found: info.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let pairs: Vec<u32> = words.collect();
        match pairs.iter().find(|pair| **pair >= whole) {
            None => Ok(pairs),
            Some(pair) => Err(ModelError::Config {
                model: self.model(),
                key: name,
                what: format!("pair {pair} of a head that has {whole}"),
            }),
        }
    }

    /// What the tensor of [`Weights::pairs`] is called.
    pub(super) fn pairs_name(&self, layer: u32) -> Option<String> {
        self.config.naming.stem(Role::Q, layer).map(|stem| format!("{stem}.pairs"))
    }

    /// The recipe, for matrices it applies to: tables that an encoder adds to its embeddings are small and stay as they are, as
    /// in llama.cpp.
    fn recipe_for(&self, role: Role) -> Option<&Recipe> {
        self.recipe.as_ref().filter(|_| !matches!(role, Role::Positions | Role::TokenTypes))
    }

    fn model(&self) -> String {
        self.stored.checkpoint().name().to_owned()
    }

    fn find(&self, role: Role, layer: u32, kind: &str) -> Option<&StoredTensor> {
        self.stored.tensor(&format!("{}.{kind}", self.config.naming.stem(role, layer)?))
    }

    fn missing(&self, role: Role, layer: u32, kind: &str) -> ModelError {
        let stem = self.config.naming.stem(role, layer).unwrap_or_else(|| format!("{role:?} of layer {layer}"));
        ModelError::MissingTensor { model: self.model(), tensor: format!("{stem}.{kind}") }
    }

    fn vector(&self, role: Role, layer: u32, kind: &str, len: u32) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(tensor) = self.find(role, layer, kind) else { return Ok(None) };
        if tensor.shape != [u64::from(len)] {
            return Err(ModelError::TensorShape {
                model: self.model(),
                tensor: tensor.name.clone(),
                found: tensor.shape.clone(),
                expected: vec![len.into()],
            });
        }
        let failed =
            |error| ModelError::Codec { model: self.model(), tensor: tensor.name.clone(), error: Box::new(error) };
        let plain = self.stored.bytes(&tensor.name).map_err(failed)?;
        let values = match plain.and_then(|(info, bytes)| decode_f32(info.dtype, &bytes)) {
            Some(values) => values,
            None => {
                let packed = self.stored.load(&tensor.name).map_err(failed)?;
                packed.ok_or_else(|| self.missing(role, layer, kind))?.decode()
            }
        };
        Ok(Some(values))
    }

    /// Turns a matrix into the new basis, if there is one.
    fn change_basis(&mut self, role: Role, layer: u32, w: &mut [f32], cols: usize) -> Result<(), ModelError> {
        let norm = self.norm_to_fold(role, layer)?;
        if let Some(basis) = &mut self.basis {
            basis.turn(role, layer, w, cols, norm.as_deref());
        }
        Ok(())
    }

    /// The norm that a change of basis folds into a matrix.
    fn norm_to_fold(&self, role: Role, layer: u32) -> Result<Option<Vec<f32>>, ModelError> {
        let norm = self.basis.as_ref().and_then(|_| Basis::norm_before(role));
        norm.map(|norm| self.stored_norm(norm, layer, self.config.hidden)).transpose()
    }
}

/// What a recipe chooses for a matrix.
fn choose(recipe: &Recipe, role: Role, name: &str, rows: usize, cols: usize) -> Choice {
    let choice = recipe.choose(name, rows, cols);
    if role == Role::Embed { choice.for_table() } else { choice }
}
