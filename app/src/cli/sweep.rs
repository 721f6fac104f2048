//! `tersor sweep`: a comparison over the shares that a sparse recipe prunes.

use std::io::IsTerminal as _;

use anyhow::{Result, bail, ensure};
use tersor_engine::session::{Command, Compare, Report, Rotation, cubic};

use super::{CalibrationArgs, Context, TextArgs, out, recipe};
use crate::report;

/// What stands for the share, in percent, in a recipe.
const RATIO: &str = "{ratio}";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name of `tersor fetch`, a file, a folder, or a Hugging Face id
    model: String,
    /// Recipes in which {ratio} stands for the share that is pruned, in percent: 'sparse:{ratio}%', 'sparse:{ratio}%+q4_0'
    #[arg(long = "with", value_name = "RECIPE", num_args = 1.., default_value = "sparse:{ratio}%")]
    recipes: Vec<String>,
    /// Prune these shares, in percent with at most one decimal; without it they follow the schedule of --from, --to, --steps
    #[arg(long, value_name = "PERCENT", num_args = 1.., conflicts_with_all = ["from", "to", "steps"])]
    ratios: Vec<f64>,
    /// First share of the gradual schedule s_t = s_f + (s_i − s_f)(1 − t/n)³ (Zhu & Gupta 2017), in percent
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    from: f64,
    /// Last share of the schedule
    #[arg(long, default_value_t = 90.0, value_name = "PERCENT")]
    to: f64,
    /// Steps of the schedule
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    steps: u32,
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
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    let command = Compare {
        recipes: recipes(args)?.iter().map(|r| recipe(r)).collect::<Result<_>>()?,
        dense: args.dense.clone(),
        rotation: args.rotate.map(|seed| Rotation { seed }),
        calibration: args.calibration.read()?,
        attention: Vec::new(),
        text: args.text.read()?,
        context: args.text.context,
        windows: args.text.windows(),
        input: None,
        tokens: 0,
        source: context.source(&args.model)?,
    };
    let report = context.client()?.run(Command::Compare(command), |_| Ok(()))?;
    let Some(Report::Compare(found)) = &report else { bail!("the engine gave no comparison") };
    out::print(report::terminal(found, out::width(), std::io::stdout().is_terminal()))?;
    context.write_json(report.as_ref())
}

/// Every recipe with every share, in that order; shares are rounded to a tenth of a percent, and none comes twice.
fn recipes(args: &Args) -> Result<Vec<String>> {
    let shares = if args.ratios.is_empty() { cubic(args.from, args.to, args.steps) } else { args.ratios.clone() };
    ensure!(shares.iter().all(|share| (0.0..99.95).contains(share)), "shares that can be pruned are 0 to 99.9 percent");
    let mut shares: Vec<String> = shares.iter().map(|share| format!("{share:.1}")).collect();
    shares.dedup();
    let mut all = Vec::new();
    for recipe in &args.recipes {
        ensure!(recipe.contains(RATIO), "there is no {RATIO} in the recipe `{recipe}`, and so nothing to sweep");
        all.extend(shares.iter().map(|share| recipe.replace(RATIO, share.trim_end_matches(".0"))));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn of(line: &[&str]) -> Result<Vec<String>> {
        recipes(&Line::try_parse_from([&["sweep", "m"], line].concat())?.args)
    }

    #[test]
    fn shares_follow_the_schedule_or_are_as_given() {
        let expected = ["0", "24.4", "43.9", "59.1", "70.6", "78.8", "84.2", "87.6", "89.3", "89.9", "90"];
        assert_eq!(of(&[]).unwrap(), expected.map(|share| format!("sparse:{share}%")));
        let given = of(&["--with", "sparse:{ratio}%+q4_0", "sparse:{ratio}%,block=16", "--ratios", "50", "97.5"]);
        let expected = ["50%+q4_0", "97.5%+q4_0", "50%,block=16", "97.5%,block=16"];
        assert_eq!(given.unwrap(), expected.map(|recipe| format!("sparse:{recipe}")));
        for recipe in of(&["--from", "10", "--to", "99.9", "--steps", "3"]).unwrap() {
            let share: f64 = recipe["sparse:".len()..].trim_end_matches('%').parse().unwrap();
            assert!((10.0..=99.9).contains(&share), "{recipe}");
        }
        assert!(of(&["--with", "sparse:2:4"]).unwrap_err().to_string().contains("nothing to sweep"));
        assert!(of(&["--to", "100"]).unwrap_err().to_string().contains("0 to 99.9"));
        assert!(of(&["--ratios", "50", "--steps", "3"]).is_err());
    }
}
