//! A language model with everything around it: tokenizer, chat template, context.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::calibrate::Gathered;
use super::command::{self, Generate, Input};
use super::failure::fail;
use super::inspect;
use super::report;
use super::runner::Interruption;
use crate::codec::{Recipe, Stored};
use crate::format::Checkpoint;
use crate::generate::{
    ChatTemplate, Continuation, ContinueOptions, Message, StopReason, Tokenizer, continue_text, warm_up,
};
use crate::gpu::{Buffer, Gpu, Recorder};
use crate::model::{Architecture, AttentionPolicy, BlockCount, Config, Context, Decoder, ModelError, Weights};
use crate::ops::linear::Rows;
use crate::ops::sample::Sampling;
use crate::progress::{Monitor, Unit};

/// Positions of a context that nobody chose.
const DEFAULT_CONTEXT: u32 = 4096;

/// A loaded language model.
pub(super) struct Language {
    pub(super) decoder: Decoder,
    context: Context,
    /// Tokens that the context holds.
    remembered: Vec<u32>,
    pub(super) tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    pub(super) model: report::Model,
    pub(super) weights: report::Weights,
    /// Blocks of attention that nobody asked for: those of warming up.
    uncounted: BlockCount,
}

impl Language {
    /// Reads, compresses (with what was `gathered` for it) and uploads a model, and compiles its pipelines.
    pub(super) async fn load(
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        recipe: Option<Recipe>,
        rotation: Option<u64>,
        gathered: &Gathered,
        context: Option<u32>,
        monitor: &Monitor,
    ) -> Result<Self, Interruption> {
        let config = decoder_config(checkpoint)?;
        let tokenizer = Arc::new(Tokenizer::from_checkpoint(checkpoint)?);
        if tokenizer.vocab_size() as u64 > u64::from(config.vocab) {
            return Err(fail(format!(
                "{}: its tokenizer has {} tokens, its weights {}: they do not belong together",
                checkpoint.name(),
                tokenizer.vocab_size(),
                config.vocab
            )));
        }
        let template = ChatTemplate::from_checkpoint(checkpoint)?;
        let mut model = inspect::model(&Stored::of(checkpoint)?);
        model.rotation = rotation.or(model.rotation);
        let positions = context.unwrap_or(DEFAULT_CONTEXT).min(config.max_positions);
        let (calibrations, calibration) = gathered.of(recipe.as_ref());
        let weights = Weights::new(checkpoint, &config, recipe, rotation)?.calibrated(calibrations);
        let (decoder, weights) = Decoder::load(gpu, config, weights, checkpoint.name(), positions, monitor).await?;
        let mut context = Context::new(&decoder, positions)?;
        decoder.tune(&context, monitor).await?;
        monitor.step("compiling pipelines", 0, 0, Unit::Pipelines)?;
        warm_up(&decoder, &mut context).await?;
        Ok(Self {
            uncounted: BlockCount::default(),
            decoder,
            context,
            remembered: Vec::new(),
            tokenizer,
            template,
            model,
            weights: report::Weights { calibration, ..weights_report(&weights) },
        })
    }

    /// Chooses what the queries of a prompt see; the context starts anew.
    pub(super) async fn set_attention(&mut self, policy: AttentionPolicy) -> Result<(), ModelError> {
        if self.decoder.attention() == policy {
            return Ok(());
        }
        self.forget();
        self.decoder.set_attention(policy)?;
        let capacity = self.context.capacity();
        // What the old context held is free before the new one takes its place.
        self.context = Context::new(&self.decoder, 1)?;
        self.context = Context::new(&self.decoder, capacity)?;
        warm_up(&self.decoder, &mut self.context).await?;
        self.uncounted = self.decoder.block_count().await?.unwrap_or_default();
        Ok(())
    }

    /// The attention that was computed since the last call, or since it was chosen.
    pub(super) async fn attention_use(&mut self) -> Result<Option<report::AttentionUse>, ModelError> {
        let Some(count) = self.decoder.block_count().await? else { return Ok(None) };
        let before = std::mem::replace(&mut self.uncounted, count);
        Ok(Some(attention_use(self.decoder.attention(), before, count)))
    }

    /// The layers alone; the context's memory is free again.
    pub(super) fn into_decoder(self) -> Decoder {
        self.decoder
    }

    /// Forgets the text so far.
    pub(super) fn forget(&mut self) {
        self.remembered.clear();
        self.context.truncate(0);
    }

    /// Tokens that go through the layers together at most.
    pub(super) fn chunk(&self) -> u32 {
        self.context.chunk()
    }

    /// Records the tokens `ids[first .. first + count]` at the text's end, of which nothing is remembered.
    pub(super) fn extend(
        &mut self,
        rec: &mut Recorder,
        ids: &Buffer,
        first: u32,
        count: u32,
    ) -> Result<(), ModelError> {
        self.decoder.forward(rec, &mut self.context, ids, first, count, None)
    }

    /// Records the logits of some of the rows that went through last.
    pub(super) fn logits(&self, rec: &mut Recorder, first: u32, rows: u32, y: Rows) -> Result<(), ModelError> {
        self.decoder.logits(rec, &self.context, first, rows, y)
    }

    /// Positions there is room for.
    pub(super) fn context(&self) -> u32 {
        self.context.capacity()
    }

    /// Whether the model says itself what a conversation looks like.
    pub(super) fn has_template(&self) -> bool {
        self.template.note().is_none()
    }

