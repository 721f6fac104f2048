//! Compression methods: one file a method, beside a WGSL module of the same name under `shaders/wgsl/codec/`.
//!
//! In: dense f32 matrices ([`Codec::encode`]) or the bytes a file holds ([`import`]). Out: [`Packed`] matrices whose
//! planes are uploaded as they are and decoded inside the kernels. Nothing here knows the GPU.
//!
//! A weight is a matrix `[rows, cols]` used as `y = W x`. A *run* is 32 consecutive weights of a row, the unit in which
//! kernels decode; what all codecs share about it (the bit-sliced layout of codes) is documented in `bits.rs`.
//!
//! To add a method: a file here with its [`Codec`], a module of the same name in `shaders/wgsl/codec/`, and its line in
//! `spec.rs`.

mod absmax;
mod bitmap;
mod bits;
mod calibration;
mod compressed_tensors;
mod dense;
pub mod describe;
pub mod dfloat11;
mod entropy;
mod error;
mod fit;
mod fp4;
mod ggml;
mod hessian;
mod iq4_nl;
mod iq4_xs;
mod k_quant;
mod low_rank;
mod mxfp4;
mod nf4;
mod nvfp4;
mod packed;
mod pieces;
mod q1_0;
mod q2_0;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod recipe;
pub(crate) mod rows;
mod shrink;
mod sparse;
mod sparse24;
mod spec;
mod spqr;
mod stored;
#[cfg(test)]
mod tests;
mod tq1_0;
mod tq2_0;
mod uniform;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use crate::format::{Dtype, TensorInfo, decode_f32};

pub use calibration::{Calibrates, Calibration};
pub use entropy::Symbols;
pub use error::CodecError;
pub use packed::{Packed, Plane, PlaneLayout};
pub use pieces::{Encoded, Encoding, PIECE, nmse};
pub use recipe::{Choice, Recipe};
pub use shrink::{Importance, Modegpt, Prune, Shrink};
pub use sparse::cubic;
pub use spec::{Names, names, parse, valid_codecs};
pub use spqr::Published as PublishedSpqr;
pub use stored::{PACKED_KEY, PackedList, Stored, StoredRows, StoredTensor};

/// A codec with its parameters, shared by the matrices it packed.
pub type CodecRef = Arc<dyn Codec>;

/// Weights in a run: the unit in which kernels decode a row.
pub const RUN: usize = 32;

