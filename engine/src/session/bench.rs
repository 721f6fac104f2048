//! `Bench`: the adapter's ceilings, and what the kernels make of them.

use serde::{Deserialize, Serialize};
use web_time::Instant;

use super::desk::device;
use super::event::EventKind;
use super::failure::fail;
use super::report::{Device, Report};
use super::runner::{Interruption, Reporter};
use crate::bench::{self, BenchError, Findings, Plan};
use crate::gpu::{Gpu, Tier};

/// Of `Bench`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Benchmark {
    /// Version of tersor.
    pub version: String,
    /// The device.
    pub device: Device,
    /// What was asked for.
    pub plan: Plan,
    /// What was found.
    #[serde(flatten)]
    pub findings: Findings,
    /// Seconds that the whole took.
    pub seconds: f64,
}

impl Benchmark {
    /// Name, driver and tier: what must be the same where numbers are compared.
    pub fn adapter(&self) -> (&str, &str, Tier) {
        (&self.device.name, &self.device.driver, self.device.tier)
    }
}

impl From<BenchError> for Interruption {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Cancelled(cancelled) => cancelled.into(),
            BenchError::Ops(error) => error.into(),
            error => fail(error),
        }
    }
}

/// Carries the command out.
pub(super) async fn bench(gpu: &Gpu, limits: &str, plan: Plan, reporter: &Reporter) -> Result<Report, Interruption> {
    let start = Instant::now();
    let device = device(gpu, limits);
    let benchmark = |findings| Benchmark {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: device.clone(),
        plan: plan.clone(),
        findings,
        seconds: start.elapsed().as_secs_f64(),
    };
    let so_far = |findings: &Findings| {
        reporter.emit(EventKind::Partial(Box::new(Report::Bench(Box::new(benchmark(findings.clone()))))));
    };
    let findings = bench::run(gpu, &plan, &reporter.monitor, so_far).await?;
    // Copies of weights are large, and nobody needs them any more.
    gpu.reset_peak();
    Ok(Report::Bench(Box::new(benchmark(findings))))
}
