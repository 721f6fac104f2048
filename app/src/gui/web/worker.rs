//! The worker: carries out the page's messages with the engine's session.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use tersor_engine::format::{ByteSource, Checkpoint};
use tersor_engine::progress::{Progress, Unit};
use tersor_engine::session::{Command, Event, EventKind, Failure, JobId, Options, Session};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{DedicatedWorkerGlobalScope, File, MessageEvent, Response};

use super::files::{BlobSource, Stop, Switch, get, pieces, text};
use super::storage::{Sources, Storage};
use super::{hub, scope};
use crate::gui::library::{Library, Origin};
use crate::gui::wire::{FromWorker, ToWorker};
use crate::hub_id::HubId;
use crate::manifest;

/// Where models lie that the page's own host serves.
const MODELS: &str = "models";

/// The page's ids of the session's jobs, both ways.
#[derive(Default)]
struct Ids {
    page: HashMap<JobId, JobId>,
    session: HashMap<JobId, JobId>,
}

fn post(message: &FromWorker) {
    if let Ok(text) = serde_json::to_string(message) {
        // A page that is gone has no use for it.
        let _ = scope().post_message(&text.into());
    }
}

fn post_event(job: JobId, kind: EventKind) {
    post(&FromWorker::Event(Event { job, kind }));
}

/// The engine's side.
struct Worker {
    session: Option<Session>,
    library: Library,
    ids: Arc<Mutex<Ids>>,
    /// Address of the Hugging Face Hub or a mirror of it.
    hub: String,
    /// What ends the worker's own jobs.
    switches: HashMap<JobId, Switch>,
}

type Shared = Rc<RefCell<Worker>>;

pub fn work(scope: &DedicatedWorkerGlobalScope) -> Result<(), JsValue> {
    let worker = Worker {
        session: None,
        library: Library::default(),
        ids: Arc::default(),
        hub: String::new(),
        switches: HashMap::new(),
    };
    let worker = Rc::new(RefCell::new(worker));
    let listener = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
        let both: js_sys::Array = event.data().unchecked_into();
        let text = both.get(0).as_string().unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(message) => receive(&worker, message, both.get(1)),
            Err(error) => {
                wasm_bindgen::throw_str(&format!("the page sent what this worker does not understand: {error}"))
            }
        }
    });
    scope.set_onmessage(Some(listener.as_ref().unchecked_ref()));
    listener.forget(); // as long as the worker lives
    Ok(())
}

fn receive(worker: &Shared, message: ToWorker, files: JsValue) {
    match message {
        ToWorker::Start { options, hub } => {
            worker.borrow_mut().start(options, hub);
            spawn_local(tell_stored());
        }
        ToWorker::Send(job, command) => worker.borrow_mut().send(job, command),
        ToWorker::Cancel(job) => worker.borrow().cancel(job),
        ToWorker::Fetch(job, name) => {
            let worker = worker.clone();
            spawn_local(async move {
                let origin = Origin::Named(name.clone());
                let result = match Switch::new() {
                    Ok(switch) => {
                        worker.borrow_mut().switches.insert(job, switch.clone());
                        obtain(&worker, job, &name, &switch).await
                    }
                    Err(why) => Err(why.into()),
                };
                worker.borrow_mut().opened(job, &origin, result);
            });
        }
        ToWorker::Take(job, name) => {
            let files: Vec<File> = files.unchecked_into::<js_sys::Array>().iter().map(JsCast::unchecked_into).collect();
            let source = |file: &File| -> (String, Box<dyn ByteSource>) {
                (file.name(), Box::new(BlobSource(file.clone().into())))
            };
            let result = open(files.iter().map(source).collect()).map(Some);
            let whole = result.is_ok();
            worker.borrow_mut().opened(job, &Origin::Handed(name.clone()), result);
            if whole {
                spawn_local(keep(name, files));
            }
        }
        ToWorker::Forget(name) => {
            worker.borrow_mut().library.close(&Origin::Named(name.clone()));
            spawn_local(async move {
                if let Ok(storage) = Storage::open().await
                    && let Err(why) = storage.delete(&name).await
                {
                    web_sys::console::warn_1(&format!("{name} could not be deleted: {why}").into());
                }
                tell_stored().await;
            });
        }
    }
}

impl Worker {
    fn start(&mut self, options: Options, hub: String) {
        let ids = self.ids.clone();
        let sink = move |Event { job, kind }: Event| {
            let mut ids = ids.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(page) = ids.page.get(&job).copied() else { return };
            if kind.is_last() {
                ids.page.remove(&job);
                ids.session.remove(&page);
            }
            drop(ids);
            post_event(page, kind);
        };
        self.session = Session::start(options, sink).ok(); // no thread is needed, so there is nothing to refuse
        self.hub = hub;
    }

    fn send(&mut self, page: JobId, mut command: Command) {
        self.library.resolve(&mut command);
        let Some(session) = &self.session else { return };
        let job = session.send(command);
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.page.insert(job, page);
        ids.session.insert(page, job);
    }

