//! Models of the Hugging Face Hub, downloaded into the browser's storage when a person asks for one.
//!
//! In: `org/name[@revision][:file]`. Out: a whole folder of [`Storage`], its files checked against the digests that the Hub publishes:
//! SHA-256 for large files, git's blob id for small ones. An interrupted download continues where it stopped.

use serde::Deserialize;
use tersor_engine::progress::{Progress, Unit};

use super::files::{Stop, Switch, get, pieces, text};
use super::storage::{Folder, Storage};
use crate::digest::{Digest, Hasher};
use crate::hub_id::{HubId, choose};
use crate::manifest;

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    oid: String,
    size: u64,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    oid: String,
}

/// A file that is wanted.
struct Wanted {
    path: String,
    size: u64,
    digest: Digest,
}

/// Downloads a model from the Hub at `hub`, an address without a slash at its end, and puts it under `name`.
pub async fn download(
    hub: &str,
    id: &HubId,
    name: &str,
    storage: &Storage,
    switch: &Switch,
    report: impl Fn(Progress),
) -> Result<(), Stop> {
    let wanted = list(hub, id, switch).await?;
    let folder = storage.begin(name).await?;
    let total = wanted.iter().map(|file| file.size).sum();
    let mut before = 0;
    for file in &wanted {
        let stage = format!("downloading {}", file.path);
        let step = |done| report(Progress { stage: stage.clone(), done: before + done, total, unit: Unit::Bytes });
        fetch(&format!("{hub}/{}/resolve/{}/{}", id.repo, id.revision(), file.path), file, &folder, switch, step)
            .await?;
        before += file.size;
    }
    Ok(folder.finish(name, wanted.into_iter().map(|file| (local(&file.path), file.size)).collect()).await?)
}

/// The files of a model, with their digests.
async fn list(hub: &str, id: &HubId, switch: &Switch) -> Result<Vec<Wanted>, Stop> {
    let address = format!("{hub}/api/models/{}/tree/{}?recursive=true", id.repo, id.revision());
    let answer = get(&address, 0, switch).await?;
    if !answer.ok() {
        return Err(match answer.status() {
            401 | 403 | 404 => format!(
                "{}: there is no such repository, or it is not public. Check the spelling, or download it with `tersor fetch` \
                 and open the file",
                id.repo
            ),
            status => format!("{}: the Hub answers with status {status}; try again later", id.repo),
        }
        .into());
    }
    let entries: Vec<Entry> = serde_json::from_str(&text(&answer).await?)
        .map_err(|error| format!("{}: the Hub's list of files cannot be read: {error}", id.repo))?;
    // Files in folders are none that the engine reads, and would be taken for those of the same names beside the weights.
    let sound = |entry: &Entry| entry.kind == "file" && manifest::is_inside(&entry.path);
    let entries: Vec<Entry> = entries.into_iter().filter(sound).collect();
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    let (_, chosen) = choose(&paths, id.file.as_deref()).map_err(|what| {
        format!("{}: {what}; name another repository, or one of its files as org/name:file", id.repo)
    })?;
    let chosen: Vec<String> =
        chosen.into_iter().filter(|path| id.file.is_some() || !path.contains('/')).map(str::to_owned).collect();
    let wanted = entries.into_iter().filter(|entry| chosen.contains(&entry.path));
    Ok(wanted
        .map(|entry| Wanted {
            digest: match entry.lfs {
                Some(large) => Digest::Sha256(large.oid),
                None => Digest::GitBlob(entry.oid),
            },
            path: entry.path,
            size: entry.size,
        })
        .collect())
}

/// What a file is called in the storage, where folders in its path are part of its name.
fn local(path: &str) -> String {
    path.replace('/', "--")
}

/// Downloads one file, continuing what is there, and checks it.
async fn fetch(address: &str, file: &Wanted, folder: &Folder, switch: &Switch, step: impl Fn(u64)) -> Result<(), Stop> {
    let mut writer = folder.write(&local(&file.path)).await?;
    if writer.size() > file.size {
        writer.clear()?;
    }
    step(writer.size());
    if writer.size() < file.size {
        let answer = get(address, writer.size(), switch).await?;
        match answer.status() {
            206 => {}
            // The whole file, whatever was asked for.
            200 => writer.clear()?,
            status => {
                return Err(format!("{}: the Hub answers with status {status}; try again later", file.path).into());
            }
        }
        pieces(&answer, switch, |piece| {
            writer.put(piece)?;
            step(writer.size().min(file.size));
            Ok(())
        })
        .await?;
    }
    let mut hasher = Hasher::new(&file.digest, file.size);
    writer.read(|bytes| hasher.update(bytes))?;
    let found = hasher.finish();
    if writer.size() != file.size || found != file.digest {
        let size = writer.size();
        writer.clear()?; // so that trying again begins anew
        return Err(format!(
            "{} did not arrive as published: expected {} and {} bytes, got {found} and {size}; try again",
            file.path, file.digest, file.size
        )
        .into());
    }
    Ok(())
}
