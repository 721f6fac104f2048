//! Architectures as plain forward passes over [`crate::ops`].
//!
//! In: a [`crate::format::Checkpoint`], perhaps a recipe and a rotation. Out: a [`Decoder`] (language models) or an
//! [`Encoder`] (BERT) whose weights lie packed on the GPU, that turns token ids there into logits or embeddings.
//!
//! [`Config`] says in one vocabulary what GGUF metadata and `config.json` say in two; [`names`] knows what tensors are called;
//! [`Weights`] reads, rotates and compresses them one at a time; [`Context`] holds what a decoder remembers of a text.

mod basis;
mod block;
mod calibrate;
pub mod config;
mod context;
mod decoder;
mod encoder;
mod error;
mod fit;
pub mod names;
mod policy;
mod projection;
pub mod rotate;
mod shape;
pub mod shrink;
mod tune;
mod weights;

pub use calibrate::{Observer, Site, Wanted, calibrate, calibrate_encoder};
pub use config::{Architecture, Config};
pub use context::Context;
pub use decoder::{Decoder, Head};
pub use encoder::Encoder;
pub use error::ModelError;
pub use fit::{Need, check_fit};
pub use policy::{AttentionPolicy, BlockCount, KeptRow, PolicyError};
pub use shape::{LayerShape, SHAPES_KEY, is_shrunk};
pub use weights::{Calibrations, Place, ROTATION_KEY, Rotated, TensorReport, Weights, rotation_of};
