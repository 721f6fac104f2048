//! Tables of numbers: columns as wide as their longest cell, the first at the left and with a colour, numbers at the right.

use eframe::egui::{self, Align2, Color32, FontId, Rect, Sense, Stroke, Ui, Vec2, pos2};

use crate::gui::theme::{mono, palette};

/// How the colour of a row is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swatch {
    Square,
    /// That of another's report.
    Diamond,
}

/// A row.
pub struct Row<const N: usize> {
    /// What stands above it, where something new begins; may be empty.
    pub head: String,
    /// Before its name.
    pub swatch: Swatch,
    pub colour: Color32,
    /// One for each column.
    pub cells: [String; N],
    /// What is said of it when the pointer rests; may be empty.
    pub more: String,
}

const SWATCH: f32 = 18.0;
const GAP: f32 = 22.0;
const LINE: f32 = 30.0;

/// The table. Columns have a name and an explanation of it.
pub fn show<const N: usize>(ui: &mut Ui, id: &str, columns: [(&str, &str); N], rows: &[Row<N>]) {
    let p = palette(ui);
    let (body, head) = (FontId::proportional(14.5), FontId::proportional(13.0));
    let font = |column: usize| if column == 0 { mono(14.0) } else { body.clone() };
    let measure =
        |ui: &Ui, text: &str, font: FontId| ui.painter().layout_no_wrap(text.to_owned(), font, p.ink).size().x;
    let width = |column: usize| {
        let widest = rows.iter().map(|row| measure(ui, &row.cells[column], font(column))).fold(0.0, f32::max);
        let swatch = if column == 0 { SWATCH } else { 0.0 };
        (widest + swatch).max(measure(ui, columns[column].0, head.clone()))
    };
    let widths: Vec<f32> = (0..N).map(width).collect();
    // The line that each row stands on, below the names and what stands above it.
    let mut lines = 0;
    let places: Vec<usize> = rows
        .iter()
        .map(|row| {
            lines += 1 + usize::from(!row.head.is_empty());
            lines
        })
        .collect();
    let size = egui::vec2(widths.iter().sum::<f32>() + GAP * (N as f32 - 1.0), LINE * (lines + 1) as f32);
    egui::ScrollArea::horizontal().id_salt(id).show(ui, |ui| {
        let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
        let line = |number: usize| {
            let top = rect.top() + LINE * number as f32;
            Rect::from_x_y_ranges(rect.x_range(), top..=top + LINE)
        };
        let place = |ui: &Ui, number: usize, column: usize, text: &str, font: FontId, colour| {
            let left = rect.left() + widths[..column].iter().sum::<f32>() + GAP * column as f32;
            let y = line(number).center().y;
            let (align, x) = match column {
                0 => (Align2::LEFT_CENTER, left + if number > 0 { SWATCH } else { 0.0 }),
                _ => (Align2::RIGHT_CENTER, left + widths[column]),
            };
            ui.painter().text(pos2(x, y), align, text, font, colour);
        };
        let mut left = rect.left();
        for (column, (name, what)) in columns.into_iter().enumerate() {
            place(ui, 0, column, name, head.clone(), p.dim);
            let area = Rect::from_x_y_ranges(left..=left + widths[column], line(0).y_range());
            ui.interact(area, response.id.with(column), Sense::hover()).on_hover_text(what);
            left += widths[column] + GAP;
        }
        for ((number, row), place_of_row) in rows.iter().enumerate().zip(&places) {
            let above = line(place_of_row - 1);
            if !row.head.is_empty() && ui.is_rect_visible(above) {
                ui.painter().hline(above.x_range(), above.top(), Stroke::new(1.0, p.line));
                let at = pos2(above.left(), above.center().y + 2.0);
                ui.painter().with_clip_rect(above.intersect(ui.clip_rect())).text(
                    at,
                    Align2::LEFT_CENTER,
                    &row.head,
                    head.clone(),
                    p.dim,
                );
            }
            let area = line(*place_of_row);
            // Of hundreds of rows few are in sight.
            if !ui.is_rect_visible(area) {
                continue;
            }
            ui.painter().hline(area.x_range(), area.top(), Stroke::new(1.0, p.line));
            let middle = pos2(area.left() + 5.0, area.center().y);
            swatch(ui.painter(), row.swatch, middle, row.colour);
            for (column, cell) in row.cells.iter().enumerate() {
                place(ui, *place_of_row, column, cell, font(column), p.ink);
            }
            if !row.more.is_empty() {
                ui.interact(area, response.id.with(("row", number)), Sense::hover()).on_hover_text(&row.more);
            }
        }
        let spoken = rows
            .iter()
            .map(|row| format!("{} {}", row.head, row.cells.join(" ")).trim().to_owned())
            .collect::<Vec<_>>()
            .join("; ");
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &spoken));
    });
}

/// Draws a colour as rows and points have it.
pub fn swatch(painter: &egui::Painter, swatch: Swatch, middle: egui::Pos2, colour: Color32) {
    match swatch {
        Swatch::Square => {
            painter.rect_filled(Rect::from_center_size(middle, Vec2::splat(10.0)), 3, colour);
        }
        Swatch::Diamond => {
            let corners = [(0.0, -6.5), (6.5, 0.0), (0.0, 6.5), (-6.5, 0.0)];
            let corners = corners.map(|(x, y)| middle + egui::vec2(x, y));
            painter.add(egui::Shape::convex_polygon(corners.to_vec(), colour, Stroke::NONE));
        }
    }
}
