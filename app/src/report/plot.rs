//! Plots as inline SVG: no script, no library, colours from the page's style sheet (classes `c0`, `c1`, …, `axis`,
//! `grid`), so that they follow light and dark.

use std::fmt::Write as _;

use super::html::escape;
use crate::table::{shorten, width};

/// Size of a plot and of its margins, in SVG units.
pub(super) const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 310.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 48.0;

/// How values map to an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    FromZero,
    /// From the smallest to the largest.
    Between,
    /// Whole numbers, from the smallest to the largest.
    Whole,
    /// Powers of ten; values that are not positive are left out.
    Log,
}

/// In which way points of a plot are better than others, if they are lower too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The less the better.
    Left,
    /// The more the better.
    Right,
}

/// A labelled point.
#[derive(Clone, Debug)]
pub struct Point {
    /// What it is.
    pub label: String,
    /// Horizontal value.
    pub x: f64,
    /// Vertical value.
    pub y: f64,
    /// Half the height of the error bar; 0 for none.
    pub error: f64,
}

/// One axis: its name, its range and where its ticks are.
pub(super) struct Axis {
    log: bool,
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

impl Axis {
    pub(super) fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let log = scale == Scale::Log;
        let (mut low, mut high) = values
            .filter(|v| v.is_finite() && (!log || *v > 0.0))
            .map(|v| if log { v.log10() } else { v })
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        if scale == Scale::FromZero {
            low = low.min(0.0);
        }
        if low == high {
            (low, high) = if log {
                (low - 0.5, high + 0.5)
            } else {
                (low - low.abs() * 0.1 - 1e-9, high + high.abs() * 0.1 + 1e-9)
            };
        }
        if log && high - low < 1.7 {
            return Some(Self::short_log(low, high));
        }
        let step = match scale {
            Scale::Log => ((high - low) / 6.0).ceil().max(1.0),
            Scale::Whole => nice((high - low) / 5.0).max(1.0),
            Scale::FromZero | Scale::Between => nice((high - low) / 5.0),
        };
        let (from, to) = ((low / step).floor() * step, (high / step).ceil() * step);
        let count = ((to - from) / step).round() as usize;
        let ticks = (0..=count).map(|i| from + i as f64 * step).collect();
        Some(Self { log, from, to, ticks })
    }

    /// A logarithmic axis over less than two decades: ticks at 1, 2, 3, 5 and 7 times powers of ten.
    fn short_log(low: f64, high: f64) -> Self {
        let first = low.floor() as i32 - 1;
        let all: Vec<f64> =
            (first..first + 5).flat_map(|e| [1.0, 2.0, 3.0, 5.0, 7.0].map(|m: f64| m.log10() + f64::from(e))).collect();
        let from = all.iter().copied().filter(|&t| t <= low + 1e-9).fold(f64::NEG_INFINITY, f64::max);
        let to = all.iter().copied().filter(|&t| t >= high - 1e-9).fold(f64::INFINITY, f64::min);
        let ticks = all.into_iter().filter(|&t| t >= from - 1e-9 && t <= to + 1e-9).collect();
        Self { log: true, from, to, ticks }
    }

    /// Where a value lies, 0 at the axis' start and 1 at its end; `None` when it cannot be shown.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let v = if self.log { value.log10() } else { value };
        v.is_finite().then(|| ((v - self.from) / (self.to - self.from)).clamp(0.0, 1.0))
    }

    /// The value at the axis' start.
    pub(super) fn first(&self) -> f64 {
        if self.log { 10f64.powf(self.from) } else { self.from }
    }

    /// The value at its end.
    pub(super) fn last(&self) -> f64 {
        if self.log { 10f64.powf(self.to) } else { self.to }
    }

    fn tick_label(&self, tick: f64) -> String {
        let value = if self.log { 10f64.powf(tick) } else { tick };
        number(value)
    }
}

/// The largest of 1, 2, 5 times a power of ten that is not above `1.5 * raw`.
fn nice(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    let factor = [5.0, 2.0].into_iter().find(|f| f * power <= 1.5 * raw).unwrap_or(1.0);
    factor * power
}

/// A number as an axis shows it.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 1e-12 {
        "0".to_owned()
    } else if !(1e-3..1e5).contains(&magnitude) {
        format!("{value:.0e}")
    } else {
        let digits = (2 - magnitude.log10().floor() as i32).clamp(0, 5) as usize;
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }
}

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

