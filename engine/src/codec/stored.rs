//! A checkpoint's tensors as models want them: packed, whether the file holds a plain type, ggml's blocks, or the planes of
//! a codec that no other software knows.
//!
//! In: a [`Checkpoint`]. Out: the list of its tensors under their own names, and each as [`Packed`].
//!
//! # Packed tensors in safetensors
//!
//! The planes of a packed tensor `w` are tensors `w.codec_0`, `w.codec_1`, … of type U32 and shape `[groups of rows,
//! words]`, in the order of the codec's WGSL bindings. The file's `__metadata__` has, under `tersor.packed`, JSON that says
//! what they are:
//!
//! ```json
//! {"version": 1, "tensors": {"w": {"codec": "nf4:block=64", "shape": [576, 1536]}}}
//! ```
//!
//! The codec's spelling is the one of recipes and fixes the planes' layout; all dimensions but the last are rows. Where the file
//! has checksums ([`CHECKSUMS_KEY`]), what is read is held against them.

mod rows;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::compressed_tensors::{self, Masked};
use super::dfloat11::{self, Container, DFloat11, Group, Member};
use super::spqr::checkpoint as spqr;
use super::{CodecError, CodecRef, Packed, Plane, parse};
use crate::format::{CHECKSUMS_KEY, Checkpoint, Checksums, Dtype, Found, Meta, TensorInfo, quoted};

pub use rows::StoredRows;

/// Key of the metadata that lists packed tensors.
pub const PACKED_KEY: &str = "tersor.packed";
/// Version of that list.
const VERSION: u32 = 1;

/// What [`PACKED_KEY`] holds.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    codec: String,
    shape: Vec<u64>,
}

/// One tensor of a checkpoint, under its own name.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    pub name: String,
    /// Row-major, outermost dimension first.
    pub shape: Vec<u64>,
    /// The file's type ("BF16", "Q4_1") or the codec's spelling ("nf4:block=64").
    pub encoding: String,
    /// Bytes in the file.
    pub bytes: u64,
    /// The file's type; `None` for a packed tensor.
    pub dtype: Option<Dtype>,
    /// The codec of a packed tensor.
    codec: Option<CodecRef>,
}

impl StoredTensor {
    /// The codec that the tensor is stored in; `None` where no codec has the file's type (integers, 8-bit floats).
    pub fn codec(&self) -> Option<CodecRef> {
        match self.dtype {
            Some(Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::Ggml(_)) => parse(&self.encoding).ok(),
            _ => self.codec.clone(),
        }
    }

    /// Number of weights.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product() // fits: checked when the list was made
    }

    /// Rows and columns of the tensor as a matrix: all dimensions but the last are rows, a scalar is 1 x 1.
    pub fn matrix(&self) -> Option<[usize; 2]> {
        let (cols, leading) = self.shape.split_last().unwrap_or((&1, &[]));
        let rows = leading.iter().try_fold(1usize, |rows, &n| rows.checked_mul(usize::try_from(n).ok()?))?;
        Some([rows, usize::try_from(*cols).ok()?])
    }
}

/// DFloat11 groups, each of which holds several tensors.
#[derive(Debug, Default)]
struct Groups {
    container: Container,
    /// Group and number in it, by the tensor's name.
    members: HashMap<String, (usize, usize)>,
    /// The weights of the group that was read last: its tensors are mostly read one after the other.
    last: Mutex<Option<(usize, Arc<Vec<u16>>)>>,
}

/// All tensors of a checkpoint.
#[derive(Debug, Clone)]
pub struct Stored {
    checkpoint: Checkpoint,
    checksums: Checksums,
    tensors: Vec<StoredTensor>,
    index: HashMap<String, usize>,
    /// What other software pruned, by name.
    masked: HashMap<String, Masked>,
    groups: Arc<Groups>,
    /// What SpQR's own program packed, by name.
    spqr: HashMap<String, spqr::Found>,
}

