//! Some rows of a stored tensor at a time, so that one that is large need not be read as a whole.

use std::borrow::Cow;
use std::ops::Range;

use super::super::pieces::{Growing, PIECE, pieces};
use super::super::{CodecError, CodecRef, Packed, import, parse};
use super::{Stored, wrong};
use crate::format::{Checkpoint, Dtype, TensorInfo};

/// A tensor, to be read some rows at a time. What is packed in a file is read at once, which is small; what is plain, piece by piece.
#[derive(Debug, Clone)]
pub struct StoredRows {
    rows: usize,
    cols: usize,
    codec: CodecRef,
    origin: Origin,
}

#[derive(Debug, Clone)]
enum Origin {
    Plain(Checkpoint, TensorInfo),
    Packed(Packed),
}

impl Stored {
    /// A tensor as [`Stored::load`] gives it, for one who needs only some of its rows at a time; `None` if there is none of this name.
    ///
    /// # Errors
    /// As [`Stored::load`]. The checksum is held against the bytes here, once.
    pub fn rows(&self, name: &str) -> Result<Option<StoredRows>, CodecError> {
        let Some(tensor) = self.tensor(name) else { return Ok(None) };
        if tensor.codec.is_some() {
            return Ok(self.load(name)?.map(StoredRows::from));
        }
        let Some(info) = self.checkpoint.info(name) else { return Ok(None) };
        let too_large = || CodecError::Size { tensor: name.to_owned(), shape: info.shape.clone() };
        let [rows, cols] = tensor.matrix().ok_or_else(too_large)?;
        // Of wide types the codec that `import` puts them in.
        let codec = match info.dtype {
            Dtype::F64 => "f32",
            Dtype::F8E4M3 | Dtype::F8E5M2 => "f16",
            Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::Ggml(_) => info.dtype.name(),
            dtype => return Err(CodecError::Dtype { tensor: name.to_owned(), dtype }),
        };
        self.verify(info)?;
        let origin = Origin::Plain(self.checkpoint.clone(), info.clone());
        Ok(Some(StoredRows { rows, cols, codec: parse(codec)?, origin }))
    }

    /// Holds a tensor's bytes against its checksum, if it has one.
    fn verify(&self, info: &TensorInfo) -> Result<(), CodecError> {
        let Some(mut digest) = self.checksums.digest(&info.name) else { return Ok(()) };
        let mut start = 0;
        while start < info.byte_len() {
            let end = info.byte_len().min(start + 4 * PIECE as u64);
            let bytes = read(&self.checkpoint, &info.name, start..end)?;
            digest.add(&bytes);
            start = end;
        }
        digest.verify().map_err(|message| wrong(&self.checkpoint, &info.name, message))
    }
}

impl From<Packed> for StoredRows {
    fn from(packed: Packed) -> Self {
        Self { rows: packed.rows, cols: packed.cols, codec: packed.codec.clone(), origin: Origin::Packed(packed) }
    }
}

impl StoredRows {
    /// The codec that the rows come in.
    pub fn codec(&self) -> &CodecRef {
        &self.codec
    }

    /// Weights that are best read at a time: all, where parting the rows of the codec would be work.
    pub fn piece(&self) -> usize {
        match &self.origin {
            Origin::Packed(packed) if !packed.codec.rows_apart() => usize::MAX,
            _ => PIECE,
        }
    }

    /// The weights of some of the rows, `[range, cols]`.
    ///
    /// # Errors
    /// As [`Stored::load`]; rows that the tensor does not have.
    pub fn decode(&self, range: Range<usize>) -> Result<Vec<f32>, CodecError> {
        self.check(&range)?;
        match &self.origin {
            Origin::Packed(packed) if range == (0..self.rows) => Ok(packed.decode()),
            // Some codecs' rows can be parted at certain places only: the rows around, and of them those that are wanted.
            Origin::Packed(packed) => {
                let granularity = packed.row_granularity();
                let from = range.start / granularity * granularity;
                let mut around = packed.rows(from..range.end)?.decode();
                around.drain(..(range.start - from) * self.cols);
                Ok(around)
            }
            Origin::Plain(..) => Ok(self.import(range)?.decode()),
        }
    }

    /// All rows, packed as they are stored.
    ///
    /// # Errors
    /// As [`Stored::load`].
    pub fn all(self) -> Result<Packed, CodecError> {
        if let Origin::Packed(packed) = self.origin {
            return Ok(packed);
        }
        let ranges = pieces(self.rows, self.cols, self.codec.row_granularity(self.cols), PIECE);
        if ranges.len() == 1 {
            return self.import(0..self.rows);
        }
        let mut growing = Growing::new(self.rows, self.cols);
        for range in ranges {
            let start = range.start;
            growing.push(self.import(range).map_err(|error| error.below(start))?)?;
        }
        growing.finish(&self.codec)
    }

    fn check(&self, range: &Range<usize>) -> Result<(), CodecError> {
        if range.start <= range.end && range.end <= self.rows { Ok(()) } else { Err(self.outside(range)) }
    }

    fn outside(&self, range: &Range<usize>) -> CodecError {
        let (start, end) = (range.start, range.end);
        CodecError::RowRange { codec: self.codec.name(), start, end, rows: self.rows, granularity: 1 }
    }

    /// Rows of a plain tensor.
    fn import(&self, range: Range<usize>) -> Result<Packed, CodecError> {
        let Origin::Plain(checkpoint, info) = &self.origin else { return Err(self.outside(&range)) };
        let size = |rows: usize| {
            let shape = vec![rows as u64, self.cols as u64];
            let too_large = || CodecError::Size { tensor: info.name.clone(), shape: info.shape.clone() };
            TensorInfo::new(info.name.clone(), shape, info.dtype).map_err(|_| too_large())
        };
        let (before, part) = (size(range.start)?, size(range.len())?);
        let bytes = read(checkpoint, &info.name, before.byte_len()..before.byte_len() + part.byte_len())?;
        import(&part, &bytes)
    }
}

/// Some bytes of a tensor that is there.
fn read<'a>(checkpoint: &'a Checkpoint, name: &str, part: Range<u64>) -> Result<Cow<'a, [u8]>, CodecError> {
    let bytes = checkpoint.read_part(name, part).map_err(|error| wrong(checkpoint, name, error.to_string()))?;
    bytes.ok_or_else(|| wrong(checkpoint, name, "it is not there any more"))
}
