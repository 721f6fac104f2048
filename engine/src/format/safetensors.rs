//! The safetensors container: a JSON header, then the tensors' bytes.
//!
//! ```text
//! u64 header length | {"name": {"dtype", "shape", "data_offsets": [begin, end)}, …, "__metadata__": {…}} | data
//! ```
//!
//! The header is parsed as a stream into exactly the fields the format has, so that hostile JSON (deep nesting, endless
//! shapes) costs no more than its bytes. Tensors must tile the data section without holes or overlaps; that their names
//! differ is checked by `index_tensors`, for all files of a checkpoint at once.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{FETCH_AGAIN, FormatError, Item, quoted};
use super::{Dtype, TensorInfo};

pub(super) const METADATA_KEY: &str = "__metadata__";
/// Longest header that the format's reference reader accepts.
pub(super) const LONGEST_HEADER: u64 = 100_000_000;
/// More dimensions than any framework has.
pub(super) const MOST_DIMS: usize = 64;

/// A parsed file.
pub(super) struct SafetensorsFile {
    pub metadata: BTreeMap<String, String>,
    /// By data offset.
    pub tensors: Vec<TensorInfo>,
}

/// True if the bytes look like a safetensors file: a plausible header length and a JSON object.
pub(super) fn sniff(bytes: &[u8]) -> bool {
    bytes.len() >= 9 && bytes[8] == b'{'
}

/// Parses a file; `number` is its place among the checkpoint's files.
///
/// `bytes` is the file's beginning: if it ends before the header does, the error is [`FormatError::Truncated`] at a place that the file,
/// which has `size` bytes, does have.
pub(super) fn parse(name: &str, number: u32, bytes: &[u8], size: u64) -> Result<SafetensorsFile, FormatError> {
    let (json, data_start) = split(name, bytes, size)?;
    let header: Header = serde_json::from_slice(json).map_err(|error| FormatError::Invalid {
        file: name.to_owned(),
        item: Item::Header,
        offset: 8 + byte_of(json, error.line(), error.column()),
        reason: error.to_string(),
        remedy: FETCH_AGAIN,
    })?;
    let data_len = size.saturating_sub(data_start as u64);
    let mut entries = header.tensors;
    entries.sort_by_key(|(_, entry)| (entry.data_offsets.0, entry.data_offsets.1));
    let mut tensors = Vec::new();
    let mut end = 0;
    for (tensor, entry) in entries {
        let (info, offset) = place(name, tensor, entry, &mut end, data_start as u64, data_len)?;
        tensors.push(info.at(number, offset));
    }
    if end != data_len {
        return Err(FormatError::Invalid {
            file: name.to_owned(),
            item: Item::Header,
            offset: data_start as u64 + end,
            reason: format!("the tensors end here but {} more bytes follow", data_len - end),
            remedy: FETCH_AGAIN,
        });
    }
    Ok(SafetensorsFile { metadata: header.metadata, tensors })
}

/// Splits a file into its JSON and the offset of its data section.
fn split<'a>(name: &str, bytes: &'a [u8], size: u64) -> Result<(&'a [u8], usize), FormatError> {
    let truncated = |offset: u64, needed: u64| FormatError::Truncated {
        file: name.to_owned(),
        item: Item::Header,
        offset,
        needed,
        available: size.saturating_sub(offset),
    };
    let (length, rest) = bytes.split_first_chunk().ok_or_else(|| truncated(0, 8))?;
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER {
        return Err(FormatError::Invalid {
            file: name.to_owned(),
            item: Item::Header,
            offset: 0,
            reason: format!("it announces a header of {length} bytes; at most {LONGEST_HEADER} are allowed"),
            remedy: FETCH_AGAIN,
        });
    }
    let json = rest.get(..length as usize).ok_or_else(|| truncated(8, length))?;
    Ok((json, 8 + json.len()))
}

