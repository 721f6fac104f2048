//! What a person does on the kernels page.

use eframe::egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable as _;
use tersor::gui::client::Happening;
use tersor::gui::start::Start;
use tersor::gui::state::{Action, Tab};
use tersor_engine::progress::{Progress, Unit};
use tersor_engine::session::report::Benchmark;
use tersor_engine::session::{Command, Event, EventKind, Failure, JobId, Report};

use super::screen::desk;

#[test]
fn kernels_are_measured_without_a_model_and_only_those_asked_for() {
    let (mut screen, record) = desk(Start { tab: Some(Tab::Kernels), ..Start::default() });
    screen.harness.get_by_label("Only with these words").focus();
    screen.harness.run();
    screen.harness.get_by_label("Only with these words").type_text("matvec q4_k, attention-decode");
    screen.harness.run();
    screen.harness.get_by_label("2 measurements");
    screen.click("Everything");
    screen.click("Measure");
    let plan = record.borrow().sent.iter().find_map(|command| match command {
        Command::Bench(plan) => Some(plan.clone()),
        _ => None,
    });
    let plan = plan.unwrap();
    assert_eq!((plan.filter, plan.quick), (vec!["matvec q4_k".to_owned(), "attention-decode".to_owned()], false));
    let found = screen.app().state.kernels.found.clone().unwrap();
    let first = &found.findings.measurements[0];
    screen.harness.get_by_label_contains(&first.name);
    screen.harness.get_by_label_contains("Left out: attention-decode");

    // What nothing is called cannot be measured, and the key for it says why.
    screen.app().state.kernels.filter = "nonsense".to_owned();
    screen.act(Action::Bench);
    let notice = screen.app().state.notice.clone().unwrap();
    assert!(notice.text.contains("nonsense"), "{}", notice.text);
}

#[test]
fn measuring_kernels_can_be_stopped_and_what_was_measured_stays() {
    let start = Start { tab: Some(Tab::Kernels), run: true, ..Start::default() };
    let (mut screen, record) = desk(start);
    assert!(screen.app().state.kernels.found.is_some(), "it begins at once where that is asked for");
    record.borrow_mut().silent = true;
    screen.act(Action::Bench);
    let job = record.borrow().sent.len() as u64;
    let stage = "matvec q4_k 4096x4096 1".to_owned();
    let progress = Progress { stage: stage.clone(), done: 3, total: 17, unit: Unit::Measurements };
    let event = Event { job: JobId(job), kind: EventKind::Progress(progress) };
    record.borrow_mut().queue.push_back(Happening::Event(event));
    screen.harness.run();
    screen.harness.get_by_label("Matvec q4_k 4096x4096 1");
    // Rows are there as they come.
    let all = screen.app().state.kernels.found.clone().unwrap();
    for count in [0, 2] {
        let mut part = all.clone();
        part.findings.measurements.truncate(count);
        let kind = EventKind::Partial(Box::new(Report::Bench(Box::new(part))));
        record.borrow_mut().queue.push_back(Happening::Event(Event { job: JobId(job), kind }));
        screen.harness.run();
        assert!(screen.app().state.kernels.running);
        for (number, measurement) in all.findings.measurements.iter().enumerate() {
            let shown = screen.harness.query_by_label_contains(&format!("{} ", measurement.name)).is_some();
            assert_eq!(shown, number < count, "{}", measurement.name);
        }
    }
    screen.click("Stop");
    assert_eq!(record.borrow().cancelled, [JobId(job)]);
    let kernels = &screen.app().state.kernels;
    assert!(!kernels.running && kernels.progress.is_none());
    assert_eq!(kernels.found.as_ref().unwrap().findings.measurements, all.findings.measurements[..2]);
    // What there is can be saved.
    screen.click("JSON");
    let saved = record.borrow().saved.last().unwrap().clone();
    let Ok(Report::Bench(found)) = serde_json::from_slice(&saved.1) else { panic!("{}", saved.0) };
    assert_eq!(found.findings.measurements.len(), 2);
}

