//! What a person does on the attention page.

use std::cell::RefCell;
use std::rc::Rc;

use eframe::egui::accesskit::Role;
use eframe::egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable as _;
use tersor::gui::client::Happening;
use tersor::gui::start::Start;
use tersor::gui::state::{Action, Tab};
use tersor_engine::session::{Attend, Command, Event, EventKind, Failure, JobId};

use super::screen::{desk, with_tiny};
use super::scripted::Record;

#[test]
fn where_a_head_looks_is_asked_anew_when_something_changes() {
    let (mut screen, record) = desk(Start { tab: Some(Tab::Attention), ..with_tiny() });
    let asked = |record: &Rc<RefCell<Record>>| -> Vec<Attend> {
        let attend =
            |command: &Command| if let Command::Attend(attend) = command { Some(attend.clone()) } else { None };
        record.borrow().sent.iter().filter_map(attend).collect()
    };
    let loads = |record: &Rc<RefCell<Record>>| {
        record.borrow().sent.iter().filter(|command| matches!(command, Command::Load(_))).count()
    };
    let last = |record: &Rc<RefCell<Record>>| {
        let record = record.borrow();
        JobId((record.sent.len() + record.fetched.len()) as u64)
    };
    assert!(asked(&record).is_empty(), "nothing is loaded before somebody asks");
    screen.click("Look");
    assert_eq!((asked(&record).len(), loads(&record)), (1, 1));
    let fraction = screen.app().state.attention.kept_fraction().unwrap();
    assert!((0.1..0.9).contains(&fraction), "{fraction}");
    screen.harness.get_by_label(&format!("Layer 0, head 0: {:.1} % of the visible blocks are kept", 100.0 * fraction));
    // Another head is part of the same answer, another block is another question, and the model stays loaded.
    screen.click("3");
    assert_eq!((screen.app().state.attention.head, asked(&record).len()), (3, 1));
    assert_ne!(screen.app().state.attention.kept_fraction(), Some(fraction));
    screen.click("64");
    assert_eq!((asked(&record).len(), loads(&record)), (2, 1));
    assert!(asked(&record)[1].attention.starts_with("asa:block=64,"), "{}", asked(&record)[1].attention);
    screen.harness.get_by_role_and_label(Role::Slider, "keep at most").focus();
    screen.harness.run();
    screen.press(Modifiers::NONE, Key::ArrowLeft);
    assert_eq!(asked(&record).len(), 3, "the slider asks");
    // What is changed while an answer is under way is asked when that has come, once.
    record.borrow_mut().silent = true;
    screen.act(Action::Attend);
    screen.app().state.attention.layer = 2;
    screen.act(Action::Attend);
    screen.act(Action::Attend);
    assert_eq!(asked(&record).len(), 4);
    record.borrow_mut().silent = false;
    let job = last(&record);
    record.borrow_mut().queue.push_back(Happening::Event(Event { job, kind: EventKind::Done }));
    screen.harness.run();
    assert_eq!((asked(&record).len(), asked(&record)[4].layer), (5, 2));
    assert!(!screen.app().state.is_busy());
    // A model that cannot be loaded is loaded anew the next time.
    let failure = Failure { message: "no room".into(), device_lost: true };
    record.borrow_mut().silent = true;
    screen.act(Action::Attend);
    let job = last(&record);
    record.borrow_mut().queue.push_back(Happening::Event(Event { job, kind: EventKind::Failed(failure) }));
    screen.harness.run();
    screen.act(Action::Attend);
    assert_eq!(loads(&record), 2);
}
