//! Bars, and lines over layers.

use std::fmt::Write as _;

use super::axis::{Axis, Scale, number};
use super::{BOTTOM, COLOURS, HEIGHT, RIGHT, WIDTH, open, short, x_of, x_ticks, y_of, y_ticks};
use crate::report::html::escape;
use crate::table::width;

/// Horizontal bars, one for each label, with their values written beside; `None` without values.
pub fn bars(title: &str, unit: &str, values: &[(String, f64)]) -> Option<String> {
    let axis = Axis::new(Scale::FromZero, values.iter().map(|v| v.1))?;
    let widest = values.iter().map(|v| width(&short(&v.0))).max()? as f64;
    let left = widest * 7.0 + 14.0;
    let (row, top) = (26.0, 34.0);
    let height = top + row * values.len() as f64 + 8.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>\
         <text class=\"title\" x=\"8\" y=\"18\">{0}</text>",
        escape(title)
    );
    for (i, (label, value)) in values.iter().enumerate() {
        let y = top + row * i as f64;
        let length = (WIDTH - left - 80.0) * axis.place(*value).unwrap_or(0.0);
        let _ = write!(
            svg,
            "<text class=\"label\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <rect class=\"c{}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"16\" rx=\"2\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{} {}</text>",
            left - 8.0,
            y + 13.0,
            escape(&short(label)),
            i % COLOURS,
            y + 1.0,
            left + length + 6.0,
            y + 13.0,
            number(*value),
            escape(unit)
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// Lines over whole numbers (layers), each labelled where it ends; `None` when nothing can be shown.
pub fn lines(
    title: &str,
    x_label: &str,
    (y_label, y_scale): (&str, Scale),
    series: &[(String, Vec<(f64, f64)>)],
) -> Option<String> {
    let x_axis = Axis::new(Scale::Whole, series.iter().flat_map(|s| s.1.iter().map(|p| p.0)))?;
    let y_axis = Axis::new(y_scale, series.iter().flat_map(|s| s.1.iter().map(|p| p.1)))?;
    let longest = series.iter().map(|s| width(&short(&s.0))).max()? as f64;
    let width = WIDTH - (6.4 * longest - 4.0);
    let mut svg = open(title, width, x_label, y_label);
    x_ticks(&mut svg, &x_axis, width);
    y_ticks(&mut svg, &y_axis, width);
    let mut labels: Vec<(usize, f64)> = Vec::new();
    for (i, (label, points)) in series.iter().enumerate() {
        let placed: Vec<(f64, f64)> =
            points.iter().filter_map(|p| Some((x_of(x_axis.place(p.0)?, width), y_of(y_axis.place(p.1)?)))).collect();
        let Some(&(_, last)) = placed.last() else { continue };
        labels.push((i, last));
        let path: Vec<String> = placed.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(
            svg,
            "<polyline class=\"line c{}\" points=\"{}\"><title>{}</title></polyline>",
            line_colour(i),
            path.join(" "),
            escape(label)
        );
    }
    // Labels stand beside the lines' ends, pushed down where they would overlap, then back up from the bottom edge.
    labels.sort_by(|a, b| a.1.total_cmp(&b.1));
    const ROW: f64 = 14.0;
    for i in 1..labels.len() {
        labels[i].1 = labels[i].1.max(labels[i - 1].1 + ROW);
    }
    let mut floor = HEIGHT - BOTTOM;
    for label in labels.iter_mut().rev() {
        label.1 = label.1.min(floor);
        floor = label.1 - ROW;
    }
    for (i, y) in labels {
        let _ = write!(
            svg,
            "<text class=\"label c{} ink\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            line_colour(i),
            width - RIGHT + 8.0,
            y + 4.0,
            escape(&short(&series[i].0))
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// Colour of a line: as in the other plots, where the original comes first.
fn line_colour(series: usize) -> usize {
    (series + 1) % COLOURS
}

#[cfg(test)]
mod tests {
    use super::super::{Better, scatter};
    use super::*;

    #[test]
    fn nothing_to_show_is_no_plot() {
        assert!(scatter("t", ("x", Scale::Whole), ("y", Scale::Log), Better::Left, &[]).is_none());
        assert!(bars("t", "u", &[]).is_none());
        assert!(lines("t", "x", ("y", Scale::Log), &[("a".into(), vec![])]).is_none());
    }
}
