//! Writes a compressed model: every weight matrix in the codec its recipe chooses, everything else as it was.
//!
//! In: a checkpoint, a recipe, perhaps a rotation. Out: a GGUF file, where every codec has a type there and the model comes
//! from GGUF, or a safetensors file that carries the model's metadata and tokenizer in itself (`format::embed`,
//! `codec::Stored`), or a DFloat11 checkpoint. Of a rotated model the norms are written as ones, the output projection is a matrix of its own, and the
//! metadata say the seed.

mod dfloat11;
mod output;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use self::output::Output;
use super::plan::{is_table, is_weight_matrix};
use super::report::{Fallback, TensorError, Weights};
use crate::codec::{
    Calibration, CodecError, CodecRef, Encoded, Encoding, PACKED_KEY, Recipe, Stored, StoredRows, StoredTensor, parse,
};
use crate::format::{AtomicFile, CHECKSUMS_KEY, Dtype, FormatError, Meta};
use crate::model::names::Role;
use crate::model::{self, ModelError, ROTATION_KEY, Rotated, is_shrunk};
use crate::progress::{Cancelled, Monitor, Unit};

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompressError {
    #[error("{output} has neither the ending .gguf nor .safetensors: name the file by the format it is to have")]
    Ending { output: String },
    #[error("{output} is a folder with files in it: name a new one")]
    Occupied { output: String },
    #[error("{output} is part of the model that is read: choose another name")]
    Overwrites { output: String },
    #[error("{codec} (for {tensor}) is no type of GGUF: write .safetensors, or choose a recipe of ggml's types")]
    NotInGguf { codec: String, tensor: String },
    #[error(
        "{model} comes from a Hugging Face folder, whose names and tokenizer GGUF cannot take over: write .safetensors"
    )]
    NotFromGguf { model: String },
    #[error("{model}: layers that differ in shape have no place in GGUF: write .safetensors")]
    ShrunkGguf { model: String },
    #[error("{model} is rotated already (seed {seed}): leave --rotate out")]
    RotatedTwice { model: String, seed: u64 },
    #[error("the recipe {recipe} changes no tensor of {model}: nothing would be compressed")]
    Nothing { recipe: String, model: String },
    #[error("tensor {tensor}: {source}")]
    Tensor { tensor: String, source: CodecError },
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Where a tensor's values come from.
#[derive(Debug, PartialEq)]
enum Origin {
    /// They stay as they are stored.
    Kept,
    /// The stored ones, encoded anew.
    Stored,
    /// The model's, rotated and encoded anew.
    Rotated(Rotated),
}

/// What becomes of one tensor.
struct Plan {
    tensor: StoredTensor,
    /// The codec it is written in.
    codec: Option<CodecRef>,
    origin: Origin,
    /// The codec that the recipe asked for, where another had to take its place.
    fallback_from: Option<String>,
}

/// A model's tensors in another basis.
pub(super) struct Rotation {
    /// Seed of the basis.
    pub(super) seed: u64,
    /// The model's tensors, rotated with it.
    pub(super) weights: model::Weights,
}

/// Refuses to replace the file, or a file in the folder, that the model is read from.
pub(super) fn keep_source(source: &Path, output: &Path) -> Result<(), CompressError> {
    match (source.canonicalize(), output.canonicalize()) {
        (Ok(source), Ok(existing)) if existing.starts_with(&source) => {
            Err(CompressError::Overwrites { output: output.display().to_string() })
        }
        _ => Ok(()), // the output is not there yet; that the source is not is told when it is opened
    }
}

/// Whether codecs can pack it: everything but integers and booleans.
fn holds_weights(tensor: &StoredTensor) -> bool {
    tensor.codec().is_some() || matches!(tensor.dtype, Some(Dtype::F64 | Dtype::F8E4M3 | Dtype::F8E5M2))
}

