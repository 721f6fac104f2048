//! The data under `golden/`: tensors and JSON files that other implementations computed.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
pub use tersor_kernel_tests::golden::{Tensors, path};

/// Where a file under `assets/` is.
pub fn asset(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets").join(file)
}

/// A JSON file under `golden/`.
///
/// # Panics
/// If it is not there, or says something else.
pub fn json<T: DeserializeOwned>(file: &str) -> T {
    let text = std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}