/// Checks one entry against the data section and finds its offset in the file. `end` is where the previous tensor
/// ended, and moves on.
fn place(
    file: &str,
    name: String,
    entry: Entry,
    end: &mut u64,
    data_start: u64,
    data_len: u64,
) -> Result<(TensorInfo, u64), FormatError> {
    let (first, last) = entry.data_offsets;
    let offset = data_start.saturating_add(first);
    let invalid = |item: &str, reason: String| FormatError::Invalid {
        file: file.to_owned(),
        item: Item::Tensor(item.to_owned()),
        offset,
        reason,
        remedy: FETCH_AGAIN,
    };
    let Some(dtype) = Dtype::from_safetensors_name(&entry.dtype) else {
        return Err(FormatError::UnsupportedType {
            file: file.to_owned(),
            item: Item::Tensor(name),
            offset,
            type_name: format!("dtype {}", quoted(&entry.dtype)),
            reason: "is not decoded here",
            remedy: "convert the tensor to F32, F16, BF16, F8 or an integer type",
        });
    };
    let Some(len) = last.checked_sub(first) else {
        return Err(invalid(&name, format!("its data ends at {last}, before it begins at {first}")));
    };
    if first != *end {
        let wrong = if first < *end { "overlap those before it" } else { "leave a hole before it" };
        return Err(invalid(&name, format!("its data begin at {first} and {wrong}, which end at {end}")));
    }
    if last > data_len {
        let available = data_len.saturating_sub(first);
        let item = Item::Tensor(name);
        return Err(FormatError::Truncated { file: file.to_owned(), item, offset, needed: len, available });
    }
    let info = TensorInfo::new(name.clone(), entry.shape, dtype).map_err(|error| invalid(&name, error.to_string()))?;
    if info.byte_len() != len {
        let reason = format!("{dtype} of shape {:?} takes {} bytes, not {len}", info.shape, info.byte_len());
        return Err(invalid(&name, reason));
    }
    *end = last;
    Ok((info, offset))
}

/// The byte that serde_json's position (both counted from 1, the column in bytes) points to.
pub(super) fn byte_of(json: &[u8], line: usize, column: usize) -> u64 {
    let before: usize = json.split_inclusive(|&byte| byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (before + column.saturating_sub(1)).min(json.len()) as u64
}

/// The header's JSON.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Entry)>,
}

#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    #[serde(deserialize_with = "shape")]
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut metadata, mut tensors) = (None, Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            if name != METADATA_KEY {
                // serde_json finds its " at line … column …" again at the end of a custom message
                let entry = map
                    .next_value()
                    .map_err(|error: A::Error| de::Error::custom(format_args!("tensor {}: {error}", quoted(&name))))?;
                tensors.push((name, entry));
            } else if metadata.replace(map.next_value_seed(UniqueStrings)?).is_some() {
                return Err(de::Error::custom("there is a second __metadata__"));
            }
        }
        Ok(Header { metadata: metadata.unwrap_or_default(), tensors })
    }
}

/// A JSON object of strings without repeated keys.
pub(super) struct UniqueStrings;

impl<'de> de::DeserializeSeed<'de> for UniqueStrings {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for UniqueStrings {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut out = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if out.contains_key(&key) {
                return Err(de::Error::custom(format_args!("{} appears a second time", quoted(&key))));
            }
            out.insert(key, value);
        }
        Ok(out)
    }
}

/// A shape, cut off at [`MOST_DIMS`] while it is being read.
fn shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    struct ShapeVisitor;

    impl<'de> Visitor<'de> for ShapeVisitor {
        type Value = Vec<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of dimensions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
            let mut dims = Vec::new();
            while let Some(dim) = seq.next_element()? {
                if dims.len() == MOST_DIMS {
                    return Err(de::Error::custom(format_args!("more than {MOST_DIMS} dimensions")));
                }
                dims.push(dim);
            }
            Ok(dims)
        }
    }

    deserializer.deserialize_seq(ShapeVisitor)
}
