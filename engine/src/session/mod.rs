//! What a program around the engine talks to: [`Command`]s in, [`Event`]s out.
//!
//! In: commands, each answered under the [`JobId`] that [`Session::send`] returned. Out: events of that job, ending with
//! exactly one [`EventKind::Done`], [`EventKind::Cancelled`] or [`EventKind::Failed`]. Both are plain serde values, so that
//! they can cross a thread or a Web Worker's boundary. Commands run one after another; a job can be cancelled while it
//! runs or waits. Natively the work happens on a thread of its own, in a browser on the worker's event loop, with the same
//! code: whoever sends cannot tell which.

mod attend;
mod bench;
mod calibrate;
mod command;
mod compare;
#[cfg(not(target_arch = "wasm32"))]
mod compress;
mod desk;
mod embed;
mod evaluate;
mod event;
mod failure;
mod inspect;
mod language;
mod plan;
pub mod report;
mod runner;
mod score;
mod stage;

pub use crate::bench::Plan as Bench;
pub use crate::codec::cubic;
pub use command::{
    Attend, BenchModel, Calibration, Command, Compare, Compress, Embed, Evaluate, Generate, Input, Inspect, Load,
    Message, Options, Recipe, Role, Rotation, Sampling, Score, Slot, Source, Text,
};
pub use event::{Event, EventKind, Failure};
pub use plan::plan;
pub use report::Report;
pub use runner::{JobId, Session};

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
