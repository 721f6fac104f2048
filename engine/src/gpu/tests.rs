use super::*;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    n: u32,
    scale: f32,
    pad: [u32; 2],
}

fn gpu(options: GpuOptions) -> Gpu {
    pollster::block_on(Gpu::new(options)).expect("an adapter: cargo xtask test installs one")
}

fn scale(gpu: &Gpu, x: &[f32], by: f32) -> Result<Vec<f32>, GpuError> {
    let kernel = gpu.kernel("selftest/copy", &[("VEC", 1.into())])?;
    let a = gpu.upload("x", x, Purpose::Activations)?;
    let b = gpu.storage("y", x.len() as u64 * 4, Purpose::Activations)?;
    let mut rec = gpu.record();
    let n = x.len() as u32;
    let params = Params { n, scale: by, pad: [0; 2] };
    rec.dispatch(&kernel, &[("x", a.all()), ("y", b.all())], &params, [n.div_ceil(64), 1, 1])?;
    rec.submit()?;
    pollster::block_on(gpu.read(&b, 0, n.into()))
}

#[test]
fn uploads_dispatches_and_reads_back() {
    let gpu = gpu(GpuOptions::from_env().unwrap());
    let x: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let y = scale(&gpu, &x, 2.0).unwrap();
    assert!(x.iter().zip(&y).all(|(x, y)| *y == 2.0 * x));
    scale(&gpu, &x, 3.0).unwrap();
    assert_eq!(gpu.compiled(), 1, "the second call reuses the pipeline");
}

#[test]
fn many_dispatches_overflow_the_arena_safely() {
    let gpu = gpu(GpuOptions { limits: LimitsChoice::WebgpuDefault, tier: Some(Tier::PORTABLE), ..Default::default() });
    let kernel = gpu.kernel("selftest/copy", &[("VEC", 4.into())]).unwrap();
    let mut buffers = [gpu.upload("a", &[1f32; 4], Purpose::Activations).unwrap(), gpu.scratch("b", 16).unwrap()];
    let mut rec = gpu.record();
    // 3000 × 256 bytes of parameters is three arenas; the scale alternates so that a lost or reused slot would show.
    for i in 0..3000 {
        let params = Params { n: 1, scale: if i % 2 == 0 { 2.0 } else { 0.5 }, pad: [0; 2] };
        rec.dispatch(&kernel, &[("x", buffers[0].all()), ("y", buffers[1].all())], &params, [1, 1, 1]).unwrap();
        buffers.swap(0, 1);
    }
    rec.submit().unwrap();
    let last: Vec<f32> = pollster::block_on(gpu.read(&buffers[0], 0, 4)).unwrap();
    assert_eq!(last, [1.0; 4]);
}

#[test]
fn wrong_use_is_an_error() {
    let gpu = gpu(GpuOptions::default());
    let kernel = gpu.kernel("selftest/copy", &[]).unwrap();
    let a = gpu.scratch("a", 16).unwrap();
    let params = Params { n: 1, scale: 1.0, pad: [0; 2] };
    let mut rec = gpu.record();
    let missing = rec.dispatch(&kernel, &[("x", a.all())], &params, [1, 1, 1]).unwrap_err();
    assert!(missing.to_string().contains("binding y is missing"), "{missing}");
    let size = rec.dispatch(&kernel, &[("x", a.all()), ("y", a.all())], &0u32, [1, 1, 1]).unwrap_err();
    assert!(size.to_string().contains("parameters have 4 bytes"), "{size}");
    let grid = rec.dispatch(&kernel, &[("x", a.all()), ("y", a.all())], &params, [1 << 20, 1, 1]).unwrap_err();
    assert!(grid.to_string().contains("limit of 65535"), "{grid}");
    assert!(gpu.kernel("selftest/copy", &[("VEC", 3.into())]).is_err());
    assert!(gpu.kernel("selftest/nothing", &[]).is_err());
    // The same buffer bound for reading and writing is the device's complaint, not a panic.
    let other = gpu.record();
    drop(other);
    let _ = rec.dispatch(&kernel, &[("x", a.all()), ("y", a.all())], &params, [1, 1, 1]);
    assert!(matches!(rec.submit(), Err(GpuError::Validation(_))));
}

