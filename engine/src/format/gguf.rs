//! GGUF versions 2 and 3, little-endian (facts: ggml's `docs/gguf.md` and `src/gguf.cpp`).
//!
//! ```text
//! "GGUF" | u32 version | u64 tensors | u64 pairs | pairs … | tensor infos … | padding | tensor data
//! ```
//!
//! Flows in: bytes nobody vouches for. Flows out: metadata and tensors whose ranges lie inside the file and do not
//! overlap; that their names differ is checked by `index_tensors`, for all files of a checkpoint at once. Counts are held
//! against the bytes that are left before anything is allocated.

use super::error::{FETCH_AGAIN, FormatError, Item};
use super::gguf_value::{GgufArray, GgufMetadata, GgufValue};
use super::{Dtype, TensorInfo};

pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// Where tensor data is aligned unless the metadata says otherwise.
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
/// Longest metadata key the format allows. Tensor names are held to the same limit here: ggml itself stops at 63 bytes,
/// but longer ones are in use elsewhere and do no harm.
const LONGEST_NAME: u64 = 65_535;
/// ggml's limit.
pub(super) const MOST_DIMS: u32 = 4;

/// Smallest possible pair: empty key, type, one byte.
const SMALLEST_PAIR: u64 = 8 + 4 + 1;
/// Smallest possible tensor info: empty name, no dimensions, type, offset.
const SMALLEST_TENSOR_INFO: u64 = 8 + 4 + 4 + 8;

/// A parsed file.
pub(super) struct GgufFile {
    pub metadata: GgufMetadata,
    /// In file order.
    pub tensors: Vec<TensorInfo>,
}

/// Parses a file; `number` is its place among the checkpoint's files.
///
/// `bytes` is the file's beginning: if it ends before the header does, the error is [`FormatError::Truncated`] at a place that the file,
/// which has `size` bytes, does have.
pub(super) fn parse(name: &str, number: u32, bytes: &[u8], size: u64) -> Result<GgufFile, FormatError> {
    let mut reader = Reader { file: name, bytes, size, at: 0, item: Item::Header };
    let (tensor_count, pair_count) = header(&mut reader)?;
    let (metadata, alignment) = pairs(&mut reader, pair_count)?;
    let tensors = tensor_infos(&mut reader, tensor_count, number, alignment)?;
    Ok(GgufFile { metadata, tensors })
}

/// Reads up to the first pair: (tensor count, pair count).
fn header(reader: &mut Reader<'_>) -> Result<(u64, u64), FormatError> {
    let magic: [u8; 4] = reader.array()?;
    if magic != MAGIC {
        return Err(reader.invalid_at(
            0,
            format!("the file begins with {magic:02x?} instead of \"GGUF\""),
            FETCH_AGAIN,
        ));
    }
    let version = reader.u32()?;
    if version != 0 && version & 0xffff == 0 {
        return Err(reader.invalid_at(
            4,
            "the file is big-endian".to_owned(),
            "convert it to little-endian, e.g. with gguf-py's gguf_convert_endian",
        ));
    }
    if !(2..=3).contains(&version) {
        return Err(reader.invalid_at(
            4,
            format!("GGUF version {version} is not known; versions 2 and 3 are"),
            "convert the model anew with a current converter",
        ));
    }
    let tensor_count = reader.count("tensors", SMALLEST_TENSOR_INFO)?;
    let pair_count = reader.count("metadata pairs", SMALLEST_PAIR)?;
    Ok((tensor_count, pair_count))
}

/// Reads the metadata and finds the alignment of tensor data.
fn pairs(reader: &mut Reader<'_>, count: u64) -> Result<(GgufMetadata, u64), FormatError> {
    let (mut metadata, mut alignment) = (GgufMetadata::new(), DEFAULT_ALIGNMENT);
    for number in 0..count {
        reader.item = Item::Entry("metadata pair", number);
        let start = reader.at;
        let key = reader.name("key")?;
        reader.item = Item::Key(key.clone());
        if metadata.contains(&key) {
            return Err(reader.invalid_at(start, "the key appears a second time".to_owned(), FETCH_AGAIN));
        }
        let value = value(reader)?;
        if key == ALIGNMENT_KEY {
            alignment = match value {
                GgufValue::U32(alignment) if alignment.is_power_of_two() => alignment.into(),
                GgufValue::U32(wrong) => {
                    return Err(reader.invalid_at(start, format!("{wrong} is not a power of two"), FETCH_AGAIN));
                }
                wrong => {
                    let reason = format!("it must be a u32 but is of type {}", wrong.type_name());
                    return Err(reader.invalid_at(start, reason, FETCH_AGAIN));
                }
            };
        }
        metadata.set(key, value);
    }
    Ok((metadata, alignment))
}

