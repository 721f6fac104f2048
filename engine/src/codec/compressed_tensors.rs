//! Sparse tensors as compressed-tensors writes them (llm-compressor, vLLM): `sparse-bitmask` and `sparse-24-bitmask`.
//!
//! In: a checkpoint. Out: its sparse matrices under their own names, bit for bit, as [`Packed`] of a sparse codec.
//!
//! A matrix `m.weight` of `[rows, cols]` is (the prefix is `m.weight` or `m`):
//!
//! | tensor | type | is |
//! | --- | --- | --- |
//! | `.bitmask` | U8 `[rows, ceil(cols/8)]` | column c in bit c % 8 of byte c/8 |
//! | `.compressed` | BF16, F16 or F32; `[n]`, or of 2:4 `[rows, cols/2]` | the weights whose bit is set, row by row |
//! | `.shape` or `.weight_shape` | I64 `[2]` | rows, cols |
//! | `.row_offsets` | I64 `[rows]` | weights before each row; not with 2:4 |
//!
//! 2:4 becomes `sparse:2:4`; other masks `sparse:nnz=K`, K the longest row's count, or dense weights where that would not be smaller.

use std::borrow::Cow;

use super::dense::Dense;
use super::{CodecError, CodecRef, Packed, RUN, parse};
use crate::format::{Checkpoint, Dtype, TensorInfo, quoted};

/// Where a sparse matrix lies in a checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Masked {
    pub(super) name: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// What it becomes.
    pub(super) codec: CodecRef,
    /// Names of all its parts; the first two are values and bitmask.
    pub(super) parts: Vec<String>,
    values: Dense,
}

/// What is wrong, for the caller to put the file's name to.
type Wrong = String;

/// The sparse matrices of a checkpoint, with what is wrong with the first that cannot be read.
pub(super) fn find(checkpoint: &Checkpoint) -> Result<Vec<Masked>, (String, Wrong)> {
    let masks = checkpoint.tensors().iter().filter_map(|info| info.name.strip_suffix(".bitmask"));
    let values = |prefix: &&str| checkpoint.info(&format!("{prefix}.compressed")).is_some();
    masks
        .filter(values)
        .map(|prefix| describe(checkpoint, prefix).map_err(|wrong| (prefix.to_owned(), wrong)))
        .collect()
}

fn describe(checkpoint: &Checkpoint, prefix: &str) -> Result<Masked, Wrong> {
    let part = |suffix: &str| checkpoint.info(&format!("{prefix}.{suffix}"));
    let read = |suffix: &str| checkpoint.read(&format!("{prefix}.{suffix}")).map_err(|error| error.to_string());
    let shape = if part("shape").is_some() { read("shape")? } else { read("weight_shape")? };
    let (shape_info, shape) = shape.ok_or("there is no .shape beside its .bitmask")?;
    let (bitmask, values) = match (part("bitmask"), part("compressed")) {
        (Some(bitmask), Some(values)) => (bitmask, values),
        _ => return Err("it has no .bitmask or no .compressed".into()),
    };
    let [rows, cols] = match (shape_info.dtype, &integers(&shape)[..]) {
        (Dtype::I64, &[rows, cols]) => [rows, cols],
        _ => return Err(format!("its shape is no pair of I64 but {} of {}", shape.len(), shape_info.dtype)),
    };
    let expected = [rows, cols.div_ceil(8)];
    if bitmask.dtype != Dtype::U8 || bitmask.shape != expected || cols == 0 {
        let (dtype, found) = (bitmask.dtype, &bitmask.shape);
        return Err(format!("its bitmask is {dtype} {found:?} where {rows} x {cols} weights take U8 {expected:?}"));
    }
    let format = match values.dtype {
        Dtype::BF16 => Dense::Bf16,
        Dtype::F16 => Dense::F16,
        Dtype::F32 => Dense::F32,
        other => return Err(format!("its kept weights are {other}; sparse weights are read in BF16, F16 and F32")),
    };
    // Memory is bounded by what is in the file: a bit a weight.
    let too_many = || format!("{rows} x {cols} weights are too many for this machine");
    let size = |n: u64| usize::try_from(n).map_err(|_| too_many());
    let (row_count, col_count) = (size(rows)?, size(cols)?);
    row_count.checked_mul(col_count).and_then(|n| n.checked_mul(4)).ok_or_else(too_many)?;
    let two_of_four = values.shape.len() == 2;
    if two_of_four && values.shape != [rows, cols / 2] {
        return Err(format!("its kept weights are {:?} where 2:4 of {rows} x {cols} takes half", values.shape));
    }
    let longest =
        if two_of_four { col_count / 2 } else { longest(read("row_offsets")?, values, row_count, col_count)? };
    let suffixes = ["compressed", "bitmask", "shape", "weight_shape", "row_offsets"];
    let names = suffixes.map(|suffix| format!("{prefix}.{suffix}"));
    Ok(Masked {
        name: if prefix.ends_with(".weight") { prefix.to_owned() } else { format!("{prefix}.weight") },
        rows: row_count,
        cols: col_count,
        codec: codec(format, two_of_four, longest, col_count).map_err(|error| error.to_string())?,
        parts: names.into_iter().filter(|name| checkpoint.info(name).is_some()).collect(),
        values: format,
    })
}

