//! Device buffers, counted by what they are for.

use super::Gpu;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a buffer is for; memory is reported by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Weights,
    KvCache,
    Activations,
}

/// Bytes on the device now and at most so far, by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    pub weights: u64,
    pub kv_cache: u64,
    pub activations: u64,
    pub peak: u64,
    /// What the adapter can use, if it says.
    pub limit: Option<u64>,
}

impl MemoryReport {
    pub fn total(&self) -> u64 {
        self.weights + self.kv_cache + self.activations
    }
}

#[derive(Debug, Default)]
pub(super) struct Accounting {
    used: [AtomicU64; 3],
    peak: AtomicU64,
}

impl Accounting {
    pub(super) fn add(&self, purpose: Purpose, bytes: u64) {
        self.used[purpose as usize].fetch_add(bytes, Ordering::Relaxed);
        self.peak.fetch_max(self.total(), Ordering::Relaxed);
    }

    pub(super) fn sub(&self, purpose: Purpose, bytes: u64) {
        self.used[purpose as usize].fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn reset_peak(&self) {
        self.peak.store(self.total(), Ordering::Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        self.used.iter().map(|u| u.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn report(&self, limit: Option<u64>) -> MemoryReport {
        let of = |p: Purpose| self.used[p as usize].load(Ordering::Relaxed);
        MemoryReport {
            weights: of(Purpose::Weights),
            kv_cache: of(Purpose::KvCache),
            activations: of(Purpose::Activations),
            peak: self.peak.load(Ordering::Relaxed),
            limit,
        }
    }
}

/// A storage buffer; cheap to clone, freed (or returned to the pool) with its last clone.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub(super) inner: Arc<BufferInner>,
    /// `inner.id`: finding a bind group again touches nothing but the handle.
    pub(super) id: u64,
    /// Bytes asked for; the raw buffer may be larger when it came from the pool.
    size: u64,
    /// It is not.
    exact: bool,
}

#[derive(Debug)]
pub(super) struct BufferInner {
    pub(super) raw: wgpu::Buffer,
    pub(super) id: u64,
    purpose: Purpose,
    /// Goes back to the pool, as it is, when nobody has it any more.
    pooled: AtomicBool,
    gpu: std::sync::Weak<super::Inner>,
    accounting: Arc<Accounting>,
}

impl BufferInner {
    pub(super) fn new(gpu: &Gpu, raw: wgpu::Buffer, id: u64, purpose: Purpose, pooled: bool) -> Self {
        let accounting = gpu.0.accounting.clone();
        accounting.add(purpose, raw.size());
        Self { raw, id, purpose, pooled: AtomicBool::new(pooled), gpu: Arc::downgrade(&gpu.0), accounting }
    }

    /// Leaves the pool: is freed when it is dropped.
    pub(super) fn retire(&self) {
        self.pooled.store(false, Ordering::Relaxed);
    }
}

impl Drop for BufferInner {
    fn drop(&mut self) {
        self.accounting.sub(self.purpose, self.raw.size());
        if let Some(gpu) = self.gpu.upgrade() {
            gpu.forget_buffer(self.id);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // The pool takes the last clone itself, so that lending a buffer again allocates nothing. (Two clones that are dropped at the
        // same moment may both see the other: the buffer is then freed and not lent again, which is no harm.)
        if self.inner.pooled.load(Ordering::Relaxed)
            && Arc::strong_count(&self.inner) == 1
            && let Some(gpu) = self.inner.gpu.upgrade()
        {
            gpu.pool_return(self.inner.clone());
        }
    }
}

impl Buffer {
    pub(super) fn new(inner: Arc<BufferInner>, size: u64) -> Self {
        Self { id: inner.id, size, exact: inner.raw.size() == size, inner }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The whole buffer as a binding.
    pub fn all(&self) -> BufferSlice {
        BufferSlice { buffer: self.clone(), offset: 0, size: self.size }
    }

    /// `size` bytes from `offset` as a binding; the offset must respect the device's storage offset alignment
    /// (256 bytes is always enough).
    pub fn slice(&self, offset: u64, size: u64) -> BufferSlice {
        BufferSlice { buffer: self.clone(), offset, size }
    }
}

/// A range of a buffer, to bind.
#[derive(Clone, Debug)]
pub struct BufferSlice {
    pub(super) buffer: Buffer,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl BufferSlice {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A range of a buffer that is lent to a dispatch. A [`BufferSlice`] counts as an owner of its buffer, and counting takes longer than
/// most of what a dispatch does.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    pub(super) buffer: &'a Buffer,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Binding<'_> {
    /// Whether it is all of a buffer, so that the buffer's number says everything.
    pub(super) fn is_all(&self) -> bool {
        self.buffer.exact && self.offset == 0 && self.size == self.buffer.size
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl<'a> From<&'a Buffer> for Binding<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Self { buffer, offset: 0, size: buffer.size }
    }
}

impl<'a> From<&&'a Buffer> for Binding<'a> {
    fn from(buffer: &&'a Buffer) -> Self {
        (*buffer).into()
    }
}

impl<'a> From<&'a BufferSlice> for Binding<'a> {
    fn from(slice: &'a BufferSlice) -> Self {
        Self { buffer: &slice.buffer, offset: slice.offset, size: slice.size }
    }
}

impl<'a> From<&Binding<'a>> for Binding<'a> {
    fn from(binding: &Binding<'a>) -> Self {
        *binding
    }
}

impl From<&Buffer> for BufferSlice {
    fn from(buffer: &Buffer) -> Self {
        buffer.all()
    }
}

impl From<Buffer> for BufferSlice {
    fn from(buffer: Buffer) -> Self {
        buffer.all()
    }
}
