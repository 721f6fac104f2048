//! Gathers the statistics that a recipe's codecs calibrate with, before a model is compressed.
//!
//! In: the model's file, recipes, and perhaps a text ([`Calibration`]). Out: [`Calibrations`] and what reports say of them. Without a
//! text only codecs that cannot do without are calibrated, on the text that is part of the program.

use web_time::Instant;

use super::command::{Calibration, Text};
use super::embed::paragraphs;
use super::failure::fail;
use super::report::CalibrationInfo;
use super::runner::Interruption;
use crate::codec::{Calibrates, Recipe};
use crate::eval::Windows;
use crate::format::Checkpoint;
use crate::generate::Tokenizer;
use crate::gpu::Gpu;
use crate::model::{self, Architecture, Calibrations, Config, Decoder, Encoder, Wanted, Weights};
use crate::progress::Monitor;

/// Chapters 1 to 7 of *Pride and Prejudice*: no part of the texts that quality is measured on.
const BUNDLED: &str = include_str!("../../../assets/text/calibration.txt");
/// What reports call it.
const BUNDLED_NAME: &str = "Pride and Prejudice, 1–7";
/// Tokens that go through the model when nobody says how many.
const TOKENS: u32 = 4096;
/// Tokens of a window.
const WINDOW: u32 = 512;

/// What was gathered; nothing if no codec asked.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) calibrations: Calibrations,
    /// What was looked at, and how much a codec calibrates that gets to see it.
    pub(super) info: Option<(CalibrationInfo, Calibrates)>,
}

impl Gathered {
    /// What a model with this recipe is compressed by, and what reports say of it: nothing where its codecs asked for nothing, even
    /// if others did.
    pub(super) fn of(&self, recipe: Option<&Recipe>) -> (Calibrations, Option<CalibrationInfo>) {
        match (&self.info, recipe) {
            (Some((info, at_least)), Some(recipe)) if recipe.calibrates() >= *at_least => {
                (self.calibrations.clone(), Some(info.clone()))
            }
            _ => Default::default(),
        }
    }
}

/// A calibration to come.
pub(super) struct Plan {
    text: Text,
    tokens: u32,
    wanted: Vec<Wanted>,
    at_least: Calibrates,
}

