//! The command line as a client of the engine's session: sends commands, shows progress, collects reports.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tersor_engine::progress::{Cancel, Cancelled};
use tersor_engine::session::{Command, Event, EventKind, Options, Report, Session};

use super::bars::Bars;
use crate::tuning;

/// A session with someone who waits for each command to end.
pub struct Client {
    session: Session,
    events: Receiver<Event>,
    bars: Bars,
    cancel: Cancel,
}

impl Client {
    /// Starts the session; `cancel` (Ctrl-C) stops what runs.
    pub fn start(options: Options, cancel: Cancel) -> Result<Self> {
        let options = Options { tuning: tuning::load(), ..options };
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        let session = Session::start(options, move |event| {
            if let Ok(sender) = sender.lock() {
                // A receiver that is gone means that nobody waits any more.
                let _ = sender.send(event);
            }
        })
        .context("cannot start the engine's thread")?;
        Ok(Self { session, events, bars: Bars::default(), cancel })
    }

    /// Carries out a command and returns its report, if it gives one. Pieces of text go to `on_text` as they come.
    pub fn run(&self, command: Command, mut on_text: impl FnMut(&str) -> Result<()>) -> Result<Option<Report>> {
        let job = self.session.send(command);
        let mut report = None;
        // Bars and text would stand in each other's way.
        let mut speaks = false;
        loop {
            if self.cancel.is_cancelled() {
                self.session.cancel(job);
            }
            let event = match self.events.recv_timeout(Duration::from_millis(50)) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the engine stopped unexpectedly; what it printed above says why")
                }
            };
            match event.kind {
                EventKind::Progress(_) if speaks => {}
                EventKind::Progress(progress) => self.bars.show(&progress),
                EventKind::Token { text, .. } => {
                    self.bars.clear();
                    speaks = true;
                    on_text(&text)?;
                }
                EventKind::Tuned(found) => tuning::keep(&found),
                EventKind::Partial(_) => {}
                EventKind::Report(found) => report = Some(*found),
                EventKind::Done => {
                    self.bars.clear();
                    return Ok(report);
                }
                EventKind::Cancelled => {
                    self.bars.clear();
                    return Err(Cancelled.into());
                }
                EventKind::Failed(failure) => {
                    self.bars.clear();
                    bail!("{}", failure.message);
                }
            }
        }
    }
}
