//! The tensors under `golden/` that other implementations computed.

use std::borrow::Cow;
#[cfg(not(target_family = "wasm"))]
use std::path::{Path, PathBuf};

use tersor_engine::format::{Checkpoint, TensorInfo, decode_f32};

/// Where a file under `golden/` is.
#[cfg(not(target_family = "wasm"))]
pub fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden").join(file)
}

/// A safetensors file under `golden/`.
#[derive(Debug)]
pub struct Tensors(Checkpoint);

impl Tensors {
    /// Opens it.
    ///
    /// # Panics
    /// If it is not there.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(file: &str) -> Self {
        Self(Checkpoint::open(&path(file)).unwrap_or_else(|error| panic!("{error}")))
    }

    /// `golden/attention/golden.safetensors`, part of the program, since a browser opens no files.
    ///
    /// # Panics
    /// If it is damaged.
    pub fn of_attention() -> Self {
        const BYTES: &[u8] = include_bytes!("../../golden/attention/golden.safetensors");
        let files = vec![("golden.safetensors".to_owned(), BYTES.to_vec())];
        Self(Checkpoint::from_files(files).unwrap_or_else(|error| panic!("{error}")))
    }

    fn read(&self, name: &str) -> (&TensorInfo, Cow<'_, [u8]>) {
        let found = self.0.read(name).unwrap_or_else(|error| panic!("{error}"));
        found.unwrap_or_else(|| panic!("{} has no {name}", self.0.name()))
    }

    fn numbers<T: bytemuck::AnyBitPattern>(&self, name: &str) -> Vec<T> {
        self.read(name).1.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
    }

    /// A tensor of floats.
    ///
    /// # Panics
    /// If it is not there, or has another type.
    pub fn f32s(&self, name: &str) -> Vec<f32> {
        let (info, bytes) = self.read(name);
        decode_f32(info.dtype, &bytes).expect("a tensor of floats")
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
