//! Block-sparse attention on the GPU against its f64 twins: every tier, both variants, blocks of odd sizes, windows, caps, grouped heads,
//! and that what a mask leaves out is not computed.

use crate::golden::Tensors;
use crate::kernel::{Guarded, Random, gpus, upload};
use crate::turns::block_on;
use tersor_engine::gpu::{Buffer, Gpu, Purpose};
use tersor_engine::ops::Variant;
use tersor_engine::ops::attention::blocks::{self, Blocks, Mask, Out};
use tersor_engine::ops::attention::gilbert::{self, Reorder};
use tersor_engine::ops::attention::masks::{self, Adaptive};
use tersor_engine::ops::attention::pooled::{self, Part};
use tersor_engine::ops::attention::{self, Attention, HEAD_DIMS};
use tersor_engine::ops::rope::{KvCache, KvFormat};
use tersor_engine::reference::blocks::{self as twin, Attended, Cache, NOTHING};
use tersor_engine::reference::nmse;
use tersor_kernel_test_macro::kernel_test;

/// f32 throughout: relative error about 1e-6, squared.
const BOUND: f64 = 1e-11;
const VARIANTS: [Variant; 2] = [Variant::Gpu, Variant::Software];

/// Queries and a filled cache; what lies past `kv_len` would show.
struct Input {
    a: Attention,
    b: Blocks,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    cache: KvCache,
}

impl Input {
    fn new(gpu: &Gpu, a: Attention, b: Blocks, format: KvFormat, random: &mut Random) -> Self {
        let ctx = b.kv_len + 3;
        let mut fill = || {
            let mut x = random.normals((a.kv_heads * ctx * a.head_dim) as usize);
            for (i, v) in x.iter_mut().enumerate() {
                if i as u32 / a.head_dim % ctx >= b.kv_len {
                    *v = 30000.0;
                } else if format == KvFormat::F16 {
                    *v = half::f16::from_f32(*v).to_f32();
                }
            }
            x
        };
        let (k, v) = (fill(), fill());
        let q = random.normals((b.tokens * a.heads * a.head_dim) as usize);
        Self::of(gpu, a, b, format, [q, k, v])
    }

    fn of(gpu: &Gpu, a: Attention, b: Blocks, format: KvFormat, [q, k, v]: [Vec<f32>; 3]) -> Self {
        let put = |x: &[f32]| match format {
            KvFormat::F32 => gpu.upload("cache", x, Purpose::KvCache).unwrap(),
            KvFormat::F16 => {
                let bits: Vec<u16> = x.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect();
                gpu.upload("cache", &bits, Purpose::KvCache).unwrap()
            }
        };
        let ctx = k.len() as u32 / a.kv_heads / a.head_dim;
        let cache = KvCache { k: put(&k), v: put(&v), format, ctx };
        Self { a, b, q, k, v, cache }
    }

    fn host(&self) -> Cache<'_> {
        Cache { k: &self.k, v: &self.v, ctx: self.cache.ctx as usize }
    }

    /// What the GPU makes of a mask: output, log-sums, and pairs of blocks that were computed.
    fn run(&self, gpu: &Gpu, mask: &Mask) -> (Vec<f32>, Vec<f32>, u64) {
        let rows = (self.b.tokens * self.a.heads) as usize;
        let (o, lse) = (Guarded::new(gpu, self.q.len()), Guarded::new(gpu, rows));
        let executed = gpu.upload("executed", &[0u32; 2], Purpose::Activations).unwrap();
        let out = Out { o: o.slice(), lse: lse.slice(), executed: executed.all() };
        let mut rec = gpu.record();
        blocks::prefill(&mut rec, &self.a, &self.b, mask, upload(gpu, &self.q), &self.cache, &out).unwrap();
        rec.submit().unwrap();
        (o.floats(gpu), lse.floats(gpu), count(gpu, &executed))
    }

    fn dense(&self, gpu: &Gpu) -> Vec<f32> {
        let o = Guarded::new(gpu, self.q.len());
        let mut rec = gpu.record();
        let b = &self.b;
        attention::prefill(&mut rec, &self.a, b.tokens, b.pos0, b.kv_len, upload(gpu, &self.q), &self.cache, o.slice())
            .unwrap();
        rec.submit().unwrap();
        o.floats(gpu)
    }

    /// The GPU against the twin, and the count against the mask's population.
    fn check(&self, gpu: &Gpu, keeps: impl Fn(u32, u32, u32) -> bool) {
        let mask = Mask::given(gpu, &self.b, self.a.heads, &keeps).unwrap();
        let (o, lse, executed) = self.run(gpu, &mask);
        let expected = twin::attend(&self.a, &self.b, &keeps, &self.q, self.host());
        let what = format!("{:?} {:?} {:?}", self.a, self.b, self.cache.format);
        let error = nmse(&o, &expected.o);
        assert!(error < BOUND, "{what}: {error:e}");
        check_lse(&lse, &expected.lse, &what);
        assert_eq!(executed, population(&self.a, &self.b, &keeps), "{what}");
    }
}

