//! Puts compressions of a model beside their dense original.
//!
//! One form of the model is in memory at a time; of the original, its output projection and its hidden states over the text stay
//! until the end ([`Original`]).

use web_time::Instant;

use super::calibrate::{Gathered, Plan};
use super::command::{Compare, Generate, Input, Slot};
use super::desk::{device, memory_since, open, read_recipe};
use super::evaluate::TextWindows;
use super::language::{Language, read_policy};
use super::report::{self, Report};
use super::runner::{Interruption, Reporter};
use super::stage::StageStatistics;
use super::{Recipe, embed, inspect, stage};
use crate::codec::{self, Stored};
use crate::eval::Original;
use crate::format::Checkpoint;
use crate::gpu::{Gpu, MemoryReport};
use crate::model::{Architecture, AttentionPolicy, Config};
use crate::progress::Monitor;

/// Positions of the context of a comparison that generates.
const CONTEXT: u32 = 1024;

pub(super) async fn compare(
    gpu: &Gpu,
    limits: &str,
    command: Compare,
    reporter: &Reporter,
) -> Result<Report, Interruption> {
    let start = Instant::now();
    let checkpoint = open(command.source.clone())?;
    // Everything that can be wrong with the request is found before hours of work.
    let dense = codec::Recipe::parse(&command.dense)?;
    let asked = command.recipes.iter().map(Asked::read).collect::<Result<Vec<_>, _>>()?;
    let policies = command.attention.iter().map(|text| read_policy(Some(text))).collect::<Result<Vec<_>, _>>()?;
    let mut model = inspect::model(&Stored::of(&checkpoint)?);
    model.rotation = command.rotation.map(|r| r.seed).or(model.rotation);
    let mut report = report::Comparison {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: device(gpu, limits),
        model,
        text: None,
        prompt: None,
        variants: Vec::new(),
        seconds: 0.0,
    };
    if Config::read(&checkpoint)?.architecture == Architecture::Bert {
        embed::compare(gpu, &checkpoint, dense, asked, &command, &mut report, reporter).await?;
    } else {
        let text = command.text.as_ref();
        let text = text.map(|t| TextWindows::of(&checkpoint, t, command.context, command.windows)).transpose()?;
        report.text = text.as_ref().map(|t| t.info.clone());
        report.prompt = command.input.as_ref().map(last_words);
        let run = Run { gpu, checkpoint: &checkpoint, command: &command, text, reporter };
        run.all(dense, asked, &policies, &mut report).await?;
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(Report::Compare(report))
}

/// The prompt, or the last message of a conversation.
fn last_words(input: &Input) -> String {
    match input {
        Input::Prompt(text) | Input::Message(text) => text.clone(),
        Input::Chat(messages) => messages.last().map(|m| m.content.clone()).unwrap_or_default(),
    }
}

/// A recipe to compare with the original, and the attention it is to have.
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) recipe: codec::Recipe,
    pub(super) attention: AttentionPolicy,
}

impl Asked {
    /// Reads `RECIPE` or `RECIPE@POLICY`.
    fn read(asked: &Recipe) -> Result<Self, Interruption> {
        let (recipe, policy) = match asked {
            Recipe::Codec(spelling) => match spelling.split_once('@') {
                Some((codec, policy)) => (Recipe::Codec(codec.to_owned()), Some(policy.to_owned())),
                None => (asked.clone(), None),
            },
            Recipe::Toml { .. } => (asked.clone(), None),
        };
        let attention = read_policy(policy.as_ref())?;
        Ok(Self { name: recipe.name().to_owned(), recipe: read_recipe(&recipe)?, attention })
    }
}

struct Run<'a> {
    gpu: &'a Gpu,
    checkpoint: &'a Checkpoint,
    command: &'a Compare,
    text: Option<TextWindows>,
    reporter: &'a Reporter,
}

