//! Which variant of a linear layer's kernel is the fastest here: found by timing them, once for each kind of layer and device.
//!
//! In: layers of one kind. Out: each knows the variant to use for every number of columns ([`Linear::decision`]), and the device's
//! table knows it for the next time ([`crate::gpu::Tuning`]). Variants differ in the order of their sums only, so results differ by
//! rounding: by no more than what tests allow each of them against the f64 twin. Which precision they compute in is not up for choice.

use std::ops::RangeInclusive;

use super::{Decision, Device, Epilogue, Linear, Rows, Shape, binding_limit, forward_with};
use crate::gpu::{Gpu, GpuError, Purpose};
use crate::ops::OpsError;
use crate::ops::elementwise::Activation;
use crate::ops::trial::fastest;

/// Columns up to which a variant is used, and with how many it is timed.
const CLASSES: [(u32, u32); 5] = [(1, 1), (4, 4), (16, 16), (64, 64), (u32::MAX, 256)];
/// The variant of each class.
pub(super) type Tuned = [Option<Decision>; CLASSES.len()];

/// Bytes of inputs and outputs above which a class is left to the rule.
const MOST_BYTES: u64 = 256 << 20;

fn class_of(tokens: u32) -> usize {
    CLASSES.iter().position(|(most, _)| tokens <= *most).unwrap_or(CLASSES.len() - 1)
}

impl Linear {
    /// The variant that was found for this many columns.
    pub(super) fn tuned(&self, tokens: u32) -> Option<Decision> {
        self.tuned.get()?[class_of(tokens)]
    }

    /// What layers must have in common to share a variant: codec, rows, columns. `None`: there is nothing to choose.
    pub fn kind(&self) -> Option<String> {
        if self.expanded.is_some() {
            return None; // what multiplies is another layer, made on the spot
        }
        let options: Vec<String> = self
            .codec_options()
            .into_iter()
            .map(|(name, value)| if name == "CODEC" { value.to_string() } else { format!("{name}={value}") })
            .collect();
        let gated = if self.gated { " gated" } else { "" };
        let low = self.low_rank.as_ref().map_or(String::new(), |low| format!(" rank={}", low.rank));
        let kept = self.sparsity.map_or(String::new(), |sparsity| format!(" kept={}", sparsity.kept));
        Some(format!("{} {}x{}{gated}{low}{kept}", options.join(","), self.rows(), self.cols))
    }

    /// Variants worth timing for this many columns, the rule's own first.
    pub(super) fn candidates(&self, gpu: &Gpu, tokens: u32) -> Vec<Decision> {
        let (device, cpu) = (Device::of(gpu), gpu.is_cpu());
        let shape = Shape { tokens, rows: self.rows(), cols: self.cols, norm: false };
        let first = self.chosen(gpu, tokens, false);
        let expands = self.expands(binding_limit(gpu));
        let mut found = vec![first];
        let all = match self.codec.coded() {
            None => Decision::all(device, shape),
            Some(_) => Decision::all_coded(device, shape)
                .into_iter()
                .filter(|decision| expands || matches!(decision, Decision::Coded { .. }))
                .collect(),
        };
        for decision in all {
            let fits = match decision {
                Decision::Rowwise { .. } | Decision::Walk => cpu,
                Decision::Coded { lanes, .. } => (lanes == 1) == cpu,
                // It reads the whole matrix for every column.
                Decision::Matvec { .. } => !cpu && tokens <= 16,
                // As exact as the rule has it.
                Decision::Matmul { f16, .. } => !cpu && tokens > 1 && f16 == (device.f16 && !shape.tail()),
            };
            let decision = self.adapted(decision);
            if fits && !found.contains(&decision) {
                found.push(decision);
            }
        }
        found
    }
}

/// Gives layers of one [kind](Linear::kind) the variants that are fastest on this device, for up to `most_tokens` columns: out of the
/// device's table, or by timing. Weights are taken from all of the layers in turns, as a model does.
///
/// Where there is no room for inputs and outputs to try with, the rule stays.
///
/// # Errors
/// An error of the device.
pub async fn tune(gpu: &Gpu, kind: &str, layers: &[&Linear], most_tokens: u32) -> Result<(), OpsError> {
    tune_classes(gpu, kind, layers, 0..=class_of(most_tokens), most_tokens).await
}

/// [`tune`] for this many columns only.
///
/// # Errors
/// As [`tune`].
pub async fn tune_for(gpu: &Gpu, kind: &str, layers: &[&Linear], tokens: u32) -> Result<(), OpsError> {
    tune_classes(gpu, kind, layers, class_of(tokens)..=class_of(tokens), u32::MAX).await
}

async fn tune_classes(
    gpu: &Gpu,
    kind: &str,
    layers: &[&Linear],
    classes: RangeInclusive<usize>,
    most_tokens: u32,
) -> Result<(), OpsError> {
    let Some(one) = layers.first() else { return Ok(()) };
    let mut tuned = Tuned::default();
    for class in classes {
        let measured = CLASSES[class].1;
        let tokens = measured.min(most_tokens);
        let candidates = one.candidates(gpu, tokens);
        if candidates.len() < 2 {
            continue;
        }
        let work = format!("{kind} x{measured}");
        let known = gpu.tuned(&work).and_then(|variant| candidates.iter().find(|c| c.to_string() == variant));
        if let Some(known) = known {
            tuned[class] = Some(*known);
            continue;
        }
        let bytes = 4 * u64::from(tokens) * (u64::from(one.cols) + u64::from(one.outputs));
        // Logits of many tokens, which nobody waits for.
        let operations = 2 * one.multiplications() * u64::from(tokens);
        if bytes > MOST_BYTES || operations > gpu.flops_per_submission() {
            continue;
        }
        let best = match choose(gpu, layers, tokens, &candidates).await {
            Ok(best) => best,
            // No room to try is no reason to fail.
            Err(OpsError::Gpu(GpuError::OutOfMemory { .. } | GpuError::BufferTooLarge { .. })) => continue,
            Err(error) => return Err(error),
        };
        gpu.note_tuned(&work, &best.to_string());
        tuned[class] = Some(best);
    }
    for layer in layers {
        // Whoever was first is right.
        let _ = layer.tuned.set(Box::new(tuned));
    }
    Ok(())
}

async fn choose(gpu: &Gpu, layers: &[&Linear], tokens: u32, candidates: &[Decision]) -> Result<Decision, OpsError> {
    let (cols, outputs) = (layers[0].cols, layers[0].outputs);
    let values: Vec<f32> = (0..tokens * cols).map(|i| ((i * 37 + 11) % 64) as f32 / 64.0 - 0.5).collect();
    let x = gpu.upload("tuning x", &values, Purpose::Activations)?;
    let y = gpu.storage("tuning y", 4 * u64::from(tokens) * u64::from(outputs), Purpose::Activations)?;
    let best = fastest(gpu, candidates.len(), |rec, candidate, run| {
        let layer = layers[run % layers.len()];
        let epilogue = Epilogue { activation: layer.gated.then_some(Activation::Silu), ..Epilogue::default() };
        let (x, y) = (Rows::new(&x, cols), Rows::new(&y, outputs));
        forward_with(rec, candidates[candidate], layer, tokens, x, y, &epilogue)
    });
    Ok(candidates[best.await?])
}
