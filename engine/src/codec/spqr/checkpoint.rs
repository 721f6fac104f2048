//! Finds the matrices of the authors' Hugging Face format in a checkpoint and reads them.
//!
//! A matrix `m.weight` is `m.dense_weights` (I64), `m.row_offsets` (I32), `m.col_vals` (I32) and perhaps `m.in_perm` (I32). Its shape is
//! nowhere: the columns are those of `in_perm`, or what the tiles leave when the rows are known; the rows follow from `row_offsets`.

use std::borrow::Cow;

use super::super::{CodecError, CodecRef, Packed, parse};
use super::{Published, TILE};
use crate::format::{Checkpoint, Dtype, quoted};

const PARTS: [&str; 4] = ["dense_weights", "row_offsets", "col_vals", "in_perm"];

/// Where a matrix lies in a checkpoint.
#[derive(Debug, Clone)]
pub(in crate::codec) struct Found {
    /// The matrix's name, `m.weight`.
    pub(in crate::codec) name: String,
    pub(in crate::codec) rows: usize,
    pub(in crate::codec) cols: usize,
    /// What it becomes.
    pub(in crate::codec) codec: CodecRef,
    /// Names of its parts.
    pub(in crate::codec) parts: Vec<String>,
    stem: String,
}

/// The matrices of a checkpoint, or the name of one that cannot be read and what is wrong with it.
pub(in crate::codec) fn find(checkpoint: &Checkpoint) -> Result<Vec<Found>, (String, String)> {
    let stems = checkpoint.tensors().iter().filter_map(|info| info.name.strip_suffix(".dense_weights"));
    stems
        .filter(|stem| checkpoint.info(&format!("{stem}.row_offsets")).is_some())
        .map(|stem| describe(checkpoint, stem).map_err(|what| (format!("{stem}.weight"), what)))
        .collect()
}

