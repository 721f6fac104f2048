//! Models from the Hugging Face Hub, through the `hf-hub` crate.
//!
//! In: `org/name[@revision][:file]`. Out: a folder (or the named file) with the model's weights, configuration and
//! tokenizer, verified against the digests the Hub publishes: SHA-256 for large files, git's blob id for small ones.
//! `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME` and `HF_HUB_OFFLINE` mean what they mean to Hugging Face's own
//! tools. Downloads are read in ranges, so an interrupted one continues where it stopped.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use hf_hub::repository::{HFRepository, RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClient, HFError};
use serde::{Deserialize, Serialize};
use tersor_engine::progress::{Monitor, Unit};

use super::cache::{Folder, Wanted};
use super::{FetchError, Options, cache_dir, manifest, wanted};
use crate::digest::Digest;
use crate::hub_id::{HubId, choose};

/// Attempts in a row that may bring no byte before a download is given up.
const ATTEMPTS: u32 = 4;

/// What was chosen of a repository at a commit; kept beside the files, so that they are found again without a network.
#[derive(Serialize, Deserialize)]
struct Selection {
    open: String,
    files: Vec<Wanted>,
}

/// Fetches a model by its id and returns what to open.
pub fn fetch(id: &HubId, options: &Options) -> Result<PathBuf, FetchError> {
    let base = cache_dir(options)?.join("hub").join(id.repo.replace('/', "--"));
    let reference = base.join("refs").join(id.revision().replace(['/', '\\'], "--"));
    let offline = std::env::var_os("HF_HUB_OFFLINE").is_some_and(|v| !v.is_empty() && v != "0");
    let hub = Hub::new(&id.repo)?;

    let known = if is_commit(id.revision()) {
        Some(id.revision().to_owned())
    } else {
        fs::read_to_string(&reference).ok().filter(|commit| is_commit(commit))
    };
    // A commit never changes: what is complete needs no network. A branch is looked up when it can be.
    let commit = match known {
        Some(commit) if offline || is_commit(id.revision()) => commit,
        None if offline => {
            return Err(hub.error(
                "it is not in the cache and HF_HUB_OFFLINE is set".to_owned(),
                "unset HF_HUB_OFFLINE to download it",
            ));
        }
        known => match hub.block_on(hub.commit(id.revision()), &options.monitor)? {
            Ok(commit) => commit,
            Err(error) => match known {
                Some(commit) if is_interruption(&error) => commit,
                _ => return Err(hub.describe(&error)),
            },
        },
    };

    let folder = Folder::lock(base.join(&commit), &options.monitor)?;
    let note = folder.path(&match &id.file {
        None => "selection.json".to_owned(),
        Some(file) => format!("selection-{}.json", file.replace('/', "--")),
    });
    let noted = fs::read(&note).ok().and_then(|b| serde_json::from_slice(&b).ok());
    let selection: Selection = match noted {
        Some(selection) => selection,
        None => hub.block_on(hub.select(&commit, id.file.as_deref()), &options.monitor)??,
    };
    let pairs: Vec<(&Wanted, &str)> = folder
        .missing(&selection.files, &options.monitor)?
        .into_iter()
        .map(|want| (want, want.path.as_str()))
        .collect();
    hub.download_all(&commit, &pairs, &folder, &options.monitor)?;
    write(&note, &serde_json::to_vec_pretty(&selection).unwrap_or_default())?;
    if !is_commit(id.revision()) {
        write(&reference, commit.as_bytes())?;
    }
    Ok(match selection.open.as_str() {
        "." => folder.dir().to_owned(),
        file => folder.path(file),
    })
}

/// Fetches the files of a manifest entry into `dir`, and returns `dir`.
pub fn fetch_files(
    id: &HubId,
    files: &[manifest::File],
    dir: PathBuf,
    options: &Options,
) -> Result<PathBuf, FetchError> {
    let folder = Folder::lock(dir, &options.monitor)?;
    let all = wanted(files);
    let missing = folder.missing(&all, &options.monitor)?;
    let pairs: Vec<(&Wanted, &str)> = missing
        .into_iter()
        .filter_map(|want| Some((want, files.iter().find(|f| f.path == want.path)?.member())))
        .collect();
    if !pairs.is_empty() {
        Hub::new(&id.repo)?.download_all(id.revision(), &pairs, &folder, &options.monitor)?;
    }
    Ok(folder.dir().to_owned())
}

