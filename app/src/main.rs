//! The `tersor` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tersor::cli::main()
}
