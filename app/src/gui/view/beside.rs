//! Reports of others on the quality page: how one comes, what was otherwise about it, and how it goes.

use eframe::egui::{Sense, Ui, vec2};

use super::parts::{self, Sign, short_name, sign_button, small};
use super::table::{self, Swatch};
use crate::gui::state::{Action, Beside, Quality};
use crate::gui::theme::palette;
use crate::table::shorten;

/// The button that asks for a report.
pub fn open(ui: &mut Ui, actions: &mut Vec<Action>) {
    let what = "Another's report, as JSON: from another device, or of other methods. It can be dropped here, too";
    if ui.button("Lay a report beside").on_hover_text(what).clicked() {
        actions.push(Action::PickReport);
    }
}

/// What stands above a report's rows.
pub fn head(beside: &Beside) -> String {
    format!("{}  ·  {}", shorten(beside.short_name(), 40), short_name(&beside.found.device.name))
}

/// Each report: under which conditions it was made, which of them were otherwise here, and a button that takes it away.
pub fn list(ui: &mut Ui, quality: &Quality, actions: &mut Vec<Action>) {
    let own = quality.measured.last();
    for (number, beside) in quality.beside.iter().enumerate() {
        ui.add_space(2.0);
        ui.horizontal_top(|ui| {
            // As high as a line of the words beside it.
            let (rect, _) = ui.allocate_exact_size(vec2(12.0, 16.0), Sense::hover());
            table::swatch(ui.painter(), Swatch::Diamond, rect.center(), palette(ui).dim);
            // The button keeps its place at the right, however long the words are.
            let width = (ui.available_width() - 40.0).max(80.0);
            ui.allocate_ui(vec2(width, 0.0), |ui| {
                ui.set_width(width);
                let found = &beside.found;
                let mut text = format!("{}: {}", shorten(&beside.name, 40), shorten(&found.device.name, 60));
                if let Some(on) = &found.text {
                    text += &format!(", {}", parts::conditions(&found.model, on));
                }
                let differences = own.map(|own| beside.differences(own)).unwrap_or_default();
                if !differences.is_empty() {
                    text += &format!(". Not as here: {}", differences.join(", "));
                }
                small(ui, text);
            });
            if sign_button(ui, Sign::Cross, &format!("Take {} away", beside.name)).clicked() {
                actions.push(Action::TakeAway(number));
            }
        });
    }
}
