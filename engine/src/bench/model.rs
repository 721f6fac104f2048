//! A language model end to end: prefill and decode by length of the context, what a token costs the device and the host, how long the
//! first one takes, and what it all needs of memory.
//!
//! The longest prompt goes through once a round; at every length that was asked for, tokens are decoded greedily and forgotten again.
//! So prefill at a length is the time of all its chunks until the first token is there. Pipelines are warm but for
//! [`ModelFindings::compile_seconds`].

use serde::{Deserialize, Serialize};
use web_time::Instant;

use super::ceilings::{self, Ceilings};
use super::{BenchError, Times};
use crate::generate::warm_up;
use crate::gpu::{Buffer, MemoryReport, Purpose, Recorder};
use crate::model::{Context, Decoder, ModelError};
use crate::ops::linear::Rows;
use crate::ops::sample::{Sampler, Sampling};
use crate::progress::{Monitor, Unit};

/// Lengths that are measured where nobody chose, as far as the model goes; the short list's.
const CONTEXTS: &[u32] = &[128, 512, 1024, 2048, 4096, 8192];
const QUICK: &[u32] = &[128, 256, 512];
/// Tokens that the host's cost is the least of.
const HOST_SAMPLES: u32 = 16;

/// What to measure of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelPlan {
    /// Positions that are taken when a token is decoded; empty: 128 to 8192, or to 512 if `quick`.
    pub contexts: Vec<u32>,
    /// Tokens decoded at each, in each round.
    pub tokens: u32,
    /// How often everything is measured.
    pub rounds: u32,
    /// Fewer and shorter contexts.
    pub quick: bool,
}

impl Default for ModelPlan {
    fn default() -> Self {
        Self { contexts: Vec::new(), tokens: 16, rounds: 3, quick: false }
    }
}

impl ModelPlan {
    /// The lengths to measure, ascending. Of those nobody chose, the ones that a model for `most` positions has room for.
    pub fn lengths(&self, most: u32) -> Vec<u32> {
        let room = most.saturating_sub(self.tokens.max(1));
        let mut all = self.contexts.clone();
        if all.is_empty() {
            all.extend(if self.quick { QUICK } else { CONTEXTS });
            // A list without its last entry would hide how a model does in its own full context.
            all.iter_mut().for_each(|length| *length = (*length).min(room));
        }
        all.retain(|length| *length > 0);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What was found at one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtLength {
    /// Positions taken before.
    pub context: u32,
    /// Seconds from a prompt of this length to its first token; the median of the rounds.
    pub prefill_seconds: f64,
    /// Tokens of the prompt through these.
    pub prefill_tokens_per_second: f64,
    /// Microseconds of a token, from recording it to having its id.
    pub decode: Times,
    /// By the median.
    pub decode_tokens_per_second: f64,
    /// Dispatches of a token.
    pub dispatches: u64,
    /// Bytes that a token must read and write at least: packed weights, and the keys and values that it sees.
    pub bytes: u64,
    /// 10⁹ of them a second.
    pub gb_per_s: f64,
    /// The time that they take at the measured bandwidth, through the time taken.
    pub roof_fraction: f64,
}

/// What the host does for a token: the least of several tokens, since whatever else the machine does only adds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostCost {
    /// Positions taken.
    pub context: u32,
    /// Dispatches.
    pub dispatches: u64,
    /// Microseconds to record them.
    pub record_us: f64,
    /// Microseconds to hand them in, in which wgpu encodes and checks them.
    pub submit_us: f64,
    /// Microseconds in which bare wgpu records and takes the same commands, with bind groups and parameters as they are.
    pub wgpu_us: f64,
    /// What is left for the engine, a dispatch.
    pub engine_us_per_dispatch: f64,
}

/// A line through the decoding times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Microseconds of a token in an empty context.
    pub base_us: f64,
    /// Microseconds that a position adds.
    pub us_per_position: f64,
    /// Bytes of keys and values that a position adds.
    pub bytes_per_position: f64,
    /// Share of the times' variance that the line explains.
    pub r_squared: f64,
}

