//! The kernels of shrunk layers against their f64 twins: dimensions that are multiples of nothing, every style, both cache formats, every tier.

use crate::kernel::{Guarded, Random, gpus, read_cache, upload};
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::ops::reduced::{self, Compact, ReducedAppend, padded_dim};
use tersor_engine::ops::rope::{KvCache, KvFormat, RopeConfig, RopeScaling, RopeStyle, RopeTable};
use tersor_engine::reference::{self, nmse};
use tersor_kernel_test_macro::kernel_test;

/// f32 throughout: relative error about 1e-6, squared.
const BOUND: f64 = 1e-11;

#[kernel_test]
fn heads_are_padded_to_the_next_size_with_a_kernel() {
    assert_eq!(padded_dim(48, 48), Some(48));
    assert_eq!(padded_dim(50, 12), Some(64));
    assert_eq!(padded_dim(2, 66), Some(80));
    assert_eq!(padded_dim(2, 2), Some(16));
    assert_eq!(padded_dim(258, 2), None);
}

#[kernel_test]
fn reduced_append_matches_its_twin() {
    let mut random = Random::new(21);
    for gpu in gpus() {
        for style in [RopeStyle::Half, RopeStyle::Interleaved] {
            for format in [KvFormat::F32, KvFormat::F16] {
                for normed in [false, true] {
                    // heads, kv_heads, qk_dim, v_dim, head_dim, rotary, pairs of the table, tokens, pos0
                    for [heads, kv_heads, qk_dim, v_dim, head_dim, rotary, table_pairs, tokens, pos0] in [
                        [9, 3, 46, 50, 64, 46, 32, 17, 0],
                        [4, 2, 2, 64, 64, 2, 32, 3, 5],
                        [6, 1, 34, 10, 40, 18, 12, 65, 100],
                        [2, 2, 64, 6, 64, 64, 32, 1, 7],
                    ] {
                        let shape = ReducedAppend {
                            tokens,
                            heads,
                            kv_heads,
                            qk_dim,
                            v_dim,
                            head_dim,
                            rotary,
                            table_pairs,
                            pos0,
                            style,
                            norm_eps: 1e-6,
                        };
                        check(&gpu, &shape, format, normed, &mut random);
                    }
                }
            }
        }
    }
}

fn check(gpu: &Gpu, s: &ReducedAppend, format: KvFormat, normed: bool, random: &mut Random) {
    let [heads, kv_heads, qk, vd, dim] = [s.heads, s.kv_heads, s.qk_dim, s.v_dim, s.head_dim].map(|n| n as usize);
    let width = s.width() as usize;
    let ctx = s.pos0 + s.tokens + 2;
    let config = RopeConfig { rotary_dim: 2 * s.table_pairs as usize, base: 10000.0, scaling: RopeScaling::None };
    let table = RopeTable::new(&config, ctx as usize).unwrap();
    let kept = s.rotary as usize / 2;
    let pairs: Vec<u32> = (0..kv_heads * kept).map(|_| random.below(s.table_pairs)).collect();
    let norms = random.normals(2 * qk);
    let qkv = random.normals(s.tokens as usize * width);
    let cache = KvCache::new(gpu, s.kv_heads, ctx, s.head_dim, format).unwrap();
    let q_out = Guarded::new(gpu, s.tokens as usize * heads * dim);
    let pairs_buffer = gpu.upload("pairs", &pairs, Purpose::Weights).unwrap();
    let mut rec = gpu.record();
    reduced::append(
        &mut rec,
        s,
        upload(gpu, &qkv),
        table.upload(gpu).unwrap().all(),
        pairs_buffer.all(),
        normed.then(|| upload(gpu, &norms)),
        q_out.slice(),
        &cache,
    )
    .unwrap();
    rec.submit().unwrap();
    let read = |buffer| read_cache(gpu, buffer, format, u64::from(s.kv_heads * ctx * s.head_dim));
    let (q, k, v) = (q_out.floats(gpu), read(&cache.k), read(&cache.v));
    let what = format!("{s:?} {format:?} norm {normed}");
    let bound = if format == KvFormat::F16 { 1e-6 } else { BOUND };
    for t in 0..s.tokens as usize {
        let (row, pos) = (&qkv[t * width..][..width], s.pos0 as usize + t);
        let twin = |x: &[f32], key: usize, g: usize| {
            let norm = normed.then(|| (&norms[key * qk..][..qk], s.norm_eps));
            reference::reduced::head(x, norm, &table, &pairs[g * kept..][..kept], s.style, pos, dim)
        };
        let cached = |kind: &[f32], g: usize| kind[(g * ctx as usize + pos) * dim..][..dim].to_vec();
        for h in 0..heads {
            let expected = twin(&row[h * qk..][..qk], 0, h / (heads / kv_heads));
            assert!(nmse(&q[(t * heads + h) * dim..][..dim], &expected) < BOUND, "q {what}");
        }
        for g in 0..kv_heads {
            let expected = twin(&row[(heads + g) * qk..][..qk], 1, g);
            assert!(nmse(&cached(&k, g), &expected) < bound, "k {what}");
            let values = &row[(heads + kv_heads) * qk + g * vd..][..vd];
            assert!(nmse(&cached(&v, g), &reference::reduced::compact(values, vd, vd, dim)) < bound, "v {what}");
        }
    }
    let elsewhere = |i: &usize| !(s.pos0..s.pos0 + s.tokens).contains(&((i / dim) as u32 % ctx));
    assert!((0..k.len()).filter(elsewhere).all(|i| k[i] == 0.0 && v[i] == 0.0), "cache {what}");
}

