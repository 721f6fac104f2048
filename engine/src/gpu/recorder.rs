//! Recording work: many dispatches in one compute pass, their parameters in one uniform arena.

use super::profile::Timeline;
use super::tape::Tape;
use super::{Binding, Buffer, Gpu, GpuError, Kernel, lock};
use arrayvec::ArrayVec;
use rustc_hash::FxHashMap;
use tersor_shaders::BindingKind;

/// Bytes of the uniform arena; a recorder that fills it submits what it has and goes on.
pub(super) const ARENA_BYTES: u64 = 256 * 1024;

/// Most storage buffers of a kernel.
pub(crate) const MAX_BINDINGS: usize = 12;

/// Records dispatches and copies in order. Dropping it without [`Recorder::submit`] discards the work. Buffers may be dropped as
/// soon as something with them is recorded: wgpu keeps what commands use.
pub struct Recorder {
    gpu: Gpu,
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    arena: Vec<u8>,
    /// Floating-point operations recorded since the last submission.
    work: u64,
    timeline: Option<Timeline>,
    /// Where the timelines of submitted work are kept when it is timed as a whole, pass by pass instead of dispatch by dispatch.
    passes: Option<Vec<Timeline>>,
    dispatches: u64,
    tape: Option<Tape>,
}

impl Recorder {
    pub(super) fn new(gpu: &Gpu) -> Self {
        Self {
            gpu: gpu.clone(),
            encoder: None,
            pass: None,
            arena: lock(&gpu.0.arenas).pop().unwrap_or_default(),
            work: 0,
            timeline: gpu.timeline(),
            passes: None,
            dispatches: 0,
            tape: None,
        }
    }

    /// A recorder whose passes are timed, if the device can.
    pub(super) fn timed(gpu: &Gpu) -> Self {
        let mut rec = Self::new(gpu);
        rec.timeline = gpu.pass_timeline();
        rec.passes = rec.timeline.is_some().then(Vec::new);
        rec
    }

