//! What can go wrong on the device, as values.

use tersor_shaders::ComposeError;

/// Errors of the GPU room. Each says what was asked, what there is, and what helps.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GpuError {
    #[error(
        "no WebGPU-capable adapter found: install a Vulkan driver (Debian/Ubuntu: apt-get install mesa-vulkan-drivers \
         for a software one), or update the GPU driver"
    )]
    NoAdapter,
    #[error("no adapter matches {asked:?}; there are: {available}")]
    UnknownAdapter { asked: String, available: String },
    #[error("{variable} is {value:?}; it takes {allowed}")]
    BadSetting { variable: &'static str, value: String, allowed: &'static str },
    #[error("the adapter {adapter} refuses a device: {reason}")]
    DeviceRequest { adapter: String, reason: String },
    #[error(
        "out of GPU memory allocating {label}: {bytes} bytes asked, {in_use} in use, limit {limit}; close other programs, use a smaller context, or a recipe with fewer bits"
    )]
    OutOfMemory { label: String, bytes: u64, in_use: u64, limit: String },
    #[error("{label} needs a buffer of {bytes} bytes, the adapter's limit is {limit}")]
    BufferTooLarge { label: String, bytes: u64, limit: u64 },
    #[error("the device was lost ({reason}): load the model again")]
    DeviceLost { reason: String },
    #[error("the device rejected an operation: {0}")]
    Validation(String),
    #[error("shader: {0}")]
    Shader(#[from] ComposeError),
    #[error("kernel {kernel}: {message}")]
    Dispatch { kernel: String, message: String },
    #[error("reading back from the device failed: {0}")]
    Readback(String),
}
