//! A model's files as named tensors and metadata, whatever container they came in.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use super::bytes::FileBytes;
use super::{Dtype, FormatError, GgufMetadata, ShapeError};

/// A tensor's description and its bytes: mapped or held ones are lent, others read.
pub type Found<'a> = (&'a TensorInfo, Cow<'a, [u8]>);

/// Name, shape and type of a tensor, and where its bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    /// Row-major, outermost first: a matrix is `[rows, cols]`, a scalar `[]`. (GGUF stores the reverse order.)
    pub shape: Vec<u64>,
    pub dtype: Dtype,
    /// Which of the checkpoint's files holds the bytes.
    file: u32,
    /// First byte in that file.
    offset: u64,
    /// Number of bytes.
    len: u64,
}

impl TensorInfo {
    /// A tensor that belongs to no file yet: for writers, and to hand bytes to a codec.
    pub fn new(name: impl Into<String>, shape: Vec<u64>, dtype: Dtype) -> Result<Self, ShapeError> {
        let len = dtype.byte_len(&shape)?;
        Ok(Self { name: name.into(), shape, dtype, file: 0, offset: 0, len })
    }

    /// Puts the tensor at a place in a file.
    pub(super) fn at(mut self, file: u32, offset: u64) -> Self {
        (self.file, self.offset) = (file, offset);
        self
    }

    /// Bytes the tensor takes in its file.
    pub fn byte_len(&self) -> u64 {
        self.len
    }

    /// Offset of the first byte in the tensor's file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Which of the checkpoint's files holds the tensor.
    pub(super) fn file(&self) -> usize {
        self.file as usize
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product() // fits: byte_len() has been computed from it with checks
    }
}

/// What a checkpoint says about its model besides the weights.
#[derive(Debug, Clone)]
pub enum Meta {
    /// The key-value pairs of a GGUF file.
    Gguf(GgufMetadata),
    /// The JSON files of a Hugging Face folder and the `__metadata__` of its safetensors.
    HuggingFace {
        /// `config.json`; `null` if a lone safetensors file has none beside it.
        config: Value,
        /// `generation_config.json`.
        generation: Option<Value>,
        /// `tokenizer.json`, unparsed.
        tokenizer_json: Option<Vec<u8>>,
        /// `tokenizer_config.json`; a `chat_template.jinja` beside it is put in as `chat_template` where that is absent.
        tokenizer_config: Option<Value>,
        /// `__metadata__` of all safetensors files, united (the first file's entry wins).
        st_metadata: BTreeMap<String, String>,
    },
}

/// An opened model: tensors by name, metadata, and the bytes behind them. Cloning shares them.
#[derive(Clone)]
pub struct Checkpoint {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    files: Vec<Arc<FileBytes>>,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    meta: Meta,
}

impl Checkpoint {
    /// Puts a checkpoint together. The readers have checked that names are unique and ranges lie inside their files.
    pub(super) fn assemble(
        name: String,
        files: Vec<FileBytes>,
        tensors: Vec<TensorInfo>,
        index: HashMap<String, usize>,
        meta: Meta,
    ) -> Self {
        let files = files.into_iter().map(Arc::new).collect();
        Self { inner: Arc::new(Inner { name, files, tensors, index, meta }) }
    }

    /// This checkpoint with other metadata, without the tensors that `keep` refuses, and with `added` ones (with their bytes), which take the
    /// place of those of the same names. What stays is shared, not copied.
    ///
    /// # Errors
    /// The name of an added tensor whose bytes are not those of its shape.
    pub(crate) fn overlay(
        &self,
        meta: Meta,
        keep: impl Fn(&TensorInfo) -> bool,
        added: Vec<(TensorInfo, Vec<u8>)>,
    ) -> Result<Self, String> {
        let mut files = self.inner.files.clone();
        let mut tensors: Vec<TensorInfo> = self.tensors().iter().filter(|info| keep(info)).cloned().collect();
        let index_of = |tensors: &[TensorInfo]| -> HashMap<String, usize> {
            tensors.iter().enumerate().map(|(at, info)| (info.name.clone(), at)).collect()
        };
        let mut index = index_of(&tensors);
        for (info, bytes) in added {
            let file = u32::try_from(files.len()).ok().filter(|_| info.byte_len() == bytes.len() as u64);
            let Some(file) = file else { return Err(info.name) };
            let info = info.at(file, 0);
            files.push(Arc::new(FileBytes::Owned(bytes)));
            match index.get(&info.name) {
                Some(at) => tensors[*at] = info,
                None => {
                    index.insert(info.name.clone(), tensors.len());
                    tensors.push(info);
                }
            }
        }
        let name = self.name().to_owned();
        Ok(Self { inner: Arc::new(Inner { name, files, tensors, index, meta }) })
    }

    /// All tensors: in file order, for several files file after file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.inner.tensors
    }

    /// Name, shape and type of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.inner.tensors.get(*self.inner.index.get(name)?)
    }

    /// A tensor and its bytes (little-endian, no particular alignment), which are copied only where the file is not in memory.
    ///
    /// # Errors
    /// [`FormatError::Io`] if such a file cannot be read any more.
    pub fn read(&self, name: &str) -> Result<Option<Found<'_>>, FormatError> {
        let Some(info) = self.info(name) else { return Ok(None) };
        let Some(file) = self.inner.files.get(info.file as usize) else { return Ok(None) };
        Ok(Some((info, file.read(&self.inner.name, info.offset, info.len)?)))
    }

    /// Some of a tensor's bytes, as [`Checkpoint::read`] gives all of them.
    ///
    /// # Errors
    /// [`FormatError::Io`], also for bytes that the tensor does not have.
    pub fn read_part(&self, name: &str, part: Range<u64>) -> Result<Option<Cow<'_, [u8]>>, FormatError> {
        let Some(info) = self.info(name) else { return Ok(None) };
        let Some(file) = self.inner.files.get(info.file as usize) else { return Ok(None) };
        let outside = || FormatError::Io {
            file: self.inner.name.clone(),
            action: "read",
            source: std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "a tensor ends too early"),
        };
        let len = part.end.checked_sub(part.start).filter(|_| part.end <= info.len).ok_or_else(outside)?;
        Ok(Some(file.read(&self.inner.name, info.offset + part.start, len)?))
    }

    /// [`Checkpoint::read`] without a copy, for checkpoints that were opened by path or from memory. It does not exist in browsers,
    /// where a file need not be in memory.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn tensor(&self, name: &str) -> Option<(&TensorInfo, &[u8])> {
        let info = self.info(name)?;
        let start = usize::try_from(info.offset).ok()?;
        let end = start.checked_add(usize::try_from(info.len).ok()?)?;
        Some((info, self.inner.files.get(info.file as usize)?.in_memory()?.get(start..end)?))
    }

    /// Metadata.
    pub fn meta(&self) -> &Meta {
        &self.inner.meta
    }

    /// File or folder name for messages.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Bytes of all files that hold tensors.
    pub fn file_bytes(&self) -> u64 {
        self.inner.files.iter().map(|file| file.size()).sum()
    }
}

/// Equal is what shares its files.
impl PartialEq for Checkpoint {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Checkpoint {}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("name", &self.inner.name)
            .field("files", &self.inner.files.len())
            .field("tensors", &self.inner.tensors.len())
            .finish_non_exhaustive()
    }
}
