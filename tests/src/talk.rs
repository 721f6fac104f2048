//! A conversation with a session.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tersor::fetch::{self, Located};
use tersor_engine::gpu::Gpu;
use tersor_engine::session::{
    Calibration, Command, Event, EventKind, Failure, Generate, Input, JobId, Load, Options, Report, Sampling, Session,
    Slot, Source,
};

/// Longest silence of a session.
const PATIENCE: Duration = Duration::from_secs(120);

/// A session and its events.
pub struct Talk {
    /// The session.
    pub session: Session,
    events: Receiver<Event>,
}

/// The options that `TERSOR_ADAPTER` and its like ask for.
///
/// # Panics
/// If `TERSOR_MEMORY` is no number.
pub fn options() -> Options {
    let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Options {
        adapter: get("TERSOR_ADAPTER"),
        tier: get("TERSOR_TIER"),
        limits: get("TERSOR_LIMITS"),
        memory: get("TERSOR_MEMORY").map(|bytes| bytes.parse().expect("bytes")),
        tune: get("TERSOR_TUNE"),
        ..Options::default()
    }
}

/// The embedded model.
///
/// # Panics
/// Never: it is there without a network.
pub fn tiny() -> Source {
    match fetch::locate("tiny", &fetch::Options::default()).expect("embedded") {
        Located::Path(path) => Source::Path(path),
        Located::Embedded(files) => {
            Source::Files(files.iter().map(|&(name, bytes)| (name.to_owned(), bytes.to_vec())).collect())
        }
    }
}

/// Loads the embedded model with room for `context` positions.
pub fn load(slot: u32, context: u32) -> Load {
    Load {
        slot: Slot(slot),
        source: tiny(),
        recipe: None,
        rotation: None,
        calibration: Calibration::default(),
        context: Some(context),
        attention: None,
    }
}

/// Continues a prompt greedily.
pub fn generate(slot: u32, prompt: &str, tokens: u32) -> Generate {
    Generate {
        slot: Slot(slot),
        input: Input::Prompt(prompt.to_owned()),
        sampling: Sampling::default(),
        tokens,
        stop: Vec::new(),
    }
}

impl Talk {
    /// Starts a session.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start(options: Options) -> Self {
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        let session = Session::start(options, move |event| {
            let _ = sender.lock().expect("whole").send(event); // a test that is over listens no longer
        });
        Self { session: session.expect("a thread"), events }
    }

    /// Starts a session on an open device.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn on(gpu: Gpu, options: Options) -> Self {
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        let session = Session::start_on(gpu, options, move |event| {
            let _ = sender.lock().expect("whole").send(event); // as in `start`
        });
        Self { session: session.expect("a thread"), events }
    }

    /// The next event, which must be of this job.
    ///
    /// # Panics
    /// If none comes, or one of another job.
    pub fn next(&self, job: JobId) -> EventKind {
        let event = self.events.recv_timeout(PATIENCE).expect("the session answers");
        assert_eq!(event.job, job);
        event.kind
    }

    /// All events of a job that are still to come.
    ///
    /// # Panics
    /// As [`Talk::next`].
    pub fn rest(&self, job: JobId) -> Vec<EventKind> {
        let mut kinds = Vec::new();
        while !kinds.last().is_some_and(EventKind::is_last) {
            kinds.push(self.next(job));
        }
        kinds
    }

    /// All events of a command.
    ///
    /// # Panics
    /// As [`Talk::next`].
    pub fn ask(&self, command: Command) -> Vec<EventKind> {
        let job = self.session.send(command);
        self.rest(job)
    }

    /// The report of a command that ends well.
    ///
    /// # Panics
    /// If it does not.
    pub fn report(&self, command: Command) -> Report {
        let mut kinds = self.ask(command);
        assert!(matches!(kinds.pop(), Some(EventKind::Done)), "{kinds:?}");
        match kinds.pop() {
            Some(EventKind::Report(report)) => *report,
            other => panic!("no report but {other:?}"),
        }
    }

    /// Why a command fails.
    ///
    /// # Panics
    /// If it does not.
    pub fn failure(&self, command: Command) -> Failure {
        let mut kinds = self.ask(command);
        assert!(!kinds.iter().any(|kind| matches!(kind, EventKind::Report(_))), "{kinds:?}");
        match kinds.pop() {
            Some(EventKind::Failed(failure)) => failure,
            other => panic!("no failure but {other:?}"),
        }
    }
}
