//! Where a checkpoint's bytes live: a memory map natively; in a browser a buffer, or a file that is read piece by piece.

use std::borrow::Cow;
use std::io;

#[cfg(not(target_arch = "wasm32"))]
use std::{fs::File, io::Read as _, path::Path};

use super::error::{FETCH_AGAIN, FormatError, Item};

/// A file that is read piece by piece, so that it need not be in memory as a whole: what a browser has instead of memory maps.
#[cfg(not(target_arch = "wasm32"))]
pub trait ByteSource: Send + Sync {
    /// Bytes in it.
    fn size(&self) -> u64;

    /// Fills `out` with what begins at byte `offset`.
    ///
    /// # Errors
    /// What the system refuses; a range that the file does not have.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

/// A file that is read piece by piece, so that it need not be in memory as a whole: what a browser has instead of memory maps.
/// (Its handles belong to one thread there, and so do checkpoints.)
#[cfg(target_arch = "wasm32")]
pub trait ByteSource {
    /// Bytes in it.
    fn size(&self) -> u64;

    /// Fills `out` with what begins at byte `offset`.
    ///
    /// # Errors
    /// What the system refuses; a range that the file does not have.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

/// What is read of a file at first: enough for the headers of most.
const HEAD: usize = 4 << 20;

/// The contents of one file.
pub(super) enum FileBytes {
    Owned(Vec<u8>),
    /// Read when it is asked for.
    Source(Box<dyn ByteSource>),
    #[cfg(not(target_arch = "wasm32"))]
    Mapped {
        map: memmap2::Mmap,
        /// Kept open so that the file is not deleted or replaced under the map on systems that lock open files.
        _file: File,
    },
}

impl FileBytes {
    /// Number of bytes.
    pub fn size(&self) -> u64 {
        match (self, self.in_memory()) {
            (_, Some(bytes)) => bytes.len() as u64,
            (Self::Source(source), _) => source.size(),
            _ => 0,
        }
    }

    /// All bytes, unless they have to be read first.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match self {
            Self::Owned(bytes) => Some(bytes),
            Self::Source(_) => None,
            #[cfg(not(target_arch = "wasm32"))]
            Self::Mapped { map, .. } => Some(map),
        }
    }

    /// Some of the bytes. `name` is how messages call the file.
    pub fn read(&self, name: &str, offset: u64, len: u64) -> Result<Cow<'_, [u8]>, FormatError> {
        let wrong = |source| FormatError::Io { file: name.to_owned(), action: "read", source };
        let outside = || wrong(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends too early"));
        let size = usize::try_from(len).map_err(|_| outside())?;
        offset.checked_add(len).filter(|end| *end <= self.size()).ok_or_else(outside)?;
        let start = usize::try_from(offset).ok();
        match (self.in_memory(), self) {
            (Some(bytes), _) => {
                let found = start.and_then(|start| bytes.get(start..start + size));
                found.map(Cow::Borrowed).ok_or_else(outside)
            }
            (None, Self::Source(source)) => {
                let mut out = vec![0; size];
                source.read_at(offset, &mut out).map_err(wrong)?;
                Ok(Cow::Owned(out))
            }
            _ => Err(outside()),
        }
    }

    /// Reads the header with `parse`, which is given the file's beginning and its size. Of a file that is read piece by piece the
    /// beginning grows for as long as it is cut off where the file is not.
    pub fn header<T>(
        &self,
        name: &str,
        parse: impl Fn(&[u8], u64) -> Result<T, FormatError>,
    ) -> Result<T, FormatError> {
        let size = self.size();
        if let Some(bytes) = self.in_memory() {
            return parse(bytes, size);
        }
        let mut len = size.min(HEAD as u64);
        loop {
            match parse(&self.read(name, 0, len)?, size) {
                Err(FormatError::Truncated { offset, needed, .. })
                    if len < size && offset.saturating_add(needed) <= size =>
                {
                    len = (offset + needed).max(2 * len).min(size);
                }
                done => return done,
            }
        }
    }
}

/// Opens a regular file; a pipe or device, whose length is unknown and whose `open` may block, is refused.
#[cfg(not(target_arch = "wasm32"))]
fn open_regular(path: &Path, name: &str) -> Result<(File, u64), FormatError> {
    let io = |source| FormatError::Io { file: name.to_owned(), action: "open", source };
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(FormatError::UnknownFormat { file: name.to_owned(), found: "not a regular file".to_owned() });
    }
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    Ok((file, len))
}

/// Maps a file read-only. `name` is how messages call it.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn map(path: &Path, name: &str) -> Result<FileBytes, FormatError> {
    let (file, len) = open_regular(path, name)?;
    if len == 0 {
        return Ok(FileBytes::Owned(Vec::new())); // an empty range cannot be mapped on every system
    }
    // SAFETY: the map is private to this process and read-only. Another process that truncates the file while it is
    // mapped makes reads fault; no reader of mapped files can exclude that, and every reader of model files accepts it.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|source| FormatError::Io {
        file: name.to_owned(),
        action: "map",
        source,
    })?;
    Ok(FileBytes::Mapped { map, _file: file })
}

/// Reads a small side file (JSON) into memory; more than `limit` bytes are refused before any is read.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn read(path: &Path, name: &str, limit: u64) -> Result<Vec<u8>, FormatError> {
    let (file, len) = open_regular(path, name)?;
    check_size(name, len, limit)?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(|source| FormatError::Io {
        file: name.to_owned(),
        action: "read",
        source,
    })?;
    Ok(bytes)
}

/// Refuses a side file that is larger than any honest one.
pub(super) fn check_size(name: &str, len: u64, limit: u64) -> Result<(), FormatError> {
    if len <= limit {
        return Ok(());
    }
    Err(FormatError::Invalid {
        file: name.to_owned(),
        item: Item::Header,
        offset: 0,
        reason: format!("the file has {len} bytes where at most {limit} are plausible"),
        remedy: FETCH_AGAIN,
    })
}
