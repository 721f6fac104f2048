//! Writes checkpoints: GGUF and safetensors, tensor by tensor, so that a model never has to be in memory at once.
//!
//! Flows in: metadata and the list of tensors (which fixes the layout), then each tensor's bytes in any order. Flows out:
//! a file that the readers of this room, and those of other projects, accept. On disk it appears under its name only when
//! it is complete ([`AtomicFile`]).

use std::collections::{BTreeMap, HashMap};
use std::io::{Seek, SeekFrom, Write};

use super::error::{FormatError, Item};
use super::gguf_value::{GgufArray, GgufMetadata, GgufValue};
use super::{TensorInfo, gguf, safetensors};

#[cfg(not(target_arch = "wasm32"))]
pub use atomic::AtomicFile;

/// A checkpoint being written to `W`.
pub struct CheckpointWriter<W> {
    out: W,
    file: String,
    /// Where `out` stands.
    position: u64,
    /// Bytes before the data.
    header: u64,
    /// Every tensor's data begin at a multiple of this, counted from `data_start`.
    alignment: u64,
    /// Tensors that have not been written yet: where and how long.
    pending: HashMap<String, (u64, u64)>,
}

/// ggml's `GGML_MAX_NAME` is 64 with the closing zero. (The reader takes longer names; other readers do not.)
const LONGEST_GGUF_NAME: usize = 63;
const LONGEST_GGUF_KEY: usize = 65_535;
/// Beyond a memory page alignment only wastes space.
const LARGEST_ALIGNMENT: u32 = 65_536;

impl<W: Write + Seek> CheckpointWriter<W> {
    /// Begins a GGUF (version 3) file at the start of `out`; `file` names it in errors. Data lie in the order of
    /// `tensors`, aligned to `general.alignment` if the metadata has it, else to 32.
    pub fn gguf(
        out: W,
        file: impl Into<String>,
        metadata: &GgufMetadata,
        tensors: &[TensorInfo],
    ) -> Result<Self, FormatError> {
        let file = file.into();
        let (header, layout) = gguf_header(&file, metadata, tensors)?;
        Self::begin(out, file, &header, layout)
    }

    /// Begins a safetensors file at the start of `out`; `file` names it in errors. Data are laid out by falling element
    /// size, so that every tensor is aligned for its type.
    pub fn safetensors(
        out: W,
        file: impl Into<String>,
        metadata: &BTreeMap<String, String>,
        tensors: &[TensorInfo],
    ) -> Result<Self, FormatError> {
        let file = file.into();
        let unwritable =
            |item, reason: &str| FormatError::Unwritable { file: file.clone(), item, reason: reason.to_owned() };
        let mut sorted: Vec<&TensorInfo> = tensors.iter().collect();
        sorted.sort_by_key(|info| std::cmp::Reverse(info.dtype.block_bytes()));
        let mut layout = Layout { alignment: 1, end: 0, places: HashMap::new() };
        let mut placed = Vec::new();
        for info in sorted {
            let begin = layout.add(info).map_err(|reason| unwritable(Item::Tensor(info.name.clone()), reason))?;
            placed.push((info, begin));
        }
        let header = safetensors_header(metadata, placed).map_err(|(item, reason)| unwritable(item, reason))?;
        Self::begin(out, file, &header, layout)
    }

    fn begin(mut out: W, file: String, header: &[u8], layout: Layout) -> Result<Self, FormatError> {
        out.seek(SeekFrom::Start(0)).and_then(|_| out.write_all(header)).map_err(|source| FormatError::Io {
            file: file.clone(),
            action: "write",
            source,
        })?;
        let start = header.len() as u64;
        let pending = layout.places.into_iter().map(|(name, (offset, len))| (name, (start + offset, len))).collect();
        Ok(Self { out, file, position: start, header: start, alignment: layout.alignment, pending })
    }

