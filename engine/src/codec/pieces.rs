//! Packing a matrix some rows at a time, so that its f32 weights are never in memory as a whole.
//!
//! In: a codec, and a function that reads rows. Out: the matrix that [`encode_for`] makes of all of them at once, bit for
//! bit, and how far it is from what was read. Codecs that look at the whole matrix ([`rows_apart`]), and calibrated ones,
//! which do the same preparations for every call, get it whole.
//!
//! [`encode_for`]: super::Codec::encode_for
//! [`rows_apart`]: super::Codec::rows_apart

use std::borrow::Cow;
use std::ops::Range;

use super::{Calibrates, Calibration, CodecError, CodecRef, Packed};

/// Weights of a piece: 1 MiB as f32, of which two are there at a time, read and decoded. What is packed is there as a whole, so that
/// larger pieces would only add to it; natively this is work for all cores still.
pub const PIECE: usize = 1 << 18;

/// A packed matrix, and what packing did to it.
#[derive(Debug)]
pub struct Encoded {
    /// The matrix.
    pub packed: Packed,
    /// The codec that would have made it larger, where the one inside of it took its place.
    pub larger: Option<String>,
    /// ‖packed − read‖² / ‖read‖².
    pub nmse: f64,
}

/// How a matrix is packed.
#[derive(Clone, Copy, Debug)]
pub struct Encoding<'a> {
    pub codec: &'a CodecRef,
    pub rows: usize,
    pub cols: usize,
    /// Statistics of the matrix's inputs.
    pub calibration: Option<&'a Calibration>,
    /// Weights of a piece; at least as many rows as belong together are read at a time.
    pub piece: usize,
}

impl Encoding<'_> {
    /// Packs what `read` gives of the rows it is asked for (`[range, cols]`, row-major), which come in order.
    ///
    /// # Errors
    /// Those of `read`, and those of [`Codec::encode_for`](super::Codec::encode_for) as `failed` puts them.
    pub fn encode<'a, E>(
        &self,
        mut read: impl FnMut(Range<usize>) -> Result<Cow<'a, [f32]>, E>,
        failed: impl Fn(CodecError) -> E,
    ) -> Result<Encoded, E> {
        let &Self { codec, rows, cols, calibration, piece } = self;
        let statistics = calibration.is_some() && codec.calibrates() != Calibrates::No;
        let ranges = if codec.rows_apart() && !statistics {
            pieces(rows, cols, codec.row_granularity(cols), piece)
        } else {
            whole(rows)
        };
        if let [range] = ranges.as_slice() {
            let values = read(range.clone())?;
            let packed = codec.encode_for(&values, rows, cols, calibration).map_err(&failed)?;
            let coded = packed.codec.name();
            let packed = packed.codec.clone().unless_larger(packed).map_err(failed)?;
            let larger = (packed.codec.name() != coded).then_some(coded);
            let nmse = nmse(&values, &packed.decode());
            return Ok(Encoded { packed, larger, nmse });
        }
        let mut growing = Growing::new(rows, cols);
        let mut difference = Difference::default();
        for range in ranges {
            let values = read(range.clone())?;
            let packed = codec.encode_for(&values, range.len(), cols, calibration);
            let packed = packed.map_err(|error| failed(error.below(range.start)))?;
            difference.add(&values, &packed.decode());
            growing.push(packed).map_err(&failed)?;
        }
        let packed = growing.finish(codec).map_err(failed)?;
        Ok(Encoded { packed, larger: None, nmse: difference.nmse() })
    }
}

/// The rows of a matrix in pieces of about `piece` weights, all but the last with a multiple of `granularity` rows.
pub(super) fn pieces(rows: usize, cols: usize, granularity: usize, piece: usize) -> Vec<Range<usize>> {
    let step = ((piece / cols.max(1)) / granularity * granularity).max(granularity);
    if rows <= step {
        return whole(rows);
    }
    (0..rows).step_by(step).map(|start| start..rows.min(start + step)).collect()
}

/// All rows at once.
fn whole(rows: usize) -> Vec<Range<usize>> {
    std::iter::once(0..rows).collect()
}

/// A matrix whose rows are put together. Its planes get their final size at once: a plane that grew would be copied again and again.
pub(super) struct Growing {
    rows: usize,
    cols: usize,
    packed: Option<Packed>,
}

impl Growing {
    /// A matrix that is to have `rows` rows.
    pub(super) fn new(rows: usize, cols: usize) -> Self {
        Self { rows, cols, packed: None }
    }

    /// Adds rows, at a multiple of [`Packed::row_granularity`].
    ///
    /// # Errors
    /// Another codec than that of the rows before, or one with planes of variable length: mistakes of a codec that says that its rows
    /// are apart.
    pub(super) fn push(&mut self, piece: Packed) -> Result<(), CodecError> {
        let codec = piece.codec.clone();
        let lost = |plane| CodecError::Layout { codec: codec.name(), plane, rows: self.rows, cols: self.cols };
        let Some(packed) = &mut self.packed else {
            let mut piece = piece;
            for (number, plane) in piece.planes.iter_mut().enumerate() {
                let words = plane.layout().words(self.rows).filter(|_| !plane.layout().is_variable());
                let words = words.ok_or_else(|| lost(number))?;
                plane.data.reserve_exact(words.saturating_sub(plane.data.len()));
            }
            self.packed = Some(piece);
            return Ok(());
        };
        let alike = packed.codec.name() == codec.name() && packed.planes.len() == piece.planes.len();
        if !alike || !packed.rows.is_multiple_of(packed.row_granularity()) {
            return Err(lost(0));
        }
        packed.rows += piece.rows;
        packed
            .planes
            .iter_mut()
            .zip(&piece.planes)
            .for_each(|(plane, piece)| plane.data.extend_from_slice(&piece.data));
        Ok(())
    }

    /// The matrix of all that was added.
    ///
    /// # Errors
    /// If that is not as many rows as it was to have.
    pub(super) fn finish(self, codec: &CodecRef) -> Result<Packed, CodecError> {
        let (rows, cols) = (self.rows, self.cols);
        let complete = self.packed.filter(|packed| packed.rows == rows);
        complete.ok_or_else(|| CodecError::Layout { codec: codec.name(), plane: 0, rows, cols })
    }
}

/// Adds up how far a matrix is from its original.
#[derive(Debug, Default)]
struct Difference {
    error: f64,
    energy: f64,
}

impl Difference {
    fn add(&mut self, original: &[f32], other: &[f32]) {
        for (a, b) in original.iter().zip(other) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            self.error += (a - b) * (a - b);
            self.energy += a * a;
        }
    }

    fn nmse(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.energy }
    }
}

/// ‖other − original‖² / ‖original‖²; 0 where both are zero.
pub fn nmse(original: &[f32], other: &[f32]) -> f64 {
    let mut difference = Difference::default();
    difference.add(original, other);
    difference.nmse()
}
