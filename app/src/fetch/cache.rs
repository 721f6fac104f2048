//! The model cache: folders under the user's cache directory, a lock per model, files that appear whole or not at all.
//!
//! In: bytes arriving from a source. Out: files whose contents were hashed on the way, renamed into place only when the
//! hash is right. What was verified is remembered in `verified.json` with size and modification time, so that opening a
//! model again does not hash it again, and an edited file is noticed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tersor_engine::progress::{Monitor, Unit};

use super::{FetchError, ManifestError};
use crate::digest::{Digest, Hasher};

/// The cache directory: `TERSOR_CACHE`, else `tersor` in the platform's place for caches.
///
/// Linux and others: `$XDG_CACHE_HOME` or `~/.cache`; macOS: `~/Library/Caches`; Windows: `%LOCALAPPDATA%`.
pub fn directory() -> Result<PathBuf, FetchError> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = var("TERSOR_CACHE") {
        return Ok(dir);
    }
    let base = if cfg!(windows) {
        var("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        var("HOME").map(|home| home.join("Library/Caches"))
    } else {
        // The XDG specification says to ignore a relative path.
        var("XDG_CACHE_HOME").filter(|dir| dir.is_absolute()).or_else(|| var("HOME").map(|home| home.join(".cache")))
    };
    base.map(|dir| dir.join("tersor")).ok_or(FetchError::NoCacheDirectory)
}

/// A file that a model must have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// Name inside the model's folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// What it must hash to.
    pub digest: Digest,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verified {
    digest: Digest,
    size: u64,
    modified_ns: u128,
}

/// A model's folder in the cache, locked against other processes for as long as the value lives.
pub struct Folder {
    dir: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates and locks `dir`, waiting for another process that is fetching the same model.
    pub fn lock(dir: PathBuf, monitor: &Monitor) -> Result<Self, FetchError> {
        fs::create_dir_all(&dir).map_err(FetchError::io("create", &dir))?;
        let path = dir.join(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(FetchError::io("open", &path))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { dir, _lock: lock }),
                Err(TryLockError::WouldBlock) => {
                    monitor.step("waiting for another process that fetches this model", 0, 0, Unit::Bytes)?;
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(TryLockError::Error(e)) => return Err(FetchError::io("lock", &path)(e)),
            }
        }
    }

    /// Where the model's files lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Full path of a file of the model.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Removes every file whose size or digest is not what is wanted; returns the wanted files that are then missing.
    pub fn missing<'a>(&self, wanted: &'a [Wanted], monitor: &Monitor) -> Result<Vec<&'a Wanted>, FetchError> {
        let seen = self.read_verified();
        let mut missing = Vec::new();
        for file in wanted {
            let path = self.path(&file.path);
            let Some(now) = stamp(&path, &file.digest) else {
                missing.push(file);
                continue;
            };
            if now.size == file.size && seen.get(&file.path) == Some(&now) {
                continue;
            }
            let right = now.size == file.size && self.hash(&path, file, monitor)? == file.digest;
            if right {
                self.remember(file)?;
            } else {
                fs::remove_file(&path).map_err(FetchError::io("remove", &path))?;
                missing.push(file);
            }
        }
        Ok(missing)
    }

    /// Starts (or takes up again) writing `file`. `resume` keeps what an interrupted run left.
    pub fn writer(&self, file: &Wanted, resume: bool) -> Result<Writer, FetchError> {
        let target = self.path(&file.path);
        let part = self.path(&format!("{}.part", file.path));
        if let Some(parent) = part.parent() {
            fs::create_dir_all(parent).map_err(FetchError::io("create", parent))?;
        }
        let mut hasher = Hasher::new(&file.digest, file.size);
        let mut done = 0;
        if resume && let Ok(mut old) = File::open(&part) {
            let mut chunk = vec![0; 1 << 20];
            loop {
                let n = old.read(&mut chunk).map_err(FetchError::io("read", &part))?;
                if n == 0 {
                    break;
                }
                hasher.update(&chunk[..n]);
                done += n as u64;
            }
        }
        if done > file.size {
            // Longer than the file can be: left by something else.
            (hasher, done) = (Hasher::new(&file.digest, file.size), 0);
        }
        let out = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(done == 0)
            .append(done > 0)
            .open(&part)
            .map_err(FetchError::io("create", &part))?;
        Ok(Writer { file: file.clone(), part, target, out, hasher, done })
    }

    /// Records that `file` was verified as it lies on disk now.
    pub fn remember(&self, file: &Wanted) -> Result<(), FetchError> {
        let mut seen = self.read_verified();
        if let Some(now) = stamp(&self.path(&file.path), &file.digest) {
            seen.insert(file.path.clone(), now);
        }
        let text = serde_json::to_vec_pretty(&seen).map_err(|e| ManifestError(e.to_string()))?;
        let (path, part) = (self.path("verified.json"), self.path("verified.json.part"));
        fs::write(&part, text).map_err(FetchError::io("write", &part))?;
        fs::rename(&part, &path).map_err(FetchError::io("rename", &path))
    }

    fn read_verified(&self) -> BTreeMap<String, Verified> {
        // Unreadable notes cost a rehash, nothing else.
        fs::read(self.path("verified.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    fn hash(&self, path: &Path, file: &Wanted, monitor: &Monitor) -> Result<Digest, FetchError> {
        let mut from = File::open(path).map_err(FetchError::io("open", path))?;
        let mut hasher = Hasher::new(&file.digest, file.size);
        let mut chunk = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            let n = from.read(&mut chunk).map_err(FetchError::io("read", path))?;
            if n == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&chunk[..n]);
            done += n as u64;
            monitor.step(&format!("verifying {}", file.path), done, file.size, Unit::Bytes)?;
        }
    }
}

