//! `cargo xtask bench`: the adapter's ceilings and every kernel's share of them, from one command on a fresh machine.

use anyhow::Result;

use crate::demo::program;
use crate::shell::{self, command};

/// Builds the program, sees to a driver, and runs `tersor bench` with these arguments.
pub fn run(args: Vec<String>) -> Result<()> {
    shell::run(command(program()?).arg("bench").args(args))
}
