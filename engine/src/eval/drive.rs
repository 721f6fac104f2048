//! Sends the windows of a text through models and gathers what they say of every position.
//!
//! In: decoders, token ids cut into [`Windows`]. Out: a record for each scored position. Logits stay on the GPU: a kernel reduces
//! each row of them to a few words, and those are read back once a window.
//!
//! A comparison needs the original and the compressed model at the same positions, but not in memory at the same time: the
//! original's last hidden states are kept ([`Original`]) with its output projection, from which its logits are made again, bit for
//! bit, beside those of each compressed model.

use std::ops::Range;

use crate::gpu::{Buffer, Gpu, Purpose};
use crate::model::{Context, Decoder, Head, ModelError, Site};
use crate::ops::linear::Rows;
use crate::ops::metrics::{
    self, COMPARE_WORDS, Comparison, DIFFERENCE_FLOATS, Difference, Likelihood, Matrix, NLL_WORDS, Positions,
};
use crate::progress::{Monitor, Unit};

/// Bytes of logits at a time.
const LOGITS_BYTES: u64 = 32 << 20;
/// Bytes of the original's residual streams that are kept to measure the drift of layers.
const RESIDUAL_BYTES: u64 = 256 << 20;

/// A tokenized text, cut into windows that do not overlap; in each, every token but the first is scored.
#[derive(Clone, Debug)]
pub struct Windows {
    ids: Vec<u32>,
    length: u32,
    count: usize,
}

impl Windows {
    /// Whole windows of `length` tokens from the start of a text, at most `most` of them; a text shorter than one window is a window
    /// of its own. `start`: the token that the model expects before every text (BOS), which takes the place of each window's first,
    /// as llama.cpp has it. `None` if there is no token to score.
    pub fn new(ids: &[u32], length: u32, most: Option<u32>, start: Option<u32>) -> Option<Self> {
        let length = length.min(ids.len().try_into().unwrap_or(u32::MAX));
        if length < 2 {
            return None;
        }
        let count = (ids.len() / length as usize).min(most.unwrap_or(u32::MAX) as usize);
        let mut ids = ids[..count * length as usize].to_vec();
        if let Some(start) = start {
            ids.iter_mut().step_by(length as usize).for_each(|id| *id = start);
        }
        if count == 0 { None } else { Some(Self { ids, length, count }) }
    }

    /// Tokens of a window.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Number of windows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Positions scored in all windows.
    pub fn positions(&self) -> usize {
        self.count * (self.length as usize - 1)
    }

    /// The scored tokens, in the order of the records.
    pub fn targets(&self) -> Vec<u32> {
        self.ids.chunks_exact(self.length as usize).flat_map(|window| &window[1..]).copied().collect()
    }

    /// The tokens of a window.
    pub fn window(&self, index: usize) -> &[u32] {
        &self.ids[index * self.length as usize..][..self.length as usize]
    }
}

/// A piece of a window: the chunk of tokens that goes through the layers, and its rows that predict a token of the window.
fn chunks(length: u32, chunk: u32) -> impl Iterator<Item = (Range<u32>, u32)> {
    (0..length).step_by(chunk.max(1) as usize).map(move |first| {
        let end = length.min(first + chunk);
        (first..end, (end.min(length - 1)) - first)
    })
}

/// Rows whose logits are made together.
pub(crate) fn rows_at_once(gpu: &Gpu, vocab: u32, chunk: u32) -> u32 {
    let binding = gpu.limits().max_storage_buffer_binding_size.min(gpu.limits().max_buffer_size);
    let row = 4 * u64::from(vocab);
    (LOGITS_BYTES.min(binding) / row).clamp(1, u64::from(chunk)) as u32
}

fn logits_buffer(gpu: &Gpu, vocab: u32, rows: u32) -> Result<Buffer, ModelError> {
    Ok(gpu.storage("logits", 4 * u64::from(vocab) * u64::from(rows), Purpose::Activations)?)
}

