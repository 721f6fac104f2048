//! What runs: a case's buffers, with enough copies of what it reads to be larger than caches.

use super::{BenchError, Work};
use crate::codec::{self, CodecRef, Packed, Plane};
use crate::gpu::{Buffer, Gpu, Purpose, Recorder};
use crate::ops::OpsError;
use crate::ops::attention::{self, Attention};
use crate::ops::linear::{self, Decision, Epilogue, Linear, Rows, forward};
use crate::ops::rope::{KvCache, KvFormat};

/// Bytes that all copies together should have at least: several times the last cache of a GPU, or of a processor.
const ROTATED_GPU: u64 = 256 << 20;
const ROTATED_CPU: u64 = 96 << 20;
/// Copies at most: of small matrices this is less than caches hold, which [`super::Measurement::copies`] tells.
const COPIES: u64 = 256;
/// Rows that are encoded; a larger matrix repeats them.
const BLOCK: [u32; 4] = [256, 192, 128, 64];

/// A case, ready to run.
pub(super) enum Subject {
    Linear { copies: Vec<Linear>, tokens: u32, x: Buffer, y: Buffer, packed_bytes: u64 },
    Attention { copies: Vec<KvCache>, what: Attention, queries: u32, keys: u32, q: Buffer, o: Buffer },
}

impl Subject {
    pub(super) async fn new(gpu: &Gpu, work: &Work) -> Result<Self, BenchError> {
        match work {
            Work::Linear { codec, rows, cols, tokens } => {
                let packed = random_weights(codec, *rows, *cols)?;
                let x = activations(gpu, tokens * cols)?;
                let y = gpu.storage("bench y", 4 * u64::from(*tokens) * u64::from(*rows), Purpose::Activations)?;
                let mut copies = Vec::new();
                for _ in 0..copies_of(gpu, packed.bytes()) {
                    copies.push(Linear::upload(gpu, &packed, codec)?);
                    gpu.flush_writes().await?;
                }
                let layers: Vec<&Linear> = copies.iter().collect();
                if let Some(kind) = layers.first().and_then(|layer| layer.kind()).filter(|_| gpu.tunes()) {
                    linear::tune_for(gpu, &kind, &layers, *tokens).await?;
                }
                Ok(Self::Linear { copies, tokens: *tokens, x, y, packed_bytes: packed.bytes() })
            }
            Work::Prefill { heads, kv_heads, head_dim, tokens } => {
                Self::attention(gpu, Attention::causal(*heads, *kv_heads, *head_dim), *tokens, *tokens).await
            }
            Work::Decode { heads, kv_heads, head_dim, keys } => {
                Self::attention(gpu, Attention::causal(*heads, *kv_heads, *head_dim), 1, *keys).await
            }
        }
    }

    async fn attention(gpu: &Gpu, what: Attention, queries: u32, keys: u32) -> Result<Self, BenchError> {
        let numbers = queries * what.heads * what.head_dim;
        let q = activations(gpu, numbers)?;
        let o = gpu.storage("bench o", 4 * u64::from(numbers), Purpose::Activations)?;
        let bytes = KvFormat::F16.cache_bytes(what.kv_heads, keys, what.head_dim);
        // Two f16 of ±1 to 2 a word.
        let words: Vec<u32> =
            Noise(1).take((bytes / 4) as usize).map(|word| word & 0x83ff_83ff | 0x3c00_3c00).collect();
        let mut copies = Vec::new();
        for _ in 0..copies_of(gpu, 2 * bytes) {
            let cache = KvCache::new(gpu, what.kv_heads, keys, what.head_dim, KvFormat::F16)?;
            gpu.write(&cache.k, 0, &words);
            gpu.write(&cache.v, 0, &words);
            gpu.flush_writes().await?;
            copies.push(cache);
        }
        let mut what = what;
        if queries == 1 && gpu.tunes() {
            let layers: Vec<_> = copies.iter().map(|cache| (what, cache)).collect();
            what.fill = attention::tune(gpu, &attention::kind(&what, layers[0].1), &layers).await?;
        }
        Ok(Self::Attention { copies, what, queries, keys, q, o })
    }

