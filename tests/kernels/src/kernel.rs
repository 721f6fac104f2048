//! What kernel tests share: devices of every tier, random data, and buffers that notice writes past their end.

use crate::turns::block_on;
use tersor_engine::gpu::{Buffer, BufferSlice, Gpu, GpuOptions, Purpose, Tier};
use tersor_engine::ops::rope::KvFormat;

/// One device a tier that the adapter has (`TERSOR_ADAPTER` chooses the adapter): portable, and all it can do; where `TERSOR_TIER`
/// is set, only that one.
pub fn gpus() -> Vec<Gpu> {
    let open = |tier| {
        let mut options = GpuOptions::from_env().expect("TERSOR_* variables make sense");
        options.tier = tier;
        block_on(Gpu::new(options)).expect("an adapter: cargo xtask test installs one")
    };
    let asked = GpuOptions::from_env().expect("TERSOR_* variables make sense").tier;
    if asked.is_some() {
        return vec![open(asked)];
    }
    let mut all = vec![open(Some(Tier::PORTABLE))];
    let full = open(None);
    if full.tier() != Tier::PORTABLE {
        all.push(full);
    }
    all
}

/// A small deterministic generator (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn word(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// In 0..n.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.word()) * u64::from(n)) >> 32) as u32
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.word() >> 8) as f32 / 16_777_216.0
    }

    /// Standard normal (Box–Muller).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.unit()).cos()
    }

    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

const GUARD: u32 = 0xDEAD_BEEF;
const GUARDS: usize = 64;

/// An output buffer between guard words, themselves inside the binding so that a stray write reaches them.
pub struct Guarded {
    buffer: Buffer,
    words: usize,
}

impl Guarded {
    pub fn new(gpu: &Gpu, words: usize) -> Self {
        let all = vec![GUARD; words + 2 * GUARDS];
        Self { buffer: gpu.upload("guarded", &all, Purpose::Activations).expect("fits"), words }
    }

    /// What to bind: the words, then guards.
    pub fn slice(&self) -> BufferSlice {
        self.buffer.slice(GUARDS as u64 * 4, (self.words + GUARDS) as u64 * 4)
    }

    /// Reads the words back.
    ///
    /// # Panics
    /// If a guard has changed, or a word was never written.
    pub fn words(&self, gpu: &Gpu) -> Vec<u32> {
        let total = (self.words + 2 * GUARDS) as u64;
        let all: Vec<u32> = block_on(gpu.read(&self.buffer, 0, total)).expect("readable");
        let (before, rest) = all.split_at(GUARDS);
        let (words, after) = rest.split_at(self.words);
        assert!(before.iter().chain(after).all(|w| *w == GUARD), "a write outside the output");
        assert!(!words.contains(&GUARD), "a word of the output was never written");
        words.to_vec()
    }

    /// Reads the words back as floats.
    ///
    /// # Panics
    /// As [`Guarded::words`].
    pub fn floats(&self, gpu: &Gpu) -> Vec<f32> {
        self.words(gpu).into_iter().map(f32::from_bits).collect()
    }
}

/// Uploads floats.
///
/// # Panics
/// If they do not fit.
pub fn upload(gpu: &Gpu, data: &[f32]) -> BufferSlice {
    gpu.upload("test data", data, Purpose::Activations).expect("fits").all()
}

/// Reads `n` numbers of a KV cache's buffer.
///
/// # Panics
/// If it cannot be read.
pub fn read_cache(gpu: &Gpu, buffer: &Buffer, format: KvFormat, n: u64) -> Vec<f32> {
    match format {
        KvFormat::F32 => block_on(gpu.read(buffer, 0, n)).expect("readable"),
        KvFormat::F16 => {
            let bits: Vec<u16> = block_on(gpu.read(buffer, 0, n)).expect("readable");
            bits.into_iter().map(|b| half::f16::from_bits(b).to_f32()).collect()
        }
    }
}
