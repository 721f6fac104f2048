//! The tensors page: a tensor's values.

use tersor_engine::session::report::TensorStatistics;
use tersor_engine::session::{Command, EventKind, Inspect, Report};

use super::{Client, Purpose, State};

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct Tensors {
    /// What names must contain.
    pub filter: String,
    /// The tensor that was chosen.
    pub chosen: Option<String>,
    /// Its values.
    pub statistics: Option<TensorStatistics>,
}

impl State {
    pub(super) fn show_tensor(&mut self, name: String, client: &mut dyn Client) {
        let Some(model) = &self.model else { return };
        let command = Command::Inspect(Inspect { source: model.origin.source(), tensor: Some(name.clone()) });
        // Only the last one that was asked for matters.
        self.jobs.iter().filter(|(_, p)| matches!(p, Purpose::Tensor(_))).for_each(|(job, _)| client.cancel(*job));
        self.jobs.insert(client.send(command), Purpose::Tensor(name.clone()));
        (self.tensors.chosen, self.tensors.statistics) = (Some(name), None);
    }

    /// Shows a tensor that says something: the first matrix that is no table.
    pub(super) fn show_first_tensor(&mut self, client: &mut dyn Client) {
        let Some(model) = &self.model else { return };
        let mut tensors = model.inspection.tensors.iter();
        let first =
            tensors.find(|row| row.shape.len() == 2 && !row.name.contains("embd") && !row.name.contains("embed"));
        if let Some(name) = first.map(|row| row.name.clone()) {
            self.show_tensor(name, client);
        }
    }

    pub(super) fn on_tensor(&mut self, name: &str, kind: EventKind) {
        if let EventKind::Report(report) = kind
            && let Report::Inspect(found) = *report
            && self.tensors.chosen.as_deref() == Some(name)
        {
            self.tensors.statistics = found.statistics;
        }
    }
}