fn check_lse(found: &[f32], expected: &[f64], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        let close = (f64::from(*found) - expected).abs() < 1e-4 * expected.abs().max(1.0);
        assert!(close, "{what}: log-sum {found}, not {expected}");
    }
}

fn count(gpu: &Gpu, executed: &Buffer) -> u64 {
    let words: Vec<u32> = block_on(gpu.read(executed, 0, 2)).unwrap();
    u64::from(words[0]) | u64::from(words[1]) << 32
}

/// Pairs of blocks that are both kept and visible.
fn population(a: &Attention, b: &Blocks, keeps: impl Fn(u32, u32, u32) -> bool) -> u64 {
    let mut sum = 0;
    for h in 0..a.heads {
        for i in 0..b.q_blocks() {
            sum += b.visible(a, i).filter(|j| keeps(h, i, *j)).count() as u64;
        }
    }
    sum
}

/// A random mask of about a density, the same every time it is asked.
fn scattered(seed: u32, percent: u32) -> impl Fn(u32, u32, u32) -> bool {
    move |h, i, j| {
        let mut x = seed ^ h.wrapping_mul(0x9E37_79B9) ^ i.wrapping_mul(0x85EB_CA6B) ^ j.wrapping_mul(0xC2B2_AE35);
        for _ in 0..3 {
            x = (x ^ (x >> 15)).wrapping_mul(0x2C1B_3C6D);
        }
        (x >> 8) % 100 < percent
    }
}

#[kernel_test]
fn masks_of_any_block_size() {
    let mut random = Random::new(1);
    for gpu in gpus() {
        for variant in VARIANTS {
            for block in [16, 20, 32, 50, 64, 100, 128] {
                let a = Attention { variant, ..Attention::causal(6, 2, 64) };
                let b = Blocks::square(147, 131, 278, block);
                Input::new(&gpu, a, b, KvFormat::F32, &mut random).check(&gpu, scattered(block, 40));
                let both_ways = Attention { causal: false, ..a };
                let b = Blocks::square(203, 0, 203, block);
                Input::new(&gpu, both_ways, b, KvFormat::F16, &mut random).check(&gpu, scattered(block + 1, 30));
            }
        }
    }
}

