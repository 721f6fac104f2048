//! What the app talks to. Natively the engine works on a thread, in a browser in a Web Worker; the app sees a [`Client`].

use std::fmt;
use std::sync::OnceLock;

use eframe::egui::DroppedFileHandle;
use serde::{Deserialize, Serialize};
use tersor_engine::session::{Command, Event, JobId};
use web_time::Instant;

use super::library::Origin;

/// A model that can be had by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// One sentence about it.
    pub description: String,
    /// Its licence.
    pub license: String,
    /// Bytes to fetch; 0 where it is part of the program.
    pub bytes: u64,
    /// Why it cannot be had here, and what to do instead.
    pub unavailable: Option<String>,
}

/// A model that a browser keeps for this page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What [`Client::fetch`] calls it.
    pub name: String,
    /// What it takes.
    pub bytes: u64,
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum Happening {
    /// Something happened to a job.
    Event(Event),
    /// A person chose a model's files, which can be named in commands from now on.
    Opened(Origin),
    /// A person chose a report: its file's name, and what is in it.
    Report(String, Vec<u8>),
    /// What a browser keeps for this page, now.
    Stored(Vec<Kept>),
    /// A person chose something that cannot be used.
    Refused(String),
    /// A file could not be written, or a report not be read: why.
    NotSaved(String),
}

/// The engine's session, and what belongs to the place it runs in.
pub trait Client {
    /// Models that can be had by name.
    fn known(&self) -> Vec<Known>;

    /// Whether [`Client::fetch`] also takes Hugging Face ids, and natively paths, as the command line does.
    fn fetches_anything(&self) -> bool;

    /// Queues a command; models in it are named by [`Origin::source`].
    fn send(&mut self, command: Command) -> JobId;

    /// Gets a model of the manifest, if need be from the network. Its events are those of any job; when it is done, commands can
    /// name the model.
    fn fetch(&mut self, name: &str) -> JobId;

    /// Deletes a model that a browser keeps; a [`Happening::Stored`] follows. Natively there is none.
    fn forget(&mut self, _name: &str) {}

    /// Asks a job to stop.
    fn cancel(&mut self, job: JobId);

    /// Lets a person choose a file; a [`Happening::Opened`] follows, if they do.
    fn pick(&mut self);

    /// Lets a person choose a report; a [`Happening::Report`] follows, if they do.
    fn pick_report(&mut self);

    /// Lets a person choose where to keep a file of this name; a browser puts it with the downloads.
    fn save(&mut self, name: &str, bytes: Vec<u8>);

    /// Draws a plot (SVG) and saves the picture as [`Client::save`] does.
    fn save_picture(&mut self, name: &str, svg: String);

    /// Takes files that were dropped on the window; a [`Happening::Opened`] or a [`Happening::Report`] follows.
    fn take(&mut self, files: Vec<DroppedFileHandle>);

    /// The next thing that happened, if any. Whatever happens wakes the window.
    fn next(&mut self) -> Option<Happening>;

    /// Seconds since some moment.
    fn now(&mut self) -> f64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_secs_f64()
    }
}

impl fmt::Debug for dyn Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// Whether a file that was chosen or dropped by itself is read as a report: JSON that is no part of a Hugging Face model.
pub fn is_report(name: &str) -> bool {
    let of_models = ["config.json", "index.json", "tokenizer.json", "vocab.json", "special_tokens_map.json"];
    name.to_ascii_lowercase().ends_with(".json") && !of_models.iter().any(|part| name.ends_with(part))
}

/// The manifest's models, each with why it cannot be had here, if it cannot.
pub fn known(unavailable: impl Fn(&crate::manifest::Model) -> Option<String>) -> Vec<Known> {
    let describe = |model: crate::manifest::Model| Known {
        unavailable: unavailable(&model),
        bytes: match &model.source {
            crate::manifest::Source::Embedded { .. } => 0,
            _ => model.files.iter().map(|file| file.size).sum(),
        },
        name: model.name,
        description: model.description,
        license: model.license,
    };
    // The manifest is part of the program, and a test reads it.
    crate::manifest::models().unwrap_or_default().into_iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_models_is_no_report() {
        assert!(["report.json", "Tiny compressed.JSON"].into_iter().all(is_report));
        let models = ["model.safetensors.index.json", "config.json", "generation_config.json", "report.html", "json"];
        assert!(!models.into_iter().any(is_report));
    }
}
