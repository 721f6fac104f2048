//! Which blocks of a text a head looks at: rows are blocks of queries, columns blocks of keys.

use eframe::egui::{self, Align2, Color32, FontId, Rect, RichText, Sense, Stroke, Ui, pos2, vec2};
use tersor_engine::session::report::Attended;

use super::is_narrow;
use super::parts::{self, Stat, card, choose_a_model_first, dim, heading, primary, small, stats};
use crate::gui::state::{Action, Attention, MOST_TOKENS, State};
use crate::gui::theme::{mix, palette};

/// Sizes of blocks to choose from.
const BLOCKS: [u32; 4] = [16, 32, 64, 128];

pub fn show(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    if state.model.is_none() {
        return choose_a_model_first(ui, actions);
    }
    egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        controls(ui, &mut state.attention, actions);
        ui.add_space(4.0);
        let Some(found) = state.attention.found.clone() else { return };
        if is_narrow(ui) {
            card(ui, |ui| mask(ui, &state.attention, &found));
            card(ui, |ui| choice(ui, &mut state.attention, &found, actions));
            return;
        }
        let width = ui.available_width();
        ui.horizontal_top(|ui| {
            ui.spacing_mut().item_spacing.x = 14.0;
            let picture = |ui: &mut Ui| card(ui, |ui| mask(ui, &state.attention, &found));
            ui.allocate_ui(vec2(0.56 * width, 0.0), |ui| ui.vertical(picture));
            ui.vertical(|ui| card(ui, |ui| choice(ui, &mut state.attention, &found, actions)));
        });
    });
}

fn controls(ui: &mut Ui, attention: &mut Attention, actions: &mut Vec<Action>) {
    card(ui, |ui| {
        heading(ui, "Where a head looks");
        dim(
            ui,
            "Reads the beginning of a novel and keeps, for every block of tokens, only the blocks before it that hold most of the \
             attention, by a sample. What is left out is neither read nor computed.",
        );
        ui.add_space(2.0);
        let changed = if is_narrow(ui) {
            let most = ui.horizontal(|ui| percent(ui, "keep at most", &mut attention.most, 0.01)).inner;
            let mass = ui.horizontal(|ui| percent(ui, "hold up to", &mut attention.mass, 0.1)).inner;
            let cut = ui.horizontal_wrapped(|ui| cut(ui, attention)).inner;
            ui.horizontal(|ui| button(ui, attention, actions));
            most | mass | cut
        } else {
            let all = |ui: &mut Ui| {
                let most = percent(ui, "keep at most", &mut attention.most, 0.01);
                let mass = percent(ui, "hold up to", &mut attention.mass, 0.1);
                let cut = cut(ui, attention);
                button(ui, attention, actions);
                most | mass | cut
            };
            ui.horizontal(all).inner
        };
        // The first time loads the model, which is for a person to decide; later answers come by themselves.
        if changed && attention.found.is_some() {
            actions.push(Action::Attend);
        }
        if let Some(progress) = &attention.progress {
            parts::progress(ui, progress);
        }
    });
}

/// A slider of parts of one.
fn percent(ui: &mut Ui, name: &str, value: &mut f32, least: f32) -> bool {
    let slider = egui::Slider::new(value, least..=1.0)
        .custom_formatter(|value, _| format!("{:.0} %", 100.0 * value))
        .custom_parser(|text| text.trim_end_matches('%').trim().parse::<f64>().ok().map(|value| value / 100.0));
    labelled(ui, name, slider)
}

/// How long the text is, and its blocks.
fn cut(ui: &mut Ui, attention: &mut Attention) -> bool {
    let mut changed = labelled(ui, "tokens", egui::DragValue::new(&mut attention.tokens).range(64..=MOST_TOKENS));
    small_label(ui, "in blocks of");
    for block in BLOCKS {
        changed |= ui.selectable_value(&mut attention.block, block, block.to_string()).changed();
    }
    changed
}

fn button(ui: &mut Ui, attention: &Attention, actions: &mut Vec<Action>) {
    if attention.running {
        if ui.button("Stop").on_hover_text("Esc").clicked() {
            actions.push(Action::Stop);
        }
    } else if primary(ui, "Look", true).on_hover_text("Ctrl+Enter").clicked() {
        actions.push(Action::Attend);
    }
}

fn small_label(ui: &mut Ui, text: &str) -> egui::Response {
    let colour = palette(ui).dim;
    ui.label(RichText::new(text).small().color(colour))
}

