//! Where the engine's choice among variants of kernels is kept: `tuning.json` beside the models.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tersor_engine::gpu::Tuning;

use crate::fetch::cache;
use crate::files;

fn file() -> Option<PathBuf> {
    cache::directory().ok().map(|folder| folder.join("tuning.json"))
}

/// What earlier sessions found; nothing where there is no such file, or it cannot be read: it is then found again.
pub fn load() -> Tuning {
    file().map(|path| load_from(&path)).unwrap_or_default()
}

/// Keeps what a session found, beside what others have found meanwhile. That it cannot be kept costs time only, so nobody is told.
pub fn keep(found: &Tuning) {
    if let Some(path) = file() {
        let _ = keep_in(&path, found);
    }
}

fn load_from(path: &Path) -> Tuning {
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn keep_in(path: &Path, found: &Tuning) -> io::Result<()> {
    let mut all = load_from(path);
    for (device, entries) in &found.devices {
        all.devices.entry(device.clone()).or_default().extend(entries.clone());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    files::write(path, &serde_json::to_vec_pretty(&all)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(device: &str, work: &str, variant: &str) -> Tuning {
        let entries = [(work.to_owned(), variant.to_owned())].into();
        Tuning { devices: [(device.to_owned(), entries)].into() }
    }

    #[test]
    fn what_two_sessions_find_is_kept_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("of its own/tuning.json");
        assert_eq!(load_from(&path), Tuning::default());
        keep_in(&path, &table("one", "q4_1 64x64 x1", "a")).unwrap();
        keep_in(&path, &table("one", "q4_1 64x64 x4", "b")).unwrap();
        keep_in(&path, &table("two", "q4_1 64x64 x1", "c")).unwrap();
        keep_in(&path, &table("one", "q4_1 64x64 x1", "d")).unwrap();
        let found = load_from(&path);
        assert_eq!(found.devices["one"].values().collect::<Vec<_>>(), ["d", "b"]);
        assert_eq!(found.devices["two"].values().collect::<Vec<_>>(), ["c"]);
        // A file that was spoiled counts as none, and is replaced.
        fs::write(&path, "{").unwrap();
        keep_in(&path, &table("two", "q4_1 64x64 x1", "c")).unwrap();
        assert_eq!(load_from(&path).devices.len(), 1);
    }
}
