//! Continuing a text: prompt in, tokens out, one at a time.
//!
//! In: a decoder, a context, the prompt's ids. Out: the ids that follow, each reported as it comes. A token never leaves the GPU to
//! come back: the next step's embedding reads the sampler's record there. What is read back is that record.

use std::sync::Arc;

use web_time::Instant;

use super::{StreamDecoder, StreamOptions, Tokenizer};
use crate::gpu::Purpose;
use crate::model::{Context, Decoder, ModelError};
use crate::ops::linear::Rows;
use crate::ops::sample::{Sampled, Sampler, Sampling};
use crate::progress::{Monitor, Unit};

/// Tokens that the repetition penalty remembers.
const RECENT: usize = 64;

/// When and how to stop, and how to choose.
#[derive(Clone, Debug)]
pub struct ContinueOptions {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// At most this many tokens.
    pub tokens: u32,
    /// Texts that end the continuation; they are not part of it.
    pub stop: Vec<String>,
    /// Go on after the model has ended its text.
    pub ignore_end: bool,
    /// The tokens that the context holds already: the repetition penalty sees them too.
    pub before: Vec<u32>,
}

impl ContinueOptions {
    /// The most probable tokens, until the model ends its text.
    pub fn greedy(tokens: u32) -> Self {
        let sampling = Sampling::default();
        Self { sampling, tokens, stop: Vec::new(), ignore_end: false, before: Vec::new() }
    }
}

/// Why a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended it.
    EndOfText,
    /// A stop string appeared.
    StopString,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
}

/// One token of a continuation.
#[derive(Clone, Debug)]
pub struct Step {
    /// The choice, with the model's most probable tokens.
    pub sampled: Sampled,
    /// The text that became complete with it.
    pub text: String,
}

/// A continuation.
#[derive(Clone, Debug)]
pub struct Continuation {
    /// The tokens in order, the one that ended the text not among them.
    pub steps: Vec<Step>,
    /// Why it ended.
    pub stop: StopReason,
    /// Seconds from the prompt to the first token.
    pub first_token_seconds: f64,
    /// Seconds of all further steps.
    pub decode_seconds: f64,
    /// Steps in `decode_seconds`.
    pub decode_steps: u32,
}

impl Continuation {
    /// The whole text.
    pub fn text(&self) -> String {
        self.steps.iter().map(|step| step.text.as_str()).collect()
    }

    /// The ids.
    pub fn ids(&self) -> Vec<u32> {
        self.steps.iter().map(|step| step.sampled.token).collect()
    }
}

/// Continues the context by `prompt` and what the model makes of it; `on_step` sees every token as it comes. Its texts, joined,
/// are the continuation's: where the model ends a text of which something was held back (it could have become a stop string),
/// the token that ends it brings that.
///
/// # Errors
/// [`ModelError::ContextFull`] for a prompt that does not fit, [`ModelError::EmptyPrompt`], settings that make no sense,
/// [`ModelError::Cancelled`], or what the device refuses. The context is then as before.
pub async fn continue_text(
    decoder: &Decoder,
    context: &mut Context,
    tokenizer: &Arc<Tokenizer>,
    prompt: &[u32],
    options: &ContinueOptions,
    on_step: impl FnMut(&Step),
    monitor: &Monitor,
) -> Result<Continuation, ModelError> {
    let before = context.len();
    let result = run(decoder, context, tokenizer, prompt, options, on_step, monitor).await;
    if result.is_err() {
        // Its last positions may have been recorded but never computed.
        context.truncate(before);
    }
    result
}