    fn cancel(&self, page: JobId) {
        if let Some(switch) = self.switches.get(&page) {
            return switch.cancel();
        }
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(session), Some(job)) = (&self.session, ids.session.get(&page)) {
            session.cancel(*job);
        }
    }

    /// Puts a model behind its name; `None` where it is already.
    fn opened(&mut self, job: JobId, origin: &Origin, result: Result<Option<Checkpoint>, Stop>) {
        self.switches.remove(&job);
        let kind = match result {
            Ok(checkpoint) => {
                if let Some(checkpoint) = checkpoint {
                    self.library.open(origin, checkpoint);
                }
                EventKind::Done
            }
            Err(Stop::Cancelled) => EventKind::Cancelled,
            Err(Stop::Failed(message)) => EventKind::Failed(Failure { message, device_lost: false }),
        };
        post_event(job, kind);
    }
}

fn open(sources: Sources) -> Result<Checkpoint, Stop> {
    Checkpoint::from_sources(sources).map_err(|error| Stop::Failed(error.to_string()))
}

/// Tells the page what is in the browser's storage; nothing where there is none.
async fn tell_stored() {
    if let Ok(storage) = Storage::open().await
        && let Ok(models) = storage.list().await
    {
        post(&FromWorker::Stored(models));
    }
}

/// Keeps files that a person opened in the browser's storage. That is a convenience: a browser that refuses costs nothing else.
async fn keep(name: String, files: Vec<File>) {
    let kept = async {
        let storage = Storage::open().await?;
        let folder = storage.begin(&name).await?;
        let mut list = Vec::new();
        for file in &files {
            folder.copy(&file.name(), file).await?;
            list.push((file.name(), file.size() as u64));
        }
        folder.finish(&name, list).await
    };
    let kept: Result<(), String> = kept.await;
    if let Err(why) = kept {
        web_sys::console::warn_1(&format!("{name} is not kept for the next time: {why}").into());
        if let Ok(storage) = Storage::open().await {
            // Nothing may have been written.
            let _ = storage.delete(&name).await;
        }
    }
    tell_stored().await;
}

/// Gets a model by its name: one that is open, of the browser's storage, of the page's own host, or of the Hub.
async fn obtain(worker: &Shared, job: JobId, name: &str, switch: &Switch) -> Result<Option<Checkpoint>, Stop> {
    if worker.borrow().library.has(&Origin::Named(name.to_owned())) {
        return Ok(None);
    }
    let embedded = |model: &manifest::Model| matches!(model.source, manifest::Source::Embedded { .. });
    let models = manifest::models().map_err(|error| error.to_string())?;
    if models.iter().any(|model| model.name == name && embedded(model)) {
        return fetch(job, name, switch).await.map(Some);
    }
    let storage = Storage::open().await;
    if let Ok(storage) = &storage
        && let Some(sources) = storage.find(name).await
    {
        return open(sources).map(Some);
    }
    let Some(id) = HubId::parse(name) else {
        return Err(format!("{name:?} is neither a model that is kept here nor a Hugging Face id like org/name").into());
    };
    let storage = storage.map_err(|why| format!("this browser gives the page no storage to download into: {why}"))?;
    let hub = worker.borrow().hub.clone();
    let report = |progress| post_event(job, EventKind::Progress(progress));
    hub::download(&hub, &id, name, &storage, switch, report).await?;
    tell_stored().await;
    let sources =
        storage.find(name).await.ok_or_else(|| "what was downloaded is not in the browser's storage".to_owned())?;
    open(sources).map(Some)
}

/// What the host says of a model: the names and sizes of its files.
#[derive(serde::Deserialize)]
struct Index {
    files: Vec<(String, u64)>,
}

async fn get_own(path: &str, switch: &Switch) -> Result<Response, Stop> {
    let answer = get(path, 0, switch).await?;
    if answer.ok() {
        return Ok(answer);
    }
    let status = answer.status();
    Err(format!("the page's host has no {path} (status {status}): build the page again with `cargo xtask web`").into())
}

/// Gets a small model from the page's own host.
async fn fetch(job: JobId, name: &str, switch: &Switch) -> Result<Checkpoint, Stop> {
    let index = text(&get_own(&format!("{MODELS}/{name}/index.json"), switch).await?).await?;
    let index: Index = serde_json::from_str(&index).map_err(|error| format!("{name}/index.json: {error}"))?;
    let total = index.files.iter().map(|(_, size)| size).sum();
    let (mut files, mut done) = (Vec::new(), 0);
    for (file, size) in index.files {
        let answer = get_own(&format!("{MODELS}/{name}/{file}"), switch).await?;
        // The size is the host's word: memory grows with what really comes.
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(1 << 24)).unwrap_or(0));
        pieces(&answer, switch, |piece| {
            let start = bytes.len();
            bytes.resize(start + piece.length() as usize, 0);
            piece.copy_to(&mut bytes[start..]);
            done += u64::from(piece.length());
            let stage = format!("fetching {name}");
            post_event(job, EventKind::Progress(Progress { stage, done, total, unit: Unit::Bytes }));
            Ok(())
        })
        .await?;
        files.push((format!("{name}/{file}"), bytes));
    }
    Checkpoint::from_files(files).map_err(|error| Stop::Failed(error.to_string()))
}
