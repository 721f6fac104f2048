//! `tersor eval`.

use anyhow::{Result, bail};
use tersor_engine::session::report::{Evaluation, Quality};
use tersor_engine::session::{Command, Evaluate, Report};

use super::{Context, Encoding, TextArgs, out};
use crate::report::{self, lines, setting, text::printable};
use crate::table::{Align, Table, wrap};
use crate::units::{megabytes, significant};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name of `tersor fetch`, a file, a folder, or a Hugging Face id
    model: String,
    /// Measure the divergence from this model, which must have the same vocabulary
    #[arg(long, value_name = "MODEL")]
    against: Option<String>,
    #[command(flatten)]
    encoding: Encoding,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    attention: super::Attention,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(text) = args.text.read()? else { bail!("there is nothing to measure on: give --text FILE") };
    let command = Evaluate {
        recipe: args.encoding.recipe()?,
        rotation: args.encoding.rotation(),
        calibration: args.encoding.calibration.read()?,
        text,
        context: args.text.context,
        windows: args.text.windows(),
        attention: args.attention.policy.clone(),
        against: args.against.as_ref().map(|model| context.source(model)).transpose()?,
        source: context.source(&args.model)?,
    };
    let report = context.client()?.run(Command::Evaluate(command), |_| Ok(()))?;
    let Some(Report::Evaluate(found)) = &report else { bail!("the engine gave no result") };
    out::print(describe(found, out::width()))?;
    context.write_json(report.as_ref())
}

fn describe(found: &Evaluation, width: Option<usize>) -> String {
    let mut table = Table::new([("measure", Align::Left), ("value", Align::Right), ("±", Align::Right)]);
    let mut row = |name: &str, value: String, error: String| table.row([name.to_owned(), value, error]);
    row("weights, MB", format!("{:.1}", megabytes(found.weights.bytes)), String::new());
    row("bits a weight", format!("{:.2}", found.weights.bits_per_weight), String::new());
    let perplexity = |q: &Quality| {
        let p = q.perplexity;
        (format!("{:.4}", p.value), format!("{:.4}", p.standard_error))
    };
    let (value, error) = perplexity(&found.quality);
    row("perplexity", value, error);
    if let Some(bits) = found.quality.bits_per_byte {
        row("bits per byte", format!("{bits:.4}"), String::new());
    }
    if let (Some(against), Some(quality)) = (&found.against, &found.against_quality) {
        let (value, error) = perplexity(quality);
        row(&format!("perplexity of {}", against.name), value, error);
    }
    if let Some(d) = &found.quality.divergence {
        let kl = d.kl_divergence;
        let none = String::new;
        let ratio = d.ln_perplexity_ratio;
        row("ln perplexity ratio", significant(ratio.value), significant(ratio.standard_error));
        row("KL divergence, mean", significant(kl.mean), significant(kl.standard_error));
        row("KL divergence, median", significant(kl.median), none());
        row("KL divergence, 99 %", significant(kl.percentile_99), none());
        row("KL divergence, 99.9 %", significant(kl.percentile_99_9), none());
        row("KL divergence, max", significant(kl.max), none());
        row("Δp, mean", significant(d.delta_p_mean), none());
        row("Δp, RMS", significant(d.delta_p_rms), none());
        let same = d.same_top;
        row("same top, %", format!("{:.3}", 100.0 * same.value), format!("{:.3}", 100.0 * same.standard_error));
        row("top-5 overlap, %", format!("{:.3}", 100.0 * d.top5_overlap), none());
        row("flips", d.flips.to_string(), none());
    }
    if let Some(attention) = &found.attention {
        row("attention blocks computed, %", format!("{:.1}", 100.0 * attention.kept_fraction), String::new());
    }
    row("positions a second", significant(found.positions_per_second), String::new());
    let mut pairs = setting(&found.model, &found.device, Some(&found.text), found.weights.calibration.as_ref(), None);
    if let Some(against) = &found.against {
        pairs.insert(1, ("against", printable(&report::describe(against))));
    }
    let mut fallbacks = String::new();
    if let Some(attention) = &found.attention {
        pairs.insert(1, ("attention", printable(&attention.policy)));
    }
    if let Some(recipe) = &found.recipe {
        pairs.insert(1, ("recipe", printable(recipe)));
        for line in report::fallbacks(recipe, &found.weights) {
            fallbacks.push_str(&format!("\n{}\n", wrap(&line, width, 2)));
        }
    }
    format!("{}\n{}{fallbacks}", lines(&pairs, width), table.fit(width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::comparison;
    use crate::table::width;

    #[test]
    fn the_result_fits_a_terminal() {
        let mut found = comparison();
        let [original, compressed] = [0, 1].map(|i| found.variants[i].quality.take().unwrap());
        let evaluation = Evaluation {
            version: found.version,
            device: found.device,
            against: Some(found.model.clone()),
            recipe: Some("q4_k".into()),
            attention: None,
            weights: found.variants.remove(1).weights,
            model: found.model,
            against_quality: Some(original),
            text: found.text.unwrap(),
            quality: compressed,
            positions_per_second: 123.4,
        };
        let shown = describe(&evaluation, Some(80));
        assert!(shown.lines().all(|line| width(line) <= 80), "{shown}");
        for part in [
            "1020 positions in 4 windows",
            "against",
            "q5_0 for 2 tensors",
            "KL divergence, 99.9 %",
            "0.0123",
            "95.120",
        ] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
    }
}
