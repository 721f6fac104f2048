//! Names of models on the Hugging Face Hub, and which files of a repository are the model.

use crate::manifest;

/// What names a model on the Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    /// `organisation/name`.
    pub repo: String,
    /// Branch, tag or commit; the default branch when `None`.
    pub revision: Option<String>,
    /// The one file that is wanted, where a repository holds several models.
    pub file: Option<String>,
}

impl HubId {
    /// Reads `org/name[@revision][:file]`; `None` when the text has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, file) = match text.split_once(':') {
            Some((id, file)) => (id, Some(file)),
            None => (text, None),
        };
        let (repo, revision) = match text.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (text, None),
        };
        let (org, name) = repo.split_once('/')?;
        let word = |s: &str| {
            s.starts_with(|c: char| c.is_ascii_alphanumeric())
                && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let sound =
            word(org) && word(name) && revision.is_none_or(|r| !r.is_empty()) && file.is_none_or(manifest::is_inside);
        sound.then(|| Self {
            repo: repo.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        })
    }

    /// The revision, or the default branch.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

/// Chooses what to open and which files that needs, out of a repository's paths.
///
/// # Errors
/// Why nothing can be chosen.
pub fn choose<'a>(paths: &[&'a str], file: Option<&str>) -> Result<(String, Vec<&'a str>), String> {
    if let Some(file) = file {
        return match paths.iter().find(|p| **p == file) {
            Some(path) => Ok((file.to_owned(), vec![*path])),
            None => Err(format!("it holds no file {file:?}")),
        };
    }
    let top = |p: &&&str| !p.contains('/');
    let weights: Vec<&str> = paths.iter().filter(top).filter(|p| p.ends_with(".safetensors")).copied().collect();
    let shards: Vec<&str> = weights.iter().filter(|p| p.starts_with("model-") && p.contains("-of-")).copied().collect();
    let weights = if paths.contains(&"model.safetensors.index.json") && !shards.is_empty() {
        shards
    } else if weights.contains(&"model.safetensors") {
        vec!["model.safetensors"]
    } else {
        weights
    };
    if !weights.is_empty() {
        let beside = |p: &&&str| {
            let plain = !p.contains('/') && [".json", ".txt", ".jinja"].iter().any(|e| p.ends_with(e));
            plain || matches!(**p, "tokenizer.model" | "1_Pooling/config.json")
        };
        let chosen = weights.into_iter().chain(paths.iter().filter(beside).copied()).collect();
        return Ok((".".to_owned(), chosen));
    }
    let ggufs: Vec<&str> = paths.iter().filter(|p| p.ends_with(".gguf")).copied().collect();
    match ggufs.as_slice() {
        [] => Err("it holds neither safetensors nor GGUF files".to_owned()),
        [one] => Ok(((*one).to_owned(), vec![*one])),
        several => Err(format!("it holds several models ({})", several.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        let id = HubId::parse("org/na.me_1@v1/x:sub/q4.gguf").unwrap();
        assert_eq!((id.repo.as_str(), id.revision()), ("org/na.me_1", "v1/x"));
        assert_eq!(id.file.as_deref(), Some("sub/q4.gguf"));
        assert_eq!(HubId::parse("org/name").unwrap().revision(), "main");
        for no in
            ["smollm2", "C:/models/x", "./a/b", "../b", "a/b/c", "/a/b", "org/name:../x", "org/name@", "a b/c", ""]
        {
            assert_eq!(HubId::parse(no), None, "{no}");
        }
    }

    #[test]
    fn the_files_of_a_model_are_chosen() {
        let paths = [
            "README.md",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "consolidated.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "onnx/model.onnx",
            "pytorch_model.bin",
        ];
        let (open, chosen) = choose(&paths, None).unwrap();
        assert_eq!(open, ".");
        assert_eq!(
            chosen,
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "config.json",
                "model.safetensors.index.json",
                "tokenizer.json"
            ]
        );
        let several = ["a.q4.gguf", "a.q8.gguf"];
        assert!(choose(&several, None).unwrap_err().contains("a.q8.gguf"));
        assert_eq!(choose(&several, Some("a.q8.gguf")).unwrap().0, "a.q8.gguf");
        assert!(choose(&["a.bin"], None).is_err());
    }
}
