//! Errors of a compression's tensors as a picture: a row for each kind of matrix, a column for each layer.

use eframe::egui::{self, Align2, FontId, Rect, RichText, Sense, Stroke, Ui, pos2, vec2};
use tersor_engine::session::report::{TensorError, Variant};

use super::parts::small;
use crate::gui::state::Action;
use crate::gui::theme::{Palette, mix, palette};
use crate::units::significant;

/// The layer and the kind of matrix that a tensor's name says; `None` for tensors of no layer.
fn place(name: &str) -> Option<(usize, &str)> {
    let (_, rest) = name.split_once("layers.").or_else(|| name.split_once("blk."))?;
    let (layer, kind) = rest.split_once('.')?;
    let kind = kind.strip_suffix(".weight").unwrap_or(kind);
    Some((layer.parse().ok()?, kind.rsplit('.').next().unwrap_or(kind)))
}

/// The errors by kind of matrix, in the order in which they come, and layer.
fn grid(errors: &[TensorError]) -> Vec<(&str, Vec<Option<&TensorError>>)> {
    let mut rows: Vec<(&str, Vec<Option<&TensorError>>)> = Vec::new();
    let layers = errors.iter().filter_map(|error| Some(place(&error.tensor)?.0 + 1)).max().unwrap_or(0);
    for error in errors {
        let Some((layer, kind)) = place(&error.tensor) else { continue };
        let row = match rows.iter().position(|(known, _)| *known == kind) {
            Some(row) => row,
            None => {
                rows.push((kind, vec![None; layers]));
                rows.len() - 1
            }
        };
        rows[row].1[layer] = Some(error);
    }
    rows
}

/// Where an error is between nothing lost (10⁻⁵ of the energy) and all of it.
fn share(nmse: f64) -> f32 {
    (((nmse.max(1e-9).log10() + 5.0) / 5.0).clamp(0.0, 1.0)) as f32
}

fn colour(p: &Palette, nmse: f64) -> egui::Color32 {
    mix(p.well, p.heat, share(nmse))
}

/// The picture. A click on a cell shows its tensor.
pub fn show(ui: &mut Ui, variant: &Variant, actions: &mut Vec<Action>) {
    let p = palette(ui);
    ui.label(RichText::new(format!("Error of each matrix in {}", variant.recipe)).size(16.0));
    let rows = grid(&variant.weights.tensors);
    let layers = rows.first().map_or(0, |(_, cells)| cells.len());
    if layers == 0 {
        small(ui, "Nothing was compressed, so nothing is lost.");
        return;
    }
    let font = FontId::monospace(12.0);
    let widest =
        rows.iter().map(|(kind, _)| ui.painter().layout_no_wrap((*kind).to_owned(), font.clone(), p.dim).size().x);
    let left = widest.fold(0.0, f32::max) + 10.0;
    let (height, head) = (22.0, 18.0);
    let cell = ((ui.available_width() - left) / layers as f32).clamp(10.0, 64.0);
    egui::ScrollArea::horizontal().id_salt("errors").show(ui, |ui| {
        let size = vec2(left + cell * layers as f32, head + height * rows.len() as f32);
        let (rect, _) = ui.allocate_exact_size(size, Sense::hover());
        // Numbers of layers as far apart as they are wide.
        let every = (22.0 / cell).ceil().max(1.0) as usize;
        for layer in (0..layers).step_by(every) {
            let x = rect.left() + left + cell * (layer as f32 + 0.5);
            let at = pos2(x, rect.top() + 0.5 * head);
            ui.painter().text(at, Align2::CENTER_CENTER, layer.to_string(), FontId::proportional(12.0), p.dim);
        }
        for (number, (kind, cells)) in rows.iter().enumerate() {
            let top = rect.top() + head + height * number as f32;
            let at = pos2(rect.left(), top + 0.5 * height);
            ui.painter().text(at, Align2::LEFT_CENTER, kind, font.clone(), p.dim);
            for (layer, error) in cells.iter().enumerate() {
                let Some(error) = error else { continue };
                let corner = pos2(rect.left() + left + cell * layer as f32, top);
                let area = Rect::from_min_size(corner, vec2(cell, height)).shrink(1.0);
                let response = ui.interact(area, ui.scope_id().with(&error.tensor), Sense::click());
                let name = format!("{}: {}", error.tensor, significant(error.nmse));
                response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, &name));
                ui.painter().rect_filled(area, 3, colour(p, error.nmse));
                if response.hovered() || response.has_focus() {
                    ui.painter().rect_stroke(area, 3, Stroke::new(1.5, p.ink), egui::StrokeKind::Inside);
                }
                let response = response.on_hover_ui(|ui| {
                    ui.label(RichText::new(&error.tensor).monospace());
                    ui.label(format!("{}: {} of its energy is error", error.codec, significant(error.nmse)));
                });
                if response.clicked() {
                    actions.push(Action::Examine(error.tensor.clone()));
                }
            }
        }
    });
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 6.0;
        small(ui, "|error|² / |weights|²:");
        for nmse in [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0] {
            let text = format!(" {} ", crate::report::plot::number(nmse));
            ui.label(RichText::new(text).small().background_color(colour(p, nmse)));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_layer_and_kind() {
        assert_eq!(place("model.layers.11.self_attn.q_proj.weight"), Some((11, "q_proj")));
        assert_eq!(place("blk.3.ffn_down.weight"), Some((3, "ffn_down")));
        assert_eq!(place("model.embed_tokens.weight"), None);
        assert_eq!(place("blk.x.ffn_down.weight"), None);
    }

    #[test]
    fn every_error_has_its_cell() {
        let error = |tensor: &str| TensorError { tensor: tensor.into(), codec: "q4_k".into(), nmse: 0.01 };
        let all = ["blk.0.a.weight", "blk.2.a.weight", "blk.1.b.weight", "token_embd.weight"].map(error);
        let rows = grid(&all);
        assert_eq!(rows.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), ["a", "b"]);
        let filled: Vec<Vec<bool>> = rows.iter().map(|(_, r)| r.iter().map(Option::is_some).collect()).collect();
        assert_eq!(filled, [[true, false, true], [false, true, false]]);
    }

    #[test]
    fn colours_spread_over_what_occurs() {
        assert_eq!((share(0.0), share(1e-5), share(1.0), share(9.0)), (0.0, 0.0, 1.0, 1.0));
        assert!(share(1e-3) > share(1e-4));
    }
}
