//! What compression costs on a text: a table, what is gained against what is given up, and where the errors are.

use eframe::egui::{self, RichText, Ui, vec2};
use tersor_engine::session::report::Variant;

use super::parts::{self, card, choose_a_model_first, dim, heading, primary, small};
use super::table::{self, Row, Swatch};
use super::{beside, errors, is_narrow, pareto};
use crate::gui::state::{Action, Quality, Shown, State};
use crate::gui::theme::palette;
use crate::units::{megabytes, significant};

pub fn show(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    let quality = &state.quality;
    if state.model.is_none() && quality.beside.is_empty() && quality.measured.is_empty() {
        choose_a_model_first(ui, actions);
        ui.add_space(8.0);
        ui.vertical_centered(|ui| beside::open(ui, actions));
        return;
    }
    egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        controls(ui, state, actions);
        let quality = &state.quality;
        let rows = quality.shown();
        let (trade, chosen) = (quality.trade, quality.chosen());
        if rows.is_empty() {
            return;
        }
        ui.add_space(4.0);
        if is_narrow(ui) {
            card(ui, |ui| measured(ui, quality, &rows, actions));
            card(ui, |ui| pareto::show(ui, &rows, trade, chosen, actions));
        } else {
            let width = ui.available_width();
            ui.horizontal_top(|ui| {
                ui.spacing_mut().item_spacing.x = 14.0;
                let left = |ui: &mut Ui| card(ui, |ui| measured(ui, quality, &rows, actions));
                ui.allocate_ui(vec2(0.56 * width, 0.0), |ui| ui.vertical(left));
                ui.vertical(|ui| card(ui, |ui| pareto::show(ui, &rows, trade, chosen, actions)));
            });
        }
        let own = rows.iter().filter(|row| row.report.is_none());
        if let Some(row) = own.into_iter().find(|row| chosen == Some(row.variant.recipe.as_str())) {
            ui.add_space(4.0);
            card(ui, |ui| errors::show(ui, row.variant, actions));
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
            } else if primary(ui, "Measure", true).on_hover_text("Ctrl+Enter").clicked() {
                actions.push(Action::Measure);
            }
            if !is_narrow(ui) {
                ui.add_space(16.0);
                saving(ui, state, actions);
            }
        });
        if let Some(found) = &state.quality.progress {
            parts::progress(ui, found);
        }
        if is_narrow(ui) {
            ui.horizontal_wrapped(|ui| saving(ui, state, actions));
        }
    });
}

/// Ways to save what was measured, and to lay another's beside it.
fn saving(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    if !state.quality.measured.is_empty() {
        parts::export(ui, actions);
        ui.add_space(8.0);
    }
    beside::open(ui, actions);
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

fn measured(ui: &mut Ui, quality: &Quality, rows: &[Shown<'_>], actions: &mut Vec<Action>) {
    let columns = [
        ("method", "How the weights are held"),
        ("MB", "Bytes of the packed weights"),
        ("bits", "Bits a weight"),
        ("PPL", "Perplexity: how many tokens the model wavers between. Lower is better"),
        ("KLD", "Mean divergence of a prediction from the original's, in nats. 0 is the same"),
        ("KLD 99 %", "Of a hundred predictions one diverges more"),
        ("same top", "How often the most likely token is the original's"),
    ];
    let p = palette(ui);
    let mut before = None;
    let row = |(number, row): (usize, &Shown<'_>)| {
        let first = std::mem::replace(&mut before, row.report) != row.report;
        let report = row.report.and_then(|number| quality.beside.get(number));
        Row {
            head: report.filter(|_| first).map(beside::head).unwrap_or_default(),
            swatch: if row.report.is_some() { Swatch::Diamond } else { Swatch::Square },
            colour: parts::series(p, number),
            cells: cells(row.variant),
            more: String::new(),
        }
    };
    table::show(ui, "table", columns, &rows.iter().enumerate().map(row).collect::<Vec<_>>());
    if let Some(row) = quality.measured.last() {
        small(ui, parts::conditions(&row.model, &row.text));
    }
    beside::list(ui, quality, actions);
}
