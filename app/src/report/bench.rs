//! What a benchmark looks like: tables on a terminal, a page with the roofline, and ratios to an older one.

use std::fmt::Write as _;

use tersor_engine::bench::{Bound, Clock, Measurement, SAMPLES};
use tersor_engine::session::Report;
use tersor_engine::session::report::Benchmark;

use super::html::{document, escape, html_table};
use super::roofline::{KINDS, roofline};
use super::{driver, lines};
use crate::table::{Align, Table, wrap};
use crate::units::{megabytes, significant};

/// What it says on a terminal of `width` columns, if that is known.
pub fn terminal(found: &Benchmark, width: Option<usize>) -> String {
    let mut out = format!("{}\n{}", lines(&setting(found), width), table(found).fit(width));
    for note in notes(found) {
        let _ = write!(out, "\n{}\n", wrap(&note, width, 2));
    }
    out
}

/// What the numbers were measured with and against.
fn setting(found: &Benchmark) -> Vec<(&'static str, String)> {
    let device = &found.device;
    let c = &found.findings.ceilings;
    let clock = match (&found.findings.clock, &found.findings.clock_reason) {
        (Clock::DeviceTimestamps, _) => "the device's timestamps".to_owned(),
        (Clock::HostClock, Some(why)) => format!("the host's clock ({why})"),
        (Clock::HostClock, None) => "the host's clock".to_owned(),
    };
    let software = if device.software { "; a software renderer, whose speeds say nothing about GPUs" } else { "" };
    let driver = driver(&device.name, &device.driver);
    let s = significant;
    vec![
        ("device", format!("{}, {driver}; tier {}{software}", device.name, device.tier)),
        ("clock", clock),
        (
            "memory",
            format!(
                "copy {} GB/s, read {} GB/s ({:.0} MB)",
                s(c.copy_gb_per_s),
                s(c.read_gb_per_s),
                megabytes(c.buffer_bytes)
            ),
        ),
        ("arithmetic", format!("{} GFLOP/s in f32", s(c.fma_gflop_per_s))),
        ("dispatch", format!("{} µs on the device, {} µs to record on the host", s(c.dispatch_us), s(c.record_us))),
        (
            "submission",
            format!("{} µs until it is done, {} µs until four bytes are read back", s(c.submit_us), s(c.readback_us)),
        ),
    ]
}

/// One row for each measurement.
fn table(found: &Benchmark) -> Table {
    let mut table = Table::new([
        ("measurement", Align::Left),
        ("bits", Align::Right),
        ("µs", Align::Right),
        ("quartiles", Align::Right),
        ("GB/s", Align::Right),
        ("GFLOP/s", Align::Right),
        ("% of\nroof", Align::Right),
        ("roof", Align::Left),
        ("kernel", Align::Left),
    ]);
    for m in &found.findings.measurements {
        let t = &m.times;
        let few = if t.samples < SAMPLES { format!(" ({} samples)", t.samples) } else { String::new() };
        table.row([
            m.name.clone(),
            format!("{:.2}", m.bits),
            significant(t.median_us),
            format!("{}–{}{few}", significant(t.q1_us), significant(t.q3_us)),
            significant(m.gb_per_s),
            significant(m.gflop_per_s),
            format!("{:.1}", 100.0 * m.roof_fraction),
            if m.bound == Bound::Memory { "memory" } else { "compute" }.to_owned(),
            m.kernel.clone(),
        ]);
    }
    table
}

/// What was left out.
fn notes(found: &Benchmark) -> Vec<String> {
    found.findings.skipped.iter().map(|skipped| format!("left out: {}: {}", skipped.name, skipped.why)).collect()
}

/// What the columns are.
const LEGEND: &str = "µs: median of the samples, each of several runs in one submission, after a warm-up. GB/s and GFLOP/s count necessary \
    bytes (packed weights, x and y; q, keys, values and the output) and necessary operations. Roof: the time that these take at least at the \
    measured bandwidth (the faster of copying and reading) or rate, whichever is longer; 100 % is all that the adapter gives. Runs take \
    turns with copies of the weights, so that caches do not flatter.";

