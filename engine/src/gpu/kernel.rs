//! Compute pipelines: composed, compiled once, kept.

use super::{Gpu, GpuError};
use rustc_hash::{FxHashMap, FxHasher};
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tersor_shaders::{BindingKind, KernelInfo, OptionValue};

/// A compiled kernel of one permutation; cheap to clone.
#[derive(Clone, Debug)]
pub struct Kernel(pub(super) Arc<KernelInner>);

#[derive(Debug)]
pub(super) struct KernelInner {
    pub(super) name: String,
    /// What it was asked for with: the kernel and its options.
    asked: (String, Vec<(String, OptionValue)>),
    pub(super) id: u64,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) storage_layout: wgpu::BindGroupLayout,
    pub(super) uniform_group: Option<wgpu::BindGroup>,
    pub(super) info: &'static KernelInfo,
    /// Bytes of the parameters.
    pub(super) uniform_size: u32,
}

impl Kernel {
    pub fn info(&self) -> &'static KernelInfo {
        self.0.info
    }

    /// Kernel and options, as profiles and errors show it.
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

/// All kernels that were compiled. Finding one builds no text.
#[derive(Debug, Default)]
pub(super) struct Kernels {
    by_hash: FxHashMap<u64, Vec<Kernel>>,
    count: usize,
}

impl Kernels {
    pub(super) fn get(&self, name: &str, options: &[(&str, OptionValue)]) -> Option<&Kernel> {
        let same = |kernel: &&Kernel| {
            let (asked, with) = &kernel.0.asked;
            asked == name
                && with.len() == options.len()
                && with.iter().zip(options).all(|(a, b)| a.0 == b.0 && a.1 == b.1)
        };
        self.by_hash.get(&hash(name, options))?.iter().find(same)
    }

    /// Keeps a kernel, unless another thread was first.
    pub(super) fn insert(&mut self, name: &str, options: &[(&str, OptionValue)], kernel: &Kernel) {
        if self.get(name, options).is_none() {
            self.by_hash.entry(hash(name, options)).or_default().push(kernel.clone());
            self.count += 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

fn hash(name: &str, options: &[(&str, OptionValue)]) -> u64 {
    let mut hasher = FxHasher::default();
    (name, options).hash(&mut hasher);
    hasher.finish()
}

fn text(name: &str, options: &[(&str, OptionValue)]) -> String {
    let mut key = name.to_owned();
    for (option, value) in options {
        let _ = write!(key, " {option}={value}");
    }
    key
}

pub(super) fn compile(gpu: &Gpu, name: &str, options: &[(&str, OptionValue)]) -> Result<Kernel, GpuError> {
    let device = &gpu.0.device;
    let key = text(name, options);
    let composed = tersor_shaders::compose(name, options)?;
    let info = composed.info;
    let tier = gpu.tier();
    if (info.f16 && !tier.f16) || (info.subgroup && !tier.subgroup) {
        return Err(GpuError::Dispatch { kernel: key, message: format!("needs more than tier {tier}") });
    }
    let checks = wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(&key), source: wgpu::ShaderSource::Wgsl(composed.source.into()) };
    // SAFETY: bounds checks stay on. Only the guard against endless loops is off (it keeps drivers from unrolling):
    // every loop of our kernels counts to a bound that the host wrapper has checked.
    let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
    let entry = |kind: BindingKind, binding: u32| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: match kind {
                BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
                kind => wgpu::BufferBindingType::Storage { read_only: kind == BindingKind::ReadStorage },
            },
            has_dynamic_offset: kind == BindingKind::Uniform,
            min_binding_size: None,
        },
        count: None,
    };
    let entries: Vec<_> = info.bindings.iter().filter(|b| b.group == 0).map(|b| entry(b.kind, b.binding)).collect();
    let storage_layout =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&key), entries: &entries });
    let uniform = info.bindings.iter().find(|b| b.kind == BindingKind::Uniform);
    let uniform_layout = uniform.map(|u| {
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&key),
            entries: &[entry(u.kind, u.binding)],
        })
    });
    let uniform_group = uniform.zip(uniform_layout.as_ref()).map(|(u, layout)| {
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&key),
            layout,
            entries: &[wgpu::BindGroupEntry {
                binding: u.binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &gpu.0.uniforms,
                    offset: 0,
                    size: wgpu::BufferSize::new(u64::from(u.size)),
                }),
            }],
        })
    });
    let layouts: Vec<_> =
        [Some(&storage_layout), uniform_layout.as_ref()].into_iter().filter(Option::is_some).collect();
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(&key),
        bind_group_layouts: &layouts,
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&key),
        layout: Some(&layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &composed.constants,
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    });
    gpu.check()?;
    Ok(Kernel(Arc::new(KernelInner {
        name: key,
        asked: (name.to_owned(), options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()),
        id: gpu.next_id(),
        pipeline,
        storage_layout,
        uniform_group,
        uniform_size: uniform.map_or(0, |u| u.size),
        info,
    })))
}
