//! Side by side: the original on the left, compressions on the right, one prompt for all.

use eframe::egui::{self, Align, Key, Layout, Margin, Modifiers, RichText, Ui, vec2};
use tersor_engine::session::report::Stop;

use super::parts::{self, Sign, Stat, bar, card_frame, choose_a_model_first, dim, sign_button, small};
use super::{is_narrow, method, tokens};
use crate::gui::state::{Action, Column, MOST_COLUMNS, Phase, State, Tab};
use crate::gui::theme::{mono, palette};
use crate::units::{megabytes, significant};

pub fn show(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    if let Some(opening) = &state.opening {
        parts::card(ui, |ui| {
            ui.label(format!("Opening {}", opening.origin.name()));
            if let Some(progress) = &opening.progress {
                parts::progress(ui, progress);
            }
        });
        if state.model.is_none() {
            return;
        }
    } else if state.model.is_none() {
        return choose_a_model_first(ui, actions);
    }
    let narrow = is_narrow(ui);
    if narrow {
        egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            prompt(ui, state, actions, true);
            for index in 0..state.compare.columns.len() {
                ui.add_space(2.0);
                column(ui, state, index, actions);
            }
            add_button(ui, state, actions);
        });
        return;
    }
    prompt(ui, state, actions, false);
    ui.add_space(6.0);
    let count = state.compare.columns.len();
    let height = (ui.available_height() - 26.0).max(200.0);
    ui.spacing_mut().item_spacing.x = 14.0;
    ui.columns(count, |columns| {
        for (index, ui) in columns.iter_mut().enumerate() {
            ui.set_max_height(height);
            column(ui, state, index, actions);
        }
    });
    legend(ui, state);
}

/// What the colours mean.
fn legend(ui: &mut Ui, state: &State) {
    let p = palette(ui);
    if !state.compare.columns.iter().any(|column| column.divergence().is_some()) {
        let last = Tab::ALL.len();
        small(ui, format!("Ctrl+Enter runs, Esc stops, Alt+1 to Alt+{last} turn the pages."));
        return;
    }
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 8.0;
        small(ui, "KL divergence from the original:");
        for nats in [0.01, 0.1, 1.0] {
            let text = format!(" {nats} ");
            ui.label(RichText::new(text).small().background_color(p.tint(nats)));
        }
        small(ui, "nats; underlined: the first other token. Point at a token to see what both models expected.");
    });
}

fn prompt(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>, narrow: bool) {
    let p = palette(ui);
    let running = state.compare.is_running();
    card_frame(ui).inner_margin(Margin::same(12)).show(ui, |ui| {
        ui.set_width(ui.available_width());
        let button = |ui: &mut Ui, actions: &mut Vec<Action>| {
            if running {
                let stop = egui::Button::new(RichText::new("Stop").strong());
                if ui.add_sized(vec2(96.0, 32.0), stop).on_hover_text("Esc").clicked() {
                    actions.push(Action::Stop);
                }
            } else if parts::primary(ui, "Run", true).on_hover_text("Ctrl+Enter").clicked() {
                actions.push(Action::Run);
            }
        };
        let edit = |ui: &mut Ui, state: &mut State, width: f32| {
            let edit = egui::TextEdit::multiline(&mut state.settings.prompt)
                .hint_text("What the models continue")
                .background_color(p.well)
                .desired_rows(2)
                .desired_width(width)
                .return_key(egui::KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter));
            let response = ui.add(edit);
            response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::MultilineTextInput, true, "Prompt"));
            // Enter alone sends, as in every chat.
            if response.has_focus() && ui.input_mut(|input| input.consume_key(Modifiers::NONE, Key::Enter)) {
                actions_run(running)
            } else {
                None
            }
        };
        if narrow {
            let sent = edit(ui, state, f32::INFINITY);
            actions.extend(sent);
            ui.horizontal_wrapped(|ui| {
                settings(ui, state, actions);
            });
            button(ui, actions);
        } else {
            ui.horizontal_top(|ui| {
                let width = ui.available_width() - 108.0;
                let sent = edit(ui, state, width);
                actions.extend(sent);
                button(ui, actions);
            });
            ui.horizontal(|ui| settings(ui, state, actions));
        }
    });
}