    /// Records run number `run`.
    pub(super) fn record(&self, rec: &mut Recorder, run: usize) -> Result<(), OpsError> {
        match self {
            Self::Linear { copies, tokens, x, y, .. } => {
                let linear = &copies[run % copies.len()];
                let (x, y) = (Rows::new(x, linear.cols()), Rows::new(y, linear.outputs()));
                forward(rec, linear, *tokens, x, y, &Epilogue::default())
            }
            Self::Attention { copies, what, queries: 1, keys, q, o } => {
                attention::decode(rec, what, keys - 1, q, &copies[run % copies.len()], o)
            }
            Self::Attention { copies, what, queries, keys, q, o } => {
                attention::prefill(rec, what, *queries, keys - queries, *keys, q, &copies[run % copies.len()], o)
            }
        }
    }

    /// Bytes that must move: packed weights, x and y; q, keys, values and the output.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Linear { packed_bytes, x, y, .. } => packed_bytes + x.size() + y.size(),
            Self::Attention { copies, q, o, .. } => {
                copies.first().map_or(0, |cache| cache.k.size() + cache.v.size()) + q.size() + o.size()
            }
        }
    }

    /// Operations that must be done, a product and a sum being two: with every stored weight, with every key and value that a query sees.
    pub(super) fn operations(&self) -> u64 {
        match self {
            Self::Linear { copies, tokens, .. } => copies.first().map_or(0, |linear| {
                let kept =
                    linear.codec().sparsity(linear.cols() as usize).map(|s| u64::from(linear.rows()) * s.kept as u64);
                2 * u64::from(*tokens) * kept.unwrap_or_else(|| linear.multiplications())
            }),
            Self::Attention { what, queries, keys, .. } => {
                // Each query sees one key more than the last; the last sees all.
                let (queries, keys) = (u64::from(*queries), u64::from(*keys));
                let pairs = queries * keys - queries * (queries - 1) / 2;
                4 * u64::from(what.heads * what.head_dim) * pairs
            }
        }
    }

    /// Bits for each weight of the dense matrix, or each number in the cache.
    pub(super) fn bits(&self) -> f64 {
        match self {
            Self::Linear { copies, packed_bytes, .. } => copies.first().map_or(0.0, |linear| {
                8.0 * *packed_bytes as f64 / (f64::from(linear.rows()) * f64::from(linear.cols()))
            }),
            Self::Attention { .. } => 8.0 * KvFormat::F16.bytes() as f64,
        }
    }

    pub(super) fn copies(&self) -> u32 {
        let count = match self {
            Self::Linear { copies, .. } => copies.len(),
            Self::Attention { copies, .. } => copies.len(),
        };
        count as u32 // at most COPIES
    }

    /// The kernels that run, with their variants.
    pub(super) fn kernel(&self, gpu: &Gpu) -> String {
        match self {
            Self::Linear { copies, tokens, .. } => copies.first().map_or_else(String::new, |linear| {
                let decision = linear.decision(gpu, *tokens, false);
                match linear.codec().coded() {
                    Some(_) if !matches!(decision, Decision::Coded { .. }) => format!("entropy/expand, {decision}"),
                    None if linear.codec().name() == "dfloat11" => format!("entropy/dfloat11, {decision}"),
                    _ => decision.to_string(),
                }
            }),
            Self::Attention { queries, .. } => {
                let kind = if *queries == 1 { "decode" } else { "prefill" };
                format!("attention/{kind}{}", if gpu.is_cpu() { "_cpu" } else { "" })
            }
        }
    }
}

/// Copies of what has `bytes`: enough to be larger than caches, if there is room.
fn copies_of(gpu: &Gpu, bytes: u64) -> u64 {
    let wanted = if gpu.is_cpu() { ROTATED_CPU } else { ROTATED_GPU };
    let memory = gpu.memory();
    let room = memory.limit.map_or(u64::MAX, |limit| limit.saturating_sub(memory.total()) / 2);
    wanted.div_ceil(bytes.max(1)).min(COPIES).min(room / bytes.max(1)).max(1)
}

fn activations(gpu: &Gpu, numbers: u32) -> Result<Buffer, BenchError> {
    let values: Vec<f32> = normals(3).take(numbers as usize).collect();
    Ok(gpu.upload("bench x", &values, Purpose::Activations)?)
}

/// Numbers that look random, the same every time (xorshift, Marsaglia 2003).
struct Noise(u32);

impl Iterator for Noise {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        Some(self.0)
    }
}

