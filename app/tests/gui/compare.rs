//! What a person does with models and with texts side by side: clicks, keys, and what follows from them.

use std::cell::RefCell;
use std::rc::Rc;

use eframe::egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable as _;
use tersor::gui::start::Start;
use tersor::gui::state::{Action, Phase, Remedy, Settings, Tab};
use tersor_engine::session::{Command, Failure};

use super::screen::{Screen, desk, screen, with_tiny};
use super::scripted::{ORIGINAL, PART, Record};

#[test]
fn a_model_is_chosen_and_compared_with_two_clicks() {
    let (mut screen, record) = desk(Start::default());
    assert_eq!(screen.app().state.tab, Tab::Models);
    screen.click("tiny");
    assert_eq!(record.borrow().fetched, ["tiny"]);
    assert_eq!(screen.app().state.tab, Tab::Compare);
    screen.click("Run");
    let state = &screen.app().state;
    assert_eq!(state.compare.columns[0].text(), ORIGINAL.concat());
    assert!(state.compare.columns.iter().all(|column| column.phase == Phase::Idle && column.loaded.is_some()));
    assert_eq!(state.compare.columns[1].first_difference, None);
    assert!(state.compare.columns[1].divergence().is_some());
    // The text is there for screen readers, too.
    assert_eq!(screen.harness.get_all_by_label(&ORIGINAL.concat()).count(), 2);
}

#[test]
fn every_page_and_action_has_a_key() {
    let (mut screen, record) = desk(with_tiny());
    for (key, tab) in [
        (Key::Num3, Tab::Quality),
        (Key::Num4, Tab::Tensors),
        (Key::Num5, Tab::Kernels),
        (Key::Num6, Tab::Attention),
        (Key::Num1, Tab::Models),
        (Key::Num2, Tab::Compare),
    ] {
        screen.press(Modifiers::ALT, key);
        assert_eq!(screen.app().state.tab, tab);
    }
    screen.press(Modifiers::COMMAND, Key::O);
    assert_eq!(record.borrow().picked, 1);
    // The key that runs does what the page is for.
    for (tab, is_meant) in [
        (Tab::Quality, (|command| matches!(command, Command::Compare(_))) as fn(&Command) -> bool),
        (Tab::Kernels, |command| matches!(command, Command::Bench(_))),
        (Tab::Attention, |command| matches!(command, Command::Attend(_))),
        (Tab::Compare, |command| matches!(command, Command::Generate(_))),
    ] {
        screen.act(Action::Show(tab));
        assert!(!record.borrow().sent.iter().any(is_meant));
        screen.press(Modifiers::COMMAND, Key::Enter);
        assert!(record.borrow().sent.iter().any(is_meant), "{}", tab.name());
    }
    assert!(!screen.app().state.compare.columns[0].pieces.is_empty());
    // Esc stops what runs.
    record.borrow_mut().silent = true;
    screen.press(Modifiers::COMMAND, Key::Enter);
    assert!(screen.app().state.compare.is_running());
    screen.press(Modifiers::NONE, Key::Escape);
    assert!(!screen.app().state.compare.is_running());
    assert!(!record.borrow().cancelled.is_empty());
}

#[test]
fn what_is_loaded_is_not_loaded_again_and_what_changed_is() {
    let loads = |record: &Rc<RefCell<Record>>| {
        record.borrow().sent.iter().filter(|command| matches!(command, Command::Load(_))).count()
    };
    let (mut screen, record) = desk(Start { run: true, ..with_tiny() });
    assert_eq!(loads(&record), 2);
    screen.act(Action::Run);
    assert_eq!(loads(&record), 2);
    let slot = screen.app().state.compare.columns[1].slot;
    screen.act(Action::Change(slot, "q2_k".into()));
    assert!(screen.app().state.compare.columns[1].pieces.is_empty());
    screen.act(Action::Run);
    assert_eq!(loads(&record), 3);
    let column = &screen.app().state.compare.columns[1];
    assert_eq!(column.first_difference, Some(PART));
    screen.act(Action::Rotate(true));
    screen.act(Action::Run);
    assert_eq!(loads(&record), 5, "another basis is another model");
}

#[test]
fn sizes_are_there_before_anything_runs_and_nonsense_is_explained() {
    let (mut screen, record) = desk(with_tiny());
    let slot = screen.app().state.compare.columns[1].slot;
    let plan = screen.app().state.compare.columns[1].plan.clone().unwrap().unwrap();
    assert!((plan.bits_per_weight - 4.5).abs() < 1e-9);
    assert!(!record.borrow().sent.iter().any(|command| matches!(command, Command::Load(_))));
    screen.act(Action::Change(slot, "q4k".into()));
    let why = screen.app().state.compare.columns[1].plan.clone().unwrap().unwrap_err();
    assert!(why.contains("did you mean `q4_k`"), "{why}");
    screen.act(Action::Run);
    let columns = &screen.app().state.compare.columns;
    assert!(matches!(&columns[1].phase, Phase::Failed(found) if *found == why));
    assert!(!columns[0].pieces.is_empty(), "the original writes all the same");
}