/// Compresses `stored`, or what a rotation made of it, into `output` and says what became of the weights. `calibrations`: statistics
/// of the inputs of matrices, by tensor.
pub(super) fn compress(
    stored: &Stored,
    recipe: &Recipe,
    mut rotation: Option<Rotation>,
    calibrations: &HashMap<String, Arc<Calibration>>,
    output: &Path,
    monitor: &Monitor,
) -> Result<Weights, CompressError> {
    let name = output.display().to_string();
    let checkpoint = stored.checkpoint();
    let mut plans = plan(stored, recipe, rotation.as_mut())?;
    if recipe.shrink().is_none() && plans.iter().all(|plan| plan.origin == Origin::Kept) {
        let (recipe, model) = (recipe.name().to_owned(), checkpoint.name().to_owned());
        return Err(CompressError::Nothing { recipe, model });
    }
    let metadata = lasting(checkpoint.meta(), rotation.as_ref().map(|rotation| rotation.seed));
    let mut source = Source { stored, rotation, calibrations };
    let whole = |ending: Option<&str>| ending.is_none_or(|ending| ending.eq_ignore_ascii_case("safetensors"));
    if whole(output.extension().and_then(|e| e.to_str())) && dfloat11::applies(&metadata, &plans) {
        return dfloat11::write(&mut source, &plans, metadata, output, monitor);
    }
    let mut file = AtomicFile::create(output)?;
    let ending = output.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    let output = match ending.as_deref() {
        Some("gguf") => {
            if is_shrunk(checkpoint) {
                return Err(CompressError::ShrunkGguf { model: checkpoint.name().to_owned() });
            }
            let Meta::Gguf(metadata) = metadata else {
                return Err(CompressError::NotFromGguf { model: checkpoint.name().to_owned() });
            };
            Output::gguf(&mut file, name, metadata, &plans)?
        }
        Some("safetensors") => {
            // Largest elements first, so that every tensor is aligned for its type.
            plans.sort_by_key(|plan| std::cmp::Reverse(output::element_bytes(plan)));
            Output::safetensors(&mut file, name, &metadata, &plans)?
        }
        _ => return Err(CompressError::Ending { output: name }),
    };
    let weights = write(&mut source, &plans, output, monitor)?;
    file.commit()?;
    Ok(weights)
}

/// A model's metadata without what described its old file: packed tensors, one number for all types, parts. `rotation`: the seed
/// its tensors are now rotated with.
fn lasting(meta: &Meta, rotation: Option<u64>) -> Meta {
    let mut meta = meta.clone();
    match &mut meta {
        Meta::Gguf(metadata) => {
            for key in
                [PACKED_KEY, CHECKSUMS_KEY, "general.file_type", "split.no", "split.count", "split.tensors.count"]
            {
                metadata.remove(key);
            }
            if let Some(seed) = rotation {
                metadata.set(ROTATION_KEY, seed);
            }
        }
        Meta::HuggingFace { config, st_metadata, .. } => {
            st_metadata.remove(PACKED_KEY);
            st_metadata.remove(CHECKSUMS_KEY);
            if let Some(config) = config.as_object_mut() {
                crate::codec::dfloat11::forget(config);
            }
            if let Some(seed) = rotation {
                st_metadata.insert(ROTATION_KEY.to_owned(), seed.to_string());
                if let Some(config) = config.as_object_mut() {
                    config.insert("tie_word_embeddings".to_owned(), false.into());
                }
            }
        }
    }
    meta
}

