//! Rotary embedding and attention on the GPU against their f64 twins: every head size, both variants, both tiers, both cache
//! formats, shapes that are multiples of nothing.

use crate::kernel::{Guarded, Random, gpus, read_cache, upload};
use tersor_engine::gpu::{Binding, Gpu, Purpose};
use tersor_engine::ops::Variant;
use tersor_engine::ops::attention::{self, Attention, Fill, HEAD_DIMS};
use tersor_engine::ops::rope::{self, KvCache, KvFormat, RopeAppend, RopeConfig, RopeScaling, RopeStyle, RopeTable};
use tersor_engine::reference::{self, nmse};
use tersor_kernel_test_macro::kernel_test;

/// f32 throughout: relative error about 1e-6, squared.
const BOUND: f64 = 1e-11;
const VARIANTS: [Variant; 2] = [Variant::Gpu, Variant::Software];

/// Rounds to what the cache can hold.
fn rounded(format: KvFormat, x: &[f32]) -> Vec<f32> {
    match format {
        KvFormat::F32 => x.to_vec(),
        KvFormat::F16 => x.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect(),
    }
}

/// A cache on the device, and its content as the kernels see it. Positions from `kv_len` on hold numbers that would show.
struct Filled {
    cache: KvCache,
    k: Vec<f32>,
    v: Vec<f32>,
}

fn fill(gpu: &Gpu, random: &mut Random, [kv_heads, ctx, dim]: [u32; 3], kv_len: u32, format: KvFormat) -> Filled {
    let mut make = || {
        let mut x = rounded(format, &random.normals((kv_heads * ctx * dim) as usize));
        for (i, v) in x.iter_mut().enumerate() {
            if i as u32 / dim % ctx >= kv_len {
                *v = 30000.0;
            }
        }
        let buffer = match format {
            KvFormat::F32 => gpu.upload("cache", &x, Purpose::KvCache),
            KvFormat::F16 => {
                let bits: Vec<u16> = x.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect();
                gpu.upload("cache", &bits, Purpose::KvCache)
            }
        };
        (buffer.unwrap(), x)
    };
    let ((k_buffer, k), (v_buffer, v)) = (make(), make());
    Filled { cache: KvCache { k: k_buffer, v: v_buffer, format, ctx }, k, v }
}

fn check_prefill(gpu: &Gpu, a: &Attention, [tokens, pos0, kv_len]: [u32; 3], format: KvFormat, random: &mut Random) {
    let ctx = kv_len + 3;
    let filled = fill(gpu, random, [a.kv_heads, ctx, a.head_dim], kv_len, format);
    let n = (tokens * a.heads * a.head_dim) as usize;
    let (q, o) = (random.normals(n), Guarded::new(gpu, n));
    let mut rec = gpu.record();
    attention::prefill(&mut rec, a, tokens, pos0, kv_len, upload(gpu, &q), &filled.cache, o.slice()).unwrap();
    rec.submit().unwrap();
    let expected =
        reference::attention::attend(a, pos0 as usize, kv_len as usize, &q, &filled.k, &filled.v, ctx as usize);
    let error = nmse(&o.floats(gpu), &expected);
    assert!(error < BOUND, "{a:?} tokens {tokens} pos0 {pos0} keys {kv_len} {format:?}: {error:e}");
}

fn check_decode(gpu: &Gpu, a: &Attention, pos: u32, format: KvFormat, random: &mut Random) {
    let ctx = pos + 4;
    let filled = fill(gpu, random, [a.kv_heads, ctx, a.head_dim], pos + 1, format);
    let n = (a.heads * a.head_dim) as usize;
    let (q, o) = (random.normals(n), Guarded::new(gpu, n));
    let mut rec = gpu.record();
    attention::decode(&mut rec, a, pos, &upload(gpu, &q), &filled.cache, &o.slice()).unwrap();
    rec.submit().unwrap();
    let expected =
        reference::attention::attend(a, pos as usize, pos as usize + 1, &q, &filled.k, &filled.v, ctx as usize);
    let error = nmse(&o.floats(gpu), &expected);
    assert!(error < BOUND, "{a:?} pos {pos} {format:?}: {error:e}");
}

#[kernel_test]
fn prefill_of_odd_shapes() {
    let mut random = Random::new(1);
    for gpu in gpus() {
        for variant in VARIANTS {
            for (heads, kv_heads, dim) in [(9, 3, 64), (4, 1, 24), (2, 2, 256)] {
                let a = Attention { variant, ..Attention::causal(heads, kv_heads, dim) };
                for (tokens, pos0) in [(1, 0), (3, 0), (17, 5), (65, 0), (33, 270)] {
                    check_prefill(&gpu, &a, [tokens, pos0, pos0 + tokens], KvFormat::F32, &mut random);
                }
                check_prefill(&gpu, &a, [17, 3, 20], KvFormat::F16, &mut random);
            }
        }
    }
}

