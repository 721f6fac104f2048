//! `tersor compare`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Result, bail};
use tersor_engine::session::{Command, Compare, Input, Report, Rotation};

use super::{CalibrationArgs, Context, TextArgs, out, recipe, write};
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name of `tersor fetch`, a file, a folder, or a Hugging Face id
    model: String,
    /// Recipes to compare with the original: codecs (q4_k, nf4:block=64, uniform:bits=3) or TOML files. Behind an @ a codec may
    /// have block-sparse attention: q4_k@asa
    #[arg(long = "with", value_name = "RECIPE", num_args = 1.., required_unless_present = "attention")]
    recipes: Vec<String>,
    /// Block-sparse attention over prompts to compare with dense attention; the original and every recipe run with each too:
    /// window:sinks=4,window=1024 or asa:block=64,mass=0.95
    #[arg(long, value_name = "POLICY", num_args = 1..)]
    attention: Vec<String>,
    /// What the original is: bf16, f16 or f32
    #[arg(long, default_value = "bf16", value_name = "CODEC")]
    dense: String,
    /// Rotate the model by random orthogonal matrices first, which leaves its function unchanged but takes weights that
    /// were quantized before off their grid
    #[arg(long, value_name = "SEED")]
    rotate: Option<u64>,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Generate from this prompt with each; put through the model's chat template where it has one
    #[arg(long)]
    prompt: Option<String>,
    /// Continue the prompt as it stands, without a chat template
    #[arg(long, requires = "prompt")]
    raw: bool,
    /// Tokens to generate
    #[arg(long, default_value_t = 64)]
    tokens: u32,
    /// Also write a page with table, plots and texts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    let command = Compare {
        recipes: args.recipes.iter().map(|r| recipe(r)).collect::<Result<_>>()?,
        dense: args.dense.clone(),
        rotation: args.rotate.map(|seed| Rotation { seed }),
        calibration: args.calibration.read()?,
        text: args.text.read()?,
        context: args.text.context,
        windows: args.text.windows(),
        input: args.prompt.clone().map(if args.raw { Input::Prompt } else { Input::Message }),
        tokens: args.tokens,
        attention: args.attention.clone(),
        source: context.source(&args.model)?,
    };
    let report = context.client()?.run(Command::Compare(command), |_| Ok(()))?;
    let Some(Report::Compare(found)) = &report else { bail!("the engine gave no comparison") };
    out::print(report::terminal(found, out::width(), std::io::stdout().is_terminal()))?;
    context.write_json(report.as_ref())?;
    match &args.html {
        Some(path) => write(path, report::html::page(found, &super::typed()).as_bytes()),
        None => Ok(()),
    }
}
