//! tersor's product of a 4-bit matrix with a vector beside those of other WebGPU engines: the same matrix, the same adapter, in turns.
//!
//! `cargo run --release -p tersor-benches --bin peers -- [--rows N] [--cols N] [--turns N] [--json]`
//!
//! ggml-webgpu's own WGSL runs in this process; web-rwkv and burn (`benches/peers`, projects of their own, which are built on the spot)
//! in others that wait meanwhile. A sample is some products in one submission, from handing them in to their end. In each turn
//! every contender gives one, in an order that rotates; ratios are taken within a turn, and medians over the turns. Before that every
//! result is held against the product in f64. A peer that cannot be had, fails, or computes something else is named with the reason. `TERSOR_ADAPTER` chooses the adapter.

mod ggml;
mod ours;
mod preprocess;
mod process;

use std::path::Path;

use tersor_engine::codec;
use tersor_engine::gpu::{Gpu, GpuOptions};

type Error = Box<dyn std::error::Error>;

/// Seconds that a sample should last.
const SAMPLE: f64 = 0.1;

/// `y = W x`.
pub struct Problem {
    rows: u32,
    cols: u32,
    /// `[rows, cols]`
    w: Vec<f32>,
    x: Vec<f32>,
}

/// Somebody's kernel.
trait Contender {
    /// Engine, format, variant.
    fn name(&self) -> String;

    fn version(&self) -> String;

    /// Seconds of `count` products in one submission.
    fn run(&mut self, count: u32) -> Result<f64, Error>;

    /// The product.
    fn result(&mut self) -> Result<Vec<f32>, Error>;
}

/// A contender, which of tersor's codecs is alike, what it must compute, and how far it may be off.
type Found<'a> = (Box<dyn Contender>, &'static str, &'a [f64], f64);

/// A contender at the start.
struct Entry {
    contender: Box<dyn Contender>,
    /// Which of tersor's codecs has as many bits.
    like: &'static str,
    /// ‖y − exact‖ / ‖exact‖.
    error: f64,
    /// Products of a sample.
    count: u32,
    /// Milliseconds of a product, a turn each.
    times: Vec<f64>,
}

struct Args {
    rows: u32,
    cols: u32,
    turns: u32,
    json: bool,
}

fn args() -> Result<Args, Error> {
    let mut found = Args { rows: 4096, cols: 4096, turns: 15, json: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u32, Error> { Ok(args.next().ok_or("a number is missing")?.parse()?) };
        match arg.as_str() {
            "--rows" => found.rows = number()?,
            "--cols" => found.cols = number()?,
            "--turns" => found.turns = number()?.max(1),
            "--json" => found.json = true,
            _ => return Err(format!("{arg}: --rows N, --cols N, --turns N or --json").into()),
        }
    }
    if !found.cols.is_multiple_of(128) || !found.rows.is_multiple_of(4) || found.rows == 0 || found.cols == 0 {
        return Err("rows must be a multiple of 4, columns of 128, for every peer's kernel".into());
    }
    Ok(found)
}

/// About normal numbers, the same every time.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        // xorshift, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    (0..count).map(|_| (uniform() + uniform() + uniform() + uniform()) / 16.0).collect()
}

fn product(w: &[f32], x: &[f32]) -> Vec<f64> {
    w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()).collect()
}

