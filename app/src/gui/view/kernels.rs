//! The device's ceilings, and how much of them each kernel gets: a table, and the roofline.

use eframe::egui::{self, Align2, RichText, Ui, vec2};
use egui_plot::{HoverPosition, Line, PlotBounds, PlotPoint, PlotPoints, Points, Text};
use tersor_engine::bench::{Bound, Clock, Measurement};
use tersor_engine::session::report::Benchmark;

use super::parts::{self, Stat, card, dim, heading, primary, series, small, stats};
use super::table::{self, Row, Swatch};
use super::{axis, is_narrow};
use crate::gui::state::{Action, State};
use crate::gui::theme::palette;
use crate::report::plot::number;
use crate::report::roofline::{KINDS, intensity, kind};
use crate::units::{bytes, microseconds, significant};

pub fn show(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        controls(ui, state, actions);
        let Some(found) = &state.kernels.found else { return };
        ui.add_space(4.0);
        if is_narrow(ui) {
            card(ui, |ui| ceilings(ui, found));
            card(ui, |ui| roofline(ui, found));
            card(ui, |ui| measurements(ui, found));
            return;
        }
        let width = ui.available_width();
        ui.horizontal_top(|ui| {
            ui.spacing_mut().item_spacing.x = 14.0;
            ui.allocate_ui(vec2(0.56 * width, 0.0), |ui| ui.vertical(|ui| card(ui, |ui| measurements(ui, found))));
            ui.vertical(|ui| {
                card(ui, |ui| roofline(ui, found));
                ui.add_space(4.0);
                card(ui, |ui| ceilings(ui, found));
            });
        });
    });
}

fn controls(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    let software = state.adapter().is_some_and(|adapter| adapter.kind == "Cpu");
    card(ui, |ui| {
        heading(ui, "How fast the shaders are here");
        dim(
            ui,
            "Measures what this device gives at most, memory and arithmetic by themselves, and then how much of that the \
             shaders get that models are made of. Nothing else should compute meanwhile.",
        );
        if software {
            let wrong = palette(ui).wrong;
            let text =
                "This is a software adapter: the processor draws in place of a GPU. Its speeds say nothing about GPUs.";
            ui.add(egui::Label::new(RichText::new(text).color(wrong)).wrap());
        }
        ui.add_space(2.0);
        if is_narrow(ui) {
            filter(ui, state, f32::INFINITY);
            ui.horizontal(|ui| choice(ui, state));
            ui.horizontal(|ui| button(ui, state, actions));
            export(ui, state, actions);
        } else {
            ui.horizontal(|ui| {
                filter(ui, state, 220.0);
                choice(ui, state);
                button(ui, state, actions);
                ui.add_space(16.0);
                export(ui, state, actions);
            });
        }
        if let Some(progress) = &state.kernels.progress {
            parts::progress(ui, progress);
        }
    });
}

/// What names must contain.
fn filter(ui: &mut Ui, state: &mut State, width: f32) {
    let enabled = !state.kernels.running;
    let hint = "matvec q4_k, attention";
    let edit = egui::TextEdit::singleline(&mut state.kernels.filter).hint_text(hint).desired_width(width);
    let response = ui.add_enabled(enabled, edit);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::TextInput, enabled, "Only with these words"));
    response.on_hover_text("Only what has all these words in its name; a comma stands between alternatives");
}

/// The short list or everything, and how much that is.
fn choice(ui: &mut Ui, state: &mut State) {
    for (full, name, what) in [
        (false, "Short list", "One compression of each family, one shape"),
        (true, "Everything", "All compressions, shapes and batch sizes: from minutes to an hour"),
    ] {
        let button = egui::Button::selectable(state.kernels.full == full, name);
        if ui.add_enabled(!state.kernels.running, button).on_hover_text(what).clicked() {
            state.kernels.full = full;
        }
    }
    let what = match state.kernels.count() {
        1 => "1 measurement".to_owned(),
        count => format!("{count} measurements"),
    };
    let colour = palette(ui).dim;
    ui.label(RichText::new(what).small().color(colour));
}

fn button(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    if state.kernels.running {
        if ui.button("Stop").on_hover_text("Esc").clicked() {
            actions.push(Action::Stop);
        }
    } else if primary(ui, "Measure", state.kernels.count() > 0).on_hover_text("Ctrl+Enter").clicked() {
        actions.push(Action::Bench);
    }
}

fn export(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    if state.kernels.found.is_some() {
        parts::export(ui, actions);
    }
}

fn ceilings(ui: &mut Ui, found: &Benchmark) {
    let c = &found.findings.ceilings;
    ui.label(RichText::new("What the device gives at most").size(16.0));
    let (rate, unit) = match c.fma_gflop_per_s {
        rate @ ..1e4 => (rate, "GFLOP/s"),
        rate => (1e-3 * rate, "TFLOP/s"),
    };
    let most = [
        Stat::new(significant(c.copy_gb_per_s), "GB/s", "copying"),
        Stat::new(significant(c.read_gb_per_s), "GB/s", "reading"),
        Stat::new(significant(rate), unit, "f32 arithmetic"),
    ];
    let least = [
        Stat::new(significant(c.dispatch_us), "µs", "a dispatch"),
        Stat::new(significant(c.submit_us), "µs", "a submission"),
        Stat::new(significant(c.readback_us), "µs", "reading back"),
    ];
    stats(ui, &most);
    stats(ui, &least);
    let clock = match (&found.findings.clock, &found.findings.clock_reason) {
        (Clock::DeviceTimestamps, _) => "the device's timestamps".to_owned(),
        (Clock::HostClock, Some(why)) => format!("the processor's clock, since {why}"),
        (Clock::HostClock, None) => "the processor's clock".to_owned(),
    };
    let device = &found.device;
    small(
        ui,
        format!(
            "{}, tier {}. Memory over {}. Times by {clock}. {:.0} s in all.",
            device.name,
            device.tier,
            bytes(c.buffer_bytes),
            found.seconds
        ),
    );
}

