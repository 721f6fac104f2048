//! `Bench`: the adapter's ceilings, and what the kernels make of them. `BenchModel`: a model end to end.

use serde::{Deserialize, Serialize};
use web_time::Instant;

use super::command::BenchModel;
use super::desk::{device, open, read_recipe};
use super::evaluate;
use super::event::EventKind;
use super::failure::fail;
use super::inspect;
use super::language::{decoder_config, weights_report};
use super::report::{self, Device, Report};
use super::runner::{Interruption, Reporter};
use super::stage::{Prepared, prepare};
use crate::bench::model::{self, ModelFindings, ModelPlan};
use crate::bench::{self, BenchError, Findings, Plan};
use crate::codec::Stored;
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
            BenchError::Model(error) => error.into(),
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

/// Of `BenchModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelBenchmark {
    /// Version of tersor.
    pub version: String,
    /// The device.
    pub device: Device,
    /// The model.
    pub model: report::Model,
    /// Its weights as they ran.
    pub weights: report::Weights,
    /// The recipe; `None`: as it is stored.
    pub recipe: Option<String>,
    /// What was asked for.
    pub plan: ModelPlan,
    /// What was found.
    #[serde(flatten)]
    pub findings: ModelFindings,
    /// Seconds that the whole took.
    pub seconds: f64,
}

/// Carries the command out.
pub(super) async fn bench_model(
    gpu: &Gpu,
    limits: &str,
    command: BenchModel,
    reporter: &Reporter,
) -> Result<Report, Interruption> {
    let (start, monitor) = (Instant::now(), &reporter.monitor);
    let checkpoint = open(command.source)?;
    let recipe = command.recipe.as_ref().map(read_recipe).transpose()?;
    let rotation = command.rotation.map(|rotation| rotation.seed);
    let mut model = inspect::model(&Stored::of(&checkpoint)?);
    model.rotation = rotation.or(model.rotation);
    let name = recipe.as_ref().map(|recipe| recipe.name().to_owned());
    let prepared = prepare(Some(gpu), &checkpoint, recipe.as_ref(), rotation, &command.calibration, monitor).await?;
    // What was measured must not hide behind what preparing took.
    gpu.reset_peak();
    let loading = Instant::now();
    let Prepared { checkpoint, rotation, gathered } = &prepared;
    let most = decoder_config(checkpoint)?.max_positions;
    let longest = command.plan.lengths(most).last().copied().unwrap_or(1);
    let positions = longest.saturating_add(command.plan.tokens);
    let (_, calibration) = gathered.of(recipe.as_ref());
    let load = evaluate::decoder(gpu, checkpoint, recipe, *rotation, gathered, positions, monitor);
    let (decoder, weights) = load.await?;
    let findings = model::run(&decoder, &command.plan, loading.elapsed().as_secs_f64(), monitor).await?;
    let weights = report::Weights { calibration, ..weights_report(&weights) };
    drop(decoder);
    gpu.reset_peak();
    Ok(Report::BenchModel(Box::new(ModelBenchmark {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: device(gpu, limits),
        model,
        weights,
        recipe: name,
        plan: command.plan,
        findings,
        seconds: start.elapsed().as_secs_f64(),
    })))
}
