//! The command line.
//!
//! In: arguments. Out: tables and texts on standard output, progress and errors on standard error, and an exit code:
//! 0 done, 1 failed, 2 wrong arguments, 130 cancelled with Ctrl-C.

mod bars;
mod fetch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tersor_engine::progress::{Cancel, Cancelled};

use crate::fetch::FetchError;

/// Runs neural networks from their compressed form on any GPU, and says what each compression costs and buys.
#[derive(Debug, Parser)]
#[command(name = "tersor", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Download a model into the cache, or list the models known by name
    Fetch(fetch::Args),
}

/// Exit code after Ctrl-C, as shells have it.
const CANCELLED: u8 = 130;

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
    let result =
        handler.map_err(|e| anyhow::anyhow!("cannot listen for Ctrl-C: {e}")).and_then(|()| match args.command {
            Command::Fetch(args) => fetch::run(&args, cancel),
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
