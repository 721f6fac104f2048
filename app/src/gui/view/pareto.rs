//! What is given up against what is gained, a point for each measurement. A click on a point chooses it.

use eframe::egui::{self, RichText, Ui};
use egui_plot::{HoverPosition, Line, MarkerShape, PlotPoints, Points, Text};

use super::axis;
use super::parts::{self, dim};
use crate::gui::state::{Action, Shown, Trade};
use crate::gui::theme::palette;
use crate::report::plot::number;

/// A point.
struct Place<'a> {
    /// Of its row.
    number: usize,
    name: &'a str,
    /// It was measured here.
    own: bool,
    xy: [f64; 2],
}

/// The plot, and above it what it is of.
pub fn show(ui: &mut Ui, rows: &[Shown<'_>], trade: Trade, chosen: Option<&str>, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        for other in Trade::ALL {
            if ui.selectable_label(other == trade, other.title()).clicked() {
                actions.push(Action::Trade(other));
            }
        }
    });
    let points: Vec<Place> = rows
        .iter()
        .enumerate()
        .filter_map(|(number, row)| {
            let [x, y] = trade.values(row.variant)?;
            let (name, own) = (row.variant.recipe.as_str(), row.report.is_none());
            Some(Place { number, name, own, xy: [x, if trade.logarithmic() { y.log10() } else { y }] })
        })
        .collect();
    if points.is_empty() {
        dim(ui, "Nothing that diverges yet: add a compression on the Compare page.");
        return;
    }
    let p = palette(ui);
    let all = points.iter().map(|place| place.xy);
    let [low, high] = all.clone().fold([f64::MAX, f64::MIN], |[l, h], [_, y]| [l.min(y), h.max(y)]);
    let right = all.map(|[x, _]| x).fold(0.0, f64::max);
    let margin = if trade.logarithmic() { 0.5 } else { 0.1 * (high - low) + 0.01 };
    let value = move |y: f64| if trade.logarithmic() { number(10f64.powf(y)) } else { format!("{y:.3}") };
    let [x_axis, y_axis] = trade.axes();
    let mut plot = axis::still(ui, ("trade", y_axis, x_axis), 280.0)
        .include_x(0.0)
        .include_x(1.3 * right)
        .include_y(low - margin)
        .include_y(high + margin)
        .x_axis_label(x_axis)
        .y_axis_label(y_axis)
        .show_grid([false, true])
        .label_formatter(move |place| match place {
            HoverPosition::NearDataPoint { plot_name, position, .. } => {
                Some(format!("{plot_name}\n{:.1} {x_axis}\n{y_axis} {}", position.x, value(position.y)))
            }
            HoverPosition::Elsewhere { .. } => None,
        });
    if trade.logarithmic() {
        plot = plot.y_axis_formatter(axis::label).y_grid_spacer(axis::marks);
    }
    let response = plot.show(ui, |plot| {
        let own = points.iter().filter(|place| place.own);
        let front = front(own.map(|place| place.xy).collect(), trade.rising());
        plot.line(Line::new("best", PlotPoints::from(front)).color(p.line).width(1.5));
        for Place { number, name, own, xy } in &points {
            let colour = parts::series(p, *number);
            let (radius, gap) = if *own && chosen == Some(*name) { (8.0, 0.04) } else { (5.0, 0.025) };
            let (shape, radius) =
                if *own { (MarkerShape::Circle, radius) } else { (MarkerShape::Diamond, 1.3 * radius) };
            let point = Points::new(*name, PlotPoints::from(vec![*xy])).radius(radius).shape(shape);
            plot.points(point.color(colour));
            // One's own have their names to the right, others to the left: the same method twice often stands close together.
            let (side, anchor) =
                if *own { (1.0, egui::Align2::LEFT_CENTER) } else { (-1.0, egui::Align2::RIGHT_CENTER) };
            let at = egui_plot::PlotPoint::new(xy[0] + side * gap * right, xy[1]);
            let text = RichText::new(*name).size(13.0);
            plot.text(Text::new(*name, at, text).color(p.ink).anchor(anchor));
        }
    });
    if response.response.clicked()
        && let Some(pointer) = response.response.interact_pointer_pos()
    {
        let distance = |xy: &[f64; 2]| {
            let at = response.transform.position_from_point(&egui_plot::PlotPoint::new(xy[0], xy[1]));
            at.distance(pointer)
        };
        let own = points.iter().filter(|place| place.own);
        let near = own.map(|place| (place.name, distance(&place.xy))).min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((name, _)) = near.filter(|(_, distance)| *distance < 24.0) {
            actions.push(Action::Choose(name.to_owned()));
        }
    }
}

/// Points that no other beats in both, in the order of what is gained.
fn front(mut points: Vec<[f64; 2]>, rising: bool) -> Vec<[f64; 2]> {
    points.sort_by(|a, b| {
        let x = if rising { b[0].total_cmp(&a[0]) } else { a[0].total_cmp(&b[0]) };
        x.then(a[1].total_cmp(&b[1]))
    });
    let mut best = f64::INFINITY;
    points.retain(|[_, y]| {
        let better = *y < best;
        best = best.min(*y);
        better
    });
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_no_other_beats() {
        let points = vec![[3.0, 1.0], [1.0, 5.0], [2.0, 6.0], [2.5, 4.0], [4.0, 1.0]];
        assert_eq!(front(points.clone(), false), [[1.0, 5.0], [2.5, 4.0], [3.0, 1.0]]);
        assert_eq!(front(points, true), [[4.0, 1.0]]);
    }
}
