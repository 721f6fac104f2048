//! Dispatches that were recorded once, to be handed to wgpu again without the engine: the time that remains is wgpu's and the driver's,
//! and what recording took beyond it the engine's.

use super::{Gpu, GpuError, Kernel};

/// Dispatches in order, with their bind groups and parameters.
#[derive(Debug)]
pub struct Tape {
    gpu: Gpu,
    /// One for each submission.
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
struct Part {
    dispatches: Vec<Dispatch>,
    /// The parameters of all.
    arena: Vec<u8>,
}

#[derive(Debug)]
struct Dispatch {
    kernel: Kernel,
    group: wgpu::BindGroup,
    offset: u32,
    grid: [u32; 3],
}

impl Tape {
    pub(super) fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), parts: vec![Part::default()] }
    }

    pub(super) fn keep(&mut self, kernel: &Kernel, group: &wgpu::BindGroup, offset: u32, grid: [u32; 3]) {
        if let Some(part) = self.parts.last_mut() {
            part.dispatches.push(Dispatch { kernel: kernel.clone(), group: group.clone(), offset, grid });
        }
    }

    /// What follows belongs to another submission.
    pub(super) fn end(&mut self, arena: &[u8]) {
        if let Some(part) = self.parts.last_mut() {
            part.arena = arena.to_vec();
            self.parts.push(Part::default());
        }
    }

    /// Dispatches on it.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.dispatches.len()).sum()
    }

    /// Whether nothing is on it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands everything to wgpu and submits it, as a [`super::Recorder`] would: one pass, one write of parameters a submission.
    ///
    /// # Errors
    /// If the device is lost or has rejected something.
    pub fn replay(&self) -> Result<(), GpuError> {
        let inner = &*self.gpu.0;
        for part in self.parts.iter().filter(|part| !part.dispatches.is_empty()) {
            let mut encoder = inner.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for dispatch in &part.dispatches {
                let k = &dispatch.kernel.0;
                pass.set_pipeline(&k.pipeline);
                pass.set_bind_group(0, &dispatch.group, &[]);
                if let Some(uniform) = &k.uniform_group {
                    pass.set_bind_group(1, uniform, &[dispatch.offset]);
                }
                let [x, y, z] = dispatch.grid;
                pass.dispatch_workgroups(x, y, z);
            }
            drop(pass);
            inner.queue.write_buffer(&inner.uniforms, 0, &part.arena);
            inner.queue.submit([encoder.finish()]);
        }
        self.gpu.check()
    }
}