fn actions_run(running: bool) -> Option<Action> {
    (!running).then_some(Action::Run)
}

fn settings(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    let p = palette(ui);
    let caption = |ui: &mut Ui, text: &str| ui.label(RichText::new(text).small().color(p.dim));
    let s = &mut state.settings;
    let label = caption(ui, "tokens");
    ui.add(egui::DragValue::new(&mut s.tokens).range(1..=768)).labelled_by(label.id);
    let label = caption(ui, "temperature");
    ui.add(egui::DragValue::new(&mut s.temperature).range(0.0..=2.0).speed(0.02).max_decimals(2))
        .labelled_by(label.id)
        .on_hover_text("0 always takes the most likely token");
    if s.temperature > 0.0 {
        let label = caption(ui, "top-p");
        ui.add(egui::DragValue::new(&mut s.top_p).range(0.05..=1.0).speed(0.01).max_decimals(2)).labelled_by(label.id);
        let label = caption(ui, "top-k");
        ui.add(egui::DragValue::new(&mut s.top_k).range(0..=1000)).labelled_by(label.id).on_hover_text("0 is all");
        let label = caption(ui, "seed");
        ui.add(egui::DragValue::new(&mut s.seed)).labelled_by(label.id);
    }
    let chat = state.compare.columns[0].loaded.as_ref().is_none_or(|loaded| loaded.chat);
    if chat {
        ui.checkbox(&mut s.raw, "plain text")
            .on_hover_text("Continue the prompt as it stands, without the model's chat template");
    }
    ui.checkbox(&mut s.forced, "original's text").on_hover_text(
        "Compressed models write nothing of their own: each reads the original's text and says at every token what it would have \
         written (teacher forcing)",
    );
    let mut rotate = s.rotate;
    let why = "Turn the weights into another basis first. What the model computes stays as it is, but weights that were quantized \
               before leave their grid, so that compressing them is an honest test.";
    if ui.checkbox(&mut rotate, "rotate first").on_hover_text(why).changed() {
        actions.push(Action::Rotate(rotate));
    }
}

fn column(ui: &mut Ui, state: &mut State, index: usize, actions: &mut Vec<Action>) {
    let narrow = is_narrow(ui);
    let room = state.adapter().and_then(|adapter| adapter.memory);
    let prompt = state.settings.prompt.clone();
    card_frame(ui).show(ui, |ui| {
        ui.set_width(ui.available_width());
        header(ui, state, index, room, actions);
        ui.add_space(2.0);
        let column = &state.compare.columns[index];
        numbers(ui, state, column);
        pace(ui, state, index);
        status(ui, column);
        ui.separator();
        if narrow {
            ui.set_min_height(60.0);
            body(ui, state, column, &prompt);
        } else {
            let height = (ui.available_height() - 2.0).max(80.0);
            egui::ScrollArea::vertical()
                .id_salt(column.slot.0)
                .auto_shrink(false)
                .max_height(height)
                .stick_to_bottom(true)
                .show(ui, |ui| body(ui, state, column, &prompt));
        }
    });
}

fn body(ui: &mut Ui, state: &State, column: &Column, prompt: &str) {
    if column.pieces.is_empty() && !matches!(column.phase, Phase::Writing) {
        return;
    }
    // What a compression was asked about a text, the original was asked too.
    let columns = &state.compare.columns;
    let judge = columns.get(1).filter(|_| column.slot == columns[0].slot);
    tokens::show(ui, column, judge, prompt);
}

