//! Block-sparse attention beside dense attention: time by density, and what choosing the blocks costs.
//!
//! `cargo run --release -p tersor-benches --bin attention -- [--tokens N] [--heads N] [--dim N] [--block N] [--causal]`
//!
//! Queries, keys and values are random. "given" masks keep that share of the key blocks every query block sees, chosen at random; "asa"
//! is the adaptive mask, whose time includes sampling, scoring and choosing. All in turns within one process, the median of the rounds; the
//! first dispatch of each kernel, which compiles, is not counted. The fit is least squares of milliseconds over computed block pairs.

use std::time::Instant;

use tersor_engine::gpu::{Buffer, Gpu, GpuOptions, Purpose};
use tersor_engine::ops::attention::blocks::{self, Blocks, Mask, Out};
use tersor_engine::ops::attention::masks::{self, Adaptive};
use tersor_engine::ops::attention::{self, Attention};
use tersor_engine::ops::rope::{KvCache, KvFormat};

type Error = Box<dyn std::error::Error>;

/// Shares of the visible blocks, in percent.
const DENSITIES: [u32; 6] = [5, 10, 25, 50, 75, 100];

struct Shape {
    tokens: u32,
    heads: u32,
    dim: u32,
    block: u32,
    rounds: usize,
    causal: bool,
}

