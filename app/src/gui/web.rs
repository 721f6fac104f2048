//! The app in a browser: the page with its [`WebClient`], and the worker in which the engine's session runs.
//!
//! Both are this program. The page hands its compiled module to the worker, so that it is fetched and compiled once; texts go back
//! and forth as `wire` says. Files are handed to the worker as the browser's handles, and read there.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use eframe::egui;
use tersor_engine::format::Checkpoint;
use tersor_engine::progress::{Progress, Unit};
use tersor_engine::session::{Command, Event, EventKind, Failure, JobId, Options, Session};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{DedicatedWorkerGlobalScope, HtmlCanvasElement, HtmlInputElement, MessageEvent, Response};

use super::App;
use super::client::{Client, Happening, Known, known};
use super::library::{Library, Origin};
use super::start::Start;
use super::wire::{FromWorker, ToWorker};
use crate::manifest;

/// Where models lie that the page's own host serves.
const MODELS: &str = "models";

/// Runs the page, or the worker, depending on where it is.
///
/// # Errors
/// What the browser refuses.
pub fn run() -> Result<(), JsValue> {
    match js_sys::global().dyn_into::<DedicatedWorkerGlobalScope>() {
        Ok(scope) => work(&scope),
        Err(_) => show(),
    }
}

// ---- the page

fn show() -> Result<(), JsValue> {
    let document = web_sys::window().and_then(|window| window.document()).ok_or("no document")?;
    let canvas: HtmlCanvasElement = document.get_element_by_id("canvas").ok_or("no canvas")?.dyn_into()?;
    let input: HtmlInputElement = document.get_element_by_id("files").ok_or("no file input")?.dyn_into()?;
    let fragment = document.location().and_then(|location| location.hash().ok()).unwrap_or_default();
    let options = eframe::WebOptions {
        wgpu_options: eframe::egui_wgpu::WgpuConfiguration {
            wgpu_setup: eframe::egui_wgpu::WgpuSetupCreateNew::without_display_handle().into(),
            ..Default::default()
        },
        ..Default::default()
    };
    spawn_local(async move {
        let create = move |cc: &eframe::CreationContext<'_>| {
            let client = WebClient::start(Options::default(), input, cc.egui_ctx.clone()).map_err(|e| describe(&e))?;
            let settings =
                cc.storage.and_then(|storage| eframe::get_value(storage, super::SETTINGS)).unwrap_or_default();
            let app = App::new(&cc.egui_ctx, Box::new(client), settings, Start::from_fragment(&fragment));
            Ok(Box::new(app) as Box<dyn eframe::App>)
        };
        if let Err(error) = eframe::WebRunner::new().start(canvas, options, Box::new(create)).await {
            wasm_bindgen::throw_val(error);
        }
    });
    Ok(())
}

fn describe(value: &JsValue) -> String {
    let message = js_sys::Reflect::get(value, &"message".into()).ok().and_then(|message| message.as_string());
    message.or_else(|| value.as_string()).unwrap_or_else(|| format!("{value:?}"))
}

/// What has come from the worker and waits to be seen.
type Inbox = Rc<RefCell<VecDeque<Happening>>>;

/// The engine in a Web Worker.
struct WebClient {
    worker: web_sys::Worker,
    input: HtmlInputElement,
    inbox: Inbox,
    next: u64,
    /// Models that are being handed over, by job.
    taking: Rc<RefCell<HashMap<JobId, String>>>,
    chosen: Rc<RefCell<Vec<web_sys::File>>>,
    /// Kept for as long as the browser may call them.
    _listener: Closure<dyn FnMut(MessageEvent)>,
    _chosen_listener: Closure<dyn FnMut()>,
}