#[test]
fn columns_come_and_go() {
    let (mut screen, record) = desk(Start { run: true, ..with_tiny() });
    screen.click("Add a compression");
    screen.click("Add a compression");
    assert_eq!(screen.app().state.settings.recipes, ["q4_k", "q8_0", "q3_k"]);
    assert!(screen.harness.query_by_label("Add a compression").is_none(), "there is no room for more");
    let slot = screen.app().state.compare.columns[1].slot;
    screen.act(Action::Remove(slot));
    assert_eq!(screen.app().state.settings.recipes, ["q8_0", "q3_k"]);
    assert!(record.borrow().sent.contains(&Command::Unload(slot)), "its memory is given back");
}

#[test]
fn a_lost_device_can_be_recovered_from_in_one_click() {
    let (mut screen, record) = desk(with_tiny());
    record.borrow_mut().failure = Some(Failure { message: "device lost".into(), device_lost: true });
    screen.act(Action::Run);
    let notice = screen.app().state.notice.clone().unwrap();
    assert_eq!(notice.remedy, Some(("Load again and run", Remedy::Run)));
    assert!(!screen.app().state.is_busy());
    record.borrow_mut().failure = None;
    screen.click("Load again and run");
    assert_eq!(screen.app().state.notice, None);
    assert_eq!(screen.app().state.compare.columns[1].pieces.len(), ORIGINAL.len());
}

#[test]
fn a_model_that_cannot_be_had_here_says_so() {
    let (mut screen, record) = desk(Start::default());
    screen.click("minilm-l6");
    assert!(record.borrow().fetched.is_empty());
    screen.harness.get_by_label("In a browser: drop the file on this page.");
}

#[test]
fn whatever_the_command_line_opens_can_be_typed() {
    let (mut screen, record) = desk(Start::default());
    screen.app().state.typed = Some(" org/name ".to_owned());
    screen.click("Open");
    assert_eq!(record.borrow().fetched, ["org/name"]);
    assert_eq!(screen.app().state.tab, Tab::Compare, "what is opened is shown");
}

#[test]
fn nothing_moves_when_nothing_happens() {
    let (mut screen, _) = desk(Start { run: true, ..with_tiny() });
    screen.harness.run();
    for _ in 0..3 {
        screen.harness.step();
        let output = &screen.harness.output().viewport_output;
        let delay = output.values().map(|viewport| viewport.repaint_delay).min().unwrap();
        assert!(delay > std::time::Duration::from_secs(3600), "another frame is asked for in {delay:?}");
    }
}

#[test]
fn compressions_judge_the_originals_text_where_that_is_asked_for() {
    let settings = Settings { recipes: vec!["q2_k".into()], forced: true, ..Settings::default() };
    let (mut screen, record) = screen([1280.0, 800.0], settings, Start { run: true, ..with_tiny() });
    let state = &screen.app().state;
    let [original, other] = state.compare.columns.as_slice() else { panic!() };
    assert_eq!(other.text(), ORIGINAL.concat());
    assert_eq!((&other.phase, other.speed), (&Phase::Idle, None), "it wrote nothing");
    assert_eq!(other.first_difference, Some(0), "where its most likely token is another");
    let tokens: Vec<u32> = original.pieces.iter().map(|piece| piece.token).collect();
    let asked = |command: &Command| matches!(command, Command::Score(score) if score.tokens == tokens);
    assert!(record.borrow().sent.iter().any(asked));
    assert_eq!(record.borrow().sent.iter().filter(|c| matches!(c, Command::Generate(_))).count(), 1);
    // A model that cannot be loaded leaves nobody waiting.
    record.borrow_mut().failure = Some(Failure { message: "no room".into(), device_lost: false });
    let slot = screen.app().state.compare.columns[0].slot;
    let rotated = Action::Rotate(true);
    screen.act(rotated);
    screen.act(Action::Run);
    assert!(!screen.app().state.compare.is_running());
    assert!(matches!(&screen.app().state.compare.column(slot).unwrap().phase, Phase::Failed(why) if why == "no room"));
}

#[test]
fn recipes_are_put_together_in_the_form() {
    let (mut screen, _) = desk(with_tiny());
    let recipe = |screen: &mut Screen| screen.app().state.compare.columns[1].recipe.clone();
    screen.click("q4_k");
    screen.click("eora");
    assert_eq!(recipe(&mut screen), "q4_k+eora:rank=32");
    let plan = screen.app().state.compare.columns[1].plan.clone().unwrap().unwrap();
    assert!(plan.bits_per_weight > 4.5, "a correction takes room: {}", plan.bits_per_weight);
    screen.click("prune");
    assert_eq!(recipe(&mut screen), "prune:ffn=25+q4_k+eora:rank=32");
    assert!(matches!(screen.app().state.compare.columns[1].plan, Some(Ok(_))));
}
