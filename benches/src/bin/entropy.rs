//! Entropy-coded weights: the fused decode and product beside the plain one of the codec beneath, and expanding beside a copy.
//!
//! `cargo run --release -p tersor-benches --bin entropy -- [RECIPE…] [--all]`
//!
//! RECIPE is the codec beneath: bf16, q8_0, uniform:bits=4 … Weights are normal, as trained ones about are. A line is the median of five
//! rounds of at least 0.1 s after a warm-up; "bf16 GB/s" are weights a second times two bytes, whatever is stored; "copy" is a shader that
//! copies as many bytes as the expanded plane has. `--all` times every fused variant that there is. Compare within one run only.

use std::time::Instant;
use tersor_engine::codec::{self, Packed};
use tersor_engine::gpu::{Gpu, GpuOptions, Purpose, Recorder};
use tersor_engine::ops::linear::{Decision, Device, Epilogue, Linear, Rows, Shape, expanded, forward, forward_with};

type Error = Box<dyn std::error::Error>;

/// rows, cols: SmolLM2-135M's layers and a 7B model's. Software adapters leave the last two out.
const SHAPES: &[(u32, u32)] = &[(960, 576), (3072, 576), (576, 1536), (4096, 4096), (4096, 11008), (22016, 4096)];

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let every = args.iter().any(|a| a == "--all");
    let mut recipes: Vec<&str> = args.iter().map(String::as_str).filter(|a| *a != "--all").collect();
    if recipes.is_empty() {
        recipes = vec!["bf16", "q8_0", "uniform:bits=4"];
    }
    let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env()?))?;
    println!("{} {:?}, subgroups {:?}", gpu.name(), gpu.tier(), gpu.subgroup_size());
    println!("{:<22} {:>11} {:>7} {:>9} {:>8} {:>10}  what", "codec", "rows×cols", "bits/w", "ms", "GB/s", "bf16 GB/s");
    let shapes = if gpu.is_cpu() { &SHAPES[..SHAPES.len() - 2] } else { SHAPES };
    for recipe in recipes {
        for &(rows, cols) in shapes {
            if (cols as usize).is_multiple_of(codec::parse(recipe)?.block_len()) {
                measure(&gpu, recipe, rows, cols, every)?;
            }
        }
    }
    Ok(())
}

fn measure(gpu: &Gpu, recipe: &str, rows: u32, cols: u32, every: bool) -> Result<(), Error> {
    let weights = normal(rows as usize * cols as usize);
    let plain = codec::parse(recipe)?.encode(&weights, rows as usize, cols as usize)?;
    let coded = codec::parse(&format!("entropy:{recipe}"))?.encode(&weights, rows as usize, cols as usize)?;
    let shape = Shape { tokens: 1, rows, cols, norm: false };
    let device = Device::of(gpu);
    let line = |packed: &Packed, ms: f64, bytes: u64, what: &str| {
        let weights = f64::from(rows) * f64::from(cols);
        println!(
            "{:<22} {:>11} {:>7.3} {ms:>9.3} {:>8.2} {:>10.2}  {what}",
            packed.codec.name(),
            format!("{rows}×{cols}"),
            packed.bits_per_weight(),
            bytes as f64 / ms / 1e6,
            2.0 * weights / ms / 1e6
        );
    };
    let x = gpu.upload("x", &normal(cols as usize), Purpose::Activations)?;
    let y = gpu.storage("y", 4 * u64::from(rows), Purpose::Activations)?;
    let product = |packed: &Packed, decision: Option<Decision>| -> Result<f64, Error> {
        let linear = Linear::upload(gpu, packed, "w")?;
        time(gpu, &|rec| {
            let (x, y) = (Rows::new(&x, cols), Rows::new(&y, rows));
            match decision {
                Some(decision) => forward_with(rec, decision, &linear, 1, x, y, &Epilogue::default())?,
                None => forward(rec, &linear, 1, x, y, &Epilogue::default())?,
            }
            Ok(())
        })
    };
    line(&plain, product(&plain, None)?, plain.bytes(), "product");
    line(&coded, product(&coded, None)?, coded.bytes(), "product, fused with decoding");
    if every {
        for decision in Decision::all_coded(device, shape) {
            if matches!(decision, Decision::Coded { .. }) {
                line(&coded, product(&coded, Some(decision))?, coded.bytes(), &format!("{decision:?}"));
            }
        }
    }
    let linear = Linear::upload(gpu, &coded, "w")?;
    let expand = time(gpu, &|rec| {
        expanded(rec, &linear)?;
        Ok(())
    })?;
    let bytes = 4 * plain.planes[0].data.len() as u64;
    line(&coded, expand, bytes, "expanded");
    let kernel = gpu.kernel("selftest/copy", &[("VEC", 4.into())])?;
    let n = (bytes / 16) as u32;
    let from = gpu.storage("from", bytes, Purpose::Activations)?;
    let to = gpu.storage("to", bytes, Purpose::Activations)?;
    let copy = time(gpu, &|rec| {
        // As many workgroups as one dimension may have, in turns.
        for start in (0..n).step_by(64 * 65535) {
            let n = (n - start).min(64 * 65535);
            let params = [n, 1f32.to_bits(), 0, 0]; // n, scale
            let (from, to) = (
                from.slice(16 * u64::from(start), 16 * u64::from(n)),
                to.slice(16 * u64::from(start), 16 * u64::from(n)),
            );
            rec.dispatch(&kernel, &[("x", from), ("y", to)], &params, [n.div_ceil(64), 1, 1])?;
        }
        Ok(())
    })?;
    line(&plain, copy, bytes, "copy of the expanded plane");
    Ok(())
}

/// Milliseconds of what `work` records.
fn time(gpu: &Gpu, work: &dyn Fn(&mut Recorder) -> Result<(), Error>) -> Result<f64, Error> {
    let probe = gpu.upload("probe", &[0f32; 4], Purpose::Activations)?;
    let round = |count: u32| -> Result<f64, Error> {
        let start = Instant::now();
        let mut rec = gpu.record();
        for _ in 0..count {
            work(&mut rec)?;
        }
        rec.submit()?;
        pollster::block_on(gpu.read::<f32>(&probe, 0, 1))?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    round(1)?;
    let count = (100.0 / round(1)?).ceil().clamp(1.0, 1000.0) as u32;
    let mut rounds = (0..5).map(|_| Ok(round(count)? / f64::from(count))).collect::<Result<Vec<f64>, Error>>()?;
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[2])
}

/// Nearly normal numbers of deviation 0.02: sums of four uniform ones.
fn normal(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| 0.02 * 0.866 * (uniform() + uniform() + uniform() + uniform())).collect()
}