impl WebClient {
    fn start(options: Options, input: HtmlInputElement, waker: egui::Context) -> Result<Self, JsValue> {
        let settings = web_sys::WorkerOptions::new();
        settings.set_type(web_sys::WorkerType::Module);
        let worker = web_sys::Worker::new_with_options("worker.js", &settings)?;
        worker.post_message(&wasm_bindgen::module())?;
        let inbox = Inbox::default();
        let (arriving, wake) = (inbox.clone(), waker.clone());
        let listener = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            let text = event.data().as_string().unwrap_or_default();
            if let Ok(FromWorker::Event(event)) = serde_json::from_str(&text) {
                arriving.borrow_mut().push_back(Happening::Event(event));
                wake.request_repaint();
            }
        });
        worker.set_onmessage(Some(listener.as_ref().unchecked_ref()));
        let chosen: Rc<RefCell<Vec<web_sys::File>>> = Rc::default();
        let (files, source) = (chosen.clone(), input.clone());
        let chosen_listener = Closure::<dyn FnMut()>::new(move || {
            let list = source.files();
            let count = list.as_ref().map_or(0, |list| list.length());
            files.borrow_mut().extend((0..count).filter_map(|i| list.as_ref()?.get(i)));
            source.set_value(""); // so that the same file can be chosen again
            waker.request_repaint();
        });
        input.set_onchange(Some(chosen_listener.as_ref().unchecked_ref()));
        let client = Self {
            worker,
            input,
            inbox,
            next: 1,
            taking: Rc::default(),
            chosen,
            _listener: listener,
            _chosen_listener: chosen_listener,
        };
        client.post(&ToWorker::Start(options), None);
        Ok(client)
    }

    fn job(&mut self) -> JobId {
        self.next += 1;
        JobId(self.next)
    }

    fn post(&self, message: &ToWorker, files: Option<&js_sys::Array>) {
        let text = match serde_json::to_string(message) {
            Ok(text) => JsValue::from(text),
            Err(error) => return self.refuse(error.to_string()),
        };
        let both = match files {
            Some(files) => js_sys::Array::of2(&text, files),
            None => js_sys::Array::of1(&text),
        };
        if let Err(error) = self.worker.post_message(&both) {
            self.refuse(describe(&error));
        }
    }

    fn refuse(&self, why: String) {
        self.inbox.borrow_mut().push_back(Happening::Refused(why));
    }

    fn hand_over(&mut self, files: Vec<web_sys::File>) {
        let is_model = |name: &str| [".gguf", ".safetensors"].iter().any(|ending| name.ends_with(ending));
        let Some(model) = files.iter().map(web_sys::File::name).find(|name| is_model(name)) else {
            let why = "That is no model: choose a .gguf file, or a .safetensors file together with its config.json and \
                       tokenizer.json.";
            return self.refuse(why.to_owned());
        };
        let job = self.job();
        self.taking.borrow_mut().insert(job, model.clone());
        let list: js_sys::Array = files.iter().collect();
        self.post(&ToWorker::Take(job, model), Some(&list));
    }
}

impl Client for WebClient {
    fn known(&self) -> Vec<Known> {
        known(|model| match model.source {
            manifest::Source::Embedded { .. } => None,
            _ => Some("In a browser: get the file with `tersor fetch`, and drop it on this page.".to_owned()),
        })
    }

    fn fetches_anything(&self) -> bool {
        false
    }

    fn send(&mut self, command: Command) -> JobId {
        let job = self.job();
        self.post(&ToWorker::Send(job, command), None);
        job
    }

    fn fetch(&mut self, name: &str) -> JobId {
        let job = self.job();
        self.post(&ToWorker::Fetch(job, name.to_owned()), None);
        job
    }

    fn cancel(&mut self, job: JobId) {
        self.post(&ToWorker::Cancel(job), None);
    }

    fn pick(&mut self) {
        self.input.click();
    }

    fn take(&mut self, files: Vec<egui::DroppedFileHandle>) {
        self.hand_over(files.iter().filter_map(|file| file.web_file().cloned()).collect());
    }

    fn next(&mut self) -> Option<Happening> {
        let chosen: Vec<web_sys::File> = self.chosen.borrow_mut().drain(..).collect();
        if !chosen.is_empty() {
            self.hand_over(chosen);
        }
        loop {
            let happening = self.inbox.borrow_mut().pop_front()?;
            let Happening::Event(event) = &happening else { return Some(happening) };
            let Some(name) = self.taking.borrow().get(&event.job).cloned() else { return Some(happening) };
            if event.kind.is_last() {
                self.taking.borrow_mut().remove(&event.job);
            }
            match &event.kind {
                EventKind::Done => return Some(Happening::Opened(Origin::Handed(name))),
                EventKind::Failed(failure) => return Some(Happening::Refused(failure.message.clone())),
                _ => {}
            }
        }
    }
}

// ---- the worker

/// The page's ids of the session's jobs, both ways.
#[derive(Default)]
struct Ids {
    page: HashMap<JobId, JobId>,
    session: HashMap<JobId, JobId>,
}

fn post_event(job: JobId, kind: EventKind) {
    let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
    if let Ok(text) = serde_json::to_string(&FromWorker::Event(Event { job, kind })) {
        // A page that is gone has no use for it.
        let _ = scope.post_message(&text.into());
    }
}

/// The engine's side: carries out the page's messages.
struct Worker {
    session: Option<Session>,
    library: Library,
    ids: Arc<Mutex<Ids>>,
}

fn work(scope: &DedicatedWorkerGlobalScope) -> Result<(), JsValue> {
    let ids = Arc::<Mutex<Ids>>::default();
    let worker = Rc::new(RefCell::new(Worker { session: None, library: Library::default(), ids }));
    let listener = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
        let both: js_sys::Array = event.data().unchecked_into();
        let text = both.get(0).as_string().unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(message) => Worker::receive(&worker, message, both.get(1)),
            Err(error) => {
                wasm_bindgen::throw_str(&format!("the page sent what this worker does not understand: {error}"))
            }
        }
    });
    scope.set_onmessage(Some(listener.as_ref().unchecked_ref()));
    listener.forget(); // as long as the worker lives
    Ok(())
}

