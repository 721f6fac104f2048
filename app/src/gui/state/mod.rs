//! What the app knows and does, without a pixel: actions and events in, commands to the client out.
//!
//! Views read the [`State`] and answer with [`Action`]s. Tests drive it in the same way.

mod attention;
mod compare;
mod export;
mod kernels;
mod quality;
mod tensors;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tersor_engine::gpu::AdapterSummary;
use tersor_engine::progress::Progress;
use tersor_engine::session::report::{Adapters, Inspection};
use tersor_engine::session::{Command, Event, EventKind, Failure, Inspect, JobId, Report, Slot};

pub use attention::{Attention, MOST_TOKENS};
pub use compare::{Column, Compare, MOST_COLUMNS, Phase, Piece};
pub use export::Form;
pub use kernels::Kernels;
pub use quality::{Measured, Quality, Trade};
pub use tensors::Tensors;

use super::client::{Client, Happening, Kept, Known};
use super::library::Origin;
use super::start::Start;

/// A page of the app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tab {
    /// The device, and models to choose from.
    #[default]
    Models,
    /// Texts side by side.
    Compare,
    /// What compression costs on a text.
    Quality,
    /// A tensor's values.
    Tensors,
    /// How fast the shaders are.
    Kernels,
    /// Where heads look.
    Attention,
}

impl Tab {
    /// All pages, in the order of their keys.
    pub const ALL: [Self; 6] =
        [Self::Models, Self::Compare, Self::Quality, Self::Tensors, Self::Kernels, Self::Attention];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Models => "Models",
            Self::Compare => "Compare",
            Self::Quality => "Quality",
            Self::Tensors => "Tensors",
            Self::Kernels => "Kernels",
            Self::Attention => "Attention",
        }
    }

    /// Reads a name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tab| tab.name().eq_ignore_ascii_case(name))
    }
}

/// What is kept from one start to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Light, dark, or what the system has.
    pub theme: eframe::egui::ThemePreference,
    /// The compressions that stand beside the original.
    pub recipes: Vec<String>,
    /// What is continued.
    pub prompt: String,
    /// Without the model's chat template.
    pub raw: bool,
    /// Compressions judge the original's text instead of writing their own.
    pub forced: bool,
    /// At most this many tokens.
    pub tokens: u32,
    /// 0 is greedy.
    pub temperature: f32,
    /// Draw from the most likely tokens that together reach this probability.
    pub top_p: f32,
    /// Draw from the k most likely tokens; 0 is all.
    pub top_k: u32,
    /// Of the random numbers.
    pub seed: u64,
    /// Change of basis before compressing.
    pub rotate: bool,
    /// Windows of the text that quality is measured on.
    pub windows: u32,
    /// Tokens of a window.
    pub context: u32,
    /// Models opened lately, the last one first.
    pub recent: Vec<Origin>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            theme: eframe::egui::ThemePreference::System,
            recipes: vec!["q4_k".to_owned()],
            prompt: "It is a truth universally acknowledged, that a".to_owned(),
            raw: false,
            forced: false,
            tokens: 96,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: 1,
            rotate: false,
            windows: 2,
            context: 256,
            recent: Vec::new(),
        }
    }
}

/// Seed of the rotation, which is a means and no matter of taste.
pub const ROTATION: u64 = 1;

/// What a person asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Show a page.
    Show(Tab),
    /// Get a model of the manifest and open it.
    Fetch(String),
    /// Open a model.
    Open(Origin),
    /// Choose a file.
    Pick,
    /// Put another compression beside the original.
    Add(String),
    /// Delete a model that the browser keeps.
    Forget(String),
    /// Take a column away.
    Remove(Slot),
    /// Compress a column otherwise.
    Change(Slot, String),
    /// Change of basis on or off.
    Rotate(bool),
    /// Let all columns write.
    Run,
    /// Measure the columns on a text.
    Measure,
    /// Measure the kernels.
    Bench,
    /// Ask where heads look.
    Attend,
    /// Show a tensor.
    Tensor(String),
    /// Show a tensor on its page.
    Examine(String),
    /// Plot something else against each other.
    Trade(Trade),
    /// Show the errors of this compression.
    Choose(String),
    /// Save what the page shows.
    Export(Form),
    /// Stop what is being done.
    Stop,
    /// The message is read.
    Dismiss,
}