fn value(reader: &mut Reader<'_>) -> Result<GgufValue, FormatError> {
    let start = reader.at;
    let kind = reader.u32()?;
    Ok(match kind {
        0 => GgufValue::U8(u8::from_le_bytes(reader.array()?)),
        1 => GgufValue::I8(i8::from_le_bytes(reader.array()?)),
        2 => GgufValue::U16(u16::from_le_bytes(reader.array()?)),
        3 => GgufValue::I16(i16::from_le_bytes(reader.array()?)),
        4 => GgufValue::U32(reader.u32()?),
        5 => GgufValue::I32(i32::from_le_bytes(reader.array()?)),
        6 => GgufValue::F32(f32::from_le_bytes(reader.array()?)),
        7 => GgufValue::Bool(reader.bool()?),
        8 => GgufValue::Str(reader.string()?),
        9 => GgufValue::Array(array(reader)?),
        10 => GgufValue::U64(reader.u64()?),
        11 => GgufValue::I64(i64::from_le_bytes(reader.array()?)),
        12 => GgufValue::F64(f64::from_le_bytes(reader.array()?)),
        _ => return Err(reader.invalid_at(start, format!("value type {kind} does not exist"), FETCH_AGAIN)),
    })
}

fn array(reader: &mut Reader<'_>) -> Result<GgufArray, FormatError> {
    let start = reader.at;
    let kind = reader.u32()?;
    Ok(match kind {
        0 => GgufArray::U8(reader.numbers(u8::from_le_bytes)?),
        1 => GgufArray::I8(reader.numbers(i8::from_le_bytes)?),
        2 => GgufArray::U16(reader.numbers(u16::from_le_bytes)?),
        3 => GgufArray::I16(reader.numbers(i16::from_le_bytes)?),
        4 => GgufArray::U32(reader.numbers(u32::from_le_bytes)?),
        5 => GgufArray::I32(reader.numbers(i32::from_le_bytes)?),
        6 => GgufArray::F32(reader.numbers(f32::from_le_bytes)?),
        7 => {
            let count = reader.count("booleans", 1)?;
            GgufArray::Bool((0..count).map(|_| reader.bool()).collect::<Result<_, _>>()?)
        }
        8 => {
            let count = reader.count("strings", 8)?;
            GgufArray::Str((0..count).map(|_| reader.string()).collect::<Result<_, _>>()?)
        }
        9 => return Err(reader.invalid_at(start, "arrays of arrays are not allowed".to_owned(), FETCH_AGAIN)),
        10 => GgufArray::U64(reader.numbers(u64::from_le_bytes)?),
        11 => GgufArray::I64(reader.numbers(i64::from_le_bytes)?),
        12 => GgufArray::F64(reader.numbers(f64::from_le_bytes)?),
        _ => return Err(reader.invalid_at(start, format!("array element type {kind} does not exist"), FETCH_AGAIN)),
    })
}

/// Reads the tensor infos and places the tensors in the data section that follows them.
fn tensor_infos(
    reader: &mut Reader<'_>,
    count: u64,
    file: u32,
    alignment: u64,
) -> Result<Vec<TensorInfo>, FormatError> {
    let mut infos = Vec::new();
    for number in 0..count {
        reader.item = Item::Entry("tensor info", number);
        let start = reader.at;
        let (info, relative) = tensor_info(reader)?;
        if !relative.is_multiple_of(alignment) {
            let reason = format!("its data offset {relative} is not a multiple of the alignment {alignment}");
            return Err(reader.invalid_at(start, reason, FETCH_AGAIN));
        }
        infos.push((info, relative));
    }
    let data_start = (reader.at as u64).next_multiple_of(alignment); // both below 2^63: cannot overflow
    let tensors = infos
        .into_iter()
        .map(|(info, relative)| place(reader, info, relative, data_start, file))
        .collect::<Result<Vec<_>, _>>()?;
    no_overlap(reader.file, &tensors)?;
    Ok(tensors)
}

