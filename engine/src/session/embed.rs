//! Vectors of texts, and what compression does to them.

use super::calibrate::{self, Gathered, Plan};
use super::command::{Compare, Embed, Text};
use super::compare::Asked;
use super::desk::{device, memory_since, open, read_recipe};
use super::failure::fail;
use super::inspect;
use super::language::weights_report;
use super::report::{self, Report};
use super::runner::{Interruption, Reporter};
use crate::codec::{self, Stored};
use crate::eval::{self, cosine};
use crate::format::Checkpoint;
use crate::generate::Tokenizer;
use crate::gpu::Gpu;
use crate::model::{Architecture, AttentionPolicy, Config, Encoder, Weights};
use crate::progress::{Monitor, Unit};
use web_time::Instant;

/// Paragraphs that a comparison embeds at most.
const PARAGRAPHS: usize = 200;

/// Tokens and their vectors.
struct Embedder {
    encoder: Encoder,
    tokenizer: Tokenizer,
    weights: report::Weights,
}

impl Embedder {
    async fn load(
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        recipe: Option<codec::Recipe>,
        gathered: &Gathered,
        monitor: &Monitor,
    ) -> Result<Self, Interruption> {
        let config = Config::read(checkpoint)?;
        if config.architecture != Architecture::Bert {
            return Err(fail(format!(
                "{} is a {} model, which writes text; `embed` takes encoders like minilm-l6",
                checkpoint.name(),
                config.architecture.name()
            )));
        }
        let tokenizer = Tokenizer::from_checkpoint(checkpoint)?;
        let (calibrations, calibration) = gathered.of(recipe.as_ref());
        let weights = Weights::new(checkpoint, &config, recipe, None)?.calibrated(calibrations);
        let (encoder, weights) = Encoder::load(gpu, config, weights, checkpoint.name(), monitor).await?;
        encoder.tune(monitor).await?;
        let weights = report::Weights { calibration, ..weights_report(&weights) };
        Ok(Self { encoder, tokenizer, weights })
    }

    /// Unit vectors of the texts, in their order.
    async fn embed(&self, ids: &[Vec<u32>], monitor: &Monitor) -> Result<Vec<Vec<f32>>, Interruption> {
        let mut vectors = Vec::new();
        for (done, one) in ids.iter().enumerate() {
            monitor.step("embedding", done as u64, ids.len() as u64, Unit::Texts)?;
            vectors.push(self.encoder.embed(one).await?);
        }
        monitor.report("embedding", ids.len() as u64, ids.len() as u64, Unit::Texts);
        Ok(vectors)
    }
}

pub(super) async fn embed(
    gpu: &Gpu,
    limits: &str,
    command: Embed,
    reporter: &Reporter,
) -> Result<Report, Interruption> {
    let checkpoint = open(command.source)?;
    let recipe = command.recipe.as_ref().map(read_recipe).transpose()?;
    let model = inspect::model(&Stored::of(&checkpoint)?);
    let monitor = &reporter.monitor;
    let gathered = calibrate::gather(gpu, &checkpoint, recipe.as_ref(), None, &command.calibration, monitor).await?;
    let embedder = Embedder::load(gpu, &checkpoint, recipe, &gathered, monitor).await?;
    let encode = |text: &String| embedder.tokenizer.encode(text, true);
    let ids = command.texts.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    let embeddings = embedder.embed(&ids, &reporter.monitor).await?;
    let row = |a: &Vec<f32>| embeddings.iter().map(|b| cosine(a, b) as f32).collect();
    Ok(Report::Embed(report::Embedded {
        device: device(gpu, limits),
        model,
        weights: embedder.weights,
        texts: command.texts,
        similarity: embeddings.iter().map(row).collect(),
        embeddings,
    }))
}