/// Labelled points with error bars, and a line through those that none is better than, beside and below it; `None` when no point can
/// be shown.
pub fn scatter(
    title: &str,
    (x_label, x_scale): (&str, Scale),
    (y_label, y_scale): (&str, Scale),
    better: Better,
    points: &[Point],
) -> Option<String> {
    let shown = |p: &&Point| p.y.is_finite() && (y_scale != Scale::Log || p.y > 0.0);
    let x_axis = Axis::new(x_scale, points.iter().filter(shown).map(|p| p.x))?;
    let y_axis = Axis::new(y_scale, points.iter().flat_map(|p| [p.y, p.y + p.error, p.y - p.error]))?;
    let mut svg = open(title, WIDTH, x_label, y_label);
    x_ticks(&mut svg, &x_axis, WIDTH);
    y_ticks(&mut svg, &y_axis, WIDTH);
    let placed: Vec<(usize, f64, f64)> = points
        .iter()
        .enumerate()
        .filter_map(|(i, p)| Some((i, x_of(x_axis.place(p.x)?, WIDTH), y_of(y_axis.place(p.y)?))))
        .collect();
    let front: Vec<String> = front(&placed, better).iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(svg, "<polyline class=\"front\" points=\"{}\"/>", front.join(" "));
    // Labels go where they cover neither a point nor another label: right of the point, else left, above or below.
    let mut taken: Vec<[f64; 4]> = placed.iter().map(|&(_, x, y)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0]).collect();
    for &(i, x, y) in &placed {
        let point = &points[i];
        let label = short(&point.label);
        let class = i % COLOURS;
        if let (true, Some(top), Some(bottom)) =
            (point.error > 0.0, y_axis.place(point.y + point.error), y_axis.place(point.y - point.error))
        {
            let _ = write!(
                svg,
                "<line class=\"error c{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y_of(top),
                y_of(bottom)
            );
        }
        let _ = write!(
            svg,
            "<circle class=\"c{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"><title>{}: {} {}, {} {}</title></circle>",
            escape(&point.label),
            number(point.x),
            escape(x_label),
            number(point.y),
            escape(y_label)
        );
        let half = 3.4 * width(&label) as f64;
        let spots = [
            (x + 9.0 + half, y + 4.0),
            (x - 9.0 - half, y + 4.0),
            (x, y - 10.0),
            (x, y + 18.0),
            (x + 9.0 + half, y - 7.0),
            (x + 9.0 + half, y + 15.0),
            (x - 9.0 - half, y - 7.0),
            (x - 9.0 - half, y + 15.0),
            (x + half, y - 12.0),
            (x + half, y + 20.0),
        ];
        let rect = |(cx, cy): (f64, f64)| [cx - half, cy - 10.0, cx + half, cy + 3.0];
        let free = |r: &[f64; 4]| {
            let inside = r[0] >= LEFT && r[2] <= WIDTH && r[1] >= TOP - 14.0 && r[3] <= HEIGHT - BOTTOM + 4.0;
            inside && taken.iter().all(|t| r[0] >= t[2] || t[0] >= r[2] || r[1] >= t[3] || t[1] >= r[3])
        };
        let spot = spots.into_iter().find(|&s| free(&rect(s))).unwrap_or(spots[0]);
        taken.push(rect(spot));
        let _ = write!(
            svg,
            "<text class=\"label\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            spot.0,
            spot.1,
            escape(&label)
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// The Pareto front: points from the better side on, each below all before it. (y grows downwards on the page.)
fn front(placed: &[(usize, f64, f64)], better: Better) -> Vec<(f64, f64)> {
    let mut sorted: Vec<(f64, f64)> = placed.iter().map(|&(_, x, y)| (x, y)).collect();
    sorted.sort_by(|a, b| {
        let (a, b, lower) = match better {
            Better::Left => (a.0, b.0, b.1.total_cmp(&a.1)),
            Better::Right => (b.0, a.0, b.1.total_cmp(&a.1)),
        };
        a.total_cmp(&b).then(lower)
    });
    let mut lowest = f64::NEG_INFINITY;
    sorted.retain(|&(_, y)| {
        let better = y > lowest;
        lowest = lowest.max(y);
        better
    });
    sorted
}

/// A label that leaves room for the plot.
fn short(label: &str) -> String {
    shorten(label, 26)
}

/// Colours of the style sheet.
pub const COLOURS: usize = 8;

/// What plots look like in a page: variables for the colours, and rules.
const STYLE: &str = include_str!("plot.css");

/// A plot as a file of its own, which needs no page: in light colours, written into every element, since few programs but browsers
/// know variables and style sheets.
pub fn standalone(plot: &str) -> String {
    let (variables, rest) = STYLE.split_once("\n@media").unwrap_or((STYLE, ""));
    let declared = variables.split(['{', ';', '}']).filter_map(|line| line.split_once(':'));
    let values: Vec<(String, &str)> =
        declared.map(|(name, value)| (format!("var({})", name.trim()), value.trim())).collect();
    let resolve = |text: &str| values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
    // Selectors are `svg` or `svg .class`, with commas between them.
    let rules = rest.split_once("\nsvg").map_or("", |(_, rules)| rules).split('}');
    let rules: Vec<(&str, String)> = rules
        .filter_map(|rule| rule.split_once('{'))
        .flat_map(|(names, body)| names.split(',').map(move |name| (name, body)))
        .map(|(name, body)| (name.rsplit(['.', '\n']).next().unwrap_or(name).trim(), resolve(body.trim())))
        .collect();
    let style = |class: &str| -> String {
        let bodies = rules.iter().filter(|(name, _)| class.split(' ').any(|class| class == *name));
        bodies.map(|(_, body)| body.as_str()).collect::<Vec<_>>().join(" ")
    };
    let mut parts = plot.split(" class=\"");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (class, rest) = part.split_once('"').unwrap_or((part, ""));
        out.push_str(&format!(" style=\"{}\"{rest}", style(class)));
    }
    let open = format!("<svg xmlns=\"http://www.w3.org/2000/svg\" style=\"{}\" ", style(""));
    let ground = format!("><rect width=\"100%\" height=\"100%\" style=\"{}\"/>", resolve("fill: var(--paper)"));
    out.replacen("<svg ", &open, 1).replacen('>', &ground, 1) + "\n"
}

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
    use super::*;

    fn point(label: &str, x: f64, y: f64) -> Point {
        Point { label: label.to_owned(), x, y, error: 0.0 }
    }

    #[test]
    fn axes_have_round_ticks_around_the_values() {
        let axis = Axis::new(Scale::FromZero, [3.2, 96.0].into_iter()).unwrap();
        assert_eq!(axis.ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let axis = Axis::new(Scale::Log, [0.002, 0.7, -1.0, 0.0].into_iter()).unwrap();
        assert_eq!(axis.ticks.iter().map(|&t| axis.tick_label(t)).collect::<Vec<_>>(), ["0.001", "0.01", "0.1", "1"]);
        let axis = Axis::new(Scale::Log, [17.5, 46.0].into_iter()).unwrap();
        assert_eq!(axis.ticks.iter().map(|&t| axis.tick_label(t)).collect::<Vec<_>>(), ["10", "20", "30", "50"]);
        let axis = Axis::new(Scale::Whole, [0.0, 3.0].into_iter()).unwrap();
        assert_eq!(axis.ticks, [0.0, 1.0, 2.0, 3.0]);
        assert!(Axis::new(Scale::Log, [0.0].into_iter()).is_none());
        assert_eq!([0.0, 12.50, 1234.0, 2e-5].map(number), ["0", "12.5", "1234", "2e-5"]);
    }

    #[test]
    fn points_stay_inside_and_labels_apart_and_escaped() {
        let points = [point("a<b", 10.0, 0.1), point("q5_1", 10.5, 0.11), point("nowhere", 5.0, 0.0)];
        let svg = scatter("t", ("MB", Scale::FromZero), ("KLD", Scale::Log), Better::Left, &points).unwrap();
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert!(!svg.contains("nowhere"), "zero has no place on a logarithmic axis");
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        let long = [point(&"x".repeat(1000), 10.0, 0.1)];
        assert!(
            scatter("t", ("MB", Scale::FromZero), ("KLD", Scale::Log), Better::Left, &long)
                .unwrap()
                .contains("xxx…</text>")
        );
    }

    #[test]
    fn the_front_leaves_out_what_another_point_beats() {
        let placed = [(0, 3.0, 9.0), (1, 1.0, 2.0), (2, 2.0, 1.0), (3, 2.0, 5.0), (4, 4.0, 9.0)];
        assert_eq!(front(&placed, Better::Left), [(1.0, 2.0), (2.0, 5.0), (3.0, 9.0)]);
        assert_eq!(front(&placed, Better::Right), [(4.0, 9.0)]);
        let rising = [(0, 3.0, 1.0), (1, 2.0, 4.0), (2, 1.0, 3.0), (3, 0.5, 8.0)];
        assert_eq!(front(&rising, Better::Right), [(3.0, 1.0), (2.0, 4.0), (0.5, 8.0)]);
    }

    #[test]
    fn nothing_to_show_is_no_plot() {
        assert!(scatter("t", ("x", Scale::Whole), ("y", Scale::Log), Better::Left, &[]).is_none());
        assert!(bars("t", "u", &[]).is_none());
        assert!(lines("t", "x", ("y", Scale::Log), &[("a".into(), vec![])]).is_none());
    }

    #[test]
    fn a_plot_by_itself_has_its_colours_and_a_ground() {
        let plot =
            scatter("a & b", ("x", Scale::FromZero), ("y", Scale::Between), Better::Right, &[point("p", 1.0, 2.0)]);
        let svg = standalone(&plot.unwrap());
        let root = "<svg xmlns=\"http://www.w3.org/2000/svg\" style=\"font: 12px system-ui, sans-serif; fill: #1c1e21;\" viewBox=";
        assert!(svg.starts_with(root), "{svg}");
        for part in [
            "<rect width=\"100%\" height=\"100%\" style=\"fill: #ffffff\"/>",
            "<circle style=\"fill: #3b3f45; stroke: #3b3f45;\"",
            "<text style=\"fill: #62676d;\" text-anchor",
            "<polyline style=\"fill: none; stroke: #62676d; stroke-width: 1; stroke-dasharray: 4 4;\"",
            "<text style=\"font-weight: 600; font-size: 14px;\"",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert!(!svg.contains("var(") && !svg.contains("class="), "{svg}");
        // A class with a rule of its own behind those of its colour.
        let line = standalone("<svg viewBox=\"0 0 1 1\"><polyline class=\"line c2\"/></svg>");
        assert!(line.contains("stroke-width: 2; fill: #d9480f; stroke: #d9480f; fill: none;"), "{line}");
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }
}
