//! A client that answers at once and always the same, so that pictures depend on nothing but the app.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use eframe::egui;
use tersor::gui::client::{Client, Happening, Known};
use tersor::gui::library::Origin;
use tersor_engine::progress::{Progress, Unit};
use tersor_engine::session::report::{Adapters, Generated, Generation, Report, Speed, Stop};
use tersor_engine::session::{Command, Event, EventKind, Failure, JobId, Recipe, Slot};

use super::answers::{adapter, attended, benchmark, comparison, inspection, loaded, scores};

/// What the original writes, token by token.
pub const ORIGINAL: &[&str] = &[
    " single",
    " man",
    " in",
    " possession",
    " of",
    " a",
    " good",
    " fortune",
    ",",
    " must",
    " be",
    " in",
    " want",
    " of",
    " a",
    " wife",
    ".",
    "\n\n",
    "How",
    "ever",
    " little",
    " known",
    " the",
    " feelings",
    " of",
    " such",
    " a",
    " man",
    " may",
    " be",
];
/// What a compressed model writes instead from the tenth token on.
const OTHER: &[&str] = &[
    " might",
    " be",
    " supposed",
    " to",
    " want",
    " a",
    " house",
    " in",
    " the",
    " country",
    ",",
    " and",
    " a",
    " carriage",
    " to",
    " drive",
    " there",
    " in",
    ".",
];
/// Where they part.
pub const PART: usize = 9;

/// What a test sees of the client.
#[derive(Default)]
pub struct Record {
    /// Commands that were sent.
    pub sent: Vec<Command>,
    /// Jobs that were cancelled.
    pub cancelled: Vec<JobId>,
    /// Models that were fetched.
    pub fetched: Vec<String>,
    /// Names and bytes of files that were saved; of pictures, what they are drawn from.
    pub saved: Vec<(String, Vec<u8>)>,
    /// How often a file was asked for.
    pub picked: usize,
    /// How often a report was.
    pub reports: usize,
    /// What happens next.
    pub queue: VecDeque<Happening>,
    /// Commands are not answered but left waiting.
    pub silent: bool,
    /// Loading answers with this failure.
    pub failure: Option<Failure>,
}

/// The client and what a test sees of it.
pub struct Scripted {
    record: Rc<RefCell<Record>>,
    next: u64,
    time: f64,
    recipes: Vec<(Slot, String)>,
}

impl Scripted {
    pub fn new() -> (Self, Rc<RefCell<Record>>) {
        let record = Rc::<RefCell<Record>>::default();
        (Self { record: record.clone(), next: 0, time: 0.0, recipes: Vec::new() }, record)
    }

    fn answer(&mut self, command: &Command) -> Vec<EventKind> {
        let report = |report| vec![EventKind::Report(Box::new(report)), EventKind::Done];
        match command {
            Command::Adapters => report(Report::Adapters(Adapters { adapters: vec![adapter()], chosen: Some(0) })),
            Command::Inspect(command) => report(Report::Inspect(inspection(command.tensor.as_deref()))),
            Command::Load(command) => {
                if let Some(failure) = self.record.borrow().failure.clone() {
                    return vec![EventKind::Failed(failure)];
                }
                let recipe = command.recipe.as_ref().map_or("bf16", Recipe::name).to_owned();
                self.recipes.push((command.slot, recipe));
                report(Report::Load(loaded(command.recipe.as_ref())))
            }
            Command::Generate(command) => {
                let recipe = self.recipes.iter().rev().find(|(slot, _)| *slot == command.slot);
                let differs = recipe.is_some_and(|(_, recipe)| recipe.starts_with("q2") || recipe.starts_with("q3"));
                let pieces = words(differs);
                let tokens = ids(&pieces);
                let token = |(id, text): (&u32, &&str)| EventKind::Token { id: *id, text: (*text).to_owned() };
                let mut events: Vec<EventKind> = tokens.iter().zip(&pieces).map(token).collect();
                let generation = Generation {
                    text: pieces.concat(),
                    tokens,
                    pieces: pieces.iter().map(|piece| (*piece).to_owned()).collect(),
                    stop: Stop::Length,
                    first_difference: None,
                };
                let speed = Speed {
                    prefill_tokens: 9,
                    prefill_tokens_per_second: 812.0,
                    decode_tokens: 29,
                    decode_tokens_per_second: if differs { 164.0 } else { 97.3 },
                    first_token_ms: 41.0,
                };
                events.extend(report(Report::Generate(Generated { generation, speed, attention: None })));
                events
            }
            Command::Score(command) => report(Report::Score(scores(&command.tokens))),
            Command::Compare(command) => report(Report::Compare(comparison(command))),
            Command::Attend(command) => report(Report::Attend(attended(command))),
            Command::Bench(plan) => report(Report::Bench(Box::new(benchmark(plan)))),
            _ => vec![EventKind::Done],
        }
    }
}

