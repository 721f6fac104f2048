//! Plots as inline SVG: no script, no library, colours from the page's style sheet (classes `c0`, `c1`, …, `axis`,
//! `grid`), so that they follow light and dark.

mod axis;
mod scatter;
mod series;
mod standalone;

use std::fmt::Write as _;

use super::html::escape;
use crate::table::shorten;

pub(super) use axis::Axis;
pub use axis::{Scale, number};
pub use scatter::{Better, Mark, Point, scatter};
pub use series::{bars, lines};
pub use standalone::{size, standalone};

/// Size of a plot and of its margins, in SVG units.
pub(super) const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 310.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 48.0;

pub(super) fn open(title: &str, width: f64, x_label: &str, y_label: &str) -> String {
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>\
         <text class=\"title\" x=\"{LEFT}\" y=\"18\">{0}</text>",
        escape(title)
    );
    let (middle_x, middle_y) = (LEFT + (width - LEFT - RIGHT) / 2.0, TOP + (HEIGHT - TOP - BOTTOM) / 2.0);
    let _ = write!(
        svg,
        "<text class=\"axis\" text-anchor=\"middle\" x=\"{middle_x}\" y=\"{}\">{}</text>\
         <text class=\"axis\" text-anchor=\"middle\" transform=\"translate(14 {middle_y}) rotate(-90)\">{}</text>",
        HEIGHT - 10.0,
        escape(x_label),
        escape(y_label)
    );
    svg
}

/// Horizontal position in a plot that is `width` wide, its labels at the right not counted.
pub(super) fn x_of(place: f64, width: f64) -> f64 {
    LEFT + place * (width - LEFT - RIGHT)
}

pub(super) fn y_of(place: f64) -> f64 {
    HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)
}

pub(super) fn y_ticks(svg: &mut String, axis: &Axis, width: f64) {
    for &tick in &axis.ticks {
        let y = y_of((tick - axis.from) / (axis.to - axis.from));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
            width - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            axis.tick_label(tick)
        );
    }
}

pub(super) fn x_ticks(svg: &mut String, axis: &Axis, width: f64) {
    for &tick in &axis.ticks {
        let x = x_of((tick - axis.from) / (axis.to - axis.from), width);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{}\"/>\
             <text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 17.0,
            axis.tick_label(tick)
        );
    }
}

/// A label that leaves room for the plot.
fn short(label: &str) -> String {
    shorten(label, 26)
}

/// Colours of the style sheet.
pub const COLOURS: usize = 8;
