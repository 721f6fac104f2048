//! The quality page: what compressions cost on a text. Measurements add up, so that methods can be tried one after the other.

use tersor_engine::progress::Progress;
use tersor_engine::session::report::{Comparison, Device, Model, TextInfo, Variant};
use tersor_engine::session::{Command, EventKind, Input, Recipe, Report, Rotation};

use super::{Beside, Client, Origin, Purpose, ROTATION, Shown, State};
use crate::report::plot::{self, Better, Mark, Point, Scale};
use crate::units::megabytes;

/// What speed is measured by, and for so many tokens.
const PROMPT: &str = "It is a truth universally acknowledged, that a";
const TOKENS: u32 = 24;

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Where the model came from.
    pub origin: Origin,
    /// The model, and whether its basis was changed first.
    pub model: Model,
    /// What it ran on.
    pub device: Device,
    /// What it was measured on.
    pub text: TextInfo,
    /// Its part of the seconds that the measurement took.
    pub seconds: f64,
    /// The result.
    pub variant: Variant,
}

impl Measured {
    /// Whether two were measured under the same conditions, so that their numbers can be compared.
    pub fn comparable(&self, other: &Self) -> bool {
        (&self.model, &self.device, &self.text) == (&other.model, &other.device, &other.text)
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

    /// What it is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::SizeDivergence => "Size and divergence",
            Self::SizePerplexity => "Size and perplexity",
            Self::SpeedDivergence => "Speed and divergence",
        }
    }

    /// What is plotted to the right, and upwards.
    pub fn axes(self) -> [&'static str; 2] {
        match self {
            Self::SizeDivergence => ["MB of weights", "mean KLD"],
            Self::SizePerplexity => ["MB of weights", "PPL / original's PPL"],
            Self::SpeedDivergence => ["tokens/s", "mean KLD"],
        }
    }

    /// Whether more is better from left to right.
    pub fn rising(self) -> bool {
        self == Self::SpeedDivergence
    }

    /// Whether the second value is drawn by its logarithm.
    pub fn logarithmic(self) -> bool {
        self != Self::SizePerplexity
    }

    /// Where a measurement stands, if both were measured and can be drawn.
    pub fn values(self, variant: &Variant) -> Option<[f64; 2]> {
        let divergence = variant.quality.as_ref()?.divergence.as_ref()?;
        let size = megabytes(variant.weights.bytes);
        let kl = Some(divergence.kl_divergence.mean).filter(|kl| *kl > 0.0);
        match self {
            Self::SizeDivergence => Some([size, kl?]),
            Self::SizePerplexity => Some([size, divergence.ln_perplexity_ratio.value.exp()]),
            Self::SpeedDivergence => Some([variant.speed?.decode_tokens_per_second, kl?]),
        }
    }
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
    /// Reports of others.
    pub beside: Vec<Beside>,
    chosen: Option<String>,
}

impl Quality {
    /// The measurements that can be compared with the last one: the original first, then from large to small.
    pub fn table(&self) -> Vec<&Measured> {
        let Some(last) = self.measured.last() else { return Vec::new() };
        let mut rows: Vec<&Measured> = self.measured.iter().filter(|row| row.comparable(last)).collect();
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

    /// The table as a report.
    pub fn comparison(&self) -> Option<Comparison> {
        let rows = self.table();
        let last = self.measured.last()?;
        Some(Comparison {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: last.device.clone(),
            model: last.model.clone(),
            text: Some(last.text.clone()),
            prompt: Some(PROMPT.to_owned()),
            seconds: rows.iter().map(|row| row.seconds).sum(),
            variants: rows.into_iter().map(|row| row.variant.clone()).collect(),
        })
    }

    /// What makes the same table on a command line.
    pub fn command(&self) -> Option<String> {
        let (rows, last) = (self.table(), self.measured.last()?);
        let model = match &last.origin {
            Origin::Path(path) => path.display().to_string(),
            origin => origin.name(),
        };
        let recipes = rows.iter().filter(|row| !is_original(row)).map(|row| row.variant.recipe.clone());
        let (context, windows) = (last.text.context.to_string(), last.text.windows.to_string());
        let mut words = vec!["tersor".to_owned(), "compare".to_owned(), model, "--with".to_owned()];
        words.extend(recipes);
        words.extend(["--context", &context, "--windows", &windows].map(str::to_owned));
        words.extend(last.model.rotation.into_iter().flat_map(|seed| ["--rotate".to_owned(), seed.to_string()]));
        words.extend(["--prompt", PROMPT, "--raw", "--tokens", &TOKENS.to_string()].map(str::to_owned));
        Some(crate::report::shell(words))
    }

    /// The plot that is shown, as an SVG file; `None` where there is nothing to plot.
    pub fn svg(&self) -> Option<String> {
        let trade = self.trade;
        // Those that have no place stand in the list with one that cannot be shown, so that all keep their colours.
        let point = |row: Shown| {
            let [x, y] = trade.values(row.variant).unwrap_or([f64::NAN; 2]);
            let recipe = &row.variant.recipe;
            let report = row.report.and_then(|number| self.beside.get(number));
            let label = report.map_or_else(|| recipe.clone(), |report| format!("{recipe} ({})", report.short_name()));
            let mark = if row.report.is_some() { Mark::Diamond } else { Mark::Circle };
            Point { label, x, y, error: 0.0, mark }
        };
        let points: Vec<Point> = self.shown().into_iter().map(point).collect();
        let [x, y] = trade.axes();
        let scale = if trade.logarithmic() { Scale::Log } else { Scale::Between };
        let better = if trade.rising() { Better::Right } else { Better::Left };
        let plot = plot::scatter(trade.title(), (x, Scale::FromZero), (y, scale), better, &points)?;
        Some(plot::standalone(&plot))
    }

    pub(super) fn choose(&mut self, recipe: String) {
        self.chosen = Some(recipe);
    }

    fn add(&mut self, row: Measured) {
        self.measured.retain(|old| !(old.comparable(&row) && old.variant.recipe == row.variant.recipe));
        self.measured.push(row);
    }
}

fn is_original(row: &Measured) -> bool {
    row.variant.quality.as_ref().is_some_and(|q| q.divergence.is_none())
}

impl State {
    pub(super) fn measure(&mut self, client: &mut dyn Client) {
        if self.quality.running {
            return;
        }
        let Some(model) = &self.model else { return self.ask_for_model() };
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
        let origin = model.origin.clone();
        self.jobs.insert(client.send(Command::Compare(compare)), Purpose::Measure(origin));
        (self.quality.running, self.quality.progress) = (true, None);
    }

    pub(super) fn on_measure(&mut self, origin: &Origin, kind: EventKind) {
        match kind {
            EventKind::Progress(progress) => self.quality.progress = Some(progress),
            EventKind::Report(report) => {
                if let Report::Compare(found) = *report
                    && let Some(text) = found.text
                {
                    let seconds = found.seconds / found.variants.len().max(1) as f64;
                    for variant in found.variants {
                        let (origin, model) = (origin.clone(), found.model.clone());
                        let (device, text) = (found.device.clone(), text.clone());
                        self.quality.add(Measured { origin, model, device, text, seconds, variant });
                    }
                }
            }
            kind if kind.is_last() => (self.quality.running, self.quality.progress) = (false, None),
            _ => {}
        }
    }
}
