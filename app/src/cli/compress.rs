//! `tersor compress`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use tersor_engine::session::{Command, Compress, Report, Rotation};

use super::{CalibrationArgs, Context, out, recipe};
use crate::report;
use crate::table::wrap;
use crate::units::bytes;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name of `tersor fetch`, a file, a folder, or a Hugging Face id
    model: String,
    /// The recipe: a codec (q4_k, nf4:block=64, uniform:bits=3) or a TOML file
    #[arg(long = "as", value_name = "RECIPE")]
    recipe: String,
    /// The file to write; .gguf or .safetensors says the format. For dfloat11 also a folder, as other software reads it
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Rotate the model by random orthogonal matrices first, which leaves its function unchanged
    #[arg(long, value_name = "SEED")]
    rotate: Option<u64>,
    #[command(flatten)]
    calibration: CalibrationArgs,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    let command = Compress {
        recipe: recipe(&args.recipe)?,
        rotation: args.rotate.map(|seed| Rotation { seed }),
        calibration: args.calibration.read()?,
        output: args.output.clone(),
        source: context.source(&args.model)?,
    };
    let result = context.client()?.run(Command::Compress(command), |_| Ok(()))?;
    let Some(Report::Compress(found)) = &result else { bail!("the engine wrote nothing") };
    let weights = &found.weights;
    let codecs: Vec<String> = weights.codecs.iter().map(|(name, n)| format!("{n} × {name}")).collect();
    out::line(format_args!(
        "{}: {} (from {}), {:.2} bits a weight: {}",
        found.output,
        bytes(found.output_bytes),
        bytes(found.model.file_bytes),
        weights.bits_per_weight,
        codecs.join(", ")
    ))?;
    if let Some(found) = &weights.calibration {
        out::line(format_args!("calibrated on {}, {} tokens, in {:.0} s", found.text, found.tokens, found.seconds))?;
    }
    for line in report::fallbacks(&found.recipe, weights) {
        out::line(wrap(&line, out::width(), 2))?;
    }
    context.write_json(result.as_ref())
}
