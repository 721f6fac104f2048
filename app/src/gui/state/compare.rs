//! The compare page: the original and its compressions, each in a slot of the session, writing the same text.

use tersor_engine::codec::describe::{Method, methods};
use tersor_engine::progress::Progress;
use tersor_engine::session::report::{Loaded, Scored, Speed, Stop, TensorRow, Weights};
use tersor_engine::session::{
    self, Command, EventKind, Generate, Input, Load, Recipe, Report, Rotation, Sampling, Score, Slot,
};

use super::{Client, Origin, Purpose, ROTATION, State};

/// The original and three compressions: what fits on a screen.
pub const MOST_COLUMNS: usize = 4;

/// The recipe of the original: what nearly all models are published in.
const ORIGINAL: &str = "bf16";

/// Tokens that a rate is measured over, the first of them as the beginning.
const SMOOTHED: usize = 9;

/// Positions that columns have room for.
const CONTEXT: u32 = 1024;

/// What a slot holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    origin: Origin,
    recipe: String,
    rotate: bool,
}

/// What a column is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Nothing.
    Idle,
    /// Its turn comes.
    Waiting,
    /// Being loaded, or compared.
    Working(Progress),
    /// Writing.
    Writing,
    /// It could not: why.
    Failed(String),
}

/// A token of a column's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Its id.
    pub token: u32,
    /// The text that became complete with it.
    pub text: String,
    /// What the original and this model say of it.
    pub scored: Option<Scored>,
}

/// One form of the model.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its place in the session.
    pub slot: Slot,
    /// How it is compressed.
    pub recipe: String,
    /// What that will make of the model, or why it cannot.
    pub plan: Option<Result<Weights, String>>,
    /// What it is doing.
    pub phase: Phase,
    /// What was said when it was loaded.
    pub loaded: Option<Loaded>,
    /// Its text.
    pub pieces: Vec<Piece>,
    /// How fast it came.
    pub speed: Option<Speed>,
    /// Why it ended.
    pub stop: Option<Stop>,
    /// The first token that is not the original's.
    pub first_difference: Option<usize>,
    /// When each token came, in seconds since some moment.
    pub arrivals: Vec<f64>,
    /// Its text is the original's, and was not written but judged.
    pub forced: bool,
    held: Option<Held>,
}

impl Column {
    fn new(slot: Slot, recipe: String) -> Self {
        Self {
            slot,
            recipe,
            plan: None,
            phase: Phase::Idle,
            loaded: None,
            pieces: Vec::new(),
            speed: None,
            stop: None,
            first_difference: None,
            arrivals: Vec::new(),
            forced: false,
            held: None,
        }
    }

    /// Its text.
    pub fn text(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// Tokens a second so far, while it writes; as measured, when it is done.
    pub fn tokens_per_second(&self) -> Option<f64> {
        if let Some(speed) = self.speed {
            return (speed.decode_tokens > 0).then_some(speed.decode_tokens_per_second);
        }
        let seconds = self.arrivals.last()? - self.arrivals.first()?;
        (seconds > 0.0).then(|| (self.arrivals.len() - 1) as f64 / seconds)
    }

    /// Tokens a second as they came, each over the last few.
    pub fn rates(&self) -> Vec<f64> {
        let over = |pair: &[f64]| (pair.len() - 1) as f64 / (pair[pair.len() - 1] - pair[0]).max(1e-6);
        (2..=self.arrivals.len()).map(|end| over(&self.arrivals[end.saturating_sub(SMOOTHED)..end])).collect()
    }

    /// Bytes of weights that go through the GPU in a second of writing: every token takes all of them.
    pub fn bytes_per_second(&self) -> Option<f64> {
        let speed = self.speed.filter(|speed| speed.decode_tokens > 0)?;
        Some(self.loaded.as_ref()?.weights.bytes as f64 * speed.decode_tokens_per_second)
    }

    /// Mean divergence from the original over its text, in nats.
    pub fn divergence(&self) -> Option<f64> {
        let scored: Vec<f64> = self.pieces.iter().filter_map(|p| Some(p.scored.as_ref()?.kl_divergence)).collect();
        (!scored.is_empty()).then(|| scored.iter().sum::<f64>() / scored.len() as f64)
    }

    fn clear(&mut self) {
        self.pieces.clear();
        (self.speed, self.stop, self.first_difference, self.forced) = (None, None, None, false);
        self.arrivals.clear();
        self.phase = Phase::Idle;
    }

    fn is_unfinished(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Working(_) | Phase::Writing)
    }
}

/// The columns.
#[derive(Clone, Debug)]
pub struct Compare {
    /// The original first.
    pub columns: Vec<Column>,
    /// Every method, with what it would make of the model with its defaults.
    pub methods: Vec<(Method, Option<Weights>)>,
    next: u32,
}

