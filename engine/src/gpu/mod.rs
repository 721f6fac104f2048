//! The device: adapter choice, tiers, buffers, pipelines, recording, timing, loss.
//!
//! In: kernels' names and options, bytes. Out: bytes. Everything is async where a browser needs it to be; natively the
//! futures complete by polling the device on the calling thread. Device errors never panic: they surface as
//! [`GpuError`] from the next call that submits, allocates or reads.

mod adapter;
mod buffer;
mod error;
mod kernel;
mod profile;
mod readback;
mod recorder;
mod tape;
mod tuning;

pub use adapter::{AdapterSummary, LimitsChoice, Tier, adapters, chosen};
pub use buffer::{Binding, Buffer, BufferSlice, MemoryReport, Purpose};
pub use error::GpuError;
pub use kernel::Kernel;
pub use profile::KernelTime;
pub(crate) use recorder::MAX_BINDINGS;
pub use recorder::Recorder;
pub use tape::Tape;
pub use tersor_shaders::{BindingKind, KernelInfo, OptionValue};
pub use tuning::{Tune, Tuning};

use buffer::{Accounting, BufferInner};
use kernel::Kernels;
use profile::Timeline;
use readback::Landing;
use recorder::BindGroups;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tuning::Table;

/// Bytes of one `write_buffer` while uploading: bounds what the browser's heap must hold at once.
const UPLOAD_CHUNK: usize = 4 << 20;

/// How to choose and open the device.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Index, or part of the adapter's name in any case; `None`: the most capable.
    pub adapter: Option<String>,
    /// Highest tier to use; `None`: all that the adapter has.
    pub tier: Option<Tier>,
    pub limits: LimitsChoice,
    /// Bytes that buffers may take together; `None`: what the adapter says it has.
    pub memory: Option<u64>,
    /// When variants of kernels are timed against one another.
    pub tune: Tune,
    /// What was found by that before.
    pub tuning: Tuning,
}

impl GpuOptions {
    /// Reads `TERSOR_ADAPTER`, `TERSOR_TIER`, `TERSOR_LIMITS`, `TERSOR_MEMORY` (bytes) and `TERSOR_TUNE` where they are set.
    ///
    /// # Errors
    /// [`GpuError::BadSetting`] names the variable and what it takes.
    pub fn from_env() -> Result<Self, GpuError> {
        let get = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let memory = get("TERSOR_MEMORY").map(|value| {
            let bad =
                GpuError::BadSetting { variable: "TERSOR_MEMORY", value: value.clone(), allowed: "a number of bytes" };
            value.parse::<u64>().map_err(|_| bad)
        });
        Ok(Self {
            adapter: get("TERSOR_ADAPTER"),
            tier: get("TERSOR_TIER").map(|t| Tier::parse(&t)).transpose()?,
            limits: get("TERSOR_LIMITS").map(|l| LimitsChoice::parse(&l)).transpose()?.unwrap_or_default(),
            memory: memory.transpose()?,
            tune: get("TERSOR_TUNE").map(|t| Tune::parse(&t)).transpose()?.unwrap_or_default(),
            tuning: Tuning::default(),
        })
    }
}

/// An open device; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    limits: wgpu::Limits,
    tier: Tier,
    timestamps: bool,
    memory_limit: Option<u64>,
    uniforms: wgpu::Buffer,
    none: OnceLock<Buffer>,
    kernels: Mutex<Kernels>,
    bind_groups: Mutex<BindGroups>,
    /// Buffers freed since the bind-group cache was last cleaned.
    dead: Mutex<Vec<u64>>,
    /// Free pooled buffers by size class.
    pool: Mutex<HashMap<u64, Vec<Arc<BufferInner>>>>,
    /// Parameters of submitted recordings: their memory serves the next.
    arenas: Mutex<Vec<Vec<u8>>>,
    /// Where small readbacks land.
    landings: Mutex<Vec<Landing>>,
    bytes_read: AtomicU64,
    accounting: Arc<Accounting>,
    ids: AtomicU64,
    fault: Arc<Mutex<Option<GpuError>>>,
    profiling: AtomicBool,
    timelines: Mutex<Vec<Timeline>>,
    tuning: Mutex<Table>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these maps and counters consistent: go on with them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn pool_return(&self, buffer: Arc<BufferInner>) {
        lock(&self.pool).entry(buffer.raw.size()).or_default().push(buffer);
    }

    fn forget_buffer(&self, id: u64) {
        lock(&self.dead).push(id);
    }
}