/// How kernels find the weights of a sparse codec; shaders/wgsl/linear/sparse.wgsl is where they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sparsity {
    /// Weights of a kept row.
    pub kept: usize,
    /// Words of a line of the mask: of a row, or a row of blocks.
    pub line_words: u32,
    /// Kept weights of every eight columns; 0 where the mask says how many come before a run.
    pub per_octet: u32,
    /// Rows (and columns) of a block; 0 where single weights are kept.
    pub block_rows: u32,
}

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

    /// What [`Codec::cut`] and [`Codec::stack`] keep together: a power of two, 1 for most codecs.
    fn row_granularity(&self, cols: usize) -> usize {
        self.layout(cols).iter().map(|plane| plane.rows_per_group as usize).max().unwrap_or(1).max(1)
    }

    /// Bytes that a packed matrix will take, on the GPU too; where planes are of variable length, about the most that it may be.
    fn planned_bytes(&self, rows: usize, cols: usize) -> u64 {
        self.layout(cols).iter().map(|plane| 4 * plane.words(rows).unwrap_or(0) as u64).sum()
    }

    /// Packs `weights` (`[rows, cols]`, row-major).
    ///
    /// # Errors
    /// A length that does not match, columns that are no multiple of [`Codec::block_len`], a weight that is not finite,
    /// or one that is beyond what the codec's scales can express.
    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError>;

    /// Whether rows are packed without a look at others, but for those that [`Codec::row_granularity`] keeps together: what
    /// [`Codec::encode`] makes of some rows is then that part of what it makes of all, and all planes are of fixed length.
    fn rows_apart(&self) -> bool {
        false
    }

    /// Whether [`Codec::encode_for`] makes use of what the matrix's inputs look like.
    fn calibrates(&self) -> Calibrates {
        Calibrates::No
    }

    /// Packs `weights` so that the product with inputs like those of `calibration` loses little; without one, or where the codec
    /// does not [calibrate](Codec::calibrates), this is [`Codec::encode`].
    ///
    /// # Errors
    /// As [`Codec::encode`]; statistics of other columns; none where the codec requires them.
    fn encode_for(
        &self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        calibration: Option<&Calibration>,
    ) -> Result<Packed, CodecError> {
        let _ = calibration;
        self.encode(weights, rows, cols)
    }

    /// The weights as the GPU sees them: `[rows, cols]`, row-major. This is the reference of the WGSL module.
    ///
    /// `packed` must be this codec's, which `packed.decode()` ensures.
    fn decode(&self, packed: &Packed) -> Vec<f32>;

    /// How kernels find the weights of a codec that keeps only some of them; `None`: all are there.
    ///
    /// Its module, options and first planes are then those of the codec that the kept rows (`[rows, kept]`) are in, and the mask is the
    /// last plane.
    fn sparsity(&self, cols: usize) -> Option<Sparsity> {
        let _ = cols;
        None
    }

    /// The same weights in the layout that kernels read, where files may have an older one.
    ///
    /// # Errors
    /// Weights that it cannot hold.
    fn current(&self, packed: Packed) -> Result<Packed, CodecError> {
        Ok(packed)
    }

    /// Refuses planes, e.g. of a hostile file, whose content would make a kernel read outside them. [`Packed::new`] calls it when
    /// their number and their fixed lengths are right.
    ///
    /// # Errors
    /// What is wrong, naming the plane.
    fn check(&self, packed: &Packed) -> Result<(), CodecError> {
        let _ = packed;
        Ok(())
    }

    /// The matrix of some of the rows, which start at a multiple of [`Packed::row_granularity`].
    ///
    /// # Errors
    /// Planes that do not have the codec's layout.
    fn cut(&self, packed: &Packed, range: Range<usize>) -> Result<Packed, CodecError> {
        packed.cut(range)
    }

    /// Stacks matrices of this codec with the same columns, all but the last with a multiple of [`Packed::row_granularity`] rows.
    /// `None` where they cannot be one matrix.
    fn stack(&self, parts: &[&Packed]) -> Option<Packed> {
        Packed::stack(parts)
    }

    /// Packs the weights that `mask` has (`[rows, runs]`, weight i of a run in bit i) and no others: what other software pruned.
    ///
    /// # Errors
    /// As [`Codec::encode`]; a codec that keeps all, or not these.
    fn encode_masked(&self, weights: &[f32], mask: &[u32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        let _ = (weights, mask, rows, cols);
        Err(CodecError::Combination {
            left: self.name(),
            right: "a mask".into(),
            why: "only a sparse codec has one".into(),
        })
    }

    /// Whether [`Codec::encode`] is there at all; some formats are only read.
    fn encodes(&self) -> bool {
        true
    }

    /// What `entropy:` can put shorter codes for; `None` where the first plane holds no integers of their own.
    fn symbols(&self) -> Option<Symbols> {
        None
    }

    /// The codec whose first plane is entropy-coded in this one's; kernels decode it in sequence, or expand it first.
    fn coded(&self) -> Option<(&CodecRef, Symbols)> {
        None
    }

    /// The same weights without a lossless coding that makes them no smaller: in the codec that it wraps then, else as they are.
    ///
    /// # Errors
    /// Those of a matrix that is not this codec's.
    fn unless_larger(&self, packed: Packed) -> Result<Packed, CodecError> {
        Ok(packed)
    }

    /// This codec with its kept values stored by another: sparsity times quantization (`sparse:2:4+q4_k`).
    ///
    /// # Errors
    /// [`CodecError::Combination`] for one that has no values of their own, or whose values cannot be stored so.
    fn with_values(&self, values: &CodecRef) -> Result<CodecRef, CodecError> {
        Err(CodecError::Combination {
            left: self.name(),
            right: values.name(),
            why: "only a sparse codec's kept values can be stored by another codec".into(),
        })
    }

    /// The codec that takes this one's place for a matrix of this shape: where its parameters depend on the shape, or where it is not
    /// worth it. `None`: this one as it is.
    fn for_shape(&self, rows: usize, cols: usize) -> Option<CodecRef> {
        let _ = (rows, cols);
        None
    }

    /// The codec that takes this one's place for a table of which rows are looked up: what only products can make use of is left out.
    fn for_table(&self) -> Option<CodecRef> {
        None
    }

    /// Whether this is a sum or a product with a low-rank part.
    fn is_low_rank(&self) -> bool {
        false
    }

    /// Numbers that a product with a matrix keeps for each token between its dispatches.
    fn between(&self) -> usize {
        0
    }

    /// The low-rank part of a matrix, and what it is added to.
    fn low_rank<'a>(&self, packed: &'a Packed) -> Option<LowRankParts<'a>> {
        let _ = packed;
        None
    }

    /// Adds a layer's bias (`[rows]`) to the one that the matrix has in itself; `false` where it has none.
    fn absorb_bias(&self, packed: &mut Packed, bias: &[f32]) -> bool {
        let _ = (packed, bias);
        false
    }

    /// This codec with a wrapper around the part of it that a wrapper is about; `None`: all of it.
    fn rewrap(&self, wrap: &dyn Fn(CodecRef) -> Result<CodecRef, CodecError>) -> Option<Result<CodecRef, CodecError>> {
        let _ = wrap;
        None
    }

    /// The codec that takes over where a row is no multiple of [`Codec::block_len`]. Following these ends at f16, which
    /// takes any row.
    fn fallback(&self) -> CodecRef {
        Arc::new(dense::Dense::F16)
    }

    /// The element type of model files that holds the same weights bit for bit.
    fn dtype(&self) -> Option<Dtype> {
        None
    }

    /// Lays out the bytes of a file's tensor of type [`Codec::dtype`].
    ///
    /// # Errors
    /// A length that does not match, columns that are no multiple of [`Codec::block_len`], no such type.
    fn import(&self, bytes: &[u8], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        let _ = (bytes, rows, cols);
        Err(CodecError::NoFileType { codec: self.name() })
    }

    /// Undoes [`Codec::import`]; `None` without a [`Codec::dtype`].
    fn export(&self, packed: &Packed) -> Option<Vec<u8>> {
        let _ = packed;
        None
    }
}

