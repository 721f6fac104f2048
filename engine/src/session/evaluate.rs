//! Measures a model on a text, alone or against another.

use super::calibrate::Gathered;
use super::command::{Evaluate, Text};
use super::desk::{device, open, read_recipe};
use super::failure::fail;
use super::inspect;
use super::language::{attention_use, decoder_config, read_policy, weights_report};
use super::report::{self, Report};
use super::runner::{Interruption, Reporter};
use super::stage::{Prepared, prepare};
use crate::codec::{Recipe, Stored};
use crate::eval::{self, Original, Windows};
use crate::format::Checkpoint;
use crate::generate::Tokenizer;
use crate::gpu::Gpu;
use crate::model::{Architecture, BlockCount, Config, Decoder, Weights};
use crate::ops::metrics::{Comparison, Difference, Likelihood};
use crate::progress::Monitor;
use web_time::Instant;

pub(super) async fn evaluate(
    gpu: &Gpu,
    limits: &str,
    command: Evaluate,
    reporter: &Reporter,
) -> Result<Report, Interruption> {
    let monitor = &reporter.monitor;
    let checkpoint = open(command.source)?;
    let recipe = command.recipe.as_ref().map(read_recipe).transpose()?;
    let policy = read_policy(command.attention.as_ref())?;
    let rotation = command.rotation.map(|r| r.seed);
    if Config::read(&checkpoint)?.architecture == Architecture::Bert {
        return Err(fail("an encoder predicts no text: `compare` measures how far compression moves its vectors"));
    }
    let measured = TextWindows::of(&checkpoint, &command.text, command.context, command.windows)?;
    let windows = &measured.windows;
    let context = windows.length();
    let mut model = inspect::model(&Stored::of(&checkpoint)?);
    let stored_rotation = model.rotation;
    model.rotation = rotation.or(stored_rotation);
    let name = command.recipe.as_ref().map(|recipe| recipe.name().to_owned());
    let asked = &command.calibration;
    let prepared = prepare(Some(gpu), &checkpoint, recipe.as_ref(), rotation, asked, monitor).await?;
    let Prepared { checkpoint, rotation: left, gathered } = &prepared;
    let (_, calibration) = gathered.of(recipe.as_ref());
    let start;
    let (quality, decoder, weights, against, against_quality) = match command.against {
        None => {
            let (mut decoder, weights) = decoder(gpu, checkpoint, recipe, *left, gathered, context, monitor).await?;
            decoder.set_attention(policy)?;
            start = Instant::now();
            let records = eval::likelihoods(&decoder, windows, monitor).await?;
            (measured.alone(&records)?, decoder, weights, None, None)
        }
        Some(source) => {
            let other = open(source)?;
            let original = decoder(gpu, &other, None, None, &Gathered::default(), context, monitor).await?.0;
            let original = Original::record(original, windows, monitor).await?;
            let (mut decoder, weights) = decoder(gpu, checkpoint, recipe, *left, gathered, context, monitor).await?;
            decoder.set_attention(policy)?;
            start = Instant::now();
            let (records, drift) = original.compare(&decoder, windows, monitor).await?;
            let other = inspect::model(&Stored::of(&other)?);
            // In another basis the residual stream is another; its distance says nothing.
            let same_basis = rotation.is_none() && stored_rotation == other.rotation;
            let drift = if same_basis { drift } else { Vec::new() };
            let quality = measured.compared(&records, &drift)?;
            (quality, decoder, weights, Some(other), Some(measured.alone(original.likelihoods())?))
        }
    };
    let count = decoder.block_count().await?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Report::Evaluate(Box::new(report::Evaluation {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: device(gpu, limits),
        model,
        recipe: name,
        attention: count.map(|count| attention_use(policy, BlockCount::default(), count)),
        weights: report::Weights { calibration, ..weights_report(&weights) },
        against,
        against_quality,
        quality,
        positions_per_second: windows.positions() as f64 / seconds,
        text: measured.info,
    })))
}

