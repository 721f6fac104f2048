//! Choosing the next token on the GPU; a few bytes come back.

use super::{OpsError, holds};
use crate::gpu::{Buffer, BufferSlice, Gpu, Purpose, Recorder};
use serde::{Deserialize, Serialize};

/// Words of one record; see `sample/sample.wgsl`.
const RECORD_WORDS: usize = 24;
/// Tokens reported beside the chosen one.
pub const BEST: usize = 8;
/// The token of a row without a single number.
const NO_TOKEN: u32 = u32::MAX;

/// How to choose. The filters apply in the order of the fields, as in Hugging Face transformers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Logits of recent tokens are divided by it where positive, else multiplied; 1: none.
    pub repetition_penalty: f32,
    /// 0: always the most probable token.
    pub temperature: f32,
    /// Keep the k most probable tokens; 0: all.
    pub top_k: u32,
    /// Keep the smallest set of most probable tokens with at least this probability; 1: all.
    pub top_p: f32,
    /// Keep tokens at least this probable, relative to the most probable; 0: all.
    pub min_p: f32,
    /// The same seed gives the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self { repetition_penalty: 1.0, temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

impl Sampling {
    /// Says what is wrong with these settings, if anything.
    ///
    /// # Errors
    /// [`OpsError::Shape`] names the setting.
    pub fn check(&self) -> Result<(), OpsError> {
        let fine = [
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0.0),
            ("temperature", self.temperature, self.temperature >= 0.0),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p)),
        ];
        for (name, value, good) in fine {
            if !good || !value.is_finite() {
                return Err(OpsError::shape("sample", format!("{name} = {value}")));
            }
        }
        Ok(())
    }

    /// 1/temperature as the kernel multiplies with it; 0 for argmax.
    pub fn sharpness(&self) -> f32 {
        // So cold that every token but the best is beyond reach: argmax, which needs no division.
        if self.temperature < 1e-4 { 0.0 } else { 1.0 / self.temperature }
    }

    /// `top_p` as a fraction of 2³²; 0: all.
    pub fn top_p_fraction(&self) -> u32 {
        if self.top_p >= 1.0 { 0 } else { ((f64::from(self.top_p) * 4_294_967_296.0) as u32).max(1) }
    }

    /// `min_p` in units of mass, 2⁻²⁴ of the most probable token's.
    pub fn min_mass(&self) -> u32 {
        (f64::from(self.min_p) * 16_777_216.0).ceil() as u32
    }
}

/// What the sampler says of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// The chosen token.
    pub token: u32,
    /// ln of the model's own probability of it (before penalty, temperature and filters).
    pub logprob: f32,
    /// Entropy of the model's own distribution, nats.
    pub entropy: f32,
    /// Tokens that passed the filters.
    pub candidates: u32,
    /// Probability it was drawn with.
    pub drawn_with: f32,
    /// The model's most probable tokens with their ln-probabilities, best first.
    pub best: Vec<(u32, f32)>,
}

/// The sampler's buffers.
#[derive(Clone, Debug)]
pub struct Sampler {
    recent: Buffer,
    record: Buffer,
    capacity: u32,
    slots: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    vocab: u32,
    offset: u32,
    slot: u32,
    recent: u32,
    sharpness: f32,
    penalty: f32,
    top_k: u32,
    top_p: u32,
    min_mass: u32,
    position: u32,
    seed_low: u32,
    seed_high: u32,
}

impl Sampler {
    /// Buffers for `slots` records and for penalties on up to `recent` different tokens.
    ///
    /// # Errors
    /// [`OpsError::Gpu`] if they do not fit.
    pub fn new(gpu: &Gpu, slots: u32, recent: u32) -> Result<Self, OpsError> {
        Ok(Self {
            recent: gpu.storage("recent tokens", u64::from(recent.max(1)) * 8, Purpose::Activations)?,
            record: gpu.storage("samples", u64::from(slots.max(1)) * RECORD_WORDS as u64 * 4, Purpose::Activations)?,
            capacity: recent,
            slots: slots.max(1),
        })
    }

    /// Says which tokens the repetition penalty applies to; takes effect for what is submitted afterwards. Duplicates are
    /// dropped, and the oldest where there are more than the sampler has room for. Returns how many remain, for
    /// [`Sampler::sample`].
    pub fn set_recent(&self, gpu: &Gpu, tokens: &[u32]) -> u32 {
        let mut seen = std::collections::HashSet::new();
        let unique: Vec<[u32; 2]> =
            tokens.iter().rev().filter(|t| seen.insert(**t)).take(self.capacity as usize).map(|t| [*t, 0]).collect();
        if !unique.is_empty() {
            gpu.write(&self.recent, 0, &unique);
        }
        unique.len() as u32
    }

