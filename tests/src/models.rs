//! Real models for tests: fetched into the user's cache when a test first asks for one, like `tersor fetch` does.

use tersor::fetch::{self, Located, Options};
use tersor_engine::format::Checkpoint;

/// Opens a model of `assets/models.toml`. Panics, saying what to do, where it cannot be had.
pub fn open(name: &str) -> Checkpoint {
    let located = fetch::locate(name, &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let checkpoint = match located {
        Located::Path(path) => Checkpoint::open(&path),
        Located::Embedded(files) => {
            Checkpoint::from_files(files.iter().map(|&(name, bytes)| (name.to_owned(), bytes.to_vec())).collect())
        }
    };
    checkpoint.unwrap_or_else(|error| panic!("{name}: {error}"))
}
