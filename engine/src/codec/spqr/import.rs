//! Matrices as the authors' program writes them (Hugging Face format, `quant_method: spqr`, 3 bits, tiles of 16 x 16).
//!
//! `dense_weights`: an i64 for each row of each tile, tiles by rows, a tile's 16 rows behind one another. Bits 0 to 2 are w_s, 3 to 5
//! w_z, 6 + 3j to 8 + 3j the code of column j, 54 to 61 a byte of the tile's (wss, wzs, wsz, wzz), which the rows 2i and 2i + 1 both
//! carry for byte i. `col_vals`: outliers, the column in the low half and an f16 in the high one. `row_offsets`: where those of a row
//! start (CSR), or those of 16 rows (PTCSR: they are 16 columns of equal length, filled up with zeros). `in_perm`: the inputs in the
//! order of the columns, two in a word.
//!
//! The authors' encoder means an outlier to *replace* the grid's value at its place, their kernel and their converter *add* it. Both
//! decoders of the format add, and so do we.

use std::sync::Arc;

use super::super::bits::pack;
use super::super::rows::{check_cols, for_each_chunk};
use super::super::{Codec, CodecError, Packed, Plane};
use super::{MOST_COLS, STATISTIC_BITS, Spqr, put_six_bits};

/// Rows of a tile, and columns of a group.
pub(super) const TILE: usize = 16;

/// The tensors of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a> {
    pub rows: usize,
    pub cols: usize,
    /// `[⌈rows / 16⌉, cols / 16, 16]`
    pub dense_weights: &'a [u64],
    /// `[rows + 1]` (CSR) or `[⌈rows / 16⌉ + 1]` (PTCSR)
    pub row_offsets: &'a [u32],
    pub col_vals: &'a [u32],
    /// `[cols / 2]`; empty for columns in their own order.
    pub in_perm: &'a [u32],
}

impl Published<'_> {
    /// Lays the matrix out in the codec `spqr:bits=3,published`.
    ///
    /// # Errors
    /// Columns that are no multiple of 32, tensors that do not have the shapes above, rows that start outside `col_vals`, columns that
    /// do not exist, an `in_perm` that is no permutation.
    pub fn pack(&self) -> Result<Packed, CodecError> {
        let codec = Spqr { bits: 3, group: TILE, outliers: super::default_outliers(3), published: true };
        let Self { rows, cols, .. } = *self;
        check_cols(&codec, cols)?;
        if cols > MOST_COLS {
            return Err(CodecError::TooWide { codec: codec.name(), cols, most: MOST_COLS });
        }
        let (tiles_down, tiles_across) = (rows.div_ceil(TILE), cols / TILE);
        let expected = tiles_down.checked_mul(tiles_across * TILE);
        if expected != Some(self.dense_weights.len()) {
            let what = format!("dense_weights has {} words for {rows} x {cols} weights", self.dense_weights.len());
            return Err(CodecError::Content { codec: codec.name(), plane: 0, what });
        }
        let outliers = self.outliers().map_err(|what| CodecError::Content { codec: codec.name(), plane: 2, what })?;

        let layouts = codec.layouts(cols);
        let mut planes = [0, 1].map(|plane| Plane::zeroed(layouts[plane], rows));
        let [row_words, tile_words] = [0, 1].map(|plane| layouts[plane].row_words as usize);
        let code_words = codec.code_words(cols);
        let word =
            |row: usize, group: usize| self.dense_weights[(row / TILE * tiles_across + group) * TILE + row % TILE];
        for_each_chunk(&mut planes[0].data, row_words, |row, words| {
            let (code_words, statistics) = words.split_at_mut(code_words);
            let mut codes = vec![0; cols];
            for (group, codes) in codes.chunks_mut(TILE).enumerate() {
                let word = word(row, group);
                put_six_bits(statistics, group, (word & 63) as u32);
                codes.iter_mut().enumerate().for_each(|(j, q)| *q = (word >> (2 * STATISTIC_BITS + 3 * j) & 7) as u8);
            }
            pack(3, &codes, code_words);
        });
        for_each_chunk(&mut planes[1].data, tile_words, |tile, words| {
            for (group, words) in words.chunks_mut(2).enumerate() {
                let byte = |k: usize| (word(tile * TILE + k, group) >> 54 & 255) << (8 * (k / 2));
                let record = (0..TILE).fold(0u64, |record, k| record | byte(k));
                words.copy_from_slice(&[record as u32, (record >> 32) as u32]);
            }
        });
        let own_order: Vec<u32>;
        let permutation = if self.in_perm.is_empty() {
            own_order = (0..cols as u32).step_by(2).map(|column| column | (column + 1) << 16).collect();
            &own_order
        } else {
            self.in_perm
        };
        if permutation.len() != cols / 2 {
            let what = format!("in_perm has {} words for {cols} columns", permutation.len());
            return Err(CodecError::Content { codec: codec.name(), plane: 2, what });
        }
        let sparse = codec.sparse_plane(permutation, outliers.iter().map(Vec::as_slice));
        let [rows_plane, tiles_plane] = planes;
        Packed::new(Arc::new(codec), rows, cols, vec![rows_plane, tiles_plane, sparse])
    }

    /// The outliers of each row by columns, without those that are 0.
    fn outliers(&self) -> Result<Vec<Vec<u32>>, String> {
        let Self { rows, row_offsets, col_vals, .. } = *self;
        let blocks = rows.div_ceil(TILE);
        let by_rows = row_offsets.len() == rows + 1;
        if !by_rows && row_offsets.len() != blocks + 1 {
            return Err(format!("row_offsets has {} entries for {rows} rows", row_offsets.len()));
        }
        let mut outliers = vec![Vec::new(); rows];
        for (block, pair) in row_offsets.windows(2).enumerate() {
            let entries = col_vals.get(pair[0] as usize..pair[1] as usize);
            let entries = entries.ok_or_else(|| format!("row_offsets go from {} to {}", pair[0], pair[1]))?;
            for (i, &entry) in entries.iter().enumerate().filter(|(_, entry)| (*entry >> 16) & 0x7fff != 0) {
                let row = if by_rows { block } else { block * TILE + i % TILE };
                let outliers = outliers.get_mut(row).ok_or_else(|| format!("an outlier in row {row}"))?;
                outliers.push(entry);
            }
        }
        outliers.iter_mut().for_each(|row: &mut Vec<u32>| row.sort_by_key(|entry| entry & 0xffff));
        Ok(outliers)
    }
}
