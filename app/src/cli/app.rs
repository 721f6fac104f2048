//! `tersor app`: the window.

use std::path::PathBuf;

use anyhow::Result;

use super::Context;
use crate::gui::native::{Window, open};
use crate::gui::start::Start;
use crate::gui::state::Tab;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// A name of `tersor fetch`, a file or a folder to open
    model: Option<String>,
    /// Recipes to put beside the original
    #[arg(long = "with", value_name = "RECIPE", num_args = 1..)]
    recipes: Vec<String>,
    /// What the models continue
    #[arg(long)]
    prompt: Option<String>,
    /// Generate at most this many tokens
    #[arg(long)]
    tokens: Option<u32>,
    /// 0 takes the most likely token
    #[arg(long)]
    temperature: Option<f32>,
    /// Seed of the random numbers
    #[arg(long)]
    seed: Option<u64>,
    /// The page to show: models, compare, quality, tensors, kernels or attention
    #[arg(long, value_parser = tab)]
    tab: Option<Tab>,
    /// Begin at once
    #[arg(long)]
    run: bool,
    /// light or dark; what the system has by default
    #[arg(long, value_parser = ["light", "dark"])]
    theme: Option<String>,
    /// Width and height of the window
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    size: Option<Size>,
    /// When all work is done, write a picture of the window to this PNG file and close it
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
struct Size([f32; 2]);

fn size(text: &str) -> Result<Size, String> {
    let number = |text: &str| text.parse().ok().filter(|n: &f32| (100.0..=16384.0).contains(n));
    let found = text.split_once('x').and_then(|(width, height)| Some(Size([number(width)?, number(height)?])));
    found.ok_or_else(|| "must be like 1280x800".to_owned())
}

fn tab(text: &str) -> Result<Tab, String> {
    let names = || Tab::ALL.map(|tab| tab.name().to_lowercase()).join(", ");
    Tab::parse(text).ok_or_else(|| format!("must be one of {}", names()))
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    open(Window {
        options: context.options(),
        start: Start {
            model: args.model.clone(),
            recipes: args.recipes.clone(),
            prompt: args.prompt.clone(),
            tokens: args.tokens,
            seed: args.seed,
            temperature: args.temperature,
            tab: args.tab,
            dark: args.theme.as_ref().map(|theme| theme == "dark"),
            run: args.run,
        },
        size: args.size.map(|size| size.0),
        picture: args.picture.clone(),
    })
}
