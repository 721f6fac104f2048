//! Where commands are carried out: holds the GPU and the loaded models between them.

use std::collections::BTreeMap;
#[cfg(not(target_arch = "wasm32"))]
use std::collections::HashMap;

use super::command::{Generate, Inspect, Load, Score, Slot, Source};
use super::event::EventKind;
use super::failure::fail;
use super::language::{Language, read_policy};
use super::report::{self, Report};
use super::runner::{Interruption, Reporter};
use super::stage::{Prepared, prepare};
use super::{Command, Options, attend, bench, compare, embed, evaluate, inspect, score};
use crate::codec::{self, CodecError, Stored};
use crate::format::Checkpoint;
use crate::gpu::{self, Gpu, GpuError, GpuOptions, LimitsChoice, Tier, Tune};

pub(super) struct Desk {
    options: Options,
    gpu: Option<Gpu>,
    models: BTreeMap<Slot, Language>,
}

impl Desk {
    pub(super) fn new(options: Options, gpu: Option<Gpu>) -> Self {
        Self { options, gpu, models: BTreeMap::new() }
    }

    /// Carries out one command. A lost device is forgotten with its models, so that the next command opens another.
    pub(super) async fn execute(&mut self, command: Command, reporter: &Reporter) -> Result<(), Interruption> {
        let result = self.carry_out(command, reporter).await;
        if let Some(tuning) = self.gpu.as_ref().and_then(Gpu::tuning_found) {
            // Another device, after this one is lost, is to know it too.
            self.options.tuning = tuning.clone();
            reporter.emit(EventKind::Tuned(tuning));
        }
        if let Err(Interruption::Failed(failure)) = &result
            && failure.device_lost
        {
            self.models.clear();
            self.gpu = None;
        }
        let report = result?;
        if let Some(report) = report {
            reporter.emit(EventKind::Report(Box::new(report)));
        }
        Ok(())
    }

    async fn carry_out(&mut self, command: Command, reporter: &Reporter) -> Result<Option<Report>, Interruption> {
        Ok(Some(match command {
            Command::Adapters => self.adapters().await,
            Command::Inspect(command) => inspect_model(command, reporter)?,
            #[cfg(not(target_arch = "wasm32"))]
            Command::Compress(command) => self.compress(command, reporter).await?,
            #[cfg(target_arch = "wasm32")]
            Command::Compress(_) => return Err(fail("a browser cannot write model files")),
            Command::Load(command) => self.load(command, reporter).await?,
            Command::Unload(slot) => {
                self.models.remove(&slot);
                return Ok(None);
            }
            Command::Generate(command) => self.generate(&command, reporter).await?,
            Command::Score(command) => self.score(&command, reporter).await?,
            Command::Attend(command) => {
                let Slot(number) = command.slot;
                let model = self.models.get_mut(&command.slot);
                let model =
                    model.ok_or_else(|| fail(format!("no model is loaded in slot {number}: load one first")))?;
                Report::Attend(attend::attend(model, &command, &reporter.monitor).await?)
            }
            Command::Compare(command) => {
                compare::compare(&self.gpu().await?, &self.limits(), command, reporter).await?
            }
            Command::Evaluate(command) => {
                evaluate::evaluate(&self.gpu().await?, &self.limits(), command, reporter).await?
            }
            Command::Embed(command) => embed::embed(&self.gpu().await?, &self.limits(), command, reporter).await?,
            Command::Bench(plan) => bench::bench(&self.gpu().await?, &self.limits(), plan, reporter).await?,
            Command::BenchModel(command) => {
                bench::bench_model(&self.gpu().await?, &self.limits(), command, reporter).await?
            }
        }))
    }