/// A part's bytes; an empty one if it is not in the file.
fn part<'a>(checkpoint: &'a Checkpoint, stem: &str, number: usize) -> Result<Cow<'a, [u8]>, String> {
    let dtype = if number == 0 { Dtype::I64 } else { Dtype::I32 };
    match checkpoint.read(&format!("{stem}.{}", PARTS[number])).map_err(|error| error.to_string())? {
        Some((info, bytes)) if info.dtype == dtype => Ok(bytes),
        Some((info, _)) => Err(format!("its {} are {}, not {dtype}", PARTS[number], info.dtype)),
        None => Ok(Cow::Borrowed(&[])),
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn describe(checkpoint: &Checkpoint, stem: &str) -> Result<Found, String> {
    let tiles = part(checkpoint, stem, 0)?.len() / 8 / TILE;
    let offsets = words(&part(checkpoint, stem, 1)?);
    let permutation = part(checkpoint, stem, 3)?.len() / 4;
    part(checkpoint, stem, 2)?;
    let [rows, cols] = shape(tiles, &offsets, 2 * permutation)
        .ok_or_else(|| format!("{tiles} tiles and {} row offsets are no matrix", offsets.len()))?;
    Ok(Found {
        name: format!("{stem}.weight"),
        rows,
        cols,
        codec: parse("spqr:bits=3,published").map_err(|error| error.to_string())?,
        parts: PARTS.map(|part| format!("{stem}.{part}")).into(),
        stem: stem.to_owned(),
    })
}

/// Rows and columns. `permuted`: columns of the permutation, 0 without one.
fn shape(tiles: usize, offsets: &[u32], permuted: usize) -> Option<[usize; 2]> {
    let listed = offsets.len().checked_sub(1)?;
    let across = |down: usize| tiles.checked_div(down).filter(|across| across.checked_mul(down) == Some(tiles));
    let fits = |rows: usize| {
        let cols = TILE * across(rows.div_ceil(TILE))?;
        (permuted == 0 || permuted == cols).then_some([rows, cols])
    };
    // A list of 16 rows each has multiples of 16 only, as the list of rows without any outlier has too.
    let by_rows = fits(listed);
    let by_tiles = fits(listed.checked_mul(TILE)?);
    let even = offsets.iter().all(|at| at.is_multiple_of(TILE as u32)) && offsets.last().is_some_and(|&end| end > 0);
    if even { by_tiles.or(by_rows) } else { by_rows.or(by_tiles) }
}

/// Reads a matrix.
pub(in crate::codec) fn load(checkpoint: &Checkpoint, found: &Found) -> Result<Packed, CodecError> {
    let wrong = |what: String| CodecError::Stored {
        file: checkpoint.name().to_owned(),
        message: format!("tensor {}: {what}", quoted(&found.name)),
    };
    let read = |number| part(checkpoint, &found.stem, number).map_err(wrong);
    let dense_weights: Vec<u64> = read(0)?.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let [row_offsets, col_vals, in_perm] = [words(&read(1)?), words(&read(2)?), words(&read(3)?)];
    let matrix = Published {
        rows: found.rows,
        cols: found.cols,
        dense_weights: &dense_weights,
        row_offsets: &row_offsets,
        col_vals: &col_vals,
        in_perm: &in_perm,
    };
    matrix.pack().map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Cursor;

    use super::super::super::Stored;
    use super::*;
    use crate::format::{CheckpointWriter, TensorInfo};

    #[test]
    fn shapes_follow_from_the_parts() {
        let rows = |n: u32| (0..=n).map(|row| 3 * row).collect::<Vec<u32>>();
        let tiles = |n: u32| (0..=n).map(|tile| 16 * tile).collect::<Vec<u32>>();
        assert_eq!(shape(8, &rows(20), 64), Some([20, 64]));
        assert_eq!(shape(8, &rows(20), 0), Some([20, 64]));
        assert_eq!(shape(8, &tiles(2), 64), Some([32, 64]));
        assert_eq!(shape(8, &tiles(2), 0), Some([32, 64]));
        assert_eq!(shape(8, &[0; 33], 0), Some([32, 64]));
        assert_eq!(shape(8, &rows(20), 32), None);
        assert_eq!(shape(7, &rows(20), 0), None);
        assert_eq!(shape(8, &[], 0), None);
        assert_eq!(shape(8, &[0], 0), None);
    }

    /// A file with a matrix of two tiles beside one another; `change` has its way with the parts.
    fn stored(change: impl Fn(&mut Vec<(&'static str, Dtype, Vec<u8>)>)) -> Result<Packed, CodecError> {
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let mut parts = vec![
            ("m.dense_weights", Dtype::I64, vec![0x11; 8 * 32]),
            ("m.row_offsets", Dtype::I32, bytes(&[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])),
            ("m.col_vals", Dtype::I32, bytes(&[0x3c00_0007])),
            ("m.in_perm", Dtype::I32, bytes(&(0..16).map(|i| (31 - 2 * i) | (30 - 2 * i) << 16).collect::<Vec<u32>>())),
            ("norm.weight", Dtype::F32, vec![0; 8]),
        ];
        change(&mut parts);
        let width = |dtype: &Dtype| if *dtype == Dtype::I64 { 8 } else { 4 };
        let infos: Vec<TensorInfo> = parts
            .iter()
            .map(|(name, dtype, bytes)| {
                TensorInfo::new(*name, vec![(bytes.len() / width(dtype)) as u64], *dtype).unwrap()
            })
            .collect();
        let out = Cursor::new(Vec::new());
        let mut writer = CheckpointWriter::safetensors(out, "m", &BTreeMap::new(), &infos).unwrap();
        parts.iter().for_each(|(name, _, bytes)| writer.write(name, bytes).unwrap());
        let file = ("m.safetensors".to_owned(), writer.finish().unwrap().into_inner());
        let stored = Stored::of(&Checkpoint::from_files(vec![file]).unwrap())?;
        let names: Vec<&str> = stored.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["m.weight", "norm.weight"]);
        assert_eq!(stored.tensor("m.weight").unwrap().encoding, "spqr:bits=3,published");
        Ok(stored.load("m.weight")?.unwrap())
    }

    #[test]
    fn matrices_are_found_under_their_own_names() {
        let packed = stored(|_| {}).unwrap();
        let plain = stored(|parts| drop(parts.remove(3))).unwrap();
        assert_eq!((packed.rows, packed.cols), (16, 32));
        let backwards: Vec<f32> = plain.decode().chunks(32).flat_map(|row| row.iter().rev().copied()).collect();
        assert_eq!(packed.decode(), backwards);
        let without = stored(|parts| parts[2].2 = vec![0; 4]).unwrap().decode();
        let differ: Vec<usize> = (0..512).filter(|&i| without[i] != packed.decode()[i]).collect();
        assert_eq!(differ, [31 - 7]);
        assert_eq!(packed.decode()[24], without[24] + 1.0);
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        type Parts = Vec<(&'static str, Dtype, Vec<u8>)>;
        let message = |change: fn(&mut Parts)| stored(change).unwrap_err().to_string();
        let error = message(|parts| parts[2].1 = Dtype::F32);
        assert!(error.contains("tensor \"m.weight\": its col_vals are F32, not I32"), "{error}");
        let error = message(|parts| drop(parts[0].2.drain(..8 * 16)));
        assert!(error.contains("1 tiles and 17 row offsets are no matrix"), "{error}");
        let error = message(|parts| parts[2].2.clear());
        assert!(error.contains("row_offsets go from 0 to 1"), "{error}");
    }
}