    /// A recorder that also keeps its dispatches.
    pub(super) fn taped(gpu: &Gpu) -> Self {
        let mut rec = Self::new(gpu);
        rec.tape = Some(Tape::new(gpu));
        rec
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Dispatches recorded so far.
    pub fn dispatches(&self) -> u64 {
        self.dispatches
    }

    /// Records one dispatch of `grid` workgroups. `bindings` name the WGSL variables; `params` is the kernel's uniform
    /// struct (an empty slice if it has none).
    ///
    /// # Errors
    /// If a binding is missing, unknown or too large, the parameters have the wrong size, or the grid is out of limits.
    pub fn dispatch<'b, P: bytemuck::Pod, B>(
        &mut self,
        kernel: &Kernel,
        bindings: &'b [(&'b str, B)],
        params: &P,
        grid: [u32; 3],
    ) -> Result<(), GpuError>
    where
        Binding<'b>: From<&'b B>,
    {
        let mut bound = ArrayVec::<_, MAX_BINDINGS>::new();
        for (name, binding) in bindings {
            bound.try_push((*name, Binding::from(binding))).map_err(|_| too_many(kernel))?;
        }
        self.dispatch_bound(kernel, &bound, bytemuck::bytes_of(params), grid)
    }

    fn dispatch_bound(
        &mut self,
        kernel: &Kernel,
        bindings: &[(&str, Binding)],
        params: &[u8],
        grid: [u32; 3],
    ) -> Result<(), GpuError> {
        let k = &kernel.0;
        let fail = |message: String| GpuError::Dispatch { kernel: k.name.clone(), message };
        if grid.contains(&0) {
            return Ok(());
        }
        let max = self.gpu.limits().max_compute_workgroups_per_dimension;
        if grid.iter().any(|g| *g > max) {
            return Err(fail(format!("grid {grid:?} is past the limit of {max} workgroups a dimension")));
        }
        if params.len() != k.uniform_size as usize {
            let size = k.uniform_size;
            return Err(fail(format!("parameters have {} bytes, the shader's struct {size}", params.len())));
        }
        let alignment = self.gpu.limits().min_uniform_buffer_offset_alignment as usize;
        let mut offset = self.arena.len().next_multiple_of(alignment);
        if (offset + params.len()) as u64 > ARENA_BYTES {
            self.flush()?;
            offset = 0;
        }
        self.arena.resize(offset, 0);
        self.arena.extend_from_slice(params);
        let groups = &mut *lock(&self.gpu.0.bind_groups);
        groups.forget(&std::mem::take(&mut *lock(&self.gpu.0.dead)));
        let group = groups.get(&self.gpu, kernel, bindings)?;

        if self.passes.is_some() && self.pass.is_some() {
            // It goes on within the pass that is timed already.
        } else if let Some(timeline) = &mut self.timeline {
            // A timestamp stands at the edges of a pass: profiling gives each dispatch its own.
            self.pass = None;
            let encoder = encoder_of(&mut self.encoder, &self.gpu);
            let writes = timeline.next(&k.name);
            let descriptor = wgpu::ComputePassDescriptor { label: Some(&k.name), timestamp_writes: writes };
            self.pass = Some(encoder.begin_compute_pass(&descriptor).forget_lifetime());
        } else if self.pass.is_none() {
            let encoder = encoder_of(&mut self.encoder, &self.gpu);
            self.pass = Some(encoder.begin_compute_pass(&Default::default()).forget_lifetime());
        }
        if let Some(pass) = &mut self.pass {
            pass.set_pipeline(&k.pipeline);
            pass.set_bind_group(0, group, &[]);
            if let Some(uniform) = &k.uniform_group {
                pass.set_bind_group(1, uniform, &[offset as u32]);
            }
            pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        }
        if let Some(tape) = &mut self.tape {
            tape.keep(kernel, group, offset as u32, grid);
        }
        self.dispatches += 1;
        Ok(())
    }

    /// Copies `bytes` between two buffers (offsets and size are multiples of 4).
    pub fn copy(&mut self, from: &Buffer, from_offset: u64, to: &Buffer, to_offset: u64, bytes: u64) {
        self.pass = None;
        let encoder = encoder_of(&mut self.encoder, &self.gpu);
        encoder.copy_buffer_to_buffer(&from.inner.raw, from_offset, &to.inner.raw, to_offset, bytes);
    }

    /// Fills a buffer with zeros.
    pub fn clear(&mut self, buffer: &Buffer) {
        self.pass = None;
        encoder_of(&mut self.encoder, &self.gpu).clear_buffer(&buffer.inner.raw, 0, None);
    }

    /// The encoder, outside of any pass.
    pub(super) fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        encoder_of(&mut self.encoder, &self.gpu)
    }

    /// Announces the cost of what was just recorded. Past the device's budget for one submission the recorder submits
    /// on its own, so that no submission runs long enough to trip a driver's watchdog.
    ///
    /// # Errors
    /// As [`Recorder::submit`].
    pub fn work(&mut self, flops: u64) -> Result<(), GpuError> {
        self.work += flops;
        if self.work > self.gpu.flops_per_submission() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), GpuError> {
        self.pass = None;
        self.work = 0;
        let Some(mut encoder) = self.encoder.take() else { return Ok(()) };
        if !self.arena.is_empty() {
            let padded = self.arena.len().next_multiple_of(4);
            self.arena.resize(padded, 0);
            self.gpu.0.queue.write_buffer(&self.gpu.0.uniforms, 0, &self.arena);
            if let Some(tape) = &mut self.tape {
                tape.end(&self.arena);
            }
            self.arena.clear();
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.resolve(&mut encoder);
        }
        self.gpu.0.queue.submit([encoder.finish()]);
        if let Some(timeline) = self.timeline.take() {
            match &mut self.passes {
                Some(passes) => {
                    passes.push(timeline);
                    self.timeline = self.gpu.pass_timeline();
                }
                None => {
                    self.gpu.keep_timeline(timeline);
                    self.timeline = self.gpu.timeline();
                }
            }
        }
        self.gpu.check()
    }

    /// Sends everything recorded to the device.
    ///
    /// # Errors
    /// If the device is lost or has rejected something.
    pub fn submit(mut self) -> Result<(), GpuError> {
        self.flush()
    }

    /// [`Recorder::submit`], and the dispatches of [`Gpu::record_tape`]. Copies are not among them.
    ///
    /// # Errors
    /// As [`Recorder::submit`].
    pub fn submit_tape(mut self) -> Result<Option<Tape>, GpuError> {
        self.flush()?;
        Ok(self.tape.take())
    }

    /// [`Recorder::submit`], then waits for the work of [`Gpu::record_timed`]: the nanoseconds that its passes took on the device. `None`
    /// where the device has no timestamps.
    ///
    /// # Errors
    /// If the device is lost or has rejected something.
    pub async fn submit_timed(mut self) -> Result<Option<f64>, GpuError> {
        self.flush()?;
        let Some(passes) = self.passes.take() else {
            self.gpu.idle().await?;
            return Ok(None);
        };
        let mut sums = Vec::new();
        for timeline in passes {
            timeline.collect(&self.gpu, &mut sums).await?;
        }
        Ok(Some(sums.iter().map(|sum| sum.nanoseconds).sum()))
    }
}

fn too_many(kernel: &Kernel) -> GpuError {
    GpuError::Dispatch { kernel: kernel.0.name.clone(), message: format!("more than {MAX_BINDINGS} storage buffers") }
}

fn encoder_of<'e>(encoder: &'e mut Option<wgpu::CommandEncoder>, gpu: &Gpu) -> &'e mut wgpu::CommandEncoder {
    encoder.get_or_insert_with(|| gpu.0.device.create_command_encoder(&Default::default()))
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let mut arena = std::mem::take(&mut self.arena);
        arena.clear();
        lock(&self.gpu.0.arenas).push(arena);
    }
}

/// Bind groups by kernel and buffers. A group keeps its buffers alive, so groups of freed buffers must go.
#[derive(Debug, Default)]
pub(super) struct BindGroups {
    groups: FxHashMap<Vec<u64>, wgpu::BindGroup>,
}

