//! The page: the canvas, and the client that talks to the worker.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use eframe::egui;
use tersor_engine::gpu::Tuning;
use tersor_engine::session::{Command, Event, EventKind, JobId, Options};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{HtmlCanvasElement, HtmlInputElement, MessageEvent};

use super::describe;
use crate::gui::App;
use crate::gui::client::{Client, Happening, Known, is_report, known};
use crate::gui::library::Origin;
use crate::gui::start::Start;
use crate::gui::state::MOST_BYTES;
use crate::gui::wire::{FromWorker, ToWorker};
use crate::manifest;

pub fn show() -> Result<(), JsValue> {
    let document = web_sys::window().and_then(|window| window.document()).ok_or("no document")?;
    let canvas: HtmlCanvasElement = document.get_element_by_id("canvas").ok_or("no canvas")?.dyn_into()?;
    let input: HtmlInputElement = document.get_element_by_id("files").ok_or("no file input")?.dyn_into()?;
    let fragment = document.location().and_then(|location| location.hash().ok()).unwrap_or_default();
    let hub = document.query_selector("meta[name=hub]")?.and_then(|meta| meta.get_attribute("content"));
    let hub = hub.unwrap_or_default().trim_end_matches('/').to_owned();
    let options = eframe::WebOptions {
        wgpu_options: eframe::egui_wgpu::WgpuConfiguration {
            wgpu_setup: eframe::egui_wgpu::WgpuSetupCreateNew::without_display_handle().into(),
            ..Default::default()
        },
        ..Default::default()
    };
    spawn_local(async move {
        let create = move |cc: &eframe::CreationContext<'_>| {
            let client =
                WebClient::start(Options::default(), hub, input, cc.egui_ctx.clone()).map_err(|e| describe(&e))?;
            let settings =
                cc.storage.and_then(|storage| eframe::get_value(storage, crate::gui::SETTINGS)).unwrap_or_default();
            let app = App::new(&cc.egui_ctx, Box::new(client), settings, Start::from_fragment(&fragment));
            Ok(Box::new(app) as Box<dyn eframe::App>)
        };
        if let Err(error) = eframe::WebRunner::new().start(canvas, options, Box::new(create)).await {
            wasm_bindgen::throw_val(error);
        }
    });
    Ok(())
}

/// What has come from the worker and waits to be seen.
type Inbox = Rc<RefCell<VecDeque<Happening>>>;

/// The engine in a Web Worker.
struct WebClient {
    worker: web_sys::Worker,
    input: HtmlInputElement,
    inbox: Inbox,
    waker: egui::Context,
    next: u64,
    /// Models that are being handed over, by job.
    taking: Rc<RefCell<HashMap<JobId, String>>>,
    chosen: Rc<RefCell<Vec<web_sys::File>>>,
    /// Address of the file that was saved last.
    saved: Option<String>,
    /// Kept for as long as the browser may call them.
    _listener: Closure<dyn FnMut(MessageEvent)>,
    _chosen_listener: Closure<dyn FnMut()>,
}

impl WebClient {
    fn start(options: Options, hub: String, input: HtmlInputElement, waker: egui::Context) -> Result<Self, JsValue> {
        let settings = web_sys::WorkerOptions::new();
        settings.set_type(web_sys::WorkerType::Module);
        let worker = web_sys::Worker::new_with_options("worker.js", &settings)?;
        worker.post_message(&wasm_bindgen::module())?;
        let inbox = Inbox::default();
        let (arriving, wake) = (inbox.clone(), waker.clone());
        let listener = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            let text = event.data().as_string().unwrap_or_default();
            let happening = match serde_json::from_str(&text) {
                Ok(FromWorker::Event(Event { kind: EventKind::Tuned(found), .. })) => return keep_tuning(&found),
                Ok(FromWorker::Event(event)) => Happening::Event(event),
                Ok(FromWorker::Stored(models)) => Happening::Stored(models),
                Err(_) => return,
            };
            arriving.borrow_mut().push_back(happening);
            wake.request_repaint();
        });
        worker.set_onmessage(Some(listener.as_ref().unchecked_ref()));
        let chosen: Rc<RefCell<Vec<web_sys::File>>> = Rc::default();
        let (files, source, wake) = (chosen.clone(), input.clone(), waker.clone());
        let chosen_listener = Closure::<dyn FnMut()>::new(move || {
            let list = source.files();
            let count = list.as_ref().map_or(0, |list| list.length());
            files.borrow_mut().extend((0..count).filter_map(|i| list.as_ref()?.get(i)));
            source.set_value(""); // so that the same file can be chosen again
            wake.request_repaint();
        });
        input.set_onchange(Some(chosen_listener.as_ref().unchecked_ref()));
        let client = Self {
            worker,
            input,
            inbox,
            waker,
            next: 1,
            taking: Rc::default(),
            chosen,
            saved: None,
            _listener: listener,
            _chosen_listener: chosen_listener,
        };
        let options = Options { tuning: kept_tuning(), ..options };
        client.post(&ToWorker::Start { options, hub }, None);
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

    fn read_report(&self, file: web_sys::File) {
        let (inbox, waker) = (self.inbox.clone(), self.waker.clone());
        spawn_local(async move {
            let name = file.name();
            let happening = match bytes_of(&file).await {
                Ok(bytes) => Happening::Report(name, bytes),
                Err(error) => Happening::NotSaved(format!("{name} cannot be read ({}).", describe(&error))),
            };
            inbox.borrow_mut().push_back(happening);
            waker.request_repaint();
        });
    }

    fn hand_over(&mut self, files: Vec<web_sys::File>) {
        if !files.is_empty() && files.iter().all(|file| is_report(&file.name())) {
            files.into_iter().for_each(|file| self.read_report(file));
            return;
        }
        let is_model = |name: &str| [".gguf", ".safetensors"].iter().any(|ending| name.ends_with(ending));
        let Some(model) = files.iter().map(web_sys::File::name).find(|name| is_model(name)) else {
            let why = "That is no model: choose a .gguf file, or a .safetensors file together with its config.json and \
                       tokenizer.json; or the JSON of a report.";
            return self.refuse(why.to_owned());
        };
        let job = self.job();
        self.taking.borrow_mut().insert(job, model.clone());
        let list: js_sys::Array = files.iter().collect();
        self.post(&ToWorker::Take(job, model), Some(&list));
    }
}

