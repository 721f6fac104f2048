//! `tersor embed`.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use tersor_engine::session::report::Embedded;
use tersor_engine::session::{Command, Embed, Report};

use super::{Context, Encoding, out};
use crate::report::text::printable;
use crate::table::{Align, Table, width};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name of `tersor fetch`, a file, a folder, or a Hugging Face id
    model: String,
    /// The texts; - reads one a line from standard input
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<String>,
    #[command(flatten)]
    encoding: Encoding,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    let mut texts = args.texts.clone();
    if texts == ["-"] {
        let mut lines = String::new();
        std::io::stdin().read_to_string(&mut lines).context("cannot read texts from standard input")?;
        texts = lines.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    }
    if args.encoding.rotation().is_some() {
        bail!("--rotate is for language models; an encoder has no unchanged rotated form here");
    }
    let command = Embed {
        source: context.source(&args.model)?,
        recipe: args.encoding.recipe()?,
        calibration: args.encoding.calibration.read()?,
        texts,
    };
    let report = context.client()?.run(Command::Embed(command), |_| Ok(()))?;
    let Some(Report::Embed(found)) = &report else { bail!("the engine gave no vectors") };
    out::print(describe(found))?;
    context.write_json(report.as_ref())
}

/// One text: its vector. Several: the cosine of each pair.
fn describe(found: &Embedded) -> String {
    if let [vector] = found.embeddings.as_slice() {
        let values: Vec<String> = vector.iter().map(f32::to_string).collect();
        return format!("[{}]\n", values.join(", "));
    }
    let numbers: Vec<String> = (1..=found.texts.len()).map(|n| n.to_string()).collect();
    let columns = [("", Align::Right), ("text", Align::Left)];
    let mut table = Table::new(columns.into_iter().chain(numbers.iter().map(|n| (n.as_str(), Align::Right))));
    for ((number, text), row) in numbers.iter().zip(&found.texts).zip(&found.similarity) {
        let cosines = row.iter().map(|cosine| format!("{cosine:.3}"));
        table.row([number.clone(), short(text)].into_iter().chain(cosines));
    }
    table.to_string()
}

fn short(text: &str) -> String {
    let mut shown = String::new();
    for c in printable(text).chars().map(|c| if c.is_whitespace() { ' ' } else { c }) {
        if width(&shown) >= 40 {
            return shown + "…";
        }
        shown.push(c);
    }
    shown
}
