//! A compiler for wasm32: rustup's target where it can be had, else a toolchain made from Debian's packages.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::packages;
use crate::shell::{cargo, command, output, root, succeeds};

/// The target of browsers.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// A cargo command that can build for wasm32 when `--target wasm32-unknown-unknown` is given.
pub fn cargo_for_wasm() -> Result<Command> {
    if has_target() || succeeds(command("rustup").args(["target", "add", TARGET])) && has_target() {
        return Ok(cargo());
    }
    if !packages::is_debian() {
        bail!("no wasm32 target: run `rustup target add {TARGET}`");
    }
    println!("rustup cannot add {TARGET} here: making a compiler from Debian's rustc-web");
    let made = command("bash")
        .arg(root().join("xtask/wasm/setup.sh"))
        .stderr(Stdio::inherit())
        .output()
        .context("running xtask/wasm/setup.sh")?;
    let toolchain = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    ensure!(made.status.success() && !toolchain.is_empty(), "xtask/wasm/setup.sh failed");
    let mut cargo = cargo();
    cargo
        .env("RUSTC", Path::new(&toolchain).join("bin/rustc"))
        .env("RUSTDOC", Path::new(&toolchain).join("bin/rustdoc"));
    Ok(cargo)
}

fn has_target() -> bool {
    output(command("rustc").args(["--print", "target-libdir", "--target", TARGET])).is_some_and(|dir| {
        std::fs::read_dir(dir).is_ok_and(|mut entries| {
            entries.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("libcore-")))
        })
    })
}
