//! `cargo xtask demo`: one command from a fresh machine to a comparison of a real model, dense and compressed.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::shell::{self, cargo, command, output, root, succeeds};
use crate::{packages, vulkan};

const HELP: &str = "\
usage: cargo xtask demo [--methods] [--model NAME] [ARGS…]

Compares dense bf16 with nine compressions of the model on a bundled public-domain text and a chat prompt, and writes
target/demo/report.json and target/demo/report.html.

  --model NAME   smollm2-135m (default): a real chat model. Its file is 4-bit already, so the demo rotates it first
                 (--rotate 1), which leaves what it computes unchanged but takes the weights off the 4-bit grid.
                 tiny: a small language model that is part of the program; needs no network.
                 Or anything `tersor compare` opens: a file, a folder, a Hugging Face id.
  --methods      all methods, on a shorter text: the README's large table; takes about an hour on two cores without a GPU. Writes
                 methods.json and methods.html instead.
  ARGS           further arguments of `tersor compare`, e.g. --adapter llvmpipe, --context 256, --windows 4
";

/// What is compared with the dense model.
const RECIPES: &[&str] = &[
    // Quantized: from nothing lost to everything.
    "q8_0",
    "q4_1",
    "q4_k",
    "nf4",
    "uniform:bits=3",
    // One of each other family: low rank over a codec, sparse, entropy-coded, attention by blocks.
    "uniform:bits=3+eora:rank=64",
    "sparse:2:4+q8_0",
    "entropy:bf16",
    "bf16@asa:block=16,mass=0.9",
];

/// What the README's table of methods shows: every family's codecs at their usual settings, and beside them what they improve on.
const METHODS: &[&str] = &[
    "q8_0",
    "q6_k",
    "q5_k",
    "q4_k",
    "q4_0",
    "nf4",
    "uniform:bits=4,group=32",
    "uniform:bits=4,group=32,gptq",
    "spqr:bits=4,group=32,outliers=0.8",
    "spqr:bits=3",
    "uniform:bits=3",
    "uniform:bits=3+eora:rank=64",
    "sparse:50%",
    "sparse:50%,method=sparsegpt",
    "sparse:2:4",
    "sparse:2:4+eora:rank=64",
    "sparse:2:4+q8_0+eora:rank=64",
    "svd:ratio=80",
    "lord:ratio=80",
    "prune:ffn=20+bf16",
    "modegpt:ratio=20+bf16",
    "entropy:bf16",
    "dfloat11",
    "entropy:uniform:bits=4",
];

/// A shorter text for so many, and a prompt's worth of calibration: arguments that a user's own replace.
const METHODS_TEXT: &[(&str, &str)] =
    &[("--context", "128"), ("--windows", "2"), ("--calibrate-tokens", "1024"), ("--tokens", "16")];

/// Windows of the text: enough to tell the recipes apart, few enough for ten minutes on two cores without a GPU.
const DEMO_TEXT: &[(&str, &str)] = &[("--windows", "3")];

/// Builds the program, sees to driver and pip, and runs the comparison.
pub fn run(args: Vec<String>) -> Result<()> {
    let mut model = "smollm2-135m".to_owned();
    let (mut recipes, mut text, mut report) = (RECIPES, DEMO_TEXT, "report");
    let mut further = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            "--model" => model = args.next().context("--model wants a name")?,
            "--methods" => (recipes, text, report) = (METHODS, METHODS_TEXT, "methods"),
            _ => further.push(arg),
        }
    }
    let tersor = program()?;
    if model == "smollm2-135m" {
        ensure_pip()?;
    }

    let out = root().join("target/demo");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let prompt =
        std::fs::read_to_string(root().join("assets/prompts/chat.txt")).context("reading the demo's prompt")?;
    let (json, html) = (out.join(report).with_extension("json"), out.join(report).with_extension("html"));
    let mut compare = command(&tersor);
    compare.arg("compare").arg(&model).arg("--with").args(recipes);
    if model == "smollm2-135m" {
        compare.args(["--rotate", "1"]);
    }
    for (option, value) in text {
        if !further.iter().any(|arg| arg.split('=').next() == Some(option)) {
            compare.args([option, value]);
        }
    }
    compare.args(["--prompt", prompt.trim()]).arg("--json").arg(&json).arg("--html").arg(&html).args(further);
    shell::run(&mut compare)?;
    println!("\nreport: {}\n        {}", html.display(), json.display());
    Ok(())
}

/// Builds the program without its window, and sees to an adapter that it can use.
pub fn program() -> Result<PathBuf> {
    vulkan::ensure_driver()?;
    shell::run(cargo().args(["build", "--release", "--locked", "-p", "tersor", "--no-default-features"]))?;
    let tersor = root()
        .join(std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from))
        .join("release")
        .join(format!("tersor{}", std::env::consts::EXE_SUFFIX));
    if !succeeds(command(&tersor).arg("adapters")) && cfg!(target_os = "linux") {
        println!("the installed Vulkan drivers offer no adapter: installing Mesa's software Vulkan");
        vulkan::install_software()?;
    }
    Ok(tersor)
}

/// The model comes inside a Python package, so pip must be there.
fn ensure_pip() -> Result<()> {
    let has_pip = |python: &str| output(command(python).args(["-m", "pip", "--version"])).is_some();
    if has_pip("python3") || has_pip("python") || has_pip("py") || !packages::is_debian() {
        return Ok(()); // tersor itself says what to do where pip is missing
    }
    if let Err(error) = packages::install(&["python3-pip"]) {
        bail!("the model comes inside a Python package, and pip is missing: {error:#}");
    }
    Ok(())
}
