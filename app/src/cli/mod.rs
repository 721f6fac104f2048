//! The command line.
//!
//! In: arguments. Out: tables and texts on standard output, progress and errors on standard error, and an exit code:
//! 0 done, 1 failed, 2 wrong arguments, 130 cancelled with Ctrl-C.

mod bars;
mod client;
mod fetch;
mod inspect;
mod out;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde::Serialize;
use tersor_engine::progress::{Cancel, Cancelled};
use tersor_engine::session::{Options, Source};

use crate::fetch::{FetchError, Located, locate};
use bars::Bars;
use client::Client;

/// Runs neural networks from their compressed form on any GPU, and says what each compression costs and buys.
#[derive(Debug, Parser)]
#[command(name = "tersor", version, arg_required_else_help = true)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
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
    /// Also write the result to this file, as docs/json-schema.md describes it; - is standard output
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what is in a model's file
    Inspect(inspect::Args),
    /// Download a model into the cache, or list the models known by name
    Fetch(fetch::Args),
}

/// Exit code after Ctrl-C, as shells have it.
const CANCELLED: u8 = 130;

/// What a command needs besides its own arguments.
struct Context {
    global: Global,
    cancel: Cancel,
}

impl Context {
    /// Starts the engine.
    fn client(&self) -> anyhow::Result<Client> {
        let Global { adapter, tier, limits, .. } = &self.global;
        let options = Options { adapter: adapter.clone(), tier: tier.clone(), limits: limits.clone() };
        Client::start(options, self.cancel.clone())
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

/// Writes a file beside its name and renames it, so that nobody sees half of it.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, bytes)
        .and_then(|()| std::fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Runs the program.
pub fn main() -> ExitCode {
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
        Command::Inspect(args) => inspect::run(&args, &context),
        Command::Fetch(args) => fetch::run(&args, &context),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_cancelled(&error) => {
            eprintln!("cancelled");
            ExitCode::from(CANCELLED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_cancelled(error: &anyhow::Error) -> bool {
    error.is::<Cancelled>() || matches!(error.downcast_ref(), Some(FetchError::Cancelled(_)))
}
