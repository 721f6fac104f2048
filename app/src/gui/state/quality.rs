//! The quality page: what compressions cost on a text. Measurements add up, so that methods can be tried one after the other.

use tersor_engine::progress::Progress;
use tersor_engine::session::report::{TextInfo, Variant};
use tersor_engine::session::{Command, EventKind, Input, Recipe, Report, Rotation};

use super::{Client, Notice, Purpose, ROTATION, State, Tab};

/// What speed is measured by, and for so many tokens.
const PROMPT: &str = "It is a truth universally acknowledged, that a";
const TOKENS: u32 = 24;

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The model's name.
    pub model: String,
    /// Whether its basis was changed first.
    pub rotated: bool,
    /// What it was measured on.
    pub text: TextInfo,
    /// The result.
    pub variant: Variant,
}

impl Measured {
    /// Whether two were measured under the same conditions, so that their numbers can be compared.
    pub fn comparable(&self, other: &Self) -> bool {
        (&self.model, self.rotated, &self.text) == (&other.model, other.rotated, &other.text)
    }
}

/// What is plotted against each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trade {
    /// Bytes and KL divergence.
    #[default]
    SizeDivergence,
    /// Bytes and the ratio of perplexities.
    SizePerplexity,
    /// Tokens a second and KL divergence.
    SpeedDivergence,
}

impl Trade {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SizeDivergence, Self::SizePerplexity, Self::SpeedDivergence];
}

/// Measurements, and the one that is under way.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// All so far, the last ones at the end.
    pub measured: Vec<Measured>,
    /// How far the one under way is.
    pub progress: Option<Progress>,
    /// One is under way.
    pub running: bool,
    /// What is plotted.
    pub trade: Trade,
    chosen: Option<String>,
}

impl Quality {
    /// The measurements that can be compared with the last one: the original first, then from large to small.
    pub fn table(&self) -> Vec<&Measured> {
        let Some(last) = self.measured.last() else { return Vec::new() };
        let mut rows: Vec<&Measured> = self.measured.iter().filter(|row| row.comparable(last)).collect();
        let is_original = |row: &Measured| row.variant.quality.as_ref().is_some_and(|q| q.divergence.is_none());
        rows.sort_by_key(|row| (!is_original(row), std::cmp::Reverse(row.variant.weights.bytes)));
        rows
    }

    /// The compression whose errors are shown: the one that was chosen, else the smallest.
    pub fn chosen(&self) -> Option<&str> {
        let rows = self.table();
        let known = |recipe: &str| rows.iter().any(|row| row.variant.recipe == recipe);
        let compressed = rows.iter().rev().find(|row| !row.variant.weights.tensors.is_empty());
        let last = compressed.map(|row| row.variant.recipe.as_str());
        self.chosen.as_deref().filter(|recipe| known(recipe)).or(last)
    }

    pub(super) fn choose(&mut self, recipe: String) {
        self.chosen = Some(recipe);
    }

    fn add(&mut self, row: Measured) {
        self.measured.retain(|old| !(old.comparable(&row) && old.variant.recipe == row.variant.recipe));
        self.measured.push(row);
    }
}

impl State {
    pub(super) fn measure(&mut self, client: &mut dyn Client) {
        if self.quality.running {
            return;
        }
        let Some(model) = &self.model else {
            self.notice = Some(Notice { text: "Choose a model first.".to_owned(), remedy: None });
            self.tab = Tab::Models;
            return;
        };
        self.notice = None;
        let columns = self.compare.columns.iter();
        let recipes = columns.skip(1).filter(|column| !matches!(column.plan, Some(Err(_))));
        let compare = tersor_engine::session::Compare {
            source: model.origin.source(),
            recipes: recipes.map(|column| Recipe::Codec(column.recipe.clone())).collect(),
            dense: self.compare.columns[0].recipe.clone(),
            rotation: self.settings.rotate.then_some(Rotation { seed: ROTATION }),
            text: Some(crate::bundled::text()),
            context: self.settings.context,
            windows: Some(self.settings.windows),
            // A short text, for how fast it comes.
            input: Some(Input::Prompt(PROMPT.to_owned())),
            tokens: TOKENS,
            attention: Vec::new(),
            calibration: tersor_engine::session::Calibration::default(),
        };
        self.jobs.insert(client.send(Command::Compare(compare)), Purpose::Measure);
        (self.quality.running, self.quality.progress) = (true, None);
    }

    pub(super) fn on_measure(&mut self, kind: EventKind) {
        match kind {
            EventKind::Progress(progress) => self.quality.progress = Some(progress),
            EventKind::Report(report) => {
                if let Report::Compare(found) = *report
                    && let Some(text) = found.text
                {
                    let (model, rotated) = (found.model.name, found.model.rotation.is_some());
                    for variant in found.variants {
                        self.quality.add(Measured { model: model.clone(), rotated, text: text.clone(), variant });
                    }
                }
            }
            kind if kind.is_last() => (self.quality.running, self.quality.progress) = (false, None),
            _ => {}
        }
    }
}
