//! What the app knows and does, without a pixel: actions and events in, commands to the client out.
//!
//! Views read the [`State`] and answer with [`Action`]s. Tests drive it in the same way.

mod action;
mod attention;
mod beside;
mod compare;
mod events;
mod export;
mod kernels;
mod quality;
mod settings;
mod tensors;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tersor_engine::gpu::AdapterSummary;
use tersor_engine::progress::Progress;
use tersor_engine::session::report::{Adapters, Inspection};
use tersor_engine::session::{Command, Inspect, JobId, Slot};

pub use action::{Action, Notice, Remedy};
pub use attention::{Attention, MOST_TOKENS};
pub use beside::{Beside, MOST_BYTES, Shown};
pub use compare::{Column, Compare, MOST_COLUMNS, Phase, Piece};
pub use export::Form;
pub use kernels::Kernels;
pub use quality::{Measured, Quality, Trade};
pub use settings::{ROTATION, Settings};
pub use tensors::Tensors;

use events::Purpose;

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
            Action::PickReport => client.pick_report(),
            Action::TakeAway(number) => self.take_away(number),
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
}
