//! A model's tensors, and the values of one of them.

use eframe::egui::{self, RichText, Ui, vec2};
use egui_plot::{Bar, BarChart};
use tersor_engine::session::report::{TensorRow, TensorStatistics};

use super::parts::{Stat, card, card_frame, choose_a_model_first, dim, small, stats};
use super::{axis, is_narrow};
use crate::gui::state::{Action, State};
use crate::gui::theme::{mono, palette};
use crate::units::{bytes, count, significant};

pub fn show(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    if state.model.is_none() {
        return choose_a_model_first(ui, actions);
    }
    if is_narrow(ui) {
        let height = 0.4 * ui.available_height();
        ui.allocate_ui(vec2(ui.available_width(), height), |ui| list(ui, state, height, actions));
        ui.add_space(6.0);
        egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| values(ui, state));
        return;
    }
    let (width, height) = (ui.available_width(), ui.available_height());
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = 14.0;
        ui.allocate_ui(vec2((0.4 * width).min(460.0), height), |ui| ui.vertical(|ui| list(ui, state, height, actions)));
        ui.vertical(|ui| values(ui, state));
    });
}

fn list(ui: &mut Ui, state: &mut State, height: f32, actions: &mut Vec<Action>) {
    let Some(model) = &state.model else { return };
    card_frame(ui).show(ui, |ui| {
        ui.set_width(ui.available_width());
        let filter = egui::TextEdit::singleline(&mut state.tensors.filter)
            .hint_text("Find a tensor")
            .desired_width(f32::INFINITY);
        let response = ui.add(filter);
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::TextInput, true, "Find a tensor"));
        let wanted = state.tensors.filter.to_lowercase();
        let rows: Vec<&TensorRow> =
            model.inspection.tensors.iter().filter(|row| row.name.to_lowercase().contains(&wanted)).collect();
        let line = 40.0;
        egui::ScrollArea::vertical().auto_shrink(false).max_height(height - 80.0).show_rows(
            ui,
            line,
            rows.len(),
            |ui, range| {
                for row in &rows[range] {
                    let chosen = state.tensors.chosen.as_deref() == Some(row.name.as_str());
                    if entry(ui, row, chosen, line).clicked() {
                        actions.push(Action::Tensor(row.name.clone()));
                    }
                }
            },
        );
    });
}

fn shape(row: &TensorRow) -> String {
    row.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ")
}

fn entry(ui: &mut Ui, row: &TensorRow, chosen: bool, height: f32) -> egui::Response {
    let p = palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), egui::Sense::click());
    response.widget_info(|| egui::WidgetInfo::selected(egui::Role::RadioButton, true, chosen, &row.name));
    if chosen || response.hovered() || response.has_focus() {
        let fill = if chosen { ui.visuals().selection.bg_fill } else { p.well };
        ui.painter().rect_filled(rect, 6, fill);
    }
    let clipped = ui.painter().with_clip_rect(rect.shrink(6.0).intersect(ui.clip_rect()));
    clipped.text(rect.min + vec2(8.0, 4.0), egui::Align2::LEFT_TOP, &row.name, mono(13.0), p.ink);
    let what = format!("{} · {} · {}", shape(row), row.dtype.to_lowercase(), bytes(row.bytes));
    clipped.text(rect.min + vec2(8.0, 21.0), egui::Align2::LEFT_TOP, what, egui::FontId::proportional(12.5), p.dim);
    response
}

fn values(ui: &mut Ui, state: &State) {
    card(ui, |ui| match (&state.tensors.chosen, &state.tensors.statistics) {
        (None, _) => {
            dim(ui, "Choose a tensor to see its values.");
        }
        (Some(name), None) => {
            dim(ui, format!("Reading {name}…"));
        }
        (Some(_), Some(found)) => statistics(ui, found),
    });
}

fn statistics(ui: &mut Ui, found: &TensorStatistics) {
    let p = palette(ui);
    ui.add(egui::Label::new(RichText::new(&found.tensor.name).font(mono(15.0))).wrap());
    let elements: u64 = found.tensor.shape.iter().product();
    small(ui, format!("{} = {} values, {}", shape(&found.tensor), count(elements), found.tensor.dtype.to_lowercase()));
    ui.add_space(4.0);
    let all = [
        Stat::new(significant(found.min), "", "smallest"),
        Stat::new(significant(found.max), "", "largest"),
        Stat::new(significant(found.mean), "", "mean"),
        Stat::new(significant(found.standard_deviation), "", "deviation"),
        Stat::new(format!("{:.2}", 100.0 * found.zeros), "%", "zeros"),
        Stat::new(significant(found.kurtosis), "", "excess kurtosis"),
    ];
    stats(ui, &all);
    if found.kurtosis > 3.0 {
        small(ui, "Many outliers: scales must stretch for a few large values, which costs the small ones precision.");
    }
    ui.add_space(6.0);
    let bins = found.histogram.len().max(1) as f64;
    let width = (found.max - found.min) / bins;
    let bar = |(i, n): (usize, &u64)| {
        let middle = found.min + (i as f64 + 0.5) * width;
        Bar::new(middle, *n as f64).width(0.94 * width).fill(p.accent)
    };
    let bars = found.histogram.iter().enumerate().map(bar).collect();
    axis::still(ui, ("histogram", &found.tensor.name), 260.0)
        .show_grid([false, true])
        .x_axis_label("value")
        .y_axis_label("weights")
        .y_axis_formatter(|mark, _| count(mark.value.max(0.0) as u64))
        .show(ui, |plot| plot.bar_chart(BarChart::new("values", bars)));
}
