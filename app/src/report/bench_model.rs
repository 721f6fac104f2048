//! What a model's benchmark looks like on a terminal.

use std::fmt::Write as _;

use tersor_engine::bench::SAMPLES;
use tersor_engine::session::report::ModelBenchmark;

use super::{driver, lines};
use crate::table::{Align, Table, wrap};
use crate::units::{bytes, megabytes, significant};

/// What it says on a terminal of `width` columns, if that is known.
pub fn terminal(found: &ModelBenchmark, width: Option<usize>) -> String {
    let mut out = format!("{}\n{}", lines(&setting(found), width), table(found).fit(width));
    for note in notes(found) {
        let _ = write!(out, "\n{}\n", wrap(&note, width, 2));
    }
    out
}

fn setting(found: &ModelBenchmark) -> Vec<(&'static str, String)> {
    let (device, f, s) = (&found.device, &found.findings, significant);
    let software = if device.software { "; a software renderer, whose speeds say nothing about GPUs" } else { "" };
    let first = f.lengths.first();
    let prefill = first.map_or(0.0, |at| at.prefill_seconds);
    let host = &f.host;
    let memory = &f.memory;
    vec![
        ("model", format!("{}, {}", found.model.name, found.recipe.as_deref().unwrap_or("as it is stored"))),
        (
            "device",
            format!("{}, {}; tier {}{software}", device.name, driver(&device.name, &device.driver), device.tier),
        ),
        (
            "first token",
            format!(
                "{} s: load {} s, compile {} s ({} pipelines), prefill {} s ({} tokens)",
                s(f.load_seconds + f.compile_seconds + prefill),
                s(f.load_seconds),
                s(f.compile_seconds),
                f.pipelines,
                s(prefill),
                first.map_or(0, |at| at.context),
            ),
        ),
        (
            "host",
            format!(
                "{} µs a token of {} dispatches: {} to record, {} to submit; bare wgpu takes {} for the same commands, which leaves {} µs a dispatch to the engine",
                s(host.record_us + host.submit_us),
                host.dispatches,
                s(host.record_us),
                s(host.submit_us),
                s(host.wgpu_us),
                s(host.engine_us_per_dispatch),
            ),
        ),
        (
            "memory",
            format!(
                "{:.1} MB on the device at most: weights {:.1}, keys and values {:.1}, activations {:.1}; host {}",
                megabytes(memory.peak),
                megabytes(memory.weights),
                megabytes(memory.kv_cache),
                megabytes(memory.activations),
                f.host_peak_bytes.map_or("unknown".to_owned(), bytes),
            ),
        ),
        ("bandwidth", format!("copy {} GB/s, read {} GB/s", s(f.ceilings.copy_gb_per_s), s(f.ceilings.read_gb_per_s))),
    ]
}

/// One row for each length.
fn table(found: &ModelBenchmark) -> Table {
    let mut table = Table::new([
        ("context", Align::Right),
        ("prefill\ntok/s", Align::Right),
        ("decode\ntok/s", Align::Right),
        ("ms a token", Align::Right),
        ("quartiles", Align::Right),
        ("dispatches", Align::Right),
        ("MB at least", Align::Right),
        ("GB/s", Align::Right),
        ("% of\nbandwidth", Align::Right),
    ]);
    for at in &found.findings.lengths {
        let t = &at.decode;
        let ms = |us: f64| significant(1e-3 * us);
        let few = if t.samples < SAMPLES { format!(" ({} samples)", t.samples) } else { String::new() };
        table.row([
            at.context.to_string(),
            significant(at.prefill_tokens_per_second),
            significant(at.decode_tokens_per_second),
            ms(t.median_us),
            format!("{}–{}{few}", ms(t.q1_us), ms(t.q3_us)),
            at.dispatches.to_string(),
            format!("{:.2}", megabytes(at.bytes)),
            significant(at.gb_per_s),
            format!("{:.1}", 100.0 * at.roof_fraction),
        ]);
    }
    table
}

fn notes(found: &ModelBenchmark) -> Vec<String> {
    let fit = found.findings.fit.iter().map(|fit| {
        format!(
            "decoding takes {} ms and {} µs a position, each of which adds {} (a line through the medians, R² {:.3})",
            significant(1e-3 * fit.base_us),
            significant(fit.us_per_position),
            bytes(fit.bytes_per_position as u64),
            fit.r_squared
        )
    });
    let prefill = found.findings.prefill_fit.iter().map(|fit| {
        format!(
            "a prompt takes {} µs a token, and {} ns for each token that a token sees: attention's part (R² {:.3})",
            significant(fit.us_per_token),
            significant(fit.ns_per_pair),
            fit.r_squared
        )
    });
    fit.chain(prefill).collect()
}

#[cfg(test)]
mod tests {
    use tersor_engine::session::Report;

    use super::*;

    /// As a session sends it.
    const JSON: &str = r#"{"schema":"tersor.bench_model/1","version":"0.1.0",
        "device":{"name":"Vulkan card","driver":"1.2","tier":{"f16":true,"subgroup":true},"limits":"adapter","software":false},
        "model":{"name":"m.gguf","architecture":"llama","parameters":1000,"file_bytes":2000,"rotation":null},
        "weights":{"bytes":500,"bits_per_weight":4.0,"codecs":[["q4_0",2]],"fallbacks":[],"tensors":[],"encode_seconds":0.0,"calibration":null},
        "recipe":null,"plan":{"contexts":[],"tokens":16,"rounds":3,"quick":false},
        "ceilings":{"buffer_bytes":1,"copy_gb_per_s":100.0,"read_gb_per_s":120.0,"fma_gflop_per_s":1.0,"dispatch_us":1.0,"record_us":1.0,"submit_us":1.0,"readback_us":1.0},
        "load_seconds":1.5,"compile_seconds":2.5,"pipelines":11,"weight_bytes":500,
        "lengths":[{"context":128,"prefill_seconds":0.5,"prefill_tokens_per_second":256.0,
            "decode":{"median_us":20000.0,"q1_us":19000.0,"q3_us":21000.0,"samples":48,"runs":1},"decode_tokens_per_second":50.0,
            "dispatches":183,"bytes":96000000,"gb_per_s":4.8,"roof_fraction":0.04}],
        "fit":{"base_us":19000.0,"us_per_position":7.8,"bytes_per_position":46080.0,"r_squared":0.999},
        "prefill_fit":{"us_per_token":105.2,"ns_per_pair":42.5,"r_squared":0.998},
        "host":{"context":128,"dispatches":183,"record_us":300.0,"submit_us":400.0,"wgpu_us":517.0,"engine_us_per_dispatch":1.0},
        "memory":{"weights":100000000,"kv_cache":5000000,"activations":1000000,"peak":106000000,"limit":null},
        "host_peak_bytes":null,"seconds":60.0}"#;

    #[test]
    fn everything_measured_is_shown() {
        let Report::BenchModel(found) = serde_json::from_str(JSON).unwrap() else { panic!() };
        let shown = terminal(&found, None);
        for part in [
            "4.50 s: load 1.50 s, compile 2.50 s (11 pipelines), prefill 0.500 s (128 tokens)",
            "700 µs a token of 183 dispatches",
            "leaves 1.00 µs a dispatch",
            "106.0 MB on the device",
            "host unknown",
            "96.00",
            "46.1 kB",
            "R² 0.999",
            "105 µs a token, and 42.5 ns for each token",
        ] {
            assert!(shown.contains(part), "{part} is not in:\n{shown}");
        }
    }
}
