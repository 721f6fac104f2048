//! What the app looks like. Views read the state, change what is typed or dragged in it, and answer with actions.

mod attention;
mod axis;
mod beside;
mod compare;
mod errors;
mod kernels;
mod method;
mod models;
mod pareto;
mod parts;
mod quality;
mod table;
mod tensors;
mod tokens;

use eframe::egui::{self, Align, Frame, Layout, Margin, RichText, Sense, ThemePreference, Ui, vec2};

use super::state::{Action, Remedy, State, Tab};
use super::theme::palette;

/// Below this width there is room for one column: a phone.
const NARROW: f32 = 720.0;

/// Whether the window is that of a phone.
fn is_narrow(ui: &Ui) -> bool {
    ui.ctx().content_rect().width() < NARROW
}

/// The whole window.
pub fn show(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    let narrow = is_narrow(ui);
    let p = palette(ui);
    let margin = if narrow { 10 } else { 20 };
    let bar = Frame::new().fill(p.card).inner_margin(Margin::symmetric(margin, 8));
    egui::Panel::top("bar").frame(bar).show(ui, |ui| bar_contents(ui, state, actions, narrow));
    if narrow {
        let tabs = Frame::new().fill(p.card).inner_margin(Margin::symmetric(margin, 6));
        egui::Panel::bottom("tabs").frame(tabs).show(ui, |ui| {
            // As wide as their names, so that all have room.
            ui.spacing_mut().item_spacing.x = 0.0;
            ui.spacing_mut().button_padding.x = 2.0;
            ui.columns(Tab::ALL.len(), |columns| {
                for (ui, tab) in columns.iter_mut().zip(Tab::ALL) {
                    ui.vertical_centered_justified(|ui| tab_button(ui, state.tab, tab, actions));
                }
            });
        });
    }
    let page = Frame::new().fill(p.paper).inner_margin(Margin::symmetric(margin, if narrow { 10 } else { 16 }));
    egui::CentralPanel::default().frame(page).show(ui, |ui| {
        notice(ui, state, actions);
        match state.tab {
            Tab::Models => models::show(ui, state, actions),
            Tab::Compare => compare::show(ui, state, actions),
            Tab::Quality => quality::show(ui, state, actions),
            Tab::Tensors => tensors::show(ui, state, actions),
            Tab::Kernels => kernels::show(ui, state, actions),
            Tab::Attention => attention::show(ui, state, actions),
        }
    });
    hovering_files(ui);
}

fn bar_contents(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>, narrow: bool) {
    let p = palette(ui);
    ui.horizontal(|ui| {
        ui.set_min_height(32.0);
        parts::wordmark(ui);
        if !narrow {
            ui.add_space(16.0);
            for tab in Tab::ALL {
                tab_button(ui, state.tab, tab, actions);
            }
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let dark = ui.visuals().dark_mode;
            let (sign, what) = if dark { (parts::Sign::Sun, "Light theme") } else { (parts::Sign::Moon, "Dark theme") };
            if parts::sign_button(ui, sign, what).clicked() {
                state.settings.theme = if dark { ThemePreference::Light } else { ThemePreference::Dark };
                ui.ctx().set_theme(state.settings.theme);
            }
            let device = state.adapter().map(|adapter| (parts::short_name(&adapter.name), adapter.tier.to_string()));
            if let Some((name, tier)) = device {
                ui.add_space(4.0);
                let text = if narrow { name } else { format!("{name}  ·  {tier}") };
                ui.add(egui::Label::new(RichText::new(text).small().color(p.dim)).truncate());
            }
        });
    });
}

fn tab_button(ui: &mut Ui, current: Tab, tab: Tab, actions: &mut Vec<Action>) {
    let p = palette(ui);
    let selected = current == tab;
    let text = RichText::new(tab.name()).color(if selected { p.ink } else { p.dim });
    let text = if is_narrow(ui) { text.size(12.5) } else { text };
    let button = egui::Button::new(text)
        .wrap_mode(egui::TextWrapMode::Extend)
        .frame_when_inactive(false)
        .fill(egui::Color32::TRANSPARENT);
    let response = ui.add(button);
    if selected {
        let line = response.rect.translate(vec2(0.0, 2.0));
        ui.painter().hline(
            line.x_range().shrink(if is_narrow(ui) { 3.0 } else { 8.0 }),
            line.bottom(),
            egui::Stroke::new(2.0, p.accent),
        );
    }
    let number = Tab::ALL.iter().position(|t| *t == tab).unwrap_or(0) + 1;
    if response.on_hover_text(format!("Alt+{number}")).clicked() {
        actions.push(Action::Show(tab));
    }
}

/// What went wrong, with what helps.
fn notice(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    let Some(notice) = &state.notice else { return };
    let p = palette(ui);
    let frame = Frame::new()
        .fill(super::theme::mix(p.card, p.wrong, 0.1))
        .stroke(egui::Stroke::new(1.0, super::theme::mix(p.card, p.wrong, 0.5)))
        .corner_radius(8)
        .inner_margin(Margin::symmetric(14, 10));
    frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.horizontal_top(|ui| {
            let buttons = if notice.remedy.is_some() { 210.0 } else { 40.0 };
            let text = (ui.available_width() - buttons).max(120.0);
            ui.allocate_ui(vec2(text, 0.0), |ui| {
                ui.set_width(text);
                ui.add(egui::Label::new(&notice.text).wrap().selectable(true));
            });
            if let Some((text, remedy)) = notice.remedy
                && ui.button(text).clicked()
            {
                actions.push(match remedy {
                    Remedy::Run => Action::Run,
                    Remedy::Pick => Action::Pick,
                    Remedy::Bench => Action::Bench,
                });
            }
            if parts::sign_button(ui, parts::Sign::Cross, "Dismiss").clicked() {
                actions.push(Action::Dismiss);
            }
        });
    });
    ui.add_space(12.0);
}

/// Says what will happen while files hover over the window.
fn hovering_files(ui: &Ui) {
    if ui.input(|input| input.raw.hovered_files.is_empty()) {
        return;
    }
    let p = palette(ui);
    let layer = egui::LayerId::new(egui::Order::Foreground, egui::Id::unique("hovering files"));
    let painter = ui.ctx().layer_painter(layer);
    let screen = ui.ctx().content_rect();
    painter.rect_filled(screen, 0, p.paper.gamma_multiply(0.9));
    let frame = screen.shrink(24.0);
    painter.rect_stroke(frame, 14, egui::Stroke::new(2.0, p.accent), egui::StrokeKind::Inside);
    painter.text(
        screen.center(),
        egui::Align2::CENTER_CENTER,
        "Drop to open the model or the report",
        egui::FontId::proportional(24.0),
        p.ink,
    );
}

/// A card that can be clicked.
fn clickable_card<R>(ui: &mut Ui, chosen: bool, name: &str, add: impl FnOnce(&mut Ui) -> R) -> egui::Response {
    let p = palette(ui);
    let builder = egui::UiBuilder::new().id_salt(name).sense(Sense::click());
    let response = ui.scope_builder(builder, |ui| {
        let lit = ui.response().hovered() || ui.response().has_focus();
        let stroke = match (chosen, lit) {
            (true, _) => egui::Stroke::new(1.5, p.accent),
            (_, true) => egui::Stroke::new(1.0, p.dim),
            _ => egui::Stroke::new(1.0, p.line),
        };
        parts::card_frame(ui).stroke(stroke).show(ui, |ui| {
            ui.set_width(ui.available_width());
            add(ui);
        });
    });
    response.response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, name));
    response.response.on_hover_cursor(egui::CursorIcon::PointingHand)
}
