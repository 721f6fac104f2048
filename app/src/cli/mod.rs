//! The command line.
//!
//! In: arguments. Out: tables and texts on standard output, progress and errors on standard error, and an exit code:
//! 0 done, 1 failed, 2 wrong arguments, 130 cancelled with Ctrl-C.

mod adapters;
#[cfg(feature = "gui")]
mod app;
mod bars;
mod bench;
mod client;
mod compare;
mod compress;
mod embed;
mod eval;
mod fetch;
mod inspect;
mod out;
mod run;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde::Serialize;
use tersor_engine::progress::{Cancel, Cancelled};
use tersor_engine::session::{Calibration, Options, Recipe, Rotation, Source, Text};

use crate::fetch::{FetchError, Located, locate};
use bars::Bars;
use client::Client;

/// Runs neural networks from their compressed form on any GPU, and says what each compression costs and buys.
#[derive(Debug, Parser)]
#[command(name = "tersor", version, arg_required_else_help = !cfg!(feature = "gui"))]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Arguments of every command.
#[derive(Debug, clap::Args)]
struct Global {
    /// Adapter to use: its number in `tersor adapters`, or part of its name
    #[arg(long, global = true, env = "TERSOR_ADAPTER", value_name = "NAME", help_heading = "Global options")]
    adapter: Option<String>,
    /// Shader features to use: portable, f16, subgroup or full; what the adapter has by default
    #[arg(long, global = true, env = "TERSOR_TIER", value_name = "TIER", help_heading = "Global options")]
    tier: Option<String>,
    /// Limits to work within: adapter (what it has) or webgpu-default
    #[arg(long, global = true, env = "TERSOR_LIMITS", value_name = "LIMITS", help_heading = "Global options")]
    limits: Option<String>,
    /// Bytes of GPU memory to use at most; what the adapter has by default
    #[arg(long, global = true, env = "TERSOR_MEMORY", value_name = "BYTES", help_heading = "Global options")]
    memory: Option<u64>,
    /// When to time the variants of kernels against one another, so that the fastest are used: auto (once for each kind of layer, on
    /// GPUs), always (on software adapters too), again (anew) or never. What was found is kept beside the models [default: auto]
    #[arg(long, global = true, env = "TERSOR_TUNE", value_name = "WHEN", help_heading = "Global options")]
    tune: Option<String>,
    /// Also write the result to this file, as docs/json-schema.md describes it; - is standard output
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Open the window (as does no command at all): compare a model with compressions of it, side by side
    #[cfg(feature = "gui")]
    App(app::Args),
    /// List the adapters, what each can do, and which one is used
    Adapters,
    /// Show what is in a model's file
    Inspect(inspect::Args),
    /// Generate text
    Run(run::Args),
    /// Put compressions of a model beside their dense original: quality, speed, memory, generated text
    Compare(compare::Args),
    /// Prune more and more of a model and say what each share costs: size, perplexity, divergence
    Sweep(sweep::Args),
    /// Measure how well a model predicts a text, and how far it is from another one
    Eval(eval::Args),
    /// Write a compressed model to a file
    Compress(compress::Args),
    /// Turn texts into vectors with an encoder
    Embed(embed::Args),
    /// Measure the adapter, and how much of it each kernel gets
    Bench(bench::Args),
    /// Download a model into the cache, or list the models known by name
    Fetch(fetch::Args),
}

/// How a model's weights are to be held.
#[derive(Debug, clap::Args)]
struct Encoding {
    /// Compress the weights with this recipe: a codec (q4_k, nf4:block=64, uniform:bits=3) or a TOML file; without it they
    /// are used as they are stored
    #[arg(long = "as", value_name = "RECIPE")]
    recipe: Option<String>,
    /// Rotate the model by random orthogonal matrices first, which leaves its function unchanged but takes weights that
    /// were quantized before off their grid
    #[arg(long, value_name = "SEED")]
    rotate: Option<u64>,
    #[command(flatten)]
    calibration: CalibrationArgs,
}

impl Encoding {
    fn recipe(&self) -> anyhow::Result<Option<Recipe>> {
        self.recipe.as_deref().map(recipe).transpose()
    }

    fn rotation(&self) -> Option<Rotation> {
        self.rotate.map(|seed| Rotation { seed })
    }
}

