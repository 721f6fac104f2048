//! A text as its tokens: tinted by how far the model is from the original there, the first difference marked, and under the
//! pointer what both models held possible.

use std::sync::Arc;

use eframe::egui::text::{LayoutJob, TextFormat};
use eframe::egui::{self, Color32, FontId, RichText, Sense, Stroke, Ui, pos2, vec2};
use tersor_engine::session::report::{Candidate, Scored};

use crate::gui::state::Column;
use crate::gui::theme::palette;
use crate::report::text::visible;

/// A column's text. `judge`: another column that was asked about it, where its own tokens were not judged.
pub fn show(ui: &mut Ui, column: &Column, judge: Option<&Column>, prompt: &str) {
    let p = palette(ui);
    let font = FontId::proportional(15.5);
    let mut job = LayoutJob::default();
    job.wrap.max_width = ui.available_width();
    let format = |colour, background| TextFormat {
        font_id: font.clone(),
        color: colour,
        background,
        line_height: Some(23.0),
        ..TextFormat::default()
    };
    job.append(prompt, 0.0, format(p.dim, Color32::TRANSPARENT));
    // Where each token's text ends, in characters.
    let mut at = prompt.chars().count();
    let mut ends = Vec::with_capacity(column.pieces.len());
    for (i, piece) in column.pieces.iter().enumerate() {
        let tint = piece.scored.as_ref().map_or(Color32::TRANSPARENT, |scored| p.tint(scored.kl_divergence));
        let mut format = format(p.ink, tint);
        let first = column.first_difference == Some(i);
        if first {
            format.underline = Stroke::new(2.0, p.accent);
        }
        // A difference without ink must be seen, too.
        let text = if first { visible(&piece.text) } else { piece.text.clone() };
        if text.trim() != piece.text.trim() {
            format.font_id = signs(format.font_id.size);
        }
        let text = if first && piece.text.ends_with('\n') { text + "\n" } else { text };
        job.append(&text, 0.0, format);
        at += text.chars().count();
        ends.push(at);
    }
    if column.pieces.is_empty() && prompt.is_empty() {
        return;
    }
    let galley = ui.fonts_mut(|fonts| fonts.layout_job(job));
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), galley.size().y), Sense::hover());
    let text = column.text();
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &text));
    ui.painter().galley(rect.min, galley.clone(), p.ink);
    let Some(pointer) = response.hover_pos() else { return };
    let Some(index) = token_at(&galley, (pointer - rect.min).to_pos2(), prompt.chars().count(), &ends) else { return };
    let piece = &column.pieces[index];
    // Both models saw the same text up to, and with, the place where theirs part.
    let same = |other: &&Column| other.forced || other.first_difference.is_none_or(|at| index <= at);
    let asked = judge.filter(same).and_then(|other| other.pieces.get(index)?.scored.as_ref());
    if let Some(scored) = piece.scored.as_ref().or(asked) {
        response.on_hover_ui_at_pointer(|ui| predictions(ui, index, &piece.text, scored));
    }
}

/// The font that has the signs of [`visible`]; the one of texts lacks most of them.
fn signs(size: f32) -> FontId {
    FontId::monospace(size)
}

/// The token under a point of the text.
fn token_at(galley: &Arc<egui::Galley>, point: egui::Pos2, prompt: usize, ends: &[usize]) -> Option<usize> {
    let inside = galley.rows.iter().any(|row| row.rect().contains(point));
    // A cursor stands between characters: the one to the left of the point is meant.
    let character = galley.cursor_from_pos(pos2(point.x - 3.0, point.y).to_vec2()).index;
    (inside && character.0 >= prompt)
        .then(|| ends.partition_point(|end| *end <= character.0))
        .filter(|i| *i < ends.len())
}

/// What both models held possible at a place.
fn predictions(ui: &mut Ui, index: usize, text: &str, scored: &Scored) {
    let p = palette(ui);
    ui.horizontal(|ui| {
        ui.label(RichText::new(visible(text)).monospace());
        ui.label(
            RichText::new(format!("token {}, KLD {}", index + 1, crate::units::significant(scored.kl_divergence)))
                .small()
                .color(p.dim),
        );
    });
    ui.add_space(2.0);
    egui::Grid::new("predictions").num_columns(4).spacing([10.0, 3.0]).show(ui, |ui| {
        for title in ["original", "", "compressed", ""] {
            ui.label(RichText::new(title).small().color(p.dim));
        }
        ui.end_row();
        for row in 0..scored.best[0].len().max(scored.best[1].len()) {
            for best in &scored.best {
                candidate(ui, best.get(row), scored.token);
            }
            ui.end_row();
        }
    });
}

fn candidate(ui: &mut Ui, candidate: Option<&Candidate>, token: u32) {
    let p = palette(ui);
    let Some(candidate) = candidate else {
        ui.label("");
        ui.label("");
        return;
    };
    let colour = if candidate.token == token { p.accent } else { p.ink };
    ui.label(RichText::new(visible(&candidate.text)).monospace().color(colour));
    ui.label(RichText::new(format!("{:.1} %", 100.0 * candidate.probability)).small().color(p.dim));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sign that the font lacks is drawn as a box, and a box says nothing.
    #[test]
    fn signs_for_what_is_blank_are_in_the_fonts() {
        let context = egui::Context::default();
        context.run_ui(egui::RawInput::default(), |_| {}).textures_delta.clear();
        for sign in ["", " ", "\n", "\t"].map(visible) {
            assert!(context.fonts_mut(|fonts| fonts.has_glyphs(&signs(14.0), &sign)), "no {sign}");
        }
    }
}
