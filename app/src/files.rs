//! Files that appear under their names only when they are whole.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Writes a file beside its name and renames it, so that nobody sees half of it. What was there before stays if that fails.
///
/// # Errors
/// If it cannot be written, or not be renamed.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut part = OsString::from(path);
    part.push(".part");
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        // It may never have been made.
        let _ = std::fs::remove_file(&part);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.html");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        // A folder of that name cannot be replaced.
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        assert!(write(&taken, b"three").is_err());
        assert!(write(&dir.path().join("nowhere/report.html"), b"four").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left over");
    }
}