/// A parabola through the origin and the times of prompts: attention, which alone is to grow with the square of the prompt's length, and
/// all the rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrefillFit {
    /// Microseconds that a token takes by itself.
    pub us_per_token: f64,
    /// Nanoseconds that a pair of a token and one before it takes.
    pub ns_per_pair: f64,
    /// Share of the times' variance that the parabola explains.
    pub r_squared: f64,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelFindings {
    /// What the adapter gives at most.
    pub ceilings: Ceilings,
    /// Seconds to read, pack and upload the weights.
    pub load_seconds: f64,
    /// Seconds to compile all pipelines and to run each once; also to choose among kernels, where that is still to be done.
    pub compile_seconds: f64,
    /// Pipelines.
    pub pipelines: usize,
    /// Bytes of packed weights on the device.
    pub weight_bytes: u64,
    /// By length, ascending.
    pub lengths: Vec<AtLength>,
    /// Of decoding, at three lengths or more.
    pub fit: Option<Fit>,
    /// Of prompts, at three lengths or more.
    #[serde(default)]
    pub prefill_fit: Option<PrefillFit>,
    /// At the shortest length.
    pub host: HostCost,
    /// Of the device; the peak since the model was loaded.
    pub memory: MemoryReport,
    /// Most bytes of the process on the host, where the system says.
    pub host_peak_bytes: Option<u64>,
}

/// A decoder at work.
struct Bench<'a> {
    decoder: &'a Decoder,
    context: Context,
    sampler: Sampler,
    logits: Buffer,
}

impl Bench<'_> {
    /// Records the choice of the next token from row `row` of what went through last.
    fn choose(&self, rec: &mut Recorder, row: u32) -> Result<(), ModelError> {
        let vocab = self.decoder.config().vocab;
        self.decoder.logits(rec, &self.context, row, 1, Rows::new(&self.logits, vocab))?;
        let at = self.context.len();
        Ok(self.sampler.sample(rec, &Sampling::default(), &self.logits, [0, vocab], 0, at, 0)?)
    }

    /// Records a token: the last one's layers, and the choice of the next.
    fn record(&mut self, rec: &mut Recorder) -> Result<(), ModelError> {
        self.decoder.forward(rec, &mut self.context, self.sampler.records(), 0, 1, None)?;
        self.choose(rec, 0)
    }

    /// Decodes a token; microseconds and dispatches.
    async fn token(&mut self) -> Result<(f64, u64), BenchError> {
        let start = Instant::now();
        let mut rec = self.decoder.gpu().record();
        self.record(&mut rec)?;
        let dispatches = rec.dispatches();
        self.sampler.submit_token(rec, 0).await?;
        Ok((1e6 * start.elapsed().as_secs_f64(), dispatches))
    }

    /// The host's part of tokens at this place.
    async fn host(&mut self, monitor: &Monitor) -> Result<HostCost, BenchError> {
        let (gpu, context) = (self.decoder.gpu().clone(), self.context.len());
        let mut rec = gpu.record_tape();
        self.record(&mut rec)?;
        let dispatches = rec.dispatches();
        let tape = rec.submit_tape()?;
        gpu.idle().await?;
        let mut least = [f64::INFINITY; 3];
        let mut keep = |i: usize, since: Instant| {
            let now = Instant::now();
            least[i] = least[i].min(1e6 * now.duration_since(since).as_secs_f64());
            now
        };
        for _ in 0..HOST_SAMPLES {
            monitor.check()?;
            self.context.truncate(context);
            let start = Instant::now();
            let mut rec = gpu.record();
            self.record(&mut rec)?;
            let recorded = keep(0, start);
            rec.submit()?;
            keep(1, recorded);
            gpu.idle().await?;
            if let Some(tape) = &tape {
                let start = Instant::now();
                tape.replay()?;
                keep(2, start);
                gpu.idle().await?;
            }
        }
        self.context.truncate(context);
        let [record_us, submit_us, wgpu_us] = least;
        let engine_us_per_dispatch = (record_us + submit_us - wgpu_us).max(0.0) / dispatches.max(1) as f64;
        Ok(HostCost { context, dispatches, record_us, submit_us, wgpu_us, engine_us_per_dispatch })
    }
}

