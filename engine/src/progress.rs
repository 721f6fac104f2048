//! Progress and cancellation of long work.
//!
//! In: a [`Monitor`] that the caller made (or [`Monitor::none`]). Out: [`Progress`] reports while the work runs, and
//! `Err(Cancelled)` at the next [`Monitor::check`] once the caller changed its mind. Rooms that work for longer than a
//! moment (loading, encoding, generating, evaluating) take a `&Monitor` and check it between submissions, so no room
//! needs to know who is watching.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

/// What `done` and `total` of a [`Progress`] count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes of a file or an upload.
    Bytes,
    /// Tokens of a text or a reply.
    Tokens,
    /// Tensors of a model.
    Tensors,
    /// Layers of a model.
    Layers,
    /// Texts to embed.
    Texts,
    /// Evaluation windows.
    Windows,
    /// Compute pipelines.
    Pipelines,
    /// Measurements of a benchmark.
    Measurements,
}

/// How far one stage of long work has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, in words for people: "uploading weights".
    pub stage: String,
    /// Units finished, at most `total` when that is known.
    pub done: u64,
    /// Units in all; 0 when unknown.
    pub total: u64,
    /// What is counted.
    pub unit: Unit,
}

/// The work was cancelled by its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// A switch that stops work started with it. Cloning gives another handle to the same switch.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A switch that nobody has thrown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop; it does so at its next check.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Makes the switch usable for the next piece of work.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

type Sink = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Watches one piece of work: takes its reports and tells it when to stop.
#[derive(Clone, Default)]
pub struct Monitor {
    cancel: Cancel,
    sink: Option<Sink>,
}

impl Monitor {
    /// Nobody watches and nobody cancels.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reports go to `sink` (called on the working thread, so it must be quick); `cancel` stops the work.
    pub fn new(cancel: Cancel, sink: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        Self { cancel, sink: Some(Arc::new(sink)) }
    }

    /// A monitor of a part of the work: the same switch, and `name` before every stage.
    #[must_use]
    pub fn prefixed(&self, name: &str) -> Self {
        let Some(sink) = self.sink.clone() else { return self.clone() };
        let name = name.to_owned();
        Self::new(self.cancel.clone(), move |progress| {
            sink(&Progress { stage: format!("{name}: {}", progress.stage), ..progress.clone() });
        })
    }

    /// Reports progress without checking for cancellation.
    pub fn report(&self, stage: &str, done: u64, total: u64, unit: Unit) {
        if let Some(sink) = &self.sink {
            sink(&Progress { stage: stage.to_owned(), done, total, unit });
        }
    }

    /// Fails once the work was cancelled.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.cancel.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// [`Monitor::report`], then [`Monitor::check`].
    pub fn step(&self, stage: &str, done: u64, total: u64, unit: Unit) -> Result<(), Cancelled> {
        self.report(stage, done, total, unit);
        self.check()
    }

    /// The switch that stops this work.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("cancelled", &self.cancel.is_cancelled())
            .field("watched", &self.sink.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn reports_arrive_and_a_cancel_stops_the_next_step() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let cancel = Cancel::new();
        let monitor = Monitor::new(cancel.clone(), {
            let seen = seen.clone();
            move |p| seen.lock().unwrap().push(p.clone())
        });
        assert_eq!(monitor.step("reading", 1, 3, Unit::Tensors), Ok(()));
        cancel.cancel();
        assert_eq!(monitor.step("reading", 2, 3, Unit::Tensors), Err(Cancelled));
        let done: Vec<u64> = seen.lock().unwrap().iter().map(|p| p.done).collect();
        assert_eq!(done, [1, 2]);
    }
}