#[test]
fn memory_is_counted_and_limited() {
    let gpu = gpu(GpuOptions { memory: Some(1 << 20), ..Default::default() });
    let a = gpu.storage("weights", 700_000, Purpose::Weights).unwrap();
    assert_eq!(gpu.memory().weights, 700_000);
    let refused = gpu.storage("more", 700_000, Purpose::Weights).unwrap_err().to_string();
    assert!(refused.contains("more") && refused.contains("700000") && refused.contains("1048576"), "{refused}");
    drop(a);
    assert_eq!(gpu.memory().total(), 0);
    assert_eq!(gpu.memory().peak, 700_000);
    let too_large = gpu.storage("huge", u64::MAX / 2, Purpose::Weights).unwrap_err();
    assert!(matches!(too_large, GpuError::BufferTooLarge { .. }));
}

#[test]
fn scratch_buffers_are_reused() {
    let gpu = gpu(GpuOptions::default());
    let first = gpu.scratch("a", 5000).unwrap().inner.id;
    let second = gpu.scratch("b", 5000).unwrap().inner.id;
    assert_eq!(first, second);
}

#[test]
fn scratch_buffers_are_reused_within_a_recording_and_given_up_for_others() {
    let gpu = gpu(GpuOptions { memory: Some(1 << 20), ..Default::default() });
    let kernel = gpu.kernel("selftest/copy", &[("VEC", 1.into())]).unwrap();
    let x = gpu.upload("x", &[1f32; 1000], Purpose::Activations).unwrap();
    let y = gpu.storage("y", 4000, Purpose::Activations).unwrap();
    let mut rec = gpu.record();
    for scale in [2.0, 3.0, 4.0] {
        let params = Params { n: 1000, scale, pad: [0; 2] };
        let scratch = gpu.scratch("twice", 200_000).unwrap();
        rec.dispatch(&kernel, &[("x", x.all()), ("y", scratch.slice(0, 4000))], &params, [16, 1, 1]).unwrap();
        rec.dispatch(&kernel, &[("x", scratch.slice(0, 4000)), ("y", y.all())], &params, [16, 1, 1]).unwrap();
    }
    rec.submit().unwrap();
    assert_eq!(pollster::block_on(gpu.read::<f32>(&y, 0, 1000)).unwrap(), [16.0; 1000]);
    let in_pool = gpu.memory().total() - 8000;
    assert!((200_000..225_001).contains(&in_pool), "{in_pool}");
    assert!(gpu.storage("rest", (1 << 20) - 8000, Purpose::Weights).is_ok(), "the pool gives way");
}

#[test]
fn a_lost_device_is_reported_not_fatal() {
    let gpu = gpu(GpuOptions::default());
    assert!(scale(&gpu, &[1.0], 1.0).is_ok());
    gpu.destroy();
    let error = scale(&gpu, &[1.0; 64], 1.0).unwrap_err();
    assert!(matches!(error, GpuError::DeviceLost { .. }), "{error}");
    assert!(matches!(gpu.check(), Err(GpuError::DeviceLost { .. })), "a lost device stays lost");
}

#[test]
fn the_profiler_times_kernels() {
    let gpu = gpu(GpuOptions::default());
    if !gpu.profile(true) {
        return;
    }
    scale(&gpu, &[1.0; 100], 2.0).unwrap();
    gpu.profile(false);
    let times = pollster::block_on(gpu.profile_times()).unwrap();
    assert_eq!(times.len(), 1);
    assert!(times[0].kernel.starts_with("selftest/copy") && times[0].calls == 1, "{times:?}");
}

#[test]
fn bad_settings_name_what_is_allowed() {
    assert!(Tier::parse("fast").unwrap_err().to_string().contains("portable, f16, subgroup or full"));
    assert!(LimitsChoice::parse("x").unwrap_err().to_string().contains("webgpu-default"));
    let unknown = pollster::block_on(Gpu::new(GpuOptions { adapter: Some("no such".into()), ..Default::default() }));
    assert!(matches!(unknown, Err(GpuError::UnknownAdapter { .. })));
}
