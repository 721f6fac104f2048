//! Pieces that pages share.

use eframe::egui::{self, Color32, Frame, Margin, Response, RichText, Sense, Stroke, Ui, Vec2, pos2, vec2};
use tersor_engine::progress::{Progress, Unit};
use tersor_engine::session::report::{Model, TextInfo};

use crate::gui::state::Form;
use crate::gui::theme::{Palette, palette};
use crate::table::shorten;
use crate::units;

/// The frame of a card.
pub fn card_frame(ui: &Ui) -> Frame {
    let p = palette(ui);
    Frame::new().fill(p.card).stroke(Stroke::new(1.0, p.line)).corner_radius(10).inner_margin(Margin::same(14))
}

/// A card as wide as there is room.
pub fn card<R>(ui: &mut Ui, add: impl FnOnce(&mut Ui) -> R) -> R {
    let frame = card_frame(ui);
    frame
        .show(ui, |ui| {
            ui.set_width(ui.available_width());
            add(ui)
        })
        .inner
}

/// The name, with its sign: a tensor's blocks, one of them packed.
pub fn wordmark(ui: &mut Ui) {
    let p = palette(ui);
    let (rect, _) = ui.allocate_exact_size(Vec2::splat(20.0), Sense::hover());
    let cell = 5.0;
    for (i, (x, y)) in (0..9).map(|i| (i % 3, i / 3)).enumerate() {
        let packed = matches!(i, 4 | 5 | 7 | 8);
        let size = if packed { 3.0 } else { cell };
        let at = rect.min + vec2(1.0 + x as f32 * 6.5, 1.0 + y as f32 * 6.5) + Vec2::splat((cell - size) / 2.0);
        let colour = if packed { p.accent } else { p.ink };
        ui.painter().rect_filled(egui::Rect::from_min_size(at, Vec2::splat(size)), 1, colour);
    }
    ui.label(RichText::new("tersor").size(19.0).color(p.ink));
}

/// The heading of a part of a page.
pub fn heading(ui: &mut Ui, text: &str) {
    ui.label(RichText::new(text).heading());
}

/// Text that matters less.
pub fn dim(ui: &mut Ui, text: impl Into<String>) -> Response {
    let colour = palette(ui).dim;
    ui.add(egui::Label::new(RichText::new(text.into()).color(colour)).wrap())
}

/// Small text that matters less.
pub fn small(ui: &mut Ui, text: impl Into<String>) -> Response {
    let colour = palette(ui).dim;
    ui.add(egui::Label::new(RichText::new(text.into()).small().color(colour)).wrap())
}

/// The button that a page is about.
pub fn primary(ui: &mut Ui, text: &str, enabled: bool) -> Response {
    let p = palette(ui);
    let text = RichText::new(text).color(p.on_accent).strong();
    let button = egui::Button::new(text).fill(p.accent);
    ui.add_enabled_ui(enabled, |ui| ui.add_sized(vec2(96.0, 32.0), button)).inner
}

/// A number with what it is.
pub struct Stat {
    value: String,
    unit: &'static str,
    what: &'static str,
}

impl Stat {
    /// `what` stands below the number, `unit` beside it.
    pub fn new(value: String, unit: &'static str, what: &'static str) -> Self {
        Self { value, unit, what }
    }
}

/// Numbers in cells of one width, as many in a row as there is room for.
pub fn stats(ui: &mut Ui, stats: &[Stat]) {
    const CELL: f32 = 88.0;
    let p = palette(ui);
    let width = ui.available_width();
    let columns = ((width / CELL).floor() as usize).clamp(1, stats.len().max(1));
    let cell = (width / columns as f32).min(1.4 * CELL);
    let (line, row) = (19.0, 38.0);
    let rows = stats.len().div_ceil(columns);
    let (rect, response) = ui.allocate_exact_size(vec2(width, row * rows as f32), Sense::hover());
    for (i, stat) in stats.iter().enumerate() {
        let at = rect.min + vec2(cell * (i % columns) as f32, row * (i / columns) as f32);
        let painter = ui.painter().with_clip_rect(egui::Rect::from_min_size(at, vec2(cell - 6.0, row)));
        let value = painter.text(at, egui::Align2::LEFT_TOP, &stat.value, egui::FontId::proportional(17.0), p.ink);
        let unit = pos2(value.right() + 3.0, value.bottom() - 1.5);
        painter.text(unit, egui::Align2::LEFT_BOTTOM, stat.unit, egui::FontId::proportional(12.5), p.dim);
        painter.text(at + vec2(0.0, line), egui::Align2::LEFT_TOP, stat.what, egui::FontId::proportional(12.0), p.dim);
    }
    let spoken = stats.iter().map(|s| format!("{} {} {}", s.value, s.unit, s.what)).collect::<Vec<_>>().join(", ");
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &spoken));
}