fn measurements(ui: &mut Ui, found: &Benchmark) {
    let columns = [
        ("kernel", "What was computed: kind, compression, rows × columns, tokens; or heads × dimensions, tokens"),
        ("bits", "Bits a stored weight, or a number in the cache"),
        ("time", "The median of the samples"),
        ("GB/s", "Necessary bytes: packed weights, input and output, each once"),
        ("GFLOP/s", "Necessary operations"),
        ("% of roof", "Of the lower roof, memory or arithmetic. 100 % is all that the device gives"),
    ];
    let p = palette(ui);
    let row = |m: &Measurement| {
        let (t, bound) = (&m.times, if m.bound == Bound::Memory { "memory" } else { "arithmetic" });
        Row {
            head: String::new(),
            swatch: Swatch::Square,
            colour: series(p, kind(m)),
            cells: [
                m.name.clone(),
                format!("{:.2}", m.bits),
                microseconds(t.median_us),
                significant(m.gb_per_s),
                significant(m.gflop_per_s),
                format!("{:.1}", 100.0 * m.roof_fraction),
            ],
            more: format!(
                "{}\nHalf of the samples lie between {} and {}. The lower roof is {bound}.",
                m.kernel,
                microseconds(t.q1_us),
                microseconds(t.q3_us)
            ),
        }
    };
    let rows: Vec<_> = found.findings.measurements.iter().map(row).collect();
    table::show(ui, "kernels", columns, &rows);
    for skipped in &found.findings.skipped {
        small(ui, format!("Left out: {}: {}", skipped.name, skipped.why));
    }
}

/// Operations a second over operations a byte, under the roof of bandwidth and rate.
fn roofline(ui: &mut Ui, found: &Benchmark) {
    let p = palette(ui);
    ui.label(RichText::new("Roofline").size(16.0));
    let (c, all) = (&found.findings.ceilings, &found.findings.measurements);
    let (bandwidth, peak) = (1e-9 * c.bandwidth(), c.fma_gflop_per_s);
    let ridge = peak / bandwidth;
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
        (low.log10(), high.log10())
    };
    let (left, right) = range(&mut all.iter().map(intensity).chain([ridge]));
    let (low, high) = range(&mut all.iter().map(|m| m.gflop_per_s).chain([peak]));
    let (left, right, low, high) = (left - 0.3, right + 0.3, low - 0.3, high + 0.35);
    // The slope ends where the plot does.
    let foot = left.max(low - bandwidth.log10()).min(ridge.log10());
    let roof = vec![[foot, foot + bandwidth.log10()], [ridge.log10(), peak.log10()], [right, peak.log10()]];
    let plot = axis::still(ui, "roofline", 300.0)
        .default_x_bounds(left, right)
        .default_y_bounds(low, high)
        .x_axis_label("necessary operations a byte")
        .y_axis_label("GFLOP/s")
        .x_axis_formatter(axis::label)
        .y_axis_formatter(axis::label)
        .x_grid_spacer(axis::marks)
        .y_grid_spacer(axis::marks)
        .label_formatter(|place| match place {
            HoverPosition::NearDataPoint { plot_name, .. } if !plot_name.is_empty() => Some(plot_name.to_string()),
            _ => None,
        });
    let shown = plot.show(ui, |plot| {
        // The defaults are the first picture's; measurements that come later need others.
        plot.set_plot_bounds(PlotBounds::from_min_max([left, low], [right, high]));
        plot.line(Line::new("", PlotPoints::from(roof)).color(p.dim).width(1.5));
        let words = |text: String| RichText::new(text).size(12.5);
        let at = PlotPoint::new(right - 0.05, peak.log10() + 0.05);
        let rate = Text::new("", at, words(format!("{} GFLOP/s", number(peak))));
        plot.text(rate.color(p.dim).anchor(Align2::RIGHT_BOTTOM));
        let middle = 0.5 * (foot + ridge.log10());
        let at = PlotPoint::new(middle - 0.08, middle + bandwidth.log10());
        let slope = Text::new("", at, words(format!("{} GB/s", number(bandwidth))));
        plot.text(slope.color(p.dim).anchor(Align2::RIGHT_BOTTOM));
        for m in all {
            let name = format!(
                "{}\n{} GFLOP/s, {} GB/s\n{:.0} % of the roof",
                m.name,
                number(m.gflop_per_s),
                number(m.gb_per_s),
                100.0 * m.roof_fraction
            );
            let point = PlotPoints::from(vec![[intensity(m).log10(), m.gflop_per_s.log10()]]);
            plot.points(Points::new(name, point).radius(4.0).color(series(p, kind(m))));
        }
    });
    let what = format!(
        "Roofline: {} kernels below {} GB/s and {} GFLOP/s",
        all.len(),
        significant(bandwidth),
        significant(peak)
    );
    shown.response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, &what));
    ui.horizontal_wrapped(|ui| {
        for (number, name) in KINDS.into_iter().enumerate().filter(|(number, _)| all.iter().any(|m| kind(m) == *number))
        {
            parts::swatch(ui, series(p, number));
            ui.label(RichText::new(name).small().color(p.dim));
        }
    });
}