impl Stored {
    /// Lists a checkpoint's tensors: packed ones under their own names, in the place of their first plane.
    ///
    /// # Errors
    /// A list of packed tensors or of checksums that cannot be read; one that names an unknown codec, or does not fit the planes in
    /// the file.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, CodecError> {
        let header = read_header(checkpoint)?;
        let checksums = match metadata(checkpoint, CHECKSUMS_KEY).map(Checksums::parse) {
            Some(Err(error)) => {
                return Err(damaged(checkpoint, format!("{CHECKSUMS_KEY} in its metadata cannot be read: {error}")));
            }
            Some(Ok(checksums)) => checksums,
            None => Checksums::default(),
        };
        let mut planes: HashMap<String, &str> = HashMap::new();
        let mut packed: HashMap<&str, StoredTensor> = HashMap::new();
        for (name, entry) in &header.tensors {
            let tensor = describe(checkpoint, name, entry)?;
            let count = tensor.codec.as_ref().map_or(0, |codec| codec.layout(0).len());
            planes.extend((0..count).map(|plane| (plane_name(name, plane), name.as_str())));
            packed.insert(name, tensor);
        }
        let mut masked = HashMap::new();
        for found in compressed_tensors::find(checkpoint).map_err(|(name, why)| wrong(checkpoint, &name, why))? {
            masked.insert(found.name.clone(), found);
        }
        let mut published = HashMap::new();
        for found in spqr::find(checkpoint).map_err(|(name, what)| wrong(checkpoint, &name, what))? {
            published.insert(found.name.clone(), found);
        }
        let foreign = masked.values().map(|m| (&m.name, [m.rows, m.cols], &m.codec, &m.parts));
        let foreign = foreign.chain(published.values().map(|s| (&s.name, [s.rows, s.cols], &s.codec, &s.parts)));
        for (name, [rows, cols], codec, names) in foreign {
            let parts = names.iter().filter_map(|part| checkpoint.info(part));
            let tensor = StoredTensor {
                name: name.clone(),
                shape: vec![rows as u64, cols as u64],
                encoding: codec.name(),
                bytes: parts.map(TensorInfo::byte_len).sum(),
                dtype: None,
                codec: Some(codec.clone()),
            };
            planes.extend(names.iter().map(|part| (part.clone(), name.as_str())));
            packed.insert(name, tensor);
        }
        let container = Container::of(checkpoint)?;
        let mut parts: HashMap<String, usize> = HashMap::new();
        let mut members = HashMap::new();
        for (number, (module, list)) in container.groups.iter().enumerate() {
            parts.extend(dfloat11::PARTS.map(|part| (format!("{module}.{part}"), number)));
            members.extend(list.iter().enumerate().map(|(at, member)| (member.name.clone(), (number, at))));
        }
        let mut tensors = Vec::new();
        let mut listed = HashSet::new();
        let mut grouped = HashSet::new();
        for info in checkpoint.tensors() {
            if let Some(number) = parts.get(&info.name) {
                if grouped.insert(*number) {
                    tensors.extend(grouped_tensors(checkpoint, &container.groups[*number]));
                }
                continue;
            }
            match planes.get(&info.name) {
                None => tensors.push(plain(info)),
                Some(name) if listed.insert(*name) => tensors.extend(packed.remove(name)),
                Some(_) => {}
            }
        }
        let mut index = HashMap::new();
        for (at, tensor) in tensors.iter().enumerate() {
            if index.insert(tensor.name.clone(), at).is_some() {
                return Err(wrong(checkpoint, &tensor.name, "it is in the file both packed and plain"));
            }
        }
        let groups = Arc::new(Groups { container, members, last: Mutex::default() });
        Ok(Self { checkpoint: checkpoint.clone(), checksums, tensors, index, masked, spqr: published, groups })
    }

    /// The tensors, in the file's order.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(*self.index.get(name)?)
    }

    /// The checkpoint behind it.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// A plain tensor's bytes as the file holds them; `None` if it has none of this name.
    ///
    /// # Errors
    /// Bytes that do not have the checksum that the file says; a file that cannot be read any more.
    pub fn bytes(&self, name: &str) -> Result<Option<Found<'_>>, CodecError> {
        let read = self.checkpoint.read(name).map_err(|error| wrong(&self.checkpoint, name, error.to_string()))?;
        let Some((info, bytes)) = read else { return Ok(None) };
        self.checksums.verify(name, &bytes).map_err(|message| wrong(&self.checkpoint, name, message))?;
        Ok(Some((info, bytes)))
    }

    /// The checkpoint with other metadata and with `added` tensors (plain types, with their bytes), which take the place of those of the same
    /// names, whether these were plain or packed. What stays is shared, not copied.
    ///
    /// # Errors
    /// [`CodecError::Stored`] for bytes that are not those of the shape.
    pub(crate) fn overlay(&self, mut meta: Meta, added: Vec<(TensorInfo, Vec<u8>)>) -> Result<Checkpoint, CodecError> {
        let mut list = read_header(&self.checkpoint)?;
        let mut checksums = self.checksums.clone();
        let mut gone = HashSet::new();
        for (info, _) in &added {
            checksums.forget(&info.name);
            if list.tensors.remove(&info.name).is_some() {
                let count = self.tensor(&info.name).and_then(|t| t.codec.as_ref()).map_or(0, |c| c.layout(0).len());
                gone.extend((0..count).map(|plane| plane_name(&info.name, plane)));
            }
        }
        gone.iter().for_each(|plane: &String| checksums.forget(plane));
        let known = metadata(&self.checkpoint, CHECKSUMS_KEY).is_some();
        let texts =
            [(PACKED_KEY, PackedList(list.tensors).metadata()), (CHECKSUMS_KEY, known.then(|| checksums.metadata()))];
        for (key, text) in texts {
            match &mut meta {
                Meta::Gguf(metadata) => {
                    metadata.remove(key);
                    text.into_iter().for_each(|text| metadata.set(key, text));
                }
                Meta::HuggingFace { st_metadata, .. } => {
                    st_metadata.remove(key);
                    st_metadata.extend(text.map(|text| (key.to_owned(), text)));
                }
            }
        }
        self.checkpoint.overlay(meta, |info| !gone.contains(&info.name), added).map_err(|tensor| CodecError::Stored {
            file: self.checkpoint.name().to_owned(),
            message: format!("tensor {}: its bytes are not those of its shape", quoted(&tensor)),
        })
    }

    /// A tensor without re-quantizing it; `None` if there is none of this name. A vector is one row.
    ///
    /// # Errors
    /// As for [`import`](super::import) and [`Stored::bytes`], or planes that do not have the codec's layout.
    pub fn load(&self, name: &str) -> Result<Option<Packed>, CodecError> {
        let Some(tensor) = self.tensor(name) else { return Ok(None) };
        if let Some((group, member)) = self.in_group(name) {
            return self.member(group, member).map(Some);
        }
        let Some(codec) = &tensor.codec else {
            return self.rows(name)?.map(StoredRows::all).transpose();
        };
        if let Some(masked) = self.masked.get(name) {
            return compressed_tensors::load(&self.checkpoint, masked).map(Some);
        }
        if let Some(found) = self.spqr.get(name) {
            return spqr::load(&self.checkpoint, found).map(Some);
        }
        let too_large = || CodecError::Size { tensor: name.to_owned(), shape: tensor.shape.clone() };
        let [rows, cols] = tensor.matrix().ok_or_else(too_large)?;
        let planes = codec.layout(cols).into_iter().enumerate().map(|(number, layout)| {
            let (info, bytes) = plane(&self.checkpoint, name, number)?;
            let verified = self.checksums.verify(&info.name, &bytes);
            verified.map_err(|message| wrong(&self.checkpoint, name, format!("plane {number}: {message}")))?;
            // The file is little-endian and need not be aligned.
            let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            let data: Vec<u32> = words.collect();
            Ok(Plane::of(layout, data))
        });
        let planes = planes.collect::<Result<Vec<_>, CodecError>>()?;
        codec.current(Packed::new(codec.clone(), rows, cols, planes)?).map(Some)
    }
}