/// The most weights of a row, by where the rows start, or else by the bitmask.
fn longest(
    offsets: Option<(&TensorInfo, Cow<'_, [u8]>)>,
    values: &TensorInfo,
    rows: usize,
    cols: usize,
) -> Result<usize, Wrong> {
    let Some((info, bytes)) = offsets else { return Ok(cols) };
    let starts = integers(&bytes);
    if info.dtype != Dtype::I64 || starts.len() != rows {
        return Err(format!("its row offsets are {} of {}, not {rows} of I64", starts.len(), info.dtype));
    }
    let ends = starts.iter().skip(1).copied().chain([values.elements()]);
    let lengths = starts.iter().zip(ends).map(|(start, end)| end.checked_sub(*start));
    let longest = lengths.collect::<Option<Vec<u64>>>().ok_or("its row offsets do not rise")?.into_iter().max();
    match usize::try_from(longest.unwrap_or(0)) {
        Ok(longest) if longest <= cols => Ok(longest),
        _ => Err(format!("its row offsets say that a row of {cols} keeps more")),
    }
}

/// The codec that holds such a matrix.
fn codec(values: Dense, two_of_four: bool, longest: usize, cols: usize) -> Result<CodecRef, CodecError> {
    let dense = parse(values.dense_name())?;
    let pattern = if two_of_four { "2:4".to_owned() } else { format!("nnz={}", longest.max(1)) };
    let spelling = match values {
        Dense::Bf16 => format!("sparse:{pattern}"),
        other => format!("sparse:{pattern}+{}", other.dense_name()),
    };
    let sparse = parse(&spelling)?;
    let smaller = sparse.planned_bytes(1, cols) < dense.planned_bytes(1, cols);
    Ok(if smaller && cols.is_multiple_of(sparse.block_len()) && cols <= 1 << 16 { sparse } else { dense })
}

/// Reads a matrix.
pub(super) fn load(checkpoint: &Checkpoint, masked: &Masked) -> Result<Packed, CodecError> {
    let Masked { name, rows, cols, codec, parts, values } = masked;
    let (rows, cols) = (*rows, *cols);
    let wrong = |message: &str| CodecError::Stored {
        file: checkpoint.name().to_owned(),
        message: format!("tensor {}: {message}", quoted(name)),
    };
    let bytes = |part: usize| {
        let found = parts.get(part).map(|part| checkpoint.read(part)).transpose();
        let found = found.map_err(|error| wrong(&error.to_string()))?.flatten();
        found.map(|(_, bytes)| bytes).ok_or_else(|| wrong("a part of it is not in the file"))
    };
    let (kept, bitmask) = (bytes(0)?, bytes(1)?);
    let (runs, row_bytes) = (cols.div_ceil(RUN), cols.div_ceil(8));
    let mut mask = vec![0u32; rows * runs];
    let mut weights = vec![0.0f32; rows * cols];
    let count = kept.len() / values.bytes();
    let mut next = 0;
    for row in 0..rows {
        for col in 0..cols {
            if bitmask[row * row_bytes + col / 8] >> (col % 8) & 1 == 1 {
                if next == count {
                    return Err(wrong("its bitmask has more weights than are there"));
                }
                mask[row * runs + col / RUN] |= 1 << (col % RUN);
                weights[row * cols + col] = values.get(&kept, next);
                next += 1;
            }
        }
    }
    if next != count {
        return Err(wrong(&format!("its bitmask has {next} weights, and {count} are there")));
    }
    let dense = codec.module() == values.dense_name() && codec.sparsity(cols).is_none();
    let packed =
        if dense { codec.encode(&weights, rows, cols) } else { codec.encode_masked(&weights, &mask, rows, cols) };
    packed.map_err(|error| wrong(&error.to_string()))
}

/// Little-endian I64, none of which may be negative here: those that are become numbers too large for anything.
fn integers(bytes: &[u8]) -> Vec<u64> {
    let whole = bytes.chunks_exact(8);
    whole.map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Stored;
    use super::*;
    use crate::format::CheckpointWriter;
    use std::collections::BTreeMap;
    use std::io::Cursor;

    /// A file with these tensors.
    fn file(tensors: &[(&str, Dtype, &[u64], Vec<u8>)]) -> Checkpoint {
        let infos: Vec<TensorInfo> = tensors
            .iter()
            .map(|(name, dtype, shape, _)| TensorInfo::new(*name, shape.to_vec(), *dtype).unwrap())
            .collect();
        let mut writer = CheckpointWriter::safetensors(Cursor::new(Vec::new()), "m", &BTreeMap::new(), &infos).unwrap();
        for (name, _, _, bytes) in tensors {
            writer.write(name, bytes).unwrap();
        }
        let file = ("m.safetensors".to_owned(), writer.finish().unwrap().into_inner());
        Checkpoint::from_files(vec![file]).unwrap()
    }

    fn i64s(values: &[i64]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn halves(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect()
    }

    /// Two rows of 64, three and two weights of which are kept.
    fn tensors() -> Vec<(&'static str, Dtype, &'static [u64], Vec<u8>)> {
        let mut bitmask = vec![0u8; 16];
        (bitmask[0], bitmask[7], bitmask[9]) = (0b101, 0x80, 0b11);
        vec![
            ("a.compressed", Dtype::F16, &[5], halves(&[1.0, -2.0, 3.0, 4.5, 0.0])),
            ("a.bitmask", Dtype::U8, &[2, 8], bitmask),
            ("a.shape", Dtype::I64, &[2], i64s(&[2, 64])),
            ("a.row_offsets", Dtype::I64, &[2], i64s(&[0, 3])),
        ]
    }

    #[test]
    fn masked_matrices_are_listed_under_their_names() {
        let stored = Stored::of(&file(&tensors())).unwrap();
        let [tensor] = stored.tensors() else { panic!("{:?}", stored.tensors()) };
        assert_eq!((tensor.name.as_str(), &tensor.shape[..]), ("a.weight", &[2, 64][..]));
        assert_eq!((tensor.encoding.as_str(), tensor.bytes), ("sparse:nnz=3,values=f16", 10 + 16 + 16 + 16));
        let mut expected = vec![0.0; 128];
        (expected[0], expected[2], expected[63], expected[72]) = (1.0, -2.0, 3.0, 4.5);
        assert_eq!(stored.load("a.weight").unwrap().unwrap().decode(), expected);
        assert!(stored.load("a.bitmask").unwrap().is_none());
    }

    #[test]
    fn parts_that_lie_are_errors() {
        type Change = fn(&mut Vec<(&'static str, Dtype, &'static [u64], Vec<u8>)>);
        let cases: [(Change, &str); 9] = [
            (|t| t[2].3 = i64s(&[2, 63 * 8]), "take U8"),
            (|t| t[2].3 = i64s(&[-2, 64]), "take U8"),
            (|t| t[2].3 = i64s(&[i64::MAX, i64::MAX]), "take U8"),
            (|t| t[3].3 = i64s(&[0, 70]), "do not rise"),
            (|t| t[3].3 = i64s(&[3, 0]), "do not rise"),
            (|t| t[1].3[3] = 0xff, "more weights than are there"),
            (|t| t[1].3[7] = 0, "4 weights, and 5 are there"),
            (|t| t[0] = ("a.compressed", Dtype::I8, &[5], vec![0; 5]), "BF16, F16 and F32"),
            (
                |t| {
                    t.remove(2);
                },
                "no .shape",
            ),
        ];
        for (change, says) in cases {
            let mut tensors = tensors();
            change(&mut tensors);
            let error = match Stored::of(&file(&tensors)) {
                Err(error) => error,
                Ok(stored) => stored.load("a.weight").expect_err(says),
            };
            let error = error.to_string();
            assert!(error.starts_with("m.safetensors: tensor \"a") && error.contains(says), "{says}: {error}");
        }
    }
}
