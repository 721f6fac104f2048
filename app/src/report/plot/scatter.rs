//! Points: what is gained against what is given up.

use std::fmt::Write as _;

use super::axis::{Axis, Scale, number};
use super::{BOTTOM, COLOURS, HEIGHT, LEFT, TOP, WIDTH, open, short, x_of, x_ticks, y_of, y_ticks};
use crate::report::html::escape;
use crate::table::width;

/// In which way points of a plot are better than others, if they are lower too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The less the better.
    Left,
    /// The more the better.
    Right,
}

/// How a point is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// As one of those that the plot is about.
    #[default]
    Circle,
    /// As one that is there for comparison; the line of the best leaves it out.
    Diamond,
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
    /// Its mark.
    pub mark: Mark,
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
    let own = placed.iter().filter(|(i, ..)| points[*i].mark == Mark::Circle).copied().collect::<Vec<_>>();
    let front: Vec<String> = front(&own, better).iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
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
        let (shape, place) = match point.mark {
            Mark::Circle => ("circle", format!("cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"")),
            Mark::Diamond => {
                let [left, right, top, bottom] = [x - 6.5, x + 6.5, y - 6.5, y + 6.5];
                ("path", format!("d=\"M{left:.1} {y:.1} L{x:.1} {top:.1} L{right:.1} {y:.1} L{x:.1} {bottom:.1} Z\""))
            }
        };
        let _ = write!(
            svg,
            "<{shape} class=\"c{class}\" {place}><title>{}: {} {}, {} {}</title></{shape}>",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn point(label: &str, x: f64, y: f64) -> Point {
        Point { label: label.to_owned(), x, y, error: 0.0, mark: Mark::Circle }
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
    fn what_is_there_for_comparison_is_a_diamond_beside_the_front() {
        let other = Point { mark: Mark::Diamond, ..point("theirs", 1.0, 0.01) };
        let points = [point("a", 10.0, 0.1), point("b", 5.0, 0.5), other];
        let svg = scatter("t", ("MB", Scale::FromZero), ("KLD", Scale::Log), Better::Left, &points).unwrap();
        assert_eq!((svg.matches("<circle").count(), svg.matches("<path").count()), (2, 1));
        let front = svg.split("class=\"front\" points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(front.split(' ').count(), 2, "theirs beats both and is not in it: {front}");
    }
}
