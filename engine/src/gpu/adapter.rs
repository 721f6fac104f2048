//! Which adapters there are, what each can do, and how much memory it has.

use super::GpuError;
use serde::{Deserialize, Serialize};

/// What the kernels may use beyond portable WebGPU (f32, no subgroups). Read from the adapter at run time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tier {
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Subgroup operations.
    pub subgroup: bool,
}

impl Tier {
    pub const PORTABLE: Tier = Tier { f16: false, subgroup: false };

    /// Reads `portable`, `f16`, `subgroup` or `full`.
    ///
    /// # Errors
    /// [`GpuError::BadSetting`] for anything else.
    pub fn parse(text: &str) -> Result<Tier, GpuError> {
        match text {
            "portable" => Ok(Tier::PORTABLE),
            "f16" => Ok(Tier { f16: true, subgroup: false }),
            "subgroup" => Ok(Tier { f16: false, subgroup: true }),
            "full" => Ok(Tier { f16: true, subgroup: true }),
            other => Err(GpuError::BadSetting {
                variable: "tier (--tier, TERSOR_TIER)",
                value: other.to_owned(),
                allowed: "portable, f16, subgroup or full",
            }),
        }
    }

    /// The features of this tier that `other` has too.
    pub fn intersect(self, other: Tier) -> Tier {
        Tier { f16: self.f16 && other.f16, subgroup: self.subgroup && other.subgroup }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.f16, self.subgroup) {
            (false, false) => "portable",
            (true, false) => "f16",
            (false, true) => "subgroup",
            (true, true) => "f16+subgroup",
        })
    }
}

/// Which limits to ask the adapter for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitsChoice {
    /// All that the adapter has.
    #[default]
    Adapter,
    /// WebGPU's guaranteed minimum: 128 MiB bindings, 8 storage buffers, 16 KiB workgroup memory, 256 invocations.
    WebgpuDefault,
}

impl LimitsChoice {
    /// Reads `adapter` or `webgpu-default`.
    ///
    /// # Errors
    /// [`GpuError::BadSetting`] for anything else.
    pub fn parse(text: &str) -> Result<Self, GpuError> {
        match text {
            "adapter" => Ok(Self::Adapter),
            "webgpu-default" => Ok(Self::WebgpuDefault),
            other => Err(GpuError::BadSetting {
                variable: "limits (--limits, TERSOR_LIMITS)",
                value: other.to_owned(),
                allowed: "adapter or webgpu-default",
            }),
        }
    }
}

/// One adapter, as `tersor adapters` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterSummary {
    pub index: usize,
    pub name: String,
    pub backend: String,
    /// "DiscreteGpu", "IntegratedGpu", "Cpu" …
    pub kind: String,
    pub driver: String,
    pub tier: Tier,
    /// Smallest and largest subgroup, 0 if it has none.
    pub subgroup_size: [u32; 2],
    pub timestamps: bool,
    /// Bytes.
    pub max_buffer: u64,
    /// Bytes of one storage binding.
    pub max_binding: u64,
    pub max_storage_buffers: u32,
    pub max_invocations: u32,
    /// Bytes.
    pub workgroup_memory: u32,
    /// Bytes of memory the adapter can use, if it says.
    pub memory: Option<u64>,
}

pub(super) fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    if !cfg!(target_arch = "wasm32") {
        // OpenGL has no storage buffers to speak of and only adds start-up time.
        descriptor.backends = wgpu::Backends::PRIMARY;
    }
    wgpu::Instance::new(descriptor)
}

pub(super) fn tier_of(adapter: &wgpu::Adapter) -> Tier {
    let features = adapter.features();
    Tier { f16: features.contains(wgpu::Features::SHADER_F16), subgroup: features.contains(wgpu::Features::SUBGROUP) }
}

/// Lists the adapters, best first is not promised: the order is the driver's.
pub async fn adapters() -> Vec<AdapterSummary> {
    let mut list = Vec::new();
    for (index, adapter) in enumerate(&instance()).await.iter().enumerate() {
        list.push(summary(index, adapter));
    }
    list
}

/// What an adapter is called: browsers do not say which one it is.
pub(super) fn name(info: &wgpu::AdapterInfo) -> String {
    if info.name.is_empty() { "the browser's GPU".to_owned() } else { info.name.clone() }
}

