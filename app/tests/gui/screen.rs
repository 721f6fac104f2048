//! The app on a screen that a test can click on.

use std::cell::RefCell;
use std::rc::Rc;

use eframe::egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable as _;
use tersor::gui::App;
use tersor::gui::start::Start;
use tersor::gui::state::{Action, Settings};

use super::scripted::{Record, Scripted};

/// A window with the app in it.
pub struct Screen {
    pub harness: Harness<'static, Option<App>>,
}

/// Opens the app on a screen of this size.
pub fn screen(size: [f32; 2], settings: Settings, start: Start) -> (Screen, Rc<RefCell<Record>>) {
    let (client, record) = Scripted::new();
    let mut client = Some((client, settings, start));
    let mut harness = Harness::builder().with_size(size).with_max_steps(60).build_ui_state(
        move |ui, app: &mut Option<App>| {
            if let Some((client, settings, start)) = client.take() {
                *app = Some(App::new(ui.ctx(), Box::new(client), settings, start));
            }
            if let Some(app) = app {
                app.ui(ui);
            }
        },
        None,
    );
    harness.run();
    (Screen { harness }, record)
}

impl Screen {
    pub fn app(&mut self) -> &mut App {
        self.harness.state_mut().as_mut().unwrap()
    }

    /// Does what a button would, and draws until nothing changes any more.
    pub fn act(&mut self, action: Action) {
        self.app().act(action);
        self.harness.run();
    }

    pub fn click(&mut self, label: &str) {
        self.harness.get_by_label(label).click();
        self.harness.run();
    }

    pub fn press(&mut self, modifiers: Modifiers, key: Key) {
        self.harness.key_press_modifiers(modifiers, key);
        self.harness.run();
    }
}

/// A start that opens the model which is part of the program.
pub fn with_tiny() -> Start {
    Start { model: Some("tiny".into()), ..Start::default() }
}

/// The app on a desk.
pub fn desk(start: Start) -> (Screen, Rc<RefCell<Record>>) {
    screen([1280.0, 800.0], Settings::default(), start)
}
