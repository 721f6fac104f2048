//! Low-rank layers: time of `y = B (A x)` and of `y = W x + B (A x)` against the numbers they multiply.
//!
//! `cargo run --release -p tersor-benches --bin low_rank -- [ROWS COLS]`
//!
//! A line is the median of seven rounds of at least 0.1 s after a warm-up, one column of x. The fit is by least squares over the ranks:
//! time = launch + r (rows + cols) / rate. Compare within one run only.

use std::time::Instant;
use tersor_engine::codec::{self, Packed, Plane};
use tersor_engine::gpu::{Gpu, GpuOptions, Purpose};
use tersor_engine::ops::linear::{Epilogue, Linear, Rows, forward};

type Error = Box<dyn std::error::Error>;

const RANKS: [usize; 6] = [32, 64, 128, 256, 512, 1024];

fn main() -> Result<(), Error> {
    let sizes: Vec<usize> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let (rows, cols) = match sizes[..] {
        [rows, cols] => (rows, cols),
        _ => (4096, 4096),
    };
    let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env()?))?;
    println!("{} {:?}: {rows} × {cols}, one column", gpu.name(), gpu.tier());
    println!("{:<24} {:>12} {:>10} {:>10} {:>12}", "layer", "multiplied", "MB", "ms", "G mult/s");
    let line = |recipe: &str| -> Result<(f64, f64), Error> {
        let packed = noise(recipe, rows, cols)?;
        let linear = Linear::upload(&gpu, &packed, "w")?;
        let (count, ms) = (linear.multiplications(), time(&gpu, &linear)?);
        let rate = count as f64 / ms / 1e6;
        println!("{recipe:<24} {count:>12} {:>10.2} {ms:>10.3} {rate:>12.2}", linear.bytes() as f64 / 1e6);
        Ok((count as f64, ms))
    };
    line("bf16")?;
    let alone = RANKS.iter().map(|rank| line(&format!("svd:rank={rank}"))).collect::<Result<Vec<_>, _>>()?;
    line("q4_0")?;
    for rank in [32, 64, 128] {
        line(&format!("q4_0+svd:rank={rank}"))?;
    }
    let (launch, slope, explained) = fit(&alone);
    println!(
        "factors alone: {launch:.3} ms + r (rows + cols) / {:.2} G mult/s, R² = {explained:.4}",
        1.0 / slope / 1e6
    );
    Ok(())
}

/// A packed matrix of small numbers, without the work of factoring one.
fn noise(recipe: &str, rows: usize, cols: usize) -> Result<Packed, Error> {
    let (base, rank) = match recipe.split_once("svd:rank=") {
        Some((base, rank)) => (base.trim_end_matches('+'), rank.parse::<usize>()?),
        None => (recipe, 0),
    };
    let weights: Vec<f32> = (0..rows * cols).map(|i| (i as u32).wrapping_mul(2654435761) as f32 / 4e9 - 0.5).collect();
    let mut planes =
        if base.is_empty() { Vec::new() } else { codec::parse(base)?.encode(&weights, rows, cols)?.planes };
    let codec = codec::parse(recipe)?;
    let factor = |n: usize| (0..n).map(|i| 0x3c00_3c00 | (i as u32).wrapping_mul(0x9e37_79b9) & 0x80ff_80ff);
    for layout in codec.layout(cols).into_iter().skip(planes.len()) {
        let data = match layout.words(rows) {
            // B: no offset, no bias, numbers around 1/128; A the same.
            Some(words) => {
                let mut data: Vec<u32> = factor(words).collect();
                data.chunks_exact_mut(layout.row_words as usize).for_each(|row| row[..2].fill(0));
                data
            }
            None => factor(rank * cols.div_ceil(32) * 16).collect(),
        };
        planes.push(Plane { data, row_words: layout.row_words, rows_per_group: layout.rows_per_group });
    }
    Ok(Packed::new(codec, rows, cols, planes)?)
}

/// Milliseconds of one layer.
fn time(gpu: &Gpu, linear: &Linear) -> Result<f64, Error> {
    let (rows, cols) = (linear.rows(), linear.cols());
    let x: Vec<f32> = (0..cols).map(|i| (i % 31) as f32 / 31.0 - 0.5).collect();
    let x = gpu.upload("x", &x, Purpose::Activations)?;
    let y = gpu.storage("y", 4 * u64::from(rows), Purpose::Activations)?;
    let round = |count: u32| -> Result<f64, Error> {
        let start = Instant::now();
        let mut rec = gpu.record();
        for _ in 0..count {
            forward(&mut rec, linear, 1, Rows::new(&x, cols), Rows::new(&y, rows), &Epilogue::default())?;
        }
        rec.submit()?;
        pollster::block_on(gpu.read::<f32>(&y, 0, 1))?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    round(1)?;
    let count = (100.0 / round(1)?).ceil().clamp(1.0, 1000.0) as u32;
    let mut rounds = (0..7).map(|_| Ok(round(count)? / f64::from(count))).collect::<Result<Vec<_>, Error>>()?;
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[3])
}

/// Intercept, slope and R² of a line through points.
fn fit(points: &[(f64, f64)]) -> (f64, f64, f64) {
    let n = points.len() as f64;
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    let (xx, xy, yy) = (mean(&|p| (p.0 - x).powi(2)), mean(&|p| (p.0 - x) * (p.1 - y)), mean(&|p| (p.1 - y).powi(2)));
    (y - xy / xx * x, xy / xx, xy * xy / (xx * yy))
}
