//! Device buffers, counted by what they are for.

use super::Gpu;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a buffer is for; memory is reported by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Weights,
    KvCache,
    Activations,
}

/// Bytes on the device now and at most so far, by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
pub struct Buffer(pub(super) Arc<BufferInner>);

#[derive(Debug)]
pub(super) struct BufferInner {
    pub(super) raw: wgpu::Buffer,
    pub(super) id: u64,
    /// Bytes asked for; the raw buffer may be larger when it came from the pool.
    pub(super) size: u64,
    pub(super) purpose: Purpose,
    pub(super) pooled: bool,
    pub(super) gpu: std::sync::Weak<super::Inner>,
    pub(super) accounting: Arc<Accounting>,
}

impl BufferInner {
    pub(super) fn new(gpu: &Gpu, raw: wgpu::Buffer, id: u64, size: u64, purpose: Purpose, pooled: bool) -> Self {
        let accounting = gpu.0.accounting.clone();
        if !pooled {
            accounting.add(purpose, raw.size()); // the pool's are counted as long as the pool has them
        }
        Self { raw, id, size, purpose, pooled, gpu: Arc::downgrade(&gpu.0), accounting }
    }
}

impl Drop for BufferInner {
    fn drop(&mut self) {
        match self.gpu.upgrade() {
            Some(gpu) if self.pooled => gpu.pool_return(self.raw.clone(), self.id),
            gpu => {
                self.accounting.sub(self.purpose, self.raw.size());
                if let Some(gpu) = gpu {
                    gpu.forget_buffer(self.id);
                }
            }
        }
    }
}

impl Buffer {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// The whole buffer as a binding.
    pub fn all(&self) -> BufferSlice {
        BufferSlice { buffer: self.clone(), offset: 0, size: self.0.size }
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