/// A message: what went wrong, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// For people.
    pub text: String,
    /// What the button beside it does.
    pub remedy: Option<(&'static str, Remedy)>,
}

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Load the models again and run.
    Run,
    /// Choose a file.
    Pick,
    /// Measure the kernels.
    Bench,
}

/// What a job is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Purpose {
    Adapters,
    Fetch(String),
    Inspect(Origin),
    Unload,
    Load(Slot, compare::Held),
    Generate(Slot),
    Score(Slot),
    Measure(Origin),
    Tensor(String),
    Bench,
    LoadToAttend,
    Attend,
}

/// The model that everything is about.
#[derive(Clone, Debug)]
pub struct Model {
    /// Where it came from.
    pub origin: Origin,
    /// What is in it.
    pub inspection: Inspection,
}

/// A model that is being fetched or read.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Which one.
    pub origin: Origin,
    /// How far it is.
    pub progress: Option<Progress>,
    job: JobId,
}

/// Everything the app knows.
#[derive(Debug)]
pub struct State {
    /// The page that is shown.
    pub tab: Tab,
    /// What is kept.
    pub settings: Settings,
    /// The adapters, once they are known.
    pub adapters: Option<Adapters>,
    /// Models that can be had by name.
    pub known: Vec<Known>,
    /// Models that the browser keeps for this page; natively none.
    pub stored: Vec<Kept>,
    /// A path or a Hugging Face id that is being typed, where those can be opened.
    pub typed: Option<String>,
    /// The model being opened.
    pub opening: Option<Opening>,
    /// The model.
    pub model: Option<Model>,
    /// Texts side by side.
    pub compare: Compare,
    /// Measurements.
    pub quality: Quality,
    /// Tensors.
    pub tensors: Tensors,
    /// Speeds.
    pub kernels: Kernels,
    /// Where heads look.
    pub attention: Attention,
    /// What went wrong last.
    pub notice: Option<Notice>,
    pub(crate) jobs: HashMap<JobId, Purpose>,
    /// What is done as soon as the model is open.
    then: Option<Action>,
}

impl State {
    /// Says that a model is needed, where one is chosen.
    fn ask_for_model(&mut self) {
        self.notice = Some(Notice { text: "Choose a model first.".to_owned(), remedy: None });
        self.tab = Tab::Models;
    }

    /// Begins: asks for the adapters, and does what `start` says.
    pub fn new(mut settings: Settings, start: Start, client: &mut dyn Client) -> Self {
        if !start.recipes.is_empty() {
            settings.recipes = start.recipes;
        }
        settings.recipes.truncate(MOST_COLUMNS - 1);
        settings.prompt = start.prompt.unwrap_or(settings.prompt);
        settings.tokens = start.tokens.unwrap_or(settings.tokens);
        settings.seed = start.seed.unwrap_or(settings.seed);
        settings.temperature = start.temperature.unwrap_or(settings.temperature);
        let mut state = Self {
            tab: start.tab.unwrap_or_default(),
            adapters: None,
            known: client.known(),
            stored: Vec::new(),
            typed: client.fetches_anything().then(String::new),
            opening: None,
            model: None,
            compare: Compare::new(&settings.recipes),
            quality: Quality::default(),
            tensors: Tensors::default(),
            kernels: Kernels::default(),
            attention: Attention::default(),
            notice: None,
            jobs: HashMap::new(),
            then: None,
            settings,
        };
        let job = client.send(Command::Adapters);
        state.jobs.insert(job, Purpose::Adapters);
        if let Some(model) = start.model {
            let action = if state.typed.is_some() || state.known.iter().any(|known| known.name == model) {
                Action::Fetch(model)
            } else {
                Action::Open(Origin::Path(model.into()))
            };
            let page = start.tab.unwrap_or(Tab::Compare);
            state.then = Some(match page {
                Tab::Quality if start.run => Action::Measure,
                Tab::Compare if start.run => Action::Run,
                Tab::Kernels if start.run => Action::Bench,
                Tab::Attention if start.run => Action::Attend,
                page => Action::Show(page),
            });
            state.apply(action, client);
        } else if start.run && state.tab == Tab::Kernels {
            state.bench(client);
        }
        state
    }