impl Shape {
    fn read() -> Result<Self, Error> {
        let mut shape = Self { tokens: 16_384, heads: 1, dim: 64, block: 128, rounds: 3, causal: false };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            if name == "--causal" {
                shape.causal = true;
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{name} needs a number"))?.parse()?;
            match name.as_str() {
                "--tokens" => shape.tokens = value,
                "--heads" => shape.heads = value,
                "--dim" => shape.dim = value,
                "--block" => shape.block = value,
                "--rounds" => shape.rounds = value as usize,
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        Ok(shape)
    }
}

struct Bench {
    gpu: Gpu,
    a: Attention,
    b: Blocks,
    q: Buffer,
    cache: KvCache,
    out: Out,
    executed: Buffer,
}

/// What is timed.
enum Case {
    Dense,
    Given(u32, Mask),
    Adaptive(Adaptive, Buffer),
}

impl Case {
    fn name(&self) -> String {
        match self {
            Self::Dense => "dense".into(),
            Self::Given(percent, _) => format!("given {percent} %"),
            Self::Adaptive(a, _) => format!("asa max {} %, {} samples", 100.0 * a.max_ratio, a.samples),
        }
    }
}

/// Numbers that look random, the same every time.
fn noise(seed: u32, n: u32) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let mut x = i.wrapping_mul(0x9E37_79B9) ^ seed.wrapping_mul(0x85EB_CA6B);
            for _ in 0..3 {
                x = (x ^ (x >> 15)).wrapping_mul(0x2C1B_3C6D);
            }
            (x >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

impl Bench {
    fn new(s: &Shape) -> Result<Self, Error> {
        let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env()?))?;
        let a = Attention { causal: s.causal, ..Attention::causal(s.heads, s.heads, s.dim) };
        let b = Blocks::square(s.tokens, 0, s.tokens, s.block);
        let n = s.tokens * s.heads * s.dim;
        let put = |seed| gpu.upload("random", &noise(seed, n), Purpose::Activations);
        let cache = KvCache { k: put(1)?, v: put(2)?, format: KvFormat::F32, ctx: s.tokens };
        let q = put(3)?;
        let room = |words: u32| gpu.storage("out", 4 * u64::from(words), Purpose::Activations);
        let executed = room(2)?;
        let out = Out { o: room(n)?.all(), lse: room(s.tokens * s.heads)?.all(), executed: executed.all() };
        Ok(Self { gpu, a, b, q, cache, out, executed })
    }

    /// A mask that keeps `percent` of the visible blocks of every row, chosen at random.
    fn given(&self, percent: u32) -> Result<Mask, Error> {
        let order = |h: u32, i: u32, j: u32| noise(h.wrapping_mul(7919) ^ i.wrapping_mul(104_729) ^ j, 1)[0];
        let mut keep = vec![false; (self.a.heads * self.b.q_blocks() * self.b.k_blocks()) as usize];
        let at = |h: u32, i: u32, j: u32| ((h * self.b.q_blocks() + i) * self.b.k_blocks() + j) as usize;
        for h in 0..self.a.heads {
            for i in 0..self.b.q_blocks() {
                let mut row: Vec<u32> = self.b.visible(&self.a, i).collect();
                row.sort_by(|x, y| order(h, i, *x).total_cmp(&order(h, i, *y)));
                let count = (row.len() as u32 * percent).div_ceil(100);
                row.into_iter().take(count as usize).for_each(|j| keep[at(h, i, j)] = true);
            }
        }
        Ok(Mask::given(&self.gpu, &self.b, self.a.heads, |h, i, j| keep[at(h, i, j)])?)
    }

    /// Milliseconds of one call, and the block pairs that it computed.
    fn run(&self, case: &Case) -> Result<(f64, u64), Error> {
        let b = &self.b;
        self.gpu.write(&self.executed, 0, &[0u32; 2]);
        let start = Instant::now();
        let mut rec = self.gpu.record();
        match case {
            Case::Dense => {
                let o = self.out.o.clone();
                attention::prefill(&mut rec, &self.a, b.tokens, 0, b.kv_len, &self.q, &self.cache, o)?;
            }
            Case::Given(_, mask) => blocks::prefill(&mut rec, &self.a, b, mask, &self.q, &self.cache, &self.out)?,
            Case::Adaptive(adaptive, offsets) => {
                let mask = masks::adaptive(&mut rec, &self.a, b, adaptive, &self.q, &self.cache, offsets)?;
                blocks::prefill(&mut rec, &self.a, b, &mask, &self.q, &self.cache, &self.out)?;
            }
        }
        rec.submit()?;
        let words: Vec<u32> = pollster::block_on(self.gpu.read(&self.executed, 0, 2))?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        let pairs = u64::from(words[0]) | u64::from(words[1]) << 32;
        Ok((ms, if matches!(case, Case::Dense) { b.visible_pairs(&self.a) } else { pairs }))
    }
}

/// Slope, intercept and R² of a line through points.
fn line(points: &[(f64, f64)]) -> [f64; 3] {
    let n = points.len() as f64;
    let (mx, my) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let sxy: f64 = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    let sxx: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
    let syy: f64 = points.iter().map(|p| (p.1 - my).powi(2)).sum();
    let slope = sxy / sxx;
    [slope, my - slope * mx, sxy * sxy / (sxx * syy)]
}

fn main() -> Result<(), Error> {
    let shape = Shape::read()?;
    let bench = Bench::new(&shape)?;
    let Shape { tokens, heads, dim, block, rounds, causal } = shape;
    println!("{} {:?}, subgroups {:?}", bench.gpu.name(), bench.gpu.tier(), bench.gpu.subgroup_size());
    println!(
        "{tokens} tokens, {heads} heads of {dim}, blocks of {block}, causal: {causal}; medians of {rounds} rounds"
    );
    let mut cases = vec![Case::Dense];
    for percent in DENSITIES {
        cases.push(Case::Given(percent, bench.given(percent)?));
    }
    for (max_ratio, samples) in [(0.17, 32), (0.25, 16)] {
        let samples = if block >= samples { samples } else { 16 };
        let adaptive = Adaptive { max_ratio, samples, mass: 1.0, ..Adaptive::VIDEO };
        let offsets = adaptive.upload(&bench.gpu, heads, block, block)?;
        cases.push(Case::Adaptive(adaptive, offsets));
    }
    // Compiles, on the least work there is.
    for case in cases.iter().filter(|case| matches!(case, Case::Given(5, _) | Case::Adaptive(..))) {
        bench.run(case)?;
    }
    let small = Blocks::square(block.min(tokens), 0, block.min(tokens), block);
    let mut rec = bench.gpu.record();
    let o = bench.out.o.clone();
    attention::prefill(&mut rec, &bench.a, small.tokens, 0, small.kv_len, &bench.q, &bench.cache, o)?;
    rec.submit()?;

    let mut found = vec![(Vec::new(), 0); cases.len()];
    for _ in 0..rounds {
        for (case, (times, pairs)) in cases.iter().zip(&mut found) {
            let (ms, count) = bench.run(case)?;
            times.push(ms);
            *pairs = count;
        }
    }
    let median = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let visible = bench.b.visible_pairs(&bench.a);
    let dense = median(&found[0].0);
    println!("{:<28} {:>12} {:>8} {:>12} {:>9}", "attention", "block pairs", "%", "ms", "× dense");
    let mut points = Vec::new();
    for (case, (times, pairs)) in cases.iter().zip(&found) {
        let ms = median(times);
        let percent = 100.0 * *pairs as f64 / visible as f64;
        println!("{:<28} {pairs:>12} {percent:>8.1} {ms:>12.1} {:>9.2}", case.name(), dense / ms);
        if matches!(case, Case::Given(..)) {
            points.push((*pairs as f64, ms));
        }
    }
    let [slope, start, r2] = line(&points);
    println!("given masks: {start:.1} ms + {:.3} µs a block pair, R² = {r2:.5}", 1e3 * slope);
    Ok(())
}
