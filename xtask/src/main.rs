//! `cargo xtask`: everything a newcomer or CI runs, with the set-up it needs.

mod bench;
mod demo;
mod packages;
mod screen;
mod screenshots;
mod serve;
mod shell;
mod test;
mod vulkan;
mod wasm;
mod web;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask <command>

  demo [--model NAME] [ARGS…]   compare a real model, dense and compressed; writes target/demo/report.{json,html}
                                NAME: smollm2-135m (default), tiny (needs no network), or anything `tersor` opens.
                                Further ARGS go to `tersor compare` (see `cargo xtask demo --help`).
  test [--only STEP]… [--skip STEP]… [--list]
                                format, lints, all tests, the window, and kernels and app in a browser; --list names the steps
  bench [ARGS…]                 measures this machine's adapter and every kernel on it: builds `tersor` and runs `tersor bench ARGS…`
  web [--quick] [--serve [PORT]]
                                the app for browsers, in target/web/dist; --serve serves it on this machine
  screenshots [--native]        pictures of the app, into docs/screenshots
  help                          this text

Both install what is missing where they may (Debian or Ubuntu as root), else they print the command to type.
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let result = match args.next().as_deref() {
        Some("demo") => demo::run(args.collect()),
        Some("bench") => bench::run(args.collect()),
        Some("test") => test::run(args.collect()),
        Some("web") => web::main(args.collect()),
        Some("screenshots") => screenshots::main(args.collect()),
        None | Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprint!("unknown command {other:?}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