/// A widget behind its name; whether a person has settled on another value.
fn labelled(ui: &mut Ui, name: &str, widget: impl egui::Widget) -> bool {
    let label = small_label(ui, name);
    let response = ui.add(widget).labelled_by(label.id);
    response.drag_stopped() || (response.changed() && !response.dragged())
}

/// Which head of which layer, and how much of it is kept.
fn choice(ui: &mut Ui, attention: &mut Attention, found: &Attended, actions: &mut Vec<Action>) {
    let percent = |part: f64| format!("{:.1}", 100.0 * part);
    let all = [
        Stat::new(percent(attention.kept_fraction().unwrap_or(1.0)), "%", "kept by this head"),
        Stat::new(percent(found.attention.kept_fraction), "%", "kept by all"),
        Stat::new(found.tokens.to_string(), "", "tokens"),
    ];
    stats(ui, &all);
    ui.add_space(4.0);
    let mut layer = attention.layer;
    ui.horizontal(|ui| {
        small_label(ui, "layer");
        let most = found.layers.saturating_sub(1);
        let label = small_label(ui, &format!("0 to {most}"));
        if ui.add(egui::DragValue::new(&mut layer).range(0..=most)).labelled_by(label.id).changed() {
            attention.layer = layer;
            actions.push(Action::Attend);
        }
    });
    ui.horizontal_wrapped(|ui| {
        small_label(ui, "head");
        for head in 0..found.heads {
            ui.selectable_value(&mut attention.head, head, head.to_string());
        }
    });
    small(ui, format!("Policy: {}", found.attention.policy));
    small(
        ui,
        "Every layer and head has a mask of its own. The first block and a query's own always come before all others.",
    );
}

/// The picture.
fn mask(ui: &mut Ui, attention: &Attention, found: &Attended) {
    let p = palette(ui);
    let title = format!("Layer {}, head {}", found.layer, attention.head);
    ui.label(RichText::new(&title).size(16.0));
    let columns = found.tokens.div_ceil(found.block.max(1)).max(1);
    let side = ui.available_width().min(480.0);
    let (rect, response) = ui.allocate_exact_size(vec2(side, side), Sense::hover());
    let scale = side / (columns * found.block) as f32;
    let place = |row: &tersor_engine::session::report::AttendedRow, j: u32| {
        let left = rect.left() + scale * (j * found.block) as f32;
        let top = rect.top() + scale * row.position as f32;
        Rect::from_min_size(pos2(left, top), scale * vec2(found.block as f32, row.tokens as f32))
    };
    let gap = if scale * found.block as f32 >= 6.0 { 0.5 } else { 0.0 };
    let (mut pointed, seen) = (None, mix(p.card, p.ink, 0.10));
    for row in &found.rows {
        let Some(kept) = row.kept.get(attention.head as usize) else { continue };
        for j in row.visible[0]..row.visible[1] {
            let area = place(row, j);
            let is_kept = kept.binary_search(&j).is_ok();
            ui.painter().rect_filled(area.shrink(gap), 0, if is_kept { p.accent } else { seen });
            if response.hover_pos().is_some_and(|pointer| area.contains(pointer)) {
                pointed = Some((row, j, is_kept, area));
            }
        }
    }
    ui.painter().rect_stroke(rect, 0, Stroke::new(1.0, p.line), egui::StrokeKind::Outside);
    // Above the diagonal nothing can be kept, so there is room.
    let (at, font) = (rect.right_top() + vec2(-8.0, 8.0), FontId::proportional(12.5));
    ui.painter().text(at, Align2::RIGHT_TOP, "queries down, keys across", font, p.dim);
    let fraction = attention.kept_fraction().unwrap_or(1.0);
    let spoken = format!("{title}: {:.1} % of the visible blocks are kept", 100.0 * fraction);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, &spoken));
    if let Some((row, j, is_kept, area)) = pointed {
        ui.painter().rect_stroke(area, 0, Stroke::new(1.5, p.ink), egui::StrokeKind::Inside);
        let keys = [j * found.block, ((j + 1) * found.block).min(found.tokens)];
        let what = if is_kept { "kept" } else { "left out" };
        let (first, last) = (row.position, row.position + row.tokens - 1);
        response.on_hover_text_at_pointer(format!(
            "tokens {first} to {last} at {} to {}: {what}",
            keys[0],
            keys[1] - 1
        ));
    }
    ui.horizontal_wrapped(|ui| {
        let mut key = |colour: Color32, text: &str| {
            parts::swatch(ui, colour);
            ui.label(RichText::new(text).small().color(p.dim));
        };
        key(p.accent, "kept");
        key(seen, "left out");
    });
}