impl Gpu {
    /// Chooses an adapter and opens a device with all the limits and the tier's features that it has.
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`], [`GpuError::UnknownAdapter`] or [`GpuError::DeviceRequest`].
    pub async fn new(options: GpuOptions) -> Result<Self, GpuError> {
        let adapter = adapter::choose(options.adapter.as_deref()).await?;
        let info = adapter.get_info();
        let tier = adapter::tier_of(&adapter).intersect(options.tier.unwrap_or(Tier { f16: true, subgroup: true }));
        let timestamps = adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let mut features = wgpu::Features::empty();
        features.set(wgpu::Features::SHADER_F16, tier.f16);
        features.set(wgpu::Features::SUBGROUP, tier.subgroup);
        features.set(wgpu::Features::TIMESTAMP_QUERY, timestamps);
        let limits = match options.limits {
            LimitsChoice::Adapter => adapter.limits(),
            LimitsChoice::WebgpuDefault => wgpu::Limits::default(),
        };
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("tersor"),
                required_features: features,
                required_limits: limits,
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            })
            .await
            .map_err(|e| GpuError::DeviceRequest { adapter: info.name.clone(), reason: e.to_string() })?;

        let fault = Arc::new(Mutex::new(None));
        let sink = fault.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let error = match error {
                wgpu::Error::OutOfMemory { .. } => {
                    GpuError::OutOfMemory { label: "a buffer".into(), bytes: 0, in_use: 0, limit: "unknown".into() }
                }
                other => GpuError::Validation(other.to_string()),
            };
            lock(&sink).get_or_insert(error);
        }));
        let sink = fault.clone();
        device.set_device_lost_callback(move |reason, message| {
            let reason = format!("{reason:?}: {message}");
            *lock(&sink) = Some(GpuError::DeviceLost { reason });
        });
        let uniforms = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("uniform arena"),
            size: recorder::ARENA_BYTES,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        // Other kernels, or another driver, and what was found means nothing.
        let (version, name) = (env!("CARGO_PKG_VERSION"), adapter::name(&info));
        let place =
            format!("tersor {version}, {:?} {name}, {} {}, {tier}", info.backend, info.driver, info.driver_info);
        let tuning = Mutex::new(Table::new(options.tune, options.tuning, place));
        Ok(Self(Arc::new(Inner {
            tuning,
            limits: device.limits(),
            memory_limit: options.memory.or_else(|| adapter::memory_of(&adapter)),
            device,
            queue,
            info,
            tier,
            timestamps,
            uniforms,
            none: OnceLock::new(),
            kernels: Mutex::default(),
            bind_groups: Mutex::default(),
            dead: Mutex::default(),
            pool: Mutex::default(),
            arenas: Mutex::default(),
            landings: Mutex::default(),
            bytes_read: AtomicU64::new(0),
            accounting: Arc::default(),
            ids: AtomicU64::new(1),
            fault,
            profiling: AtomicBool::new(false),
            timelines: Mutex::default(),
        })))
    }

    pub fn tier(&self) -> Tier {
        self.0.tier
    }

    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.0.info
    }

    pub fn limits(&self) -> &wgpu::Limits {
        &self.0.limits
    }

    /// Smallest and largest subgroup; `None` outside the subgroup tier.
    pub fn subgroup_size(&self) -> Option<[u32; 2]> {
        self.0.tier.subgroup.then_some([self.0.info.subgroup_min_size, self.0.info.subgroup_max_size])
    }

    /// A software adapter: shaders run on the CPU, where barriers and workgroup memory are slow and caches are large.
    pub fn is_cpu(&self) -> bool {
        self.0.info.device_type == wgpu::DeviceType::Cpu
    }

    /// "Vulkan llvmpipe (…)": for reports.
    pub fn name(&self) -> String {
        format!("{:?} {}", self.0.info.backend, adapter::name(&self.0.info))
    }

    /// Device memory in use, and at most so far.
    pub fn memory(&self) -> MemoryReport {
        self.0.accounting.report(self.0.memory_limit)
    }

    /// Frees the pool, and counts the peak anew from what is in use now.
    pub fn reset_peak(&self) {
        self.trim();
        self.0.accounting.reset_peak();
    }

    /// Work that one submission may hold: about 100 ms on a slow device of its kind.
    pub(crate) fn flops_per_submission(&self) -> u64 {
        match self.0.info.device_type {
            wgpu::DeviceType::Cpu => 1_000_000_000,
            wgpu::DeviceType::DiscreteGpu => 100_000_000_000,
            _ => 20_000_000_000,
        }
    }

    fn next_id(&self) -> u64 {
        self.0.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Reports what the device has complained of since the last call. A lost device stays lost.
    ///
    /// # Errors
    /// The first complaint.
    pub fn check(&self) -> Result<(), GpuError> {
        if lock(&self.0.fault).is_none() {
            return Ok(());
        }
        // A device that was lost may complain of what it is asked to do before it says that it is lost.
        #[cfg(not(target_arch = "wasm32"))]
        let _ = self.0.device.poll(wgpu::PollType::Poll);
        let mut fault = lock(&self.0.fault);
        match &*fault {
            None => Ok(()),
            Some(GpuError::DeviceLost { reason }) => Err(GpuError::DeviceLost { reason: reason.clone() }),
            Some(_) => Err(fault.take().unwrap_or(GpuError::NoAdapter)),
        }
    }

    /// Destroys the device, as a driver reset would (for tests of recovery).
    pub fn destroy(&self) {
        self.0.device.destroy();
    }

    /// A zeroed storage buffer of `bytes` (rounded up to 4).
    ///
    /// # Errors
    /// [`GpuError::BufferTooLarge`] or [`GpuError::OutOfMemory`].
    pub fn storage(&self, label: &str, bytes: u64, purpose: Purpose) -> Result<Buffer, GpuError> {
        let size = bytes.max(4).next_multiple_of(4);
        let raw = self.allocate(label, size)?;
        Ok(Buffer::new(Arc::new(BufferInner::new(self, raw, self.next_id(), purpose, false)), size))
    }

    /// Makes room for `size` bytes, out of the pool's unused buffers if need be. The caller counts them.
    fn allocate(&self, label: &str, size: u64) -> Result<wgpu::Buffer, GpuError> {
        let limit = self.0.limits.max_buffer_size;
        if size > limit {
            return Err(GpuError::BufferTooLarge { label: label.to_owned(), bytes: size, limit });
        }
        let full = || self.0.memory_limit.is_some_and(|l| self.0.accounting.total() + size > l);
        let refuse = || GpuError::OutOfMemory {
            label: label.to_owned(),
            bytes: size,
            in_use: self.0.accounting.total(),
            limit: self.0.memory_limit.map_or("unknown".into(), |l| format!("{l} bytes")),
        };
        if full() {
            self.trim();
        }
        if full() {
            return Err(refuse());
        }
        let scope = self.0.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw = self.0.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        // Natively the answer is there at once; in a browser it comes later, to the next `check`.
        if let Some(Some(_)) = futures::FutureExt::now_or_never(scope.pop()) {
            return Err(refuse());
        }
        Ok(raw)
    }

    /// An activation buffer of at least `bytes` from the pool. Its content is undefined, and what a recorder does with it must
    /// be done within one recording: another one may get it as soon as it is dropped.
    ///
    /// # Errors
    /// As [`Gpu::storage`].
    pub fn scratch(&self, label: &str, bytes: u64) -> Result<Buffer, GpuError> {
        // Size classes of a sixteenth of a power of two: at most 12.5 % unused.
        let granule = (bytes.max(4096).next_power_of_two() / 16).max(256);
        let class = bytes.max(4).next_multiple_of(granule);
        let free = lock(&self.0.pool).get_mut(&class).and_then(Vec::pop);
        let inner = match free {
            Some(found) => found,
            None => {
                let raw = self.allocate(label, class)?;
                Arc::new(BufferInner::new(self, raw, self.next_id(), Purpose::Activations, true))
            }
        };
        Ok(Buffer::new(inner, bytes.max(4).next_multiple_of(4)))
    }

    /// Frees the pool's unused buffers.
    pub fn trim(&self) {
        let freed = std::mem::take(&mut *lock(&self.0.pool));
        freed.values().flatten().for_each(|buffer| buffer.retire());
    }

    /// Makes a storage buffer with `data` in it, written in chunks.
    ///
    /// # Errors
    /// As [`Gpu::storage`].
    pub fn upload<T: bytemuck::NoUninit>(&self, label: &str, data: &[T], purpose: Purpose) -> Result<Buffer, GpuError> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let buffer = self.storage(label, bytes.len() as u64, purpose)?;
        self.write(&buffer, 0, bytes);
        Ok(buffer)
    }

    /// Writes bytes into a buffer at `offset` (a multiple of 4); a ragged tail is padded with zeros.
    pub fn write<T: bytemuck::NoUninit>(&self, buffer: &Buffer, offset: u64, data: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let whole = bytes.len() & !3;
        let mut at = offset;
        for chunk in bytes[..whole].chunks(UPLOAD_CHUNK) {
            self.0.queue.write_buffer(&buffer.inner.raw, at, chunk);
            at += chunk.len() as u64;
        }
        if whole < bytes.len() {
            let mut tail = [0u8; 4];
            tail[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.0.queue.write_buffer(&buffer.inner.raw, at, &tail);
        }
    }

    /// A small buffer to bind where a variant of a kernel reads nothing.
    ///
    /// # Errors
    /// As [`Gpu::storage`].
    pub fn none(&self) -> Result<&Buffer, GpuError> {
        if let Some(buffer) = self.0.none.get() {
            return Ok(buffer);
        }
        let buffer = self.storage("none", 256, Purpose::Activations)?;
        // Another thread may have been first.
        Ok(self.0.none.get_or_init(|| buffer))
    }

    /// The kernel `name` ("linear/matvec") with these options; compiled at first use, then kept.
    ///
    /// # Errors
    /// If the shader library has no such permutation, or the driver rejects it.
    pub fn kernel(&self, name: &str, options: &[(&str, OptionValue)]) -> Result<Kernel, GpuError> {
        if let Some(kernel) = lock(&self.0.kernels).get(name, options) {
            return Ok(kernel.clone());
        }
        let kernel = kernel::compile(self, name, options)?;
        lock(&self.0.kernels).insert(name, options, &kernel);
        Ok(kernel)
    }

    /// Number of pipelines compiled so far: it must not grow after warm-up.
    pub fn compiled(&self) -> usize {
        lock(&self.0.kernels).len()
    }

    /// Starts recording.
    pub fn record(&self) -> Recorder {
        Recorder::new(self)
    }

    /// Drives callbacks natively; a browser's event loop does it by itself.
    fn poll(&self) {
        #[cfg(not(target_arch = "wasm32"))]
        if let Err(error) = self.0.device.poll(wgpu::PollType::wait_indefinitely()) {
            lock(&self.0.fault).get_or_insert(GpuError::Readback(error.to_string()));
        }
    }

    /// Waits until everything written so far is on the device: what was staged for it is then free again.
    ///
    /// # Errors
    /// As [`Gpu::idle`].
    pub async fn flush_writes(&self) -> Result<(), GpuError> {
        self.0.queue.submit([]);
        self.idle().await
    }

    /// Waits until everything submitted so far is done.
    ///
    /// # Errors
    /// If the device is lost or has rejected something.
    pub async fn idle(&self) -> Result<(), GpuError> {
        let (sender, receiver) = futures::channel::oneshot::channel();
        self.0.queue.on_submitted_work_done(move || {
            // As in `read_raw`: a dropped future waits for nothing.
            let _ = sender.send(());
        });
        self.poll();
        // A lost device drops the callback; `check` says so.
        let _ = receiver.await;
        self.check()
    }

    /// Starts or stops timing every dispatch (one pass each, which costs time itself).
    /// Returns whether the device has timestamps.
    pub fn profile(&self, on: bool) -> bool {
        self.0.profiling.store(on && self.0.timestamps, Ordering::Relaxed);
        self.0.timestamps
    }

    /// Starts recording work that is timed as a whole: a pair of timestamps at the edges of each pass, which [`Recorder::submit_timed`]
    /// reads. Dispatches follow one another as in [`Gpu::record`].
    pub fn record_timed(&self) -> Recorder {
        Recorder::timed(self)
    }

    /// Starts recording work that is kept, so that [`Tape::replay`] can hand it to wgpu again.
    pub fn record_tape(&self) -> Recorder {
        Recorder::taped(self)
    }

    /// Whether the device has timestamps.
    pub fn has_timestamps(&self) -> bool {
        self.0.timestamps
    }

    fn pass_timeline(&self) -> Option<Timeline> {
        self.0.timestamps.then(|| Timeline::new(&self.0.device))
    }

    fn timeline(&self) -> Option<Timeline> {
        self.0.profiling.load(Ordering::Relaxed).then(|| Timeline::new(&self.0.device))
    }

    fn keep_timeline(&self, timeline: Timeline) {
        lock(&self.0.timelines).push(timeline);
    }

    /// Device time by kernel since the last call, most expensive first.
    ///
    /// # Errors
    /// If the timestamps cannot be read.
    pub async fn profile_times(&self) -> Result<Vec<KernelTime>, GpuError> {
        let timelines = std::mem::take(&mut *lock(&self.0.timelines));
        let mut sums = Vec::new();
        for timeline in timelines {
            timeline.collect(self, &mut sums).await?;
        }
        sums.sort_by(|a, b| b.nanoseconds.total_cmp(&a.nanoseconds));
        Ok(sums)
    }
}

#[cfg(test)]
mod tests;