    /// The device, opened by the first command that needs it.
    async fn gpu(&mut self) -> Result<Gpu, Interruption> {
        if let Some(gpu) = &self.gpu {
            match gpu.check() {
                Ok(()) => return Ok(gpu.clone()),
                Err(GpuError::DeviceLost { .. }) => {
                    self.models.clear();
                    self.gpu = None;
                }
                // An old complaint of a command that failed for it.
                Err(_) => return Ok(gpu.clone()),
            }
        }
        let options = GpuOptions {
            adapter: self.options.adapter.clone(),
            tier: self.options.tier.as_deref().map(Tier::parse).transpose()?,
            limits: self.options.limits.as_deref().map(LimitsChoice::parse).transpose()?.unwrap_or_default(),
            memory: self.options.memory,
            tune: self.options.tune.as_deref().map(Tune::parse).transpose()?.unwrap_or_default(),
            tuning: self.options.tuning.clone(),
        };
        let gpu = Gpu::new(options).await?;
        self.gpu = Some(gpu.clone());
        Ok(gpu)
    }

    /// Limits in use, as reports name them.
    fn limits(&self) -> String {
        self.options.limits.clone().unwrap_or_else(|| "adapter".to_owned())
    }

    async fn adapters(&self) -> Report {
        let adapters = gpu::adapters().await;
        let chosen = gpu::chosen(self.options.adapter.as_deref()).await.ok();
        Report::Adapters(report::Adapters { adapters, chosen })
    }

    async fn load(&mut self, command: Load, reporter: &Reporter) -> Result<Report, Interruption> {
        let gpu = self.gpu().await?;
        // What the slot held must be gone before there is room for what comes.
        self.models.remove(&command.slot);
        gpu.reset_peak();
        let before = gpu.memory();
        let policy = read_policy(command.attention.as_ref())?;
        let checkpoint = open(command.source)?;
        let recipe = command.recipe.as_ref().map(read_recipe).transpose()?;
        let seed = command.rotation.map(|r| r.seed);
        let monitor = &reporter.monitor;
        let asked = &command.calibration;
        let prepared = prepare(Some(&gpu), &checkpoint, recipe.as_ref(), seed, asked, monitor).await?;
        let Prepared { checkpoint, rotation, gathered } = &prepared;
        let mut language =
            Language::load(&gpu, checkpoint, recipe, *rotation, gathered, command.context, monitor).await?;
        language.set_attention(policy).await?;
        let loaded = report::Loaded {
            device: device(&gpu, &self.limits()),
            model: language.model.clone(),
            weights: language.weights.clone(),
            memory: memory_since(&gpu, &before),
            context: language.context(),
            chat: language.has_template(),
        };
        self.models.insert(command.slot, language);
        Ok(Report::Load(loaded))
    }

    #[cfg(not(target_arch = "wasm32"))]
    async fn compress(&mut self, command: super::Compress, reporter: &Reporter) -> Result<Report, Interruption> {
        use super::compress::{CompressError, Rotation, compress, keep_source};
        use crate::model::{Config, Weights};

        let recipe = read_recipe(&command.recipe)?;
        if let Source::Path(source) = &command.source {
            keep_source(source, &command.output).map_err(fail)?;
        }
        let original = open(command.source)?;
        let (seed, monitor) = (command.rotation.map(|r| r.seed), &reporter.monitor);
        // Only calibration takes a device.
        let asked = &command.calibration;
        let gpu =
            if super::stage::calibrates(&original, &recipe, seed, asked)? { Some(self.gpu().await?) } else { None };
        let prepared = prepare(gpu.as_ref(), &original, Some(&recipe), seed, asked, monitor).await?;
        let Prepared { checkpoint, rotation, gathered } = &prepared;
        let stored = Stored::of(checkpoint)?;
        let weights = |seed| Ok::<_, Interruption>(Weights::new(checkpoint, &Config::read(checkpoint)?, None, seed)?);
        let (calibrations, calibration) = gathered.of(Some(&recipe));
        let calibrations = if calibrations.is_empty() { HashMap::new() } else { weights(None)?.by_name(&calibrations) };
        let rotation = match *rotation {
            Some(seed) => Some(Rotation { seed, weights: weights(Some(seed))? }),
            None => None,
        };
        let mut model = inspect::model(&Stored::of(&original)?);
        model.rotation = seed.or(model.rotation);
        let compressed = compress(&stored, &recipe, rotation, &calibrations, &command.output, monitor);
        let weights = compressed.map_err(|error| match error {
            CompressError::Cancelled(cancelled) => cancelled.into(),
            error => fail(error),
        })?;
        let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        let output_bytes = match std::fs::read_dir(&command.output) {
            Ok(files) => files.flatten().map(|file| size(&file.path())).sum(),
            Err(_) => size(&command.output),
        };
        Ok(Report::Compress(report::Compressed {
            model,
            recipe: recipe.name().to_owned(),
            output: command.output.display().to_string(),
            output_bytes,
            weights: report::Weights { calibration, ..weights },
        }))
    }

