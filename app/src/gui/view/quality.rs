//! What compression costs on a text: a table, what is gained against what is given up, and where the errors are.

use eframe::egui::{self, RichText, Ui, vec2};
use tersor_engine::session::report::Variant;

use super::parts::{self, card, choose_a_model_first, dim, heading, primary, small};
use super::{errors, is_narrow, pareto};
use crate::gui::state::{Action, Measured, State};
use crate::gui::theme::{mono, palette};
use crate::units::{megabytes, significant};

pub fn show(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    if state.model.is_none() {
        return choose_a_model_first(ui, actions);
    }
    egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        controls(ui, state, actions);
        let rows = state.quality.table();
        let (trade, chosen) = (state.quality.trade, state.quality.chosen());
        if rows.is_empty() {
            return;
        }
        ui.add_space(4.0);
        if is_narrow(ui) {
            card(ui, |ui| table(ui, &rows));
            card(ui, |ui| pareto::show(ui, &rows, trade, chosen, actions));
        } else {
            let width = ui.available_width();
            ui.horizontal_top(|ui| {
                ui.spacing_mut().item_spacing.x = 14.0;
                ui.allocate_ui(vec2(0.56 * width, 0.0), |ui| ui.vertical(|ui| card(ui, |ui| table(ui, &rows))));
                ui.vertical(|ui| card(ui, |ui| pareto::show(ui, &rows, trade, chosen, actions)));
            });
        }
        if let Some(row) = rows.iter().find(|row| chosen == Some(row.variant.recipe.as_str())) {
            ui.add_space(4.0);
            card(ui, |ui| errors::show(ui, &row.variant, actions));
        }
    });
}

fn controls(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    card(ui, |ui| {
        ui.horizontal_wrapped(|ui| {
            heading(ui, "What compression costs");
        });
        let recipes: Vec<&str> = state.compare.columns.iter().skip(1).map(|column| column.recipe.as_str()).collect();
        dim(
            ui,
            format!(
                "Predicts a chapter of a novel with the original and with {}, and compares every prediction. Measurements add up: \
             change the columns of the Compare page and measure again.",
                if recipes.is_empty() { "nothing else yet".to_owned() } else { recipes.join(", ") }
            ),
        );
        ui.add_space(2.0);
        ui.horizontal_wrapped(|ui| {
            let p = palette(ui);
            let s = &mut state.settings;
            let label = ui.label(RichText::new("windows").small().color(p.dim));
            ui.add(egui::DragValue::new(&mut s.windows).range(1..=64)).labelled_by(label.id);
            let label = ui.label(RichText::new("of").small().color(p.dim));
            ui.add(egui::DragValue::new(&mut s.context).range(16..=2048)).labelled_by(label.id);
            ui.label(RichText::new("tokens").small().color(p.dim));
            if state.quality.running {
                if ui.button("Stop").on_hover_text("Esc").clicked() {
                    actions.push(Action::Stop);
                }
            } else if primary(ui, "Measure", true).clicked() {
                actions.push(Action::Measure);
            }
        });
        if let Some(found) = &state.quality.progress {
            parts::progress(ui, found);
        }
    });
}

/// Cells of a row.
fn cells(variant: &Variant) -> [String; 7] {
    let quality = variant.quality.as_ref();
    let divergence = quality.and_then(|q| q.divergence.as_ref());
    let text = |value: Option<String>| value.unwrap_or_default();
    [
        variant.recipe.clone(),
        format!("{:.1}", megabytes(variant.weights.bytes)),
        format!("{:.2}", variant.weights.bits_per_weight),
        text(quality.map(|q| significant(q.perplexity.value))),
        text(divergence.map(|d| significant(d.kl_divergence.mean))),
        text(divergence.map(|d| significant(d.kl_divergence.percentile_99))),
        text(divergence.map(|d| format!("{:.1} %", 100.0 * d.same_top.value))),
    ]
}

fn table(ui: &mut Ui, rows: &[&Measured]) {
    let p = palette(ui);
    let what = [
        ("method", "How the weights are held"),
        ("MB", "Bytes of the packed weights"),
        ("bits", "Bits a weight"),
        ("PPL", "Perplexity: how many tokens the model wavers between. Lower is better"),
        ("KLD", "Mean divergence of a prediction from the original's, in nats. 0 is the same"),
        ("KLD 99 %", "Of a hundred predictions one diverges more"),
        ("same top", "How often the most likely token is the original's"),
    ];
    // Columns as wide as their longest cell; numbers stand at the right.
    let all: Vec<[String; 7]> = rows.iter().map(|row| cells(&row.variant)).collect();
    let (body, small_font) = (egui::FontId::proportional(14.5), egui::FontId::proportional(13.0));
    let measure = |ui: &Ui, text: &str, font: &egui::FontId| {
        ui.painter().layout_no_wrap(text.to_owned(), font.clone(), p.ink).size().x
    };
    let font = |column: usize| if column == 0 { mono(14.0) } else { body.clone() };
    let swatch = 18.0;
    let widths: Vec<f32> = (0..what.len())
        .map(|c| {
            let widest = all.iter().map(|row| measure(ui, &row[c], &font(c))).fold(0.0, f32::max);
            let extra = if c == 0 { swatch } else { 0.0 };
            (widest + extra).max(measure(ui, what[c].0, &small_font))
        })
        .collect();
    let (gap, line) = (22.0, 30.0);
    let width = widths.iter().sum::<f32>() + gap * (widths.len() - 1) as f32;
    egui::ScrollArea::horizontal().id_salt("table").show(ui, |ui| {
        let (rect, response) = ui.allocate_exact_size(vec2(width, line * (all.len() + 1) as f32), egui::Sense::hover());
        let mut left = rect.left();
        for (c, width) in widths.iter().enumerate() {
            let right = left + width;
            let place = |row: usize, text: &str, font: egui::FontId, colour| {
                let y = rect.top() + line * (row as f32 + 0.5);
                let (align, x) = if c == 0 {
                    (egui::Align2::LEFT_CENTER, left + if row > 0 { swatch } else { 0.0 })
                } else {
                    (egui::Align2::RIGHT_CENTER, right)
                };
                ui.painter().text(egui::pos2(x, y), align, text, font, colour);
            };
            place(0, what[c].0, small_font.clone(), p.dim);
            for (number, row) in all.iter().enumerate() {
                place(number + 1, &row[c], font(c), p.ink);
            }
            let head = egui::Rect::from_x_y_ranges(left..=right, rect.y_range());
            ui.interact(head, response.id.with(c), egui::Sense::hover()).on_hover_text(what[c].1);
            left = right + gap;
        }
        for number in 0..all.len() {
            let y = rect.top() + line * (number as f32 + 1.0);
            ui.painter().hline(rect.x_range(), y, egui::Stroke::new(1.0, p.line));
            let square =
                egui::Rect::from_center_size(egui::pos2(rect.left() + 5.0, y + 0.5 * line), egui::Vec2::splat(10.0));
            ui.painter().rect_filled(square, 3, parts::series(p, number));
        }
        let spoken = all.iter().map(|row| row.join(" ")).collect::<Vec<_>>().join("; ");
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &spoken));
    });
    if let Some(row) = rows.first() {
        let text = &row.text;
        let rotated = if row.rotated { ", rotated" } else { "" };
        small(ui, format!("{}{rotated} on {}: {} predictions", row.model, text.name, text.positions));
    }
}