fn write(path: &std::path::Path, bytes: &[u8]) -> Result<(), FetchError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(FetchError::io("create", parent))?;
    }
    fs::write(path, bytes).map_err(FetchError::io("write", path))
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// One repository, with the runtime its requests run on.
struct Hub {
    name: String,
    repo: HFRepository<RepoTypeModel>,
    endpoint: String,
    token: Option<String>,
    runtime: tokio::runtime::Runtime,
}

impl Hub {
    fn new(name: &str) -> Result<Self, FetchError> {
        let failed = |what: String| FetchError::Hub {
            repo: name.to_owned(),
            what,
            remedy: "check HF_ENDPOINT, which must be an http(s) address",
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(e.to_string()))?;
        let token = token();
        let mut builder = HFClient::builder().cache_enabled(false);
        if let Some(token) = &token {
            builder = builder.token(token);
        }
        let client = builder.build().map_err(|e| failed(e.to_string()))?;
        let (owner, repo) = hf_hub::split_id(name);
        Ok(Self {
            name: name.to_owned(),
            repo: client.model(owner, repo),
            endpoint: client.endpoint().trim_end_matches('/').to_owned(),
            token,
            runtime,
        })
    }

    /// Runs a request, looking ten times a second whether it was cancelled.
    fn block_on<T>(&self, work: impl Future<Output = T>, monitor: &Monitor) -> Result<T, FetchError> {
        self.runtime.block_on(async {
            let mut work = pin!(work);
            loop {
                monitor.check()?;
                if let Ok(done) = tokio::time::timeout(Duration::from_millis(100), &mut work).await {
                    return Ok(done);
                }
            }
        })
    }

    /// The commit that a branch or tag stands for.
    async fn commit(&self, revision: &str) -> Result<String, HFError> {
        let info = self.repo.info().revision(revision).send().await?;
        info.sha
            .filter(|sha| is_commit(sha))
            .ok_or_else(|| HFError::Other(format!("the server names no commit for {revision:?}")))
    }

    /// Chooses the files that make up the model, with their digests.
    async fn select(&self, commit: &str, file: Option<&str>) -> Result<Selection, FetchError> {
        let stream = self.repo.list_tree().revision(commit).recursive(true).send().map_err(|e| self.describe(&e))?;
        let mut stream = pin!(stream);
        let mut entries = Vec::new();
        while let Some(entry) = stream.next().await {
            if let RepoTreeEntry::File { oid, size, path, lfs, .. } = entry.map_err(|e| self.describe(&e))?
                && manifest::is_inside(&path)
            {
                entries.push((path, size, oid, lfs));
            }
        }
        let paths: Vec<&str> = entries.iter().map(|e| e.0.as_str()).collect();
        let (open, chosen) = choose(&paths, file)
            .map_err(|what| self.error(what, "name another repository, or one of its files as org/name:file"))?;
        let mut files = Vec::new();
        for (path, size, oid, lfs) in &entries {
            if !chosen.contains(&path.as_str()) {
                continue;
            }
            let digest = match lfs {
                None => Digest::GitBlob(oid.clone()),
                Some(lfs) => Digest::Sha256(match &lfs.sha256 {
                    Some(sha256) => sha256.clone(),
                    None => self.linked_sha256(commit, path).await?,
                }),
            };
            files.push(Wanted { path: path.clone(), size: *size, digest });
        }
        Ok(Selection { open, files })
    }

