//! `tersor inspect`.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use tersor_engine::session::report::{Inspection, TensorStatistics};
use tersor_engine::session::{Command, Inspect, Report};

use super::{Context, out};
use crate::report::{self, text::printable};
use crate::table::{Align, Table, wrap};
use crate::units;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name of `tersor fetch`, a file, a folder, or a Hugging Face id
    model: String,
    /// Also show statistics of this tensor's values
    #[arg(long)]
    tensor: Option<String>,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    let source = context.source(&args.model)?;
    let report =
        context.client()?.run(Command::Inspect(Inspect { source, tensor: args.tensor.clone() }), |_| Ok(()))?;
    let Some(Report::Inspect(found)) = &report else { bail!("the engine gave no description") };
    out::print(match &found.statistics {
        Some(statistics) => describe_tensor(statistics),
        None => describe(found, out::width()),
    })?;
    context.write_json(report.as_ref())
}

fn describe(found: &Inspection, width: Option<usize>) -> String {
    let model = printable(&report::describe(&found.model));
    let summary = format!("{model}, {} tensors, {}", found.tensors.len(), found.container);
    let mut metadata = Table::new([("key", Align::Left), ("value", Align::Left)]);
    for (key, value) in &found.metadata {
        metadata.row([key, value]);
    }
    let columns = [("tensor", Align::Left), ("shape", Align::Right), ("type", Align::Left), ("size", Align::Right)];
    let mut tensors = Table::new(columns);
    for tensor in &found.tensors {
        let cells = [tensor.name.clone(), shape(&tensor.shape), tensor.dtype.clone(), units::bytes(tensor.bytes)];
        tensors.row(cells);
    }
    format!("{}\n\n{}\n{}", wrap(&summary, width, 2), metadata.fit(width), tensors.fit(width))
}

fn shape(dimensions: &[u64]) -> String {
    let dimensions: Vec<String> = dimensions.iter().map(u64::to_string).collect();
    format!("[{}]", dimensions.join(", "))
}

fn describe_tensor(found: &TensorStatistics) -> String {
    let tensor = &found.tensor;
    let mut text =
        format!("{} {} {}, {}\n\n", tensor.name, shape(&tensor.shape), tensor.dtype, units::bytes(tensor.bytes));
    let mut table = Table::new([("statistic", Align::Left), ("value", Align::Right)]);
    for (name, value) in [
        ("minimum", found.min),
        ("maximum", found.max),
        ("mean", found.mean),
        ("standard deviation", found.standard_deviation),
        ("excess kurtosis", found.kurtosis),
        ("zeros, %", 100.0 * found.zeros),
    ] {
        table.row([name.to_owned(), units::significant(value)]);
    }
    table.row(["not finite".to_owned(), found.not_finite.to_string()]);
    let first: Vec<String> = found.first.iter().map(f32::to_string).collect();
    let _ = writeln!(text, "{table}\nfirst values: {}", first.join(", "));
    let bars = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = found.histogram.iter().max().copied().unwrap_or(0).max(1);
    let line: String = found
        .histogram
        .iter()
        .map(|&n| if n == 0 { ' ' } else { bars[(n * 7 / most) as usize] }) // n ≤ most, so at most 7
        .collect();
    let (min, max) = (units::significant(found.min), units::significant(found.max));
    let _ = writeln!(text, "histogram:    {min} [{line}] {max}");
    text
}