    /// Writes one tensor's bytes; each announced tensor is written exactly once, in any order.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
        let unwritable = |file: &str, reason| FormatError::Unwritable {
            file: file.to_owned(),
            item: Item::Tensor(name.to_owned()),
            reason,
        };
        let Some(&(offset, len)) = self.pending.get(name) else {
            return Err(unwritable(&self.file, "it was not announced, or is written a second time".to_owned()));
        };
        if len != bytes.len() as u64 {
            return Err(unwritable(&self.file, format!("{len} bytes were announced, {} came", bytes.len())));
        }
        let padding = (len.next_multiple_of(self.alignment) - len) as usize;
        self.put(offset, bytes, padding).map_err(|source| FormatError::Io {
            file: self.file.clone(),
            action: "write",
            source,
        })?;
        self.pending.remove(name);
        Ok(())
    }

    fn put(&mut self, offset: u64, bytes: &[u8], padding: usize) -> std::io::Result<()> {
        if self.position != offset {
            self.out.seek(SeekFrom::Start(offset))?;
        }
        self.position = u64::MAX; // unknown if one of the next lines fails
        self.out.write_all(bytes)?;
        self.out.write_all(&vec![0; padding])?;
        self.position = offset + (bytes.len() + padding) as u64;
        Ok(())
    }

    /// Replaces the header of a GGUF file by one with other metadata, which take exactly as many bytes, e.g. with checksums of what has
    /// been written instead of zeros.
    pub fn replace_gguf_header(&mut self, metadata: &GgufMetadata, tensors: &[TensorInfo]) -> Result<(), FormatError> {
        let (header, _) = gguf_header(&self.file, metadata, tensors)?;
        if header.len() as u64 != self.header {
            return Err(FormatError::Unwritable {
                file: self.file.clone(),
                item: Item::Header,
                reason: format!("it has {} bytes, and {} to replace it", self.header, header.len()),
            });
        }
        self.position = u64::MAX;
        self.out.seek(SeekFrom::Start(0)).and_then(|_| self.out.write_all(&header)).map_err(|source| FormatError::Io {
            file: self.file.clone(),
            action: "write",
            source,
        })
    }

    /// Ends the file; an error if a tensor is missing.
    pub fn finish(mut self) -> Result<W, FormatError> {
        if let Some(name) = self.pending.keys().min() {
            return Err(FormatError::Unwritable {
                file: self.file,
                item: Item::Tensor(name.clone()),
                reason: "it was announced but its bytes never came".to_owned(),
            });
        }
        match self.out.flush() {
            Ok(()) => Ok(self.out),
            Err(source) => Err(FormatError::Io { file: self.file, action: "write", source }),
        }
    }
}

/// Everything before the data of a GGUF file, and where the data go.
fn gguf_header(file: &str, metadata: &GgufMetadata, tensors: &[TensorInfo]) -> Result<(Vec<u8>, Layout), FormatError> {
    let unwritable =
        |item, reason: &str| FormatError::Unwritable { file: file.to_owned(), item, reason: reason.to_owned() };
    let alignment = match metadata.get(gguf::ALIGNMENT_KEY) {
        None => gguf::DEFAULT_ALIGNMENT,
        Some(&GgufValue::U32(alignment)) if alignment.is_power_of_two() && alignment <= LARGEST_ALIGNMENT => {
            alignment.into()
        }
        Some(_) => {
            let reason = "it must be a u32 power of two, at most 65536";
            return Err(unwritable(Item::Key(gguf::ALIGNMENT_KEY.to_owned()), reason));
        }
    };
    let mut header = Vec::from(gguf::MAGIC);
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        if key.is_empty() || key.len() > LONGEST_GGUF_KEY {
            return Err(unwritable(Item::Key(key.to_owned()), "keys have 1 to 65535 bytes"));
        }
        put_string(&mut header, key);
        put_value(&mut header, value);
    }
    let mut layout = Layout { alignment, end: 0, places: HashMap::new() };
    for info in tensors {
        let item = || Item::Tensor(info.name.clone());
        if info.name.is_empty() || info.name.len() > LONGEST_GGUF_NAME {
            return Err(unwritable(item(), "names in GGUF have 1 to 63 bytes"));
        }
        if info.shape.len() > gguf::MOST_DIMS as usize {
            return Err(unwritable(item(), "tensors in GGUF have at most 4 dimensions"));
        }
        let id = info.dtype.ggml_id().ok_or_else(|| unwritable(item(), "GGUF does not have its type"))?;
        let offset = layout.add(info).map_err(|reason| unwritable(item(), reason))?;
        put_string(&mut header, &info.name);
        header.extend((info.shape.len() as u32).to_le_bytes());
        for dim in info.shape.iter().rev() {
            header.extend(dim.to_le_bytes());
        }
        header.extend(id.to_le_bytes());
        header.extend(offset.to_le_bytes());
    }
    header.resize(header.len().next_multiple_of(alignment as usize), 0);
    Ok((header, layout))
}

/// The length and the JSON at the start of a safetensors file. `tensors`: each with the offset of its data.
pub(super) fn safetensors_header<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: impl IntoIterator<Item = (&'a TensorInfo, u64)>,
) -> Result<Vec<u8>, (Item, &'static str)> {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut parts = Vec::new();
    if !metadata.is_empty() {
        let pairs: Vec<_> = metadata.iter().map(|(key, value)| format!("{}:{}", text(key), text(value))).collect();
        parts.push(format!("\"{}\":{{{}}}", safetensors::METADATA_KEY, pairs.join(",")));
    }
    for (info, begin) in tensors {
        let item = || Item::Tensor(info.name.clone());
        if info.name == safetensors::METADATA_KEY {
            return Err((item(), "the name is reserved"));
        }
        if info.shape.len() > safetensors::MOST_DIMS {
            return Err((item(), "it has too many dimensions"));
        }
        let dtype = info.dtype.safetensors_name().ok_or_else(|| (item(), "safetensors does not have its type"))?;
        let shape: Vec<_> = info.shape.iter().map(u64::to_string).collect();
        parts.push(format!(
            "{}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{begin},{}]}}",
            text(&info.name),
            shape.join(","),
            begin.saturating_add(info.byte_len())
        ));
    }
    let mut json = format!("{{{}}}", parts.join(","));
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    if json.len() as u64 > safetensors::LONGEST_HEADER {
        return Err((Item::Header, "names and metadata take more than 100 MB"));
    }
    let mut header = Vec::from((json.len() as u64).to_le_bytes());
    header.extend(json.into_bytes());
    Ok(header)
}

