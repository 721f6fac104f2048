//! Timestamps: what each dispatch cost on the device.

use super::{Gpu, GpuError};
use serde::Serialize;

/// Queries of one submission; each dispatch takes two.
const QUERIES: u32 = 4096;

/// Device time of one kernel over a profiled stretch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelTime {
    /// Kernel with its options.
    pub kernel: String,
    pub calls: u64,
    /// Nanoseconds over all calls.
    pub nanoseconds: f64,
}

/// Timestamp queries of a recorder.
#[derive(Debug)]
pub(super) struct Timeline {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    names: Vec<String>,
}

impl Timeline {
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let set = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count: QUERIES,
        });
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("profile"),
            size: u64::from(QUERIES) * 8,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Self { set, resolved, names: Vec::new() }
    }

    /// Timestamp writes for the next pass; `None` when the queries are used up.
    pub(super) fn next(&mut self, name: &str) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let at = self.names.len() as u32 * 2;
        if at + 2 > QUERIES {
            return None;
        }
        self.names.push(name.to_owned());
        Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(at),
            end_of_pass_write_index: Some(at + 1),
        })
    }

    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let used = self.names.len() as u32 * 2;
        if used > 0 {
            encoder.resolve_query_set(&self.set, 0..used, &self.resolved, 0);
        }
    }

    /// Reads the times and adds them to `sums`.
    pub(super) async fn collect(&self, gpu: &Gpu, sums: &mut Vec<KernelTime>) -> Result<(), GpuError> {
        let bytes = self.names.len() as u64 * 16;
        let ticks: Vec<u64> = gpu.read_raw(&self.resolved, 0, bytes).await?;
        let period = f64::from(gpu.0.queue.get_timestamp_period());
        for (name, pair) in self.names.iter().zip(ticks.chunks_exact(2)) {
            let nanoseconds = pair[1].saturating_sub(pair[0]) as f64 * period;
            match sums.iter_mut().find(|s| s.kernel == *name) {
                Some(sum) => {
                    sum.calls += 1;
                    sum.nanoseconds += nanoseconds;
                }
                None => sums.push(KernelTime { kernel: name.clone(), calls: 1, nanoseconds }),
            }
        }
        Ok(())
    }
}