/// What the queries of a prompt see.
#[derive(Debug, clap::Args)]
struct Attention {
    /// Attention over prompts: dense (the default), window:sinks=4,window=1024 or asa:block=64,mass=0.95
    #[arg(long = "attention", value_name = "POLICY")]
    policy: Option<String>,
}

/// What codecs calibrate on.
#[derive(Debug, clap::Args)]
struct CalibrationArgs {
    /// Text on which codecs look at what the layers are given, to keep what matters there; without it those that cannot do
    /// without take the first chapters of Pride and Prejudice, which are part of the program
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Tokens of that text to use
    #[arg(long, default_value_t = 4096, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    calibrate_tokens: u32,
}

impl CalibrationArgs {
    fn read(&self) -> anyhow::Result<Calibration> {
        let text = self.calibrate.as_deref().map(read_text).transpose()?;
        Ok(Calibration { text, tokens: Some(self.calibrate_tokens) })
    }
}

/// What quality is measured on.
#[derive(Debug, clap::Args)]
struct TextArgs {
    /// Text to measure quality on; without it, the last chapters of Mansfield Park, which are part of the program
    #[arg(long, value_name = "FILE", conflicts_with = "no_text")]
    text: Option<PathBuf>,
    /// Measure no quality
    #[arg(long)]
    no_text: bool,
    /// Tokens of a window of the text
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    context: u32,
    /// Use this many windows; 0 is the whole text
    #[arg(long, default_value_t = 8, value_name = "N")]
    windows: u32,
}

impl TextArgs {
    fn read(&self) -> anyhow::Result<Option<Text>> {
        if self.no_text {
            return Ok(None);
        }
        let Some(path) = &self.text else {
            return Ok(Some(crate::bundled::text()));
        };
        read_text(path).map(Some)
    }

    fn windows(&self) -> Option<u32> {
        (self.windows > 0).then_some(self.windows)
    }
}

fn read_text(path: &Path) -> anyhow::Result<Text> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Text { name, text })
}

/// Reads a recipe: a codec, or the path of a TOML file.
fn recipe(text: &str) -> anyhow::Result<Recipe> {
    if !text.ends_with(".toml") {
        return Ok(Recipe::Codec(text.to_owned()));
    }
    let contents = std::fs::read_to_string(text).with_context(|| format!("cannot read the recipe {text}"))?;
    Ok(Recipe::Toml { name: text.to_owned(), text: contents })
}

/// The command line as it was typed, for reports.
fn typed() -> String {
    let words = std::env::args().enumerate().map(|(i, word)| match word.rsplit(['/', '\\']).next() {
        Some(program) if i == 0 => program.to_owned(),
        _ => word,
    });
    crate::report::shell(words)
}

/// Exit code after Ctrl-C, as shells have it.
const CANCELLED: u8 = 130;

/// What a command needs besides its own arguments.
struct Context {
    global: Global,
    cancel: Cancel,
}

impl Context {
    /// How the engine is to use the GPU.
    fn options(&self) -> Options {
        let Global { adapter, tier, limits, memory, tune, .. } = &self.global;
        let (adapter, tier, limits, tune) = (adapter.clone(), tier.clone(), limits.clone(), tune.clone());
        Options { adapter, tier, limits, memory: *memory, tune, ..Options::default() }
    }

    /// Starts the engine.
    fn client(&self) -> anyhow::Result<Client> {
        Client::start(self.options(), self.cancel.clone())
    }

    /// Finds a model, fetching it if it must.
    fn source(&self, model: &str) -> anyhow::Result<Source> {
        let options = crate::fetch::Options { monitor: Bars::monitor(self.cancel.clone()), ..Default::default() };
        Ok(match locate(model, &options)? {
            Located::Path(path) => Source::Path(path),
            Located::Embedded(files) => {
                Source::Files(files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect())
            }
        })
    }

    /// Writes a report where `--json` says.
    fn write_json(&self, report: Option<&impl Serialize>) -> anyhow::Result<()> {
        let (Some(path), Some(report)) = (&self.global.json, report) else { return Ok(()) };
        let mut text = serde_json::to_string_pretty(report).context("writing the report as JSON")?;
        text.push('\n');
        if path == Path::new("-") {
            return out::print(text);
        }
        write(path, text.as_bytes())
    }
}