pub(super) fn summary(index: usize, adapter: &wgpu::Adapter) -> AdapterSummary {
    let (info, limits, tier) = (adapter.get_info(), adapter.limits(), tier_of(adapter));
    AdapterSummary {
        index,
        name: name(&info),
        backend: format!("{:?}", info.backend),
        kind: format!("{:?}", info.device_type),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        tier,
        subgroup_size: if tier.subgroup { [info.subgroup_min_size, info.subgroup_max_size] } else { [0, 0] },
        timestamps: adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY),
        max_buffer: limits.max_buffer_size,
        max_binding: limits.max_storage_buffer_binding_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        max_invocations: limits.max_compute_invocations_per_workgroup,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        memory: memory_of(adapter),
    }
}

async fn enumerate(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    if cfg!(target_arch = "wasm32") {
        // A browser hands out one adapter and lists none.
        return instance.request_adapter(&Default::default()).await.into_iter().collect();
    }
    instance.enumerate_adapters(wgpu::Backends::all()).await
}

/// Index of the adapter that a device would be opened on, in the list of [`adapters`].
///
/// # Errors
/// [`GpuError::NoAdapter`] or [`GpuError::UnknownAdapter`].
pub async fn chosen(asked: Option<&str>) -> Result<usize, GpuError> {
    index_of(&enumerate(&instance()).await, asked)
}

/// Chooses an adapter: by index or part of its name (any case), else a discrete GPU before an integrated one before
/// anything else.
pub(super) async fn choose(asked: Option<&str>) -> Result<wgpu::Adapter, GpuError> {
    let mut all = enumerate(&instance()).await;
    let index = index_of(&all, asked)?;
    Ok(all.swap_remove(index))
}

fn index_of(all: &[wgpu::Adapter], asked: Option<&str>) -> Result<usize, GpuError> {
    if all.is_empty() {
        return Err(GpuError::NoAdapter);
    }
    if let Some(asked) = asked {
        let wanted = asked.to_lowercase();
        let names: Vec<_> = all.iter().map(|a| a.get_info().name).collect();
        let found = match wanted.parse::<usize>() {
            Ok(index) if index < all.len() => Some(index),
            _ => names.iter().position(|n| n.to_lowercase().contains(&wanted)),
        };
        let available = names.iter().enumerate().map(|(i, n)| format!("{i}: {n}")).collect::<Vec<_>>().join("; ");
        return found.ok_or_else(|| GpuError::UnknownAdapter { asked: asked.to_owned(), available });
    }
    let rank = |a: &wgpu::Adapter| match a.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    let best = all.iter().enumerate().min_by_key(|(_, adapter)| rank(adapter));
    best.map(|(index, _)| index).ok_or(GpuError::NoAdapter)
}

/// Bytes that the adapter's buffers may take together, where that can be known.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn memory_of(adapter: &wgpu::Adapter) -> Option<u64> {
    if adapter.get_info().device_type == wgpu::DeviceType::Cpu {
        // A software adapter uses the machine's own memory.
        return system_memory();
    }
    vulkan_heap(adapter)
}

#[cfg(target_arch = "wasm32")]
pub(super) fn memory_of(_: &wgpu::Adapter) -> Option<u64> {
    None
}

#[cfg(not(target_arch = "wasm32"))]
fn system_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Size of the largest device-local heap.
#[cfg(all(not(target_arch = "wasm32"), not(target_vendor = "apple")))]
fn vulkan_heap(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the handles are only read, and outlive the call.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::vulkan::Api>() }?;
    let properties = unsafe {
        hal.shared_instance().raw_instance().get_physical_device_memory_properties(hal.raw_physical_device())
    };
    let heaps = &properties.memory_heaps[..properties.memory_heap_count as usize];
    // Bit 0 of the flags is VK_MEMORY_HEAP_DEVICE_LOCAL_BIT.
    heaps.iter().filter(|h| h.flags.as_raw() & 1 != 0).map(|h| h.size).max()
}

#[cfg(all(not(target_arch = "wasm32"), target_vendor = "apple"))]
fn vulkan_heap(_: &wgpu::Adapter) -> Option<u64> {
    None
}
