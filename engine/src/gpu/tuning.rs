//! What was found to be fastest on a device, where a kernel has several variants.
//!
//! In: a table that an earlier session left, or none. Out: the same with what was timed since ([`Gpu::tuning_found`]), to be kept for the
//! next. The device does not know what the names in it mean: whoever has variants times them and notes the fastest
//! ([`crate::ops::linear::tune`], [`crate::ops::attention::tune`]).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Gpu, GpuError, lock};

/// When variants are timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tune {
    /// On GPUs, for layers that the table does not know yet. On software adapters never: there the choice by rule was measured.
    #[default]
    Auto,
    /// On every adapter, for layers that the table does not know yet.
    Always,
    /// As if the table were empty.
    Again,
    /// Never; the table is not looked at either.
    Never,
}

impl Tune {
    /// Reads `auto`, `always`, `again` or `never`.
    ///
    /// # Errors
    /// [`GpuError::BadSetting`].
    pub fn parse(text: &str) -> Result<Self, GpuError> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "again" => Ok(Self::Again),
            "never" => Ok(Self::Never),
            _ => Err(GpuError::BadSetting {
                variable: "tuning (--tune, TERSOR_TUNE)",
                value: text.to_owned(),
                allowed: "auto, always, again or never",
            }),
        }
    }
}

/// The fastest variant of each piece of work, by device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// By device, driver, tier and version of this engine; then by the work: `q4_1 1536x576 x1` is
    /// `linear/matvec lanes=32 subgroup=8`, `attention/decode 9:3x64 f16 x1024` is `workgroups=256`.
    #[serde(default)]
    pub devices: BTreeMap<String, BTreeMap<String, String>>,
}

/// A device's part in it.
#[derive(Debug)]
pub(super) struct Table {
    when: Tune,
    device: String,
    all: Tuning,
    /// What was timed on this device since it was opened.
    fresh: BTreeSet<String>,
    /// Something was noted that nobody took yet.
    changed: bool,
}

impl Table {
    pub(super) fn new(when: Tune, all: Tuning, device: String) -> Self {
        Self { when, device, all, fresh: BTreeSet::new(), changed: false }
    }
}

impl Gpu {
    /// Whether variants are to be timed on this device.
    pub fn tunes(&self) -> bool {
        match lock(&self.0.tuning).when {
            Tune::Auto => !self.is_cpu(),
            Tune::Always | Tune::Again => true,
            Tune::Never => false,
        }
    }

    /// The variant that was found fastest for this work.
    pub fn tuned(&self, work: &str) -> Option<String> {
        let table = lock(&self.0.tuning);
        if table.when == Tune::Again && !table.fresh.contains(work) {
            return None;
        }
        table.all.devices.get(&table.device)?.get(work).cloned()
    }

    /// Notes the fastest variant for this work.
    pub fn note_tuned(&self, work: &str, variant: &str) {
        let mut table = lock(&self.0.tuning);
        let table = &mut *table;
        table.all.devices.entry(table.device.clone()).or_default().insert(work.to_owned(), variant.to_owned());
        table.fresh.insert(work.to_owned());
        table.changed = true;
    }

    /// The table, if anything was noted since the last call.
    pub fn tuning_found(&self) -> Option<Tuning> {
        let mut table = lock(&self.0.tuning);
        std::mem::take(&mut table.changed).then(|| table.all.clone())
    }
}
