//! Choosing a method: a list of all, with what each would make of the model, the parameters of the chosen one, and what can be put
//! before, around and behind it. What is chosen is a recipe in a field that can also be typed into, so that everything that can be
//! spelled can be had.

use eframe::egui::{self, RichText, Ui, vec2};
use tersor_engine::codec::describe::{Composition, Family, Method, Part, Place, Values};
use tersor_engine::session::Slot;
use tersor_engine::session::report::Weights;

use super::parts::small;
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
    let whole = Composition::read(&column.recipe);
    if let Some(whole) = &whole {
        let codec = parameters(ui, &whole.codec);
        if let Some(codec) = codec {
            let mut new = whole.clone();
            new.codec = codec;
            actions.push(Action::Change(slot, new.spelling()));
        }
        for place in Place::ALL {
            combined(ui, slot, whole, place, actions);
        }
    } else {
        small(ui, "This recipe is more than the form can show; it can be changed in the field above.");
    }
    ui.separator();
    let name = whole.map(|whole| whole.codec.method.name);
    let height = (ui.ctx().content_rect().height() - 520.0).clamp(160.0, 420.0);
    egui::ScrollArea::vertical().max_height(height).auto_shrink([false, true]).show(ui, |ui| {
        list(ui, slot, &column.recipe, compare, name, room, actions);
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

/// A choice in one line: what it is about, then every alternative. Popups cannot hang on this one, and what there is to choose
/// from is worth seeing.
fn choice(ui: &mut Ui, label: &str, hint: &str, alternatives: impl FnOnce(&mut Ui)) {
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(4.0, 2.0);
        let label = ui.label(RichText::new(label).small().color(palette(ui).dim));
        if !hint.is_empty() {
            label.on_hover_text(hint);
        }
        alternatives(ui);
    });
}

/// The parameters of a part; what it becomes when one of them is changed.
fn parameters(ui: &mut Ui, part: &Part) -> Option<Part> {
    let mut new = part.clone();
    for (parameter, value) in part.method.parameters.iter().zip(&mut new.values) {
        match parameter.values {
            Values::OneOf(choices) | Values::Bare(choices) => {
                let mut sorted: Vec<&str> = choices.to_vec();
                if choices.iter().all(|value| value.parse::<f64>().is_ok()) {
                    sorted.sort_by(|a, b| a.parse().unwrap_or(0.0f64).total_cmp(&b.parse().unwrap_or(0.0)));
                }
                choice(ui, parameter.name, parameter.what, |ui| {
                    for choice in sorted {
                        ui.selectable_value(value, choice.to_owned(), choice);
                    }
                });
            }
            Values::Switch(_) => {
                let mut on = value == "on";
                ui.checkbox(&mut on, RichText::new(parameter.name).small()).on_hover_text(parameter.what);
                *value = if on { "on" } else { "off" }.to_owned();
            }
        }
    }
    (new != *part).then_some(new)
}

/// What stands beside the codec at a place: nothing, or a method with its parameters. What cannot be there is greyed, and says why.
fn combined(ui: &mut Ui, slot: Slot, whole: &Composition, place: Place, actions: &mut Vec<Action>) {
    let now = whole.part(place);
    let candidates: Vec<(Method, Composition, Option<String>)> = place
        .methods()
        .into_iter()
        .map(|method| {
            let candidate = whole.clone().with(place, Some(Part::new(method)));
            let refusal = candidate.refusal();
            (method, candidate, refusal)
        })
        .collect();
    // Only a sparse codec has kept weights to store.
    if place == Place::Values && now.is_none() && candidates.iter().all(|(.., refusal)| refusal.is_some()) {
        return;
    }
    let mut new = None;
    choice(ui, place.what(), now.map_or("", |part| part.method.what), |ui| {
        if ui.selectable_label(now.is_none(), "–").clicked() && now.is_some() {
            new = Some(whole.clone().with(place, None));
        }
        for (method, candidate, refusal) in candidates {
            let selected = now.is_some_and(|part| part.method.name == method.name);
            // Codecs that no sparse one can hold would only fill the line.
            if place == Place::Values && refusal.is_some() && !selected {
                continue;
            }
            let label = egui::Button::selectable(selected, method.name);
            let response = ui.add_enabled(refusal.is_none() || selected, label);
            let response = response.on_hover_text(method.what).on_disabled_hover_text(refusal.unwrap_or_default());
            if response.clicked() && !selected {
                new = Some(candidate);
            }
        }
    });
    if let Some(part) = now.and_then(|part| parameters(ui, part)) {
        new = Some(whole.clone().with(place, Some(part)));
    }
    if let Some(new) = new {
        actions.push(Action::Change(slot, new.spelling()));
    }
}

fn list(
    ui: &mut Ui,
    slot: Slot,
    recipe: &str,
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
            let selected = chosen == Some(method.name) || recipe == method.name;
            let response = ui.add_enabled_ui(full.is_none(), |ui| entry(ui, method, weights.as_ref(), selected)).inner;
            let response = response.on_disabled_hover_text(full.unwrap_or_default());
            if response.clicked() {
                actions.push(Action::Change(slot, method.spelling(&[])));
            }
        }
    }
    ui.add_space(4.0);
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