fn plan(stored: &Stored, recipe: &Recipe, rotation: Option<&mut Rotation>) -> Result<Vec<Plan>, CompressError> {
    let mut tensors = stored.tensors().to_vec();
    let mut rotated = HashMap::new();
    if let Some(Rotation { weights, .. }) = rotation {
        if let Some(seed) = model::rotation_of(stored.checkpoint()) {
            return Err(CompressError::RotatedTwice { model: stored.checkpoint().name().to_owned(), seed });
        }
        rotated = weights.rotated()?;
        if let Some(head) = weights.parted_head() {
            rotated.insert(head.name.clone(), Rotated::Matrix(Role::Head, 0));
            tensors.push(head);
        }
    }
    let plan = |tensor: StoredTensor| {
        let rotated = rotated.remove(&tensor.name);
        if let Some(vector @ Rotated::Vector(_)) = rotated {
            // Small, and no longer what a shorter type held exactly.
            let (codec, origin) = (Some(parse("f32")?), Origin::Rotated(vector));
            return Ok(Plan { tensor, codec, origin, fallback_from: None });
        }
        let matrix =
            tensor.matrix().filter(|_| is_weight_matrix(&tensor.name, &tensor.shape) && holds_weights(&tensor));
        let (codec, origin, fallback_from) = match (matrix, rotated) {
            (Some([rows, cols]), rotated) => {
                let choice = recipe.choose(&tensor.name, rows, cols);
                let choice = if is_table(&tensor.name) { choice.for_table() } else { choice };
                // What is stored in the codec already is not quantized a second time.
                let same = tensor.encoding.eq_ignore_ascii_case(&choice.codec.name());
                let origin = match rotated {
                    Some(rotated) => Origin::Rotated(rotated),
                    None if same => Origin::Kept,
                    None => Origin::Stored,
                };
                (Some(choice.codec), origin, choice.fallback_from)
            }
            (None, Some(rotated)) => (Some(parse("f32")?), Origin::Rotated(rotated), None),
            (None, None) => (tensor.codec(), Origin::Kept, None),
        };
        Ok(Plan { tensor, codec, origin, fallback_from })
    };
    tensors.into_iter().map(plan).collect()
}

impl Plan {
    /// The type of model files that holds it.
    fn dtype(&self) -> Option<Dtype> {
        match &self.codec {
            Some(codec) => codec.dtype(),
            None => self.tensor.dtype,
        }
    }
}

/// What the tensors are read from.
struct Source<'a> {
    stored: &'a Stored,
    rotation: Option<Rotation>,
    calibrations: &'a HashMap<String, Arc<Calibration>>,
}

/// A tensor that is encoded anew.
enum Original {
    /// `[rows, cols]`.
    Values(Vec<f32>),
    Stored(StoredRows),
}

impl Original {
    /// Weights that are best read at a time.
    fn piece(&self) -> usize {
        match self {
            Self::Values(_) => usize::MAX,
            Self::Stored(stored) => stored.piece(),
        }
    }

    /// The weights of some of the rows, of `cols` columns.
    fn decode(&self, range: Range<usize>, cols: usize) -> Result<Cow<'_, [f32]>, CodecError> {
        match self {
            Self::Values(values) => Ok(values.get(range.start * cols..range.end * cols).unwrap_or_default().into()),
            Self::Stored(stored) => stored.decode(range).map(Cow::Owned),
        }
    }
}

impl Source<'_> {
    /// A tensor; `None` if the file has none such.
    fn open(&mut self, plan: &Plan) -> Result<Option<Original>, CompressError> {
        Ok(match (&plan.origin, &mut self.rotation) {
            (Origin::Rotated(Rotated::Vector(values)), _) => Some(Original::Values(values.clone())),
            (&Origin::Rotated(Rotated::Matrix(role, layer)), Some(Rotation { weights, .. })) => {
                Some(Original::Values(weights.rotated_matrix(role, layer)?))
            }
            _ => self.stored.rows(&plan.tensor.name)?.map(Original::Stored),
        })
    }

    /// A tensor's values.
    fn values(&mut self, plan: &Plan) -> Result<Option<Vec<f32>>, CompressError> {
        Ok(match self.open(plan)? {
            Some(Original::Values(values)) => Some(values),
            Some(Original::Stored(stored)) => Some(stored.all()?.decode()),
            None => None,
        })
    }
}