/// A sign that is drawn, so that it looks the same with every font.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Put away.
    Cross,
    /// One more.
    Plus,
    /// Two sheets.
    Copy,
    /// There is more below.
    Chevron,
    /// Light.
    Sun,
    /// Dark.
    Moon,
}

/// Draws a sign in the middle of a place.
pub fn draw(painter: &egui::Painter, sign: Sign, center: egui::Pos2, colour: Color32) {
    let stroke = Stroke::new(1.4, colour);
    let at = |x: f32, y: f32| center + vec2(x, y);
    match sign {
        Sign::Cross => {
            painter.line_segment([at(-4.0, -4.0), at(4.0, 4.0)], stroke);
            painter.line_segment([at(-4.0, 4.0), at(4.0, -4.0)], stroke);
        }
        Sign::Plus => {
            painter.line_segment([at(-5.0, 0.0), at(5.0, 0.0)], stroke);
            painter.line_segment([at(0.0, -5.0), at(0.0, 5.0)], stroke);
        }
        Sign::Copy => {
            let sheet = |x, y| egui::Rect::from_min_size(at(x, y), vec2(7.0, 8.0));
            painter.rect_stroke(sheet(-1.5, -2.0), 1, stroke, egui::StrokeKind::Middle);
            painter.line_segment([at(-5.0, 3.0), at(-5.0, -5.5)], stroke);
            painter.line_segment([at(-5.0, -5.5), at(2.5, -5.5)], stroke);
        }
        Sign::Chevron => {
            painter.line_segment([at(-3.5, -1.5), at(0.0, 2.0)], stroke);
            painter.line_segment([at(0.0, 2.0), at(3.5, -1.5)], stroke);
        }
        Sign::Sun => {
            painter.circle_stroke(center, 3.4, stroke);
            for i in 0..8 {
                let way = Vec2::angled(std::f32::consts::TAU * i as f32 / 8.0);
                painter.line_segment([center + 5.6 * way, center + 7.6 * way], stroke);
            }
        }
        Sign::Moon => {
            // Two arcs, as one outline: the limb, and the shadow's edge.
            let arc = |middle: Vec2, radius: f32, from: f32, to: f32| {
                let step = move |i: i32| from + (to - from) * i as f32 / 16.0;
                (0..=16).map(move |i| center + middle + radius * Vec2::angled(step(i)))
            };
            let outline = arc(Vec2::ZERO, 6.2, 0.35, 4.36).chain(arc(vec2(2.9, -2.6), 5.4, 3.72, 0.99));
            painter.add(egui::Shape::closed_line(outline.collect(), stroke));
        }
    }
}

/// A button with a sign on it, and its name when the pointer rests.
pub fn sign_button(ui: &mut Ui, sign: Sign, what: &str) -> Response {
    let p = palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(26.0, 26.0), Sense::click());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, what));
    let lit = response.hovered() || response.has_focus();
    if lit {
        ui.painter().rect_filled(rect, 6, p.well);
    }
    draw(ui.painter(), sign, rect.center(), if lit { p.ink } else { p.dim });
    response.on_hover_text(what)
}

/// A bar that is full to a fraction, or striped where that is not known.
pub fn bar(ui: &mut Ui, fraction: Option<f32>, colour: Color32) {
    let p = palette(ui);
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 4.0), Sense::hover());
    ui.painter().rect_filled(rect, 2, p.well);
    let filled = match fraction {
        Some(fraction) => egui::Rect::from_min_max(
            rect.min,
            pos2(rect.left() + rect.width() * fraction.clamp(0.0, 1.0), rect.bottom()),
        ),
        None => rect.shrink2(vec2(0.35 * rect.width(), 0.0)),
    };
    ui.painter().rect_filled(filled, 2, colour);
}