    async fn generate(&mut self, command: &Generate, reporter: &Reporter) -> Result<Report, Interruption> {
        let Slot(number) = command.slot;
        let model = self.models.get_mut(&command.slot);
        let model = model.ok_or_else(|| fail(format!("no model is loaded in slot {number}: load one first")))?;
        let prompt = model.prompt(&command.input)?;
        let emit = |id, text: &str| reporter.emit(EventKind::Token { id, text: text.to_owned() });
        let (generation, speed) = model.generate(&prompt, command, emit, &reporter.monitor).await?;
        let attention = model.attention_use().await?;
        Ok(Report::Generate(report::Generated { generation, speed, attention }))
    }

    async fn score(&mut self, command: &Score, reporter: &Reporter) -> Result<Report, Interruption> {
        let missing = |Slot(number)| fail(format!("no model is loaded in slot {number}: load one first"));
        if command.original == command.slot {
            return Err(fail("a model cannot be compared with itself: name two slots"));
        }
        // Two of the map's values at once: one is taken out meanwhile.
        let mut other = self.models.remove(&command.slot).ok_or_else(|| missing(command.slot))?;
        let result = match self.models.get_mut(&command.original) {
            Some(original) => score::score(original, &mut other, command, &reporter.monitor).await,
            None => Err(missing(command.original)),
        };
        self.models.insert(command.slot, other);
        Ok(Report::Score(result?))
    }
}

/// The device as reports describe it.
pub(super) fn device(gpu: &Gpu, limits: &str) -> report::Device {
    let info = gpu.info();
    report::Device {
        name: gpu.name(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        tier: gpu.tier(),
        limits: limits.to_owned(),
        software: gpu.is_cpu(),
    }
}

/// Memory taken since `before`.
pub(super) fn memory_since(gpu: &Gpu, before: &gpu::MemoryReport) -> report::Memory {
    let now = gpu.memory();
    report::Memory {
        weights: now.weights.saturating_sub(before.weights),
        kv_cache: now.kv_cache.saturating_sub(before.kv_cache),
        scratch: now.activations.saturating_sub(before.activations),
        peak: now.peak.saturating_sub(before.total()),
    }
}

fn inspect_model(command: Inspect, reporter: &Reporter) -> Result<Report, Interruption> {
    let stored = Stored::of(&open(command.source)?)?;
    match inspect::inspect(&stored, command.tensor.as_deref(), &reporter.monitor) {
        Ok(inspection) => Ok(Report::Inspect(inspection)),
        Err(inspect::InspectError::Cancelled(cancelled)) => Err(cancelled.into()),
        Err(error) => Err(fail(error)),
    }
}

/// Reads a recipe of the protocol.
pub(super) fn read_recipe(recipe: &super::Recipe) -> Result<codec::Recipe, CodecError> {
    match recipe {
        super::Recipe::Codec(spelling) => codec::Recipe::parse(spelling),
        super::Recipe::Toml { name, text } => codec::Recipe::from_toml(name, text),
    }
}

/// Opens a model's files.
pub(super) fn open(source: Source) -> Result<Checkpoint, Interruption> {
    Ok(match source {
        #[cfg(not(target_arch = "wasm32"))]
        Source::Path(path) => Checkpoint::open(&path)?,
        #[cfg(target_arch = "wasm32")]
        Source::Path(path) => {
            let what = format!("{}: a browser gives no access to paths; send the files instead", path.display());
            return Err(fail(what));
        }
        Source::Files(files) => Checkpoint::from_files(files)?,
        Source::Open(checkpoint) => checkpoint,
    })
}
