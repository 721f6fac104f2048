//! Model files: GGUF, safetensors, Hugging Face folders.
//!
//! Flows in: a path, or names with bytes. Flows out: a [`Checkpoint`], which is named tensors with shape and [`Dtype`],
//! their bytes, and the model's [`Meta`]data. Nothing here knows what a model or a codec is.
//!
//! Files are hostile until proven otherwise: arithmetic is checked, every count is held against the bytes that are left
//! before memory is taken, and an error names the file, the key or tensor, the byte and a remedy.

mod bytes;
mod checkpoint;
mod checksums;
mod decode;
mod dtype;
mod embedded;
mod error;
mod folder;
mod gguf;
mod gguf_parts;
mod gguf_value;
mod growing;
mod hugging_face;
mod open;
mod safetensors;
mod writer;

pub use bytes::ByteSource;
pub use checkpoint::{Checkpoint, Found, Meta, TensorInfo};
pub use checksums::{CHECKSUMS_KEY, Checksums};
pub use decode::decode_f32;
pub use dtype::{Dtype, GgmlType, ShapeError};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use embedded::FILE_PREFIX;
pub use embedded::embed;
pub(crate) use error::quoted;
pub use error::{FormatError, Item};
pub use gguf_value::{GgufArray, GgufMetadata, GgufValue};
pub use growing::GrowingSafetensors;
#[cfg(not(target_arch = "wasm32"))]
pub use writer::AtomicFile;
pub use writer::CheckpointWriter;
