//! System packages: installed where that is allowed, else the command to type.

use std::path::Path;

use anyhow::{Result, bail};

use crate::shell::{command, output, run, succeeds};

/// Whether this is Debian or one of its children.
pub fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && succeeds(command("apt-get").arg("--version"))
}

fn is_root() -> bool {
    output(command("id").arg("-u")).as_deref() == Some("0")
}

fn is_installed(package: &str) -> bool {
    output(command("dpkg-query").args(["-W", "-f=${Status}", package])).is_some_and(|s| s.contains("ok installed"))
}

/// Installs Debian packages; an error with the command to type when this user may not.
pub fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|p| !is_installed(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_debian() {
        bail!("install {} with your package manager", missing.join(" and "));
    }
    if !is_root() {
        bail!("run: sudo apt-get install --no-install-recommends {}", missing.join(" "));
    }
    run(command("apt-get").args(["update", "-qq"]))?;
    run(command("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing))
}