#[kernel_test]
fn windows_caps_and_padding() {
    let mut random = Random::new(2);
    for gpu in gpus() {
        for variant in VARIANTS {
            let plain = Attention { variant, ..Attention::causal(4, 2, 32) };
            for window in [1, 7, 40, 1000] {
                let a = Attention { window, ..plain };
                check_prefill(&gpu, &a, [65, 0, 65], KvFormat::F32, &mut random);
                check_prefill(&gpu, &a, [10, 90, 100], KvFormat::F16, &mut random);
                check_decode(&gpu, &a, 299, KvFormat::F32, &mut random);
            }
            let capped = Attention { soft_cap: 0.5, scale: 0.4, window: 30, ..plain };
            check_prefill(&gpu, &capped, [50, 10, 60], KvFormat::F32, &mut random);
            check_decode(&gpu, &capped, 100, KvFormat::F32, &mut random);
            // An encoder: all valid keys, for padding queries too.
            let both_ways = Attention { causal: false, ..plain };
            for (tokens, valid) in [(1, 1), (17, 9), (65, 65), (128, 100)] {
                check_prefill(&gpu, &both_ways, [tokens, 0, valid], KvFormat::F32, &mut random);
            }
            check_prefill(&gpu, &Attention { window: 9, ..both_ways }, [65, 0, 65], KvFormat::F32, &mut random);
        }
    }
}

#[kernel_test]
fn decode_of_odd_shapes() {
    let mut random = Random::new(3);
    for gpu in gpus() {
        for variant in VARIANTS {
            for (heads, kv_heads, dim) in [(9, 3, 64), (4, 1, 24), (8, 4, 80), (7, 1, 16), (2, 2, 256), (4, 1, 128)] {
                let a = Attention { variant, ..Attention::causal(heads, kv_heads, dim) };
                for pos in [0, 1, 7, 8, 63, 64, 127, 128, 300] {
                    check_decode(&gpu, &a, pos, KvFormat::F32, &mut random);
                }
                check_decode(&gpu, &a, 200, KvFormat::F16, &mut random);
            }
            // However the keys are cut.
            for workgroups in [1, 2, 3, 40, 100_000] {
                let a = Attention { variant, fill: Fill::with(workgroups), ..Attention::causal(6, 2, 32) };
                for pos in [0, 64, 700] {
                    check_decode(&gpu, &a, pos, KvFormat::F16, &mut random);
                }
            }
        }
    }
}

#[kernel_test]
fn every_head_size() {
    let mut random = Random::new(4);
    let gpu = &gpus()[0];
    for variant in VARIANTS {
        for dim in HEAD_DIMS {
            let a = Attention { variant, ..Attention::causal(2, 1, dim) };
            check_prefill(gpu, &a, [35, 2, 37], KvFormat::F32, &mut random);
            check_decode(gpu, &a, 150, KvFormat::F32, &mut random);
        }
    }
}

#[kernel_test]
fn large_scores_do_not_overflow() {
    let mut random = Random::new(5);
    let gpu = &gpus()[0];
    for variant in VARIANTS {
        // Scores of several hundred: softmax is nearly one-hot, exp without the maximum would overflow.
        let a = Attention { variant, scale: 40.0, ..Attention::causal(2, 1, 64) };
        for pos in [5, 200] {
            let filled = fill(gpu, &mut random, [1, 300, 64], pos + 1, KvFormat::F32);
            let q = random.normals(128);
            let o = Guarded::new(gpu, 128);
            let mut rec = gpu.record();
            attention::decode(&mut rec, &a, pos, &upload(gpu, &q), &filled.cache, &o.slice()).unwrap();
            rec.submit().unwrap();
            let keys = pos as usize + 1;
            let expected = reference::attention::attend(&a, pos as usize, keys, &q, &filled.k, &filled.v, 300);
            // The scores' own rounding, 1e-7 of 300, is what is left.
            let error = nmse(&o.floats(gpu), &expected);
            assert!(error < 1e-8, "{variant:?} {pos}: {error:e}");
        }
    }
}

#[kernel_test]
fn impossible_attention_is_refused() {
    let gpu = &gpus()[0];
    let cache = KvCache::new(gpu, 2, 16, 64, KvFormat::F32).unwrap();
    let q = upload(gpu, &[0.0; 4 * 64]);
    let refuse =
        |a: &Attention, pos: u32| attention::decode(&mut gpu.record(), a, pos, &q, &cache, &q).unwrap_err().to_string();
    assert!(refuse(&Attention::causal(4, 2, 64), 16).contains("17 keys of a cache of 16"));
    assert!(refuse(&Attention::causal(3, 2, 64), 0).contains("3 query heads over 2 KV heads"));
    assert!(refuse(&Attention::causal(4, 2, 28), 0).contains("heads of 28 dimensions"));
    assert!(refuse(&Attention::causal(4, 4, 64), 0).contains("`k_cache` holds"));
    let shape = RopeAppend { style: RopeStyle::None, ..RopeAppend::fused(3, 4, 2, 64, 14) };
    let qkv = upload(gpu, &[0.0; 3 * 8 * 64]);
    let error = rope::append(&mut gpu.record(), &shape, [&qkv; 3], None, None, &q, &cache);
    assert!(error.unwrap_err().to_string().contains("3 tokens at position 14 in a cache of 16"));
}