    /// Records the choice from the `vocab` logits at `offset` floats into `logits`, into record `slot`.
    ///
    /// `recent`: what [`Sampler::set_recent`] returned (0: no penalty). `position`: of the token to come; with the seed it decides
    /// the random number. The logits are as before when the dispatch has run.
    ///
    /// # Errors
    /// [`OpsError::Shape`] for settings that make no sense, [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`].
    pub fn sample(
        &self,
        rec: &mut Recorder,
        sampling: &Sampling,
        logits: impl Into<BufferSlice>,
        [offset, vocab]: [u32; 2],
        recent: u32,
        position: u32,
        slot: u32,
    ) -> Result<(), OpsError> {
        const OP: &str = "sample/sample";
        sampling.check()?;
        let logits = logits.into();
        holds(OP, "logits", &logits, u64::from(offset) + u64::from(vocab))?;
        if slot >= self.slots || recent > self.capacity || vocab == 0 {
            let what =
                format!("slot {slot} of {}, {recent} recent tokens of {}, {vocab} logits", self.slots, self.capacity);
            return Err(OpsError::shape(OP, what));
        }
        let params = Params {
            vocab,
            offset,
            slot,
            recent: if sampling.repetition_penalty == 1.0 { 0 } else { recent },
            sharpness: sampling.sharpness(),
            penalty: sampling.repetition_penalty,
            top_k: sampling.top_k,
            top_p: sampling.top_p_fraction(),
            min_mass: sampling.min_mass(),
            position,
            seed_low: sampling.seed as u32,
            seed_high: (sampling.seed >> 32) as u32,
        };
        let kernel = rec.gpu().kernel(OP, &[])?;
        let bindings = [("logits", logits), ("recent", self.recent.all()), ("record", self.record.all())];
        Ok(rec.dispatch(&kernel, &bindings, &params, [1, 1, 1])?)
    }

    /// The records; word 24·slot is the chosen token, for a kernel that goes on with it without the host.
    pub fn records(&self) -> &Buffer {
        &self.record
    }

    /// Waits for the device and reads record `slot` (96 bytes).
    ///
    /// # Errors
    /// [`OpsError::NotANumber`] if no logit was a number, or [`OpsError::Gpu`].
    pub async fn read(&self, gpu: &Gpu, slot: u32) -> Result<Sampled, OpsError> {
        let words = RECORD_WORDS as u64;
        let record: Vec<u32> = gpu.read(&self.record, u64::from(slot) * words, words).await?;
        parse(&record)
    }

    /// Submits what is recorded, waits for it, and reads record `slot` (96 bytes) in the same submission.
    ///
    /// # Errors
    /// As [`Sampler::read`].
    pub async fn submit(&self, rec: Recorder, slot: u32) -> Result<Sampled, OpsError> {
        let mut record = [0; RECORD_WORDS];
        rec.submit_into(&self.record, u64::from(slot) * RECORD_WORDS as u64, &mut record).await?;
        parse(&record)
    }

    /// [`Sampler::submit`], of which only the chosen token is read: 4 bytes.
    ///
    /// # Errors
    /// As [`Sampler::read`].
    pub async fn submit_token(&self, rec: Recorder, slot: u32) -> Result<u32, OpsError> {
        let mut token = [NO_TOKEN];
        rec.submit_into(&self.record, u64::from(slot) * RECORD_WORDS as u64, &mut token).await?;
        match token {
            [NO_TOKEN] => Err(no_number()),
            [token] => Ok(token),
        }
    }

    /// Waits for the device once and reads the first `count` records.
    ///
    /// # Errors
    /// As [`Sampler::read`].
    pub async fn read_first(&self, gpu: &Gpu, count: u32) -> Result<Vec<Sampled>, OpsError> {
        let words = RECORD_WORDS as u64;
        let records: Vec<u32> = gpu.read(&self.record, 0, u64::from(count) * words).await?;
        records.chunks_exact(RECORD_WORDS).map(parse).collect()
    }
}

fn no_number() -> OpsError {
    OpsError::NotANumber { op: "sample", what: "no logit is a number".into() }
}

fn parse(record: &[u32]) -> Result<Sampled, OpsError> {
    if record.len() < RECORD_WORDS || record[0] == NO_TOKEN {
        return Err(no_number());
    }
    let best = (0..BEST)
        .filter(|i| record[8 + i] != NO_TOKEN)
        .map(|i| (record[8 + i], f32::from_bits(record[16 + i])))
        .collect();
    Ok(Sampled {
        token: record[0],
        logprob: f32::from_bits(record[1]),
        entropy: f32::from_bits(record[2]),
        candidates: record[3],
        drawn_with: f32::from_bits(record[4]),
        best,
    })
}
