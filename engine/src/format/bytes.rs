//! Where a checkpoint's bytes live: a memory map natively, an owned buffer in the browser.

use std::ops::Deref;

#[cfg(not(target_arch = "wasm32"))]
use std::{fs::File, io::Read, path::Path};

use super::error::{FETCH_AGAIN, FormatError, Item};

/// The whole contents of one file.
pub(super) enum FileBytes {
    Owned(Vec<u8>),
    #[cfg(not(target_arch = "wasm32"))]
    Mapped {
        map: memmap2::Mmap,
        /// Kept open so that the file is not deleted or replaced under the map on systems that lock open files.
        _file: File,
    },
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            #[cfg(not(target_arch = "wasm32"))]
            Self::Mapped { map, .. } => map,
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
