//! A set of files by name: a folder on disk, what a browser handed over, or what a file carries inside itself.

use std::collections::BTreeMap;

#[cfg(not(target_arch = "wasm32"))]
use std::path::PathBuf;

use super::bytes::{self, FileBytes};
use super::error::{FormatError, Item};

/// Files side by side.
pub(super) enum Folder {
    #[cfg(not(target_arch = "wasm32"))]
    Disk(PathBuf),
    /// Contents by file name; taking a file removes it.
    Memory {
        /// What the folder they came from is called, if that is known.
        name: Option<String>,
        files: BTreeMap<String, FileBytes>,
    },
    /// The same for files that the file of this label carries in its header.
    Embedded(String, BTreeMap<String, FileBytes>),
}

impl Folder {
    /// Files in memory. Folders in their names are dropped (a browser's folder upload names them `folder/config.json`); the
    /// innermost one that all share is what the model is called.
    pub fn from_files(files: Vec<(String, FileBytes)>) -> Result<Self, FormatError> {
        let folder = shared_folder(files.iter().map(|(path, _)| path.as_str()));
        let mut by_name = BTreeMap::new();
        for (path, contents) in files {
            let name = path.rsplit(['/', '\\']).next().unwrap_or(&path).to_owned();
            if by_name.insert(name, contents).is_some() {
                return Err(FormatError::Invalid {
                    file: path,
                    item: Item::Header,
                    offset: 0,
                    reason: "a second file has this name".to_owned(),
                    remedy: "hand over the files of one model only",
                });
            }
        }
        Ok(Self::Memory { name: folder, files: by_name })
    }

    /// How messages call a file.
    pub fn label(&self, name: &str) -> String {
        match self {
            #[cfg(not(target_arch = "wasm32"))]
            Self::Disk(path) => path.join(name).display().to_string(),
            Self::Memory { .. } => name.to_owned(),
            Self::Embedded(file, _) => format!("{file}: {name}"),
        }
    }

    /// How messages call the folder.
    pub fn folder_label(&self) -> String {
        match self {
            #[cfg(not(target_arch = "wasm32"))]
            Self::Disk(path) => path.display().to_string(),
            Self::Memory { name: Some(name), .. } => name.clone(),
            Self::Memory { files, .. } => format!("the {} files handed over", files.len()),
            Self::Embedded(file, _) => file.clone(),
        }
    }

    /// True if there is such a file (a broken link counts: opening it then says what is wrong).
    pub fn contains(&self, name: &str) -> bool {
        match self {
            #[cfg(not(target_arch = "wasm32"))]
            Self::Disk(path) => path.join(name).symlink_metadata().is_ok(),
            Self::Memory { files, .. } | Self::Embedded(_, files) => files.contains_key(name),
        }
    }

    /// Names of all files, sorted.
    pub fn names(&self) -> Result<Vec<String>, FormatError> {
        match self {
            #[cfg(not(target_arch = "wasm32"))]
            Self::Disk(path) => {
                let io = |source| FormatError::Io { file: path.display().to_string(), action: "list", source };
                let mut names = Vec::new();
                for entry in std::fs::read_dir(path).map_err(io)? {
                    names.extend(entry.map_err(io)?.file_name().into_string()); // no model file has a name beyond UTF-8
                }
                names.sort();
                Ok(names)
            }
            Self::Memory { files, .. } | Self::Embedded(_, files) => Ok(files.keys().cloned().collect()),
        }
    }

    /// The contents of a model file: mapped, or taken out of memory.
    pub fn weights(&mut self, name: &str) -> Result<FileBytes, FormatError> {
        let label = self.label(name);
        match self {
            #[cfg(not(target_arch = "wasm32"))]
            Self::Disk(path) => bytes::map(&path.join(name), &label),
            Self::Memory { files, .. } | Self::Embedded(_, files) => {
                files.remove(name).ok_or_else(|| FormatError::Missing {
                    file: label,
                    missing: "the file itself".to_owned(),
                    remedy: "hand it over together with the others",
                })
            }
        }
    }

    /// Whether a side file of at most `limit` bytes is there and has this text in it. It stays where it is.
    pub fn mentions(&self, name: &str, text: &str, limit: u64) -> Result<bool, FormatError> {
        if !self.contains(name) {
            return Ok(false);
        }
        let has = |bytes: &[u8]| bytes.windows(text.len()).any(|at| at == text.as_bytes());
        match self {
            #[cfg(not(target_arch = "wasm32"))]
            Self::Disk(path) => Ok(has(&bytes::read(&path.join(name), &self.label(name), limit)?)),
            Self::Memory { files, .. } | Self::Embedded(_, files) => match files.get(name) {
                Some(file) => {
                    bytes::check_size(name, file.size(), limit)?;
                    Ok(has(&file.read(name, 0, file.size())?))
                }
                None => Ok(false),
            },
        }
    }

    /// A side file of at most `limit` bytes, if it exists.
    pub fn side_file(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, FormatError> {
        if !self.contains(name) {
            return Ok(None);
        }
        let label = self.label(name);
        match self {
            #[cfg(not(target_arch = "wasm32"))]
            Self::Disk(path) => bytes::read(&path.join(name), &label, limit).map(Some),
            Self::Memory { files, .. } | Self::Embedded(_, files) => {
                let Some(contents) = files.remove(name) else { return Ok(None) };
                bytes::check_size(&label, contents.size(), limit)?;
                if let FileBytes::Owned(bytes) = contents {
                    return Ok(Some(bytes));
                }
                contents.read(&label, 0, contents.size()).map(|bytes| Some(bytes.into_owned()))
            }
        }
    }
}

/// The last part of the longest path that all files lie in.
fn shared_folder<'a>(mut paths: impl Iterator<Item = &'a str>) -> Option<String> {
    let folders = |path: &'a str| -> Vec<&'a str> {
        let mut parts: Vec<&str> = path.split(['/', '\\']).collect();
        parts.pop();
        parts
    };
    let first = folders(paths.next()?);
    let shared = paths.fold(first.len(), |shared, path| {
        first[..shared].iter().zip(folders(path)).take_while(|(a, b)| **a == *b).count()
    });
    first[..shared].iter().rev().find(|part| !matches!(**part, "" | "." | "..")).map(|part| (*part).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_memory_are_called_like_the_folder_they_share() {
        let label = |names: &[&str]| {
            Folder::from_files(names.iter().map(|name| ((*name).to_owned(), FileBytes::Owned(Vec::new()))).collect())
                .unwrap()
                .folder_label()
        };
        assert_eq!(label(&["tiny/config.json", "tiny/model.safetensors"]), "tiny");
        assert_eq!(label(&["./models/tiny/config.json", "./models/tiny/onnx/a"]), "tiny");
        assert_eq!(label(&["C:\\m\\config.json", "C:\\m\\x"]), "m");
        assert_eq!(label(&["a/config.json", "b/x"]), "the 2 files handed over");
        assert_eq!(label(&["config.json", "x"]), "the 2 files handed over");
    }
}
