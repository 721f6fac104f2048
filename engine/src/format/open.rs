//! From a path or a set of files to a [`Checkpoint`]: tells the containers apart and gathers what belongs together.

#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use super::bytes::{ByteSource, FileBytes};
use super::error::FormatError;
use super::folder::Folder;
use super::gguf_parts::{PartName, open_gguf};
use super::hugging_face::{CONFIG_LIMIT, open_safetensors, open_sharded, open_together};
use super::{Checkpoint, gguf, safetensors};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What `config.json` mentions where all safetensors files of a folder are one model without an index.
const SPLIT_WITHOUT_INDEX: &str = "\"dfloat11_config\"";
const INDEX_SUFFIX: &str = ".safetensors.index.json";

impl Checkpoint {
    /// Opens a `.gguf`, a `.safetensors`, a `*.safetensors.index.json` or a folder that holds one of them. Files are
    /// memory-mapped; the JSON files beside a safetensors file are read with it, and so are the other parts of a split
    /// GGUF.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let label = path.display().to_string();
        let io = |source| FormatError::Io { file: label.clone(), action: "open", source };
        if std::fs::metadata(path).map_err(io)?.is_dir() {
            let absolute = path.canonicalize().map_err(io)?; // "." has no name
            let name = absolute.file_name().map_or_else(|| label.clone(), |name| name.to_string_lossy().into_owned());
            return open_folder(Folder::Disk(path.to_owned()), name);
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(FormatError::UnknownFormat { file: label, found: "its name is not UTF-8".to_owned() });
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        open_file(Folder::Disk(folder), name)
    }

    /// Opens a model from names and contents: one `.gguf`, or the files of a Hugging Face folder. Where their names begin with
    /// a folder (`tiny/config.json`), the model is called like it.
    pub fn from_files(files: Vec<(String, Vec<u8>)>) -> Result<Self, FormatError> {
        open_files(files.into_iter().map(|(name, bytes)| (name, FileBytes::Owned(bytes))).collect())
    }

    /// [`Checkpoint::from_files`] for files that are read piece by piece: the headers now, a tensor when it is asked for.
    pub fn from_sources(files: Vec<(String, Box<dyn ByteSource>)>) -> Result<Self, FormatError> {
        open_files(files.into_iter().map(|(name, source)| (name, FileBytes::Source(source))).collect())
    }
}

fn open_files(files: Vec<(String, FileBytes)>) -> Result<Checkpoint, FormatError> {
    let only = if let [(name, _)] = &files[..] { Some(name.clone()) } else { None };
    let folder = Folder::from_files(files)?;
    match (only, folder.names()?.first()) {
        (Some(_), Some(name)) => {
            let name = name.clone();
            open_file(folder, &name)
        }
        _ => {
            let name = folder.folder_label();
            open_folder(folder, name)
        }
    }
}

/// Finds the model among the files of a folder.
fn open_folder(folder: Folder, name: String) -> Result<Checkpoint, FormatError> {
    if !folder.contains(INDEX) && folder.mentions("config.json", SPLIT_WITHOUT_INDEX, CONFIG_LIMIT)? {
        let files: Vec<String> = folder.names()?.into_iter().filter(|name| name.ends_with(".safetensors")).collect();
        if files.len() > 1 {
            return open_together(folder, name, &files);
        }
    }
    if folder.contains(SINGLE) {
        return open_safetensors(folder, name, SINGLE, None);
    }
    if folder.contains(INDEX) {
        return open_sharded(folder, name, INDEX);
    }
    let names = folder.names()?;
    let ending = |suffix: &str| names.iter().filter(|name| name.ends_with(suffix)).collect::<Vec<_>>();
    let indices = ending(INDEX_SUFFIX);
    if let [index] = indices[..] {
        return open_sharded(folder, name, index);
    }
    let (single, mut ggufs) = (ending(".safetensors"), ending(".gguf"));
    // the later parts of a split file are found through the first
    ggufs.retain(|name| PartName::parse(name).is_none_or(|part| part.number == 1));
    match (&single[..], &ggufs[..]) {
        ([file], _) => open_safetensors(folder, name, file, None),
        ([], [file]) => open_file(folder, file),
        ([], []) => Err(FormatError::Missing {
            file: folder.folder_label(),
            missing: "a .safetensors or .gguf file".to_owned(),
            remedy: if names.iter().any(|name| name.ends_with(".bin") || name.ends_with(".pth")) {
                "PyTorch pickles are not read: save the model anew with save_pretrained(…, safe_serialization=True)"
            } else {
                "name the folder or file of a model"
            },
        }),
        _ => Err(FormatError::Missing {
            file: folder.folder_label(),
            missing: format!("{INDEX}, which says how the {} model files belong together,", single.len() + ggufs.len()),
            remedy: "name the one file that is meant",
        }),
    }
}

/// Opens the file with this name, by what it contains.
fn open_file(mut folder: Folder, name: &str) -> Result<Checkpoint, FormatError> {
    if name.ends_with(INDEX_SUFFIX) {
        return open_sharded(folder, name.to_owned(), name);
    }
    let bytes = folder.weights(name)?;
    let label = folder.label(name);
    let start = bytes.read(&label, 0, bytes.size().min(SNIFFED))?.into_owned();
    if start.starts_with(&gguf::MAGIC) {
        return open_gguf(folder, name, bytes);
    }
    if let Some(found) = foreign(&start) {
        return Err(FormatError::UnknownFormat { file: folder.label(name), found: found.to_owned() });
    }
    // what its name claims, it must be: the parser then says what is wrong with it
    if name.ends_with(".gguf") {
        return open_gguf(folder, name, bytes);
    }
    if name.ends_with(".safetensors") || safetensors::sniff(&start) {
        return open_safetensors(folder, name.to_owned(), name, Some(bytes));
    }
    let found = format!("it begins with {:02x?}", &start[..start.len().min(8)]);
    Err(FormatError::UnknownFormat { file: folder.label(name), found })
}

/// Bytes that tell what a file is.
const SNIFFED: u64 = 64;

/// What people hand over by mistake.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 6] = [
        (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` in its repository"),
        (b"PK\x03\x04", "a zip archive, probably a PyTorch pickle"),
        (b"\x80\x02", "a Python pickle"),
        (b"<!DOCTYPE", "a web page: the download went wrong"),
        (b"<html", "a web page: the download went wrong"),
        (b"{", "JSON text"),
    ];
    if bytes.is_empty() {
        return Some("it is empty");
    }
    KNOWN.iter().find(|(start, _)| bytes.starts_with(start)).map(|&(_, what)| what)
}