/// About normal numbers of standard deviation 1/32: what trained weights are like, which sparse and entropy codecs look at.
fn normals(seed: u32) -> impl Iterator<Item = f32> {
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9) | 1);
    std::iter::from_fn(move || {
        let mut unit = || noise.next().map(|word| (word >> 8) as f32 / 16_777_216.0);
        let (a, b) = (unit()?, unit()?);
        Some((-2.0 * (1.0 - a).ln()).sqrt() * (std::f32::consts::TAU * b).cos() / 32.0)
    })
}

/// A packed matrix of random weights. Blocks of its rows repeat, so that encoding does not take longer than measuring.
fn random_weights(recipe: &str, rows: u32, cols: u32) -> Result<Packed, BenchError> {
    let codec = codec::parse(recipe)?;
    if let Some((base, _)) = recipe.split_once("+svd:") {
        return factored(random_weights(base, rows, cols)?, recipe);
    }
    if !codec.encodes() {
        return noise(codec, rows, cols);
    }
    let block = BLOCK.into_iter().find(|block| rows.is_multiple_of(*block)).unwrap_or(rows);
    let encode = |rows: u32| {
        let weights: Vec<f32> = normals(2).take(rows as usize * cols as usize).collect();
        codec.encode(&weights, rows as usize, cols as usize)
    };
    let part = encode(block)?;
    match Packed::concat(&vec![&part; (rows / block) as usize]) {
        Some(whole) => Ok(whole),
        None => Ok(encode(rows)?), // a codec whose rows are one stream
    }
}

/// A matrix of a format that is only read: random codes, and scales that are finite.
fn noise(codec: CodecRef, rows: u32, cols: u32) -> Result<Packed, BenchError> {
    let (rows, cols) = (rows as usize, cols as usize);
    let planes = codec.layout(cols).into_iter().enumerate().map(|(i, layout)| {
        // Two f16 below 2, or four exponents, a word.
        let mask = if i == 0 { u32::MAX } else { 0x3fff_3fff };
        let words = layout.words(rows).unwrap_or(0); // no such format has factors
        let data = Noise(7 + i as u32).map(|word| word & mask).take(words).collect();
        Plane { data, row_words: layout.row_words, rows_per_group: layout.rows_per_group }
    });
    let planes = planes.collect();
    Ok(Packed::new(codec, rows, cols, planes)?)
}

/// The matrix with low-rank factors of random numbers, for nobody should wait for a decomposition here.
fn factored(base: Packed, recipe: &str) -> Result<Packed, BenchError> {
    let (rows, cols) = (base.rows, base.cols);
    let codec = codec::parse(recipe)?;
    let mut planes = base.planes;
    for layout in codec.layout(cols).into_iter().skip(planes.len()) {
        // Two f16 of ±1 to 2 a word. B is a plane of rows, which begin with two words that say how it is scaled and shifted.
        let mut noise = Noise(5).map(|word| word & 0x83ff_83ff | 0x3c00_3c00);
        let data = match layout.words(rows) {
            Some(words) => {
                let mut data: Vec<u32> = noise.by_ref().take(words).collect();
                data.chunks_exact_mut(layout.row_words as usize).for_each(|row| row[..2].fill(0));
                data
            }
            None => noise.by_ref().take(first_factor_words(recipe, cols)).collect(),
        };
        planes.push(Plane { data, row_words: layout.row_words, rows_per_group: layout.rows_per_group });
    }
    Ok(Packed::new(codec, rows, cols, planes)?)
}

/// Words of A, `[rank, cols]` of two bytes, its rows in whole runs.
fn first_factor_words(recipe: &str, cols: usize) -> usize {
    let rank = recipe.rsplit_once("rank=").and_then(|(_, rank)| rank.parse::<usize>().ok()).unwrap_or(0);
    rank * cols.div_ceil(codec::RUN) * codec::RUN / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_weights() {
        for case in super::super::cases() {
            let Work::Linear { codec, .. } = &case.work else { continue };
            let packed = random_weights(codec, 128, 512).unwrap_or_else(|error| panic!("{case}: {error}"));
            let values = packed.decode();
            assert_eq!(values.len(), 128 * 512, "{case}");
            assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|v| *v != 0.0), "{case}");
        }
    }

    #[test]
    fn weights_look_normal() {
        let all: Vec<f32> = normals(9).take(100_000).collect();
        let moment = |power: i32| all.iter().map(|v| f64::from(v * 32.0).powi(power)).sum::<f64>() / 1e5;
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.02 && (moment(4) - 3.0).abs() < 0.15);
    }
}
