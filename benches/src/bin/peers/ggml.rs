//! ggml-webgpu's product of a Q4_1 matrix with a vector, by its own WGSL, put together as its host code does.
//!
//! The shaders travel in a crate of bindings to llama.cpp; cargo fetches it, and they are read where cargo puts them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::preprocess::preprocess;
use super::{Contender, Error, Problem};

const CRATE: &str = "llama-cpp-sys-2";
const VERSION: &str = "0.1.161";
/// `WEBGPU_MUL_MAT_VEC_WG_SIZE` and `…_LEGACY_Q_OUTPUTS_PER_WG` of its shader library.
const WORKGROUP: &str = "256";
const ROWS: u32 = 4;

/// Has cargo fetch the crate, and says where its shaders are.
fn shaders(work: &Path) -> Result<PathBuf, Error> {
    let folder = work.join("ggml");
    std::fs::create_dir_all(folder.join("src"))?;
    std::fs::write(folder.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n{CRATE} = \"={VERSION}\"\n"
    );
    std::fs::write(folder.join("Cargo.toml"), manifest)?;
    let output = Command::new("cargo").args(["metadata", "--format-version", "1"]).current_dir(&folder).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.lines().last().unwrap_or("cargo metadata failed").to_owned().into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages.find(|package| package["name"] == CRATE).ok_or("cargo did not fetch it")?;
    let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    let folder = manifest.with_file_name("llama.cpp").join("ggml/src/ggml-webgpu/wgsl-shaders");
    if folder.is_dir() { Ok(folder) } else { Err(format!("{} has no WGSL in {}", CRATE, folder.display()).into()) }
}

/// A device of its own on the adapter of that name.
async fn device(name: &str) -> Result<(wgpu::Device, wgpu::Queue, bool), Error> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == name);
    let adapter = adapter.ok_or_else(|| format!("no adapter is called {name}"))?;
    if !adapter.features().contains(wgpu::Features::SHADER_F16) {
        return Err("its shaders need 16-bit floats, which the adapter lacks".into());
    }
    let subgroups = adapter.features().contains(wgpu::Features::SUBGROUP);
    let mut required_features = wgpu::Features::SHADER_F16;
    required_features.set(wgpu::Features::SUBGROUP, subgroups);
    let required_limits = adapter.limits();
    let descriptor = wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
    let (device, queue) = adapter.request_device(&descriptor).await?;
    Ok((device, queue, subgroups))
}

/// Its kernel, with everything bound.
pub struct Ggml {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    y: wgpu::Buffer,
    rows: u32,
    subgroups: bool,
}

impl Ggml {
    pub fn new(problem: &Problem, q4_1: &[u8], adapter: &str, work: &Path) -> Result<Self, Error> {
        let folder = shaders(work)?;
        let read = |name: &str| {
            std::fs::read_to_string(folder.join(name))
                .map_err(|error| format!("{}: {error}", folder.join(name).display()))
        };
        let (device, queue, subgroups) = pollster::block_on(device(adapter))?;
        let rows_a_group = ROWS.to_string();
        // As get_mul_mat_vec_pipeline does for Q4_1 and f32 without packed integer products, which it takes on some vendors' GPUs.
        let defines = [
            ("BYTE_HELPERS", ""),
            ("MUL_ACC_Q4_1", ""),
            ("U32_DEQUANT_HELPERS", ""),
            ("SRC0_INNER_TYPE", "u32"),
            ("SRC1_INNER_TYPE", "f32"),
            ("SCALAR", ""),
            ("WG_SIZE", WORKGROUP),
            ("OUTPUTS_PER_WG", &rows_a_group),
            (if subgroups { "USE_SUBGROUP_REDUCTION" } else { "USE_WORKGROUP_REDUCTION" }, ""),
            ("NUM_COLS", "1"),
        ];
        let source = preprocess(&read("mul_mat_vec.wgsl")?, &defines, &read)?;
        // naga enables subgroups by the device's feature, and refuses the line that says so.
        let source = source.replace("enable subgroups;", "");

        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("ggml-webgpu mul_mat_vec"),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("ggml-webgpu mul_mat_vec"),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let (rows, cols) = (problem.rows, problem.cols);
        let strides = [cols / 32, cols, rows * cols / 32, cols, rows * cols / 32, cols];
        let params: Vec<u32> = [&[0, 0, 0, rows, 1, cols][..], &strides, &[1; 4]].concat();
        let make = |label, bytes: &[u8], usage| {
            let size = bytes.len().next_multiple_of(4) as u64;
            let usage = usage | wgpu::BufferUsages::COPY_DST;
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage,
                mapped_at_creation: false,
            });
            queue.write_buffer(&buffer, 0, bytes);
            buffer
        };
        let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let words = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let x: Vec<u32> = problem.x.iter().map(|x| x.to_bits()).collect();
        let buffers = [
            make("w", q4_1, storage),
            make("x", &words(&x), storage),
            make("y", &vec![0; 4 * rows as usize], storage),
            make("params", &words(&params), wgpu::BufferUsages::UNIFORM),
        ];
        let entries = buffers.iter().zip(0..);
        let entries =
            entries.map(|(buffer, binding)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries.collect::<Vec<_>>(),
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(error.to_string().into());
        }
        let [_, _, y, _] = buffers;
        Ok(Self { device, queue, pipeline, group, y, rows, subgroups })
    }

    fn encode(&self, count: u32) -> wgpu::CommandEncoder {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        for _ in 0..count {
            pass.dispatch_workgroups(self.rows.div_ceil(ROWS), 1, 1);
        }
        drop(pass);
        encoder
    }
}

impl Contender for Ggml {
    fn name(&self) -> String {
        format!("ggml-webgpu q4_1 ({})", if self.subgroups { "subgroups" } else { "workgroup memory" })
    }

    fn version(&self) -> String {
        format!("{CRATE} {VERSION}")
    }

    fn run(&mut self, count: u32) -> Result<f64, Error> {
        let commands = self.encode(count).finish();
        let start = Instant::now();
        self.queue.submit([commands]);
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn result(&mut self) -> Result<Vec<f32>, Error> {
        let size = 4 * u64::from(self.rows);
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: Some("result"), size, usage, mapped_at_creation: false };
        let landing = self.device.create_buffer(&descriptor);
        let mut encoder = self.encode(1);
        encoder.copy_buffer_to_buffer(&self.y, 0, &landing, 0, size);
        self.queue.submit([encoder.finish()]);
        landing.map_async(wgpu::MapMode::Read, .., |_| ());
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        let view = landing.get_mapped_range(..)?;
        Ok(view.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}
