//! The first page: the device in plain words, and models to choose from.

use eframe::egui::{self, RichText, Ui, vec2};
use tersor_engine::gpu::AdapterSummary;

use super::parts::{card, dim, heading, primary, progress, small};
use super::{clickable_card, is_narrow};
use crate::gui::client::{Kept, Known};
use crate::gui::library::Origin;
use crate::gui::state::{Action, State, Tab};
use crate::gui::theme::{mono, palette};
use crate::report::driver;
use crate::units::{bytes, count};

pub fn show(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        if is_narrow(ui) {
            device(ui, state);
            ui.add_space(8.0);
            models(ui, state, actions);
        } else {
            let width = ui.available_width();
            ui.horizontal_top(|ui| {
                ui.spacing_mut().item_spacing.x = 20.0;
                let left = (0.62 * width).min(760.0);
                ui.allocate_ui(vec2(left, 0.0), |ui| ui.vertical(|ui| models(ui, state, actions)));
                ui.allocate_ui(vec2((width - left - 20.0).min(460.0), 0.0), |ui| ui.vertical(|ui| device(ui, state)));
            });
        }
    });
}

fn models(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    heading(ui, "Choose a model");
    dim(
        ui,
        "It opens in its original precision beside compressed copies of itself, so that you see what compression changes.",
    );
    ui.add_space(6.0);
    for known in &state.known {
        known_model(ui, state, known, actions);
    }
    for origin in &state.settings.recent {
        let Origin::Path(path) = origin else { continue };
        let name = origin.name();
        let chosen = state.model.as_ref().is_some_and(|model| model.origin == *origin);
        let response = clickable_card(ui, chosen, &name, |ui| {
            ui.label(RichText::new(&name).font(mono(15.0)));
            small(ui, path.display().to_string());
            opening(ui, state, origin);
        });
        if response.clicked() {
            actions.push(Action::Open(origin.clone()));
        }
    }
    for kept in &state.stored {
        kept_model(ui, state, kept, actions);
    }
    card(ui, |ui| {
        ui.horizontal_wrapped(|ui| {
            if ui.button("Open a file…").on_hover_text("Ctrl+O").clicked() {
                actions.push(Action::Pick);
            }
            dim(ui, "or drop a .gguf or .safetensors file on this window.");
        });
        if let Some(typed) = &mut state.typed {
            ui.horizontal(|ui| {
                let edit = egui::TextEdit::singleline(typed)
                    .hint_text(if cfg!(target_arch = "wasm32") {
                        "A Hugging Face id: org/name"
                    } else {
                        "A path, or a Hugging Face id: org/name"
                    })
                    .align(egui::Align2::LEFT_CENTER)
                    .desired_width((ui.available_width() - 76.0).max(60.0));
                let response = ui.add(edit);
                response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::TextInput, true, "Path or id"));
                let entered = response.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
                let name = typed.trim().to_owned();
                if (ui.add_enabled(!name.is_empty(), egui::Button::new("Open")).clicked() || entered)
                    && !name.is_empty()
                {
                    actions.push(Action::Fetch(name));
                }
            });
        }
        let listed = |origin: &Origin| {
            state.known.iter().any(|known| Origin::Named(known.name.clone()) == *origin)
                || state.settings.recent.contains(origin)
                || state.stored.iter().any(|kept| Origin::Named(kept.name.clone()) == *origin)
        };
        if let Some(open) = state.opening.as_ref().filter(|open| !listed(&open.origin)) {
            opening(ui, state, &open.origin);
        }
    });
    if let Some(model) = &state.model {
        let inspection = &model.inspection;
        ui.add_space(4.0);
        card(ui, |ui| {
            ui.label(RichText::new(&inspection.model.name).font(mono(15.0)));
            let m = &inspection.model;
            dim(
                ui,
                format!(
                    "{} · {} parameters · {} tensors · {} as {}",
                    if m.architecture.is_empty() { "unknown architecture" } else { &m.architecture },
                    count(m.parameters),
                    inspection.tensors.len(),
                    bytes(m.file_bytes),
                    inspection.container
                ),
            );
            if primary(ui, "Compare", true).clicked() {
                actions.push(Action::Show(Tab::Compare));
            }
        });
    }
}

fn known_model(ui: &mut Ui, state: &State, known: &Known, actions: &mut Vec<Action>) {
    let origin = Origin::Named(known.name.clone());
    let chosen = state.model.as_ref().is_some_and(|model| model.origin == origin);
    let p = palette(ui);
    let response = clickable_card(ui, chosen, &known.name, |ui| {
        ui.horizontal(|ui| {
            ui.label(RichText::new(&known.name).font(mono(15.0)).color(if known.unavailable.is_some() {
                p.dim
            } else {
                p.ink
            }));
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                let size = if known.bytes == 0 { "part of the program".to_owned() } else { bytes(known.bytes) };
                ui.label(RichText::new(size).small().color(p.dim));
            });
        });
        dim(ui, super::parts::capital(&known.description));
        small(
            ui,
            match &known.unavailable {
                Some(why) => why.clone(),
                None => format!("Licence {}", known.license),
            },
        );
        opening(ui, state, &origin);
    });
    if response.clicked() && known.unavailable.is_none() {
        actions.push(Action::Fetch(known.name.clone()));
    }
}

