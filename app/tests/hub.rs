//! `tersor fetch org/name` against a server on this machine that speaks as much of the Hub's protocol as a download needs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha1::Sha1;
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository with one large (LFS) file and two small ones, and a log of what was asked.
#[derive(Default)]
struct Repository {
    files: BTreeMap<&'static str, Vec<u8>>,
    /// The large file's published digest, when it is to differ from its contents.
    lie: bool,
    /// Break the connection once, after this many bytes of a body.
    break_after: Option<usize>,
    /// Never finish the large file's body.
    stall: bool,
    log: Vec<String>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

impl Repository {
    fn sha256(&self, path: &str) -> String {
        let mut digest = hex(&Sha256::digest(&self.files[path]));
        if self.lie {
            digest.replace_range(0..1, if digest.starts_with('0') { "1" } else { "0" });
        }
        digest
    }

    fn tree(&self) -> String {
        let entries: Vec<String> = self
            .files
            .iter()
            .map(|(path, contents)| {
                let size = contents.len();
                let id = hex(&Sha1::new().chain_update(format!("blob {size}\0")).chain_update(contents).finalize());
                let lfs = if is_large(path) {
                    format!(r#","lfs":{{"oid":"{}","size":{size},"pointerSize":134}}"#, self.sha256(path))
                } else {
                    String::new()
                };
                format!(r#"{{"type":"file","oid":"{id}","size":{size},"path":"{path}"{lfs}}}"#)
            })
            .collect();
        format!("[{}]", entries.join(","))
    }
}

struct Server {
    address: String,
    repository: Arc<Mutex<Repository>>,
}

impl Server {
    fn start(repository: Repository) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let repository = Arc::new(Mutex::new(repository));
        let shared = repository.clone();
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                std::thread::spawn(move || answer(stream.unwrap(), &shared));
            }
        });
        Self { address, repository }
    }

    fn fetch(&self, name: &str, cache: &Path, token: Option<&str>) -> Output {
        self.command(name, cache, token).output().unwrap()
    }

    fn command(&self, name: &str, cache: &Path, token: Option<&str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tersor"));
        command
            .args(["fetch", name])
            .env("HF_ENDPOINT", &self.address)
            .env("TERSOR_CACHE", cache)
            .env("HF_HUB_DISABLE_IMPLICIT_TOKEN", if token.is_some() { "" } else { "1" })
            .env("NO_PROXY", "127.0.0.1")
            .env_remove("HF_HUB_OFFLINE");
        match token {
            Some(token) => command.env("HF_TOKEN", token),
            None => command.env_remove("HF_TOKEN"),
        };
        command
    }
}