    /// The adapter that is used.
    pub fn adapter(&self) -> Option<&AdapterSummary> {
        let adapters = self.adapters.as_ref()?;
        adapters.adapters.get(adapters.chosen?)
    }

    /// Whether anything is being done that a person waits for.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Does what a person asked for.
    pub fn apply(&mut self, action: Action, client: &mut dyn Client) {
        match action {
            Action::Show(tab) => {
                self.tab = tab;
                if tab == Tab::Tensors && self.tensors.chosen.is_none() {
                    self.show_first_tensor(client);
                }
            }
            Action::Fetch(name) => {
                self.then.get_or_insert(Action::Show(Tab::Compare));
                let job = client.fetch(&name);
                self.jobs.insert(job, Purpose::Fetch(name.clone()));
                self.begin(Origin::Named(name), job, client);
            }
            Action::Open(Origin::Named(name)) => self.apply(Action::Fetch(name), client),
            Action::Open(origin) => {
                self.then.get_or_insert(Action::Show(Tab::Compare));
                self.inspect(origin, client);
            }
            Action::Pick => client.pick(),
            Action::Forget(name) => client.forget(&name),
            Action::Add(recipe) => {
                self.compare.add(recipe);
                self.keep_recipes();
            }
            Action::Remove(slot) => {
                self.drop_jobs(slot, client);
                if self.compare.remove(slot) {
                    let job = client.send(Command::Unload(slot));
                    self.jobs.insert(job, Purpose::Unload);
                }
                self.keep_recipes();
            }
            Action::Change(slot, recipe) => {
                self.drop_jobs(slot, client);
                self.compare.change(slot, recipe);
                self.keep_recipes();
            }
            Action::Rotate(rotate) => {
                self.settings.rotate = rotate;
                self.replan();
            }
            Action::Run => self.run(client),
            Action::Measure => self.measure(client),
            Action::Bench => self.bench(client),
            Action::Attend => self.attend(client),
            Action::Tensor(name) => self.show_tensor(name, client),
            Action::Examine(name) => {
                self.tab = Tab::Tensors;
                self.show_tensor(name, client);
            }
            Action::Trade(trade) => self.quality.trade = trade,
            Action::Choose(recipe) => self.quality.choose(recipe),
            Action::Export(form) => self.export(form, client),
            Action::Stop => self.stop(client),
            Action::Dismiss => self.notice = None,
        }
    }

    fn keep_recipes(&mut self) {
        self.settings.recipes = self.compare.columns.iter().skip(1).map(|column| column.recipe.clone()).collect();
        self.replan();
    }

    /// Works out anew what the columns' recipes make of the model.
    fn replan(&mut self) {
        let tensors = self.model.as_ref().map(|model| model.inspection.tensors.as_slice());
        self.compare.plan(tensors, self.settings.rotate);
    }

    /// Gives up what is being done for a column.
    fn drop_jobs(&mut self, slot: Slot, client: &mut dyn Client) {
        self.jobs.retain(|job, purpose| {
            let of_slot = match purpose {
                Purpose::Load(of, _) | Purpose::Generate(of) | Purpose::Score(of) => *of == slot,
                _ => false,
            };
            if of_slot {
                client.cancel(*job);
            }
            !of_slot
        });
    }

    fn begin(&mut self, origin: Origin, job: JobId, client: &mut dyn Client) {
        if let Some(before) = self.opening.replace(Opening { origin, progress: None, job }) {
            client.cancel(before.job);
        }
        self.notice = None;
    }

    fn inspect(&mut self, origin: Origin, client: &mut dyn Client) {
        let job = client.send(Command::Inspect(Inspect { source: origin.source(), tensor: None }));
        self.jobs.insert(job, Purpose::Inspect(origin.clone()));
        self.begin(origin, job, client);
    }

    fn stop(&mut self, client: &mut dyn Client) {
        let stoppable = |purpose: &Purpose| !matches!(purpose, Purpose::Adapters | Purpose::Unload);
        self.jobs.iter().filter(|(_, purpose)| stoppable(purpose)).for_each(|(job, _)| client.cancel(*job));
        self.then = None;
    }