fn header(ui: &mut Ui, state: &State, index: usize, room: Option<u64>, actions: &mut Vec<Action>) {
    let p = palette(ui);
    let column = &state.compare.columns[index];
    ui.horizontal(|ui| {
        parts::swatch(ui, parts::series(p, index));
        if index == 0 {
            ui.label(RichText::new("original").size(16.0));
            ui.label(RichText::new(&column.recipe).font(mono(13.0)).color(p.dim));
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            if !column.pieces.is_empty() && sign_button(ui, Sign::Copy, "Copy the text").clicked() {
                ui.ctx().copy_text(column.text());
            }
            if index > 0 && sign_button(ui, Sign::Cross, "Take this column away").clicked() {
                actions.push(Action::Remove(column.slot));
            }
            let last = index + 1 == state.compare.columns.len();
            if last
                && !is_narrow(ui)
                && state.compare.columns.len() < MOST_COLUMNS
                && sign_button(ui, Sign::Plus, "Add a compression").clicked()
            {
                actions.push(Action::Add(next_recipe(state)));
            }
            if index > 0 {
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    let response = method_button(ui, &column.recipe).on_hover_text("Choose another method");
                    let width = 430.0f32.min(ui.ctx().content_rect().width() - 48.0);
                    egui::Popup::menu(&response)
                        .close_behavior(egui::PopupCloseBehavior::CloseOnClickOutside)
                        .width(width)
                        .show(|ui| {
                            ui.set_width(width);
                            method::form(ui, column, &state.compare, room, actions);
                        });
                });
            }
        });
    });
}

/// The recipe of a column, which opens the list of methods.
fn method_button(ui: &mut Ui, recipe: &str) -> egui::Response {
    let p = palette(ui);
    let text = egui::WidgetText::from(RichText::new(recipe).font(mono(15.0)));
    let room = ui.available_width() - 34.0;
    let text = text.into_galley(ui, Some(egui::TextWrapMode::Truncate), room, egui::TextStyle::Monospace);
    let (rect, response) = ui.allocate_exact_size(vec2(text.size().x + 34.0, 28.0), egui::Sense::click());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, recipe));
    let visuals = ui.style().interact(&response);
    ui.painter().rect(rect, 6, visuals.weak_bg_fill, visuals.bg_stroke, egui::StrokeKind::Inside);
    ui.painter().galley(egui::pos2(rect.left() + 10.0, rect.center().y - 0.5 * text.size().y), text, p.ink);
    parts::draw(ui.painter(), Sign::Chevron, egui::pos2(rect.right() - 14.0, rect.center().y), p.dim);
    response
}

/// A method that is not compared yet: from mild to harsh.
fn next_recipe(state: &State) -> String {
    let taken = |recipe: &str| state.compare.columns.iter().any(|column| column.recipe == recipe);
    let ladder = ["q8_0", "q4_k", "q3_k", "q2_k", "nf4"];
    ladder.into_iter().find(|recipe| !taken(recipe)).unwrap_or("q4_k").to_owned()
}

