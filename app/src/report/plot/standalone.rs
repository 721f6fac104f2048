//! Plots as files of their own.

/// What plots look like in a page: variables for the colours, and rules.
const STYLE: &str = include_str!("../plot.css");

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

/// Width and height of a plot, in its units.
pub fn size(plot: &str) -> Option<[f64; 2]> {
    let numbers = plot.split("viewBox=\"0 0 ").nth(1)?.split('"').next()?;
    let (width, height) = numbers.split_once(' ')?;
    Some([width.parse().ok()?, height.parse().ok()?])
}

#[cfg(test)]
mod tests {
    use super::super::{Better, HEIGHT, Mark, Point, Scale, WIDTH, scatter};
    use super::*;

    fn point(label: &str, x: f64, y: f64) -> Point {
        Point { label: label.to_owned(), x, y, error: 0.0, mark: Mark::Circle }
    }

    #[test]
    fn a_plot_by_itself_has_its_colours_and_a_ground() {
        let plot =
            scatter("a & b", ("x", Scale::FromZero), ("y", Scale::Between), Better::Right, &[point("p", 1.0, 2.0)]);
        let svg = standalone(&plot.unwrap());
        assert_eq!((size(&svg), size("<svg/>")), (Some([WIDTH, HEIGHT]), None));
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