async fn run(
    decoder: &Decoder,
    context: &mut Context,
    tokenizer: &Arc<Tokenizer>,
    prompt: &[u32],
    options: &ContinueOptions,
    mut on_step: impl FnMut(&Step),
    monitor: &Monitor,
) -> Result<Continuation, ModelError> {
    options.sampling.check()?;
    if prompt.is_empty() {
        return Err(ModelError::EmptyPrompt);
    }
    let mut out = Continuation {
        steps: Vec::new(),
        stop: StopReason::Length,
        first_token_seconds: 0.0,
        decode_seconds: 0.0,
        decode_steps: 0,
    };
    if options.tokens == 0 {
        return Ok(out);
    }
    let gpu = decoder.gpu();
    let vocab = decoder.config().vocab;
    let sampler = Sampler::new(gpu, 1, RECENT as u32)?;
    let logits = gpu.storage("logits", 4 * u64::from(vocab), Purpose::Activations)?;
    let mut stream = StreamDecoder::new(
        tokenizer.clone(),
        StreamOptions { stop: options.stop.clone(), continues: true, ..Default::default() },
    );
    let mut seen = [&options.before, prompt].concat();
    let start = Instant::now();
    let (mut rec, mut row) = decoder.prefill(context, prompt, monitor).await?;
    let mut first_token = None;
    loop {
        let recent = if options.sampling.repetition_penalty == 1.0 {
            0
        } else {
            sampler.set_recent(gpu, &seen[seen.len().saturating_sub(RECENT)..])
        };
        decoder.logits(&mut rec, context, row, 1, Rows::new(&logits, vocab))?;
        sampler.sample(&mut rec, &options.sampling, &logits, [0, vocab], recent, context.len(), 0)?;
        let sampled = sampler.submit(rec, 0).await?;
        match first_token {
            None => {
                out.first_token_seconds = start.elapsed().as_secs_f64();
                first_token = Some(Instant::now());
            }
            Some(first) => {
                out.decode_steps += 1;
                out.decode_seconds = first.elapsed().as_secs_f64();
            }
        }
        let token = sampled.token;
        if tokenizer.is_end(token) && !options.ignore_end {
            out.stop = StopReason::EndOfText;
            // What the stream held back is certain now.
            if let Some(rest) = stream.finish() {
                on_step(&Step { sampled, text: rest.clone() });
                if let Some(last) = out.steps.last_mut() {
                    last.text.push_str(&rest);
                }
            }
            return Ok(out);
        }
        let mut step = Step { text: stream.push(token).unwrap_or_default(), sampled };
        let count = out.steps.len() as u32 + 1;
        let stopped = stream.stopped().is_some();
        let full = context.len() >= context.capacity();
        let last = stopped || full || count >= options.tokens;
        if last && !stopped {
            step.text.push_str(&stream.finish().unwrap_or_default());
            out.stop = if full && count < options.tokens { StopReason::Context } else { StopReason::Length };
        }
        on_step(&step);
        out.steps.push(step);
        seen.push(token);
        if stopped {
            out.stop = StopReason::StopString;
        }
        if last {
            return Ok(out);
        }
        monitor.step("generating", count.into(), options.tokens.into(), Unit::Tokens)?;
        rec = gpu.record();
        decoder.forward(&mut rec, context, sampler.records(), 0, 1, None)?;
        row = 0;
    }
}

/// Tokens of a prompt for which the widest kernels are chosen, on software adapters and on GPUs.
const WARM_UP: [u32; 2] = [40, 80];

/// Compiles the pipelines that prompts and their continuation use, so that nothing is compiled while somebody waits. The context is
/// as before.
///
/// # Errors
/// As [`continue_text`].
pub async fn warm_up(decoder: &Decoder, context: &mut Context) -> Result<(), ModelError> {
    let gpu = decoder.gpu();
    let room = context.capacity() - context.len();
    let prompt = vec![0; WARM_UP[usize::from(!gpu.is_cpu())].min(room) as usize];
    if prompt.is_empty() {
        return Ok(());
    }
    let vocab = decoder.config().vocab;
    let before = context.len();
    let sampler = Sampler::new(gpu, 1, 1)?;
    let logits = gpu.storage("logits", 4 * u64::from(vocab), Purpose::Activations)?;
    let (mut rec, row) = decoder.prefill(context, &prompt, &Monitor::none()).await?;
    decoder.logits(&mut rec, context, row, 1, Rows::new(&logits, vocab))?;
    sampler.sample(&mut rec, &Sampling::default(), &logits, [0, vocab], 0, 0, 0)?;
    if context.len() < context.capacity() {
        decoder.forward(&mut rec, context, sampler.records(), 0, 1, None)?;
        decoder.logits(&mut rec, context, 0, 1, Rows::new(&logits, vocab))?;
    }
    rec.submit()?;
    gpu.idle().await?;
    context.truncate(before);
    Ok(())
}