/// One tensor info: the tensor, not yet placed, and its offset in the data section.
fn tensor_info(reader: &mut Reader<'_>) -> Result<(TensorInfo, u64), FormatError> {
    let name = reader.name("tensor name")?;
    reader.item = Item::Tensor(name.clone());
    let start = reader.at;
    let dims = reader.u32()?;
    if dims > MOST_DIMS {
        let reason = format!("it has {dims} dimensions where at most {MOST_DIMS} are allowed");
        return Err(reader.invalid_at(start, reason, FETCH_AGAIN));
    }
    let mut shape = (0..dims).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
    shape.reverse(); // the file counts from the contiguous dimension outwards
    let type_at = reader.at;
    let type_id = reader.u32()?;
    let dtype = Dtype::from_ggml_id(type_id).ok_or_else(|| unsupported(reader, type_at, type_id))?;
    let relative = reader.u64()?;
    let info = TensorInfo::new(name, shape, dtype)
        .map_err(|error| reader.invalid_at(start, error.to_string(), FETCH_AGAIN))?;
    Ok((info, relative))
}

/// The error for a type id that [`Dtype`] does not have.
fn unsupported(reader: &Reader<'_>, at: usize, type_id: u32) -> FormatError {
    const LATTICE: &str = "needs lattice tables that the engine does not have";
    const OTHER_QUANT: &str = "use a Q2_K, Q3_K, IQ4_XS or larger quantization of the same model";
    const REMOVED: &str = "ggml has removed";
    const ACTIVATION: &str = "is ggml's format for activations, not for weights";
    const CONVERT: &str = "convert the model anew with a current converter";
    let known = match type_id {
        4 => Some(("Q4_2", REMOVED, CONVERT)),
        5 => Some(("Q4_3", REMOVED, CONVERT)),
        9 => Some(("Q8_1", ACTIVATION, CONVERT)),
        15 => Some(("Q8_K", ACTIVATION, CONVERT)),
        16 => Some(("IQ2_XXS", LATTICE, OTHER_QUANT)),
        17 => Some(("IQ2_XS", LATTICE, OTHER_QUANT)),
        18 => Some(("IQ3_XXS", LATTICE, OTHER_QUANT)),
        19 => Some(("IQ1_S", LATTICE, OTHER_QUANT)),
        21 => Some(("IQ3_S", LATTICE, OTHER_QUANT)),
        22 => Some(("IQ2_S", LATTICE, OTHER_QUANT)),
        29 => Some(("IQ1_M", LATTICE, OTHER_QUANT)),
        31 => Some(("Q4_0_4_4", REMOVED, "use the Q4_0 file of the same model")),
        32 => Some(("Q4_0_4_8", REMOVED, "use the Q4_0 file of the same model")),
        33 => Some(("Q4_0_8_8", REMOVED, "use the Q4_0 file of the same model")),
        36 => Some(("IQ4_NL_4_4", REMOVED, "use the IQ4_NL file of the same model")),
        37 => Some(("IQ4_NL_4_8", REMOVED, "use the IQ4_NL file of the same model")),
        38 => Some(("IQ4_NL_8_8", REMOVED, "use the IQ4_NL file of the same model")),
        _ => None,
    };
    let (type_name, reason, remedy) = match known {
        Some((name, reason, remedy)) => (format!("{name} (type {type_id})"), reason, remedy),
        None => (
            format!("type {type_id}"),
            "is no type known here",
            "if the file is intact, it was written by newer software: use another quantization of the model",
        ),
    };
    FormatError::UnsupportedType {
        file: reader.file.to_owned(),
        item: reader.item.clone(),
        offset: at as u64,
        type_name,
        reason,
        remedy,
    }
}

