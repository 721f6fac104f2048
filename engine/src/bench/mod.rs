//! Headless measurements: what the adapter gives at most, and how much of that each kernel gets.
//!
//! In: a device, patterns that choose [`cases`]. Out: [`Ceilings`] and a [`Measurement`] for each case: microseconds with quartiles, GB/s of
//! *necessary* bytes (packed weights, x and y once each; for attention q, keys, values and the output), GFLOP/s of necessary operations, and
//! the share of the lower roof: the time that bytes at the measured bandwidth or operations at the measured rate take at least, whichever
//! is longer, through the time taken.
//!
//! After a warm-up a sample times several runs in one submission, so that it lasts about 10 ms, by the device's timestamps where it has them
//! and they agree with the host's clock. Each run takes the next of several copies of the weights, so that caches do not flatter.
//! Runs of one sample depend on one another through y, as a model's layers do. Weights are random; of large matrices blocks of rows repeat.

mod case;
mod ceilings;
mod measure;
pub mod model;
mod subject;

pub use case::{Case, Work, cases, chosen};
pub use ceilings::Ceilings;
pub use measure::{Clock, SAMPLES, SLOW_SAMPLES, Times};

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;
use crate::gpu::{Gpu, GpuError};
use crate::model::ModelError;
use crate::ops::OpsError;
use crate::progress::{Cancelled, Monitor, Unit};
use subject::Subject;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Cases whose names contain all words of one of these; all when empty.
    pub filter: Vec<String>,
    /// Only the short list.
    pub quick: bool,
    /// Cases that take at least this many seconds a run, going by the ceilings, are left out, and said to be.
    pub longest: f64,
}

impl Default for Plan {
    fn default() -> Self {
        Self { filter: Vec::new(), quick: false, longest: 5.0 }
    }
}

/// Which roof is the lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Bandwidth.
    Memory,
    /// Arithmetic.
    Compute,
}

/// One case, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The case: `matvec q4_k 4096x4096 1`.
    pub name: String,
    /// The kernel that ran, with its variant.
    pub kernel: String,
    /// Microseconds of a run.
    pub times: Times,
    /// Bytes that must move.
    pub bytes: u64,
    /// Floating-point operations that must be done.
    pub operations: u64,
    /// Bits of a stored weight, over all weights of the dense matrix; of attention, of a number in the cache.
    pub bits: f64,
    /// Copies of the weights (or caches) that runs took turns with.
    pub copies: u32,
    /// 10⁹ necessary bytes a second.
    pub gb_per_s: f64,
    /// 10⁹ necessary operations a second.
    pub gflop_per_s: f64,
    /// The lower roof.
    pub bound: Bound,
    /// Share of it that was reached: 1 is all.
    pub roof_fraction: f64,
}

/// A case that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The case.
    pub name: String,
    /// Why.
    pub why: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// What times were taken with.
    pub clock: Clock,
    /// Why it is not the device's.
    pub clock_reason: Option<String>,
    /// What the adapter gives at most.
    pub ceilings: Ceilings,
    /// What was measured, in the order of [`cases`].
    pub measurements: Vec<Measurement>,
    /// What was not.
    pub skipped: Vec<Skipped>,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The caller changed its mind.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The device or a kernel refused.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// Weights that cannot be packed.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A model that does not run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// No case fits.
    #[error("no measurement has {0} in its name; `tersor bench --list` shows the names")]
    NothingChosen(String),
}

impl From<GpuError> for BenchError {
    fn from(error: GpuError) -> Self {
        Self::Ops(error.into())
    }
}

