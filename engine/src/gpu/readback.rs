//! Reading what is on the device: small readbacks land in buffers that are kept, since every token takes one.

use super::{Buffer, Gpu, GpuError, Recorder, lock};
use futures::task::AtomicWaker;
use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Poll;

/// Bytes of a landing that is kept.
const KEPT_BYTES: u64 = 4096;

/// A buffer that the host can map, and who waits for it.
#[derive(Debug)]
pub(super) struct Landing {
    raw: wgpu::Buffer,
    mapping: Arc<Mapping>,
}

#[derive(Debug, Default)]
struct Mapping {
    /// What became of it; the text is an error's.
    result: Mutex<Option<Result<(), Cow<'static, str>>>>,
    waker: AtomicWaker,
}

/// Says once what became of a mapping; dropped without a word, as a lost device does, it says that.
struct Signal(Option<Arc<Mapping>>);

impl Signal {
    fn tell(&mut self, result: Result<(), Cow<'static, str>>) {
        if let Some(mapping) = self.0.take() {
            *lock(&mapping.result) = Some(result);
            mapping.waker.wake();
        }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        self.tell(Err("the device gave no answer".into()));
    }
}

/// Elements as bytes of a buffer, checked.
fn range_of<T>(buffer: &Buffer, first: u64, count: u64) -> Result<(u64, u64), GpuError> {
    let width = std::mem::size_of::<T>() as u64;
    let range = first.checked_mul(width).zip(count.checked_mul(width));
    range
        .filter(|(offset, bytes)| offset.checked_add(*bytes).is_some_and(|end| end <= buffer.size()))
        .ok_or_else(|| GpuError::Readback(format!("elements {first}+{count} of a buffer of {} bytes", buffer.size())))
}

impl Gpu {
    /// Reads `count` elements of type `T` from element `first` of a buffer, after everything submitted so far.
    ///
    /// # Errors
    /// If the range is outside the buffer, or the device is lost.
    pub async fn read<T: bytemuck::AnyBitPattern>(
        &self,
        buffer: &Buffer,
        first: u64,
        count: u64,
    ) -> Result<Vec<T>, GpuError> {
        let (offset, bytes) = range_of::<T>(buffer, first, count)?;
        self.read_raw(&buffer.inner.raw, offset, bytes).await
    }

    /// Bytes that were read back since the device was opened, whole words each time.
    pub fn bytes_read(&self) -> u64 {
        self.0.bytes_read.load(Ordering::Relaxed)
    }

    pub(super) async fn read_raw<T: bytemuck::AnyBitPattern>(
        &self,
        raw: &wgpu::Buffer,
        offset: u64,
        bytes: u64,
    ) -> Result<Vec<T>, GpuError> {
        self.check()?;
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let mut encoder = self.0.device.create_command_encoder(&Default::default());
        let landing = self.land(&mut encoder, raw, offset, bytes);
        self.0.queue.submit([encoder.finish()]);
        let mut out = Vec::new();
        // The bytes need no alignment.
        self.take(landing, offset, bytes, |data| {
            out = data.chunks_exact(std::mem::size_of::<T>()).map(bytemuck::pod_read_unaligned).collect();
        })
        .await?;
        Ok(out)
    }

    /// Records the copy of `bytes` from `offset` to where the host can read them.
    fn land(&self, encoder: &mut wgpu::CommandEncoder, raw: &wgpu::Buffer, offset: u64, bytes: u64) -> Landing {
        let (from, size) = words(offset, bytes);
        let kept = if size <= KEPT_BYTES { lock(&self.0.landings).pop() } else { None };
        let landing = kept.unwrap_or_else(|| Landing {
            raw: self.0.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("readback"),
                size: size.max(KEPT_BYTES),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
            mapping: Arc::default(),
        });
        encoder.copy_buffer_to_buffer(raw, from, &landing.raw, 0, size);
        self.0.bytes_read.fetch_add(size, Ordering::Relaxed);
        landing
    }

    /// Waits for the submitted copy and shows it.
    async fn take(&self, landing: Landing, offset: u64, bytes: u64, show: impl FnOnce(&[u8])) -> Result<(), GpuError> {
        let (from, size) = words(offset, bytes);
        let mut signal = Signal(Some(landing.mapping.clone()));
        landing.raw.map_async(wgpu::MapMode::Read, 0..size, move |result| {
            signal.tell(result.map_err(|error| error.to_string().into()));
        });
        self.poll();
        let mapped = poll_fn(|waiting| {
            landing.mapping.waker.register(waiting.waker());
            lock(&landing.mapping.result).take().map_or(Poll::Pending, Poll::Ready)
        });
        let mapped = mapped.await;
        self.check()?;
        mapped.map_err(|error| GpuError::Readback(error.into_owned()))?;
        let view = landing.raw.get_mapped_range(0..size).map_err(|error| GpuError::Readback(error.to_string()))?;
        let start = (offset - from) as usize;
        show(&view[start..start + bytes as usize]);
        drop(view);
        landing.raw.unmap();
        if landing.raw.size() == KEPT_BYTES {
            lock(&self.0.landings).push(landing);
        }
        Ok(())
    }
}

/// The whole words around `bytes` from `offset`: where they begin, and their bytes.
fn words(offset: u64, bytes: u64) -> (u64, u64) {
    let from = offset & !3;
    (from, (offset + bytes - from).next_multiple_of(4))
}

impl Recorder {
    /// [`Recorder::submit`], then waits for it and reads elements of a buffer from number `first` on into `out`, in one submission.
    ///
    /// # Errors
    /// If the range is outside the buffer, or the device is lost or has rejected something.
    pub async fn submit_into<T: bytemuck::Pod>(
        mut self,
        buffer: &Buffer,
        first: u64,
        out: &mut [T],
    ) -> Result<(), GpuError> {
        let (offset, bytes) = range_of::<T>(buffer, first, out.len() as u64)?;
        if bytes == 0 {
            return self.submit();
        }
        let gpu = self.gpu().clone();
        let landing = gpu.land(self.encoder(), &buffer.inner.raw, offset, bytes);
        self.submit()?;
        gpu.take(landing, offset, bytes, |data| bytemuck::cast_slice_mut(out).copy_from_slice(data)).await
    }
}
