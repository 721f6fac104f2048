//! Names for models: what the app calls a model, and the opened files behind it.
//!
//! The app names a model by its [`Origin`] in every command, as a path. Where the engine works (a thread, or a Web Worker) the
//! [`Library`] puts the opened files in its place; only a real path goes through as it is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tersor_engine::format::Checkpoint;
use tersor_engine::session::{Command, Source};

/// Where the app got a model from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A model of the manifest.
    Named(String),
    /// A file or folder of this machine.
    Path(PathBuf),
    /// Files handed over in a browser, which gives no access to paths.
    Handed(String),
}

impl Origin {
    /// What people call it.
    pub fn name(&self) -> String {
        match self {
            Self::Named(name) | Self::Handed(name) => name.clone(),
            Self::Path(path) => {
                path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
            }
        }
    }

    /// How commands name it.
    pub fn source(&self) -> Source {
        Source::Path(self.key())
    }

    fn key(&self) -> PathBuf {
        match self {
            Self::Named(name) => PathBuf::from(format!("model:{name}")),
            Self::Handed(name) => PathBuf::from(format!("handed:{name}")),
            Self::Path(path) => path.clone(),
        }
    }
}

/// The models that stand behind names.
#[derive(Default)]
pub struct Library {
    models: HashMap<PathBuf, Source>,
}

impl Library {
    /// Puts an opened model behind a name.
    pub fn open(&mut self, origin: &Origin, checkpoint: Checkpoint) {
        self.models.insert(origin.key(), Source::Open(checkpoint));
    }

    /// Puts a path behind a name.
    pub fn place(&mut self, origin: &Origin, path: PathBuf) {
        self.models.insert(origin.key(), Source::Path(path));
    }

    /// Forgets what is behind a name.
    pub fn close(&mut self, origin: &Origin) {
        self.models.remove(&origin.key());
    }

    /// Whether a name is known.
    pub fn has(&self, origin: &Origin) -> bool {
        self.models.contains_key(&origin.key())
    }

    /// Puts the models in the place of their names.
    pub fn resolve(&self, command: &mut Command) {
        for source in sources(command) {
            if let Source::Path(path) = source
                && let Some(found) = self.models.get(path.as_path() as &Path)
            {
                *source = found.clone();
            }
        }
    }
}

/// The models that a command names.
fn sources(command: &mut Command) -> Vec<&mut Source> {
    match command {
        Command::Load(command) => vec![&mut command.source],
        Command::Inspect(command) => vec![&mut command.source],
        Command::Compare(command) => vec![&mut command.source],
        Command::Evaluate(command) => std::iter::once(&mut command.source).chain(&mut command.against).collect(),
        Command::Compress(command) => vec![&mut command.source],
        Command::Embed(command) => vec![&mut command.source],
        Command::BenchModel(command) => vec![&mut command.source],
        Command::Adapters
        | Command::Unload(_)
        | Command::Generate(_)
        | Command::Score(_)
        | Command::Attend(_)
        | Command::Bench(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tersor_engine::session::{Evaluate, Inspect, Text};

    #[test]
    fn names_become_models_and_paths_stay() {
        let mut library = Library::default();
        let (named, file) = (Origin::Named("m".into()), Origin::Path("m.gguf".into()));
        library.place(&named, "/cache/m.gguf".into());
        assert!(library.has(&named) && !library.has(&file));
        let text = Text { name: String::new(), text: String::new() };
        let mut command = Command::Evaluate(Evaluate {
            source: named.source(),
            recipe: None,
            against: Some(file.source()),
            rotation: None,
            text,
            context: 2,
            windows: None,
            attention: None,
            calibration: tersor_engine::session::Calibration::default(),
        });
        library.resolve(&mut command);
        let Command::Evaluate(command) = command else { panic!() };
        assert_eq!(command.source, Source::Path("/cache/m.gguf".into()));
        assert_eq!(command.against, Some(Source::Path("m.gguf".into())));
        // A file that happens to be called like a model of the manifest is still that file.
        let mut command = Command::Inspect(Inspect { source: Source::Path("m".into()), tensor: None });
        library.resolve(&mut command);
        assert_eq!(command, Command::Inspect(Inspect { source: Source::Path("m".into()), tensor: None }));
    }
}
