//! Choosing among the variants of a model's kernels by timing them on its own weights.

use std::collections::BTreeMap;

use super::ModelError;
use crate::gpu::Gpu;
use crate::ops::linear::{self, Linear};
use crate::progress::{Monitor, Unit};

/// Times the variants of the kernels that multiply by these weights, for up to `tokens` columns; layers that have what matters in common are
/// tried together.
///
/// # Errors
/// [`ModelError::Cancelled`], or what the device refuses.
pub(super) async fn tune_linears(
    gpu: &Gpu,
    linears: impl Iterator<Item = &Linear>,
    tokens: u32,
    monitor: &Monitor,
) -> Result<(), ModelError> {
    let mut kinds: BTreeMap<String, Vec<&Linear>> = BTreeMap::new();
    for linear in linears {
        if let Some(kind) = linear.kind() {
            kinds.entry(kind).or_default().push(linear);
        }
    }
    let total = kinds.len() as u64;
    for (done, (kind, layers)) in kinds.iter().enumerate() {
        monitor.step("choosing kernels", done as u64, total, Unit::Pipelines)?;
        linear::tune(gpu, kind, layers, tokens).await?;
    }
    Ok(())
}