impl Worker {
    fn receive(worker: &Rc<RefCell<Self>>, message: ToWorker, files: JsValue) {
        match message {
            ToWorker::Start(options) => worker.borrow_mut().start(options),
            ToWorker::Send(job, command) => worker.borrow_mut().send(job, command),
            ToWorker::Cancel(job) => worker.borrow().cancel(job),
            ToWorker::Fetch(job, name) => {
                let worker = worker.clone();
                spawn_local(async move {
                    let origin = Origin::Named(name.clone());
                    let result =
                        if worker.borrow().library.has(&origin) { Ok(None) } else { fetch(job, &name).await.map(Some) };
                    worker.borrow_mut().opened(job, &origin, result);
                });
            }
            ToWorker::Take(job, name) => {
                let worker = worker.clone();
                spawn_local(async move {
                    let result = read(files.unchecked_into()).await.map(Some);
                    worker.borrow_mut().opened(job, &Origin::Handed(name), result);
                });
            }
        }
    }

    fn start(&mut self, options: Options) {
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
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(session), Some(job)) = (&self.session, ids.session.get(&page)) {
            session.cancel(*job);
        }
    }

    /// Puts a model's files behind its name; `None` where they are already.
    fn opened(&mut self, job: JobId, origin: &Origin, files: Result<Option<Vec<(String, Vec<u8>)>>, String>) {
        let open = |files: Option<Vec<_>>| match files {
            Some(files) => Checkpoint::from_files(files).map(Some).map_err(|error| error.to_string()),
            None => Ok(None),
        };
        let kind = match files.and_then(open) {
            Ok(checkpoint) => {
                if let Some(checkpoint) = checkpoint {
                    self.library.open(origin, checkpoint);
                }
                EventKind::Done
            }
            Err(message) => EventKind::Failed(Failure { message, device_lost: false }),
        };
        post_event(job, kind);
    }
}

async fn get(path: &str) -> Result<Response, String> {
    let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
    let response = JsFuture::from(scope.fetch_with_str(path)).await.map_err(|error| {
        format!("{path} could not be fetched ({}): check the connection and try again", describe(&error))
    })?;
    let response: Response = response.unchecked_into();
    if response.ok() {
        Ok(response)
    } else {
        Err(format!(
            "the page's host has no {path} (status {}): build the page again with `cargo xtask web`",
            response.status()
        ))
    }
}

/// What the host says of a model: the names and sizes of its files.
#[derive(serde::Deserialize)]
struct Index {
    files: Vec<(String, u64)>,
}

/// Gets a model's files from the page's own host.
async fn fetch(job: JobId, name: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let index = JsFuture::from(get(&format!("{MODELS}/{name}/index.json")).await?.text().map_err(|e| describe(&e))?);
    let index = index.await.map_err(|e| describe(&e))?.as_string().unwrap_or_default();
    let index: Index = serde_json::from_str(&index).map_err(|error| format!("{name}/index.json: {error}"))?;
    let total = index.files.iter().map(|(_, size)| size).sum();
    let (mut files, mut done) = (Vec::new(), 0);
    for (file, size) in index.files {
        let path = format!("{MODELS}/{name}/{file}");
        let body = get(&path).await?.body().ok_or_else(|| format!("{path} is empty"))?;
        let reader: web_sys::ReadableStreamDefaultReader = body.get_reader().unchecked_into();
        // The size is the host's word: memory grows with what really comes.
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(1 << 24)).unwrap_or(0));
        loop {
            let chunk = JsFuture::from(reader.read()).await.map_err(|error| format!("{path}: {}", describe(&error)))?;
            let field = |name: &str| js_sys::Reflect::get(&chunk, &name.into()).unwrap_or(JsValue::UNDEFINED);
            if field("done").is_truthy() {
                break;
            }
            let chunk: js_sys::Uint8Array = field("value").unchecked_into();
            let start = bytes.len();
            bytes.resize(start + chunk.length() as usize, 0);
            chunk.copy_to(&mut bytes[start..]);
            done += u64::from(chunk.length());
            let stage = format!("fetching {name}");
            post_event(job, EventKind::Progress(Progress { stage, done, total, unit: Unit::Bytes }));
        }
        files.push((format!("{name}/{file}"), bytes));
    }
    Ok(files)
}

/// Reads files that a person handed over.
async fn read(list: js_sys::Array) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut files = Vec::new();
    for file in list.iter() {
        let file: web_sys::File = file.unchecked_into();
        let name = file.name();
        let buffer = JsFuture::from(file.array_buffer()).await;
        let buffer = buffer.map_err(|error| format!("{name} cannot be read: {}", describe(&error)))?;
        files.push((name, js_sys::Uint8Array::new(&buffer).to_vec()));
    }
    Ok(files)
}