    /// Takes in what happened.
    pub fn happened(&mut self, happening: Happening, client: &mut dyn Client) {
        match happening {
            Happening::Event(event) => self.on_event(event, client),
            Happening::Opened(origin) => {
                self.then = Some(Action::Show(Tab::Compare));
                self.inspect(origin, client);
            }
            Happening::Stored(models) => self.stored = models,
            Happening::NotSaved(text) => self.notice = Some(Notice { text, remedy: None }),
            Happening::Refused(text) => {
                self.notice = Some(Notice { text, remedy: Some(("Choose a file", Remedy::Pick)) })
            }
        }
    }

    fn on_event(&mut self, Event { job, kind }: Event, client: &mut dyn Client) {
        let Some(purpose) = self.jobs.get(&job).cloned() else { return };
        if kind.is_last() {
            self.jobs.remove(&job);
        }
        if let EventKind::Failed(failure) = &kind {
            self.failed(&purpose, failure);
        }
        match purpose {
            Purpose::Adapters => {
                if let EventKind::Report(report) = kind
                    && let Report::Adapters(adapters) = *report
                {
                    self.adapters = Some(adapters);
                }
            }
            Purpose::Fetch(name) => match kind {
                EventKind::Done => self.inspect(Origin::Named(name), client),
                kind => self.opening_event(job, kind),
            },
            Purpose::Inspect(origin) => match kind {
                EventKind::Report(report) => {
                    if let Report::Inspect(inspection) = *report {
                        self.opened(Model { origin, inspection }, client);
                    }
                }
                kind => self.opening_event(job, kind),
            },
            Purpose::Unload => {}
            Purpose::Load(slot, held) => self.on_load(slot, held, kind, client),
            Purpose::Generate(slot) => self.on_generate(slot, kind, client),
            Purpose::Score(slot) => self.on_score(slot, kind),
            Purpose::Measure(origin) => self.on_measure(&origin, kind),
            Purpose::Tensor(name) => self.on_tensor(&name, kind),
            Purpose::Bench => self.on_bench(kind),
            Purpose::LoadToAttend => self.on_load_to_attend(kind),
            Purpose::Attend => self.on_attend(kind, client),
        }
    }

    fn opening_event(&mut self, job: JobId, kind: EventKind) {
        let Some(opening) = self.opening.as_mut().filter(|opening| opening.job == job) else { return };
        match kind {
            EventKind::Progress(progress) => opening.progress = Some(progress),
            kind if kind.is_last() => {
                // A job that reported has given way to its model already.
                (self.opening, self.then) = (None, None);
            }
            _ => {}
        }
    }

    fn opened(&mut self, model: Model, client: &mut dyn Client) {
        let recent = &mut self.settings.recent;
        if matches!(model.origin, Origin::Path(_)) {
            recent.retain(|origin| *origin != model.origin);
            recent.insert(0, model.origin.clone());
            recent.truncate(6);
        }
        if self.model.as_ref().is_some_and(|before| before.origin != model.origin) {
            self.compare.forget();
            self.tensors = Tensors::default();
            self.attention.found = None;
        }
        self.opening = None;
        self.model = Some(model);
        self.replan();
        if let Some(action) = self.then.take() {
            match action {
                Action::Run => self.tab = Tab::Compare,
                Action::Measure => self.tab = Tab::Quality,
                Action::Bench => self.tab = Tab::Kernels,
                Action::Attend => self.tab = Tab::Attention,
                _ => {}
            }
            self.apply(action, client);
        }
    }

    fn failed(&mut self, purpose: &Purpose, failure: &Failure) {
        if failure.device_lost {
            self.compare.lost();
            self.attention.lost();
            let text = format!("The GPU stopped working: {}. Everything else is still here.", failure.message);
            let again = match purpose {
                Purpose::Bench => ("Measure again", Remedy::Bench),
                _ => ("Load again and run", Remedy::Run),
            };
            self.notice = Some(Notice { text, remedy: Some(again) });
            return;
        }
        let remedy = match purpose {
            // The column itself shows it.
            Purpose::Load(..) | Purpose::Generate(_) | Purpose::Score(_) => return,
            Purpose::Inspect(_) | Purpose::Fetch(_) => Some(("Choose a file", Remedy::Pick)),
            _ => None,
        };
        let mut text = failure.message.clone();
        if let Some(first) = text.get(..1) {
            let upper = first.to_uppercase();
            text.replace_range(..1, &upper);
        }
        self.notice = Some(Notice { text, remedy });
    }
}
