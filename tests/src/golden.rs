//! The data under `golden/`: tensors and JSON files that other implementations computed.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tersor_engine::format::{Checkpoint, decode_f32};

/// Where a file under `golden/` is.
pub fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(file)
}

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

/// A safetensors file under `golden/`.
#[derive(Debug)]
pub struct Tensors(Checkpoint);

impl Tensors {
    /// Opens it.
    ///
    /// # Panics
    /// If it is not there.
    pub fn open(file: &str) -> Self {
        Self(Checkpoint::open(&path(file)).unwrap_or_else(|error| panic!("{error}")))
    }

    fn bytes(&self, name: &str) -> &[u8] {
        self.0.tensor(name).unwrap_or_else(|| panic!("{} has no {name}", self.0.name())).1
    }

    fn numbers<T: bytemuck::AnyBitPattern>(&self, name: &str) -> Vec<T> {
        self.bytes(name).chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
    }

    /// A tensor of floats.
    ///
    /// # Panics
    /// If it is not there, or has another type.
    pub fn f32s(&self, name: &str) -> Vec<f32> {
        let (info, bytes) = self.0.tensor(name).unwrap_or_else(|| panic!("{} has no {name}", self.0.name()));
        decode_f32(info.dtype, bytes).expect("a tensor of floats")
    }

    /// A tensor of 64-bit floats.
    ///
    /// # Panics
    /// If it is not there.
    pub fn f64s(&self, name: &str) -> Vec<f64> {
        self.numbers(name)
    }

    /// A tensor of 32-bit integers that are not negative.
    ///
    /// # Panics
    /// If it is not there.
    pub fn u32s(&self, name: &str) -> Vec<u32> {
        self.numbers(name)
    }

    /// A tensor of 16-bit integers.
    ///
    /// # Panics
    /// If it is not there.
    pub fn u16s(&self, name: &str) -> Vec<u16> {
        self.numbers(name)
    }
}
