//! Models whose layers differ in shape: what pruning and MoDeGPT leave of heads, their dimensions, and MLPs.
//!
//! In: the metadata entry [`SHAPES_KEY`] of a file that `tersor compress` wrote, or what [`super::shrink`] decided. Out: a [`LayerShape`] for
//! each layer of a [`Config`](super::Config). A model as it was made has the same for all.

use serde::{Deserialize, Serialize};

use super::{Architecture, Config, ModelError};
use crate::format::{Checkpoint, Meta};
use crate::ops::reduced::padded_dim;
use crate::ops::rope::RopeStyle;

/// Key of a file's metadata that has the shapes of its layers, as JSON (`docs/file-format.md`).
pub const SHAPES_KEY: &str = "tersor.shapes";
/// Version of that JSON.
const VERSION: u32 = 1;
/// The output projection's columns are padded with zeros to a multiple of this where heads lost dimensions, so that codecs can cut them.
const ALIGN: u32 = 32;

/// The shape of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerShape {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Dimensions of queries and keys.
    pub qk_dim: u32,
    /// Dimensions of values.
    pub v_dim: u32,
    /// Width of the MLP.
    pub intermediate: u32,
}

impl LayerShape {
    /// Rows of the query matrix.
    pub fn q_width(&self) -> u32 {
        self.heads * self.qk_dim
    }

    /// Rows of the key matrix.
    pub fn k_width(&self) -> u32 {
        self.kv_heads * self.qk_dim
    }

    /// Rows of the value matrix.
    pub fn v_width(&self) -> u32 {
        self.kv_heads * self.v_dim
    }

    /// Queries, keys and values of a token.
    pub fn qkv_width(&self) -> u32 {
        self.q_width() + self.k_width() + self.v_width()
    }

    /// Columns of the output projection of a model with heads of `head_dim` dimensions: those of the values of every query head, and zeros up
    /// to a multiple of 32 where dimensions were taken away.
    pub fn o_width(&self, head_dim: u32) -> u32 {
        let width = self.heads * self.v_dim;
        if self.v_dim == head_dim { width } else { width.next_multiple_of(ALIGN) }
    }

    /// Dimensions of a head in the KV cache and in attention.
    pub fn cache_dim(&self) -> u32 {
        padded_dim(self.qk_dim, self.v_dim).unwrap_or(self.qk_dim.max(self.v_dim))
    }

    /// Weights of the layer's matrices, in a model `hidden` wide with heads of `head_dim` dimensions and a gated MLP.
    pub fn parameters(&self, hidden: u32, head_dim: u32) -> u64 {
        u64::from(hidden) * u64::from(self.qkv_width() + self.o_width(head_dim) + 3 * self.intermediate)
    }
}

/// What [`SHAPES_KEY`] holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    /// Width of the residual stream, where it was sliced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hidden: Option<u32>,
    layers: Vec<LayerShape>,
}

/// The text of [`SHAPES_KEY`]; `hidden` where the residual stream was sliced.
pub(super) fn header(hidden: Option<u32>, layers: &[LayerShape]) -> String {
    let header = Header { version: VERSION, hidden, layers: layers.to_vec() };
    serde_json::to_string(&header).unwrap_or_default() // numbers and names: always text
}

/// Whether a file's layers have shapes of their own.
pub fn is_shrunk(checkpoint: &Checkpoint) -> bool {
    text(checkpoint).is_some()
}

fn text(checkpoint: &Checkpoint) -> Option<&str> {
    match checkpoint.meta() {
        Meta::Gguf(metadata) => metadata.str(SHAPES_KEY),
        Meta::HuggingFace { st_metadata, .. } => st_metadata.get(SHAPES_KEY).map(String::as_str),
    }
}

impl Config {
    /// The shape of a layer.
    pub fn shape(&self, layer: u32) -> LayerShape {
        let own = self.shapes.as_ref().and_then(|shapes| shapes.get(layer as usize));
        own.copied().unwrap_or_else(|| self.whole_shape())
    }

    /// The shapes of all layers.
    pub fn layer_shapes(&self) -> impl Iterator<Item = LayerShape> {
        (0..self.layers).map(|layer| self.shape(layer))
    }