/// Compares compressions of an encoder with its original on the paragraphs of a text.
pub(super) async fn compare(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    dense: codec::Recipe,
    asked: Vec<Asked>,
    command: &Compare,
    report: &mut report::Comparison,
    reporter: &Reporter,
) -> Result<(), Interruption> {
    if command.rotation.is_some() {
        return Err(fail("an encoder's norms subtract the mean, which a rotation does not keep: leave --rotate out"));
    }
    if command.input.is_some() {
        return Err(fail(format!("{} is an encoder, which writes no text: leave --prompt out", checkpoint.name())));
    }
    if !command.attention.is_empty() || asked.iter().any(|asked| asked.attention != AttentionPolicy::Dense) {
        return Err(fail(format!(
            "{} is an encoder, which reads its texts whole: leave --attention and @POLICY out",
            checkpoint.name()
        )));
    }
    let text = command.text.as_ref();
    let text = text.ok_or_else(|| fail("an encoder is compared on the paragraphs of a text: leave --no-text out"))?;
    let total = asked.len() + 1;
    let calibration = Plan::of(checkpoint, asked.iter().map(|a| &a.recipe), None, &command.calibration)?;
    let dense = Asked { name: command.dense.clone(), recipe: dense, attention: AttentionPolicy::Dense };
    let mut gathered = Gathered::default();
    let mut original: Option<Vec<Vec<f32>>> = None;
    for (number, Asked { name, recipe, .. }) in std::iter::once(dense).chain(asked).enumerate() {
        gpu.reset_peak();
        let before = gpu.memory();
        let monitor = reporter.monitor.prefixed(&format!("{name} ({} of {total})", number + 1));
        let embedder = Embedder::load(gpu, checkpoint, Some(recipe), &gathered, &monitor).await?;
        if let (None, Some(plan)) = (&original, &calibration) {
            gathered = plan.gather_encoder(&embedder.encoder, &embedder.tokenizer, &monitor).await?;
        }
        let most = command.context.min(embedder.encoder.config().max_positions);
        let ids = paragraphs(&embedder.tokenizer, text, most)?;
        // Compiles what the texts take.
        embedder.embed(&ids[..1], &Monitor::none()).await?;
        let start = Instant::now();
        let vectors = embedder.embed(&ids, &monitor).await?;
        let tokens: usize = ids.iter().map(Vec::len).sum();
        let speed = report::Speed {
            prefill_tokens: tokens as u32,
            prefill_tokens_per_second: tokens as f64 / start.elapsed().as_secs_f64().max(1e-9),
            decode_tokens: 0,
            decode_tokens_per_second: 0.0,
            first_token_ms: 0.0,
        };
        let drift = original.as_ref().map(|a| eval::embedding_drift(a, &vectors)).transpose()?;
        report.variants.push(report::Variant {
            recipe: name,
            attention: None,
            weights: embedder.weights.clone(),
            quality: None,
            embeddings: drift,
            speed: Some(speed),
            memory: memory_since(gpu, &before),
            generation: None,
        });
        if original.is_none() {
            report.text = Some(report::TextInfo {
                name: text.name.clone(),
                bytes: text.text.len() as u64,
                context: command.context.min(embedder.encoder.config().max_positions),
                windows: ids.len() as u64,
                positions: ids.iter().map(|ids| ids.len() as u64).sum(),
            });
            original = Some(vectors);
        }
    }
    Ok(())
}

/// The first paragraphs of a text, each cut to `most` tokens with its last token kept.
pub(super) fn paragraphs(tokenizer: &Tokenizer, text: &Text, most: u32) -> Result<Vec<Vec<u32>>, Interruption> {
    let most = most as usize;
    let text = text.text.replace("\r\n", "\n");
    let pieces = text.split("\n\n").map(str::trim).filter(|piece| !piece.is_empty()).take(PARAGRAPHS);
    let cut = |piece: &str| {
        let mut ids = tokenizer.encode(piece, true)?;
        if ids.len() > most {
            let last = ids.pop();
            ids.truncate(most - 1);
            ids.extend(last);
        }
        Ok::<_, Interruption>(ids)
    };
    let all = pieces.map(cut).collect::<Result<Vec<_>, _>>()?;
    if all.len() < 3 {
        return Err(fail("an encoder is compared on three paragraphs or more (parted by empty lines)"));
    }
    Ok(all)
}