impl Run<'_> {
    async fn all(
        &self,
        dense: codec::Recipe,
        asked: Vec<Asked>,
        policies: &[AttentionPolicy],
        report: &mut report::Comparison,
    ) -> Result<(), Interruption> {
        let total = (asked.len() + 1) * (policies.len() + 1);
        let monitor = &self.reporter.monitor;
        let before = self.start();
        let name = format!("{} (1 of {total})", dense.name());
        let watched = monitor.prefixed(&name);
        let rotation = self.command.rotation.map(|r| r.seed);
        // What is wrong with it is found before the original is loaded.
        let plain = asked.iter().map(|asked| &asked.recipe).filter(|recipe| recipe.shrink().is_none());
        let calibration = Plan::of(self.checkpoint, plain, rotation, &self.command.calibration)?;
        let mut original = self.load(dense.clone(), &Gathered::default(), &watched).await?;
        let mut variant = self.speak(&mut original, &self.command.dense, &watched).await?;
        variant.memory = memory_since(self.gpu, &before);
        // Whatever the file held, this is what the others are measured by.
        variant.weights.tensors.clear();
        variant.weights.encode_seconds = 0.0;
        let tokenizer = original.tokenizer.clone();
        let decoder = original.into_decoder();
        let gathered = match calibration {
            Some(plan) => plan.gather(&decoder, &tokenizer, &watched).await?,
            None => Gathered::default(),
        };
        let kept = match &self.text {
            Some(text) => {
                let kept = Original::record(decoder, &text.windows, &watched).await?;
                variant.quality = Some(text.alone(kept.likelihoods())?);
                Some(kept)
            }
            None => {
                drop(decoder);
                None
            }
        };
        // The same for all stages that ask, and gathered when the first does.
        let mut statistics = None;
        let reply = variant.generation.as_ref().map(|g| g.tokens.clone());
        report.variants.push(variant);

        // The original's weights once more, if only its attention is to be another: its layers are gone.
        let again = (!policies.is_empty()).then_some((dense, self.command.dense.clone(), Vec::new()));
        let asked = asked.into_iter().map(|Asked { name, recipe, attention }| (recipe, name, vec![attention]));
        for (recipe, name, mut attentions) in again.into_iter().chain(asked) {
            attentions.extend(policies);
            let before = self.start();
            let label = |policy: AttentionPolicy| match policy {
                AttentionPolicy::Dense => name.clone(),
                policy => format!("{name}@{policy}"),
            };
            let mut loaded = None;
            for policy in attentions {
                let label = label(policy);
                let watched = monitor.prefixed(&format!("{label} ({} of {total})", report.variants.len() + 1));
                let mut language = match loaded.take() {
                    Some(language) => language,
                    None if recipe.shrink().is_some() => {
                        self.load_shrunk(recipe.clone(), &mut statistics, &watched).await?
                    }
                    None => self.load(recipe.clone(), &gathered, &watched).await?,
                };
                language.set_attention(policy).await?;
                let mut variant = self.speak(&mut language, &label, &watched).await?;
                variant.memory = memory_since(self.gpu, &before);
                if let (Some(kept), Some(text)) = (&kept, &self.text) {
                    let (records, drift) = kept.compare(&language.decoder, &text.windows, &watched).await?;
                    variant.quality = Some(text.compared(&records, &drift)?);
                }
                variant.attention = language.attention_use().await?;
                if let (Some(reply), Some(generation)) = (&reply, &mut variant.generation) {
                    generation.first_difference = first_difference(reply, &generation.tokens);
                }
                report.variants.push(variant);
                loaded = Some(language);
            }
        }
        Ok(())
    }

    /// Memory before a model comes.
    fn start(&self) -> MemoryReport {
        self.gpu.reset_peak();
        self.gpu.memory()
    }

    /// Loads what a recipe's stage makes of the model.
    async fn load_shrunk(
        &self,
        recipe: codec::Recipe,
        statistics: &mut Option<StageStatistics>,
        monitor: &Monitor,
    ) -> Result<Language, Interruption> {
        let (gpu, seed, asked) = (self.gpu, self.command.rotation.map(|r| r.seed), &self.command.calibration);
        if statistics.is_none() && stage::needs_statistics(Some(&recipe)) {
            *statistics = Some(stage::gather_statistics(gpu, self.checkpoint, seed, asked, monitor).await?);
        }
        let known = statistics.as_ref();
        let prepared =
            stage::prepare_with(Some(gpu), self.checkpoint, Some(&recipe), seed, known, asked, monitor).await?;
        let (context, gathered) = (self.context(), &prepared.gathered);
        let checkpoint = &prepared.checkpoint;
        Language::load(gpu, checkpoint, Some(recipe), prepared.rotation, gathered, Some(context), monitor).await
    }

    /// Positions of a context: without a reply to write, the evaluation's own is all it takes.
    fn context(&self) -> u32 {
        if self.command.input.is_some() { CONTEXT } else { 64 }
    }

    async fn load(
        &self,
        recipe: codec::Recipe,
        gathered: &Gathered,
        monitor: &Monitor,
    ) -> Result<Language, Interruption> {
        let seed = self.command.rotation.map(|r| r.seed);
        let context = Some(self.context());
        Language::load(self.gpu, self.checkpoint, Some(recipe), seed, gathered, context, monitor).await
    }

    /// Lets a model answer, and describes it.
    async fn speak(
        &self,
        language: &mut Language,
        recipe: &str,
        monitor: &Monitor,
    ) -> Result<report::Variant, Interruption> {
        let mut variant = report::Variant {
            recipe: recipe.to_owned(),
            attention: None,
            weights: language.weights.clone(),
            quality: None,
            embeddings: None,
            speed: None,
            memory: report::Memory::default(),
            generation: None,
        };
        if let Some(input) = &self.command.input {
            let prompt = language.prompt(input)?;
            let generate = Generate {
                slot: Slot(0),
                input: input.clone(),
                sampling: super::Sampling::default(),
                tokens: self.command.tokens,
                stop: Vec::new(),
            };
            // Once for the pipelines that a prompt of this length takes.
            let first = Generate { tokens: 1, ..generate.clone() };
            language.generate(&prompt, &first, |_, _| (), monitor).await?;
            language.forget();
            let (generation, speed) = language.generate(&prompt, &generate, |_, _| (), monitor).await?;
            variant.generation = Some(generation);
            variant.speed = Some(speed);
        }
        Ok(variant)
    }
}

/// Index of the first token at which two replies part; the length of the shorter where one is the beginning of the other.
fn first_difference(a: &[u32], b: &[u32]) -> Option<usize> {
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => Some(at),
        None if a.len() == b.len() => None,
        None => Some(a.len().min(b.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_part_at_the_first_other_token_or_where_one_ends() {
        assert_eq!(first_difference(&[1, 2, 3], &[1, 2, 3]), None);
        assert_eq!(first_difference(&[1, 2, 3], &[1, 9, 3]), Some(1));
        assert_eq!(first_difference(&[1, 2, 3], &[1, 2]), Some(2));
    }
}