#[test]
fn what_is_measured_by_and_by_is_drawn_like_all_at_once() {
    let (mut at_once, _) = desk(Start { tab: Some(Tab::Kernels), run: true, ..Start::default() });
    let all = at_once.app().state.kernels.found.clone().unwrap();
    let (mut by_and_by, record) = desk(Start { tab: Some(Tab::Kernels), ..Start::default() });
    record.borrow_mut().silent = true;
    by_and_by.act(Action::Bench);
    let job = JobId(record.borrow().sent.len() as u64);
    let mut none = all.clone();
    none.findings.measurements.clear();
    let report = |found| Box::new(Report::Bench(Box::new(found)));
    for kind in [EventKind::Partial(report(none)), EventKind::Report(report(all)), EventKind::Done] {
        record.borrow_mut().queue.push_back(Happening::Event(Event { job, kind }));
        by_and_by.harness.run();
    }
    let [one, other] = [&mut at_once, &mut by_and_by].map(|screen| screen.harness.render().unwrap());
    // But for what rounding does to a pixel here and there.
    assert!(one.as_raw().iter().zip(other.as_raw()).all(|(a, b)| a.abs_diff(*b) <= 4), "another picture");
}

#[test]
fn a_device_lost_while_measuring_is_measured_again_in_one_click() {
    let (mut screen, record) = desk(Start { tab: Some(Tab::Kernels), ..Start::default() });
    record.borrow_mut().silent = true;
    screen.act(Action::Bench);
    let job = JobId(record.borrow().sent.len() as u64);
    let failure = Failure { message: "device lost".into(), device_lost: true };
    let event = Event { job, kind: EventKind::Failed(failure) };
    record.borrow_mut().queue.push_back(Happening::Event(event));
    screen.harness.run();
    assert!(!screen.app().state.kernels.running);
    record.borrow_mut().silent = false;
    screen.click("Measure again");
    assert!(screen.app().state.kernels.found.is_some() && screen.app().state.notice.is_none());
}

#[test]
fn kernels_are_saved_and_what_cannot_be_saved_is_said() {
    let (mut screen, record) = desk(Start { tab: Some(Tab::Kernels), ..Start::default() });
    screen.press(Modifiers::COMMAND, Key::S);
    assert!(record.borrow().saved.is_empty());
    assert!(screen.app().state.notice.clone().unwrap().text.contains("measure first"));
    screen.app().state.kernels.filter = "matvec q4_k, matmul".to_owned();
    screen.act(Action::Bench);
    screen.press(Modifiers::COMMAND, Key::S);
    screen.click("JSON");
    screen.click("SVG");
    screen.press(Modifiers::COMMAND | Modifiers::SHIFT, Key::S);
    assert_eq!(record.borrow().saved.last().unwrap().0, "kernels-example-gpu-4000-vulkan.png");
    let saved = record.borrow().saved.clone();
    let [html, json, svg] = [0, 1, 2].map(|i| String::from_utf8(saved[i].1.clone()).unwrap());
    assert_eq!(saved[0].0, "kernels-example-gpu-4000-vulkan.html");
    assert!(html.contains("tersor bench --quick --filter &#39;matvec q4_k&#39; --filter matmul"), "{html}");
    let Ok(Report::Bench(found)) = serde_json::from_str(&json) else { panic!("{json}") };
    // Digits of JSON are read to within a rounding.
    let names = |found: &Benchmark| found.findings.measurements.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
    let shown = screen.app().state.kernels.found.clone().unwrap();
    assert_eq!((names(&found), &found.plan, &found.device), (names(&shown), &shown.plan, &shown.device));
    // A circle with a title for each; those of the key have none.
    assert_eq!(svg.matches("</circle>").count(), found.findings.measurements.len());
    let why = "there is no room".to_owned();
    record.borrow_mut().queue.push_back(Happening::NotSaved(why.clone()));
    screen.harness.run();
    assert_eq!(screen.app().state.notice.clone().unwrap().text, why);
}

#[test]
fn software_adapters_are_said_to_say_nothing_about_gpus() {
    let (mut screen, _) = desk(Start { tab: Some(Tab::Kernels), ..Start::default() });
    assert!(screen.harness.query_by_label_contains("say nothing about GPUs").is_none());
    screen.app().state.adapters.as_mut().unwrap().adapters[0].kind = "Cpu".to_owned();
    screen.harness.run();
    screen.harness.get_by_label_contains("say nothing about GPUs");
}
