//! EcoFormer's hashed linear attention on the GPU against its f64 twin and an independent implementation (`golden/attention`).

use crate::golden::Tensors;
use crate::kernel::{Guarded, Random, gpus, upload};
use crate::turns::block_on;
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::ops::attention::hashing::learn::{Learning, learn};
use tersor_engine::ops::attention::hashing::{Form, Hash, Hasher};
use tersor_engine::reference::{hashing as twin, nmse};
use tersor_kernel_test_macro::kernel_test;

const BOUND: f64 = 1e-11;
const FORMS: [Form; 2] = [Form::Mean, Form::Released];

fn random_hash(random: &mut Random, heads: u32, head_dim: u32, bits: u32, m: u32) -> Hash {
    let unit = 1.0 / (head_dim as f32).sqrt();
    Hash {
        heads,
        head_dim,
        bits,
        anchors: random.normals((heads * m * head_dim) as usize).iter().map(|x| x * unit).collect(),
        means: (0..heads * m).map(|_| 0.5 + 0.2 * random.unit()).collect(),
        matrix: random.normals((heads * m * bits) as usize),
    }
}

/// Codes, attention of both kinds, and how many additions each took.
struct Found {
    codes: Vec<u32>,
    linear: Vec<f32>,
    pairs: Vec<f32>,
    additions: [u64; 2],
}

fn run(gpu: &Gpu, hash: &Hash, form: Form, x: &[f32], v: &[f32]) -> Found {
    let tokens = v.len() as u32 / hash.heads / hash.head_dim;
    let hasher = Hasher::upload(gpu, hash).unwrap();
    let codes = Guarded::new(gpu, (tokens * hash.heads) as usize);
    let outputs = [0, 1].map(|_| Guarded::new(gpu, v.len()));
    let counters = [0, 1].map(|_| gpu.upload("additions", &[0u32; 2], Purpose::Activations).unwrap());
    let mut rec = gpu.record();
    let v = upload(gpu, v);
    hasher.hash(&mut rec, tokens, upload(gpu, x), codes.slice()).unwrap();
    hasher.attend(&mut rec, tokens, form, codes.slice(), v.clone(), outputs[0].slice(), &counters[0]).unwrap();
    hasher.attend_pairs(&mut rec, tokens, form, codes.slice(), v, outputs[1].slice(), &counters[1]).unwrap();
    rec.submit().unwrap();
    let additions = counters.map(|counter| {
        let words: Vec<u32> = block_on(gpu.read(&counter, 0, 2)).unwrap();
        u64::from(words[0]) | u64::from(words[1]) << 32
    });
    let [linear, pairs] = outputs.map(|o| o.floats(gpu));
    Found { codes: codes.words(gpu), linear, pairs, additions }
}

/// The same codes but for bits whose projection is too close to zero to call.
fn check_codes(hash: &Hash, found: &[u32], projections: &[f64]) {
    let [heads, bits] = [hash.heads, hash.bits].map(|n| n as usize);
    let tokens = found.len() / heads;
    let size = projections.iter().map(|y| y.abs()).sum::<f64>() / projections.len() as f64;
    let mut close = 0;
    for (at, y) in projections.iter().enumerate() {
        let (t, head, b) = (at / bits / heads, at / bits % heads, at % bits);
        if (found[head * tokens + t] >> b & 1 == 1) != (*y > 0.0) {
            assert!(y.abs() < 1e-4 * size, "token {t} head {head} bit {b}: {y}, of about {size}");
            close += 1;
        }
    }
    assert!(close * 500 <= projections.len(), "{close} of {} bits", projections.len());
}

#[kernel_test]
fn linear_attention_is_its_quadratic_form() {
    let mut random = Random::new(1);
    for gpu in gpus() {
        for (heads, dim, bits, m, tokens) in
            [(2, 32, 16, 25, 300), (1, 64, 8, 10, 65), (3, 20, 32, 7, 513), (2, 256, 16, 25, 40), (1, 16, 16, 1, 1)]
        {
            let hash = random_hash(&mut random, heads, dim, bits, m);
            let n = (tokens * heads * dim) as usize;
            let (mut x, v) = (random.normals(n), random.normals(n));
            // A token of nothing has a hash too.
            x[..dim as usize].fill(0.0);
            for form in FORMS {
                let found = run(&gpu, &hash, form, &x, &v);
                check_codes(&hash, &found.codes, &twin::projections(&hash, &x));
                let expected = twin::attend(&hash, form, &found.codes, &v);
                for (name, o) in [("linear", &found.linear), ("pairs", &found.pairs)] {
                    let error = nmse(o, &expected);
                    assert!(error < BOUND, "{name} {form:?} {heads}×{dim}, {bits} bits, {tokens} tokens: {error:e}");
                }
            }
        }
    }
}

#[kernel_test]
fn codes_and_attention_are_the_references() {
    let golden = Tensors::of_attention();
    let [x, v, anchors, means, matrix] =
        ["x", "v", "anchors", "means", "matrix"].map(|name| golden.f32s(&format!("eco.{name}")));
    let hash = Hash { heads: 2, head_dim: 16, bits: 16, anchors, means, matrix };
    let (codes, closest) = (golden.u32s("eco.codes"), golden.f32s("eco.closest"));
    for gpu in gpus() {
        for (form, name) in [(Form::Mean, "eco.linear"), (Form::Released, "eco.released")] {
            let found = run(&gpu, &hash, form, &x, &v);
            for (token, (found, expected)) in found.codes.iter().zip(&codes).enumerate() {
                assert!(found == expected || closest[token] < 1e-5, "{token}: {found:b}, not {expected:b}");
            }
            assert_eq!(twin::pack(&hash, &twin::projections(&hash, &x)), codes);
            let expected: Vec<f64> = golden.f32s(name).into_iter().map(f64::from).collect();
            let worst = found.linear.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-5, "{name}: {worst:e}");
        }
    }
}