/// Writes a file that nobody sees half of.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    crate::files::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Keeps Mesa's device-selection layer from complaining on standard error where there is no desktop to ask about.
///
/// The layer looks for a Wayland display in `XDG_RUNTIME_DIR`, and libwayland prints an error when that is not set.
fn silence_device_selection() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: called first thing in `main`, while this is the only thread.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// Runs the program. To be called first thing in the process, while it has one thread.
pub fn main() -> ExitCode {
    silence_device_selection();
    let args = Args::parse();
    let cancel = Cancel::new();
    let switch = cancel.clone();
    let handler = ctrlc::set_handler(move || {
        if switch.is_cancelled() {
            // A second Ctrl-C: whatever hangs is not worth waiting for.
            std::process::exit(i32::from(CANCELLED));
        }
        switch.cancel();
    });
    let context = Context { global: args.global, cancel };
    let result = handler.context("cannot listen for Ctrl-C").and_then(|()| match args.command {
        #[cfg(feature = "gui")]
        None => app::run(&app::Args::default(), &context),
        #[cfg(not(feature = "gui"))]
        None => anyhow::bail!("name a command; `tersor help` lists them"),
        Some(command) => run(command, &context),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_cancelled(&error) => {
            out::note("cancelled");
            ExitCode::from(CANCELLED)
        }
        Err(error) => {
            out::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        #[cfg(feature = "gui")]
        Command::App(args) => app::run(&args, context),
        Command::Adapters => adapters::run(context),
        Command::Inspect(args) => inspect::run(&args, context),
        Command::Run(args) => run::run(&args, context),
        Command::Compare(args) => compare::run(&args, context),
        Command::Sweep(args) => sweep::run(&args, context),
        Command::Eval(args) => eval::run(&args, context),
        Command::Compress(args) => compress::run(&args, context),
        Command::Embed(args) => embed::run(&args, context),
        Command::Bench(args) => bench::run(&args, context),
        Command::Fetch(args) => fetch::run(&args, context),
    }
}

fn is_cancelled(error: &anyhow::Error) -> bool {
    error.is::<Cancelled>() || matches!(error.downcast_ref(), Some(FetchError::Cancelled(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_manual_are_understood() {
        for line in [
            "tersor adapters --json out.json",
            #[cfg(feature = "gui")]
            "tersor app tiny --with q4_k nf4 --prompt p --seed 3 --run --picture p.png --size 390x844 --theme dark",
            "tersor inspect m.gguf --tensor t",
            "tersor run m --prompt hi --as q4_k --rotate 1 --temperature 0.7",
            "tersor run m --chat --system s",
            "tersor compare m --with q4_k --calibrate f --calibrate-tokens 512",
            "tersor run m --prompt hi --as q4_k --calibrate f",
            "tersor compress m --as q4_k --calibrate f -o f.gguf",
            "tersor eval m --as q4_k --calibrate f",
            "tersor compare m --with q8_0 q4_k nf4:block=64 --prompt p --text f --tokens 8 --html h --json j",
            "tersor compare m --attention asa:mass=0.9 window:window=512",
            "tersor run m --prompt hi --attention asa",
            "tersor eval m --attention window:sinks=4,window=256",
            "tersor --adapter llvmpipe eval m --against n --tier portable",
            "tersor compress m --as q4_0 -o f.gguf",
            "tersor sweep m --with sparse:{ratio}% --to 90 --steps 10 --windows 2 --json j",
            "tersor sweep m --with sparse:{ratio}%+q4_0 --ratios 50 70",
            "tersor embed m one two",
            "tersor fetch smollm2-135m",
            "tersor bench --filter q4_k --filter attention --quick --longest 2 --json j --html h --compare o --other-adapter",
            "tersor bench --list --filter matvec",
            "tersor fetch",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
        for line in [
            "tersor run m",
            "tersor run m --prompt p --chat",
            "tersor run m --prompt p --top-p 1.5",
            "tersor compare m",
            "tersor eval m --context 1",
            "tersor bench --list --html h",
            "tersor bench --other-adapter",
            "tersor bench --longest soon",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
