//! The app: a window natively, a page in a browser, from the same code.
//!
//! In: events of a [`client::Client`]. Out: commands to it, and pixels. What the app knows is in [`state`], what it looks like in
//! `view`; where the engine works is the client's business.

pub mod client;
pub mod library;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
#[cfg(not(target_arch = "wasm32"))]
mod picture;
pub mod start;
pub mod state;
pub mod theme;
mod view;
#[cfg(target_arch = "wasm32")]
pub mod web;
pub mod wire;

use eframe::egui;

use client::Client;
use start::Start;
use state::{Action, Form, Settings, State, Tab};

/// Where settings are kept.
pub const SETTINGS: &str = "settings";

/// The app.
pub struct App {
    client: Box<dyn Client>,
    /// What it knows.
    pub state: State,
    /// What it does when all work is done.
    #[cfg(not(target_arch = "wasm32"))]
    finish: Option<picture::Finish>,
}

impl App {
    /// The app in a window whose looks it sets.
    pub fn new(ctx: &egui::Context, mut client: Box<dyn Client>, settings: Settings, start: Start) -> Self {
        theme::install(ctx);
        let mut settings = settings;
        if let Some(dark) = start.dark {
            settings.theme = if dark { egui::ThemePreference::Dark } else { egui::ThemePreference::Light };
        }
        ctx.set_theme(settings.theme);
        let state = State::new(settings, start, client.as_mut());
        Self {
            client,
            state,
            #[cfg(not(target_arch = "wasm32"))]
            finish: None,
        }
    }

    /// Does what a person asked for.
    pub fn act(&mut self, action: Action) {
        self.state.apply(action, self.client.as_mut());
    }

    /// One frame.
    pub fn ui(&mut self, ui: &mut egui::Ui) {
        while let Some(happening) = self.client.next() {
            self.state.happened(happening, self.client.as_mut());
        }
        let dropped = ui.input(|input| input.raw.dropped_files.clone());
        if !dropped.is_empty() {
            self.client.take(dropped);
        }
        let mut actions = keys(ui, self.state.tab);
        view::show(ui, &mut self.state, &mut actions);
        for action in actions {
            self.act(action);
            // What an action changed is seen at once.
            ui.ctx().request_repaint();
        }
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(finish) = &mut self.finish {
            finish.step(ui.ctx(), self.state.is_busy());
        }
    }
}

/// The keys: every action that is not a widget's has one. `tab`: the page that is shown.
fn keys(ui: &egui::Ui, tab: Tab) -> Vec<Action> {
    use egui::{Key, KeyboardShortcut, Modifiers};
    let mut actions = Vec::new();
    let pressed = |modifiers, key| ui.input_mut(|input| input.consume_shortcut(&KeyboardShortcut::new(modifiers, key)));
    let numbers = [Key::Num1, Key::Num2, Key::Num3, Key::Num4, Key::Num5, Key::Num6];
    for (tab, key) in Tab::ALL.into_iter().zip(numbers) {
        if pressed(Modifiers::ALT, key) {
            actions.push(Action::Show(tab));
        }
    }
    if pressed(Modifiers::COMMAND, Key::Enter) {
        actions.push(match tab {
            Tab::Quality => Action::Measure,
            Tab::Kernels => Action::Bench,
            Tab::Attention => Action::Attend,
            _ => Action::Run,
        });
    }
    // First, since a shortcut is also pressed with more keys than it has.
    if pressed(Modifiers::COMMAND | Modifiers::SHIFT, Key::S) {
        actions.push(Action::Export(Form::Png));
    }
    if pressed(Modifiers::COMMAND, Key::S) {
        actions.push(Action::Export(Form::Html));
    }
    if pressed(Modifiers::COMMAND, Key::O) {
        actions.push(Action::Pick);
    }
    if !egui::Popup::is_any_open(ui.ctx()) && pressed(Modifiers::NONE, Key::Escape) {
        actions.push(Action::Stop);
    }
    if pressed(Modifiers::COMMAND, Key::Q) {
        ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
    }
    actions
}

impl eframe::App for App {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        Self::ui(self, ui);
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        #[cfg(not(target_arch = "wasm32"))]
        if self.finish.is_some() {
            return;
        }
        eframe::set_value(storage, SETTINGS, &self.state.settings);
    }

    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        visuals.panel_fill.to_normalized_gamma_f32()
    }
}
