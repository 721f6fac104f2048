//! What a session answers.

use serde::{Deserialize, Serialize};

use super::report::Report;
use super::runner::JobId;
use crate::gpu::Tuning;
use crate::progress::Progress;

/// Something that happened to a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// The job.
    pub job: JobId,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened to a job. The last three end it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum EventKind {
    /// A stage of the work advanced.
    Progress(Progress),
    /// A piece of a reply: whole characters, possibly none when a token ends inside one.
    Token {
        /// The token's id.
        id: u32,
        /// The text that became complete with it.
        text: String,
    },
    /// What the work has found out so far, of work that takes long; the report of all of it follows, if it is not stopped. Each takes the
    /// place of the one before.
    Partial(Box<Report>),
    /// Variants of kernels were timed: the table to start the next session with ([`Options::tuning`](super::Options)).
    Tuned(Tuning),
    /// What the work found out; see [`Report`] for which command gives which.
    Report(Box<Report>),
    /// The job is finished.
    Done,
    /// The job was cancelled.
    Cancelled,
    /// The job failed.
    Failed(Failure),
}

impl EventKind {
    /// Whether no further event of the job follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed(_))
    }
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence for people.
    pub message: String,
    /// The device is gone, and the loaded models with it: load them again, on the device that the session then opens.
    pub device_lost: bool,
}