/// What a model says of every scored position.
///
/// # Errors
/// [`ModelError::Token`], [`ModelError::Cancelled`], windows longer than the model takes, or what the device refuses.
pub async fn likelihoods(
    decoder: &Decoder,
    windows: &Windows,
    monitor: &Monitor,
) -> Result<Vec<Likelihood>, ModelError> {
    let mut run = Run::new(decoder, windows)?;
    let mut records = Vec::new();
    for window in 0..windows.count {
        monitor.step("evaluating", window as u64, windows.count as u64, Unit::Windows)?;
        records.extend(run.window(windows.window(window), None, monitor).await?);
    }
    monitor.report("evaluating", windows.count as u64, windows.count as u64, Unit::Windows);
    Ok(records)
}

/// One model going through windows.
struct Run<'a> {
    decoder: &'a Decoder,
    context: Context,
    ids: Buffer,
    logits: Buffer,
    rows: u32,
    records: Buffer,
}

impl<'a> Run<'a> {
    fn new(decoder: &'a Decoder, windows: &Windows) -> Result<Self, ModelError> {
        decoder.check_tokens(&windows.ids)?;
        let gpu = decoder.gpu();
        let length = windows.length;
        if length > decoder.config().max_positions {
            return Err(ModelError::ContextFull {
                tokens: length.into(),
                used: 0,
                capacity: decoder.config().max_positions,
                model_limit: decoder.config().max_positions,
            });
        }
        let context = Context::new(decoder, length)?;
        let vocab = decoder.config().vocab;
        let rows = rows_at_once(gpu, vocab, context.chunk());
        let words = u64::from(COMPARE_WORDS.max(NLL_WORDS));
        Ok(Self {
            decoder,
            logits: logits_buffer(gpu, vocab, rows)?,
            ids: gpu.storage("token ids", 4 * u64::from(length), Purpose::Activations)?,
            records: gpu.storage("records", 4 * words * u64::from(length), Purpose::Activations)?,
            context,
            rows,
        })
    }

    /// The likelihoods of one window; `keep` takes the normed hidden states and, perhaps, residual streams.
    async fn window(
        &mut self,
        ids: &[u32],
        mut keep: Option<(&Buffer, Option<&Residuals>)>,
        monitor: &Monitor,
    ) -> Result<Vec<Likelihood>, ModelError> {
        let gpu = self.decoder.gpu();
        let (vocab, hidden) = (self.decoder.config().vocab, self.decoder.config().hidden);
        let length = ids.len() as u32;
        gpu.write(&self.ids, 0, ids);
        self.context.truncate(0);
        let normed = gpu.scratch("normed", 4 * u64::from(self.context.chunk()) * u64::from(hidden))?;
        for (chunk, scored) in chunks(length, self.context.chunk()) {
            monitor.check()?;
            let mut rec = gpu.record();
            let tokens = chunk.end - chunk.start;
            let residuals = keep.as_mut().and_then(|(_, residuals)| residuals.take());
            let mut observer = |rec: &mut crate::gpu::Recorder, site: Site, layer: u32, x: Rows| match residuals {
                Some(residuals) if site == Site::Stream => residuals.keep(rec, layer, x.buffer),
                _ => Ok(()),
            };
            self.decoder.forward(&mut rec, &mut self.context, &self.ids, chunk.start, tokens, Some(&mut observer))?;
            if let Some((states, _)) = keep {
                let row = 4 * u64::from(hidden);
                self.decoder.normalize(&mut rec, &self.context, 0, tokens, &normed)?;
                rec.copy(&normed, 0, states, u64::from(chunk.start) * row, u64::from(tokens) * row);
            }
            for first in (0..scored).step_by(self.rows as usize) {
                let rows = self.rows.min(scored - first);
                self.decoder.logits(&mut rec, &self.context, first, rows, Rows::new(&self.logits, vocab))?;
                let at = chunk.start + first;
                let positions = Positions::new(rows, vocab);
                let logits = Matrix::tight(&self.logits, vocab);
                metrics::nll(&mut rec, &positions, &logits, (self.ids.all(), at + 1), (self.records.all(), at))?;
            }
            rec.submit()?;
            gpu.idle().await?;
        }
        Ok(metrics::read_likelihoods(gpu, &self.records, 0, length - 1).await?)
    }
}