/// Where the browser keeps what was found of kernels' variants. Small, and wanted before the worker starts: no matter for OPFS.
const TUNING: &str = "tersor.tuning";

fn kept_tuning() -> Tuning {
    let storage = web_sys::window().and_then(|window| window.local_storage().ok().flatten());
    let text = storage.and_then(|storage| storage.get_item(TUNING).ok().flatten());
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn keep_tuning(found: &Tuning) {
    let storage = web_sys::window().and_then(|window| window.local_storage().ok().flatten());
    if let (Some(storage), Ok(text)) = (storage, serde_json::to_string(found)) {
        // Where it cannot be kept it is found again.
        let _ = storage.set_item(TUNING, &text);
    }
}

/// What is in a file.
async fn bytes_of(file: &web_sys::File) -> Result<Vec<u8>, JsValue> {
    // What is too large for a report is refused when it is read: so much of it is enough.
    let part = file.slice_with_f64_and_f64(0.0, MOST_BYTES as f64 + 1.0)?;
    Ok(js_sys::Uint8Array::new(&JsFuture::from(part.array_buffer()).await?).to_vec())
}

/// Draws a plot, two dots for each of its units, and puts the picture with the browser's downloads.
async fn draw(name: &str, svg: &str) -> Result<(), JsValue> {
    let [width, height] = crate::report::plot::size(svg).ok_or("it has no size")?;
    let image = web_sys::HtmlImageElement::new()?;
    // Some browsers draw nothing that does not say its own size.
    let svg = svg.replacen("<svg ", &format!("<svg width=\"{width}\" height=\"{height}\" "), 1);
    image.set_src(&format!("data:image/svg+xml;charset=utf-8,{}", js_sys::encode_uri_component(&svg)));
    JsFuture::from(image.decode()).await?;
    let document = web_sys::window().and_then(|window| window.document()).ok_or("no document")?;
    let canvas: HtmlCanvasElement = document.create_element("canvas")?.dyn_into()?;
    canvas.set_width((2.0 * width) as u32);
    canvas.set_height((2.0 * height) as u32);
    let context: web_sys::CanvasRenderingContext2d =
        canvas.get_context("2d")?.ok_or("there is nothing to draw with")?.dyn_into()?;
    context.draw_image_with_html_image_element_and_dw_and_dh(&image, 0.0, 0.0, 2.0 * width, 2.0 * height)?;
    let link: web_sys::HtmlAnchorElement = document.create_element("a")?.dyn_into()?;
    link.set_href(&canvas.to_data_url()?);
    link.set_download(name);
    link.click();
    Ok(())
}

/// Puts bytes with the browser's downloads; the address is theirs until it is revoked.
fn download(name: &str, bytes: &[u8]) -> Result<String, JsValue> {
    let document = web_sys::window().and_then(|window| window.document()).ok_or("no document")?;
    let parts = js_sys::Array::of1(&js_sys::Uint8Array::from(bytes));
    let address = web_sys::Url::create_object_url_with_blob(&web_sys::Blob::new_with_u8_array_sequence(&parts)?)?;
    let link: web_sys::HtmlAnchorElement = document.create_element("a")?.dyn_into()?;
    link.set_href(&address);
    link.set_download(name);
    link.click();
    Ok(address)
}

impl Client for WebClient {
    fn known(&self) -> Vec<Known> {
        known(|model| match model.source {
            manifest::Source::Embedded { .. } => None,
            _ => Some("In a browser: get the file with `tersor fetch`, and drop it on this page.".to_owned()),
        })
    }

    fn fetches_anything(&self) -> bool {
        true
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

    fn forget(&mut self, name: &str) {
        self.post(&ToWorker::Forget(name.to_owned()), None);
    }

    fn cancel(&mut self, job: JobId) {
        self.post(&ToWorker::Cancel(job), None);
    }

    fn pick(&mut self) {
        self.input.click();
    }

    fn pick_report(&mut self) {
        self.input.click();
    }

    fn save(&mut self, name: &str, bytes: Vec<u8>) {
        if let Some(before) = self.saved.take() {
            // Its download has begun long ago. An address that is unknown already is as good.
            let _ = web_sys::Url::revoke_object_url(&before);
        }
        match download(name, &bytes) {
            Ok(address) => self.saved = Some(address),
            Err(error) => {
                let why = format!("{name} could not be saved ({}).", describe(&error));
                self.inbox.borrow_mut().push_back(Happening::NotSaved(why));
            }
        }
    }

    fn save_picture(&mut self, name: &str, svg: String) {
        let (inbox, waker, name) = (self.inbox.clone(), self.waker.clone(), name.to_owned());
        spawn_local(async move {
            if let Err(error) = draw(&name, &svg).await {
                let why = format!("{name} could not be drawn ({}): save the plot as SVG instead.", describe(&error));
                inbox.borrow_mut().push_back(Happening::NotSaved(why));
                waker.request_repaint();
            }
        });
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
