//! The session itself: a queue of jobs, the task that works through them, and their cancellation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use serde::{Deserialize, Serialize};

use super::desk::Desk;
use super::event::{Event, EventKind, Failure};
use super::{Command, Options};
use crate::gpu::Gpu;
use crate::progress::{Cancel, Monitor};

/// Names a command that was sent; unique within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

struct Job {
    id: JobId,
    command: Command,
    cancel: Cancel,
}

/// Where events go.
type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// The jobs that are not finished, with the switch that stops each.
type Unfinished = Arc<Mutex<BTreeMap<JobId, Cancel>>>;

fn lock(unfinished: &Unfinished) -> MutexGuard<'_, BTreeMap<JobId, Cancel>> {
    // The map is whole after every statement that touches it, so a panic elsewhere does not spoil it.
    unfinished.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle to the engine at work. Dropping it cancels what runs and ends the session.
pub struct Session {
    queue: UnboundedSender<Job>,
    unfinished: Unfinished,
    next: std::sync::atomic::AtomicU64,
}

impl Session {
    /// Starts a session: on a thread natively, on the event loop in a browser.
    ///
    /// Every event goes to `on_event`, called where the work happens, so it must be quick. The GPU is opened by the first
    /// command that needs it.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(options: Options, on_event: impl Fn(Event) + Send + Sync + 'static) -> std::io::Result<Self> {
        Self::begin(options, None, Arc::new(on_event))
    }

    /// [`Session::start`] on a device that is open already. Should it be lost, the next command opens another as `options` say.
    ///
    /// # Errors
    /// As [`Session::start`].
    pub fn start_on(
        gpu: Gpu,
        options: Options,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Self::begin(options, Some(gpu), Arc::new(on_event))
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn begin(options: Options, gpu: Option<Gpu>, sink: Sink) -> std::io::Result<Self> {
        let (session, receiver) = Self::new();
        let unfinished = session.unfinished.clone();
        std::thread::Builder::new()
            .name("tersor-session".to_owned())
            .spawn(move || pollster::block_on(work(Desk::new(options, gpu), receiver, unfinished, sink)))?;
        Ok(session)
    }

    #[cfg(target_arch = "wasm32")]
    fn begin(options: Options, gpu: Option<Gpu>, sink: Sink) -> std::io::Result<Self> {
        let (session, receiver) = Self::new();
        let unfinished = session.unfinished.clone();
        wasm_bindgen_futures::spawn_local(work(Desk::new(options, gpu), receiver, unfinished, sink));
        Ok(session)
    }

    fn new() -> (Self, UnboundedReceiver<Job>) {
        let (queue, receiver) = unbounded();
        let session = Self { queue, unfinished: Unfinished::default(), next: 1.into() };
        (session, receiver)
    }

    /// Queues a command.
    pub fn send(&self, command: Command) -> JobId {
        let id = JobId(self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let cancel = Cancel::new();
        lock(&self.unfinished).insert(id, cancel.clone());
        // The receiver lives as long as the session does, unless the working thread died; then no event follows.
        let _ = self.queue.unbounded_send(Job { id, command, cancel });
        id
    }

    /// Asks a job to stop; it ends with [`EventKind::Cancelled`], or as it would have if it was just finishing.
    pub fn cancel(&self, job: JobId) {
        if let Some(cancel) = lock(&self.unfinished).get(&job) {
            cancel.cancel();
        }
    }

    /// [`Session::cancel`] for every job that is not finished.
    pub fn cancel_all(&self) {
        lock(&self.unfinished).values().for_each(Cancel::cancel);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.cancel_all();
    }
}

/// Why a job did not end well.
pub(super) enum Interruption {
    Cancelled,
    Failed(Failure),
}

/// Where a job's events go.
pub(super) struct Reporter {
    job: JobId,
    sink: Sink,
    /// Progress of, and the switch that stops, the job.
    pub(super) monitor: Monitor,
}

impl Reporter {
    /// Sends an event.
    pub(super) fn emit(&self, kind: EventKind) {
        (self.sink)(Event { job: self.job, kind });
    }
}

async fn work(mut desk: Desk, mut queue: UnboundedReceiver<Job>, unfinished: Unfinished, sink: Sink) {
    while let Some(Job { id, command, cancel }) = queue.next().await {
        let monitor = Monitor::new(cancel, {
            let sink = sink.clone();
            move |progress| {
                sink(Event { job: id, kind: EventKind::Progress(progress.clone()) });
            }
        });
        let reporter = Reporter { job: id, sink: sink.clone(), monitor };
        let result = match reporter.monitor.check() {
            Ok(()) => desk.execute(command, &reporter).await,
            Err(_) => Err(Interruption::Cancelled),
        };
        lock(&unfinished).remove(&id);
        reporter.emit(match result {
            Ok(()) => EventKind::Done,
            Err(Interruption::Cancelled) => EventKind::Cancelled,
            Err(Interruption::Failed(failure)) => EventKind::Failed(failure),
        });
    }
}