impl Client for Scripted {
    fn known(&self) -> Vec<Known> {
        let known = |name: &str, description: &str, bytes, unavailable: Option<&str>| Known {
            name: name.into(),
            description: description.into(),
            license: "Apache-2.0".into(),
            bytes,
            unavailable: unavailable.map(str::to_owned),
        };
        vec![
            known("tiny", "a byte-level language model of Jane Austen's prose, 3 M parameters", 0, None),
            known("smollm2-135m", "SmolLM2 135M Instruct: a small English chat model", 98_362_432, None),
            known("minilm-l6", "a sentence encoder", 90_868_376, Some("In a browser: drop the file on this page.")),
        ]
    }

    fn fetches_anything(&self) -> bool {
        true
    }

    fn send(&mut self, command: Command) -> JobId {
        self.next += 1;
        let job = JobId(self.next);
        if !self.record.borrow().silent {
            let events = self.answer(&command).into_iter().map(|kind| Happening::Event(Event { job, kind }));
            self.record.borrow_mut().queue.extend(events);
        }
        self.record.borrow_mut().sent.push(command);
        job
    }

    fn fetch(&mut self, name: &str) -> JobId {
        self.next += 1;
        let job = JobId(self.next);
        let mut record = self.record.borrow_mut();
        record.fetched.push(name.to_owned());
        let progress = Progress { stage: format!("fetching {name}"), done: 31, total: 98, unit: Unit::Tensors };
        record.queue.push_back(Happening::Event(Event { job, kind: EventKind::Progress(progress) }));
        if !record.silent {
            record.queue.push_back(Happening::Event(Event { job, kind: EventKind::Done }));
        }
        job
    }

    fn cancel(&mut self, job: JobId) {
        let mut record = self.record.borrow_mut();
        record.cancelled.push(job);
        record.queue.push_back(Happening::Event(Event { job, kind: EventKind::Cancelled }));
    }

    fn pick(&mut self) {
        self.record.borrow_mut().picked += 1;
    }

    fn pick_report(&mut self) {
        self.record.borrow_mut().reports += 1;
    }

    fn save(&mut self, name: &str, bytes: Vec<u8>) {
        self.record.borrow_mut().saved.push((name.to_owned(), bytes));
    }

    fn save_picture(&mut self, name: &str, svg: String) {
        self.record.borrow_mut().saved.push((name.to_owned(), svg.into_bytes()));
    }

    fn take(&mut self, files: Vec<egui::DroppedFileHandle>) {
        let path = files[0].path().to_owned();
        self.record.borrow_mut().queue.push_back(Happening::Opened(Origin::Path(path)));
    }

    fn next(&mut self) -> Option<Happening> {
        self.record.borrow_mut().queue.pop_front()
    }

    fn now(&mut self) -> f64 {
        // Tokens that come in 8 to 12 ms.
        let jitter = (self.time * 1e4).rem_euclid(5.0);
        self.time += 0.008 + 0.001 * jitter.round();
        self.time
    }
}

fn words(differs: bool) -> Vec<&'static str> {
    let end = if differs { OTHER } else { &ORIGINAL[PART..] };
    ORIGINAL[..PART].iter().chain(end).copied().collect()
}

fn ids(pieces: &[&str]) -> Vec<u32> {
    pieces.iter().map(|piece| piece.bytes().fold(7, |id, byte| id * 31 % 49_152 + u32::from(byte))).collect()
}