/// Residual streams after every layer, for the first tokens of the first window.
#[derive(Debug)]
struct Residuals {
    tokens: u32,
    hidden: u32,
    /// By layer: `[tokens, hidden]`.
    layers: Vec<Buffer>,
}

impl Residuals {
    fn new(decoder: &Decoder, tokens: u32) -> Result<Self, ModelError> {
        let (gpu, config) = (decoder.gpu(), decoder.config());
        let row = 4 * u64::from(config.hidden);
        let fits = RESIDUAL_BYTES / (row * u64::from(config.layers));
        let tokens = u64::from(tokens).min(fits).max(1);
        let make = |_| gpu.storage("residual stream", tokens * row, Purpose::Activations);
        let layers = (0..config.layers).map(make).collect::<Result<_, _>>()?;
        Ok(Self { tokens: tokens as u32, hidden: config.hidden, layers })
    }

    fn keep(&self, rec: &mut crate::gpu::Recorder, layer: u32, x: &Buffer) -> Result<(), ModelError> {
        if let Some(kept) = self.layers.get(layer as usize) {
            rec.copy(x, 0, kept, 0, 4 * u64::from(self.tokens) * u64::from(self.hidden));
        }
        Ok(())
    }
}

/// What compressed models are compared with: an original's hidden states over a text, and its output projection.
#[derive(Debug)]
pub struct Original {
    head: Head,
    vocab: u32,
    hidden: u32,
    /// By window: `[length, hidden]`, normed.
    states: Vec<Buffer>,
    residuals: Residuals,
    likelihoods: Vec<Likelihood>,
}

impl Original {
    /// Sends the windows through the original, which then gives back its layers' memory.
    ///
    /// # Errors
    /// As [`likelihoods`].
    pub async fn record(decoder: Decoder, windows: &Windows, monitor: &Monitor) -> Result<Self, ModelError> {
        let (vocab, hidden) = (decoder.config().vocab, decoder.config().hidden);
        let mut run = Run::new(&decoder, windows)?;
        let residuals = Residuals::new(&decoder, run.context.chunk().min(windows.length))?;
        let (mut states, mut likelihoods) = (Vec::new(), Vec::new());
        for window in 0..windows.count {
            monitor.step("evaluating", window as u64, windows.count as u64, Unit::Windows)?;
            let bytes = 4 * u64::from(windows.length) * u64::from(hidden);
            let state = decoder.gpu().storage("hidden states", bytes, Purpose::Activations)?;
            let keep = (&state, (window == 0).then_some(&residuals));
            likelihoods.extend(run.window(windows.window(window), Some(keep), monitor).await?);
            states.push(state);
        }
        monitor.report("evaluating", windows.count as u64, windows.count as u64, Unit::Windows);
        drop(run);
        Ok(Self { head: decoder.into_head(), vocab, hidden, states, residuals, likelihoods })
    }

    /// What the original says of every scored position.
    pub fn likelihoods(&self) -> &[Likelihood] {
        &self.likelihoods
    }

