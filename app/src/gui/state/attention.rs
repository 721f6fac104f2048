//! The attention page: which blocks of a text a head looks at.

use tersor_engine::progress::Progress;
use tersor_engine::session::report::Attended;
use tersor_engine::session::{Attend, Calibration, Command, EventKind, Input, Load, Report, Slot};

use super::{Client, Origin, Purpose, State};

/// The slot of the model that is asked, beside those of columns.
const SLOT: Slot = Slot(u32::MAX);

/// Positions that the model has room for.
pub const MOST_TOKENS: u32 = 4096;

/// What is asked, and the answer.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Tokens of the text.
    pub tokens: u32,
    /// Tokens of a block.
    pub block: u32,
    /// Largest part of the visible blocks to keep.
    pub most: f32,
    /// Part of the attention that kept blocks should hold.
    pub mass: f32,
    /// The layer.
    pub layer: u32,
    /// The head of it that is shown.
    pub head: u32,
    /// One is under way.
    pub running: bool,
    /// How far.
    pub progress: Option<Progress>,
    /// The last answer.
    pub found: Option<Attended>,
    /// The model that is loaded.
    held: Option<Origin>,
    /// Something was changed meanwhile: ask again.
    again: bool,
}

impl Default for Attention {
    fn default() -> Self {
        Self {
            tokens: 1024,
            block: 16,
            most: 0.5,
            mass: 0.95,
            layer: 0,
            head: 0,
            running: false,
            progress: None,
            found: None,
            held: None,
            again: false,
        }
    }
}

impl Attention {
    /// The policy, as commands name it.
    pub fn policy(&self) -> String {
        // What is dragged has more digits than it says. The least may not be more than the most.
        let (mass, most) = (f64::from(self.mass), f64::from(self.most));
        format!("asa:block={},mass={mass:.2},min={:.2},max={most:.2}", self.block, most.min(0.05))
    }

    /// The device is gone, and the model with it.
    pub(super) fn lost(&mut self) {
        self.held = None;
    }

    /// Part of the blocks that the head which is shown keeps of those it could see.
    pub fn kept_fraction(&self) -> Option<f64> {
        let found = self.found.as_ref()?;
        let kept: usize = found.rows.iter().filter_map(|row| Some(row.kept.get(self.head as usize)?.len())).sum();
        let visible: u32 = found.rows.iter().map(|row| row.visible[1] - row.visible[0]).sum();
        (visible > 0).then(|| kept as f64 / f64::from(visible))
    }
}

impl State {
    pub(super) fn attend(&mut self, client: &mut dyn Client) {
        if self.attention.running {
            // The answer under way is to an older question.
            self.attention.again = true;
            return;
        }
        let Some(model) = &self.model else { return self.ask_for_model() };
        self.notice = None;
        let attention = &mut self.attention;
        if attention.held.as_ref() != Some(&model.origin) {
            (attention.found, attention.held, attention.layer, attention.head) =
                (None, Some(model.origin.clone()), 0, 0);
            let load = Load {
                slot: SLOT,
                source: model.origin.source(),
                recipe: None,
                rotation: None,
                calibration: Calibration::default(),
                context: Some(MOST_TOKENS),
                attention: Some(attention.policy()),
            };
            self.jobs.insert(client.send(Command::Load(load)), Purpose::LoadToAttend);
        }
        let attend = Attend {
            slot: SLOT,
            input: Input::Prompt(crate::bundled::text().text),
            tokens: attention.tokens,
            attention: attention.policy(),
            layer: attention.layer,
        };
        self.jobs.insert(client.send(Command::Attend(attend)), Purpose::Attend);
        (attention.running, attention.progress, attention.again) = (true, None, false);
    }

    /// Loading the model did not end well, so that there is none.
    pub(super) fn on_load_to_attend(&mut self, kind: EventKind) {
        match kind {
            EventKind::Progress(progress) => self.attention.progress = Some(progress),
            EventKind::Failed(_) | EventKind::Cancelled => self.attention.held = None,
            _ => {}
        }
    }

    pub(super) fn on_attend(&mut self, kind: EventKind, client: &mut dyn Client) {
        match kind {
            EventKind::Progress(progress) => self.attention.progress = Some(progress),
            EventKind::Report(report) => {
                if let Report::Attend(found) = *report {
                    self.attention.head = self.attention.head.min(found.heads.saturating_sub(1));
                    self.attention.found = Some(found);
                }
            }
            kind if kind.is_last() => {
                (self.attention.running, self.attention.progress) = (false, None);
                if matches!(kind, EventKind::Done) && std::mem::take(&mut self.attention.again) {
                    self.attend(client);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tersor_engine::model::AttentionPolicy;

    #[test]
    fn whatever_is_dragged_is_a_policy() {
        for (most, mass) in [(0.01, 0.1), (0.05, 0.95), (0.333_333, 0.999_999), (1.0, 1.0)] {
            let attention = Attention { most, mass, ..Attention::default() };
            AttentionPolicy::parse(&attention.policy()).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
