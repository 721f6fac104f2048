//! Linear layers: time of every kernel variant for given codecs and shapes, beside what the shape needs at least.
//!
//! `cargo run --release -p tersor-benches --bin linear -- [--all] [--shape ROWSxCOLSxTOKENS]… [RECIPE…]`
//!
//! A line is the median of five rounds of at least 0.1 s after a warm-up. GB/s counts the bytes that must move once: packed
//! weights, x and y. "÷ first" is the time against the first recipe's at the same shape: name f16 first to see what compression
//! costs or saves. `--all` times every variant the adapter runs, not only the chosen one. Compare within one run only.
//! On Linux "cpu ms" is the processor time of all threads: for a software adapter it tells the same on a busy machine.

use std::collections::HashMap;
use std::time::Instant;
use tersor_engine::codec;
use tersor_engine::gpu::{Gpu, GpuOptions, Purpose};
use tersor_engine::ops::linear::{Decision, Device, Epilogue, Linear, Rows, Shape, forward_with};

type Error = Box<dyn std::error::Error>;

/// rows, cols, tokens: a decode step and a prefill of SmolLM2-135M's layers, and a 7B model's.
const SHAPES: &[(u32, u32, u32)] = &[
    (576, 576, 1),
    (3072, 576, 1),
    (576, 1536, 1),
    (49152, 576, 1),
    (4096, 4096, 1),
    (960, 576, 64),
    (3072, 576, 64),
    (576, 1536, 64),
    (1024, 1024, 512),
];

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let every = args.iter().any(|a| a == "--all");
    let (mut recipes, mut shapes) = (Vec::new(), Vec::new());
    let mut left = args.iter().map(String::as_str).filter(|a| *a != "--all");
    while let Some(arg) = left.next() {
        if arg == "--shape" {
            let sides = left.next().unwrap_or_default().split('x').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
            let [rows, cols, tokens] = sides[..] else { return Err("a shape is ROWSxCOLSxTOKENS".into()) };
            shapes.push((rows, cols, tokens));
        } else {
            recipes.push(arg);
        }
    }
    if shapes.is_empty() {
        shapes = SHAPES.into();
    }
    if recipes.is_empty() {
        recipes = vec!["f32", "bf16", "q8_0", "q4_0", "spqr:bits=3", "spqr:bits=4,group=32"];
    }
    let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env()?))?;
    println!("{} {:?}, subgroups {:?}", gpu.name(), gpu.tier(), gpu.subgroup_size());
    println!(
        "{:<24} {:>16} {:>8} {:>10} {:>10} {:>8} {:>8} {:>9}  variant",
        "codec", "rows×cols×tokens", "MB", "ms", "cpu ms", "÷ first", "GB/s", "GFLOP/s"
    );
    let mut first: HashMap<(u32, u32, u32), f64> = HashMap::new();
    for recipe in recipes {
        for &(rows, cols, tokens) in &shapes {
            let codec = codec::parse(recipe)?;
            if !(cols as usize).is_multiple_of(codec.block_len()) {
                continue;
            }
            let weights: Vec<f32> =
                (0..rows * cols).map(|i| (i.wrapping_mul(2654435761) >> 8) as f32 / 8e6 - 1.0).collect();
            let packed = codec.encode(&weights, rows as usize, cols as usize)?;
            let linear = Linear::upload(&gpu, &packed, "w")?;
            let shape = Shape { tokens, rows, cols, norm: false };
            let device = Device::of(&gpu);
            let mut chosen = Decision::choose(device, shape);
            let mut variants = if every { Decision::all(device, shape) } else { vec![chosen] };
            if let Some(sparsity) = linear.codec().sparsity(cols as usize) {
                chosen = chosen.for_sparse(&sparsity, cols);
                variants.iter_mut().for_each(|v| *v = v.for_sparse(&sparsity, cols));
                variants.dedup();
            }
            for decision in variants {
                let Timing { ms, cpu_ms } = time(&gpu, &linear, decision, tokens)?;
                let bytes = packed.bytes() + 4 * u64::from(tokens) * u64::from(rows + cols);
                let flops = 2.0 * f64::from(rows) * f64::from(cols) * f64::from(tokens);
                let mark = if decision == chosen { "*" } else { " " };
                println!(
                    "{:<24} {:>16} {:>8.2} {ms:>10.3} {cpu_ms:>10.3} {:>8.2} {:>8.2} {:>9.2} {mark}{decision:?}",
                    recipe,
                    format!("{rows}×{cols}×{tokens}"),
                    packed.bytes() as f64 / 1e6,
                    cpu_ms / *first.entry((rows, cols, tokens)).or_insert(cpu_ms),
                    bytes as f64 / ms / 1e6,
                    flops / ms / 1e6
                );
            }
        }
    }
    Ok(())
}

/// Milliseconds of one layer.
struct Timing {
    ms: f64,
    cpu_ms: f64,
}

fn time(gpu: &Gpu, linear: &Linear, decision: Decision, tokens: u32) -> Result<Timing, Error> {
    let (rows, cols) = (linear.rows(), linear.cols());
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 31) as f32 / 31.0 - 0.5).collect();
    let x = gpu.upload("x", &x, Purpose::Activations)?;
    let y = gpu.storage("y", 4 * u64::from(tokens) * u64::from(rows), Purpose::Activations)?;
    let round = |count: u32| -> Result<f64, Error> {
        let start = Instant::now();
        let mut rec = gpu.record();
        for _ in 0..count {
            let (x, y) = (Rows::new(&x, cols), Rows::new(&y, rows));
            forward_with(&mut rec, decision, linear, tokens, x, y, &Epilogue::default())?;
        }
        rec.submit()?;
        pollster::block_on(gpu.read::<f32>(&y, 0, 1))?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    round(1)?;
    let count = (100.0 / round(1)?).ceil().clamp(1.0, 1000.0) as u32;
    let cpu = process_cpu_ms();
    let mut rounds = Vec::new();
    for _ in 0..5 {
        rounds.push(round(count)? / f64::from(count));
    }
    rounds.sort_by(f64::total_cmp);
    Ok(Timing { ms: rounds[2], cpu_ms: (process_cpu_ms() - cpu) / f64::from(5 * count) })
}

/// Processor time of all threads so far, in steps of 10 ms; NaN where the system does not tell.
fn process_cpu_ms() -> f64 {
    // Fields 14 and 15 (user and system time in ticks); the second field, a name in brackets, may hold spaces.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().map(|f| f.parse().unwrap_or(f64::NAN)).collect();
    match fields[..] {
        [_, _, _, _, _, _, _, _, _, _, _, user, system, ..] => 10.0 * (user + system),
        _ => f64::NAN,
    }
}
