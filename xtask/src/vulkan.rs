//! A driver that WebGPU can run on: the machine's own, or Mesa's software Vulkan.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages;
use crate::shell::{command, output};

/// SwiftShader's Vulkan driver, where Debian's chromium puts it.
const SWIFTSHADER: &str = "/usr/lib/chromium/vk_swiftshader_icd.json";

/// Makes sure that a Vulkan loader and driver are installed (Linux; elsewhere Metal and DX12 come with the system).
pub fn ensure_driver() -> Result<()> {
    if !cfg!(target_os = "linux") || (has_loader() && !drivers().is_empty()) {
        return Ok(());
    }
    println!("no Vulkan driver found: installing Mesa's software Vulkan");
    install_software()
}

/// Installs Mesa's software Vulkan.
pub fn install_software() -> Result<()> {
    let command = if packages::is_debian() {
        "sudo apt-get install mesa-vulkan-drivers libvulkan1"
    } else if Path::new("/etc/fedora-release").exists() {
        "sudo dnf install mesa-vulkan-drivers vulkan-loader"
    } else if Path::new("/etc/arch-release").exists() {
        "sudo pacman -S vulkan-swrast vulkan-icd-loader"
    } else if Path::new("/etc/alpine-release").exists() {
        "doas apk add mesa-vulkan-swrast vulkan-loader"
    } else {
        "install Mesa's lavapipe Vulkan driver and the Vulkan loader with your package manager"
    };
    packages::install(&["mesa-vulkan-drivers", "libvulkan1"])
        .with_context(|| format!("no WebGPU-capable driver, and it cannot be installed from here; type: {command}"))
}

/// SwiftShader's driver manifest, installed with chromium where that is possible.
pub fn ensure_swiftshader() -> Result<PathBuf> {
    let icd = PathBuf::from(SWIFTSHADER);
    if !icd.exists() {
        packages::install(&["chromium"]).context("SwiftShader's Vulkan driver comes with Debian's chromium")?;
    }
    anyhow::ensure!(icd.exists(), "Debian's chromium brought no {SWIFTSHADER}");
    Ok(icd)
}

fn has_loader() -> bool {
    let known = output(command("/sbin/ldconfig").arg("-p"))
        .or_else(|| output(command("ldconfig").arg("-p")))
        .unwrap_or_default();
    known.contains("libvulkan.so.1")
        || ["/usr/lib", "/usr/lib64", "/usr/local/lib"].iter().any(|dir| Path::new(dir).join("libvulkan.so.1").exists())
}

/// Driver manifests in the places where the Vulkan loader looks.
fn drivers() -> Vec<PathBuf> {
    for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        if let Some(files) = std::env::var_os(name).filter(|v| !v.is_empty()) {
            return std::env::split_paths(&files).filter(|p| p.exists()).collect();
        }
    }
    let mut dirs: Vec<PathBuf> =
        ["/etc", "/usr/local/etc", "/usr/local/share", "/usr/share"].map(PathBuf::from).to_vec();
    for name in ["XDG_DATA_DIRS", "XDG_DATA_HOME", "XDG_CONFIG_DIRS"] {
        dirs.extend(std::env::var_os(name).iter().flat_map(std::env::split_paths));
    }
    if let Some(home) = std::env::var_os("HOME") {
        dirs.push(Path::new(&home).join(".local/share"));
    }
    dirs.iter()
        .filter_map(|dir| std::fs::read_dir(dir.join("vulkan/icd.d")).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect()
}
