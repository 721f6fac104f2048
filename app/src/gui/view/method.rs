//! Choosing a method: a list of all, with what each would make of the model, and the parameters of the chosen one. What is chosen
//! is a recipe in a field that can also be typed into, so that everything that can be spelled can be had.

use eframe::egui::{self, RichText, Ui, vec2};
use tersor_engine::codec::describe::{Family, Method, Values};
use tersor_engine::session::Slot;
use tersor_engine::session::report::Weights;

use super::parts::{dim, small};
use crate::gui::state::{Action, Column, Compare};
use crate::gui::theme::{mono, palette};
use crate::units::bytes;

/// The popup's contents. `room`: bytes that the device has, if it says.
pub fn form(ui: &mut Ui, column: &Column, compare: &Compare, room: Option<u64>, actions: &mut Vec<Action>) {
    let slot = column.slot;
    let p = palette(ui);
    ui.horizontal(|ui| {
        let mut recipe = column.recipe.clone();
        let label = ui.label(RichText::new("Recipe").small().color(p.dim));
        let edit = egui::TextEdit::singleline(&mut recipe)
            .font(mono(14.0))
            .align(egui::Align2::LEFT_CENTER)
            .desired_width(ui.available_width());
        if ui.add(edit).labelled_by(label.id).changed() {
            actions.push(Action::Change(slot, recipe));
        }
    });
    match &column.plan {
        Some(Err(why)) => {
            ui.add(egui::Label::new(RichText::new(why).small().color(p.wrong)).wrap());
        }
        Some(Ok(weights)) => {
            small(ui, summary(weights));
            if let Some(why) = too_large(weights, room) {
                ui.add(egui::Label::new(RichText::new(why).small().color(p.wrong)).wrap());
            }
        }
        None => {}
    }
    let chosen = compare.methods.iter().find_map(|(m, _)| Some((*m, m.values(&column.recipe)?)));
    if let Some((method, values)) = &chosen {
        parameters(ui, slot, *method, values.clone(), actions);
    }
    ui.separator();
    let name = chosen.map(|(method, _)| method.name);
    let height = (ui.ctx().content_rect().height() - 430.0).clamp(180.0, 420.0);
    egui::ScrollArea::vertical().max_height(height).auto_shrink([false, true]).show(ui, |ui| {
        list(ui, slot, compare, name, room, actions);
    });
}

fn summary(weights: &Weights) -> String {
    let fallbacks = match weights.fallbacks.as_slice() {
        [] => String::new(),
        [one] => format!("; one tensor has rows it cannot hold and becomes {}", one.used),
        many => format!("; {} tensors have rows it cannot hold and become {}", many.len(), many[0].used),
    };
    format!("{} at {:.2} bits a weight{fallbacks}", bytes(weights.bytes), weights.bits_per_weight)
}

/// Why a form of the model does not fit the device, if it does not.
pub fn too_large(weights: &Weights, room: Option<u64>) -> Option<String> {
    let room = room.filter(|room| weights.bytes > *room)?;
    Some(format!("{} do not fit into the {} of this device", bytes(weights.bytes), bytes(room)))
}

fn parameters(ui: &mut Ui, slot: Slot, method: Method, mut values: Vec<String>, actions: &mut Vec<Action>) {
    for (i, parameter) in method.parameters.iter().enumerate() {
        let before = values[i].clone();
        ui.horizontal(|ui| match parameter.values {
            Values::OneOf(choices) => {
                let mut sorted: Vec<&str> = choices.to_vec();
                sorted.sort_by_key(|value| value.parse::<u32>().unwrap_or(0));
                egui::ComboBox::new((slot.0, parameter.name), parameter.name)
                    .selected_text(before.clone())
                    .width(72.0)
                    .show_ui(ui, |ui| {
                        for choice in sorted {
                            ui.selectable_value(&mut values[i], choice.to_owned(), choice);
                        }
                    });
                dim(ui, parameter.what);
            }
            Values::Switch(_) => {
                let mut on = before == "on";
                ui.checkbox(&mut on, parameter.name);
                values[i] = if on { "on" } else { "off" }.to_owned();
                dim(ui, parameter.what);
            }
        });
        if values[i] != before {
            actions.push(Action::Change(slot, method.spelling(&values)));
        }
    }
}

fn list(
    ui: &mut Ui,
    slot: Slot,
    compare: &Compare,
    chosen: Option<&str>,
    room: Option<u64>,
    actions: &mut Vec<Action>,
) {
    let families = [
        Family::Superblocks,
        Family::Integers,
        Family::Codebooks,
        Family::Sparse,
        Family::LowRank,
        Family::Lossless,
        Family::Ternary,
        Family::Other,
        Family::Dense,
    ];
    for family in families {
        let methods: Vec<_> = compare.methods.iter().filter(|(method, _)| method.family == family).collect();
        if methods.is_empty() {
            continue;
        }
        ui.add_space(6.0);
        small(ui, family.name());
        for (method, weights) in methods {
            let full = weights.as_ref().and_then(|weights| too_large(weights, room));
            let selected = chosen == Some(method.name);
            let response = ui.add_enabled_ui(full.is_none(), |ui| entry(ui, method, weights.as_ref(), selected)).inner;
            let response = response.on_disabled_hover_text(full.unwrap_or_default());
            if response.clicked() {
                actions.push(Action::Change(slot, method.spelling(&[])));
            }
        }
    }
    ui.add_space(4.0);
    let names = tersor_engine::codec::names();
    let combined = names.additions.iter().map(|name| format!("+{name}"));
    let combined: Vec<String> = combined.chain(names.wrappers.iter().map(|name| format!("{name}:…"))).collect();
    if !combined.is_empty() {
        small(ui, format!("Typed into the field, recipes can be combined: {}", combined.join(", ")));
    }
    small(ui, "Sizes are those of this model's matrices.");
}

/// A line of the list: name and sizes, below it what the method does.
fn entry(ui: &mut Ui, method: &Method, weights: Option<&Weights>, selected: bool) -> egui::Response {
    let p = palette(ui);
    let width = ui.available_width();
    let what = egui::WidgetText::from(RichText::new(method.what).small().color(p.dim));
    let what = what.into_galley(ui, Some(egui::TextWrapMode::Wrap), width - 16.0, egui::TextStyle::Small);
    let height = 30.0 + if method.what.is_empty() { 0.0 } else { what.size().y };
    let (rect, response) = ui.allocate_exact_size(vec2(width, height), egui::Sense::click());
    response.widget_info(|| egui::WidgetInfo::selected(egui::Role::RadioButton, true, selected, method.name));
    let lit = response.hovered() || response.has_focus();
    if selected || lit {
        let fill = if selected { ui.visuals().selection.bg_fill } else { p.well };
        ui.painter().rect_filled(rect, 6, fill);
    }
    let ink = if ui.is_enabled() { p.ink } else { p.dim };
    let painter = ui.painter();
    painter.text(rect.min + vec2(8.0, 6.0), egui::Align2::LEFT_TOP, method.name, mono(14.0), ink);
    if let Some(weights) = weights {
        let sizes = format!("{:.2} bits   {}", weights.bits_per_weight, bytes(weights.bytes));
        let font = egui::FontId::proportional(13.0);
        painter.text(rect.right_top() + vec2(-8.0, 6.0), egui::Align2::RIGHT_TOP, sizes, font, ink);
    }
    painter.galley(rect.min + vec2(8.0, 25.0), what, p.dim);
    response
}
