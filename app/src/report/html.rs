//! A comparison as one self-contained page: table, plots, texts side by side, errors by layer and tensor. No network, no
//! script but the report itself as data.

use std::fmt::Write as _;

use tersor_engine::session::report::{Comparison, Report, Variant};

use super::plot::{self, Better, Mark, Point, Scale};
use super::text::{self, printable, visible};
use super::{SHOWN, calibration, is_encoder, setting, table};
use crate::table::{Align, Table};
use crate::units::{megabytes, significant};

/// Text as HTML shows it. Control characters, which HTML has no place for, become replacement characters.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
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
    let Comparison { model, device, text, prompt, .. } = comparison;
    let title = format!("{}, compressed", model.name);
    let mut body = String::new();
    // A String takes everything that is written to it.
    let _ = write!(body, "<h1>{}</h1><dl>", escape(&title));
    for (name, value) in setting(model, device, text.as_ref(), calibration(comparison), prompt.as_deref()) {
        let _ = write!(body, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    body.push_str("</dl>");
    body.push_str(&html_table(&table(comparison)));
    body.push_str(&replaced(comparison));
    body.push_str(&plots(comparison));
    body.push_str(&texts(comparison));
    body.push_str(&tensors(comparison));
    let _ = write!(
        body,
        "<h2>How this was made</h2><p>{}</p><p>By tersor {} in {:.0} s, with <code>{}</code>.</p>",
        if is_encoder(model) { ENCODER_LEGEND } else { LEGEND },
        escape(&comparison.version),
        comparison.seconds,
        escape(command)
    );
    document(&title, &body, &Report::Compare(comparison.clone()))
}

/// A page of its own around a report, which is in it as data.
pub(super) fn document(title: &str, body: &str, report: &Report) -> String {
    let data = serde_json::to_string(report).unwrap_or_default();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{}</title><style>{STYLE}</style>\
         </head><body><main>{body}</main><script type=\"application/json\" id=\"report\">{}</script></body></html>\n",
        escape(title),
        data.replace('<', "\\u003c")
    )
}

/// What the columns of the table are.
const LEGEND: &str = "PPL: perplexity, with its standard error. KLD: KL divergence from the original's prediction to the \
    compressed one's, in nats a position: its mean, what 99.9 % of positions stay below, its largest. Same top: how often the \
    most likely token is the original's. All are over the same windows. GPU: the most memory held at once, KV cache and \
    scratch included.";

/// The same for an encoder.
const ENCODER_LEGEND: &str = "Cosine: between a paragraph's two vectors, the original's and the compressed model's. Recall: every \
    paragraph as a query for all others, the share of the original's nearest ones that the compressed model finds too. Rank \
    corr.: Spearman's correlation of the similarities of all pairs. GPU: the most memory held at once, scratch included.";

/// Tensors that another codec than the recipe's had to take: in a line, with all their names behind it.
fn replaced(comparison: &Comparison) -> String {
    let mut out = String::new();
    for variant in &comparison.variants {
        let fallbacks = &variant.weights.fallbacks;
        for line in super::fallbacks(&variant.recipe, &variant.weights) {
            let _ = write!(out, "<p class=\"note\">{}</p>", escape(&line));
        }
        if fallbacks.len() > SHOWN {
            let names: Vec<String> = fallbacks.iter().map(|f| format!("{} ({})", f.tensor, f.used)).collect();
            let _ = write!(
                out,
                "<details><summary>all {} of {}</summary><p class=\"note\">{}</p></details>",
                names.len(),
                escape(&variant.recipe),
                escape(&names.join(", "))
            );
        }
    }
    out
}

pub(super) fn html_table(table: &Table) -> String {
    let class = |align: Align| if align == Align::Right { " class=\"n\"" } else { "" };
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    for (name, align) in table.header().zip(table.aligns()) {
        let _ = write!(out, "<th{}>{}</th>", class(align), escape(name).replace('\n', "<br>"));
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
    let point = |v: &Variant, y: f64, error: f64| {
        let (label, x) = (v.recipe.clone(), megabytes(v.weights.bytes));
        Point { label, x, y, error, mark: Mark::Circle }
    };
    // Every variant keeps its colour: those without a value stand in the list with one that cannot be shown.
    let divergence: Vec<Point> = variants
        .iter()
        .map(|v| {
            let kl = v.quality.as_ref().and_then(|q| q.divergence.as_ref()).map(|d| d.kl_divergence);
            point(v, kl.map_or(f64::NAN, |k| k.mean), kl.map_or(0.0, |k| k.standard_error))
        })
        .collect();
    let angle: Vec<Point> =
        variants.iter().map(|v| point(v, v.embeddings.map_or(f64::NAN, |d| 1.0 - d.cosine_mean), 0.0)).collect();
    let speed = |of: fn(&tersor_engine::session::report::Speed) -> f64| -> Vec<(String, f64)> {
        let values = variants.iter().filter_map(|v| Some((v.recipe.clone(), of(v.speed.as_ref()?))));
        values.filter(|(_, value)| *value > 0.0).collect()
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
        plot::scatter(
            "Size and divergence",
            ("weights, MB", Scale::FromZero),
            ("mean KL divergence, nats", Scale::Log),
            Better::Left,
            &divergence,
        ),
        plot::scatter(
            "Size and drift of the vectors",
            ("weights, MB", Scale::FromZero),
            ("1 − mean cosine", Scale::Log),
            Better::Left,
            &angle,
        ),
        plot::lines("Drift of the residual stream", "layer", ("NMSE after the layer", Scale::Log), &drift),
        plot::bars("Prefill", "tok/s", &speed(|s| s.prefill_tokens_per_second)),
        plot::bars("Decode", "tok/s", &speed(|s| s.decode_tokens_per_second)),
    ];
    let figures: String = all.into_iter().flatten().map(|svg| format!("<figure>{svg}</figure>")).collect();
    if figures.is_empty() { figures } else { format!("<div class=\"plots\">{figures}</div>") }
}

fn texts(comparison: &Comparison) -> String {
    let mut out = String::new();
    for (i, variant) in comparison.variants.iter().enumerate() {
        let Some(generation) = &variant.generation else { continue };
        let parts = text::parts(generation);
        let mark = parts.differing.map_or(String::new(), |token| format!("<mark>{}</mark>", escape(&visible(token))));
        let _ = write!(
            out,
            "<section><h3>{} <small>{}</small></h3><p class=\"text\">{}{mark}<span class=\"after\">{}</span></p></section>",
            escape(&variant.recipe),
            text::note(variant, i == 0),
            escape(&parts.same),
            escape(&parts.rest)
        );
    }
    if out.is_empty() {
        return out;
    }
    format!(
        "<h2>What they write</h2><p>Greedy continuations of the prompt. Marked is the first token that differs from the \
         original's.</p><div class=\"texts\">{out}</div>"
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
const STYLE: &str = concat!(include_str!("plot.css"), include_str!("report.css"));

#[cfg(test)]
mod tests {
    use super::super::tests::{comparison, encoder};
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
        assert_eq!(page.matches("<svg").count(), 4);
        for tag in ["div", "table", "tr", "td", "svg", "section", "figure", "details", "p", "text"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        let data = page.split("id=\"report\">").nth(1).unwrap().split("</script>").next().unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["schema"], "tersor.compare/1");
    }

    #[test]
    fn an_encoder_has_a_page_of_its_own() {
        let page = page(&encoder(), "tersor compare x --with q4_0");
        for part in ["cosine<br>mean", "1 − mean cosine", "Spearman"] {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(!page.contains("Perplexity") && !page.contains("PPL"));
    }
}