/// Answers one request and closes the connection.
fn answer(mut stream: TcpStream, repository: &Mutex<Repository>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let Some(request) = head.first().cloned() else { return };
    let range = head.iter().find_map(|l| l.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let authorized = head.iter().any(|l| l.eq_ignore_ascii_case("authorization: Bearer secret"));
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap().split('?').next().unwrap());

    let mut repo = repository.lock().unwrap();
    repo.log.push(format!("{method} {path}{}", range.as_deref().map(|r| format!(" {r}")).unwrap_or_default()));
    let mut send = |status: &str, headers: &str, body: &[u8], promised: usize| {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {promised}\r\nconnection: close\r\n{headers}\r\n");
        // The client may be gone, when the test is about interruptions.
        let _ = stream.write_all(head.as_bytes());
        if method != "HEAD" {
            let _ = stream.write_all(body);
        }
    };
    if path.starts_with("/api/models/org/gated") && !authorized {
        return send("401 Unauthorized", "", b"", 0);
    }
    let path = path.replace("/gated", "/model");
    let json = "content-type: application/json\r\n";
    if path == "/api/models/org/model/revision/main" {
        let body = format!(r#"{{"_id":"1","id":"org/model","modelId":"org/model","sha":"{COMMIT}"}}"#);
        return send("200 OK", json, body.as_bytes(), body.len());
    }
    if path == format!("/api/models/org/model/tree/{COMMIT}") {
        let body = repo.tree();
        return send("200 OK", json, body.as_bytes(), body.len());
    }
    let Some(file) = path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/")) else {
        return send("404 Not Found", "", b"", 0);
    };
    let Some(contents) = repo.files.get(file).cloned() else {
        return send("404 Not Found", "", b"", 0);
    };
    let etag = if is_large(file) { repo.sha256(file) } else { "small".to_owned() };
    let marks = format!("x-repo-commit: {COMMIT}\r\nx-linked-etag: \"{etag}\"\r\netag: \"{etag}\"\r\n");
    let (start, end) = match &range {
        None => (0, contents.len()),
        Some(range) => {
            let (start, last) = range.split_once('-').unwrap();
            (start.parse().unwrap(), last.parse::<usize>().unwrap() + 1)
        }
    };
    let body = &contents[start..end];
    let sent = match repo.break_after {
        Some(limit) if method == "GET" && is_large(file) => {
            repo.break_after = None;
            &body[..limit.min(body.len())]
        }
        _ => body,
    };
    let stall = repo.stall && method == "GET" && is_large(file);
    let sent = if stall { &body[..body.len() / 2] } else { sent };
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    send(status, &marks, sent, body.len());
    drop(repo);
    if stall {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn repository() -> Repository {
    Repository {
        files: BTreeMap::from([
            ("config.json", b"{\"hidden_size\": 64}".to_vec()),
            ("tokenizer.json", b"{}".to_vec()),
            ("README.md", b"not wanted".to_vec()),
            ("model.safetensors", (0..300_000u32).flat_map(u32::to_le_bytes).collect()),
        ]),
        ..Repository::default()
    }
}

fn path_of(output: &Output) -> std::path::PathBuf {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    text.trim().into()
}

#[test]
fn a_model_is_fetched_verified_and_found_again_without_the_server() {
    let server = Server::start(repository());
    let cache = tempfile::tempdir().unwrap();
    let folder = path_of(&server.fetch("org/model", cache.path(), None));
    let repo = server.repository.lock().unwrap();
    for (name, contents) in &repo.files {
        let found = std::fs::read(folder.join(name)).ok();
        assert_eq!(found.as_ref(), (*name != "README.md").then_some(contents), "{name}");
    }
    drop(repo);

    let gone = Server { address: "http://127.0.0.1:9".to_owned(), repository: server.repository.clone() };
    assert_eq!(path_of(&gone.fetch("org/model", cache.path(), None)), folder);
    assert_eq!(path_of(&gone.fetch(&format!("org/model@{COMMIT}"), cache.path(), None)), folder);
}

#[test]
fn an_interrupted_download_continues_where_it_stopped() {
    let server = Server::start(Repository { break_after: Some(500_000), ..repository() });
    let cache = tempfile::tempdir().unwrap();
    let folder = path_of(&server.fetch("org/model", cache.path(), None));
    let repo = server.repository.lock().unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), repo.files["model.safetensors"]);
    let starts: Vec<&String> =
        repo.log.iter().filter(|l| l.starts_with("GET") && l.contains("model.safetensors")).collect();
    assert_eq!(starts.len(), 2, "{:?}", repo.log);
    assert!(starts[0].contains(" 0-") && !starts[1].contains(" 0-"), "{starts:?}");
}

#[test]
fn contents_that_differ_from_the_published_digest_are_refused() {
    let server = Server::start(Repository { lie: true, ..repository() });
    let cache = tempfile::tempdir().unwrap();
    let output = server.fetch("org/model", cache.path(), None);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("model.safetensors did not arrive as published"), "{said}");
}

#[test]
fn a_gated_model_asks_for_a_token_and_takes_it() {
    let server = Server::start(repository());
    let cache = tempfile::tempdir().unwrap();
    let refused = server.fetch("org/gated", cache.path(), None);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("HF_TOKEN"), "{said}");
    path_of(&server.fetch("org/gated", cache.path(), Some("secret")));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_download_that_hangs_and_what_arrived_is_kept() {
    let server = Server::start(Repository { stall: true, ..repository() });
    let cache = tempfile::tempdir().unwrap();
    let mut child = server.command("org/model", cache.path(), None).stderr(Stdio::piped()).spawn().unwrap();
    let part = cache.path().join("hub/org--model").join(COMMIT).join("model.safetensors.part");
    let begin = Instant::now();
    while part.metadata().map_or(0, |m| m.len()) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "the download did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));

    server.repository.lock().unwrap().stall = false;
    let folder = path_of(&server.fetch("org/model", cache.path(), None));
    let repo = server.repository.lock().unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), repo.files["model.safetensors"]);
    let last = repo.log.iter().rfind(|l| l.starts_with("GET") && l.contains("model.safetensors")).unwrap();
    assert!(!last.contains(" 0-"), "it began again: {last}");
}

#[test]
fn a_name_nobody_knows_is_explained() {
    let server = Server::start(repository());
    let cache = tempfile::tempdir().unwrap();
    let output = server.fetch("smolm2", cache.path(), None);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no known model") && said.contains("smollm2-135m"), "{said}");
    let output = server.fetch("org/other", cache.path(), None);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("org/other") && said.contains("revision") | said.contains("repository"), "{said}");
}

#[test]
fn the_log_reader_reads() {
    // Guards the helper itself: a body must not be read as part of the head.
    let server = Server::start(repository());
    let mut stream = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET /nowhere HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 404"), "{text}");
    assert_eq!(server.repository.lock().unwrap().log, ["GET /nowhere"]);
}
