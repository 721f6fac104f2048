//! A comparison as one self-contained page: table, plots, texts side by side, errors by layer and tensor. No network, no
//! script but the report itself as data.

use std::fmt::Write as _;

use tersor_engine::session::report::{Comparison, Report, Variant};

use super::plot::{self, Point, Scale};
use super::{fallbacks, setting, table, text};
use crate::table::{Align, Table};
use crate::units::{megabytes, significant};

/// Text as HTML shows it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The page. `command` is what was typed, so that the numbers can be made again.
pub fn page(comparison: &Comparison, command: &str) -> String {
    let title = format!("tersor: {} compressed", comparison.model.name);
    let mut body = String::new();
    // A String takes everything that is written to it.
    let _ = write!(body, "<h1>{}</h1><p>{}</p>", escape(&title), escape(&setting(comparison)));
    if comparison.device.software {
        body.push_str(
            "<p class=\"note\">This adapter is a software renderer: its speeds say nothing about GPUs. \
             Sizes and quality do not depend on it.</p>",
        );
    }
    body.push_str(&html_table(&table(comparison)));
    for line in comparison.variants.iter().flat_map(|v| fallbacks(&v.recipe, &v.weights)) {
        let _ = write!(body, "<p class=\"note\">{}</p>", escape(&line));
    }
    body.push_str(&plots(comparison));
    body.push_str(&texts(comparison));
    body.push_str(&tensors(comparison));
    let _ = write!(
        body,
        "<h2>How this was made</h2><p><code>{}</code>, tersor {}, {:.0} s in all. Perplexity (±: standard error) and KL \
         divergence (nats a position, from the original's prediction to the compressed one's) are over the same windows \
         for all; “same top” is how often the most likely token is the original's.</p>",
        escape(command),
        escape(&comparison.version),
        comparison.seconds
    );
    let data = serde_json::to_string(&Report::Compare(comparison.clone())).unwrap_or_default();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{}</title><style>{STYLE}</style>\
         </head><body><main>{body}</main><script type=\"application/json\" id=\"report\">{}</script></body></html>\n",
        escape(&title),
        data.replace('<', "\\u003c")
    )
}

