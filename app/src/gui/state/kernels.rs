//! The kernels page: what the device gives at most, and how much of that the shaders get. It needs no model.

use tersor_engine::bench;
use tersor_engine::progress::Progress;
use tersor_engine::session::report::Benchmark;
use tersor_engine::session::{Bench, Command, EventKind, Report};

use super::{Client, Notice, Purpose, State};

/// What is to be measured, and what was.
#[derive(Clone, Debug, Default)]
pub struct Kernels {
    /// Words that names must contain; a comma stands between alternatives.
    pub filter: String,
    /// Everything, not only the short list.
    pub full: bool,
    /// How far the measurement under way is.
    pub progress: Option<Progress>,
    /// One is under way.
    pub running: bool,
    /// The last result; while one is under way, what there is of it.
    pub found: Option<Benchmark>,
}

impl Kernels {
    /// What would be measured now.
    pub fn plan(&self) -> Bench {
        let patterns = self.filter.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
        Bench { filter: patterns.map(str::to_owned).collect(), quick: !self.full, ..Bench::default() }
    }

    /// How many measurements that are, the ceilings not counted.
    pub fn count(&self) -> usize {
        let plan = self.plan();
        bench::chosen(&plan.filter, plan.quick).len()
    }
}

impl State {
    pub(super) fn bench(&mut self, client: &mut dyn Client) {
        if self.kernels.running {
            return;
        }
        if self.kernels.count() == 0 {
            let (asked, list) = (&self.kernels.filter, if self.kernels.full { "" } else { " on the short list" });
            let text = format!("Nothing{list} is called {asked:?}: take words out, or measure everything.");
            self.notice = Some(Notice { text, remedy: None });
            return;
        }
        self.notice = None;
        self.jobs.insert(client.send(Command::Bench(self.kernels.plan())), Purpose::Bench);
        (self.kernels.running, self.kernels.progress) = (true, None);
    }

    pub(super) fn on_bench(&mut self, kind: EventKind) {
        match kind {
            EventKind::Progress(progress) => self.kernels.progress = Some(progress),
            // What was measured until somebody stops it stays.
            EventKind::Partial(report) | EventKind::Report(report) => {
                if let Report::Bench(found) = *report {
                    self.kernels.found = Some(*found);
                }
            }
            kind if kind.is_last() => (self.kernels.running, self.kernels.progress) = (false, None),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_between_alternatives() {
        let mut kernels = Kernels { filter: " matvec q4_k, ,attention-decode ".into(), ..Kernels::default() };
        let plan = kernels.plan();
        assert_eq!((plan.filter, plan.quick), (vec!["matvec q4_k".to_owned(), "attention-decode".to_owned()], true));
        let few = kernels.count();
        kernels.full = true;
        assert!(few > 0 && kernels.count() > few);
        kernels.filter = "nothing like it".into();
        assert_eq!(kernels.count(), 0);
    }
}