/// A curve of values over their index, from 0 to `ranges` (steps, value).
pub fn sparkline(ui: &mut Ui, values: &[f64], ranges: [f64; 2], colour: Color32, what: &str) {
    let p = palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 30.0), Sense::hover());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, what));
    let painter = ui.painter().with_clip_rect(rect.intersect(ui.clip_rect()));
    painter.hline(rect.x_range(), rect.bottom() - 0.5, Stroke::new(1.0, p.line));
    let at = |i: usize, value: f64| {
        let x = rect.left() + rect.width() * (i as f64 / (ranges[0] - 1.0).max(1.0)) as f32;
        pos2(x, rect.bottom() - rect.height() * (value / ranges[1]) as f32)
    };
    let points = values.iter().enumerate().map(|(i, value)| at(i, *value)).collect();
    painter.add(egui::Shape::line(points, Stroke::new(1.5, colour)));
    response.on_hover_text(what);
}

/// How far work is: words, and a bar.
pub fn progress(ui: &mut Ui, progress: &Progress) {
    let fraction = (progress.total > 0).then(|| progress.done as f32 / progress.total as f32);
    let count = match (progress.unit, progress.total) {
        (_, 0) => String::new(),
        (Unit::Bytes, total) => format!("{} of {}", units::bytes(progress.done), units::bytes(total)),
        (_, total) => format!("{} of {total}", progress.done),
    };
    let p = palette(ui);
    ui.vertical(|ui| {
        ui.spacing_mut().item_spacing.y = 5.0;
        ui.horizontal(|ui| {
            ui.add(egui::Label::new(RichText::new(capital(&progress.stage)).small().color(p.dim)).truncate());
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                ui.label(RichText::new(count).small().color(p.dim));
            });
        });
        bar(ui, fraction, p.accent);
    });
}

/// Ways to save what a page shows.
pub fn export(ui: &mut Ui, actions: &mut Vec<super::Action>) {
    ui.horizontal(|ui| {
        small(ui, "Save as");
        for form in Form::ALL {
            let (name, what) = match form {
                Form::Html => ("HTML", "The report as a page: tables, plots and how they were made (Ctrl+S)"),
                Form::Json => ("JSON", "The report as data, as the command line writes it"),
                Form::Svg => ("SVG", "The plot as a drawing"),
                Form::Png => ("PNG", "The plot as a picture (Ctrl+Shift+S)"),
            };
            if ui.button(name).on_hover_text(what).clicked() {
                actions.push(super::Action::Export(form));
            }
        }
    });
}

/// What numbers about quality are of.
pub fn conditions(model: &Model, text: &TextInfo) -> String {
    let rotated = if model.rotation.is_some() { ", rotated" } else { "" };
    format!("{}{rotated} on {}: {} predictions", shorten(&model.name, 40), shorten(&text.name, 40), text.positions)
}

/// With a capital letter at its start.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// An adapter's name without what drivers add in brackets.
pub fn short_name(name: &str) -> String {
    name.split(" (").next().unwrap_or(name).trim().to_owned()
}

/// A small square of a series' colour.
pub fn swatch(ui: &mut Ui, colour: Color32) {
    let (rect, _) = ui.allocate_exact_size(vec2(10.0, 10.0), Sense::hover());
    ui.painter().rect_filled(rect, 3, colour);
}

/// Colour of a column.
pub fn series(p: &Palette, index: usize) -> Color32 {
    p.series[index % p.series.len()]
}

/// What to do where there is no model yet.
pub fn choose_a_model_first(ui: &mut Ui, actions: &mut Vec<super::Action>) {
    ui.add_space(48.0);
    ui.vertical_centered(|ui| {
        dim(ui, "No model is open.");
        if primary(ui, "Choose a model", true).clicked() {
            actions.push(super::Action::Show(super::Tab::Models));
        }
    });
}
