//! `cargo xtask web`: the app as a folder of static files that any host can serve.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{cargo, command, root, run};
use crate::{serve, wasm};

const HELP: &str = "\
usage: cargo xtask web [--quick | --kernel-tests] [--serve [PORT]]

Builds the app for browsers into target/web/dist, which any static host can serve (https, or localhost).

  --quick        build in a fraction of the time, a larger and slower program
  --kernel-tests build the page that runs every kernel's test instead, into target/web/kernels;
                 #NAME,-NAME in its address runs the tests whose names contain NAME, all but those;
                 #1/3 of every three the second
  --serve        serve the folder on this machine, at http://localhost:8080 or another PORT
";

/// Files of the page that need no building.
const PAGE: [&str; 5] = ["index.html", "style.css", "main.js", "worker.js", "icon.svg"];
/// Files of the model that is part of the program: in a browser it comes from the page's host.
const TINY: [&str; 3] = ["config.json", "generation_config.json", "model.safetensors"];

/// How the page is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Small and fast.
    Release,
    /// Quick to build.
    Quick,
}

/// Reads the arguments.
pub fn main(args: Vec<String>) -> Result<()> {
    let (mut profile, mut tests, mut port) = (Profile::Release, false, None);
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            "--quick" => profile = Profile::Quick,
            "--kernel-tests" => tests = true,
            "--serve" => {
                let number = args.next_if(|next| !next.starts_with("--"));
                port = Some(number.map_or(Ok(8080), |n| n.parse()).context("--serve wants the number of a port")?);
            }
            other => bail!("unknown argument {other:?}\n\n{HELP}"),
        }
    }
    let dist = if tests { build_kernel_tests()? } else { build(profile)? };
    println!("built {}", dist.display());
    if let Some(port) = port {
        let address = serve::serve(dist, port).with_context(|| format!("cannot open port {port}"))?;
        println!("http://localhost:{}/", address.port());
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

/// Builds the page and returns its folder.
pub fn build(profile: Profile) -> Result<PathBuf> {
    let module = compile(profile, &["-p", "tersor", "--bin", "tersor"])?.join("tersor.wasm");
    let dist = page_of(&module, "target/web/dist", "web", &PAGE)?;
    tiny(&dist.join("models/tiny"))?;
    Ok(dist)
}

/// Builds the page that runs the kernels' tests and returns its folder.
pub fn build_kernel_tests() -> Result<PathBuf> {
    // Together with the app, so that dependencies have the features it gives them and are built once.
    let both = ["-p", "tersor", "--bin", "tersor", "-p", "tersor-kernel-tests", "--bin", "tersor-kernel-tests"];
    let module = compile(Profile::Quick, &both)?.join("tersor-kernel-tests.wasm");
    page_of(&module, "target/web/kernels", "tests/kernels/page", &["index.html", "page.js", "worker.js", "turn.js"])
}

/// Compiles what is selected and returns the folder of the modules.
fn compile(profile: Profile, selection: &[&str]) -> Result<PathBuf> {
    let name = if profile == Profile::Quick { "web-quick" } else { "web" };
    // Its own target folder: another compiler would otherwise rebuild the native one's artefacts.
    let target = root().join("target/wasm");
    run(wasm::cargo_for_wasm()?
        .args(["build", "--locked", "--profile", name, "--target", wasm::TARGET])
        .args(selection)
        .arg("--target-dir")
        .arg(&target))?;
    Ok(target.join(wasm::TARGET).join(name))
}

/// Makes a folder of a compiled module and `files` of the folder `from`, and returns it.
fn page_of(module: &Path, folder: &str, from: &str, files: &[&str]) -> Result<PathBuf> {
    let dist = root().join(folder);
    if dist.exists() {
        std::fs::remove_dir_all(&dist).with_context(|| format!("cannot empty {}", dist.display()))?;
    }
    std::fs::create_dir_all(&dist).with_context(|| format!("cannot create {}", dist.display()))?;
    run(command(bindgen()?).arg(module).arg(&dist))?;
    for file in files {
        copy(&root().join(from).join(file), &dist.join(file))?;
    }
    Ok(dist)
}

fn copy(from: &Path, to: &Path) -> Result<u64> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Copies the model, with a list of its files and their sizes.
fn tiny(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut entries = Vec::new();
    for file in TINY {
        let bytes = copy(&root().join("assets/tiny").join(file), &folder.join(file))?;
        entries.push(format!("[\"{file}\",{bytes}]"));
    }
    std::fs::write(folder.join("index.json"), format!("{{\"files\":[{}]}}\n", entries.join(",")))
        .context("cannot write the list of the model's files")
}

/// The program that makes a browser's module out of a compiled one.
fn bindgen() -> Result<PathBuf> {
    let manifest = root().join("xtask/wasm/bindgen/Cargo.toml");
    let version = locked_version("wasm-bindgen")?;
    let text = std::fs::read_to_string(&manifest).context("reading xtask/wasm/bindgen/Cargo.toml")?;
    ensure!(
        text.contains(&format!("\"={version}\"")),
        "xtask/wasm/bindgen/Cargo.toml must name wasm-bindgen-cli-support {version}, the version of wasm-bindgen in Cargo.lock"
    );
    let target = root().join("target/bindgen");
    run(cargo()
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target))?;
    Ok(target.join("release").join(format!("tersor-bindgen{}", std::env::consts::EXE_SUFFIX)))
}

fn locked_version(package: &str) -> Result<String> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).context("reading Cargo.lock")?;
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{package}\"")).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    Ok(version.with_context(|| format!("Cargo.lock has no {package}"))?.to_owned())
}
