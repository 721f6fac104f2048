//! Peers that are programs of their own (`benches/peers/*/src/main.rs` say how they are spoken to): they wait while others run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Contender, Error, Problem};

/// A running peer. It ends when its input does.
pub struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    folder: PathBuf,
    version: String,
}

/// Builds a project of `benches/peers` and starts it on the problem.
pub fn start(project: &str, problem: &Problem, adapter: &str, work: &Path) -> Result<Peer, Error> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(project).join("Cargo.toml");
    let target = work.join(project);
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--quiet", "--manifest-path"]).arg(&manifest).arg("--target-dir").arg(&target);
    let built = build.output()?;
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        let first = said.lines().find(|line| line.starts_with("error")).unwrap_or("cargo build failed");
        return Err(format!("it cannot be built: {first}").into());
    }
    let folder = work.join(format!("{project}-data"));
    std::fs::create_dir_all(&folder)?;
    for (name, values) in [("w.f32", &problem.w), ("x.f32", &problem.x)] {
        std::fs::write(folder.join(name), values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    let program = target.join("release").join(format!("tersor-peer-{}", project.replace('_', "-")));
    let mut child = Command::new(program)
        .arg(&folder)
        .args([problem.rows.to_string(), problem.cols.to_string(), adapter.to_owned()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().ok_or("no output")?);
    let input = child.stdin.take();
    let version = version(&manifest, &project.replace('_', "-"));
    let mut peer = Peer { child, input, output, folder, version };
    match peer.line()?.as_str() {
        "ready" => Ok(peer),
        other => Err(format!("it said {other:?} instead of ready").into()),
    }
}

/// The version that cargo chose.
fn version(manifest: &Path, package: &str) -> String {
    let lock = std::fs::read_to_string(manifest.with_file_name("Cargo.lock")).unwrap_or_default();
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"")));
    let line = entry.and_then(|entry| entry.lines().find_map(|line| line.strip_prefix("version = ")));
    line.map_or_else(|| "unknown".to_owned(), |version| version.trim_matches('"').to_owned())
}

impl Peer {
    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("it ended; what it said is above".into());
        }
        Ok(line.trim().to_owned())
    }

    fn ask(&mut self, what: &str) -> Result<String, Error> {
        let input = self.input.as_mut().ok_or("it has ended")?;
        writeln!(input, "{what}")?;
        input.flush()?;
        self.line()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.input = None;
        // It ends by itself then; what it ends with concerns nobody any more.
        let _ = self.child.wait();
    }
}

/// A peer with one of its kernels.
pub struct Kernel {
    peer: Peer,
    engine: &'static str,
    kernel: &'static str,
}

impl Kernel {
    pub fn new(peer: Peer, engine: &'static str, kernel: &'static str) -> Self {
        Self { peer, engine, kernel }
    }
}

impl Contender for Kernel {
    fn name(&self) -> String {
        format!("{} {}", self.engine, self.kernel)
    }

    fn version(&self) -> String {
        self.peer.version.clone()
    }

    fn run(&mut self, count: u32) -> Result<f64, Error> {
        Ok(self.peer.ask(&format!("run {} {count}", self.kernel))?.parse()?)
    }

    fn result(&mut self) -> Result<Vec<f32>, Error> {
        self.peer.ask(&format!("result {}", self.kernel))?;
        let bytes = std::fs::read(self.peer.folder.join("y.f32"))?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}
