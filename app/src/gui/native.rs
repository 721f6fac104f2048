//! The window on a desktop: the engine's session on a thread of its own, models from the cache, files from a dialog.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context as _, Result, anyhow};
use eframe::egui;
use tersor_engine::format::Checkpoint;
use tersor_engine::progress::{Cancel, Monitor};
use tersor_engine::session::{Command, Event, EventKind, Failure, JobId, Options, Session};

use super::App;
use super::client::{Client, Happening, Known, is_report, known};
use super::library::{Library, Origin};
use super::picture::Finish;
use super::start::Start;
use super::state::MOST_BYTES;
use crate::fetch::{self, Located};
use crate::{manifest, tuning};

/// Ids of jobs that are not the session's begin here.
const OWN_JOBS: u64 = 1 << 40;

/// What a thread that fetches found.
struct Fetched {
    job: JobId,
    origin: Origin,
    located: Result<Located, fetch::FetchError>,
}

enum Message {
    Happening(Happening),
    Fetched(Fetched),
}

/// The engine on a thread.
pub struct NativeClient {
    session: Session,
    library: Library,
    inbox: Receiver<Message>,
    outbox: Sender<Message>,
    waker: egui::Context,
    fetching: HashMap<JobId, Cancel>,
    next: u64,
}

impl NativeClient {
    /// Starts the session; `waker` is told of everything that happens.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(options: Options, waker: egui::Context) -> std::io::Result<Self> {
        let (outbox, inbox) = channel();
        let (events, wake) = (Mutex::new(outbox.clone()), waker.clone());
        let options = Options { tuning: tuning::load(), ..options };
        let session = Session::start(options, move |event| {
            if let EventKind::Tuned(found) = &event.kind {
                tuning::keep(found);
            }
            if let Ok(events) = events.lock() {
                // Nobody receives any more when the window is closed.
                let _ = events.send(Message::Happening(Happening::Event(event)));
            }
            wake.request_repaint();
        })?;
        let library = Library::default();
        Ok(Self { session, library, inbox, outbox, waker, fetching: HashMap::new(), next: OWN_JOBS })
    }

    /// Puts a fetched model behind its name.
    fn fetched(&mut self, Fetched { job, origin, located }: Fetched) -> Event {
        let cancelled = self.fetching.remove(&job).is_some_and(|cancel| cancel.is_cancelled());
        let mut open = |located| -> Result<(), String> {
            match located {
                Located::Path(path) => self.library.place(&origin, path),
                Located::Embedded(files) => {
                    let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
                    let checkpoint = Checkpoint::from_files(files.collect()).map_err(|error| error.to_string())?;
                    self.library.open(&origin, checkpoint);
                }
            }
            Ok(())
        };
        let result = located.map_err(|error| error.to_string()).and_then(&mut open);
        let kind = match result {
            Ok(()) => EventKind::Done,
            Err(_) if cancelled => EventKind::Cancelled,
            Err(message) => EventKind::Failed(Failure { message, device_lost: false }),
        };
        Event { job, kind }
    }

    /// Lets a person choose a file with one of these endings, and delivers what `open` makes of it.
    fn choose(
        &self,
        title: &'static str,
        (what, endings): (&'static str, &'static [&'static str]),
        open: fn(PathBuf) -> Happening,
    ) {
        let (outbox, waker) = (self.outbox.clone(), self.waker.clone());
        let work = move || {
            let dialog = rfd::FileDialog::new().set_title(title).add_filter(what, endings);
            if let Some(path) = dialog.pick_file() {
                let _ = outbox.send(Message::Happening(open(path)));
                waker.request_repaint();
            }
        };
        // macOS shows dialogs on the main thread only, and the dialog sees to that itself.
        if let Err(error) = std::thread::Builder::new().name("tersor-dialog".to_owned()).spawn(work) {
            let why = format!("cannot open the dialog ({error}): drop the file on the window instead");
            self.deliver(Message::Happening(Happening::Refused(why)));
        }
    }

    fn deliver(&self, message: Message) {
        let _ = self.outbox.send(message); // the receiver lives as long as self does
        self.waker.request_repaint();
    }
}

impl Client for NativeClient {
    fn known(&self) -> Vec<Known> {
        known(|_| None)
    }

    fn fetches_anything(&self) -> bool {
        true
    }

    fn send(&mut self, mut command: Command) -> JobId {
        self.library.resolve(&mut command);
        self.session.send(command)
    }

    fn fetch(&mut self, name: &str) -> JobId {
        let job = JobId(self.next);
        self.next += 1;
        let cancel = Cancel::new();
        self.fetching.insert(job, cancel.clone());
        let origin = Origin::Named(name.to_owned());
        if self.library.has(&origin) {
            self.deliver(Message::Happening(Happening::Event(Event { job, kind: EventKind::Done })));
            return job;
        }
        let (outbox, waker, name) = (self.outbox.clone(), self.waker.clone(), name.to_owned());
        let progress = (Mutex::new(outbox.clone()), waker.clone());
        let monitor = Monitor::new(cancel, move |found| {
            let kind = EventKind::Progress(found.clone());
            if let Ok(outbox) = progress.0.lock() {
                let _ = outbox.send(Message::Happening(Happening::Event(Event { job, kind })));
            }
            progress.1.request_repaint();
        });
        let work = move || {
            let options = fetch::Options { monitor, ..Default::default() };
            let located = manifest::models().map_err(fetch::FetchError::from).and_then(|models| {
                let model = models.iter().find(|model| model.name == name);
                model.map_or_else(|| fetch::locate(&name, &options), |model| fetch::named(model, &options))
            });
            let _ = outbox.send(Message::Fetched(Fetched { job, origin, located }));
            waker.request_repaint();
        };
        if let Err(error) = std::thread::Builder::new().name("tersor-fetch".to_owned()).spawn(work) {
            let failure = Failure { message: format!("cannot start a thread: {error}"), device_lost: false };
            self.deliver(Message::Happening(Happening::Event(Event { job, kind: EventKind::Failed(failure) })));
        }
        job
    }

    fn cancel(&mut self, job: JobId) {
        match self.fetching.get(&job) {
            Some(cancel) => cancel.cancel(),
            None => self.session.cancel(job),
        }
    }

    fn pick(&mut self) {
        let open = |path| Happening::Opened(Origin::Path(path));
        self.choose("Open a model", ("models", &["gguf", "safetensors"]), open);
    }

    fn pick_report(&mut self) {
        self.choose("Lay a report beside", ("reports", &["json"]), report);
    }

    fn save(&mut self, name: &str, bytes: Vec<u8>) {
        let (outbox, waker, name) = (self.outbox.clone(), self.waker.clone(), name.to_owned());
        let work = move || {
            let ending = name.rsplit('.').next().unwrap_or_default().to_owned();
            let dialog = rfd::FileDialog::new().set_title("Save").set_file_name(&name).add_filter(&ending, &[&ending]);
            let Some(path) = dialog.save_file() else { return };
            if let Err(error) = crate::files::write(&path, &bytes) {
                let why = format!("{} could not be written: {error}. Choose another place.", path.display());
                let _ = outbox.send(Message::Happening(Happening::NotSaved(why)));
                waker.request_repaint();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("tersor-dialog".to_owned()).spawn(work) {
            let why = format!("The dialog cannot be opened ({error}).");
            self.deliver(Message::Happening(Happening::NotSaved(why)));
        }
    }

    fn save_picture(&mut self, name: &str, svg: String) {
        match crate::report::picture::png(&svg) {
            Ok(bytes) => self.save(name, bytes),
            Err(why) => {
                self.deliver(Message::Happening(Happening::NotSaved(format!("{name} cannot be drawn: {why}."))))
            }
        }
    }

    fn take(&mut self, files: Vec<egui::DroppedFileHandle>) {
        let models = |path: &PathBuf| {
            path.is_dir() || path.extension().is_some_and(|e| e == "gguf" || e == "safetensors" || e == "json")
        };
        let paths: Vec<PathBuf> = files.iter().map(|file| file.path().to_owned()).collect();
        let reports = |path: &&PathBuf| path.file_name().is_some_and(|name| is_report(&name.to_string_lossy()));
        let own: Vec<PathBuf> = paths.iter().filter(reports).filter(|path| path.is_file()).cloned().collect();
        if own.len() == paths.len() && !own.is_empty() {
            own.into_iter().for_each(|path| self.deliver(Message::Happening(report(path))));
            return;
        }
        let happening = match paths.iter().find(|path| models(path)) {
            Some(path) => Happening::Opened(Origin::Path(path.clone())),
            None => Happening::Refused(
                "that is no model: drop a .gguf or .safetensors file, the folder of a Hugging Face model, or the JSON of a report"
                    .to_owned(),
            ),
        };
        self.deliver(Message::Happening(happening));
    }

    fn next(&mut self) -> Option<Happening> {
        match self.inbox.try_recv().ok()? {
            Message::Happening(happening) => Some(happening),
            Message::Fetched(fetched) => Some(Happening::Event(self.fetched(fetched))),
        }
    }
}

/// What is in the file of a report.
fn report(path: PathBuf) -> Happening {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // No report is as large as that: what is cut off is refused when it is read.
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(&path)?.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    match read() {
        Ok(bytes) => Happening::Report(name, bytes),
        Err(error) => Happening::NotSaved(format!("{name} cannot be read: {error}.")),
    }
}

/// How the window opens.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// The engine's options.
    pub options: Options,
    /// What is shown and done first.
    pub start: Start,
    /// Width and height in points.
    pub size: Option<[f32; 2]>,
    /// Waits until all work is done, writes a picture of the window here, and closes it. Settings are then neither read nor kept.
    pub picture: Option<PathBuf>,
}

/// Opens the window, and returns when it is closed.
///
/// # Errors
/// If there is no screen, or no GPU driver that can draw on it.
pub fn open(window: Window) -> Result<()> {
    let [width, height] = window.size.unwrap_or([1280.0, 800.0]);
    let viewport = egui::ViewportBuilder::default()
        .with_app_id("tersor")
        .with_title("tersor")
        .with_inner_size([width, height])
        .with_min_inner_size([320.0, 400.0])
        .with_icon(egui::IconData::default());
    let native = eframe::NativeOptions {
        viewport,
        persist_window: window.size.is_none() && window.picture.is_none(),
        wgpu_options: eframe::egui_wgpu::WgpuConfiguration {
            wgpu_setup: eframe::egui_wgpu::WgpuSetupCreateNew::without_display_handle().into(),
            ..Default::default()
        },
        ..Default::default()
    };
    let picture = window.picture.clone();
    // Pictures depend on nothing that was left from before.
    let scratch =
        picture.as_ref().map(|_| std::env::temp_dir().join(format!("tersor-picture-{}.ron", std::process::id())));
    let native = eframe::NativeOptions { persistence_path: scratch.clone(), ..native };
    let (result, outcome) = channel();
    let create = move |cc: &eframe::CreationContext<'_>| {
        let client = NativeClient::start(window.options, cc.egui_ctx.clone())?;
        let fresh = window.picture.is_some();
        let settings = cc.storage.filter(|_| !fresh).and_then(|storage| eframe::get_value(storage, super::SETTINGS));
        let mut app = App::new(&cc.egui_ctx, Box::new(client), settings.unwrap_or_default(), window.start);
        app.finish = window.picture.map(|path| Finish::new(path, result));
        Ok(Box::new(app) as Box<dyn eframe::App>)
    };
    let closed = eframe::run_native("tersor", native, Box::new(create));
    if let Some(scratch) = scratch {
        // It may never have been made.
        let _ = std::fs::remove_file(scratch);
    }
    closed.map_err(|error| {
        anyhow!("cannot open a window: {error}\nOn the command line, `tersor help` lists what works without one")
    })?;
    match picture {
        None => Ok(()),
        Some(path) => {
            let picture = outcome.try_recv().context("the window was closed before its picture was taken")?;
            picture.map_err(|error| anyhow!("{}: {error}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_cannot_be_read_is_said_to_be_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(report(path), Happening::Report(name, bytes) if name == "a.json" && bytes == b"{}"));
        let Happening::NotSaved(why) = report(folder.path().join("b.json")) else { panic!("it is not there") };
        assert!(why.starts_with("b.json cannot be read: "), "{why}");
    }
}
