//! What compression costs on a text: a table, and size against divergence.

use eframe::egui::{self, RichText, Ui, vec2};
use egui_plot::{GridMark, HoverPosition, Line, Plot, PlotPoints, Points, Text};
use tersor_engine::session::report::Variant;

use super::is_narrow;
use super::parts::{self, card, choose_a_model_first, dim, heading, primary, small};
use crate::gui::state::{Action, Measured, State};
use crate::gui::theme::{mono, palette};
use crate::report::plot::number;
use crate::units::{megabytes, significant};

pub fn show(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    if state.model.is_none() {
        return choose_a_model_first(ui, actions);
    }
    egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        controls(ui, state, actions);
        let rows = state.quality.table();
        if rows.is_empty() {
            return;
        }
        ui.add_space(4.0);
        if is_narrow(ui) {
            card(ui, |ui| table(ui, &rows));
            card(ui, |ui| plot(ui, &rows));
        } else {
            let width = ui.available_width();
            ui.horizontal_top(|ui| {
                ui.spacing_mut().item_spacing.x = 14.0;
                ui.allocate_ui(vec2(0.56 * width, 0.0), |ui| ui.vertical(|ui| card(ui, |ui| table(ui, &rows))));
                ui.vertical(|ui| card(ui, |ui| plot(ui, &rows)));
            });
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

/// Size against divergence: the lower left is where one wants to be.
fn plot(ui: &mut Ui, rows: &[&Measured]) {
    let p = palette(ui);
    let point = |row: &Measured| {
        let divergence = row.variant.quality.as_ref()?.divergence.as_ref()?.kl_divergence.mean;
        (divergence > 0.0).then(|| [megabytes(row.variant.weights.bytes), divergence.log10()])
    };
    let points: Vec<(usize, &str, [f64; 2])> =
        rows.iter().enumerate().filter_map(|(i, row)| Some((i, row.variant.recipe.as_str(), point(row)?))).collect();
    ui.label(RichText::new("Size and divergence").size(16.0));
    if points.is_empty() {
        dim(ui, "Nothing that diverges yet: add a compression on the Compare page.");
        return;
    }
    let all = points.iter().map(|(_, _, xy)| *xy);
    let [low, high] = all.clone().fold([f64::MAX, f64::MIN], |[l, h], [_, y]| [l.min(y), h.max(y)]);
    let right = all.map(|[x, _]| x).fold(0.0, f64::max);
    let power = |value: f64| number(10f64.powf(value));
    Plot::new("size and divergence")
        .height(280.0)
        .allow_scroll(false)
        .allow_drag(false)
        .allow_zoom(false)
        .show_background(false)
        .include_x(0.0)
        .include_x(1.25 * right)
        .include_y(low - 0.5)
        .include_y(high + 0.5)
        .x_axis_label("MB of weights")
        .y_axis_label("mean KLD")
        .y_axis_formatter(move |mark, _| {
            if (mark.value - mark.value.round()).abs() < 1e-9 { power(mark.value) } else { String::new() }
        })
        .y_grid_spacer(|input| {
            let (low, high) = input.bounds;
            let marks = (-9..3).map(f64::from).filter(|value| (low..=high).contains(value));
            marks.map(|value| GridMark { value, step_size: 1.0 }).collect()
        })
        .show_grid([false, true])
        .label_formatter(move |place| match place {
            HoverPosition::NearDataPoint { plot_name, position, .. } => {
                Some(format!("{plot_name}\n{:.1} MB\nKLD {}", position.x, power(position.y)))
            }
            HoverPosition::Elsewhere { .. } => None,
        })
        .show(ui, |plot| {
            let front = front(points.iter().map(|(_, _, xy)| *xy).collect());
            plot.line(Line::new("best at its size", PlotPoints::from(front)).color(p.line).width(1.5));
            for (i, name, xy) in &points {
                let colour = parts::series(p, *i);
                plot.points(Points::new(*name, PlotPoints::from(vec![*xy])).radius(5.0).color(colour));
                let text = RichText::new(*name).size(13.0);
                let at = egui_plot::PlotPoint::new(xy[0] + 0.02 * right, xy[1]);
                plot.text(Text::new(*name, at, text).color(p.ink).anchor(egui::Align2::LEFT_CENTER));
            }
        });
}

/// Points that no other beats in both, from small to large.
fn front(mut points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    let mut best = f64::INFINITY;
    points.retain(|[_, y]| {
        let better = *y < best;
        best = best.min(*y);
        better
    });
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_no_other_beats() {
        let points = vec![[3.0, 1.0], [1.0, 5.0], [2.0, 6.0], [2.5, 4.0], [4.0, 1.0]];
        assert_eq!(front(points), [[1.0, 5.0], [2.5, 4.0], [3.0, 1.0]]);
    }
}