    /// The ids that an input stands for.
    pub(super) fn prompt(&self, input: &Input) -> Result<Vec<u32>, Interruption> {
        let chat = |messages: &[Message]| {
            let text = self.template.render(messages, true)?;
            Ok::<_, Interruption>(self.tokenizer.encode(&text, false)?)
        };
        match input {
            Input::Message(text) if self.has_template() => chat(&[Message::new("user", text)]),
            Input::Prompt(text) | Input::Message(text) => Ok(self.tokenizer.encode(text, true)?),
            Input::Chat(messages) => {
                let role = |role| match role {
                    command::Role::System => "system",
                    command::Role::User => "user",
                    command::Role::Assistant => "assistant",
                };
                let messages: Vec<Message> =
                    messages.iter().map(|m| Message::new(role(m.role), m.content.as_str())).collect();
                chat(&messages)
            }
        }
    }

    /// Continues a prompt. What the context holds of it already, from an earlier turn, is not computed again.
    pub(super) async fn generate(
        &mut self,
        prompt: &[u32],
        command: &Generate,
        mut on_token: impl FnMut(u32, &str),
        monitor: &Monitor,
    ) -> Result<(report::Generation, report::Speed), Interruption> {
        let s = &command.sampling;
        let mut options = ContinueOptions {
            sampling: Sampling {
                repetition_penalty: s.repetition_penalty,
                temperature: s.temperature,
                top_k: s.top_k,
                top_p: s.top_p,
                min_p: s.min_p,
                seed: s.seed,
            },
            tokens: command.tokens,
            stop: command.stop.clone(),
            ignore_end: false,
            before: Vec::new(),
        };
        let common = self.remembered.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        // The last token must go through the layers for its logits.
        let known = common.min(prompt.len().saturating_sub(1));
        self.remembered.truncate(known);
        self.context.truncate(known as u32);
        let rest = &prompt[known..];
        options.before.extend(&self.remembered);
        let found = continue_text(
            &self.decoder,
            &mut self.context,
            &self.tokenizer,
            rest,
            &options,
            |step| on_token(step.sampled.token, &step.text),
            monitor,
        )
        .await;
        self.remembered.extend(rest);
        if let Ok(found) = &found {
            self.remembered.extend(found.ids());
        }
        // The last token was chosen, but has not gone through the layers; a cancelled run leaves even fewer.
        self.remembered.truncate(self.context.len() as usize);
        let found = found?;
        let speed = speed(&found, rest.len());
        Ok((generation(found), speed))
    }
}

/// What a policy left of the attention between two counts.
pub(super) fn attention_use(policy: AttentionPolicy, before: BlockCount, after: BlockCount) -> report::AttentionUse {
    let (kept, visible) = (after.kept.saturating_sub(before.kept), after.visible.saturating_sub(before.visible));
    report::AttentionUse {
        policy: policy.to_string(),
        kept_blocks: kept,
        visible_blocks: visible,
        kept_fraction: if visible > 0 { kept as f64 / visible as f64 } else { 1.0 },
    }
}

/// Reads a policy of the protocol.
pub(super) fn read_policy(attention: Option<&String>) -> Result<AttentionPolicy, Interruption> {
    Ok(attention.map(|text| AttentionPolicy::parse(text)).transpose()?.unwrap_or_default())
}

/// The configuration of a model that writes text.
pub(super) fn decoder_config(checkpoint: &Checkpoint) -> Result<Config, Interruption> {
    let config = Config::read(checkpoint)?;
    if config.architecture == Architecture::Bert {
        return Err(fail(format!(
            "{} is an encoder, which makes vectors of texts and writes none: use `embed`",
            checkpoint.name()
        )));
    }
    Ok(config)
}

fn generation(found: Continuation) -> report::Generation {
    report::Generation {
        text: found.text(),
        tokens: found.ids(),
        stop: match found.stop {
            StopReason::EndOfText => report::Stop::EndOfText,
            StopReason::StopString => report::Stop::StopString,
            StopReason::Length => report::Stop::Length,
            StopReason::Context => report::Stop::Context,
        },
        pieces: found.steps.into_iter().map(|step| step.text).collect(),
        first_difference: None,
    }
}

fn speed(found: &Continuation, prompt: usize) -> report::Speed {
    let rate = |count: f64, seconds: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
    report::Speed {
        prefill_tokens: prompt as u32,
        prefill_tokens_per_second: rate(prompt as f64, found.first_token_seconds),
        decode_tokens: found.decode_steps,
        decode_tokens_per_second: rate(f64::from(found.decode_steps), found.decode_seconds),
        first_token_ms: found.first_token_seconds * 1e3,
    }
}

/// What became of a model's matrices.
pub(super) fn weights_report(weights: &Weights) -> report::Weights {
    let reports = weights.reports();
    let bytes: u64 = reports.iter().map(|r| r.bytes).sum();
    let elements: u64 = reports.iter().map(|r| r.shape[0] as u64 * r.shape[1] as u64).sum();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    reports.iter().for_each(|r| *counts.entry(&r.codec).or_default() += 1);
    let mut codecs: Vec<(String, usize)> = counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    codecs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let fallbacks = reports.iter().filter_map(|r| {
        let asked = r.fallback_from.clone()?;
        Some(report::Fallback { tensor: r.name.clone(), asked, used: r.codec.clone() })
    });
    let tensors = reports
        .iter()
        .filter_map(|r| Some(report::TensorError { tensor: r.name.clone(), codec: r.codec.clone(), nmse: r.nmse? }));
    report::Weights {
        bytes,
        bits_per_weight: if elements > 0 { 8.0 * bytes as f64 / elements as f64 } else { 0.0 },
        codecs,
        fallbacks: fallbacks.collect(),
        tensors: tensors.collect(),
        encode_seconds: weights.encode_seconds(),
        calibration: None,
    }
}
