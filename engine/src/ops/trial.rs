//! Timing variants of one piece of work against one another.

use std::ops::Range;

use web_time::Instant;

use super::OpsError;
use crate::gpu::{Gpu, Recorder};

/// Samples of each variant, taken in turns: as many as there is time for.
const SAMPLES: Range<usize> = 3..8;
/// Seconds for the samples of all variants.
const PATIENCE: f64 = 0.3;
/// Seconds that a sample should last.
const SAMPLE: f64 = 0.002;
/// Runs of a sample at most.
const RUNS: u32 = 200;
/// A variant that takes this many times as long as the best is not timed again.
const HOPELESS: f64 = 2.0;
/// What a variant must save of the time of the first, so that noise decides nothing.
const WORTH: f64 = 0.03;

/// The fastest of `variants` variants; the first, unless another one is faster by more than noise. `record` records a run of a variant; runs are
/// numbered, so that they can take their operands in turns, as a model does.
///
/// # Errors
/// What `record` gives, or an error of the device.
pub(crate) async fn fastest(
    gpu: &Gpu,
    variants: usize,
    mut record: impl FnMut(&mut Recorder, usize, usize) -> Result<(), OpsError>,
) -> Result<usize, OpsError> {
    let mut run = 0;
    let mut runs = vec![1; variants];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); variants];
    let mut hopeless = vec![false; variants];
    let mut begun = Instant::now();
    // The first round compiles, the second says how long a run takes.
    for round in 0..SAMPLES.end + 2 {
        if round == 2 {
            begun = Instant::now();
        }
        if round >= SAMPLES.start + 2 && begun.elapsed().as_secs_f64() > PATIENCE {
            break;
        }
        for i in 0..variants {
            if hopeless[i] {
                continue;
            }
            let start = Instant::now();
            let mut rec = gpu.record();
            for _ in 0..runs[i] {
                record(&mut rec, i, run)?;
                run += 1;
            }
            rec.submit()?;
            gpu.idle().await?;
            let seconds = start.elapsed().as_secs_f64() / f64::from(runs[i]);
            match round {
                0 => {}
                1 => runs[i] = ((SAMPLE / seconds.max(1e-9)).ceil() as u32).clamp(1, RUNS),
                _ => times[i].push(seconds),
            }
        }
        if round >= 2 {
            let best = times.iter().filter_map(|t| t.last()).copied().fold(f64::INFINITY, f64::min);
            for (out, times) in hopeless.iter_mut().zip(&times) {
                *out |= times.last().is_some_and(|t| *t > HOPELESS * best);
            }
        }
    }
    let median = |times: &Vec<f64>| {
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(f64::INFINITY)
    };
    let medians: Vec<f64> =
        times.iter().zip(&hopeless).map(|(t, out)| if *out { f64::INFINITY } else { median(t) }).collect();
    let best = (0..variants).min_by(|a, b| medians[*a].total_cmp(&medians[*b])).unwrap_or(0);
    Ok(if medians[best] < (1.0 - WORTH) * medians[0] { best } else { 0 })
}