/// A model that the browser keeps.
fn kept_model(ui: &mut Ui, state: &State, kept: &Kept, actions: &mut Vec<Action>) {
    let origin = Origin::Named(kept.name.clone());
    let chosen = state.model.as_ref().is_some_and(|model| model.origin == origin);
    let p = palette(ui);
    let response = clickable_card(ui, chosen, &kept.name, |ui| {
        ui.horizontal(|ui| {
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                let delete = ui.button("Delete").on_hover_text("Frees its space in this browser");
                delete.widget_info(|| {
                    egui::WidgetInfo::labeled(egui::Role::Button, true, format!("Delete {}", kept.name))
                });
                if delete.clicked() {
                    actions.push(Action::Forget(kept.name.clone()));
                }
                ui.label(RichText::new(bytes(kept.bytes)).small().color(p.dim));
                ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                    ui.add(egui::Label::new(RichText::new(&kept.name).font(mono(15.0))).truncate());
                });
            });
        });
        small(ui, "Kept in this browser");
        opening(ui, state, &origin);
    });
    if response.clicked() {
        actions.push(Action::Fetch(kept.name.clone()));
    }
}

/// How far the model is that is being opened.
fn opening(ui: &mut Ui, state: &State, origin: &Origin) {
    let Some(opening) = state.opening.as_ref().filter(|opening| opening.origin == *origin) else { return };
    match &opening.progress {
        Some(found) => progress(ui, found),
        None => {
            small(ui, "Opening…");
        }
    }
}

fn device(ui: &mut Ui, state: &State) {
    heading(ui, "This device");
    let Some(adapters) = &state.adapters else {
        card(ui, |ui| dim(ui, "Looking for a GPU…"));
        return;
    };
    let Some(adapter) = state.adapter() else {
        card(ui, |ui| {
            ui.label("No GPU that can be used.");
            dim(
                ui,
                "tersor needs a driver for Vulkan, Metal or Direct3D 12, or a browser with WebGPU. On Linux without a GPU, Mesa's \
                     software Vulkan (mesa-vulkan-drivers) will do.",
            );
        });
        return;
    };
    card(ui, |ui| {
        ui.label(RichText::new(super::parts::short_name(&adapter.name)).size(17.0));
        // Browsers do not tell the driver.
        let driver = driver(&adapter.name, &adapter.driver);
        let dot = if driver.is_empty() { "" } else { " · " };
        small(ui, format!("{}{dot}{driver}", adapter.backend));
        ui.add_space(4.0);
        for (name, value) in plain_words(adapter) {
            row(ui, name, &value);
        }
    });
    let others = adapters.adapters.len() - 1;
    if others > 0 {
        small(ui, format!("{others} more; start with --adapter to use another one"));
    }
}

/// What an adapter can do, for people.
fn plain_words(adapter: &AdapterSummary) -> Vec<(&'static str, String)> {
    let kind = match adapter.kind.as_str() {
        "DiscreteGpu" => "graphics card with memory of its own",
        "IntegratedGpu" => "graphics processor that shares the computer's memory",
        "VirtualGpu" => "virtual graphics card",
        "Cpu" => "software on the processor: right, but slow",
        _ => "graphics processor",
    };
    let tier = match (adapter.tier.f16, adapter.tier.subgroup) {
        (true, true) => "16-bit floats and subgroups: the fastest kernels",
        (true, false) => "16-bit floats",
        (false, true) => "subgroups",
        (false, false) => "portable kernels, which run everywhere",
    };
    let mut words = vec![("Kind", kind.to_owned()), ("Shaders", tier.to_owned())];
    if let Some(memory) = adapter.memory {
        words.push(("Memory", bytes(memory)));
    }
    words.push(("Largest buffer", bytes(adapter.max_buffer)));
    words.push(("Bound at once", format!("{}; larger tensors are split", bytes(adapter.max_binding))));
    words
}

fn row(ui: &mut Ui, name: &str, value: &str) {
    let p = palette(ui);
    ui.horizontal_top(|ui| {
        ui.allocate_ui(vec2(112.0, 18.0), |ui| {
            ui.set_width(112.0);
            ui.label(RichText::new(name).small().color(p.dim));
        });
        ui.add(egui::Label::new(RichText::new(value).small()).wrap());
    });
}