impl Stored {
    /// The DFloat11 group that a tensor is in, and its place there.
    pub fn in_group(&self, name: &str) -> Option<(usize, &Member)> {
        let &(group, member) = self.groups.members.get(name)?;
        Some((group, self.groups.container.groups.get(group)?.1.get(member)?))
    }

    /// A DFloat11 group as the file has it.
    ///
    /// # Errors
    /// As [`Container::load`] and [`Stored::bytes`].
    pub fn group(&self, number: usize) -> Result<Group, CodecError> {
        let Some((module, _)) = self.groups.container.groups.get(number) else {
            return Err(damaged(&self.checkpoint, format!("it has no group {number}")));
        };
        for part in dfloat11::PARTS {
            self.bytes(&format!("{module}.{part}"))?;
        }
        Container::load(&self.checkpoint, module)
    }

    /// A tensor of a group, bf16.
    fn member(&self, number: usize, member: &Member) -> Result<Packed, CodecError> {
        // A panic elsewhere leaves what it guards whole.
        let last = || self.groups.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last().clone().filter(|(known, _)| *known == number);
        let weights = match known {
            Some((_, weights)) => weights,
            None => {
                let weights = Arc::new(self.group(number)?.decode());
                *last() = Some((number, weights.clone()));
                weights
            }
        };
        let own = weights.get(member.first..).and_then(|rest| rest.get(..member.rows * member.cols));
        let own = own.ok_or_else(|| wrong(&self.checkpoint, &member.name, "its group does not hold it"))?;
        let bytes: Vec<u8> = own.iter().flat_map(|w| w.to_le_bytes()).collect();
        parse("bf16")?.import(&bytes, member.rows, member.cols)
    }
}