    /// Sends the same windows through another model with the same vocabulary. Returns a record for every scored position, and how
    /// far the residual stream after each layer is from the original's over the first chunk of the first window (empty for a model
    /// of another shape, or in another basis).
    ///
    /// # Errors
    /// As [`likelihoods`]; [`ModelError::Vocabulary`] for a model with another vocabulary.
    pub async fn compare(
        &self,
        decoder: &Decoder,
        windows: &Windows,
        monitor: &Monitor,
    ) -> Result<(Vec<Comparison>, Vec<Difference>), ModelError> {
        let config = decoder.config();
        if config.vocab != self.vocab {
            return Err(ModelError::Vocabulary { original: self.vocab, other: config.vocab });
        }
        let gpu = decoder.gpu();
        let vocab = self.vocab;
        let mut run = Run::new(decoder, windows)?;
        let original_logits = logits_buffer(gpu, vocab, run.rows)?;
        let same_shape = config.hidden == self.hidden && config.layers as usize == self.residuals.layers.len();
        let layers = if same_shape { config.layers } else { 0 };
        let sums =
            gpu.storage("sums", 4 * u64::from(DIFFERENCE_FLOATS) * u64::from(layers.max(1)), Purpose::Activations)?;
        let mut records = Vec::new();
        for (window, states) in self.states.iter().enumerate() {
            monitor.step("comparing", window as u64, windows.count as u64, Unit::Windows)?;
            gpu.write(&run.ids, 0, windows.window(window));
            run.context.truncate(0);
            for (chunk, scored) in chunks(windows.length, run.context.chunk()) {
                monitor.check()?;
                let mut rec = gpu.record();
                let measure = same_shape && window == 0 && chunk.start == 0;
                let mut observer = |rec: &mut crate::gpu::Recorder, site: Site, layer: u32, x: Rows| {
                    let kept = self.residuals.layers.get(layer as usize).filter(|_| measure && site == Site::Stream);
                    let Some(kept) = kept else { return Ok(()) };
                    let shape = [self.residuals.tokens, self.hidden];
                    let [a, b] = [kept, x.buffer].map(|buffer| Matrix::tight(buffer, self.hidden));
                    Ok(metrics::difference(rec, shape, &a, &b, &sums, layer)?)
                };
                let tokens = chunk.end - chunk.start;
                decoder.forward(&mut rec, &mut run.context, &run.ids, chunk.start, tokens, Some(&mut observer))?;
                for first in (0..scored).step_by(run.rows as usize) {
                    let rows = run.rows.min(scored - first);
                    let at = chunk.start + first;
                    let state = Rows { buffer: states, offset: at * self.hidden, stride: self.hidden };
                    self.head.project(&mut rec, state, rows, Rows::new(&original_logits, vocab))?;
                    decoder.logits(&mut rec, &run.context, first, rows, Rows::new(&run.logits, vocab))?;
                    let [a, b] = [&original_logits, &run.logits].map(|logits| Matrix::tight(logits, vocab));
                    let (targets, records) = ((run.ids.all(), at + 1), (run.records.all(), at));
                    metrics::compare(&mut rec, &Positions::new(rows, vocab), &a, &b, targets, records)?;
                }
                rec.submit()?;
                gpu.idle().await?;
            }
            records.extend(metrics::read_comparisons(gpu, &run.records, 0, windows.length - 1).await?);
        }
        monitor.report("comparing", windows.count as u64, windows.count as u64, Unit::Windows);
        let drift = if layers > 0 { metrics::read_differences(gpu, &sums, layers).await? } else { Vec::new() };
        Ok((records, drift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_overlap_and_score_all_but_their_first_token() {
        let ids: Vec<u32> = (0..25).collect();
        let windows = Windows::new(&ids, 8, None, None).unwrap();
        assert_eq!((windows.count(), windows.length(), windows.positions()), (3, 8, 21));
        assert_eq!(windows.targets()[..8], [1, 2, 3, 4, 5, 6, 7, 9]);
        let started = Windows::new(&ids, 8, None, Some(77)).unwrap();
        assert_eq!((started.window(1)[0], started.targets()), (77, windows.targets()));
        assert_eq!(Windows::new(&ids, 8, Some(2), None).unwrap().count(), 2);
        assert_eq!(Windows::new(&ids, 100, None, None).unwrap().length(), 25);
        assert!(Windows::new(&ids[..1], 8, None, None).is_none());
        assert!(Windows::new(&ids, 8, Some(0), None).is_none());
    }

    #[test]
    fn every_row_but_a_windows_last_is_scored() {
        let pieces: Vec<_> = chunks(10, 4).collect();
        assert_eq!(pieces, [(0..4, 4), (4..8, 4), (8..10, 1)]);
        assert_eq!(chunks(5, 4).collect::<Vec<_>>(), [(0..4, 4), (4..5, 0)]);
    }
}