/// Gives a tensor its place; its bytes must lie inside the file.
fn place(
    reader: &Reader<'_>,
    info: TensorInfo,
    relative: u64,
    data_start: u64,
    file: u32,
) -> Result<TensorInfo, FormatError> {
    let file_len = reader.size;
    let offset = data_start.saturating_add(relative);
    let available = file_len.saturating_sub(offset);
    if info.byte_len() > available {
        return Err(FormatError::Truncated {
            file: reader.file.to_owned(),
            item: Item::Tensor(info.name.clone()),
            offset,
            needed: info.byte_len(),
            available,
        });
    }
    // A tensor without bytes may lie anywhere the file says, even past its end: keep its (empty) range valid.
    Ok(info.at(file, offset.min(file_len)))
}

fn no_overlap(file: &str, tensors: &[TensorInfo]) -> Result<(), FormatError> {
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().filter(|tensor| tensor.byte_len() > 0).collect();
    by_offset.sort_by_key(|tensor| tensor.offset());
    for pair in by_offset.windows(2) {
        let end = pair[0].offset() + pair[0].byte_len(); // inside the file: cannot overflow
        if pair[1].offset() < end {
            return Err(FormatError::Invalid {
                file: file.to_owned(),
                item: Item::Tensor(pair[1].name.clone()),
                offset: pair[1].offset(),
                reason: format!("its data overlaps that of tensor {}", super::error::quoted(&pair[0].name)),
                remedy: FETCH_AGAIN,
            });
        }
    }
    Ok(())
}

/// Reads little-endian values from the front of a file. Invariant: `at <= bytes.len()`.
struct Reader<'a> {
    file: &'a str,
    bytes: &'a [u8],
    /// Bytes of the whole file.
    size: u64,
    at: usize,
    /// What is being read, for messages.
    item: Item,
}

impl<'a> Reader<'a> {
    fn invalid_at(&self, offset: usize, reason: String, remedy: &'static str) -> FormatError {
        FormatError::Invalid {
            file: self.file.to_owned(),
            item: self.item.clone(),
            offset: offset as u64,
            reason,
            remedy,
        }
    }

    fn remaining(&self) -> u64 {
        self.size.saturating_sub(self.at as u64)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], FormatError> {
        let rest = &self.bytes[self.at..];
        let taken =
            usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or_else(|| FormatError::Truncated {
                file: self.file.to_owned(),
                item: self.item.clone(),
                offset: self.at as u64,
                needed: len,
                available: self.remaining(),
            })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    fn bool(&mut self) -> Result<bool, FormatError> {
        let start = self.at;
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [byte] => Err(self.invalid_at(start, format!("a boolean has the value {byte}"), FETCH_AGAIN)),
        }
    }

    /// A count of things that take at least `smallest` bytes each; more than the file can hold are refused.
    fn count(&mut self, what: &str, smallest: u64) -> Result<u64, FormatError> {
        let start = self.at;
        let count = self.u64()?;
        let most = self.remaining() / smallest;
        if count > most {
            let reason = format!("it announces {count} {what}, but the rest of the file holds at most {most}");
            return Err(self.invalid_at(start, reason, "the file is cut off or damaged: fetch it again"));
        }
        Ok(count)
    }

    /// A counted run of packed numbers.
    fn numbers<const N: usize, T>(&mut self, decode: fn([u8; N]) -> T) -> Result<Vec<T>, FormatError> {
        let count = self.count("numbers", N as u64)?;
        let packed = self.take(count * N as u64)?; // count() has bounded the product by the file's size
        Ok(packed.as_chunks().0.iter().map(|&bytes| decode(bytes)).collect())
    }

    fn string(&mut self) -> Result<String, FormatError> {
        let len = self.u64()?;
        let start = self.at;
        let bytes = self.take(len)?;
        match str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                Err(self.invalid_at(start + error.valid_up_to(), "a string is not UTF-8".to_owned(), FETCH_AGAIN))
            }
        }
    }

    /// A key or tensor name.
    fn name(&mut self, what: &str) -> Result<String, FormatError> {
        let start = self.at;
        let name = self.string()?;
        if name.is_empty() || name.len() as u64 > LONGEST_NAME {
            let reason = format!("the {what} has {} bytes; 1 to {LONGEST_NAME} are allowed", name.len());
            return Err(self.invalid_at(start, reason, FETCH_AGAIN));
        }
        Ok(name)
    }
}