#[kernel_test]
fn windows_caps_and_blocks_of_two_sizes() {
    let mut random = Random::new(2);
    for gpu in gpus() {
        for variant in VARIANTS {
            let plain = Attention { variant, ..Attention::causal(4, 2, 32) };
            for window in [1, 40, 100] {
                let b = Blocks::square(70, 65, 135, 32);
                Input::new(&gpu, Attention { window, ..plain }, b, KvFormat::F32, &mut random)
                    .check(&gpu, scattered(window, 60));
            }
            let capped = Attention { soft_cap: 0.5, scale: 0.4, ..plain };
            let b = Blocks { q_block: 48, k_block: 16, ..Blocks::square(100, 7, 107, 16) };
            Input::new(&gpu, capped, b, KvFormat::F32, &mut random).check(&gpu, scattered(3, 50));
            let both_ways = Attention { causal: false, window: 30, ..plain };
            Input::new(&gpu, both_ways, Blocks::square(90, 0, 77, 16), KvFormat::F32, &mut random)
                .check(&gpu, scattered(4, 50));
            // Pooled keys: each stands for 8 positions, and is seen when all have passed.
            let b = Blocks { k_block: 4, gap: 8, ..Blocks::square(100, 20, 15, 32) };
            Input::new(&gpu, plain, b, KvFormat::F32, &mut random).check(&gpu, scattered(5, 70));
        }
    }
}

#[kernel_test]
fn blocks_of_every_head_size() {
    let mut random = Random::new(3);
    let gpu = &gpus()[0];
    for variant in VARIANTS {
        for dim in HEAD_DIMS {
            let a = Attention { variant, ..Attention::causal(2, 1, dim) };
            let b = Blocks::square(70, 10, 80, 32);
            Input::new(gpu, a, b, KvFormat::F32, &mut random).check(gpu, scattered(dim, 60));
        }
    }
}

#[kernel_test]
fn a_full_mask_is_dense_attention() {
    let mut random = Random::new(4);
    for gpu in gpus() {
        for variant in VARIANTS {
            for (causal, dim, block) in [(true, 64, 64), (false, 128, 128), (true, 128, 48), (false, 64, 16)] {
                let a = Attention { variant, causal, ..Attention::causal(4, 2, dim) };
                let b = Blocks::square(300, 0, 300, block);
                let input = Input::new(&gpu, a, b, KvFormat::F32, &mut random);
                let dense = input.dense(&gpu);
                let mut rec = gpu.record();
                let mask = masks::full(&mut rec, &b).unwrap();
                rec.submit().unwrap();
                let (o, _, executed) = input.run(&gpu, &mask);
                let worst = o.iter().zip(&dense).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{a:?} {b:?}: {worst:e}");
                assert_eq!(executed, b.visible_pairs(&a));
            }
        }
    }
}

#[kernel_test]
fn a_row_with_one_block_is_dense_attention_over_it() {
    let mut random = Random::new(5);
    for gpu in gpus() {
        for variant in VARIANTS {
            let a = Attention { variant, causal: false, ..Attention::causal(2, 1, 64) };
            let b = Blocks::square(64, 0, 200, 64);
            let input = Input::new(&gpu, a, b, KvFormat::F32, &mut random);
            for only in 0..b.k_blocks() {
                let mask = Mask::given(&gpu, &b, a.heads, |_, _, j| j == only).unwrap();
                let (o, _, executed) = input.run(&gpu, &mask);
                let keys = only * 64..(only * 64 + 64).min(200);
                let part = |x: &[f32]| x[keys.start as usize * 64..keys.end as usize * 64].to_vec();
                let b = Blocks::square(64, 0, keys.len() as u32, 64);
                let alone = Input::of(&gpu, a, b, KvFormat::F32, [input.q.clone(), part(&input.k), part(&input.v)]);
                let dense = alone.dense(&gpu);
                let worst = o.iter().zip(&dense).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{variant:?} block {only}: {worst:e}");
                assert_eq!(executed, 2);
            }
            // No block at all: zeros, and nothing computed.
            let mask = Mask::given(&gpu, &b, a.heads, |_, _, _| false).unwrap();
            let (o, lse, executed) = input.run(&gpu, &mask);
            assert!(o.iter().all(|x| *x == 0.0) && lse.iter().all(|l| f64::from(*l) < NOTHING / 2.0));
            assert_eq!(executed, 0);
        }
    }
}