/// The page. `command` is what was typed.
pub fn page(found: &Benchmark, command: &str) -> String {
    let title = format!("Kernels on {}", found.device.name);
    let mut body = format!("<h1>{}</h1><dl>", escape(&title));
    for (name, value) in setting(found) {
        let _ = write!(body, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    body.push_str("</dl>");
    if let Some(svg) = roofline(&found.findings.ceilings, &found.findings.measurements) {
        let keys: String = KINDS.iter().enumerate().map(|(i, kind)| key(i, kind)).collect();
        let _ = write!(body, "<div class=\"plots\"><figure>{svg}<p class=\"note\">{keys}</p></figure></div>");
    }
    body.push_str(&html_table(&table(found)));
    for note in notes(found) {
        let _ = write!(body, "<p class=\"note\">{}</p>", escape(&note));
    }
    let _ = write!(
        body,
        "<h2>How this was made</h2><p>{LEGEND}</p><p>By tersor {} in {:.0} s, with <code>{}</code>.</p>",
        escape(&found.version),
        found.seconds,
        escape(command)
    );
    document(&title, &body, &Report::Bench(Box::new(found.clone())))
}

/// A colour and what it stands for.
fn key(colour: usize, kind: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 12 12\" width=\"12\" height=\"12\" style=\"width:12px\"><circle class=\"c{colour}\" cx=\"6\" cy=\"6\" r=\"5\"/></svg> {kind} "
    )
}

/// Times of `new` through those of `old`, case by case: the ratio of the medians, and the least and the greatest that the quartiles allow.
/// Cases that only one of them has are left out.
pub fn ratios(old: &Benchmark, new: &Benchmark) -> Table {
    let mut table = Table::new([
        ("measurement", Align::Left),
        ("old µs", Align::Right),
        ("new µs", Align::Right),
        ("new ÷ old", Align::Right),
        ("spread", Align::Right),
        ("", Align::Left),
    ]);
    let pairs = new.findings.measurements.iter().filter_map(|m| Some((find(old, &m.name)?, m)));
    for (old, new) in pairs {
        let (a, b) = (&old.times, &new.times);
        let (low, high) = (b.q1_us / a.q3_us, b.q3_us / a.q1_us);
        let verdict = if high < 1.0 {
            "faster"
        } else if low > 1.0 {
            "slower"
        } else {
            ""
        };
        table.row([
            new.name.clone(),
            significant(a.median_us),
            significant(b.median_us),
            format!("{:.2}", b.median_us / a.median_us),
            format!("{low:.2}–{high:.2}"),
            verdict.to_owned(),
        ]);
    }
    table
}

fn find<'a>(benchmark: &'a Benchmark, name: &str) -> Option<&'a Measurement> {
    benchmark.findings.measurements.iter().find(|m| m.name == name)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tersor_engine::bench::{Ceilings, Findings, Plan, Skipped, Times};

    /// A benchmark of two products, one at half of either roof.
    pub fn benchmark() -> Benchmark {
        let measurement = |name: &str, us: f64, bytes: u64, operations: u64, bound| Measurement {
            name: name.into(),
            kernel: "linear/matvec lanes=32 subgroup=0".into(),
            times: Times { median_us: us, q1_us: 0.9 * us, q3_us: 1.1 * us, samples: 20, runs: 4 },
            bytes,
            operations,
            bits: 4.5,
            copies: 3,
            gb_per_s: 1e-3 * bytes as f64 / us,
            gflop_per_s: 1e-3 * operations as f64 / us,
            bound,
            roof_fraction: 0.5,
        };
        Benchmark {
            version: "0.1.0".into(),
            device: super::super::tests::comparison().device,
            plan: Plan::default(),
            findings: Findings {
                clock: Clock::HostClock,
                clock_reason: Some("the adapter has no timestamps".into()),
                ceilings: Ceilings {
                    buffer_bytes: 1 << 27,
                    copy_gb_per_s: 80.0,
                    read_gb_per_s: 100.0,
                    fma_gflop_per_s: 2000.0,
                    dispatch_us: 3.0,
                    record_us: 1.0,
                    submit_us: 20.0,
                    readback_us: 30.0,
                },
                measurements: vec![
                    measurement("matvec q4_k 4096x4096 1", 200.0, 10_000_000, 34_000_000, Bound::Memory),
                    measurement("matmul q4_k 4096x4096 512", 17_000.0, 26_000_000, 17_000_000_000, Bound::Compute),
                ],
                skipped: vec![Skipped { name: "attention-prefill <b>".into(), why: "no room".into() }],
            },
            seconds: 3.0,
        }
    }

    #[test]
    fn tables_show_times_roofs_and_what_was_left_out() {
        let mut found = benchmark();
        found.findings.measurements[1].times.samples = 5;
        let shown = terminal(&found, None);
        for part in [
            "180–220",
            "50.0",
            "170",
            "compute",
            "(5 samples)",
            "no timestamps",
            "read 100 GB/s",
            "left out: attention-prefill",
            "4.50",
        ] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
        assert!(terminal(&found, Some(80)).lines().all(|line| crate::table::width(line) <= 80));
    }

    #[test]
    fn the_page_is_whole_and_escaped() {
        let page = page(&benchmark(), "tersor bench --quick");
        assert!(page.contains("attention-prefill &lt;b&gt;") && !page.contains("<b>"));
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        for tag in ["div", "table", "tr", "td", "svg", "figure", "dl", "p", "text"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        let data = page.split("id=\"report\">").nth(1).unwrap().split("</script>").next().unwrap();
        let Report::Bench(back) = serde_json::from_str(data).unwrap() else { panic!() };
        assert_eq!(*back, benchmark());
    }

    #[test]
    fn ratios_tell_what_is_beyond_the_spread() {
        let (old, mut new) = (benchmark(), benchmark());
        let times = &mut new.findings.measurements[0].times;
        (times.median_us, times.q1_us, times.q3_us) = (100.0, 95.0, 110.0);
        new.findings.measurements[1].name = "another".into();
        let table = ratios(&old, &new);
        let [row] = table.rows() else { panic!("{table}") };
        assert_eq!(row[1..], ["200", "100", "0.50", "0.43–0.61", "faster"]);
        let same = ratios(&old, &old);
        assert!(same.rows().iter().all(|row| row[3] == "1.00" && row[5].is_empty()), "{same}");
        assert_eq!(ratios(&new, &old).rows()[0][5], "slower");
    }
}