#[kernel_test]
fn rope_append_matches_its_twin() {
    let mut random = Random::new(6);
    let cases = [
        // heads, kv_heads, head_dim, rotary, tokens, pos0
        (9, 3, 64, 64, 17, 0),
        (4, 4, 24, 12, 3, 5),
        (2, 1, 256, 256, 65, 100),
        (3, 1, 96, 72, 1, 7),
    ];
    for gpu in gpus() {
        for style in [RopeStyle::Half, RopeStyle::Interleaved, RopeStyle::None] {
            for format in [KvFormat::F32, KvFormat::F16] {
                for normed in [false, true] {
                    for (heads, kv_heads, head_dim, rotary, tokens, pos0) in cases {
                        let shape = RopeAppend {
                            rotary,
                            style,
                            norm_eps: 1e-6,
                            ..RopeAppend::fused(tokens, heads, kv_heads, head_dim, pos0)
                        };
                        check_append(&gpu, &shape, format, normed, &mut random);
                    }
                }
            }
        }
    }
}

fn check_append(gpu: &Gpu, s: &RopeAppend, format: KvFormat, normed: bool, random: &mut Random) {
    let dim = s.head_dim as usize;
    let (heads, kv_heads) = (s.heads as usize, s.kv_heads as usize);
    let width = (heads + 2 * kv_heads) * dim;
    let ctx = s.pos0 + s.tokens + 2;
    let config = RopeConfig { rotary_dim: s.rotary as usize, base: 10000.0, scaling: RopeScaling::None };
    let table = (s.style != RopeStyle::None).then(|| RopeTable::new(&config, ctx as usize).unwrap());
    let norms: Vec<f32> = random.normals(2 * dim);
    let qkv = random.normals(s.tokens as usize * width);
    let cache = KvCache::new(gpu, s.kv_heads, ctx, s.head_dim, format).unwrap();
    let q_out = Guarded::new(gpu, s.tokens as usize * heads * dim);
    let input = upload(gpu, &qkv);
    let table_buffer = table.as_ref().map(|t| t.upload(gpu).unwrap());
    let norm_weights = normed.then(|| upload(gpu, &norms));
    let mut rec = gpu.record();
    let (table_buffer, norm_weights) =
        (table_buffer.as_ref().map(Binding::from), norm_weights.as_ref().map(Binding::from));
    rope::append(&mut rec, s, [&input; 3], table_buffer, norm_weights, &q_out.slice(), &cache).unwrap();
    rec.submit().unwrap();

    let read = |buffer| read_cache(gpu, buffer, format, u64::from(s.kv_heads * ctx * s.head_dim));
    let (q, k, v) = (q_out.floats(gpu), read(&cache.k), read(&cache.v));
    let what = format!("{s:?} {format:?} norm {normed}");
    let bound = if format == KvFormat::F16 { 1e-6 } else { BOUND };
    for t in 0..s.tokens as usize {
        let pos = s.pos0 as usize + t;
        for h in 0..heads + 2 * kv_heads {
            let x = &qkv[t * width + h * dim..][..dim];
            let norm = |half: usize| normed.then(|| (&norms[half * dim..][..dim], s.norm_eps));
            let cached = |kind: &[f32], h: usize| kind[(h * ctx as usize + pos) * dim..][..dim].to_vec();
            if h < heads {
                let expected = reference::rope::head(x, norm(0), table.as_ref(), s.style, pos);
                assert!(nmse(&q[(t * heads + h) * dim..][..dim], &expected) < BOUND, "q {what}");
            } else if h < heads + kv_heads {
                let expected = reference::rope::head(x, norm(1), table.as_ref(), s.style, pos);
                assert!(nmse(&cached(&k, h - heads), &expected) < bound, "k {what}");
            } else {
                let expected: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
                assert!(nmse(&cached(&v, h - heads - kv_heads), &expected) < bound, "v {what}");
            }
        }
    }
    // The rest of the cache is untouched.
    let elsewhere = |i: &usize| !(s.pos0..s.pos0 + s.tokens).contains(&((i / dim) as u32 % ctx));
    assert!((0..k.len()).filter(elsewhere).all(|i| k[i] == 0.0 && v[i] == 0.0), "cache {what}");
}