#[kernel_test]
fn windows_with_sinks() {
    let mut random = Random::new(6);
    for gpu in gpus() {
        for (causal, sinks, window) in [(true, 4, 40), (true, 33, 1), (false, 0, 70), (false, 20, 0), (true, 0, 1000)] {
            let a = Attention { causal, ..Attention::causal(2, 2, 32) };
            let b = Blocks::square(150, if causal { 55 } else { 0 }, if causal { 205 } else { 150 }, 24);
            let input = Input::new(&gpu, a, b, KvFormat::F32, &mut random);
            let mut rec = gpu.record();
            let mask = masks::window(&mut rec, &b, sinks, window).unwrap();
            rec.submit().unwrap();
            let keeps = |_, i, j| twin::in_window(&b, sinks, window, i, j);
            let (o, lse, executed) = input.run(&gpu, &mask);
            let expected = twin::attend(&a, &b, keeps, &input.q, input.host());
            assert!(nmse(&o, &expected.o) < BOUND, "{sinks} {window}");
            check_lse(&lse, &expected.lse, "window");
            assert_eq!(executed, population(&a, &b, keeps), "{sinks} {window}");
        }
    }
}

/// Queries and keys of which those in the same hidden group belong together, so that some blocks matter and others do not: key block j
/// is of group j mod `groups`, query block i of group 5i + 3 mod `groups`.
fn grouped(random: &mut Random, a: &Attention, b: &Blocks, groups: u32, strength: f32) -> [Vec<f32>; 3] {
    let dim = a.head_dim as usize;
    let centres = random.normals(groups as usize * dim);
    let mut near = |rows: u32, heads: u32, by_token: bool, block: u32, [step, start]: [u32; 2]| {
        let mut x = Vec::new();
        for r in 0..rows * heads {
            let t = if by_token { r / heads } else { r % rows };
            let centre = &centres[((t / block * step + start) % groups) as usize * dim..][..dim];
            x.extend(centre.iter().map(|c| strength * c + random.normal()));
        }
        x
    };
    let q = near(b.tokens, a.heads, true, b.q_block, [5, 3]);
    let k = near(b.kv_len, a.kv_heads, false, b.k_block, [1, 0]);
    let v = random.normals(k.len());
    [q, k, v]
}

#[kernel_test]
fn adaptive_masks_are_their_twins() {
    let mut random = Random::new(7);
    let cases = [
        // heads, kv_heads, dim, tokens, pos0, block, samples, causal
        (4, 2, 64, 300, 0, 32, 8, false),
        (3, 1, 32, 130, 150, 32, 16, true),
        (2, 2, 128, 257, 0, 64, 32, true),
        (2, 1, 64, 190, 33, 24, 4, true),
        (1, 1, 256, 150, 0, 16, 16, false),
    ];
    for gpu in gpus() {
        for variant in VARIANTS {
            for (case, (heads, kv_heads, dim, tokens, pos0, block, samples, causal)) in cases.into_iter().enumerate() {
                for s in [
                    Adaptive { mass: 0.8, max_ratio: 1.0, sinks: 0, near: 0, ..Adaptive::CAUSAL },
                    Adaptive { mass: 0.95, max_ratio: 0.4, near: 1, ..Adaptive::CAUSAL },
                    Adaptive { mass: 0.01, min_ratio: 0.3, tail: 1, near: 2, ..Adaptive::CAUSAL },
                ] {
                    let s = Adaptive { samples, seed: case as u64, ..s };
                    let window = if case == 3 { 100 } else { 0 };
                    let a = Attention { variant, causal, window, ..Attention::causal(heads, kv_heads, dim) };
                    let b = Blocks::square(tokens, pos0, pos0 + tokens, block);
                    let input = Input::of(&gpu, a, b, KvFormat::F32, grouped(&mut random, &a, &b, 5, 0.3));
                    check_adaptive(&gpu, &input, &s);
                }
            }
        }
    }
}