/// The tensors of a group; each has its share of the bytes.
fn grouped_tensors(checkpoint: &Checkpoint, (module, members): &(String, Vec<Member>)) -> Vec<StoredTensor> {
    let total: usize = members.iter().map(|member| member.rows * member.cols).sum();
    let bytes = u128::from(Container::bytes(checkpoint, module));
    let share = |n: usize| (bytes * n as u128 / total.max(1) as u128) as u64;
    let tensor = |member: &Member| StoredTensor {
        name: member.name.clone(),
        shape: vec![member.rows as u64, member.cols as u64],
        encoding: DFloat11::NAME.to_owned(),
        bytes: share(member.first + member.rows * member.cols) - share(member.first),
        dtype: None,
        codec: Some(Arc::new(DFloat11)),
    };
    members.iter().map(tensor).collect()
}

/// How packed tensors are announced to a [`crate::format::CheckpointWriter`]: collects the list and names the planes.
#[derive(Debug, Default)]
pub struct PackedList(BTreeMap<String, Entry>);

impl PackedList {
    /// Adds a tensor and returns its planes' places in the file, in order. `lengths`: words of its planes, which only those of
    /// variable length need.
    ///
    /// # Errors
    /// A shape that is too large for this machine, a plane of unknown length.
    pub fn add(
        &mut self,
        name: &str,
        shape: &[u64],
        codec: &CodecRef,
        lengths: &[u64],
    ) -> Result<Vec<TensorInfo>, CodecError> {
        let too_large = || CodecError::Size { tensor: name.to_owned(), shape: shape.to_vec() };
        let tensor = StoredTensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            encoding: codec.name(),
            bytes: 0,
            dtype: None,
            codec: None,
        };
        let [rows, cols] = tensor.matrix().ok_or_else(too_large)?;
        let infos = codec.layout(cols).into_iter().enumerate().map(|(number, layout)| {
            let shape = match (layout.words(rows), lengths.get(number)) {
                (Some(words), _) => {
                    let row_words = u64::from(layout.row_words);
                    vec![words as u64 / row_words.max(1), row_words]
                }
                (None, Some(words)) => vec![*words],
                (None, None) => return Err(too_large()),
            };
            TensorInfo::new(plane_name(name, number), shape, Dtype::U32).map_err(|_| too_large())
        });
        let infos = infos.collect::<Result<_, _>>()?;
        self.0.insert(name.to_owned(), Entry { codec: tensor.encoding, shape: tensor.shape });
        Ok(infos)
    }

    /// The value of [`PACKED_KEY`]; `None` when nothing is packed.
    pub fn metadata(self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        serde_json::to_string(&Header { version: VERSION, tensors: self.0 }).ok()
    }
}

