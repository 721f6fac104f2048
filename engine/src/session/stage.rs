//! What happens to a model before a recipe's codecs pack it: it is shrunk, and codecs that calibrate get their statistics.

use super::calibrate::{self, Gathered, Plan};
use super::command::Calibration;
use super::failure::fail;
use super::report::CalibrationInfo;
use super::runner::Interruption;
use crate::codec::{Calibrates, Recipe};
use crate::eval;
use crate::format::Checkpoint;
use crate::generate::Tokenizer;
use crate::gpu::Gpu;
use crate::model::names::Role;
use crate::model::shrink::{Statistics, shrink};
use crate::model::{Architecture, Config, Decoder, Site, Wanted};
use crate::progress::Monitor;

/// A model that a recipe's codecs can pack.
pub(super) struct Prepared {
    /// The model: the original, or what a stage made of it.
    pub(super) checkpoint: Checkpoint,
    /// The rotation that is still to come. A stage shrinks the model in the rotated basis, and leaves none.
    pub(super) rotation: Option<u64>,
    /// What the codecs calibrate with.
    pub(super) gathered: Gathered,
}

/// What a stage calibrates with.
pub(super) struct StageStatistics {
    statistics: Statistics,
    info: Option<(CalibrationInfo, Calibrates)>,
}

/// Whether [`prepare`] needs a device.
#[cfg(not(target_arch = "wasm32"))] // Browsers write no files.
pub(super) fn calibrates(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    rotation: Option<u64>,
    asked: &Calibration,
) -> Result<bool, Interruption> {
    if recipe.shrink().is_none() {
        return Ok(Plan::of(checkpoint, [recipe], rotation, asked)?.is_some());
    }
    let at_least = if asked.text.is_some() { Calibrates::Optionally } else { Calibrates::Always };
    Ok(recipe.calibrates() >= at_least)
}

/// Prepares a model for a recipe. `gpu`: needed where something calibrates.
pub(super) async fn prepare(
    gpu: Option<&Gpu>,
    checkpoint: &Checkpoint,
    recipe: Option<&Recipe>,
    rotation: Option<u64>,
    asked: &Calibration,
    monitor: &Monitor,
) -> Result<Prepared, Interruption> {
    let mut statistics = None;
    if let (Some(gpu), true) = (gpu, needs_statistics(recipe)) {
        statistics = Some(gather_statistics(gpu, checkpoint, rotation, asked, monitor).await?);
    }
    prepare_with(gpu, checkpoint, recipe, rotation, statistics.as_ref(), asked, monitor).await
}

/// Whether a recipe has a stage that calibrates.
pub(super) fn needs_statistics(recipe: Option<&Recipe>) -> bool {
    recipe.and_then(Recipe::shrink).is_some_and(|stage| stage.calibrates() == Calibrates::Always)
}

/// [`prepare`] with what the recipe's stage calibrates with.
pub(super) async fn prepare_with(
    gpu: Option<&Gpu>,
    checkpoint: &Checkpoint,
    recipe: Option<&Recipe>,
    rotation: Option<u64>,
    statistics: Option<&StageStatistics>,
    asked: &Calibration,
    monitor: &Monitor,
) -> Result<Prepared, Interruption> {
    let (checkpoint, rotation) = match recipe.and_then(Recipe::shrink) {
        Some(stage) => (shrink(checkpoint, stage, rotation, statistics.map(|s| &s.statistics), monitor)?, None),
        None => (checkpoint.clone(), rotation),
    };
    // Codecs see what goes into the matrices that are left.
    let mut gathered = match gpu {
        Some(gpu) => calibrate::gather(gpu, &checkpoint, recipe, rotation, asked, monitor).await?,
        None => Gathered::default(),
    };
    gathered.info = gathered.info.or_else(|| statistics.and_then(|s| s.info.clone()));
    Ok(Prepared { checkpoint, rotation, gathered })
}

/// The matrices whose inputs stages need to know: queries (and so keys and values), output projection, the MLP's second matrix.
fn wanted(config: &Config) -> Vec<Wanted> {
    let roles = [(Role::Q, Site::Qkv), (Role::O, Site::O), (Role::Down, Site::Down)];
    (0..config.layers).flat_map(|layer| roles.map(|(role, site)| Wanted { role, layer, site: Some(site) })).collect()
}

/// Loads the model as it is stored, turned into the new basis if there is one, and gathers what stages need. It is gone afterwards.
pub(super) async fn gather_statistics(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    rotation: Option<u64>,
    asked: &Calibration,
    monitor: &Monitor,
) -> Result<StageStatistics, Interruption> {
    let config = Config::read(checkpoint)?;
    if config.architecture == Architecture::Bert {
        return Err(fail(format!("{}: only language models can be shrunk", checkpoint.name())));
    }
    let plan = Plan::wanting(wanted(&config), Calibrates::Always, asked);
    let tokenizer = Tokenizer::from_checkpoint(checkpoint)?;
    let decoder = plan.load(gpu, checkpoint, &tokenizer, rotation, monitor).await?;
    statistics_of(&plan, &decoder, &tokenizer, checkpoint.name(), monitor).await
}

async fn statistics_of(
    plan: &Plan,
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    model: &str,
    monitor: &Monitor,
) -> Result<StageStatistics, Interruption> {
    let config = decoder.config();
    let gathered = plan.gather(decoder, tokenizer, monitor).await?;
    let influence = eval::influence(decoder, &plan.windows(config, tokenizer)?, monitor).await?;
    let statistics = Statistics::of(model, config, &gathered.calibrations, influence)?;
    Ok(StageStatistics { statistics, info: gathered.info })
}