fn distance(found: &[f32], exact: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = square(&mut found.iter().zip(exact).map(|(a, b)| f64::from(*a) - b));
    if found.len() == exact.len() { (difference / square(&mut exact.iter().copied())).sqrt() } else { f64::INFINITY }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How far a contender's product is off, and how many of them make a sample.
fn ready(contender: &mut dyn Contender, exact: &[f64], tolerance: f64) -> Result<(f64, u32), Error> {
    let error = distance(&contender.result()?, exact);
    if error.is_nan() || error > tolerance {
        return Err(format!("its product is off by {error} of its norm").into());
    }
    contender.run(1)?;
    let count = (SAMPLE / contender.run(1)?).ceil().clamp(1.0, 200.0) as u32;
    Ok((error, count))
}

fn main() -> Result<(), Error> {
    let args = args()?;
    let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env()?))?;
    let (rows, cols) = (args.rows as usize, args.cols as usize);
    let problem = Problem { rows: args.rows, cols: args.cols, w: numbers(rows * cols, 1), x: numbers(cols, 2) };
    let exact = product(&problem.w, &problem.x);
    let work = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers");
    std::fs::create_dir_all(&work)?;

    let packed = codec::parse("q4_1")?.encode(&problem.w, rows, cols)?;
    let q4_1 = codec::export_ggml(&packed).ok_or("q4_1 has no bytes of ggml's")?;
    // What a kernel of the same blocks must compute.
    let quantized = product(&packed.decode(), &problem.x);
    let adapter = gpu.info().name.clone();
    let mut found: Vec<Found> = Vec::new();
    let mut missing = Vec::new();
    for recipe in ["q4_1", "nf4", "q8_0"] {
        let (exact, tolerance) = if recipe == "q4_1" { (&quantized, 1e-4) } else { (&exact, 0.15) };
        found.push((Box::new(ours::Ours::new(&gpu, &problem, recipe)?), recipe, exact, tolerance));
    }
    let ours = found.len();
    match ggml::Ggml::new(&problem, &q4_1, &adapter, &work) {
        Ok(peer) => found.push((Box::new(peer), "q4_1", &quantized, 1e-4)),
        Err(error) => missing.push(("ggml-webgpu".to_owned(), error.to_string())),
    }
    // Engine, project, kernel, what of ours is like it, tolerance. A process each: one that fails takes no other with it.
    let others = [
        ("web-rwkv", "web_rwkv", "int8", "q8_0", 0.02),
        ("web-rwkv", "web_rwkv", "nf4", "nf4", 0.15),
        ("burn", "burn", "q8", "q8_0", 0.02),
        ("burn", "burn", "q4", "q4_1", 0.15),
    ];
    for (engine, project, kernel, like, tolerance) in others {
        match process::start(project, &problem, &adapter, &work) {
            Ok(peer) => found.push((Box::new(process::Kernel::new(peer, engine, kernel)), like, &exact, tolerance)),
            Err(error) => missing.push((format!("{engine} {kernel}"), error.to_string())),
        }
    }
    missing.push(("candle".to_owned(), "it has no backend for WebGPU".to_owned()));

    let mut entries = Vec::new();
    for (i, (mut contender, like, exact, tolerance)) in found.into_iter().enumerate() {
        match ready(&mut *contender, exact, tolerance) {
            Ok((error, count)) => entries.push(Entry { contender, like, error, count, times: Vec::new() }),
            Err(error) if i < ours => return Err(format!("{}: {error}", contender.name()).into()),
            Err(error) => missing.push((contender.name(), error.to_string())),
        }
    }
    for turn in 0..args.turns as usize {
        for i in 0..entries.len() {
            let at = (i + turn) % entries.len();
            let entry = &mut entries[at];
            let seconds = entry.contender.run(entry.count)?;
            entry.times.push(1e3 * seconds / f64::from(entry.count));
        }
    }
    report(&args, &gpu, &entries, &missing)
}

/// Median over the turns of an entry's time through another's.
fn ratio(entry: &Entry, to: &Entry) -> f64 {
    median(&entry.times.iter().zip(&to.times).map(|(a, b)| a / b).collect::<Vec<_>>())
}

fn report(args: &Args, gpu: &Gpu, entries: &[Entry], missing: &[(String, String)]) -> Result<(), Error> {
    let q4_1 = &entries[0];
    // The first ones are tersor's.
    let own = |like: &str| entries.iter().find(|entry| entry.like == like).unwrap_or(q4_1);
    if args.json {
        let list = entries.iter().map(|entry| {
            serde_json::json!({
                "name": entry.contender.name(), "version": entry.contender.version(), "ms": median(&entry.times),
                "least_ms": entry.times.iter().copied().fold(f64::INFINITY, f64::min), "error": entry.error,
                "times_tersor_q4_1": ratio(entry, q4_1), "times_tersor_alike": ratio(entry, own(entry.like)),
                "alike": entry.like,
            })
        });
        let missing = missing.iter().map(|(peer, why)| serde_json::json!({ "peer": peer, "why": why }));
        let all = serde_json::json!({
            "adapter": gpu.name(), "driver": format!("{} {}", gpu.info().driver, gpu.info().driver_info),
            "rows": args.rows, "cols": args.cols, "turns": args.turns,
            "kernels": list.collect::<Vec<_>>(), "missing": missing.collect::<Vec<_>>(),
        });
        println!("{all:#}");
        return Ok(());
    }
    println!("{}, {} {}", gpu.name(), gpu.info().driver, gpu.info().driver_info);
    println!("{}×{} times a vector, {} turns", args.rows, args.cols, args.turns);
    println!(
        "{:<34} {:<24} {:>8} {:>8} {:>9} {:>14} {:>16}",
        "kernel", "version", "ms", "least", "error", "÷ tersor q4_1", "÷ tersor's like"
    );
    for entry in entries {
        println!(
            "{:<34} {:<24} {:>8.2} {:>8.2} {:>9.1e} {:>14.2} {:>9.2} {:>6}",
            entry.contender.name(),
            entry.contender.version(),
            median(&entry.times),
            entry.times.iter().copied().fold(f64::INFINITY, f64::min),
            entry.error,
            ratio(entry, q4_1),
            ratio(entry, own(entry.like)),
            entry.like,
        );
    }
    for (peer, why) in missing {
        println!("missing: {peer}: {why}");
    }
    Ok(())
}
