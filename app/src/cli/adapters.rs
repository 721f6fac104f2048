//! `tersor adapters`.

use anyhow::{Result, bail};
use tersor_engine::gpu::AdapterSummary;
use tersor_engine::session::{Command, Report};

use super::{Context, out};
use crate::report::driver;
use crate::table::{Align, Table};
use crate::units;

pub fn run(context: &Context) -> Result<()> {
    let report = context.client()?.run(Command::Adapters, |_| Ok(()))?;
    let Some(Report::Adapters(found)) = &report else { bail!("the engine listed no adapters") };
    context.write_json(report.as_ref())?;
    if found.adapters.is_empty() {
        bail!("no WebGPU-capable driver was found: {}", remedy());
    }
    let mut table = Table::new([
        ("#", Align::Right),
        ("adapter", Align::Left),
        ("backend", Align::Left),
        ("kind", Align::Left),
        ("tier", Align::Left),
        ("subgroup", Align::Left),
        ("binding", Align::Right),
        ("memory", Align::Right),
        ("driver", Align::Left),
    ]);
    for adapter in &found.adapters {
        let mark = if found.chosen == Some(adapter.index) { "*" } else { "" };
        table.row([
            format!("{mark}{}", adapter.index),
            adapter.name.clone(),
            adapter.backend.clone(),
            kind(&adapter.kind).to_owned(),
            adapter.tier.to_string(),
            subgroup(adapter),
            units::bytes(adapter.max_binding),
            adapter.memory.map(units::bytes).unwrap_or_default(),
            driver(&adapter.name, &adapter.driver).to_owned(),
        ]);
    }
    out::print(table.without_empty_columns().fit(out::width()))?;
    if found.chosen.is_none() {
        bail!("none of them is the adapter that was asked for");
    }
    Ok(())
}

/// wgpu's names of kinds in words.
fn kind(name: &str) -> &str {
    match name {
        "DiscreteGpu" => "discrete",
        "IntegratedGpu" => "integrated",
        "VirtualGpu" => "virtual",
        "Cpu" => "software",
        other => other,
    }
}

fn subgroup(adapter: &AdapterSummary) -> String {
    match adapter.subgroup_size {
        [0, _] | [_, 0] => String::new(),
        [min, max] if min == max => min.to_string(),
        [min, max] => format!("{min}–{max}"),
    }
}

fn remedy() -> &'static str {
    if !cfg!(target_os = "linux") {
        "update the graphics driver"
    } else if std::path::Path::new("/etc/debian_version").exists() {
        "run `apt-get install mesa-vulkan-drivers libvulkan1` for Mesa's software Vulkan, or install your GPU's Vulkan driver"
    } else {
        "install your GPU's Vulkan driver, or Mesa's software Vulkan (lavapipe), and the Vulkan loader"
    }
}