fn stamp(path: &Path, digest: &Digest) -> Option<Verified> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Verified { digest: digest.clone(), size: meta.len(), modified_ns: modified.as_nanos() })
}

/// A file being written beside its final name.
pub struct Writer {
    file: Wanted,
    part: PathBuf,
    target: PathBuf,
    out: File,
    hasher: Hasher,
    done: u64,
}

impl Writer {
    /// Bytes written so far, counting those of an interrupted run.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.out.write_all(bytes).map_err(FetchError::io("write", &self.part))?;
        self.hasher.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what was written, to begin again.
    pub fn restart(&mut self) -> Result<(), FetchError> {
        self.out = File::create(&self.part).map_err(FetchError::io("create", &self.part))?;
        self.hasher = Hasher::new(&self.file.digest, self.file.size);
        self.done = 0;
        Ok(())
    }

    /// Verifies the digest and moves the file into place; a wrong one is removed.
    pub fn finish(self, folder: &Folder) -> Result<(), FetchError> {
        let found = self.hasher.finish();
        if self.done != self.file.size || found != self.file.digest {
            drop(self.out);
            fs::remove_file(&self.part).map_err(FetchError::io("remove", &self.part))?;
            return Err(FetchError::Checksum {
                file: self.file.path,
                expected: format!("{} ({} bytes)", self.file.digest, self.file.size),
                found: format!("{found} ({} bytes)", self.done),
            });
        }
        self.out.sync_all().map_err(FetchError::io("write", &self.part))?;
        drop(self.out);
        fs::rename(&self.part, &self.target).map_err(FetchError::io("rename", &self.target))?;
        folder.remember(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(contents: &[u8]) -> Digest {
        let mut hasher = Hasher::new(&Digest::Sha256(String::new()), contents.len() as u64);
        hasher.update(contents);
        hasher.finish()
    }

    fn wanted(contents: &[u8]) -> Wanted {
        Wanted { path: "sub/file.bin".into(), size: contents.len() as u64, digest: digest(contents) }
    }

    #[test]
    fn a_file_is_resumed_verified_and_an_edit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::lock(dir.path().join("m"), &Monitor::none()).unwrap();
        let file = wanted(b"hello world");
        let files = [file.clone()];
        assert_eq!(folder.missing(&files, &Monitor::none()).unwrap().len(), 1);

        let mut writer = folder.writer(&file, true).unwrap();
        writer.write(b"hello ").unwrap();
        drop(writer); // an interruption
        let mut writer = folder.writer(&file, true).unwrap();
        assert_eq!(writer.done(), 6);
        writer.write(b"world").unwrap();
        writer.finish(&folder).unwrap();
        assert_eq!(folder.missing(&files, &Monitor::none()).unwrap().len(), 0);
        assert!(!folder.path("sub/file.bin.part").exists());

        fs::write(folder.path("sub/file.bin"), b"hello w0rld").unwrap();
        assert_eq!(folder.missing(&files, &Monitor::none()).unwrap().len(), 1);
    }

    #[test]
    fn wrong_contents_never_reach_the_final_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::lock(dir.path().join("m"), &Monitor::none()).unwrap();
        let file = wanted(b"hello world");
        let mut writer = folder.writer(&file, true).unwrap();
        writer.write(b"hello w0rld").unwrap();
        let error = writer.finish(&folder).unwrap_err().to_string();
        assert!(error.contains("sub/file.bin") && error.contains("sha256"), "{error}");
        assert!(!folder.path("sub/file.bin").exists() && !folder.path("sub/file.bin.part").exists());
    }

    #[test]
    fn git_blob_ids_are_what_git_says() {
        // `printf 'hello world' | git hash-object --stdin`
        let mut hasher = Hasher::new(&Digest::GitBlob(String::new()), 11);
        hasher.update(b"hello world");
        assert_eq!(hasher.finish(), Digest::GitBlob("95d09f2b10159347eece71399a7e2e907ea3df4f".into()));
    }

    #[test]
    fn a_second_process_waits_until_it_is_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let _held = Folder::lock(dir.path().join("m"), &Monitor::none()).unwrap();
        let monitor = Monitor::none();
        monitor.cancel().cancel();
        let again = Folder::lock(dir.path().join("m"), &monitor);
        assert!(matches!(again, Err(FetchError::Cancelled(_))));
    }
}