fn check_adaptive(gpu: &Gpu, input: &Input, s: &Adaptive) {
    let (a, b) = (&input.a, &input.b);
    let offsets = s.upload(gpu, a.heads, b.q_block, b.k_block).unwrap();
    let mut rec = gpu.record();
    let mask = masks::adaptive(&mut rec, a, b, s, upload(gpu, &input.q), &input.cache, &offsets).unwrap();
    rec.submit().unwrap();
    let words = (a.heads * b.q_blocks() * b.words()).into();
    let bits: Vec<u32> = block_on(gpu.read(&mask.bits, 0, words)).unwrap();
    let rows = twin::adaptive(a, b, s, &s.draw(a.heads, b.q_block, b.k_block), &input.q, input.host());
    let mut close = 0;
    for (at, row) in rows.iter().enumerate() {
        let found = &bits[at * b.words() as usize..][..b.words() as usize];
        let found: Vec<bool> = (0..b.k_blocks()).map(|j| found[j as usize / 32] >> (j % 32) & 1 == 1).collect();
        if found != row.keep {
            close += 1;
            assert!(row.margin < 1e-4, "{a:?} {b:?} {s:?} row {at}: {found:?}, not {row:?}");
        }
    }
    assert!(close * 20 <= rows.len(), "{close} of {} rows were too close to call", rows.len());
}

/// Row 4 of the catalogue: on planted structure the adaptive mask with its coarse view has at most half the error of a random mask.
#[kernel_test]
fn planted_structure_is_found() {
    let gpu = &gpus()[0];
    let mut random = Random::new(8);
    let a = Attention { causal: false, ..Attention::causal(2, 2, 64) };
    let b = Blocks::square(2048, 0, 2048, 128);
    let input = Input::of(gpu, a, b, KvFormat::F32, grouped(&mut random, &a, &b, 8, 0.9));
    let dense: Vec<f64> = input.dense(gpu).into_iter().map(f64::from).collect();

    let s = Adaptive { seed: 3, ..Adaptive::VIDEO };
    let offsets = s.upload(gpu, a.heads, 128, 128).unwrap();
    let mut rec = gpu.record();
    let mask = masks::adaptive(&mut rec, &a, &b, &s, upload(gpu, &input.q), &input.cache, &offsets).unwrap();
    rec.submit().unwrap();
    let bits: Vec<u32> = block_on(gpu.read(&mask.bits, 0, u64::from(a.heads * 16))).unwrap();
    let kept: u32 = bits.iter().map(|word| word.count_ones()).sum();
    // 17 % of 16 blocks are two; a row whose first block holds 95 % of the mass keeps only that.
    assert!((a.heads * 16..=a.heads * 16 * 2).contains(&kept), "{kept}");

    // A random mask has two in every row.
    let order = |h: u32, i: u32, j: u32| random_rank(h, i, j);
    let chosen = Mask::given(gpu, &b, a.heads, |h, i, j| {
        (0..16).filter(|other| order(h, i, *other) > order(h, i, j)).count() < 2
    })
    .unwrap();
    let error = |mask: &Mask, gap: Option<u32>| nmse(&with_coarse_view(gpu, &input, mask, gap), &dense).sqrt();
    let adaptive = [error(&mask, None), error(&mask, Some(32))];
    let at_random = [error(&chosen, None), error(&chosen, Some(32))];
    println!("relative error: adaptive {adaptive:.4?}, random {at_random:.4?} (alone, with means of 32 keys)");
    assert!(adaptive[1] <= 0.5 * at_random[0] && adaptive[1] <= 0.5 * at_random[1]);
}

fn random_rank(h: u32, i: u32, j: u32) -> u64 {
    let mut x = Random::new(u64::from(h * 4096 + i * 64 + j) + 77);
    u64::from(x.word()) << 8 | u64::from(j)
}

