//! `tersor bench`: what the adapter gives at most, and how much of that each kernel gets.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use tersor_engine::bench;
use tersor_engine::bench::model::ModelPlan;
use tersor_engine::session::report::Benchmark;
use tersor_engine::session::{Bench, BenchModel, Command, Report};

use super::{Context, Encoding, out, write};
use crate::report::bench::{page, ratios, terminal};
use crate::report::{bench_model, roofline};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Measure what has all words of this in its name ("matvec q4_k", "attention 4096"); several are alternatives
    #[arg(long, value_name = "PATTERN")]
    filter: Vec<String>,
    /// Measure a short list: one codec of each family, two shapes, two attentions
    #[arg(long)]
    quick: bool,
    /// Name what would be measured, and measure nothing
    #[arg(long, conflicts_with_all = ["html", "svg", "compare"])]
    list: bool,
    /// Leave out what takes longer than this many seconds a run on this adapter
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    longest: f64,
    /// Also write a page with the roofline
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also draw the roofline alone
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Also show the times through those of an older report (its --json file)
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Compare even if the older report is another adapter's
    #[arg(long, requires = "compare")]
    other_adapter: bool,
    /// Measure this language model end to end instead: prefill and decode by length of the context, time to the first token,
    /// what the host does for a token, memory
    #[arg(long, conflicts_with_all = ["filter", "list", "html", "svg", "compare"])]
    model: Option<String>,
    #[command(flatten)]
    encoding: Encoding,
    /// Lengths to measure at; without it 128 to 8192 as far as the model goes, to 512 with --quick
    #[arg(long, value_delimiter = ',', value_name = "N,…", requires = "model", value_parser = clap::value_parser!(u32).range(1..))]
    contexts: Vec<u32>,
    /// Tokens to decode at each length
    #[arg(long, value_name = "N", requires = "model", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// How often to measure everything
    #[arg(long, value_name = "N", requires = "model", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    ensure!(args.longest > 0.0, "--longest {} leaves nothing to measure: it takes seconds above 0", args.longest);
    if let Some(model) = &args.model {
        return end_to_end(model, args, context);
    }
    ensure!(
        args.encoding.recipe.is_none() && args.encoding.rotation().is_none(),
        "--as and --rotate are for a model: name one with --model"
    );
    if args.list {
        let names: String = bench::chosen(&args.filter, args.quick).iter().map(|case| format!("{case}\n")).collect();
        return out::print(names);
    }
    // What cannot be read should not show only after minutes of measuring.
    let old = args.compare.as_deref().map(read).transpose()?;
    let plan = Bench { filter: args.filter.clone(), quick: args.quick, longest: args.longest };
    let report = context.client()?.run(Command::Bench(plan), |_| Ok(()))?;
    let Some(Report::Bench(found)) = &report else { bail!("the engine gave no measurements") };
    out::print(terminal(found, out::width()))?;
    context.write_json(report.as_ref())?;
    if let Some(path) = &args.html {
        write(path, page(found, &super::typed()).as_bytes())?;
    }
    if let Some(path) = &args.svg {
        let drawing = roofline::drawing(&found.findings).context("nothing was measured that could be drawn")?;
        write(path, drawing.as_bytes())?;
    }
    match &old {
        Some(old) => out::print(format_args!("\n{}", compared(old, found, args.other_adapter)?)),
        None => Ok(()),
    }
}

/// A model instead of kernels.
fn end_to_end(model: &str, args: &Args, context: &Context) -> Result<()> {
    let command = BenchModel {
        source: context.source(model)?,
        recipe: args.encoding.recipe()?,
        rotation: args.encoding.rotation(),
        calibration: args.encoding.calibration.read()?,
        plan: ModelPlan {
            contexts: args.contexts.clone(),
            tokens: args.tokens,
            rounds: args.rounds,
            quick: args.quick,
        },
    };
    let report = context.client()?.run(Command::BenchModel(command), |_| Ok(()))?;
    let Some(Report::BenchModel(found)) = &report else { bail!("the engine gave no measurements") };
    out::print(bench_model::terminal(found, out::width()))?;
    context.write_json(report.as_ref())
}

fn read(path: &Path) -> Result<Benchmark> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let report = serde_json::from_str(&text).with_context(|| format!("{} is no report of tersor", path.display()))?;
    match report {
        Report::Bench(found) => Ok(*found),
        _ => bail!(
            "{} is another command's report: `tersor bench --json FILE` writes the kind that can be compared",
            path.display()
        ),
    }
}

/// Ratios to an older report, or why there are none.
fn compared(old: &Benchmark, new: &Benchmark, other_adapter: bool) -> Result<String> {
    let name = |found: &Benchmark| {
        let (name, driver, tier) = found.adapter();
        format!("{name}, {driver}, tier {tier}")
    };
    ensure!(
        other_adapter || old.adapter() == new.adapter(),
        "the older report is of {}, this one of {}: --other-adapter compares them all the same",
        name(old),
        name(new)
    );
    let table = ratios(old, new);
    ensure!(!table.rows().is_empty(), "the older report has none of these measurements");
    let clocks =
        if old.findings.clock == new.findings.clock { "" } else { "; the two were taken with different clocks" };
    let legend = "new ÷ old: below 1 is faster now; spread: from this one's first quartile over the older's third, to the reverse";
    Ok(format!("beside {}, tersor {}{clocks}\n{legend}\n{}", name(old), old.version, table.fit(out::width())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::bench::tests::benchmark;

    #[test]
    fn an_older_report_is_compared_if_it_is_of_this_adapter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.json");
        let mut old = benchmark();
        for m in &mut old.findings.measurements {
            (m.times.median_us, m.times.q1_us, m.times.q3_us) = (1e6, 1e6, 1e6);
        }
        let save = |old: &Benchmark| {
            std::fs::write(&path, serde_json::to_string(&Report::Bench(Box::new(old.clone()))).unwrap()).unwrap();
        };
        save(&old);
        let back = read(&path).unwrap();
        assert_eq!(back, old);
        let shown = compared(&back, &benchmark(), false).unwrap();
        assert!(shown.matches("faster").count() >= 2 && !shown.contains("different clocks"), "{shown}");
        old.device.name = "Vulkan another".into();
        old.findings.clock = bench::Clock::DeviceTimestamps;
        let refused = compared(&old, &benchmark(), false).unwrap_err().to_string();
        assert!(refused.contains("Vulkan another") && refused.contains("--other-adapter"), "{refused}");
        assert!(compared(&old, &benchmark(), true).unwrap().contains("different clocks"));
        old.findings.measurements.clear();
        assert!(compared(&old, &benchmark(), true).unwrap_err().to_string().contains("none of these"));

        std::fs::write(&path, "{\"schema\":\"tersor.adapters/1\",\"adapters\":[],\"chosen\":null}").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("another command's report"));
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("is no report"));
        assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("cannot read"));
    }
}
