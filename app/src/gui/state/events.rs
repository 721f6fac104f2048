//! What happens: each job's events go to the page that asked for it.

use tersor_engine::session::{Event, EventKind, Failure, JobId, Report, Slot};

use super::{Action, Client, Happening, Model, Notice, Origin, Remedy, State, Tab, Tensors, compare};

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

impl State {
    /// Takes in what happened.
    pub fn happened(&mut self, happening: Happening, client: &mut dyn Client) {
        match happening {
            Happening::Event(event) => self.on_event(event, client),
            Happening::Opened(origin) => {
                self.then = Some(Action::Show(Tab::Compare));
                self.inspect(origin, client);
            }
            Happening::Report(name, bytes) => self.lay_beside(name, &bytes),
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