    /// The shape of every layer as the model was made.
    pub fn whole_shape(&self) -> LayerShape {
        LayerShape {
            heads: self.heads,
            kv_heads: self.kv_heads,
            qk_dim: self.head_dim,
            v_dim: self.head_dim,
            intermediate: self.intermediate,
        }
    }

    /// Whether a layer's heads kept all their dimensions, so that the ordinary kernels do.
    pub(super) fn has_whole_heads(&self, shape: &LayerShape) -> bool {
        shape.qk_dim == self.head_dim && shape.v_dim == self.head_dim
    }

    /// Dimensions of a head that do not rotate; queries and keys always keep them.
    pub fn still_dims(&self) -> u32 {
        let rotary = if self.rope_style == RopeStyle::None { 0 } else { self.rope.rotary_dim as u32 };
        self.head_dim.saturating_sub(rotary)
    }

    /// The largest of a number that every layer has.
    pub(super) fn widest(&self, number: impl Fn(LayerShape) -> u32) -> u32 {
        self.layer_shapes().map(number).max().unwrap_or(0)
    }

    /// Takes the shapes that a file says its layers have.
    ///
    /// # Errors
    /// [`ModelError::Config`] where they are not those of this model with something taken away.
    pub(super) fn take_shapes(&mut self, checkpoint: &Checkpoint) -> Result<(), ModelError> {
        let Some(text) = text(checkpoint) else { return Ok(()) };
        let bad =
            |what: String| ModelError::Config { model: checkpoint.name().to_owned(), key: SHAPES_KEY.into(), what };
        let header: Header = serde_json::from_str(text).map_err(|error| bad(format!("it cannot be read: {error}")))?;
        if header.version != VERSION {
            return Err(bad(format!(
                "version {}, not {VERSION}: the file is of another version of tersor",
                header.version
            )));
        }
        if self.architecture == Architecture::Bert {
            return Err(bad("layers of an encoder cannot have shapes of their own".into()));
        }
        if header.layers.len() as u64 != u64::from(self.layers) {
            return Err(bad(format!("{} layers where the model has {}", header.layers.len(), self.layers)));
        }
        for (layer, shape) in header.layers.iter().enumerate() {
            self.check_shape(shape).map_err(|what| bad(format!("layer {layer}: {what}")))?;
        }
        if let Some(hidden) = header.hidden {
            if hidden == 0 || hidden > self.hidden || !hidden.is_multiple_of(4) {
                return Err(bad(format!("{hidden} of the residual stream's {} dimensions", self.hidden)));
            }
            // Norms divide by the number of dimensions: weights were scaled for it, and so is what is added to the variance.
            self.norm_eps = (f64::from(self.norm_eps) * f64::from(self.hidden) / f64::from(hidden)) as f32;
            self.hidden = hidden;
        }
        self.shapes = Some(header.layers);
        Ok(())
    }

    /// What is wrong with a layer's shape.
    pub(super) fn check_shape(&self, shape: &LayerShape) -> Result<(), String> {
        let whole = self.whole_shape();
        for (name, value, most, step) in [
            ("query heads", shape.heads, whole.heads, 1),
            ("heads of keys and values", shape.kv_heads, whole.kv_heads, 1),
            ("dimensions of queries and keys", shape.qk_dim, whole.qk_dim, 2),
            ("dimensions of values", shape.v_dim, whole.v_dim, 2),
            ("channels of the MLP", shape.intermediate, whole.intermediate, 4),
        ] {
            if value == 0 || value > most {
                return Err(format!("{value} {name}, where the model has {most}"));
            }
            if !value.is_multiple_of(step) {
                return Err(format!("{value} {name}, no multiple of {step}"));
            }
        }
        if !shape.heads.is_multiple_of(shape.kv_heads) {
            return Err(format!("{} query heads cannot share {} of keys and values", shape.heads, shape.kv_heads));
        }
        if shape.qk_dim < self.still_dims() {
            let (dims, still) = (shape.qk_dim, self.still_dims());
            return Err(format!("{dims} dimensions of queries and keys, fewer than the {still} that do not rotate"));
        }
        if self.architecture.qk_norm() && shape.qk_dim != whole.qk_dim {
            return Err("queries and keys that are normalised over the whole head cannot lose dimensions".into());
        }
        Ok(())
    }
}