/// A matrix Ŵ + B A in parts, as kernels multiply by it.
#[derive(Debug)]
pub struct LowRankParts<'a> {
    /// Ŵ; `None`: 0.
    pub base: Option<Packed>,
    /// A of every matrix that is stacked, one below the other: `[n · rank, cols]`.
    pub a: Packed,
    /// Columns of B.
    pub rank: usize,
    /// B: of every row the column of A x at which its own begin, its bias (f32), and `rank` numbers.
    pub b: &'a [u32],
    /// Words of a row of B.
    pub row_words: usize,
    /// How its numbers are stored: 0 bf16, 1 f16, 2 Q8_0, 3 Q4_0.
    pub format: u32,
}

/// Lays out a tensor of a file without re-quantizing it. All dimensions but the last are rows; a vector is one row.
/// F64 is rounded to f32; 8-bit floats become f16, which holds them exactly.
///
/// # Errors
/// Integer and boolean tensors, 8-bit floats that are not finite, bytes that do not match the shape.
pub fn import(info: &TensorInfo, bytes: &[u8]) -> Result<Packed, CodecError> {
    let too_large = || CodecError::Size { tensor: info.name.clone(), shape: info.shape.clone() };
    let (leading, cols) = match info.shape.split_last() {
        Some((cols, leading)) => (leading, usize::try_from(*cols).map_err(|_| too_large())?),
        None => (&[][..], 1),
    };
    let rows =
        leading.iter().try_fold(1usize, |rows, &n| rows.checked_mul(usize::try_from(n).ok()?)).ok_or_else(too_large)?;
    let widened = |codec: &str| {
        let weights = decode_f32(info.dtype, bytes).unwrap_or_default();
        parse(codec)?.encode(&weights, rows, cols)
    };
    match info.dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::Ggml(_) => parse(info.dtype.name())?.import(bytes, rows, cols),
        Dtype::F64 => widened("f32"),
        Dtype::F8E4M3 | Dtype::F8E5M2 => widened("f16"),
        dtype => Err(CodecError::Dtype { tensor: info.name.clone(), dtype }),
    }
}

/// The bytes of the tensor in a GGUF file, of the type that the codec's [`Codec::dtype`] says; `None` if it has none there.
pub fn export_ggml(packed: &Packed) -> Option<Vec<u8>> {
    packed.codec.dtype()?.ggml_id()?;
    packed.codec.export(packed)
}
