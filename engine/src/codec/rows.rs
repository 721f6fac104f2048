//! Work on the rows of a matrix: in parallel natively, one after the other in the browser.

use super::{Codec, CodecError, Plane};

/// Checks that rows of `cols` weights can be cut into the codec's blocks.
pub(super) fn check_cols(codec: &dyn Codec, cols: usize) -> Result<(), CodecError> {
    let block = codec.block_len();
    if cols.is_multiple_of(block) { Ok(()) } else { Err(CodecError::Columns { codec: codec.name(), cols, block }) }
}

/// Checks what every encoder asks of its input: the shape, whole blocks, finite weights.
pub(super) fn check_weights(codec: &dyn Codec, weights: &[f32], rows: usize, cols: usize) -> Result<(), CodecError> {
    if rows.checked_mul(cols) != Some(weights.len()) {
        return Err(CodecError::Shape { codec: codec.name(), len: weights.len(), rows, cols });
    }
    check_cols(codec, cols)?;
    match weights.iter().position(|w| !w.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let (row, col, value) = (at / cols, at % cols, weights[at]);
            Err(CodecError::NonFinite { codec: codec.name(), row, col, value })
        }
    }
}

/// Calls `work(i, piece)` for the `i`-th piece of `len` elements of `data`.
pub(crate) fn for_each_chunk<T, F>(data: &mut [T], len: usize, work: F)
where
    T: Send,
    F: Fn(usize, &mut [T]) + Send + Sync,
{
    pieces(data, len, &work);
}

/// [`for_each_chunk`]. Behind a pointer, or every caller would have all of rayon compiled anew.
fn pieces<T: Send>(data: &mut [T], len: usize, work: &(dyn Fn(usize, &mut [T]) + Sync)) {
    if len == 0 {
        return;
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        use rayon::prelude::*;
        data.par_chunks_mut(len).enumerate().for_each(|(i, piece)| work(i, piece));
    }
    #[cfg(target_arch = "wasm32")]
    data.chunks_mut(len).enumerate().for_each(|(i, piece)| work(i, piece));
}

/// Calls `work(row, words)` for every row of planes that share nothing between rows; `words[i]` is the row in plane `i`.
/// Returns the error of the first row that failed.
pub(super) fn for_each_row<const PLANES: usize, E, F>(planes: &mut [Plane; PLANES], work: F) -> Result<(), E>
where
    E: Send,
    F: Fn(usize, [&mut [u32]; PLANES]) -> Result<(), E> + Send + Sync,
{
    rows(planes, &work)
}

/// What is done with a row.
type RowWork<'a, const PLANES: usize, E> = dyn Fn(usize, [&mut [u32]; PLANES]) -> Result<(), E> + Sync + 'a;

/// [`for_each_row`], behind a pointer like [`pieces`].
fn rows<const PLANES: usize, E: Send>(planes: &mut [Plane; PLANES], work: &RowWork<'_, PLANES, E>) -> Result<(), E> {
    let mut chunks = planes.each_mut().map(|plane| plane.data.chunks_mut((plane.row_words as usize).max(1)));
    let count = chunks.iter().map(ExactSizeIterator::len).min().unwrap_or(0);
    let rows: Vec<[&mut [u32]; PLANES]> =
        (0..count).map(|_| std::array::from_fn(|i| chunks[i].next().unwrap_or_default())).collect();
    #[cfg(not(target_arch = "wasm32"))]
    {
        use rayon::prelude::*;
        let failed = rows
            .into_par_iter()
            .enumerate()
            .filter_map(|(i, row)| work(i, row).err().map(|error| (i, error)))
            .min_by_key(|(i, _)| *i);
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }
    #[cfg(target_arch = "wasm32")]
    rows.into_iter().enumerate().try_for_each(|(i, row)| work(i, row))
}