/// Name of a plane in the file.
pub fn plane_name(tensor: &str, plane: usize) -> String {
    format!("{tensor}.codec_{plane}")
}

fn plain(info: &TensorInfo) -> StoredTensor {
    StoredTensor {
        name: info.name.clone(),
        shape: info.shape.clone(),
        encoding: info.dtype.name().to_owned(),
        bytes: info.byte_len(),
        dtype: Some(info.dtype),
        codec: None,
    }
}

/// What is wrong with a packed tensor.
fn wrong(checkpoint: &Checkpoint, tensor: &str, message: impl Display) -> CodecError {
    damaged(checkpoint, format!("tensor {}: {message}", quoted(tensor)))
}

fn damaged(checkpoint: &Checkpoint, message: String) -> CodecError {
    CodecError::Stored { file: checkpoint.name().to_owned(), message }
}

/// A string of the file's metadata.
fn metadata<'a>(checkpoint: &'a Checkpoint, key: &str) -> Option<&'a str> {
    match checkpoint.meta() {
        Meta::Gguf(meta) => meta.str(key),
        Meta::HuggingFace { st_metadata, .. } => st_metadata.get(key).map(String::as_str),
    }
}

fn read_header(checkpoint: &Checkpoint) -> Result<Header, CodecError> {
    let Some(text) = metadata(checkpoint, PACKED_KEY) else {
        return Ok(Header { version: VERSION, tensors: BTreeMap::new() });
    };
    let header: Header = serde_json::from_str(text)
        .map_err(|error| damaged(checkpoint, format!("{PACKED_KEY} in its metadata cannot be read: {error}")))?;
    if header.version != VERSION {
        let message = format!("{PACKED_KEY} in its metadata has version {}, not {VERSION}", header.version);
        return Err(damaged(checkpoint, message));
    }
    Ok(header)
}

fn describe(checkpoint: &Checkpoint, name: &str, entry: &Entry) -> Result<StoredTensor, CodecError> {
    let wrong = |message: String| wrong(checkpoint, name, message);
    let codec = match parse(&entry.codec) {
        Ok(codec) => codec,
        Err(_) => return Err(wrong(format!("there is no codec {}", quoted(&entry.codec)))),
    };
    let mut tensor = StoredTensor {
        name: name.to_owned(),
        shape: entry.shape.clone(),
        encoding: codec.name(),
        bytes: 0,
        dtype: None,
        codec: None,
    };
    // Zeros count as ones here, so that an empty tensor's other dimensions overflow nowhere either.
    let dims: Vec<u64> = entry.shape.iter().map(|&dim| dim.max(1)).collect();
    let fits = Dtype::F32.byte_len(&dims).is_ok_and(|bytes| isize::try_from(bytes).is_ok());
    let Some([rows, cols]) = tensor.matrix().filter(|_| fits) else {
        return Err(wrong(format!("shape {} is too large", shape_text(&entry.shape))));
    };
    super::rows::check_cols(&*codec, cols).map_err(|error| wrong(error.to_string()))?;
    for (number, layout) in codec.layout(cols).into_iter().enumerate() {
        let (info, _) = plane(checkpoint, name, number)?;
        let words = layout.words(rows).map_or(info.byte_len() / 4, |words| words as u64);
        if words.checked_mul(4) != Some(info.byte_len()) {
            let have = info.byte_len() / 4;
            return Err(wrong(format!("plane {number} has {have} words where {} takes {words}", tensor.encoding)));
        }
        tensor.bytes += info.byte_len();
    }
    tensor.codec = Some(codec);
    Ok(tensor)
}

/// A shape for a message, of which only the first dimensions are shown: it may have thousands.
fn shape_text(shape: &[u64]) -> String {
    let dims: Vec<String> = shape.iter().take(8).map(u64::to_string).collect();
    format!("[{}{}]", dims.join(", "), if shape.len() > 8 { ", …" } else { "" })
}