fn html_table(table: &Table) -> String {
    let class = |align: Align| if align == Align::Right { " class=\"n\"" } else { "" };
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    for (name, align) in table.header().zip(table.aligns()) {
        let _ = write!(out, "<th{}>{}</th>", class(align), escape(name));
    }
    out.push_str("</tr></thead><tbody>");
    for row in table.rows() {
        out.push_str("<tr>");
        for (cell, align) in row.iter().zip(table.aligns()) {
            let _ = write!(out, "<td{}>{}</td>", class(align), escape(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

fn plots(comparison: &Comparison) -> String {
    let variants = &comparison.variants;
    let point =
        |v: &Variant, y: f64, error: f64| Point { label: v.recipe.clone(), x: megabytes(v.weights.bytes), y, error };
    // Every variant keeps its colour: those without a value stand in the list with one that cannot be shown.
    let divergence: Vec<Point> = variants
        .iter()
        .map(|v| {
            let kl = v.quality.as_ref().and_then(|q| q.divergence.as_ref()).map(|d| d.kl_divergence);
            point(v, kl.map_or(f64::NAN, |k| k.mean), kl.map_or(0.0, |k| k.standard_error))
        })
        .collect();
    let perplexity: Vec<Point> = variants
        .iter()
        .map(|v| {
            let p = v.quality.as_ref().map(|q| q.perplexity);
            point(v, p.map_or(f64::NAN, |p| p.value), p.map_or(0.0, |p| p.standard_error))
        })
        .collect();
    let speed = |of: fn(&tersor_engine::session::report::Speed) -> f64| -> Vec<(String, f64)> {
        variants.iter().filter_map(|v| Some((v.recipe.clone(), of(v.speed.as_ref()?)))).collect()
    };
    let drift: Vec<(String, Vec<(f64, f64)>)> = variants
        .iter()
        .filter_map(|v| {
            let layers = &v.quality.as_ref()?.divergence.as_ref()?.layers;
            let points = layers.iter().map(|l| (f64::from(l.layer), l.nmse)).collect();
            (!layers.is_empty()).then(|| (v.recipe.clone(), points))
        })
        .collect();
    let all = [
        plot::scatter("KL divergence against size", ("MB", Scale::FromZero), ("nats", Scale::Log), &divergence),
        plot::scatter("Perplexity against size", ("MB", Scale::FromZero), ("perplexity", Scale::Log), &perplexity),
        plot::bars("Prefill", "tok/s", &speed(|s| s.prefill_tokens_per_second)),
        plot::bars("Decode", "tok/s", &speed(|s| s.decode_tokens_per_second)),
        plot::lines("Drift of the residual stream", "layer", ("NMSE", Scale::Log), &drift),
    ];
    let figures: String = all.into_iter().flatten().map(|svg| format!("<figure>{svg}</figure>")).collect();
    if figures.is_empty() { figures } else { format!("<div class=\"plots\">{figures}</div>") }
}

fn texts(comparison: &Comparison) -> String {
    let mut out = String::new();
    for variant in &comparison.variants {
        let Some(generation) = &variant.generation else { continue };
        let parts = text::parts(generation);
        let mark = parts.differing.map_or(String::new(), |token| format!("<mark>{}</mark>", escape(token)));
        let _ = write!(
            out,
            "<section><h3>{}</h3><p class=\"text\">{}{mark}<span class=\"after\">{}</span></p></section>",
            escape(&variant.recipe),
            escape(&parts.same),
            escape(&parts.rest)
        );
    }
    if out.is_empty() {
        return out;
    }
    let prompt = comparison.prompt.as_deref().unwrap_or_default();
    format!(
        "<h2>What they write</h2><p>Greedy, from “{}”. Marked: the first token that differs from the original's.</p>\
         <div class=\"texts\">{out}</div>",
        escape(prompt)
    )
}

fn tensors(comparison: &Comparison) -> String {
    let mut out = String::new();
    for variant in comparison.variants.iter().filter(|v| !v.weights.tensors.is_empty()) {
        let mut errors = variant.weights.tensors.clone();
        errors.sort_by(|a, b| b.nmse.total_cmp(&a.nmse));
        let mut table = Table::new([("tensor", Align::Left), ("codec", Align::Left), ("NMSE", Align::Right)]);
        for error in &errors {
            table.row([error.tensor.clone(), error.codec.clone(), significant(error.nmse)]);
        }
        let codecs: Vec<String> = variant.weights.codecs.iter().map(|(name, n)| format!("{n} × {name}")).collect();
        let _ = write!(
            out,
            "<details><summary>{}: {}</summary>{}</details>",
            escape(&variant.recipe),
            escape(&codecs.join(", ")),
            html_table(&table)
        );
    }
    if out.is_empty() { out } else { format!("<h2>Weight error of each tensor</h2>{out}") }
}

/// Light and dark, the eight colours of the plots readable on both.
const STYLE: &str = include_str!("report.css");

#[cfg(test)]
mod tests {
    use super::super::tests::comparison;
    use super::*;

    #[test]
    fn the_page_is_whole_escaped_and_needs_nothing_else() {
        let page = page(&comparison(), "tersor compare x --with 'q4_0'");
        assert!(page.contains("&lt;script&gt;alert"), "the model's text is text");
        assert!(!page.contains("<script>alert"));
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("<mark> moon</mark>"));
        assert_eq!(page.matches("<svg").count(), 5);
        for tag in ["div", "table", "tr", "td", "svg", "section", "figure", "details", "p", "text"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        let data = page.split("id=\"report\">").nth(1).unwrap().split("</script>").next().unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["schema"], "tersor.compare/1");
    }
}
