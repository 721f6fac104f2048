//! Folders for tests that write files.

use std::path::{Path, PathBuf};

/// A folder that is removed when dropped.
pub struct Folder(PathBuf);

/// Creates an empty folder in the system's temporary folder; `name` tells tests of one process apart.
pub fn folder(name: &str) -> Folder {
    let path = std::env::temp_dir().join(format!("tersor-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path); // left over by an aborted run with the same process id
    std::fs::create_dir_all(&path).expect("the temporary folder is writable");
    Folder(path)
}

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // a leftover in the temporary folder does no harm
    }
}