/// Reads, compresses and uploads a model's layers.
pub(super) async fn decoder(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    recipe: Option<Recipe>,
    rotation: Option<u64>,
    gathered: &Gathered,
    context: u32,
    monitor: &Monitor,
) -> Result<(Decoder, Weights), Interruption> {
    let config = decoder_config(checkpoint)?;
    let (calibrations, _) = gathered.of(recipe.as_ref());
    let weights = Weights::new(checkpoint, &config, recipe, rotation)?.calibrated(calibrations);
    Ok(Decoder::load(gpu, config, weights, checkpoint.name(), context, monitor).await?)
}

/// A text, tokenized and cut.
pub(super) struct TextWindows {
    pub(super) windows: Windows,
    pub(super) info: report::TextInfo,
    /// Bytes of the scored tokens.
    bytes: u64,
}

impl TextWindows {
    pub(super) fn of(
        checkpoint: &Checkpoint,
        text: &Text,
        context: u32,
        most: Option<u32>,
    ) -> Result<Self, Interruption> {
        let tokenizer = Tokenizer::from_checkpoint(checkpoint)?;
        let config = decoder_config(checkpoint)?;
        let ids = tokenizer.encode(&text.text, false)?;
        let windows = Windows::new(&ids, context.min(config.max_positions), most, tokenizer.before_text());
        let windows = windows.ok_or_else(|| fail(format!("{}: too short to measure anything on", text.name)))?;
        let bytes = windows.targets().iter().map(|id| tokenizer.token_bytes(*id).len() as u64).sum();
        let info = report::TextInfo {
            name: text.name.clone(),
            bytes: text.text.len() as u64,
            context: windows.length(),
            windows: windows.count() as u64,
            positions: windows.positions() as u64,
        };
        Ok(Self { windows, info, bytes })
    }

    fn bits_per_byte(&self, nats: f64) -> Option<f64> {
        let total = nats * self.windows.positions() as f64 / std::f64::consts::LN_2;
        (self.bytes > 0).then(|| total / self.bytes as f64)
    }

    /// Quality of a model by itself.
    pub(super) fn alone(&self, records: &[Likelihood]) -> Result<report::Quality, Interruption> {
        let found = eval::perplexity(records, &self.windows.targets())?;
        Ok(report::Quality {
            perplexity: estimate(found.perplexity),
            bits_per_byte: self.bits_per_byte(found.nll.value),
            divergence: None,
        })
    }

    /// Quality of a compressed model, and its difference to the original.
    pub(super) fn compared(
        &self,
        records: &[Comparison],
        drift: &[Difference],
    ) -> Result<report::Quality, Interruption> {
        let found = eval::compare(records, &self.windows.targets())?;
        let layers = drift.iter().zip(0..).map(|(difference, layer)| report::LayerDrift {
            layer,
            nmse: difference.nmse(),
            cosine: difference.cosine(),
        });
        let positions = self.windows.positions() as f64;
        Ok(report::Quality {
            perplexity: estimate(found.perplexity_b),
            bits_per_byte: self.bits_per_byte(found.perplexity_b.value.ln()),
            divergence: Some(report::Divergence {
                ln_perplexity_ratio: estimate(found.ln_ratio),
                kl_divergence: report::Distribution {
                    mean: found.kl.value,
                    standard_error: found.kl.error,
                    median: found.kl_median,
                    percentile_99: found.kl_99,
                    percentile_99_9: found.kl_99_9,
                    max: found.kl_max,
                },
                delta_p_mean: found.delta_p.value,
                delta_p_rms: found.delta_p_rms.value,
                same_top: estimate(found.same_top),
                top5_overlap: found.top5_overlap.value,
                flips: (found.flips.value * positions).round() as u64,
                layers: layers.collect(),
            }),
        })
    }
}

fn estimate(e: eval::Estimate) -> report::Estimate {
    report::Estimate { value: e.value, standard_error: e.error }
}