/// Attention by a mask, joined with attention over means of `gap` keys.
fn with_coarse_view(gpu: &Gpu, input: &Input, mask: &Mask, gap: Option<u32>) -> Vec<f32> {
    let (a, b) = (&input.a, &input.b);
    let Some(gap) = gap else { return input.run(gpu, mask).0 };
    let groups = b.kv_len.div_ceil(gap);
    let coarse = KvCache::new(gpu, a.kv_heads, groups, a.head_dim, KvFormat::F32).unwrap();
    let all = Blocks { kv_len: groups, gap, ..*b };
    let mut rec = gpu.record();
    pooled::pool(&mut rec, a, &input.cache, b.kv_len, gap, 0..groups, &coarse).unwrap();
    let full = masks::full(&mut rec, &all).unwrap();
    let rows = u64::from(b.tokens * a.heads);
    let make = |n: u64| gpu.storage("part", 4 * n, Purpose::Activations).unwrap();
    let q = upload(gpu, &input.q);
    let [fine, rough] = [0, 1].map(|_| Part { o: make(rows * u64::from(a.head_dim)).all(), lse: make(rows).all() });
    let executed = gpu.upload("executed", &[0u32; 2], Purpose::Activations).unwrap();
    let out = |part: &Part| Out { o: part.o.clone(), lse: part.lse.clone(), executed: executed.all() };
    blocks::prefill(&mut rec, a, b, mask, q.clone(), &input.cache, &out(&fine)).unwrap();
    blocks::prefill(&mut rec, a, &all, &full, q, &coarse, &out(&rough)).unwrap();
    let result = gpu.storage("result", 4 * rows * u64::from(a.head_dim), Purpose::Activations).unwrap();
    let mut first = fine.clone();
    first.o = result.all();
    blocks::prefill(&mut rec, a, b, mask, upload(gpu, &input.q), &input.cache, &out(&first)).unwrap();
    pooled::merge(&mut rec, a, b.tokens, &first, &rough, gap as f32, make(rows).all()).unwrap();
    rec.submit().unwrap();
    block_on(gpu.read(&result, 0, rows * u64::from(a.head_dim))).unwrap()
}

#[kernel_test]
fn merging_joins_keys() {
    let mut random = Random::new(9);
    for gpu in gpus() {
        let a = Attention { causal: false, ..Attention::causal(3, 3, 24) };
        let rows = 35 * 3;
        let part = |random: &mut Random| Attended {
            o: random.normals(rows * 24).into_iter().map(f64::from).collect(),
            lse: random.normals(rows).into_iter().map(|x| f64::from(10.0 * x)).collect(),
        };
        let (mut x, mut y) = (part(&mut random), part(&mut random));
        // Where neither, or only one, saw a key.
        (x.lse[0], y.lse[0], x.lse[1], y.lse[2]) = (NOTHING, NOTHING, NOTHING, NOTHING);
        for d in 0..24 {
            (x.o[d], y.o[d], x.o[24 + d], y.o[48 + d]) = (0.0, 0.0, 0.0, 0.0);
        }
        for weight in [1.0, 30.0] {
            let floats = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<f32>>();
            let put = |x: &Attended| Part { o: upload(&gpu, &floats(&x.o)), lse: upload(&gpu, &floats(&x.lse)) };
            let (o, lse) = (gpu.upload("o", &floats(&x.o), Purpose::Activations).unwrap(), Guarded::new(&gpu, rows));
            let first = Part { o: o.all(), ..put(&x) };
            let mut rec = gpu.record();
            pooled::merge(&mut rec, &a, 35, &first, &put(&y), weight, lse.slice()).unwrap();
            rec.submit().unwrap();
            let expected = twin::merge(&x, &y, weight.into());
            let found: Vec<f32> = block_on(gpu.read(&o, 0, (rows * 24) as u64)).unwrap();
            assert!(nmse(&found, &expected.o) < BOUND);
            check_lse(&lse.floats(&gpu), &expected.lse, "merge");
        }
    }
}

/// The same keys in both branches: as attention over every key twice, which is attention over every key once.
#[kernel_test]
fn merging_an_attention_with_itself_changes_nothing() {
    let mut random = Random::new(10);
    let gpu = &gpus()[0];
    let a = Attention { causal: false, ..Attention::causal(2, 1, 64) };
    let b = Blocks::square(100, 0, 100, 32);
    let input = Input::new(gpu, a, b, KvFormat::F32, &mut random);
    let mut rec = gpu.record();
    let mask = masks::full(&mut rec, &b).unwrap();
    rec.submit().unwrap();
    let merged = with_coarse_view(gpu, &input, &mask, Some(1));
    let dense = input.dense(gpu);
    let worst = merged.iter().zip(&dense).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst:e}");
}