    /// SHA-256 of a large file: the `X-Linked-Etag` that the Hub sends with its redirect to the storage.
    ///
    /// hf-hub follows that redirect and so never shows the header; this asks for it without following to other hosts.
    async fn linked_sha256(&self, commit: &str, path: &str) -> Result<String, FetchError> {
        let failed = |what: String| self.error(what, "try again, or give the path of a file downloaded by other means");
        let mut url = reqwest::Url::parse(&self.endpoint).map_err(|e| failed(e.to_string()))?;
        url.path_segments_mut()
            .map_err(|()| failed("the endpoint is no base address".to_owned()))?
            .pop_if_empty()
            .extend(self.name.split('/'))
            .extend(["resolve", commit])
            .extend(path.split('/'));
        let same_host = reqwest::redirect::Policy::custom(|attempt| {
            let origin = attempt.previous().first().map(reqwest::Url::origin);
            if origin == Some(attempt.url().origin()) && attempt.previous().len() < 5 {
                attempt.follow()
            } else {
                attempt.stop()
            }
        });
        let client = reqwest::Client::builder().redirect(same_host).build().map_err(|e| failed(e.to_string()))?;
        let mut request = client.head(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|e| failed(e.to_string()))?;
        ["x-linked-etag", "etag"]
            .iter()
            .filter_map(|name| response.headers().get(*name)?.to_str().ok())
            .map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase())
            .find(|etag| etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit()))
            .ok_or_else(|| failed(format!("the server does not say what {path} must hash to")))
    }

    fn download_all(
        &self,
        revision: &str,
        files: &[(&Wanted, &str)],
        folder: &Folder,
        monitor: &Monitor,
    ) -> Result<(), FetchError> {
        for (want, member) in files {
            self.block_on(self.download(revision, want, member, folder, monitor), monitor)??;
        }
        Ok(())
    }

    /// Downloads one file, continuing after interruptions of this run and of earlier ones.
    async fn download(
        &self,
        revision: &str,
        want: &Wanted,
        member: &str,
        folder: &Folder,
        monitor: &Monitor,
    ) -> Result<(), FetchError> {
        let stage = format!("downloading {} of {}", want.path, self.name);
        let mut writer = folder.writer(want, true)?;
        let mut failures = 0;
        while writer.done() < want.size {
            let start = writer.done();
            let request =
                self.repo.download_file_stream().filename(member).revision(revision).range(start..want.size).send();
            let error = match request.await {
                Ok((length, mut stream)) => {
                    if start > 0 && length == Some(want.size) {
                        writer.restart()?; // the server ignored the range and sends the whole file
                    }
                    loop {
                        match stream.next().await {
                            Some(Ok(bytes)) => {
                                writer.write(&bytes)?;
                                let done = writer.done().min(want.size);
                                monitor.step(&stage, done, want.size, Unit::Bytes)?;
                            }
                            Some(Err(error)) => break Some(error),
                            None => break None,
                        }
                    }
                }
                Err(error) => Some(error),
            };
            if writer.done() > start {
                failures = 0;
                continue;
            }
            failures += 1;
            if failures >= ATTEMPTS || error.as_ref().is_some_and(|e| !is_interruption(e)) {
                return Err(match error {
                    Some(error) => self.describe(&error),
                    None => self.error(
                        format!("{} ended after {start} of {} bytes", want.path, want.size),
                        "fetch again: it continues where it stopped",
                    ),
                });
            }
            tokio::time::sleep(Duration::from_millis(250 << failures)).await;
        }
        writer.finish(folder)
    }

    fn error(&self, what: String, remedy: &'static str) -> FetchError {
        FetchError::Hub { repo: self.name.clone(), what, remedy }
    }

    fn describe(&self, error: &HFError) -> FetchError {
        let (what, remedy) = match error {
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => (
                "access was refused".to_owned(),
                "accept the model's terms on its page and set HF_TOKEN to a token that may read it",
            ),
            HFError::RepoNotFound { .. } => {
                ("there is no such repository, or it is private".to_owned(), "check the spelling, or set HF_TOKEN")
            }
            HFError::RevisionNotFound { revision, .. } => {
                (format!("it has no revision {revision:?}"), "leave the revision out for the default branch")
            }
            HFError::RateLimited { .. } => ("the server asks to slow down".to_owned(), "wait, or set HF_TOKEN"),
            error if is_interruption(error) => (
                format!("{} cannot be reached ({})", self.endpoint, cause(error)),
                "check the network or HF_ENDPOINT; fetching again continues where it stopped",
            ),
            error => (error.to_string(), "try again later, or give the path of a file downloaded by other means"),
        };
        self.error(what, remedy)
    }
}

/// What lies at the bottom of an error: those above it repeat the address.
fn cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => cause(source),
        None => error.to_string(),
    }
}

/// Whether the connection or the server failed for now, rather than the server saying no.
fn is_interruption(error: &HFError) -> bool {
    match error {
        HFError::Request { .. } | HFError::Io(_) | HFError::Xet { .. } => true,
        HFError::Http { context } => context.status.is_server_error() || context.status.as_u16() == 408,
        _ => false,
    }
}

/// The user's access token, looked up where Hugging Face's tools look.
fn token() -> Option<String> {
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    if var("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
        return None;
    }
    let file = || {
        let path = var("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| {
            let home = var("HF_HOME").map(PathBuf::from).or_else(|| {
                Some(PathBuf::from(var("HOME").or_else(|| var("USERPROFILE"))?).join(".cache/huggingface"))
            });
            Some(home?.join("token"))
        })?;
        let text = fs::read_to_string(path).ok()?.trim().to_owned();
        Some(text).filter(|t| !t.is_empty())
    };
    var("HF_TOKEN").or_else(file)
}
