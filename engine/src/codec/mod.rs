//! Compression methods: one file a method, beside a WGSL module of the same name under `shaders/wgsl/codec/`.
//!
//! In: dense f32 matrices ([`Codec::encode`]) or the bytes a file holds ([`import`]). Out: [`Packed`] matrices whose
//! planes are uploaded as they are and decoded inside the kernels. Nothing here knows the GPU.
//!
//! A weight is a matrix `[rows, cols]` used as `y = W x`. A *run* is 32 consecutive weights of a row, the unit in which
//! kernels decode; what all codecs share about it (the bit-sliced layout of codes) is in [`bits`]'s documentation.
//!
//! To add a method: a file here with its [`Codec`], a module of the same name in `shaders/wgsl/codec/`, and its line in
//! [`spec`]'s table.

mod bits;
mod dense;
mod error;
mod ggml;
mod packed;
mod q4_0;
mod q8_0;
mod rows;
mod spec;

use std::fmt::Debug;
use std::sync::Arc;

pub use error::CodecError;
pub use packed::{Packed, Plane, PlaneLayout};
pub use spec::{parse, valid_codecs};

/// A codec with its parameters, shared by the matrices it packed.
pub type CodecRef = Arc<dyn Codec>;

/// Weights in a run: the unit in which kernels decode a row.
pub const RUN: usize = 32;

/// A compression method with its parameters.
pub trait Codec: Send + Sync + Debug {
    /// Canonical recipe spelling, e.g. `q4_k` or `uniform:bits=3,group=64,zero`; [`parse`] reads it back.
    fn name(&self) -> String;

    /// WGSL module under `shaders/wgsl/codec/`, without the extension.
    fn module(&self) -> &'static str;

    /// Options of the WGSL module, e.g. `[("BITS", 3), ("GROUP", 64)]`.
    fn defines(&self) -> Vec<(&'static str, u32)> {
        Vec::new()
    }

    /// A row's length must be a multiple of this; 1 where any length will do.
    fn block_len(&self) -> usize;

    /// Shapes of the planes of a matrix with `cols` columns, in binding order (`codec_0`, `codec_1`, …).
    fn layout(&self, cols: usize) -> Vec<PlaneLayout>;

    /// Packs `weights` (`[rows, cols]`, row-major).
    ///
    /// # Errors
    /// A length that does not match, columns that are no multiple of [`Codec::block_len`], a weight that is not finite,
    /// or one that is beyond what the codec's scales can express.
    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError>;

    /// The weights as the GPU sees them: `[rows, cols]`, row-major. This is the reference of the WGSL module.
    ///
    /// `packed` must be this codec's, which `packed.decode()` ensures.
    fn decode(&self, packed: &Packed) -> Vec<f32>;
}
