//! Times: warm-up, samples, quartiles, and the clock they are taken with.

use serde::{Deserialize, Serialize};
use web_time::Instant;

use super::BenchError;
use crate::gpu::{Gpu, Recorder};
use crate::ops::OpsError;
use crate::progress::Monitor;

/// What times are taken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The device's timestamps, at the edges of each pass.
    DeviceTimestamps,
    /// The host's clock, from handing the work in to its end; what that takes by itself is in
    /// [`Ceilings::submit_us`](super::Ceilings::submit_us).
    HostClock,
}

/// Microseconds of one run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Median.
    pub median_us: f64,
    /// First quartile.
    pub q1_us: f64,
    /// Third quartile.
    pub q3_us: f64,
    /// Samples taken.
    pub samples: u32,
    /// Runs that each sample times together.
    pub runs: u32,
}

impl Times {
    /// Of samples in seconds a run; there is at least one.
    pub(super) fn of(mut samples: Vec<f64>, runs: u32) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * (samples.len() - 1) as f64;
            let (low, high) = (samples[place.floor() as usize], samples[place.ceil() as usize]);
            1e6 * (low + (high - low) * place.fract())
        };
        let count = samples.len() as u32;
        Self { median_us: at(0.5), q1_us: at(0.25), q3_us: at(0.75), samples: count, runs }
    }
}

/// Samples of what takes at most half a second.
pub const SAMPLES: u32 = 20;
/// Samples of what takes longer.
pub const SLOW_SAMPLES: u32 = 5;
/// Seconds a run from which on there are fewer samples.
const SLOW: f64 = 0.5;
/// Seconds that a sample should last: a hundred times what clocks and submissions cost.
const SAMPLE: f64 = 0.01;
/// Seconds of warm-up: the first runs compile, and a GPU takes a while to raise its clocks.
const WARM_UP: f64 = 0.1;
/// Dispatches of a sample at most: all fit one submission.
const DISPATCHES: u64 = 900;

/// Records run number `i`; numbers go up, so that each run may use other weights than the last.
pub(super) type Record<'a> = dyn FnMut(&mut Recorder, usize) -> Result<(), OpsError> + 'a;

/// Seconds of one sample, on the device and on the host's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    device: Option<f64>,
    pub(super) host: f64,
}

impl Sample {
    fn by(&self, clock: Clock) -> f64 {
        match clock {
            Clock::DeviceTimestamps => self.device.unwrap_or(self.host),
            Clock::HostClock => self.host,
        }
    }
}

/// Records, submits and waits. `next`: number of the next run. The device's time is taken only if `stamps`.
async fn sample(
    gpu: &Gpu,
    stamps: bool,
    record: &mut Record<'_>,
    runs: u32,
    next: &mut usize,
) -> Result<(Sample, u64), BenchError> {
    let mut rec = if stamps { gpu.record_timed() } else { gpu.record() };
    // Of several runs all are recorded before the clock starts. A long single one may be handed in while it is recorded.
    let mut start = Instant::now();
    for _ in 0..runs {
        record(&mut rec, *next)?;
        *next += 1;
    }
    let dispatches = rec.dispatches();
    if runs > 1 {
        start = Instant::now();
    }
    let device = rec.submit_timed().await?.map(|nanoseconds| 1e-9 * nanoseconds);
    Ok((Sample { device, host: start.elapsed().as_secs_f64() }, dispatches))
}

/// Warms up and takes the samples of one piece of work. `operations`: floating-point operations of a run.
pub(super) async fn times(
    gpu: &Gpu,
    clock: Clock,
    operations: u64,
    record: &mut Record<'_>,
    monitor: &Monitor,
) -> Result<Times, BenchError> {
    let (mut next, stamps) = (0, clock == Clock::DeviceTimestamps);
    sample(gpu, stamps, record, 1, &mut next).await?; // compiles
    let (mut runs, started) = (1, Instant::now());
    loop {
        monitor.check()?;
        let (found, dispatches) = sample(gpu, stamps, record, runs, &mut next).await?;
        let seconds = found.by(clock);
        if seconds >= SAMPLE && (started.elapsed().as_secs_f64() >= WARM_UP || seconds >= SLOW) {
            break;
        }
        // Work past the device's budget would be handed in while it is recorded.
        let most =
            (DISPATCHES / (dispatches / u64::from(runs)).max(1)).min(gpu.flops_per_submission() / operations.max(1));
        let wanted = (f64::from(runs) * 1.2 * SAMPLE / seconds.max(1e-9)).ceil().min(f64::from(8 * runs));
        let most = u32::try_from(most).unwrap_or(u32::MAX).max(1);
        if runs == most && started.elapsed().as_secs_f64() >= WARM_UP {
            break;
        }
        runs = (wanted as u32).clamp(runs, most.max(runs)).min(most);
    }
    let mut samples = Vec::new();
    let mut count = SAMPLES;
    while (samples.len() as u32) < count {
        monitor.check()?;
        let seconds = sample(gpu, stamps, record, runs, &mut next).await?.0.by(clock) / f64::from(runs);
        if seconds > SLOW {
            count = SLOW_SAMPLES;
        }
        samples.push(seconds);
    }
    Ok(Times::of(samples, runs))
}

/// Whether the device's timestamps can be believed, from long work timed by both clocks; and why not, if they cannot.
pub(super) async fn clock(gpu: &Gpu, record: &mut Record<'_>) -> Result<(Clock, Option<String>), BenchError> {
    if !gpu.has_timestamps() {
        return Ok((Clock::HostClock, Some("the adapter has no timestamps".into())));
    }
    let (mut next, mut runs) = (0, 1);
    sample(gpu, true, record, 1, &mut next).await?;
    loop {
        let (Sample { device, host }, _) = sample(gpu, true, record, runs, &mut next).await?;
        if host < 0.02 && runs < 256 {
            runs *= 2;
            continue;
        }
        let device = device.unwrap_or(0.0);
        return Ok(if (0.5 * host..1.05 * host).contains(&device) {
            (Clock::DeviceTimestamps, None)
        } else {
            let (device, host) = (1e3 * device, 1e3 * host);
            (
                Clock::HostClock,
                Some(format!("the adapter's timestamps say {device:.2} ms of work that takes {host:.2} ms")),
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_samples() {
        let times = Times::of(vec![4e-6, 1e-6, 2e-6, 3e-6], 7);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(times.median_us, 2.5) && near(times.q1_us, 1.75) && near(times.q3_us, 3.25), "{times:?}");
        assert_eq!((times.samples, times.runs), (4, 7));
        let one = Times::of(vec![5e-6], 1);
        assert!(near(one.median_us, 5.0) && near(one.q1_us, 5.0) && near(one.q3_us, 5.0));
    }
}
