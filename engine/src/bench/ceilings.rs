//! What the adapter gives at most.

use serde::{Deserialize, Serialize};
use web_time::Instant;

use super::BenchError;
use super::measure::{self, Clock};
use crate::gpu::{Buffer, Gpu, Purpose};
use crate::ops::probe::{self, COPY_STEPS, FMA_CHAINS, Fma};
use crate::progress::Monitor;

/// The adapter's own limits, as measured: of each the best of several variants of a kernel that does nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bytes of the buffers that bandwidths were measured with.
    pub buffer_bytes: u64,
    /// 10⁹ bytes a second of a copying shader, read and written bytes together.
    pub copy_gb_per_s: f64,
    /// 10⁹ bytes a second of a shader that only reads.
    pub read_gb_per_s: f64,
    /// 10⁹ operations a second of products and sums in f32 registers, a product and a sum being two.
    pub fma_gflop_per_s: f64,
    /// Microseconds of one of many dispatches in a pass that do next to nothing, each waiting for the last.
    pub dispatch_us: f64,
    /// Microseconds on the host to record one of them.
    pub record_us: f64,
    /// Microseconds from handing in a single dispatch to knowing that it is done.
    pub submit_us: f64,
    /// Microseconds from handing in a single dispatch to having four bytes that it wrote.
    pub readback_us: f64,
}

impl Ceilings {
    /// Bytes a second of the memory roof: the faster of reading and copying.
    pub fn bandwidth(&self) -> f64 {
        1e9 * self.copy_gb_per_s.max(self.read_gb_per_s)
    }
}

/// Bytes of a buffer that is larger than caches are.
const BUFFER: u64 = 256 << 20;
/// Bytes that the probe of arithmetic writes, to keep its work from being left out.
const LANES: u32 = 1 << 16;
/// Tiny dispatches of a sample.
const DISPATCHES: u32 = 512;

/// Measures everything, and chooses the clock.
pub(super) async fn measure(gpu: &Gpu, monitor: &Monitor) -> Result<(Clock, Option<String>, Ceilings), BenchError> {
    let limit = gpu.limits().max_storage_buffer_binding_size.min(gpu.limits().max_buffer_size);
    let room = gpu.memory().limit.map_or(u64::MAX, |limit| limit.saturating_sub(gpu.memory().total()) / 4);
    // Whole workgroups of lanes with sixteen steps.
    let granule = 16 * u64::from(probe::LANES) * 16;
    let bytes = (BUFFER.min(limit).min(room) / granule).max(1) * granule;
    let x = filled(gpu, bytes).await?;
    let y = gpu.storage("bench y", bytes, Purpose::Activations)?;
    let steps = (bytes / 16) as u32;
    let (clock, reason) =
        measure::clock(gpu, &mut |rec, _| probe::copy(rec, steps, COPY_STEPS[1], x.all(), y.all())).await?;
    let mut copy = f64::INFINITY;
    for each in COPY_STEPS {
        let mut record = |rec: &mut _, _| probe::copy(rec, steps, each, x.all(), y.all());
        copy = copy.min(measure::times(gpu, clock, 0, &mut record, monitor).await?.median_us);
    }
    let mut read = f64::INFINITY;
    for each in [16, 64, 256] {
        let lanes = steps / each;
        let mut record = |rec: &mut _, _| probe::read(rec, lanes, each, x.all(), y.all());
        read = read.min(measure::times(gpu, clock, 0, &mut record, monitor).await?.median_us * rest(steps, each));
    }
    Ok((
        clock,
        reason,
        Ceilings {
            buffer_bytes: bytes,
            copy_gb_per_s: 2e-3 * bytes as f64 / copy,
            read_gb_per_s: 1e-3 * bytes as f64 / read,
            fma_gflop_per_s: arithmetic(gpu, clock, monitor).await?,
            dispatch_us: dispatches(gpu, clock, monitor).await?,
            record_us: recording(gpu, monitor).await?,
            submit_us: latency(gpu, false, monitor).await?,
            readback_us: latency(gpu, true, monitor).await?,
        },
    ))
}

