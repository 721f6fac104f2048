//! Into how many parts the keys of a single query are best cut on this device: found by timing, once for each kind of attention.
//!
//! In: layers of one kind with their caches. Out: how many workgroups to fill ([`Fill`]), which the device's table knows for the next time
//! ([`crate::gpu::Tuning`]). Cutting changes the order of sums only.

use super::{Attention, decode, fill, split};
use crate::gpu::{Gpu, GpuError, Purpose};
use crate::ops::OpsError;
use crate::ops::rope::KvCache;
use crate::ops::trial::fastest;

/// Keys up to which a choice is used, and with how many it is made.
const CLASSES: [(u32, u32); 3] = [(1024, 1024), (8192, 8192), (u32::MAX, 32_768)];
/// Times the workgroups of the rule, which come first: what is tried.
const FACTORS: [f64; 5] = [1.0, 0.25, 0.5, 2.0, 4.0];

/// Workgroups that one query's keys are to fill, by their number; where none was found, a rule says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill([Option<u32>; CLASSES.len()]);

impl Fill {
    /// The same for any number of keys.
    pub fn with(workgroups: u32) -> Self {
        Self([Some(workgroups); CLASSES.len()])
    }

    /// What was found for so many keys.
    pub(super) fn of(&self, keys: u32) -> Option<u32> {
        self.0[class_of(keys)]
    }

    /// The most that was found for any number of keys.
    pub(super) fn most(&self) -> Option<u32> {
        self.0.iter().copied().flatten().max()
    }
}

fn class_of(keys: u32) -> usize {
    CLASSES.iter().position(|(most, _)| keys <= *most).unwrap_or(CLASSES.len() - 1)
}

/// What layers must have in common to share a choice.
pub fn kind(attention: &Attention, cache: &KvCache) -> String {
    let Attention { heads, kv_heads, head_dim, .. } = attention;
    format!("attention/decode {heads}:{kv_heads}x{head_dim} {:?}", cache.format).to_lowercase()
}

/// The choices for layers of one [`kind`] whose caches hold as many positions: out of the device's table, or by timing.
///
/// # Errors
/// An error of the device.
pub async fn tune(gpu: &Gpu, kind: &str, layers: &[(Attention, &KvCache)]) -> Result<Fill, OpsError> {
    let mut found = Fill::default();
    let Some((first, cache)) = layers.first() else { return Ok(found) };
    let a = Attention { window: 0, fill: Fill::default(), ..*first };
    let software = a.variant.software(gpu);
    let groups = a.heads / a.heads_together(software);
    let mut least = 1;
    for (class, (most, measured)) in CLASSES.into_iter().enumerate() {
        if cache.ctx < least {
            break;
        }
        least = most.saturating_add(1);
        let keys = measured.min(cache.ctx);
        let rule = fill(software).0;
        let mut candidates: Vec<u32> = Vec::new();
        for factor in FACTORS {
            let workgroups = (f64::from(rule) * factor).round().max(1.0) as u32;
            let cut = |workgroups: u32| split(keys, groups, workgroups, software);
            if candidates.iter().all(|known| cut(*known) != cut(workgroups)) {
                candidates.push(workgroups);
            }
        }
        if candidates.len() < 2 {
            continue;
        }
        let work = format!("{kind} x{measured}");
        let known = gpu.tuned(&work).and_then(|variant| candidates.iter().find(|c| name(**c) == variant).copied());
        if known.is_some() {
            found.0[class] = known;
            continue;
        }
        match choose(gpu, &a, layers, keys, &candidates).await {
            Ok(best) => {
                gpu.note_tuned(&work, &name(best));
                found.0[class] = Some(best);
            }
            // No room to try is no reason to fail.
            Err(OpsError::Gpu(GpuError::OutOfMemory { .. } | GpuError::BufferTooLarge { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// How the table spells a choice.
fn name(workgroups: u32) -> String {
    format!("workgroups={workgroups}")
}

async fn choose(
    gpu: &Gpu,
    a: &Attention,
    layers: &[(Attention, &KvCache)],
    keys: u32,
    candidates: &[u32],
) -> Result<u32, OpsError> {
    let bytes = 4 * u64::from(a.heads) * u64::from(a.head_dim);
    let q = gpu.storage("tuning q", bytes, Purpose::Activations)?;
    let o = gpu.storage("tuning o", bytes, Purpose::Activations)?;
    let best = fastest(gpu, candidates.len(), |rec, candidate, run| {
        let a = Attention { fill: Fill::with(candidates[candidate]), ..*a };
        decode(rec, &a, keys - 1, &q, layers[run % layers.len()].1, &o)
    });
    Ok(candidates[best.await?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{GpuOptions, Tune, Tuning};
    use crate::ops::rope::KvFormat;

    #[test]
    fn cuts_are_timed_once_and_then_remembered() {
        pollster::block_on(async {
            let open = |tuning| {
                let options = GpuOptions { tune: Tune::Always, tuning, ..GpuOptions::from_env().unwrap() };
                pollster::block_on(Gpu::new(options)).unwrap()
            };
            let tuned = async |gpu: &Gpu, ctx: u32| {
                let a = Attention { window: 100, ..Attention::causal(4, 2, 32) };
                let caches = [0, 1].map(|_| KvCache::new(gpu, 2, ctx, 32, KvFormat::F16).unwrap());
                let layers = [(a, &caches[0]), (a, &caches[1])];
                tune(gpu, &kind(&a, &caches[0]), &layers).await.unwrap()
            };
            let gpu = open(Tuning::default());
            let found = tuned(&gpu, 2000).await;
            assert!(found.of(1000).is_some() && found.of(2000).is_some(), "{found:?}");
            assert_eq!(found.of(9000), None, "the caches hold no such context");
            let mut table = gpu.tuning_found().expect("something was timed");
            let works = table.devices.values_mut().next().unwrap();
            assert_eq!(
                works.keys().collect::<Vec<_>>(),
                ["attention/decode 4:2x32 f16 x1024", "attention/decode 4:2x32 f16 x8192"]
            );
            // What the table says holds, whatever would be found; what it cannot mean is timed again.
            let software = Attention::causal(4, 2, 32).variant.software(&gpu);
            let other = 2 * fill(software).0;
            works.insert("attention/decode 4:2x32 f16 x1024".to_owned(), name(other));
            let again = open(table.clone());
            assert_eq!(tuned(&again, 2000).await.of(1000), Some(other));
            assert!(again.tuning_found().is_none());
            let works = table.devices.values_mut().next().unwrap();
            works.insert("attention/decode 4:2x32 f16 x1024".to_owned(), "workgroups=many".to_owned());
            let spoiled = open(table);
            assert!(tuned(&spoiled, 1000).await.of(1000).is_some());
            assert!(spoiled.tuning_found().is_some());
            // Nothing to cut, nothing to choose.
            let short = open(Tuning::default());
            assert_eq!(tuned(&short, 60).await, Fill::default());
        });
    }
}
