//! Every page as a picture, light and dark, on a desk and on a phone. `UPDATE_SNAPSHOTS=1 cargo test -p tersor --test gui` draws
//! them anew where they differ; look at them before committing.

use egui_kittest::SnapshotResults;
use tersor::gui::client::Happening;
use tersor::gui::start::Start;
use tersor::gui::state::{Action, Settings, Tab};

use super::answers::report;
use super::screen::{Screen, screen};

const DESK: [f32; 2] = [1280.0, 800.0];
const PHONE: [f32; 2] = [390.0, 844.0];

/// An app in which a comparison and measurements are done and a tensor is chosen.
fn used(size: [f32; 2], dark: bool) -> Screen {
    let settings = Settings { recipes: vec!["q4_k".into(), "q2_k".into()], ..Settings::default() };
    let start = Start { model: Some("tiny".into()), run: true, dark: Some(dark), ..Start::default() };
    let (mut screen, _) = screen(size, settings, start);
    for action in [Action::Measure, Action::Tensor("model.layers.0.mlp.down_proj.weight".into())] {
        screen.act(action);
    }
    screen.act(Action::Bench);
    screen.act(Action::Attend);
    screen
}

#[test]
fn pages() {
    let mut results = SnapshotResults::new();
    for (place, size) in [("desk", DESK), ("phone", PHONE)] {
        for dark in [false, true] {
            let mut screen = used(size, dark);
            for tab in Tab::ALL {
                screen.act(Action::Show(tab));
                let theme = if dark { "dark" } else { "light" };
                let name = format!("{}_{place}_{theme}", tab.name().to_lowercase());
                results.add(screen.harness.try_snapshot(name));
            }
        }
    }
}

#[test]
fn a_report_of_another_device_is_laid_beside() {
    let mut results = SnapshotResults::new();
    for (name, size, dark) in [("quality_beside_desk_light", DESK, false), ("quality_beside_phone_dark", PHONE, true)] {
        let settings = Settings { recipes: vec!["q4_k".into(), "q2_k".into()], ..Settings::default() };
        let start = Start {
            model: Some("tiny".into()),
            dark: Some(dark),
            tab: Some(Tab::Quality),
            run: true,
            ..Start::default()
        };
        let (mut screen, record) = screen(size, settings, start);
        let bytes = report(&["q4_k", "q3_k", "uniform:bits=3"], "Other GPU 9000 (Metal)");
        record.borrow_mut().queue.push_back(Happening::Report("the laptop's.json".into(), bytes));
        screen.harness.run();
        results.add(screen.harness.try_snapshot(name));
    }
}

#[test]
fn a_method_is_chosen_from_a_list() {
    let start = Start { model: Some("tiny".into()), dark: Some(false), ..Start::default() };
    let (mut screen, _) = screen(DESK, Settings::default(), start);
    screen.click("q4_k");
    let mut results = SnapshotResults::new();
    results.add(screen.harness.try_snapshot("method_desk_light"));
}