fn plane<'a>(
    checkpoint: &'a Checkpoint,
    name: &str,
    number: usize,
) -> Result<(&'a TensorInfo, Cow<'a, [u8]>), CodecError> {
    let read = checkpoint.read(&plane_name(name, number));
    match read.map_err(|error| wrong(checkpoint, name, error.to_string()))? {
        Some((info, bytes)) if info.dtype == Dtype::U32 => Ok((info, bytes)),
        Some((info, _)) => Err(wrong(checkpoint, name, format!("plane {number} is {} instead of U32", info.dtype))),
        None => Err(wrong(checkpoint, name, format!("plane {number} is not in the file"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::format::CheckpointWriter;

    /// A file with one plane of eight words and this list of packed tensors.
    fn stored(list: &str) -> Result<Stored, CodecError> {
        let info = TensorInfo::new("w.codec_0", vec![1, 8], Dtype::U32).unwrap();
        let metadata = BTreeMap::from([(PACKED_KEY.to_owned(), list.to_owned())]);
        let out = Cursor::new(Vec::new());
        let mut writer = CheckpointWriter::safetensors(out, "m", &metadata, std::slice::from_ref(&info)).unwrap();
        writer.write("w.codec_0", &[7; 32]).unwrap();
        let file = ("m.safetensors".to_owned(), writer.finish().unwrap().into_inner());
        Stored::of(&Checkpoint::from_files(vec![file]).unwrap())
    }

    #[test]
    fn planes_must_have_the_length_of_their_codec() {
        // 8 columns of f32 are padded to a run of 32 words.
        let error = stored(r#"{"version":1,"tensors":{"w":{"codec":"f32","shape":[1,8]}}}"#).unwrap_err();
        assert!(
            error.to_string().contains("m.safetensors: tensor \"w\": plane 0 has 8 words where f32 takes 32"),
            "{error}"
        );
    }

    #[test]
    fn a_list_that_lies_is_an_error() {
        for (list, says) in [
            ("{", "cannot be read"),
            ("[]", "cannot be read"),
            (r#"{"version":1,"tensors":{"w":{"codec":7,"shape":[1,8]}}}"#, "cannot be read"),
            (r#"{"version":1,"tensors":{"w":{"codec":"f32","shape":[-1,8]}}}"#, "cannot be read"),
            (r#"{"version":2,"tensors":{}}"#, "version 2"),
            (r#"{"version":1,"tensors":{"w":{"codec":"q9\u001b[2J","shape":[1,8]}}}"#, "no codec \"q9\\u{1b}[2J\""),
            (r#"{"version":1,"tensors":{"w":{"codec":"uniform:bits=7","shape":[1,8]}}}"#, "no codec"),
            (r#"{"version":1,"tensors":{"v":{"codec":"f32","shape":[1,8]}}}"#, "\"v\": plane 0 is not in the file"),
            (r#"{"version":1,"tensors":{"w":{"codec":"nf4","shape":[4294967296,4294967296]}}}"#, "too large"),
            (r#"{"version":1,"tensors":{"w":{"codec":"f32","shape":[18446744073709551615,1]}}}"#, "too large"),
            (r#"{"version":1,"tensors":{"w":{"codec":"f32","shape":[1,18446744073709551615]}}}"#, "too large"),
            (r#"{"version":1,"tensors":{"w":{"codec":"bf16","shape":[0,18446744073709551615]}}}"#, "too large"),
            (r#"{"version":1,"tensors":{"w":{"codec":"f32","shape":[18446744073709551615,0]}}}"#, "too large"),
            (r#"{"version":1,"tensors":{"w":{"codec":"q4_k","shape":[1,0]}}}"#, "8 words where q4_k takes 0"),
            (r#"{"version":1,"tensors":{"w":{"codec":"q8_0","shape":[1,33]}}}"#, "blocks of 32"),
            (r#"{"version":1,"tensors":{"w":{"codec":"q8_0","shape":[]}}}"#, "blocks of 32"),
        ] {
            let error = stored(list).unwrap_err().to_string();
            assert!(error.starts_with("m.safetensors: ") && error.contains(says), "{list}: {error}");
        }
    }
}