impl Compare {
    pub(super) fn new(recipes: &[String]) -> Self {
        let methods = methods().into_iter().map(|method| (method, None)).collect();
        let mut compare = Self { columns: vec![Column::new(Slot(0), ORIGINAL.to_owned())], methods, next: 1 };
        recipes.iter().for_each(|recipe| compare.add(recipe.clone()));
        compare
    }

    /// The column of a slot.
    pub fn column(&mut self, slot: Slot) -> Option<&mut Column> {
        self.columns.iter_mut().find(|column| column.slot == slot)
    }

    pub(super) fn add(&mut self, recipe: String) {
        if self.columns.len() < MOST_COLUMNS {
            self.columns.push(Column::new(Slot(self.next), recipe));
            self.next += 1;
        }
    }

    /// Takes a compression away; whether its slot holds something.
    pub(super) fn remove(&mut self, slot: Slot) -> bool {
        let at = self.columns.iter().skip(1).position(|column| column.slot == slot);
        at.is_some_and(|at| self.columns.remove(at + 1).held.is_some())
    }

    pub(super) fn change(&mut self, slot: Slot, recipe: String) {
        if let Some(column) = self.column(slot).filter(|column| column.recipe != recipe) {
            column.recipe = recipe;
            column.clear();
            column.loaded = None;
        }
    }

    /// Another model is chosen.
    pub(super) fn forget(&mut self) {
        for column in &mut self.columns {
            column.clear();
            column.loaded = None;
        }
    }

    /// The device is gone, and what the slots held with it.
    pub(super) fn lost(&mut self) {
        self.columns.iter_mut().for_each(|column| column.held = None);
    }

    /// Whether any column is loading, writing or waiting for its turn.
    pub fn is_running(&self) -> bool {
        self.columns.iter().any(Column::is_unfinished)
    }

    pub(super) fn plan(&mut self, tensors: Option<&[TensorRow]>, rotated: bool) {
        let plan = |recipe: &str| {
            let recipe = Recipe::Codec(recipe.to_owned());
            Some(session::plan(tensors?, Some(&recipe), rotated).map_err(|error| error.to_string()))
        };
        for column in &mut self.columns {
            column.plan = plan(&column.recipe);
        }
        for (method, found) in &mut self.methods {
            *found = plan(&method.spelling(&[])).and_then(Result::ok);
        }
    }
}

impl State {
    /// The slot that holds the original.
    fn original(&self) -> Slot {
        self.compare.columns[0].slot
    }

    fn input(&self) -> Input {
        let prompt = self.settings.prompt.clone();
        if self.settings.raw { Input::Prompt(prompt) } else { Input::Message(prompt) }
    }

    pub(super) fn run(&mut self, client: &mut dyn Client) {
        if self.compare.is_running() {
            return;
        }
        let Some(model) = &self.model else { return self.ask_for_model() };
        self.notice = None;
        let (origin, rotate) = (model.origin.clone(), self.settings.rotate);
        let s = &self.settings;
        let sampling = Sampling {
            temperature: s.temperature,
            top_k: s.top_k,
            top_p: s.top_p,
            seed: s.seed,
            ..Sampling::default()
        };
        let (input, tokens, original) = (self.input(), self.settings.tokens, self.original());
        for column in &mut self.compare.columns {
            column.clear();
            if let Some(Err(why)) = &column.plan {
                column.phase = Phase::Failed(why.clone());
                continue;
            }
            column.phase = Phase::Waiting;
            let (slot, recipe) = (column.slot, column.recipe.clone());
            let wanted = Held { origin: origin.clone(), recipe: recipe.clone(), rotate };
            if column.held.as_ref() != Some(&wanted) {
                (column.held, column.loaded) = (None, None);
                let load = Load {
                    slot,
                    source: origin.source(),
                    recipe: Some(Recipe::Codec(recipe)),
                    rotation: rotate.then_some(Rotation { seed: ROTATION }),
                    context: Some(CONTEXT),
                    attention: None,
                    calibration: session::Calibration::default(),
                };
                self.jobs.insert(client.send(Command::Load(load)), Purpose::Load(slot, wanted));
            }
            column.forced = self.settings.forced && slot != original;
            if column.forced {
                continue; // it is asked when there is a text
            }
            let generate =
                Generate { slot, input: input.clone(), sampling: sampling.clone(), tokens, stop: Vec::new() };
            self.jobs.insert(client.send(Command::Generate(generate)), Purpose::Generate(slot));
        }
    }