/// What a group is found by, short because a model has hundreds of them, and none is in the caches when its turn comes: the kernel's number, how
/// many buffers there are (bits 16 to 31), and which of them are bound in part (bits 0 to 15); the buffers' numbers; offset and size of
/// those that are bound in part.
type Key = ArrayVec<u64, { 1 + 3 * MAX_BINDINGS }>;

fn key_of(kernel: u64, bindings: &[Binding]) -> Key {
    let mut key = Key::new();
    key.push(kernel << 32 | (bindings.len() as u64) << 16);
    key.extend(bindings.iter().map(|binding| binding.buffer.id));
    for (at, binding) in bindings.iter().enumerate().filter(|(_, binding)| !binding.is_all()) {
        key[0] |= 1 << at;
        key.extend([binding.offset, binding.size]);
    }
    key
}

/// The buffers in a key.
fn buffers_of(key: &[u64]) -> &[u64] {
    &key[1..][..(key[0] >> 16 & 0xffff) as usize]
}

/// Past this many groups the cache starts anew: cheaper than tracking use.
const MAX_GROUPS: usize = 8192;

impl BindGroups {
    /// The group of these buffers, made if it is new.
    fn get(&mut self, gpu: &Gpu, kernel: &Kernel, bindings: &[(&str, Binding)]) -> Result<&wgpu::BindGroup, GpuError> {
        let k = &kernel.0;
        let fail = |message: String| GpuError::Dispatch { kernel: k.name.clone(), message };
        let limit = gpu.limits().max_storage_buffer_binding_size;
        let mut slices = ArrayVec::<Binding, MAX_BINDINGS>::new();
        let storage = || k.info.bindings.iter().filter(|b| b.kind != BindingKind::Uniform);
        for binding in storage() {
            let found = bindings.iter().find(|b| b.0 == binding.name);
            let slice = found.ok_or_else(|| fail(format!("binding {} is missing", binding.name)))?.1;
            if slice.size > limit {
                return Err(fail(format!("binding {} has {} bytes, the limit is {limit}", binding.name, slice.size)));
            }
            slices.try_push(slice).map_err(|_| too_many(kernel))?;
        }
        if slices.len() != bindings.len() {
            let unknown = bindings.iter().find(|b| storage().all(|s| s.name != b.0)).map_or("twice", |b| b.0);
            return Err(fail(format!("binding {unknown} is not one of the shader's")));
        }
        let key = key_of(k.id, &slices);
        if !self.groups.contains_key(&key[..]) {
            if self.groups.len() >= MAX_GROUPS {
                self.groups.clear();
            }
            let entries: ArrayVec<_, MAX_BINDINGS> = storage()
                .zip(&slices)
                .map(|(binding, slice)| wgpu::BindGroupEntry {
                    binding: binding.binding,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &slice.buffer.inner.raw,
                        offset: slice.offset,
                        size: wgpu::BufferSize::new(slice.size),
                    }),
                })
                .collect();
            let layout = &k.storage_layout;
            let descriptor = wgpu::BindGroupDescriptor { label: Some(&k.name), layout, entries: &entries };
            self.groups.insert(key.to_vec(), gpu.0.device.create_bind_group(&descriptor));
        }
        // Found or made just now.
        self.groups.get(&key[..]).ok_or_else(|| fail("its buffers are not bound".into()))
    }

    pub(super) fn forget(&mut self, dead: &[u64]) {
        if !dead.is_empty() {
            self.groups.retain(|key, _| !buffers_of(key).iter().any(|id| dead.contains(id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{GpuOptions, Purpose};

    #[test]
    fn groups_of_other_buffers_or_other_parts_have_other_keys() {
        let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env().unwrap())).unwrap();
        let whole = [0, 1].map(|_| gpu.storage("whole", 4096, Purpose::Activations).unwrap());
        // As large as asked for, and not.
        let pooled = [4096, 4000].map(|bytes| gpu.scratch("pooled", bytes).unwrap());
        let [a, b] = [&whole[0], &whole[1]].map(Binding::from);
        let part = whole[0].slice(256, 512);
        let keys = [
            key_of(1, &[a, b]),
            key_of(2, &[a, b]),
            key_of(1, &[b, a]),
            key_of(1, &[a]),
            key_of(1, &[(&part).into(), b]),
            key_of(1, &[(&whole[0].slice(0, 512)).into(), b]),
            key_of(1, &[b, (&part).into()]),
            key_of(1, &[(&pooled[1]).into(), b]),
            key_of(1, &[(&pooled[0]).into(), b]),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{key:?}");
        }
        assert_eq!(buffers_of(&keys[0]), [whole[0].id, whole[1].id]);
        assert_eq!(buffers_of(&keys[6]), [whole[1].id, whole[0].id], "parts are no buffers");
        assert_eq!((keys[0].len(), keys[4].len()), (3, 5));
        // The same buffer, lent for fewer bytes than it has.
        let id = pooled[0].id;
        drop(pooled);
        let again = gpu.scratch("pooled", 3900).unwrap();
        assert!(again.id != id || key_of(1, &[(&again).into(), b]) != keys[8]);
    }
}