/// Measures a model that was loaded in `load_seconds`, with room for the plan's longest length and its tokens.
///
/// # Errors
/// [`BenchError`]; a plan that asks for more positions than the model has.
pub async fn run(
    decoder: &Decoder,
    plan: &ModelPlan,
    load_seconds: f64,
    monitor: &Monitor,
) -> Result<ModelFindings, BenchError> {
    let (gpu, vocab) = (decoder.gpu(), decoder.config().vocab);
    let tokens = plan.tokens.max(1);
    let lengths = plan.lengths(decoder.config().max_positions);
    let Some(longest) = lengths.last() else { return Err(ModelError::EmptyPrompt.into()) };
    let mut context = Context::new(decoder, longest.saturating_add(tokens))?;
    let compiling = Instant::now();
    let before = gpu.compiled();
    decoder.tune(&context, monitor).await?;
    warm_up(decoder, &mut context).await?;
    let compile_seconds = compiling.elapsed().as_secs_f64();
    let pipelines = gpu.compiled() - before;
    let (sampler, size) = (Sampler::new(gpu, 1, 1)?, 4 * u64::from(vocab));
    let logits = gpu.storage("logits", size, Purpose::Activations)?;
    let mut bench = Bench { decoder, context, sampler, logits };

    let ids: Vec<u32> = (0..*longest).map(|i| (i * 977 + 13) % vocab).collect();
    let rounds = plan.rounds.max(1);
    let mut prefills = vec![Vec::new(); lengths.len()];
    let mut decodes = vec![Vec::new(); lengths.len()];
    let mut dispatches = vec![0; lengths.len()];
    let mut host = None;
    for round in 0..rounds {
        bench.context.truncate(0);
        let (mut taken, mut seconds) = (0, 0.0);
        for (i, length) in lengths.iter().enumerate() {
            let done = u64::from(round) * lengths.len() as u64 + i as u64;
            let what = format!("a context of {length}");
            monitor.step(&what, done, u64::from(rounds) * lengths.len() as u64, Unit::Measurements)?;
            let start = Instant::now();
            let part = &ids[taken as usize..*length as usize];
            let (mut rec, row) = decoder.prefill(&mut bench.context, part, &Monitor::none()).await?;
            bench.choose(&mut rec, row)?;
            bench.sampler.submit_token(rec, 0).await?;
            seconds += start.elapsed().as_secs_f64();
            prefills[i].push(seconds);
            for _ in 0..tokens {
                monitor.check()?;
                let (us, count) = bench.token().await?;
                decodes[i].push(1e-6 * us);
                dispatches[i] = count;
            }
            bench.context.truncate(*length);
            taken = *length;
            if host.is_none() {
                host = Some(bench.host(monitor).await?);
            }
        }
    }
    let memory = gpu.memory();
    // The probes' own buffers are not the model's: they come last.
    monitor.step("the adapter's ceilings", 0, 0, Unit::Measurements)?;
    let (_, _, ceilings) = ceilings::measure(gpu, monitor).await?;
    let found = lengths.iter().zip(prefills).zip(decodes).zip(dispatches);
    let found = found.map(|(((context, prefill), decode), dispatches)| {
        let (decode, prefill_seconds) = (Times::of(decode, 1), 1e-6 * Times::of(prefill, 1).median_us);
        let (bytes, seconds) = (decoder.token_bytes(context + tokens / 2), 1e-6 * decode.median_us);
        AtLength {
            context: *context,
            prefill_seconds,
            prefill_tokens_per_second: f64::from(*context) / prefill_seconds,
            decode,
            decode_tokens_per_second: 1.0 / seconds,
            dispatches,
            bytes,
            gb_per_s: 1e-9 * bytes as f64 / seconds,
            roof_fraction: bytes as f64 / ceilings.bandwidth() / seconds,
        }
    });
    let found: Vec<AtLength> = found.collect();
    Ok(ModelFindings {
        ceilings,
        load_seconds,
        compile_seconds,
        pipelines,
        weight_bytes: decoder.weight_bytes(),
        fit: fit(&found),
        prefill_fit: prefill_fit(&found),
        lengths: found,
        host: host.ok_or(ModelError::EmptyPrompt)?,
        memory,
        host_peak_bytes: host_peak(),
    })
}

/// The least-squares line through the decoding times.
fn fit(lengths: &[AtLength]) -> Option<Fit> {
    let (first, last) = (lengths.first()?, lengths.last()?);
    if lengths.len() < 3 {
        return None;
    }
    let n = lengths.len() as f64;
    let points = || lengths.iter().map(|at| (f64::from(at.context), at.decode.median_us));
    let mean = |of: fn((f64, f64)) -> f64| points().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| points().map(|p| of(p.0 - x, p.1 - y)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|a, _| a * a), sum(&|a, b| a * b), sum(&|_, b| b * b));
    let us_per_position = xy / xx;
    Some(Fit {
        base_us: y - us_per_position * x,
        us_per_position,
        bytes_per_position: (last.bytes - first.bytes) as f64 / f64::from(last.context - first.context),
        r_squared: if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 },
    })
}