/// What is known of a form of the model: planned before it is loaded, as it is afterwards; and how it ran.
fn numbers(ui: &mut Ui, state: &State, column: &Column) {
    let planned = column.plan.as_ref().and_then(|plan| plan.as_ref().ok());
    let weights = column.loaded.as_ref().map(|loaded| &loaded.weights).or(planned);
    let original = state.compare.columns[0].plan.as_ref().and_then(|plan| plan.as_ref().ok());
    let mut all = Vec::new();
    if let Some(weights) = weights {
        all.push(Stat::new(format!("{:.1}", megabytes(weights.bytes)), "MB", "weights"));
        all.push(Stat::new(format!("{:.2}", weights.bits_per_weight), "", "bits a weight"));
        if let Some(original) = original.filter(|o| weights.bytes > 0 && o.bytes != weights.bytes) {
            all.push(Stat::new(format!("{:.1}×", original.bytes as f64 / weights.bytes as f64), "", "smaller"));
        }
    }
    if let Some(rate) = column.tokens_per_second() {
        all.push(Stat::new(significant(rate), "", "tokens/s"));
    }
    if let Some(rate) = column.bytes_per_second() {
        all.push(Stat::new(significant(rate / 1e9), "GB/s", "weights read"));
    }
    if let Some(speed) = column.speed {
        all.push(Stat::new(significant(speed.prefill_tokens_per_second), "", "prompt tokens/s"));
        all.push(Stat::new(format!("{:.0}", speed.first_token_ms), "ms", "first token"));
    }
    if let Some(loaded) = &column.loaded {
        all.push(Stat::new(format!("{:.1}", megabytes(loaded.memory.peak)), "MB", "on the GPU"));
    }
    if let Some(divergence) = column.divergence() {
        all.push(Stat::new(significant(divergence), "nats", "mean KLD"));
    }
    parts::stats(ui, &all);
}

/// How fast tokens come, on the same scale in all columns.
fn pace(ui: &mut Ui, state: &State, index: usize) {
    let all: Vec<Vec<f64>> = state.compare.columns.iter().map(Column::rates).collect();
    let most = all.iter().flatten().copied().fold(0.0, f64::max);
    if most > 0.0 {
        let colour = parts::series(palette(ui), index);
        let steps = all.iter().map(Vec::len).max().unwrap_or(0);
        parts::sparkline(ui, &all[index], [steps as f64, 1.15 * most], colour, "tokens/s, token by token");
    }
}

/// What the column is doing, or how its text ended.
fn status(ui: &mut Ui, column: &Column) {
    let p = palette(ui);
    match &column.phase {
        Phase::Working(progress) => parts::progress(ui, progress),
        Phase::Waiting => {
            small(ui, "Waiting for its turn");
            bar(ui, Some(0.0), p.accent);
        }
        Phase::Writing => {
            small(ui, format!("Writing, {} tokens", column.pieces.len()));
            bar(ui, None, p.accent);
        }
        Phase::Failed(why) => {
            ui.add(egui::Label::new(RichText::new(parts::capital(why)).color(p.wrong)).wrap().selectable(true));
        }
        Phase::Idle => {
            let how = match (column.stop, column.first_difference) {
                (None, None) if column.forced && !column.pieces.is_empty() => {
                    "Would have written every token of the original's text".to_owned()
                }
                (None, Some(at)) if column.forced => {
                    let others = |p: &&crate::gui::state::Piece| {
                        p.scored.as_ref().is_some_and(|s| s.best[1].first().is_some_and(|b| b.token != s.token))
                    };
                    let count = column.pieces.iter().filter(others).count();
                    format!("Would have written {count} other tokens, the first at {}", at + 1)
                }
                (None, _) if column.pieces.is_empty() => String::new(),
                (None, _) => "Stopped".to_owned(),
                (Some(stop), _) if column.slot.0 == 0 => ended(stop, column.pieces.len()),
                (Some(_), None) => format!("The same {} tokens as the original", column.pieces.len()),
                (Some(_), Some(at)) => format!("Differs from the original from token {}", at + 1),
            };
            if how.is_empty() {
                dim(ui, "Press Run to let it write.");
            } else {
                small(ui, how);
            }
        }
    }
}

fn ended(stop: Stop, tokens: usize) -> String {
    match stop {
        Stop::EndOfText => format!("{tokens} tokens, then the model ended its text"),
        Stop::StopString => format!("{tokens} tokens, up to a stop text"),
        Stop::Length => format!("{tokens} tokens, as many as asked for"),
        Stop::Context => format!("{tokens} tokens, then the context was full"),
    }
}

fn add_button(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    if state.compare.columns.len() < MOST_COLUMNS && ui.button("Add a compression").clicked() {
        actions.push(Action::Add(next_recipe(state)));
    }
}
