//! The roofline plot: operations a second over operations a byte, under the adapter's measured bandwidth and rate.

use std::fmt::Write as _;

use tersor_engine::bench::{Ceilings, Findings, Measurement};

use super::html::escape;
use super::plot::{Axis, COLOURS, Scale, WIDTH, number, open, standalone, x_of, x_ticks, y_of, y_ticks};

/// Kinds of measurements, in the order of their colours.
pub const KINDS: [&str; 4] = ["matvec", "matmul", "attention-prefill", "attention-decode"];

/// The first word of a measurement's name, as a number of [`KINDS`].
pub fn kind(measurement: &Measurement) -> usize {
    let name = measurement.name.split(' ').next();
    KINDS.iter().position(|kind| Some(*kind) == name).unwrap_or(KINDS.len()) % COLOURS
}

/// Operations that follow from a byte.
pub fn intensity(measurement: &Measurement) -> f64 {
    measurement.operations as f64 / measurement.bytes as f64
}

/// One point for each measurement, under the roof; `None` without measurements.
pub fn roofline(ceilings: &Ceilings, measurements: &[Measurement]) -> Option<String> {
    measurements.first()?;
    let (bandwidth, peak) = (1e-9 * ceilings.bandwidth(), ceilings.fma_gflop_per_s);
    let ridge = peak / bandwidth;
    let x_axis = Axis::new(Scale::Log, measurements.iter().map(intensity).chain([ridge]))?;
    let values = measurements.iter().flat_map(|m| [m.gflop_per_s, peak.min(bandwidth * intensity(m))]).chain([peak]);
    let y_axis = Axis::new(Scale::Log, values)?;
    let mut svg = open("Roofline", WIDTH, "necessary operations a byte", "GFLOP/s");
    x_ticks(&mut svg, &x_axis, WIDTH);
    y_ticks(&mut svg, &y_axis, WIDTH);
    let place = |x: f64, y: f64| Some((x_of(x_axis.place(x)?, WIDTH), y_of(y_axis.place(y)?)));
    // The slope ends at the plot's lower edge where that comes first.
    let left = x_axis.first().max(y_axis.first() / bandwidth).min(ridge);
    let corners = [(left, bandwidth * left), (ridge, peak), (x_axis.last().max(ridge), peak)];
    let corners: Vec<String> =
        corners.iter().filter_map(|&(x, y)| place(x, y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(svg, "<polyline class=\"front\" points=\"{}\"/>", corners.join(" "));
    for m in measurements {
        let Some((x, y)) = place(intensity(m), m.gflop_per_s) else { continue };
        let _ = write!(
            svg,
            "<circle class=\"c{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}: {} GFLOP/s, {} GB/s, {:.0} % of the roof</title></circle>",
            kind(m),
            escape(&m.name),
            number(m.gflop_per_s),
            number(m.gb_per_s),
            100.0 * m.roof_fraction
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// [`roofline`] as a drawing of its own, which says itself what the colours are.
pub fn drawing(found: &Findings) -> Option<String> {
    let mut svg = roofline(&found.ceilings, &found.measurements)?;
    svg.truncate(svg.len() - "</svg>".len());
    let mut x = 140.0;
    for (i, name) in KINDS.iter().enumerate().filter(|(i, _)| found.measurements.iter().any(|m| kind(m) == *i)) {
        let _ = write!(
            svg,
            "<circle class=\"c{i}\" cx=\"{x:.1}\" cy=\"14\" r=\"4\"/><text class=\"tick\" x=\"{:.1}\" y=\"18\">{name}</text>",
            x + 8.0
        );
        x += 24.0 + 5.5 * name.len() as f64;
    }
    svg.push_str("</svg>");
    Some(standalone(&svg))
}

#[cfg(test)]
mod tests {
    use super::super::bench::tests::benchmark;
    use super::*;

    #[test]
    fn points_lie_under_the_roof() {
        let found = benchmark().findings;
        let svg = roofline(&found.ceilings, &found.measurements).unwrap();
        assert_eq!(svg.matches("<circle").count(), found.measurements.len());
        assert!(svg.contains("class=\"c0\"") && svg.contains("class=\"c1\"") && !svg.contains("NaN"));
        let number = |text: &str| text.parse::<f64>().unwrap();
        let roof = svg.split("class=\"front\" points=\"").nth(1).unwrap().split('"').next().unwrap();
        let corners: Vec<(f64, f64)> =
            roof.split(' ').map(|p| p.split_once(',').unwrap()).map(|(x, y)| (number(x), number(y))).collect();
        assert_eq!(corners.len(), 3);
        assert!(corners[0].0 < corners[1].0 && corners[0].1 > corners[1].1, "the slope rises: {roof}");
        assert_eq!(corners[1].1, corners[2].1, "the rate is level: {roof}");
        for circle in svg.split("<circle ").skip(1) {
            let field =
                |name: &str| number(circle.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap());
            let (x, y) = (field(" cx"), field(" cy"));
            let on_slope =
                corners[0].1 + (corners[1].1 - corners[0].1) * (x - corners[0].0) / (corners[1].0 - corners[0].0);
            let roof = if x < corners[1].0 { on_slope } else { corners[1].1 };
            assert!(y >= roof - 0.2, "{x}, {y} is above {roof}");
        }
        assert!(roofline(&found.ceilings, &[]).is_none());
        // By itself it names the colours that it has.
        let alone = drawing(&found).unwrap();
        assert_eq!(alone.matches("</svg>").count(), 1);
        assert!(alone.contains(">matmul</text>") && !alone.contains(">attention-decode</text>"), "{alone}");
    }
}