/// The least-squares parabola `t = a·n + b·n(n+1)/2` of the prompts' times.
fn prefill_fit(lengths: &[AtLength]) -> Option<PrefillFit> {
    if lengths.len() < 3 {
        return None;
    }
    let points = || {
        lengths.iter().map(|at| {
            let n = f64::from(at.context);
            (n, n * (n + 1.0) / 2.0, at.prefill_seconds)
        })
    };
    let sum = |of: &dyn Fn(f64, f64, f64) -> f64| points().map(|(n, pairs, t)| of(n, pairs, t)).sum::<f64>();
    let (nn, np, pp) = (sum(&|n, _, _| n * n), sum(&|n, p, _| n * p), sum(&|_, p, _| p * p));
    let (nt, pt) = (sum(&|n, _, t| n * t), sum(&|_, p, t| p * t));
    let determinant = nn * pp - np * np;
    let (a, b) = ((nt * pp - pt * np) / determinant, (pt * nn - nt * np) / determinant);
    let mean = sum(&|_, _, t| t) / lengths.len() as f64;
    let left = sum(&|n, p, t| (t - a * n - b * p).powi(2));
    let all = sum(&|_, _, t| (t - mean).powi(2));
    let r_squared = if all > 0.0 { 1.0 - left / all } else { 1.0 };
    determinant.is_normal().then_some(PrefillFit { us_per_token: 1e6 * a, ns_per_pair: 1e9 * b, r_squared })
}

/// The most memory that this process has had on the host.
fn host_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(context: u32, us: f64) -> AtLength {
        AtLength {
            context,
            prefill_seconds: 1.0,
            prefill_tokens_per_second: 1.0,
            decode: Times::of(vec![1e-6 * us], 1),
            decode_tokens_per_second: 1.0,
            dispatches: 1,
            bytes: 1000 + 8 * u64::from(context),
            gb_per_s: 1.0,
            roof_fraction: 1.0,
        }
    }

    #[test]
    fn a_line_is_found_and_its_quality_said() {
        assert_eq!(fit(&[at(1, 1.0), at(2, 2.0)]), None);
        let line = fit(&[at(100, 150.0), at(200, 200.0), at(400, 300.0)]).unwrap();
        assert!((line.base_us - 100.0).abs() < 1e-6 && (line.us_per_position - 0.5).abs() < 1e-9, "{line:?}");
        assert!((line.r_squared - 1.0).abs() < 1e-9 && line.bytes_per_position == 8.0, "{line:?}");
        let bent = fit(&[at(100, 150.0), at(200, 100.0), at(300, 150.0)]).unwrap();
        assert!(bent.r_squared < 0.01, "{bent:?}");
    }

    #[test]
    fn attention_is_told_from_the_rest_of_a_prompt() {
        // A token takes 100 µs, a pair of tokens 40 ns.
        let prompt = |n: u32| {
            let (tokens, pairs) = (f64::from(n), f64::from(n) * f64::from(n + 1) / 2.0);
            AtLength { prefill_seconds: 1e-4 * tokens + 4e-8 * pairs, ..at(n, 1.0) }
        };
        let found = prefill_fit(&[128, 512, 2048].map(prompt)).unwrap();
        assert!((found.us_per_token - 100.0).abs() < 1e-6 && (found.ns_per_pair - 40.0).abs() < 1e-6, "{found:?}");
        assert!((found.r_squared - 1.0).abs() < 1e-9);
        assert_eq!(prefill_fit(&[128, 512].map(prompt)), None);
    }

    #[test]
    fn lengths_end_where_the_model_does() {
        let plan = ModelPlan::default();
        assert_eq!(plan.lengths(100_000), CONTEXTS);
        assert_eq!(plan.lengths(1024), [128, 512, 1008]);
        assert_eq!(ModelPlan { quick: true, ..plan.clone() }.lengths(8192), QUICK);
        let asked = ModelPlan { contexts: vec![300, 40, 300, 0], ..plan };
        assert_eq!(asked.lengths(64), [40, 300]);
    }
}