/// Writes every tensor.
fn write(
    source: &mut Source<'_>,
    plans: &[Plan],
    mut output: Output<'_>,
    monitor: &Monitor,
) -> Result<Weights, CompressError> {
    let start = web_time::Instant::now();
    let mut weights = WeightsReport::default();
    let stored = source.stored;
    for (done, plan) in plans.iter().enumerate() {
        monitor.step("compressing", done as u64, plans.len() as u64, Unit::Tensors)?;
        let name = &plan.tensor.name;
        if plan.origin == Origin::Kept
            && let Some((info, bytes)) = stored.bytes(name)?
            && plan.dtype() == Some(info.dtype)
            && output.has(info.dtype)
        {
            output.plain(plan, info.dtype, &bytes)?; // bit for bit, whatever it is
            weights.add(plan, &plan.tensor.encoding.to_ascii_lowercase(), bytes.len() as u64);
            continue;
        }
        // Listed, so it is there.
        let packed = match (&plan.origin, &plan.codec) {
            (Origin::Kept, _) | (_, None) => {
                let Some(packed) = stored.load(name)? else { continue };
                packed
            }
            (_, Some(codec)) => {
                let (Some(original), Some([rows, cols])) = (source.open(plan)?, plan.tensor.matrix()) else {
                    continue;
                };
                let calibration = source.calibrations.get(name).map(|found| &**found);
                let failed = |source| CompressError::Tensor { tensor: name.clone(), source };
                let encoding = Encoding { codec, rows, cols, calibration, piece: original.piece() };
                let Encoded { packed, larger, nmse } =
                    encoding.encode(|range| original.decode(range, cols).map_err(failed), failed)?;
                if larger.is_some() && plan.fallback_from.is_none() {
                    weights.kept(plan, &packed.codec.name());
                }
                if !matches!(plan.origin, Origin::Rotated(Rotated::Vector(_))) {
                    weights.errors.push(TensorError { tensor: name.clone(), codec: packed.codec.name(), nmse });
                }
                packed
            }
        };
        let bytes = output.packed(plan, &packed)?;
        weights.add(plan, &packed.codec.name(), bytes);
    }
    monitor.report("compressing", plans.len() as u64, plans.len() as u64, Unit::Tensors);
    output.finish()?;
    Ok(weights.finish(start.elapsed().as_secs_f64()))
}

/// Collects what [`Weights`] reports.
#[derive(Default)]
struct WeightsReport {
    bytes: u64,
    weights: u64,
    codecs: Vec<(String, usize)>,
    fallbacks: Vec<Fallback>,
    errors: Vec<TensorError>,
}

impl WeightsReport {
    fn add(&mut self, plan: &Plan, codec: &str, bytes: u64) {
        self.bytes += bytes;
        self.weights += plan.tensor.elements();
        self.fallbacks.extend(plan.fallback_from.iter().map(|asked| Fallback {
            tensor: plan.tensor.name.clone(),
            asked: asked.clone(),
            used: codec.to_owned(),
        }));
        self.count(codec);
    }

    /// A matrix that the codec it was to be in cannot hold, or would make larger.
    fn kept(&mut self, plan: &Plan, used: &str) {
        let asked = plan.codec.as_ref().map(|codec| codec.name()).unwrap_or_default();
        self.fallbacks.push(Fallback { tensor: plan.tensor.name.clone(), asked, used: used.to_owned() });
    }

    fn count(&mut self, codec: &str) {
        match self.codecs.iter_mut().find(|(name, _)| name == codec) {
            Some((_, n)) => *n += 1,
            None => self.codecs.push((codec.to_owned(), 1)),
        }
    }

    fn finish(mut self, encode_seconds: f64) -> Weights {
        self.codecs.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        Weights {
            bytes: self.bytes,
            bits_per_weight: 8.0 * self.bytes as f64 / self.weights.max(1) as f64,
            codecs: self.codecs,
            fallbacks: self.fallbacks,
            tensors: self.errors,
            encode_seconds,
            calibration: None,
        }
    }
}

#[cfg(test)]
mod tests;