#[kernel_test]
fn keys_are_pooled() {
    let mut random = Random::new(11);
    for gpu in gpus() {
        for (format, gap, kv_len) in [(KvFormat::F32, 7, 50), (KvFormat::F16, 16, 64), (KvFormat::F32, 30, 29)] {
            let a = Attention::causal(4, 2, 24);
            let input = Input::new(&gpu, a, Blocks::square(1, 0, kv_len, 16), format, &mut random);
            let groups = kv_len.div_ceil(gap);
            let pooled = KvCache::new(&gpu, 2, groups, 24, KvFormat::F32).unwrap();
            let mut rec = gpu.record();
            let half = groups / 2;
            for range in [half..groups, 0..half] {
                pooled::pool(&mut rec, &a, &input.cache, kv_len, gap, range, &pooled).unwrap();
            }
            rec.submit().unwrap();
            let [ctx, dim, len, gap] = [input.cache.ctx, 24, kv_len, gap].map(|n| n as usize);
            for (found, x) in [(&pooled.k, &input.k), (&pooled.v, &input.v)] {
                let found: Vec<f32> = block_on(gpu.read(found, 0, u64::from(2 * groups * 24))).unwrap();
                assert!(nmse(&found, &twin::pool(x, ctx, dim, len, gap)) < BOUND, "{format:?} {gap}");
            }
        }
    }
}

#[kernel_test]
fn impossible_blocks_are_refused() {
    let gpu = &gpus()[0];
    let a = Attention::causal(2, 1, 64);
    let cache = KvCache::new(gpu, 1, 5000, 64, KvFormat::F32).unwrap();
    let q = upload(gpu, &[0.0; 2 * 64 * 8]);
    let out = Out { o: q.clone(), lse: q.clone(), executed: q.clone() };
    let good = Blocks::square(8, 0, 100, 16);
    let mask = Mask::given(gpu, &good, 2, |_, _, _| true).unwrap();
    let run =
        |b: Blocks| blocks::prefill(&mut gpu.record(), &a, &b, &mask, q.clone(), &cache, &out).unwrap_err().to_string();
    assert!(run(Blocks { k_block: 0, ..good }).contains("blocks of 16 × 0"));
    assert!(run(Blocks { kv_len: 5001, ..good }).contains("5001 keys of a cache of 5000"));
    assert!(run(Blocks { kv_len: 5000, ..good }).contains("a mask of 1 words a row"));
    assert!(run(Blocks { pos0: u32::MAX, ..good }).contains("at position 4294967295"));
    let offsets = Adaptive::CAUSAL.upload(gpu, 2, 64, 64).unwrap();
    let choose = |b: Blocks, s: Adaptive| {
        masks::adaptive(&mut gpu.record(), &a, &b, &s, q.clone(), &cache, &offsets).unwrap_err().to_string()
    };
    assert!(choose(good, Adaptive { samples: 32, ..Adaptive::CAUSAL }).contains("32 samples of blocks of 16"));
    assert!(choose(good, Adaptive { samples: 16, mass: 1.5, ..Adaptive::CAUSAL }).contains("mass 1.5"));
    let many = Blocks { kv_len: 5000, q_block: 16, k_block: 4, ..good };
    assert!(choose(many, Adaptive { samples: 4, ..Adaptive::CAUSAL }).contains("1250 key blocks"));
    assert!(masks::window(&mut gpu.record(), &good, 0, 0).unwrap_err().to_string().contains("nothing"));
}

