//! `cargo xtask test`: every check, in the order in which failures are cheapest to learn of.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::shell::{self, cargo};
use crate::{screen, vulkan, web};

struct Step {
    name: &'static str,
    what: &'static str,
    /// Runs without being asked for by name.
    default: bool,
    run: fn() -> Result<()>,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        what: "formatting",
        default: true,
        run: || shell::run(cargo().args(["fmt", "--all", "--check"])),
    },
    Step {
        name: "clippy",
        what: "lints, warnings are errors",
        default: true,
        run: || {
            shell::run(cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
        },
    },
    Step {
        name: "test",
        what: "all tests on the default adapter",
        default: true,
        run: || {
            vulkan::ensure_driver()?;
            shell::run(cargo().args(["test", "--locked", "--workspace"]))
        },
    },
    Step { name: "window", what: "the app's window opens, compares and closes", default: true, run: in_a_window },
    Step {
        name: "browser",
        what: "in a browser: the kernels' tests but for the longest, and the app compared with native",
        default: true,
        run: || browser(&LONG),
    },
    Step {
        name: "browser-all",
        what: "in a browser: all of it, with what takes half an hour there",
        default: false,
        run: || browser(&[]),
    },
    Step {
        name: "swiftshader",
        what: "kernels and models on a second native adapter (ten times slower; the browser computes on it too)",
        default: false,
        run: on_swiftshader,
    },
];

/// Tests of many kernels and files, which take SwiftShader too long to be run there every time; `browser-all` runs them.
const LONG: [&str; 9] = [
    "compressed_files_compute_as_natively",
    "entropy_coded_rows_in_every_kernel",
    "every_codec_multiplies",
    "every_format_of_factors_on_codecs_and_alone",
    "every_head_size",
    "everything_that_fuses_with_a_low_rank_part",
    "low_rank_parts_on_sparse_and_coded_weights",
    "outliers_in_every_kernel",
    "sparse_weights_in_every_kernel",
];

/// Of the browser's tests those that do little but compile shaders, which a browser does on one thread: several browsers do it side by side.
/// The others measure how quickly the page answers.
const SIDE_BY_SIDE: [&str; 2] = ["kernel_tests", "every_portable_shader"];

/// Builds both pages and runs their tests, and the kernels', but for those of `skip`.
fn browser(skip: &[&str]) -> Result<()> {
    let page = web::build(web::Profile::Quick)?;
    let kernels = web::build_kernel_tests()?;
    let mut tests = in_browser(&page, 1)?;
    let others = SIDE_BY_SIDE.iter().chain(skip).chain(&["pictures"]);
    let apart = shell::run(tests.args(others.flat_map(|test| ["--skip", test])));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let skipped: Vec<String> = skip.iter().map(|test| format!("-{test}")).collect();
    let mut tests = in_browser(&page, cores.min(4))?;
    tests.args(SIDE_BY_SIDE).env("TERSOR_WEB_KERNELS", kernels).env("TERSOR_KERNEL_TESTS", skipped.join(","));
    shell::run(&mut tests).and(apart)
}

fn in_a_window() -> Result<()> {
    vulkan::ensure_driver()?;
    let screen = screen::ensure()?;
    let mut test = cargo();
    test.args(["test", "--locked", "--workspace", "--test", "window", "--", "--include-ignored", "--skip", "pictures"]);
    shell::run(screen.show_on(&mut test))
}

/// The tests of the page in this folder, so many at once. What is computed natively for comparison runs on the browser's own adapter.
pub fn in_browser(page: &Path, at_once: usize) -> Result<Command> {
    let icd = vulkan::ensure_swiftshader()?;
    let mut test = cargo();
    test.args(["test", "--locked", "--workspace", "--test", "browser", "--", "--include-ignored", "--test-threads"]);
    test.arg(at_once.to_string());
    test.env("TERSOR_WEB", page).env("VK_ICD_FILENAMES", &icd).env("VK_DRIVER_FILES", &icd);
    Ok(test)
}

/// Every kernel in every tier but for the longest tests; models, and SmolLM2's logits, in the portable tier.
fn on_swiftshader() -> Result<()> {
    let icd = vulkan::ensure_swiftshader()?;
    let test = |selection: &[&str]| {
        let mut cargo = cargo();
        // The whole workspace, so that features are the same as in the step before and nothing is built twice.
        cargo.args(["test", "--locked", "--workspace"]).args(selection);
        cargo.env("VK_ICD_FILENAMES", &icd).env("VK_DRIVER_FILES", &icd);
        cargo
    };
    // Of the libraries only this one's tests are in these modules.
    const KERNELS: [&str; 5] =
        ["tests::attention::", "tests::eval::", "tests::linear::", "tests::norm::", "tests::sample::"];
    let long = LONG.iter().flat_map(|test| ["--skip", test]);
    shell::run(test(&["--lib"]).arg("--").args(KERNELS).args(long))?;
    shell::run(test(&["--test", "model_families"]).env("TERSOR_TIER", "portable"))?;
    let logits = ["--", "logits_are_the_references"];
    shell::run(test(&["--test", "model_smollm2"]).env("TERSOR_TIER", "portable").args(logits))
}

/// Runs the steps that were asked for, by default those marked so.
fn run_steps(only: &[String], skip: &[String]) -> Result<()> {
    let begin = Instant::now();
    let mut rows: Vec<(&str, Duration, Result<()>)> = Vec::new();
    for step in STEPS {
        let asked = if only.is_empty() { step.default } else { only.iter().any(|s| s == step.name) };
        if !asked || skip.iter().any(|s| s == step.name) {
            continue;
        }
        println!("\n=== {}: {}", step.name, step.what);
        let start = Instant::now();
        let result = (step.run)();
        if let Err(error) = &result {
            eprintln!("{error:#}");
        }
        rows.push((step.name, start.elapsed(), result));
    }
    println!("\n=== summary");
    for (name, time, result) in &rows {
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{name:12} {verdict:7} {:6.1} s", time.as_secs_f64());
    }
    println!("{:12} {:7} {:6.1} s", "all", "", begin.elapsed().as_secs_f64());
    let failed: Vec<&str> = rows.iter().filter(|r| r.2.is_err()).map(|r| r.0).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Reads the arguments of `cargo xtask test`.
pub fn run(args: Vec<String>) -> Result<()> {
    let (mut only, mut skip) = (Vec::new(), Vec::new());
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let list = match arg.as_str() {
            "--list" => {
                for step in STEPS {
                    let asked = if step.default { "" } else { " (only by name)" };
                    println!("{:12} {}{asked}", step.name, step.what);
                }
                return Ok(());
            }
            "--only" => &mut only,
            "--skip" => &mut skip,
            other => bail!("unknown argument {other:?}; see `cargo xtask help`"),
        };
        match args.next() {
            Some(name) if STEPS.iter().any(|s| s.name == name) => list.push(name),
            name => bail!("{arg} wants the name of a step, not {name:?}; see `cargo xtask test --list`"),
        }
    }
    run_steps(&only, &skip)
}