/// Measures the ceilings, then the cases; `so_far` is shown what has been found whenever that is more. What one case cannot have, memory above all, is said of that case; a lost device ends it all.
///
/// # Errors
/// [`BenchError`].
pub async fn run(
    gpu: &Gpu,
    plan: &Plan,
    monitor: &Monitor,
    mut so_far: impl FnMut(&Findings),
) -> Result<Findings, BenchError> {
    let cases = chosen(&plan.filter, plan.quick);
    if cases.is_empty() {
        return Err(BenchError::NothingChosen(plan.filter.join(", or ")));
    }
    let total = cases.len() as u64 + 1;
    monitor.step("the adapter's ceilings", 0, total, Unit::Measurements)?;
    let (clock, clock_reason, ceilings) = ceilings::measure(gpu, monitor).await?;
    let mut findings = Findings { clock, clock_reason, ceilings, measurements: Vec::new(), skipped: Vec::new() };
    for (done, case) in cases.iter().enumerate() {
        let name = case.to_string();
        so_far(&findings);
        monitor.step(&name, done as u64 + 1, total, Unit::Measurements)?;
        let why = match measure_case(gpu, &findings, plan, case, monitor).await {
            Ok(Ok(measurement)) => {
                findings.measurements.push(measurement);
                continue;
            }
            Ok(Err(why)) => why,
            Err(error @ (BenchError::Cancelled(_) | BenchError::Ops(OpsError::Gpu(GpuError::DeviceLost { .. })))) => {
                return Err(error);
            }
            Err(error) => error.to_string(),
        };
        findings.skipped.push(Skipped { name, why });
    }
    monitor.report("done", total, total, Unit::Measurements);
    Ok(findings)
}

/// A measurement, or why there is none.
async fn measure_case(
    gpu: &Gpu,
    findings: &Findings,
    plan: &Plan,
    case: &Case,
    monitor: &Monitor,
) -> Result<Result<Measurement, String>, BenchError> {
    let subject = Subject::new(gpu, &case.work).await?;
    let (bytes, operations) = (subject.bytes(), subject.operations());
    let moving = bytes as f64 / findings.ceilings.bandwidth();
    let computing = operations as f64 / (1e9 * findings.ceilings.fma_gflop_per_s);
    let least = moving.max(computing);
    if least > plan.longest {
        return Ok(Err(format!("a run takes at least {least:.1} s on this adapter, more than {} s", plan.longest)));
    }
    let times =
        measure::times(gpu, findings.clock, operations, &mut |rec, run| subject.record(rec, run), monitor).await?;
    let seconds = 1e-6 * times.median_us;
    let bound = if computing > moving { Bound::Compute } else { Bound::Memory };
    Ok(Ok(Measurement {
        name: case.to_string(),
        kernel: subject.kernel(gpu),
        times,
        bytes,
        operations,
        bits: subject.bits(),
        copies: subject.copies(),
        gb_per_s: 1e-9 * bytes as f64 / seconds,
        gflop_per_s: 1e-9 * operations as f64 / seconds,
        bound,
        roof_fraction: least / seconds,
    }))
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::gpu::GpuOptions;

    #[test]
    fn what_would_take_too_long_is_left_out_with_a_reason() {
        let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env().unwrap())).expect("an adapter");
        let slow = |gb_per_s, fma_gflop_per_s| Findings {
            clock: Clock::HostClock,
            clock_reason: None,
            ceilings: Ceilings {
                buffer_bytes: 0,
                copy_gb_per_s: gb_per_s,
                read_gb_per_s: gb_per_s,
                fma_gflop_per_s,
                dispatch_us: 0.0,
                record_us: 0.0,
                submit_us: 0.0,
                readback_us: 0.0,
            },
            measurements: Vec::new(),
            skipped: Vec::new(),
        };
        let [case] = &chosen(&["matvec q4_0 576x576".to_owned()], false)[..] else { panic!() };
        let measure = |findings: Findings, plan: Plan| {
            let monitor = Monitor::none();
            pollster::block_on(measure_case(&gpu, &findings, &plan, case, &monitor))
                .unwrap_or_else(|error| panic!("{error}"))
        };
        // 191,232 bytes at 1,000 a second; 663,552 operations at 100 a second.
        assert!(measure(slow(1e-6, 1e3), Plan::default()).unwrap_err().contains("at least 191.2 s"));
        assert!(measure(slow(1e3, 1e-7), Plan::default()).unwrap_err().contains("at least 6635.5 s"));
        let found = measure(slow(1e-6, 1e3), Plan { longest: 200.0, ..Plan::default() }).unwrap();
        assert_eq!(found.bound, Bound::Memory);
        assert!((found.roof_fraction * found.times.median_us - 191.232e6).abs() < 1e3, "{found:?}");
        assert!(measure(slow(1e3, 1e-3), Plan::default()).unwrap().bound == Bound::Compute);
    }
}