#[kernel_test]
fn pairs_beyond_the_table_read_its_last() {
    // What the model room refuses must still stay inside the buffers.
    for gpu in gpus() {
        let shape = ReducedAppend {
            tokens: 1,
            heads: 1,
            kv_heads: 1,
            qk_dim: 4,
            v_dim: 4,
            head_dim: 16,
            rotary: 4,
            table_pairs: 2,
            pos0: 1,
            style: RopeStyle::Half,
            norm_eps: 0.0,
        };
        let config = RopeConfig { rotary_dim: 4, base: 10000.0, scaling: RopeScaling::None };
        let table = RopeTable::new(&config, 2).unwrap();
        let qkv = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0];
        let run = |pairs: [u32; 2]| {
            let cache = KvCache::new(&gpu, 1, 4, 16, KvFormat::F32).unwrap();
            let q = Guarded::new(&gpu, 16);
            let pairs = gpu.upload("pairs", &pairs, Purpose::Weights).unwrap();
            let mut rec = gpu.record();
            let table = table.upload(&gpu).unwrap().all();
            reduced::append(&mut rec, &shape, upload(&gpu, &qkv), table, pairs.all(), None, q.slice(), &cache).unwrap();
            rec.submit().unwrap();
            q.floats(&gpu)
        };
        assert_eq!(run([0, u32::MAX]), run([0, 1]));
    }
}

#[kernel_test]
fn padding_is_dropped() {
    let mut random = Random::new(22);
    for gpu in gpus() {
        for [tokens, heads, head_dim, v_dim, cols] in [[1u32, 9, 64, 50, 480], [17, 3, 16, 16, 48], [5, 2, 40, 2, 32]] {
            let x = random.normals((tokens * heads * head_dim) as usize);
            let y = Guarded::new(&gpu, (tokens * cols) as usize);
            let mut rec = gpu.record();
            let shape = Compact { tokens, heads, head_dim, v_dim, cols };
            reduced::compact(&mut rec, &shape, upload(&gpu, &x), y.slice()).unwrap();
            rec.submit().unwrap();
            let row = (heads * head_dim) as usize;
            let twin = |x: &[f32]| reference::reduced::compact(x, head_dim as usize, v_dim as usize, cols as usize);
            let expected: Vec<f64> = x.chunks_exact(row).flat_map(twin).collect();
            assert_eq!(nmse(&y.floats(&gpu), &expected), 0.0, "{shape:?}");
        }
    }
}

#[kernel_test]
fn impossible_shapes_are_refused() {
    let gpu = &gpus()[0];
    let good = ReducedAppend {
        tokens: 2,
        heads: 2,
        kv_heads: 1,
        qk_dim: 8,
        v_dim: 8,
        head_dim: 16,
        rotary: 8,
        table_pairs: 8,
        pos0: 0,
        style: RopeStyle::Half,
        norm_eps: 0.0,
    };
    let cache = KvCache::new(gpu, 1, 4, 16, KvFormat::F32).unwrap();
    let room = || upload(gpu, &[0.0; 1024]);
    let tried = |s: ReducedAppend| reduced::append(&mut gpu.record(), &s, room(), room(), room(), None, room(), &cache);
    tried(good).unwrap();
    for bad in [
        ReducedAppend { qk_dim: 7, ..good },
        ReducedAppend { v_dim: 18, ..good },
        ReducedAppend { rotary: 10, ..good },
        ReducedAppend { heads: 3, kv_heads: 2, ..good },
        ReducedAppend { kv_heads: 0, ..good },
        ReducedAppend { style: RopeStyle::None, ..good },
        ReducedAppend { pos0: 3, ..good },
        ReducedAppend { tokens: 4, heads: 64, ..good },
    ] {
        assert!(tried(bad).is_err(), "{bad:?}");
    }
    let compact = |shape| reduced::compact(&mut gpu.record(), &shape, room(), room());
    let good = Compact { tokens: 2, heads: 2, head_dim: 16, v_dim: 8, cols: 32 };
    compact(good).unwrap();
    for bad in [
        Compact { v_dim: 17, ..good },
        Compact { v_dim: 0, ..good },
        Compact { cols: 15, ..good },
        Compact { tokens: 99, ..good },
    ] {
        assert!(compact(bad).is_err(), "{bad:?}");
    }
}