#[kernel_test]
fn agreement_of_packed_codes_is_their_dot_product() {
    let mut random = Random::new(2);
    for bits in [8, 16, 32] {
        for _ in 0..200 {
            let mask = u32::MAX >> (32 - bits);
            let [a, b] = [0, 1].map(|_| random.word() & mask);
            let sign = |code: u32, bit: u32| if code >> bit & 1 == 1 { 1i64 } else { -1 };
            let dot: i64 = (0..bits).map(|bit| sign(a, bit) * sign(b, bit)).sum();
            assert_eq!(i64::from(bits) - 2 * i64::from((a ^ b).count_ones()), dot);
        }
    }
}

#[kernel_test]
fn additions_grow_with_the_tokens_not_their_square() {
    let mut random = Random::new(3);
    let gpu = &gpus()[0];
    let hash = random_hash(&mut random, 2, 32, 16, 25);
    let mut counts = Vec::new();
    for tokens in [256, 512, 1024] {
        let n = tokens * 2 * 32;
        let (x, v) = (random.normals(n), random.normals(n));
        counts.push(run(gpu, &hash, Form::Mean, &x, &v).additions);
        // 17 sums of every value, and 16 for every output.
        assert_eq!(counts.last().unwrap(), &[(n * (17 + 16)) as u64, (n * tokens) as u64]);
    }
    assert_eq!([counts[1][0], counts[2][0]], [2 * counts[0][0], 4 * counts[0][0]]);
    assert_eq!([counts[1][1], counts[2][1]], [4 * counts[0][1], 16 * counts[0][1]]);
}

/// Row 58 of the catalogue: hashes that were learned find more of a token's neighbours than hashes at random.
#[kernel_test]
fn learned_hashes_know_neighbours_better() {
    let golden = Tensors::of_attention();
    let digits: Vec<f32> = golden.u16s("digits").into_iter().flat_map(u16::to_le_bytes).map(f32::from).collect();
    let (seen, unseen) = digits.split_at(400 * 64);
    let gpu = &gpus()[0];
    let hash_of = |learning: &Learning| {
        let learned = learn(seen, 64, learning).unwrap();
        let (anchors, means, matrix) = (learned.anchors, learned.means, learned.matrix);
        Hash { heads: 1, head_dim: 64, bits: learning.bits, anchors, means, matrix }
    };
    let agreement = |hash: &Hash| {
        let codes = run(gpu, hash, Form::Mean, unseen, unseen).codes;
        neighbours_in_common(&codes, unseen)
    };
    let mut sums = [0.0; 3];
    for seed in 0..3 {
        let published = Learning { seed, ..Learning::default() };
        let random = Learning { steps: 0, ..published };
        let spectral = Learning { spectral: true, ..published };
        for (sum, learning) in sums.iter_mut().zip([random, published, spectral]) {
            *sum += agreement(&hash_of(&learning)) / 3.0;
        }
    }
    let [random, published, spectral] = sums;
    println!("of 10 neighbours: random {random:.3}, learned {published:.3}, from a spectral start {spectral:.3}");
    assert!(published > random && spectral > 1.1 * random, "{sums:?}");
}

/// Mean share of a token's ten nearest others, by cosine, among the ten whose codes agree most (ties by index).
fn neighbours_in_common(codes: &[u32], x: &[f32]) -> f64 {
    let dim = x.len() / codes.len();
    let token = |i: usize| &x[i * dim..][..dim];
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let length = |i: usize| dot(token(i), token(i)).sqrt();
    let nearest = |i: usize, by: &dyn Fn(usize) -> f32| {
        let mut order: Vec<usize> = (0..codes.len()).filter(|j| *j != i).collect();
        order.sort_by(|a, b| by(*b).total_cmp(&by(*a)).then(a.cmp(b)));
        order.truncate(10);
        order
    };
    let mut common = 0;
    for i in 0..codes.len() {
        let truth = nearest(i, &|j| dot(token(i), token(j)) / length(j));
        let hashed = nearest(i, &|j| -((codes[i] ^ codes[j]).count_ones() as f32));
        common += hashed.iter().filter(|j| truth.contains(j)).count();
    }
    common as f64 / (10 * codes.len()) as f64
}

#[kernel_test]
fn impossible_hashes_are_refused() {
    let gpu = &gpus()[0];
    let good = random_hash(&mut Random::new(4), 2, 32, 16, 5);
    let refuse = |hash: Hash| Hasher::upload(gpu, &hash).unwrap_err().to_string();
    assert!(refuse(Hash { bits: 12, ..good.clone() }).contains("12 bits"));
    assert!(refuse(Hash { head_dim: 30, ..good.clone() }).contains("30 dimensions"));
    assert!(refuse(Hash { means: vec![0.0; 9], ..good.clone() }).contains("9 means"));
    let hasher = Hasher::upload(gpu, &good).unwrap();
    let small = upload(gpu, &[0.0; 16]);
    let error = hasher.hash(&mut gpu.record(), 10, small.clone(), small.clone()).unwrap_err().to_string();
    assert!(error.contains("`x` holds 64 bytes"), "{error}");
    assert!(hasher.hash(&mut gpu.record(), 0, small.clone(), small).unwrap_err().to_string().contains("0 tokens"));
}
