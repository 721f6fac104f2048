//! Plots that stand still, and axes that show logarithms, to base ten.

use std::ops::RangeInclusive;

use eframe::egui::{AsIdSalt, Ui};
use egui_plot::{GridInput, GridMark, Plot};

use crate::gui::theme::palette;
use crate::report::plot::number;

/// A plot that neither scrolls nor zooms, with faint lines.
pub fn still<'a>(ui: &Ui, id: impl AsIdSalt, height: f32) -> Plot<'a> {
    Plot::new(id)
        .height(height)
        .allow_scroll(false)
        .allow_drag(false)
        .allow_zoom(false)
        .show_background(false)
        .grid_color(palette(ui).line)
        .grid_fade(0.0)
}

/// Powers of ten; where fewer than two are in sight, also twice and five times them.
pub fn marks(input: GridInput) -> Vec<GridMark> {
    let (low, high) = input.bounds;
    let factors: &[f64] = if high - low < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let decades = low.floor() as i32..=high.ceil() as i32;
    let values = decades.flat_map(|power| factors.iter().map(move |factor| f64::from(power) + factor.log10()));
    let inside = values.filter(|value| (low..=high).contains(value));
    inside.map(|value| GridMark { value, step_size: 1.0 }).collect()
}

/// The value at a mark.
pub fn label(mark: GridMark, _: &RangeInclusive<f64>) -> String {
    number(10f64.powf(mark.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_never_few() {
        let shown = |low, high| -> Vec<String> {
            let input = GridInput { bounds: (low, high), base_step_size: 0.1 };
            marks(input).into_iter().map(|mark| label(mark, &(0.0..=1.0))).collect()
        };
        assert_eq!(shown(-3.2, 0.1), ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(shown(0.9, 1.8), ["10", "20", "50"]);
        assert_eq!(shown(-12.5, -10.0).len(), 3);
    }
}