/// What a time over whole lanes has to be multiplied by, if lanes of `each` steps leave some of the buffer out.
fn rest(steps: u32, each: u32) -> f64 {
    f64::from(steps) / f64::from(steps / each * each)
}

/// A buffer of numbers that no driver can know to be zero.
async fn filled(gpu: &Gpu, bytes: u64) -> Result<Buffer, BenchError> {
    let buffer = gpu.storage("bench x", bytes, Purpose::Weights)?;
    let part: Vec<u32> = (0..1u32 << 20).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    let mut at = 0;
    while at < bytes {
        let words = ((bytes - at) / 4).min(part.len() as u64) as usize;
        gpu.write(&buffer, at, &part[..words]);
        at += 4 * words as u64;
        gpu.flush_writes().await?;
    }
    Ok(buffer)
}

/// 10⁹ operations a second.
async fn arithmetic(gpu: &Gpu, clock: Clock, monitor: &Monitor) -> Result<f64, BenchError> {
    let y = gpu.storage("bench y", 4 * u64::from(LANES) * 16, Purpose::Activations)?;
    // A GPU needs many lanes to be full, and each enough to do for the launch not to count.
    let (lanes, rounds) = if gpu.is_cpu() { (LANES / 16, 64) } else { (16 * LANES, 256) };
    let mut best = 0.0f64;
    for chains in FMA_CHAINS {
        for fused in [true, false] {
            let what = Fma { lanes, rounds, chains, fused, factor: 0.999, addend: 0.5 };
            let mut record = |rec: &mut _, _| probe::fma(rec, &what, y.all());
            let times = measure::times(gpu, clock, what.operations(), &mut record, monitor).await?;
            best = best.max(1e-3 * what.operations() as f64 / times.median_us);
        }
    }
    Ok(best)
}

/// Microseconds of one of many dispatches.
async fn dispatches(gpu: &Gpu, clock: Clock, monitor: &Monitor) -> Result<f64, BenchError> {
    let (x, y) = (tiny(gpu)?, tiny(gpu)?);
    let mut record = |rec: &mut _, run: usize| {
        let (from, to) = if run.is_multiple_of(2) { (&x, &y) } else { (&y, &x) };
        probe::copy(rec, 1, 1, from.all(), to.all())
    };
    Ok(measure::times(gpu, clock, 0, &mut record, monitor).await?.median_us)
}

fn tiny(gpu: &Gpu) -> Result<Buffer, BenchError> {
    Ok(gpu.storage("bench tiny", 256, Purpose::Activations)?)
}

/// Microseconds on the host for a dispatch, the median of rounds of many.
async fn recording(gpu: &Gpu, monitor: &Monitor) -> Result<f64, BenchError> {
    let (x, y) = (tiny(gpu)?, tiny(gpu)?);
    let mut rounds = Vec::new();
    for _ in 0..=measure::SAMPLES {
        monitor.check()?;
        let mut rec = gpu.record();
        let start = Instant::now();
        for _ in 0..DISPATCHES {
            probe::copy(&mut rec, 1, 1, x.all(), y.all())?;
        }
        rounds.push(1e6 * start.elapsed().as_secs_f64() / f64::from(DISPATCHES));
        rec.submit()?;
        gpu.idle().await?;
    }
    Ok(median(rounds))
}

/// Microseconds from handing in a dispatch to its end, or to having what it wrote.
async fn latency(gpu: &Gpu, read: bool, monitor: &Monitor) -> Result<f64, BenchError> {
    let (x, y) = (tiny(gpu)?, tiny(gpu)?);
    let mut rounds = Vec::new();
    for _ in 0..=measure::SAMPLES {
        monitor.check()?;
        let mut rec = gpu.record();
        probe::copy(&mut rec, 1, 1, x.all(), y.all())?;
        let start = Instant::now();
        rec.submit()?;
        if read {
            gpu.read::<u32>(&y, 0, 1).await?;
        } else {
            gpu.idle().await?;
        }
        rounds.push(1e6 * start.elapsed().as_secs_f64());
    }
    Ok(median(rounds))
}

/// Of all rounds but the first.
fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.remove(0);
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}