    pub(super) fn on_load(&mut self, slot: Slot, held: Held, kind: EventKind, client: &mut dyn Client) {
        let failed = matches!(kind, EventKind::Failed(_) | EventKind::Cancelled);
        let Some(column) = self.compare.column(slot) else { return };
        match kind {
            EventKind::Progress(progress) => column.phase = Phase::Working(progress),
            EventKind::Report(report) => {
                if let Report::Load(loaded) = *report {
                    (column.loaded, column.held) = (Some(loaded), Some(held));
                    column.phase = Phase::Waiting;
                }
            }
            EventKind::Failed(failure) => column.phase = Phase::Failed(failure.message),
            EventKind::Cancelled => column.phase = Phase::Idle,
            EventKind::Token { .. } | EventKind::Partial(_) | EventKind::Tuned(_) | EventKind::Done => {}
        }
        if failed {
            // What was to be written with it has nothing to write with.
            let of_slot = [Purpose::Generate(slot), Purpose::Score(slot)];
            let waiting = self.jobs.iter().filter(|(_, purpose)| of_slot.contains(purpose));
            let waiting: Vec<_> = waiting.map(|(job, _)| *job).collect();
            for job in waiting {
                client.cancel(job);
                self.jobs.remove(&job);
            }
            if slot == self.original() {
                self.judge(&[], client);
            }
        }
    }

    pub(super) fn on_generate(&mut self, slot: Slot, kind: EventKind, client: &mut dyn Client) {
        let original: Vec<u32> = self.compare.columns[0].pieces.iter().map(|piece| piece.token).collect();
        let is_original = slot == self.original();
        let Some(column) = self.compare.column(slot) else { return };
        match kind {
            EventKind::Token { id, text } => {
                column.phase = Phase::Writing;
                column.arrivals.push(client.now());
                column.pieces.push(Piece { token: id, text, scored: None });
                let at = column.pieces.len() - 1;
                if !is_original && column.first_difference.is_none() && original.get(at) != Some(&id) {
                    column.first_difference = Some(at);
                }
            }
            EventKind::Report(report) => {
                if let Report::Generate(found) = *report {
                    // The token that ends a text may bring what was held back, but is none of its tokens.
                    column.pieces.truncate(found.generation.tokens.len());
                    column.arrivals.truncate(found.generation.tokens.len());
                    for (piece, text) in column.pieces.iter_mut().zip(found.generation.pieces) {
                        piece.text = text;
                    }
                    column.first_difference = column.first_difference.filter(|at| *at < column.pieces.len());
                    (column.speed, column.stop) = (Some(found.speed), Some(found.generation.stop));
                }
            }
            EventKind::Failed(failure) => {
                column.phase = Phase::Failed(failure.message);
                if is_original {
                    self.judge(&[], client);
                }
            }
            EventKind::Cancelled => {
                column.phase = Phase::Idle;
                if is_original {
                    self.judge(&[], client);
                }
            }
            EventKind::Done => {
                column.phase = Phase::Idle;
                let tokens: Vec<u32> = column.pieces.iter().map(|piece| piece.token).collect();
                let original = self.original();
                let held = self.compare.columns[0].held.is_some();
                if !is_original && held && !tokens.is_empty() {
                    let score = Score { original, slot, input: self.input(), tokens };
                    self.jobs.insert(client.send(Command::Score(score)), Purpose::Score(slot));
                } else if is_original {
                    self.judge(&tokens, client);
                }
            }
            EventKind::Partial(_) | EventKind::Tuned(_) => {}
            EventKind::Progress(progress) => {
                if column.pieces.is_empty() {
                    column.phase = Phase::Working(progress);
                }
            }
        }
    }

    /// Lets the columns that wait for it judge the original's text; without one they have nothing to do.
    fn judge(&mut self, tokens: &[u32], client: &mut dyn Client) {
        let (original, input) = (self.original(), self.input());
        for column in self.compare.columns.iter_mut().filter(|column| column.forced && column.is_unfinished()) {
            if tokens.is_empty() {
                column.phase = Phase::Idle;
                continue;
            }
            // Loading it, where that is still to come, comes first in the queue.
            let score = Score { original, slot: column.slot, input: input.clone(), tokens: tokens.to_vec() };
            self.jobs.insert(client.send(Command::Score(score)), Purpose::Score(column.slot));
        }
    }

    pub(super) fn on_score(&mut self, slot: Slot, kind: EventKind) {
        let written = self.compare.columns[0].pieces.clone();
        let Some(column) = self.compare.column(slot) else { return };
        match kind {
            EventKind::Progress(progress) => column.phase = Phase::Working(progress),
            EventKind::Report(report) => {
                if let Report::Score(scores) = *report {
                    if column.forced {
                        column.pieces = written;
                        let differs = |scored: &Scored| scored.best[1].first().is_some_and(|b| b.token != scored.token);
                        column.first_difference = scores.tokens.iter().position(differs);
                    }
                    for (piece, scored) in column.pieces.iter_mut().zip(scores.tokens) {
                        piece.scored = (piece.token == scored.token).then_some(scored);
                    }
                }
            }
            EventKind::Failed(failure) => column.phase = Phase::Failed(failure.message),
            EventKind::Cancelled | EventKind::Done => column.phase = Phase::Idle,
            EventKind::Token { .. } | EventKind::Partial(_) | EventKind::Tuned(_) => {}
        }
    }
}