/// Against numpy: masks by sampled scores, attention over them with its log-sums, and the merge with a coarse view.
#[kernel_test]
fn adaptive_attention_is_the_references() {
    let golden = Tensors::of_attention();
    let [q, k, v] = ["q", "k", "v"].map(|name| golden.f32s(&format!("asa.{name}")));
    let floats = |name: &str| golden.f32s(name).into_iter().map(f64::from).collect::<Vec<f64>>();
    let s = Adaptive { samples: 8, mass: 0.7, min_ratio: 0.1, max_ratio: 0.5, ..Adaptive::VIDEO };
    let expected: Vec<bool> = golden.u32s("asa.mask").into_iter().map(|kept| kept == 1).collect();
    for gpu in gpus() {
        for variant in VARIANTS {
            let a = Attention { variant, causal: false, ..Attention::causal(2, 2, 32) };
            let b = Blocks::square(300, 0, 300, 32);
            let input = Input::of(&gpu, a, b, KvFormat::F32, [q.clone(), k.clone(), v.clone()]);
            let offsets = gpu.upload("offsets", &golden.u32s("asa.offsets"), Purpose::Activations).unwrap();
            let mut rec = gpu.record();
            let mask = masks::adaptive(&mut rec, &a, &b, &s, upload(&gpu, &q), &input.cache, &offsets).unwrap();
            rec.submit().unwrap();
            let bits: Vec<u32> = block_on(gpu.read(&mask.bits, 0, 2 * 10)).unwrap();
            let found: Vec<bool> = bits.iter().flat_map(|row| (0..10).map(move |j| row >> j & 1 == 1)).collect();
            assert_eq!(found, expected, "{variant:?}");
            let (o, lse, executed) = input.run(&gpu, &mask);
            assert!(nmse(&o, &floats("asa.out")) < BOUND);
            check_lse(&lse, &floats("asa.lse"), "golden");
            assert_eq!(executed, expected.iter().filter(|kept| **kept).count() as u64);
            assert!(nmse(&with_coarse_view(&gpu, &input, &mask, Some(30)), &floats("asa.merged")) < BOUND);
        }
    }
}

/// Tokens of a video go on the curve and come back; queries as one matrix, a cache as one for every head.
#[kernel_test]
fn tokens_are_reordered_and_put_back() {
    let mut random = Random::new(12);
    for gpu in gpus() {
        let order = gilbert::order(5, 7, 3).unwrap();
        let put = |order: &[u32]| gpu.upload("order", order, Purpose::Activations).unwrap();
        let (there, back) = (put(&order), put(&gilbert::inverse(&order)));
        for (batch, cols, x_rows, y_rows) in [(1, 24, 105, 105), (3, 16, 110, 107)] {
            let x = random.normals(batch * x_rows * cols);
            let shape = |x_rows: usize, y_rows: usize| Reorder {
                rows: 105,
                cols: cols as u32,
                batch: batch as u32,
                x_rows: x_rows as u32,
                y_rows: y_rows as u32,
            };
            let make =
                |rows: usize| gpu.storage("rows", 4 * (batch * rows * cols) as u64, Purpose::Activations).unwrap();
            let (y, z) = (make(y_rows), make(x_rows));
            let mut rec = gpu.record();
            gilbert::reorder(&mut rec, &shape(x_rows, y_rows), &there, upload(&gpu, &x), &y).unwrap();
            gilbert::reorder(&mut rec, &shape(y_rows, x_rows), &back, &y, &z).unwrap();
            rec.submit().unwrap();
            let read = |buffer, rows: usize| -> Vec<f32> {
                block_on(gpu.read(buffer, 0, (batch * rows * cols) as u64)).unwrap()
            };
            let (y, z) = (read(&y, y_rows), read(&z, x_rows));
            for b in 0..batch {
                for (place, token) in order.iter().enumerate() {
                    let row = |x: &[f32], rows: usize, r: usize| x[(b * rows + r) * cols..][..cols].to_vec();
                    assert_eq!(row(&y, y_rows, place), row(&x, x_rows, *token as usize));
                    assert_eq!(row(&z, x_rows, place), row(&x, x_rows, place));
                }
            }
        }
    }
}