impl Plan {
    /// What the codecs of `recipes` need; `None` if that is nothing.
    pub(super) fn of<'a>(
        checkpoint: &Checkpoint,
        recipes: impl IntoIterator<Item = &'a Recipe>,
        rotation: Option<u64>,
        asked: &Calibration,
    ) -> Result<Option<Self>, Interruption> {
        // A text that was given is used by all codecs that do better with one.
        let at_least = if asked.text.is_some() { Calibrates::Optionally } else { Calibrates::Always };
        let mut wanted: Vec<Wanted> = Vec::new();
        for recipe in recipes.into_iter().filter(|recipe| recipe.calibrates() >= at_least) {
            let config = Config::read(checkpoint)?;
            let weights = Weights::new(checkpoint, &config, Some(recipe.clone()), rotation)?;
            for one in weights.wanted(at_least) {
                if !wanted.contains(&one) {
                    wanted.push(one);
                }
            }
        }
        if wanted.is_empty() { Ok(None) } else { Ok(Some(Self::wanting(wanted, at_least, asked))) }
    }

    /// The text that was asked for, or the one that is part of the program, for these matrices.
    pub(super) fn wanting(wanted: Vec<Wanted>, at_least: Calibrates, asked: &Calibration) -> Self {
        let bundled = || Text { name: BUNDLED_NAME.to_owned(), text: BUNDLED.to_owned() };
        let (text, tokens) = (asked.text.clone().unwrap_or_else(bundled), asked.tokens.unwrap_or(TOKENS));
        Self { text, tokens, wanted, at_least }
    }

    /// Gathers on a language model that is on the GPU already.
    pub(super) async fn gather(
        &self,
        decoder: &Decoder,
        tokenizer: &Tokenizer,
        monitor: &Monitor,
    ) -> Result<Gathered, Interruption> {
        let start = Instant::now();
        let windows = self.windows(decoder.config(), tokenizer)?;
        let list: Vec<&[u32]> = (0..windows.count()).map(|i| windows.window(i)).collect();
        let calibrations = model::calibrate(decoder, &self.wanted, &list, monitor).await?;
        let tokens = windows.count() as u64 * u64::from(windows.length());
        Ok(Gathered { calibrations, info: Some(self.info(tokens, start)) })
    }

    /// Loads the model as it is stored, turned into the new basis if there is one, and gathers on it. It is gone afterwards.
    pub(super) async fn load_and_gather(
        &self,
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        rotation: Option<u64>,
        monitor: &Monitor,
    ) -> Result<Gathered, Interruption> {
        let monitor = &monitor.prefixed("calibration");
        let config = Config::read(checkpoint)?;
        let tokenizer = Tokenizer::from_checkpoint(checkpoint)?;
        if config.architecture != Architecture::Bert {
            let decoder = self.load(gpu, checkpoint, &tokenizer, rotation, monitor).await?;
            return self.gather(&decoder, &tokenizer, monitor).await;
        }
        // A rotated model would be in f32; what bf16 rounds off does not show in sums over thousands of tokens.
        let recipe = rotation.map(|_| Recipe::parse("bf16")).transpose()?;
        let weights = Weights::new(checkpoint, &config, recipe, rotation)?;
        let encoder = Encoder::load(gpu, config, weights, checkpoint.name(), monitor).await?.0;
        self.gather_encoder(&encoder, &tokenizer, monitor).await
    }

    /// A language model as it is stored, turned into the new basis if there is one, with room for the windows.
    pub(super) async fn load(
        &self,
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        tokenizer: &Tokenizer,
        rotation: Option<u64>,
        monitor: &Monitor,
    ) -> Result<Decoder, Interruption> {
        let config = Config::read(checkpoint)?;
        let context = self.windows(&config, tokenizer)?.length();
        // A rotated model would be in f32; what bf16 rounds off does not show in sums over thousands of tokens.
        let recipe = rotation.map(|_| Recipe::parse("bf16")).transpose()?;
        let weights = Weights::new(checkpoint, &config, recipe, rotation)?;
        Ok(Decoder::load(gpu, config, weights, checkpoint.name(), context, monitor).await?.0)
    }

    /// [`Plan::gather`] for an encoder: on the paragraphs of the text.
    pub(super) async fn gather_encoder(
        &self,
        encoder: &Encoder,
        tokenizer: &Tokenizer,
        monitor: &Monitor,
    ) -> Result<Gathered, Interruption> {
        let start = Instant::now();
        let mut left = self.tokens as usize;
        let mut texts = paragraphs(tokenizer, &self.text, encoder.config().max_positions)?;
        texts.retain(|ids| {
            let fits = left > 0;
            left = left.saturating_sub(ids.len());
            fits
        });
        let list: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let calibrations = model::calibrate_encoder(encoder, &self.wanted, &list, monitor).await?;
        let tokens = list.iter().map(|ids| ids.len() as u64).sum();
        Ok(Gathered { calibrations, info: Some(self.info(tokens, start)) })
    }

    pub(super) fn windows(&self, config: &Config, tokenizer: &Tokenizer) -> Result<Windows, Interruption> {
        let ids = tokenizer.encode(&self.text.text, false)?;
        let length = WINDOW.min(config.max_positions).min(self.tokens);
        let most = (self.tokens / length.max(1)).max(1);
        let windows = Windows::new(&ids, length, Some(most), tokenizer.before_text());
        windows.ok_or_else(|| fail(format!("{}: too short to calibrate on", self.text.name)))
    }

    fn info(&self, tokens: u64, start: Instant) -> (CalibrationInfo, Calibrates) {
        let info = CalibrationInfo { text: self.text.name.clone(), tokens, seconds: start.elapsed().as_secs_f64() };
        (info, self.at_least)
    }
}

/// What `recipe` calibrates with, gathered by a model that is loaded for it and freed again; nothing where nothing calibrates.
pub(super) async fn gather(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    recipe: Option<&Recipe>,
    rotation: Option<u64>,
    asked: &Calibration,
    monitor: &Monitor,
) -> Result<Gathered, Interruption> {
    match Plan::of(checkpoint, recipe, rotation, asked)? {
        Some(plan) => plan.load_and_gather(gpu, checkpoint, rotation, monitor).await,
        None => Ok(Gathered::default()),
    }
}