/// Places tensors one after another.
struct Layout {
    alignment: u64,
    /// End of the last tensor with its padding, counted from the start of the data.
    end: u64,
    places: HashMap<String, (u64, u64)>,
}

impl Layout {
    /// The tensor's offset, or why it has none.
    fn add(&mut self, info: &TensorInfo) -> Result<u64, &'static str> {
        let begin = self.end;
        let len = info.byte_len();
        self.end = len
            .checked_next_multiple_of(self.alignment)
            .and_then(|padded| begin.checked_add(padded))
            .filter(|&end| end <= i64::MAX as u64)
            .ok_or("the file would be larger than files can be")?;
        if self.places.insert(info.name.clone(), (begin, len)).is_some() {
            return Err("a second tensor has this name");
        }
        Ok(begin)
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &GgufValue) {
    out.extend(value.type_id().to_le_bytes());
    match value {
        GgufValue::U8(v) => out.extend(v.to_le_bytes()),
        GgufValue::I8(v) => out.extend(v.to_le_bytes()),
        GgufValue::U16(v) => out.extend(v.to_le_bytes()),
        GgufValue::I16(v) => out.extend(v.to_le_bytes()),
        GgufValue::U32(v) => out.extend(v.to_le_bytes()),
        GgufValue::I32(v) => out.extend(v.to_le_bytes()),
        GgufValue::F32(v) => out.extend(v.to_le_bytes()),
        GgufValue::Bool(v) => out.push(u8::from(*v)),
        GgufValue::Str(v) => put_string(out, v),
        GgufValue::Array(v) => put_array(out, v),
        GgufValue::U64(v) => out.extend(v.to_le_bytes()),
        GgufValue::I64(v) => out.extend(v.to_le_bytes()),
        GgufValue::F64(v) => out.extend(v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &GgufArray) {
    out.extend(array.type_id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        GgufArray::U8(v) => out.extend(v),
        GgufArray::I8(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        GgufArray::U16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        GgufArray::I16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        GgufArray::U32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        GgufArray::I32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        GgufArray::F32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        GgufArray::Bool(v) => out.extend(v.iter().map(|&x| u8::from(x))),
        GgufArray::Str(v) => v.iter().for_each(|text| put_string(out, text)),
        GgufArray::U64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        GgufArray::I64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        GgufArray::F64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod atomic {
    use std::fs::File;
    use std::io::{Seek, SeekFrom, Write};
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{CheckpointWriter, FormatError, GgufMetadata, TensorInfo};
    use std::collections::BTreeMap;

    /// A file that appears under its name only when [`commit`](Self::commit)ted; dropped before that, it leaves nothing.
    pub struct AtomicFile {
        file: File,
        partial: PathBuf,
        path: PathBuf,
        committed: bool,
    }

    impl AtomicFile {
        /// Creates the temporary file beside `path`, so that the final rename stays within one file system.
        pub fn create(path: &Path) -> Result<Self, FormatError> {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}-{number}.partial", std::process::id()));
            let partial = path.with_file_name(name);
            let file = File::create_new(&partial).map_err(|source| FormatError::Io {
                file: path.display().to_string(),
                action: "create",
                source,
            })?;
            Ok(Self { file, partial, path: path.to_owned(), committed: false })
        }

        /// Makes the contents durable and gives the file its name, replacing an older file of that name.
        pub fn commit(mut self) -> Result<(), FormatError> {
            self.file.sync_all().and_then(|()| std::fs::rename(&self.partial, &self.path)).map_err(|source| {
                FormatError::Io { file: self.path.display().to_string(), action: "finish", source }
            })?;
            self.committed = true;
            Ok(())
        }
    }

    impl Drop for AtomicFile {
        fn drop(&mut self) {
            if !self.committed {
                let _ = std::fs::remove_file(&self.partial); // nobody is left to be told
            }
        }
    }

    impl Write for AtomicFile {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.file.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            self.file.flush()
        }
    }

    impl Seek for AtomicFile {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.file.seek(to)
        }
    }

    impl CheckpointWriter<AtomicFile> {
        /// [`gguf`](CheckpointWriter::gguf) to a path; call [`commit`](Self::commit) at the end.
        pub fn create_gguf(path: &Path, metadata: &GgufMetadata, tensors: &[TensorInfo]) -> Result<Self, FormatError> {
            Self::gguf(AtomicFile::create(path)?, path.display().to_string(), metadata, tensors)
        }

        /// [`safetensors`](CheckpointWriter::safetensors) to a path; call [`commit`](Self::commit) at the end.
        pub fn create_safetensors(
            path: &Path,
            metadata: &BTreeMap<String, String>,
            tensors: &[TensorInfo],
        ) -> Result<Self, FormatError> {
            Self::safetensors(AtomicFile::create(path)?, path.display().to_string(), metadata, tensors)
        }

        /// Ends the file and gives it its name.
        pub fn commit(self) -> Result<(), FormatError> {
            self.finish()?.commit()
        }
    }
}
