//! DFloat11: how fast weights are expanded to bf16, beside a copy of as many bytes.
//!
//! `cargo run --release -p tersor-benches --bin dfloat11 -- [WEIGHTS…]`
//!
//! Weights are N(0, 0.02²) in bf16, which is what trained matrices look like to an entropy coder. A line is the median of five rounds
//! of at least 0.2 s after a warm-up; GB/s are of bf16 that comes out. "copy" is the device's own copy between buffers, "kernel copy" a
//! shader that reads and writes vec4<f32>. Compare within one run only.

use std::time::Instant;
use tersor_engine::codec::dfloat11::{Group, bf16_bits};
use tersor_engine::gpu::{Buffer, Gpu, GpuOptions, Purpose, Recorder};
use tersor_engine::ops::dfloat11::Stream;

type Error = Box<dyn std::error::Error>;

/// Weights of a block of SmolLM2-135M, and as many as a large matrix has.
const COUNTS: [usize; 2] = [3_538_944, 16_777_216];

fn main() -> Result<(), Error> {
    let given: Vec<usize> = std::env::args().skip(1).map(|n| n.parse()).collect::<Result<_, _>>()?;
    let counts = if given.is_empty() { COUNTS.to_vec() } else { given };
    let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env()?))?;
    println!("{} {:?}", gpu.name(), gpu.tier());
    println!("{:>10} {:>8} {:<12} {:>10} {:>9} {:>8}", "weights", "bits", "", "ms", "GB/s", "of copy");
    for count in counts {
        let bits = bf16_bits(&normal(count));
        let start = Instant::now();
        let group = Group::encode(&bits)?;
        let encoded = start.elapsed().as_secs_f64();
        let size = 8.0 * group.bytes() as f64 / count as f64;
        let stream = Stream::upload(&gpu, &group, "weights")?;
        let bytes = 2 * count as u64;
        let [a, b] = ["a", "b"].map(|label| gpu.storage(label, bytes, Purpose::Activations));
        let (a, b) = (a?, b?);
        let copy = time(&gpu, &b, |rec| {
            rec.copy(&a, 0, &b, 0, bytes / 4 * 4);
            Ok(())
        })?;
        let kernel = gpu.kernel("selftest/copy", &[("VEC", 4u32.into())])?;
        let vectors = (bytes / 16) as u32;
        let shader = time(&gpu, &b, |rec| {
            let params = [vectors, 1f32.to_bits(), 0, 0];
            rec.dispatch(&kernel, &[("x", &a), ("y", &b)], &params, [vectors.div_ceil(64), 1, 1])?;
            Ok(())
        });
        let expand = time(&gpu, &b, |rec| {
            stream.expand(rec, 0..stream.weights(), &b.all(), 0)?;
            Ok(())
        })?;
        let found: Vec<u16> = pollster::block_on(gpu.read(&b, 0, count as u64))?;
        if found != bits {
            return Err("the weights that came out are not those that went in".into());
        }
        let start = Instant::now();
        let decoded = group.decode();
        let on_cpu = start.elapsed().as_secs_f64() * 1e3;
        if decoded != bits {
            return Err("the CPU's weights are not those that went in".into());
        }
        let row = |what: &str, ms: f64| {
            let rate = bytes as f64 / ms / 1e6;
            println!("{count:>10} {size:>8.3} {what:<12} {ms:>10.3} {rate:>9.3} {:>7.1}%", 100.0 * copy / ms);
        };
        row("copy", copy);
        match shader {
            Ok(ms) => row("kernel copy", ms),
            Err(error) => println!("{count:>10} {size:>8.3} kernel copy: {error}"),
        }
        row("expand", expand);
        row("CPU decode", on_cpu);
        row("CPU encode", encoded * 1e3);
    }
    Ok(())
}

/// N(0, 0.02²), by Box and Muller from a linear congruential generator.
fn normal(count: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut unit = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 + 0.5) / (1 << 24) as f32
    };
    (0..count).map(|_| 0.02 * (-2.0 * unit().ln()).sqrt() * (std::f32::consts::TAU * unit()).cos()).collect()
}

/// Milliseconds of what `work` records.
fn time(gpu: &Gpu, out: &Buffer, work: impl Fn(&mut Recorder) -> Result<(), Error>) -> Result<f64, Error> {
    let round = |count: u32| -> Result<f64, Error> {
        let start = Instant::now();
        let mut rec = gpu.record();
        for _ in 0..count {
            work(&mut rec)?;
        }
        rec.submit()?;
        pollster::block_on(gpu.read::<u32>(out, 0, 1))?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    round(1)?;
    let count = (200.0 / round(1)?).ceil().clamp(1.0, 1000.0) as u32;
    let mut rounds = (0..5).map(|_| Ok(round(count)? / f64::from(count))).collect::<Result<Vec<f64>, Error>>()?;
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[2])
}
