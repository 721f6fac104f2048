//! MoDeGPT's decompositions against numpy (`golden/modegpt.py`), and through whole models: where nothing is lost, nothing may change.

use faer::Mat;
use tersor_engine::codec::{Calibration, Recipe};
use tersor_engine::format::Checkpoint;
use tersor_engine::model::shrink::modegpt::{Heads, allocate, choose_pairs, cr_scores, nystrom, value_basis};
use tersor_engine::model::shrink::{Layer, LayerStatistics, Matrix, Statistics, shrink};
use tersor_engine::model::{Config, ModelError};
use tersor_engine::ops::rope::RopeStyle;
use tersor_engine::progress::Monitor;
use tersor_tests::converted::Converted;
use tersor_tests::decoder::{load, logits, worst};
use tersor_tests::families;
use tersor_tests::golden::Tensors;
use tersor_tests::kernel::{Random, gpus};
use tersor_tests::rewritten::rewritten;

fn matrix(values: &[f64], rows: usize, cols: usize) -> Mat<f64> {
    assert_eq!(values.len(), rows * cols);
    Mat::from_fn(rows, cols, |i, j| values[i * cols + j])
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    (a - b).norm_l2() / b.norm_l2()
}

fn golden() -> Tensors {
    Tensors::open("modegpt.safetensors")
}

#[test]
fn the_modules_are_numpys() {
    let g = golden();
    // Type I.
    let found = nystrom(&matrix(&g.f64s("nystrom.c"), 24, 24), 9, 1e-3).unwrap();
    assert_eq!(found.kept, g.u32s("nystrom.kept").iter().map(|i| *i as usize).collect::<Vec<_>>());
    let expected = matrix(&g.f64s("nystrom.reconstruction"), 24, 9);
    assert!(distance(&found.reconstruction, &expected) < 1e-6);
    // Type III: numpy's square roots of C_x and two decompositions, the engine's Gram matrices of a head.
    let (cx, v) = (matrix(&g.f64s("svd.cx"), 20, 20), matrix(&g.f64s("svd.v"), 20, 8));
    for (case, width) in [("svd", 14), ("group", 28)] {
        let o = matrix(&g.f64s(&format!("{case}.o")), 8, width);
        let basis = value_basis(&(v.transpose() * &cx * &v), &(&o * o.transpose()), 5).unwrap();
        let product = &v * &basis.into * &basis.out * &o;
        let expected = matrix(&g.f64s(&format!("{case}.product")), 20, width);
        assert!(distance(&product, &expected) < 1e-6, "{case}");
        for (found, expected) in basis.energies.iter().zip(g.f64s(&format!("{case}.energies"))) {
            assert!((found - expected).abs() < 1e-9 * basis.energies[0], "{case}: {found} instead of {expected}");
        }
    }
}

#[test]
fn the_error_of_values_is_the_sum_of_what_is_cut_off() {
    let g = golden();
    let (cx, v) = (matrix(&g.f64s("svd.cx"), 20, 20), matrix(&g.f64s("svd.v"), 20, 8));
    for (case, width) in [("svd", 14), ("group", 28)] {
        let o = matrix(&g.f64s(&format!("{case}.o")), 8, width);
        for rank in 1..=8 {
            let basis = value_basis(&(v.transpose() * &cx * &v), &(&o * o.transpose()), rank).unwrap();
            let lost = &v * &o - &v * &basis.into * &basis.out * &o;
            let measured: f64 = {
                let moved = lost.transpose() * &cx * &lost;
                (0..width).map(|i| moved[(i, i)]).sum()
            };
            let expected: f64 = basis.energies[rank..].iter().sum();
            let scale: f64 = basis.energies.iter().sum();
            assert!(
                (measured - expected).abs() <= 1e-3 * expected + 1e-9 * scale,
                "{case} {rank}: {measured} {expected}"
            );
        }
    }
}

#[test]
fn queries_and_keys_keep_the_largest_products() {
    let g = golden();
    let f32s = |name: &str| -> Vec<f32> { g.f64s(name).iter().map(|v| *v as f32).collect() };
    let none = Matrix::new(0, 20, Vec::new());
    let layer = Layer {
        q: Matrix::new(24, 20, f32s("cr.wq")),
        k: Matrix::new(12, 20, f32s("cr.wk")),
        v: none.clone(),
        o: none.clone(),
        gate: none.clone(),
        up: none.clone(),
        down: none,
        biases: [Some(f32s("cr.bq")), Some(f32s("cr.bk")), None, None, None, None, None],
    };
    let inputs = Calibration::new(80, f32s("cr.mean"), f32s("cr.cx")).unwrap();
    let heads = Heads { kv_heads: 1, group: 2, dim: 12, rotary: 12, interleaved: false };
    let pairs = choose_pairs(&layer, &inputs, &heads, 4);
    assert_eq!(pairs, [g.u32s("cr.pairs").iter().map(|i| *i as usize).collect::<Vec<_>>()]);
    // The norms of the columns of the square roots, whose products numpy took, are the roots of the diagonals.
    let square = |w: &str, b: &str, row: usize| -> f64 {
        let (w, b) = (g.f64s(w)[row * 20..(row + 1) * 20].to_vec(), g.f64s(b)[row]);
        let (cx, mean) = (g.f64s("cr.cx"), g.f64s("cr.mean"));
        let quadratic: f64 = (0..20).map(|i| (0..20).map(|j| w[i] * cx[i * 20 + j] * w[j]).sum::<f64>()).sum();
        quadratic + 2.0 * b * w.iter().zip(&mean).map(|(w, m)| w * m).sum::<f64>() + b * b
    };
    let expected = g.f64s("cr.single");
    for head in 0..2 {
        let q: Vec<f64> = (0..12).map(|i| square("cr.wq", "cr.bq", head * 12 + i)).collect();
        let k: Vec<f64> = (0..12).map(|i| square("cr.wk", "cr.bk", i)).collect();
        for (found, expected) in cr_scores(&q, &k).iter().zip(&expected[head * 12..]) {
            assert!((found - expected).abs() < 1e-9 * expected.abs(), "{found} instead of {expected}");
        }
    }
}

#[test]
fn nystrom_is_exact_where_the_rank_is_no_more_than_what_is_kept() {
    let mut random = Random::new(3);
    // 16 channels that are mixtures of 5 sources.
    let mix = Mat::from_fn(16, 5, |_, _| f64::from(random.normal()));
    let c = &mix * mix.transpose();
    let found = nystrom(&c, 5, 1e-3).unwrap();
    let w = Mat::from_fn(3, 16, |_, _| f64::from(random.normal()));
    // E‖(W − W R S) h‖², S choosing the kept channels.
    let chosen = Mat::from_fn(5, 16, |i, j| f64::from(u8::from(found.kept[i] == j)));
    let lost = &w - &w * &found.reconstruction * chosen;
    let (error, all) = (&lost * &c * lost.transpose(), &w * &c * w.transpose());
    let trace = |m: &Mat<f64>| (0..3).map(|i| m[(i, i)]).sum::<f64>();
    assert!(trace(&error).abs() < 1e-6 * trace(&all), "{} of {}", trace(&error), trace(&all));
    // And one too few is not.
    let found = nystrom(&c, 4, 1e-3).unwrap();
    let chosen = Mat::from_fn(4, 16, |i, j| f64::from(u8::from(found.kept[i] == j)));
    let lost = &w - &w * &found.reconstruction * chosen;
    assert!(trace(&(&lost * &c * lost.transpose())) > 1e-4 * trace(&all));
}

#[test]
fn moments_without_sense_are_refused() {
    let nan = Mat::from_fn(4, 4, |_, _| f64::NAN);
    assert!(nystrom(&nan, 2, 1e-3).is_err());
    assert!(value_basis(&nan, &Mat::identity(4, 4), 2).is_err());
    // Nothing ever came in: nothing is lost.
    let zero = Mat::<f64>::zeros(4, 4);
    assert!(nystrom(&zero, 2, 1e-3).unwrap().reconstruction.norm_l2() == 0.0);
    assert!(value_basis(&zero, &zero, 2).unwrap().into.norm_l2() == 0.0);
}

#[test]
fn layers_share_the_loss_as_numpy_has_it() {
    let g = golden();
    let influence = g.f64s("shares.influence");
    for (case, share, epsilon) in [("mild", 0.3, 0.5), ("clamped", 0.4, 0.08)] {
        let found = allocate(&influence, share, epsilon, 0.8);
        for (found, expected) in found.iter().zip(g.f64s(&format!("shares.{case}"))) {
            assert!((found - expected).abs() < 1e-9, "{case}: {found} instead of {expected}");
        }
        assert!((found.iter().sum::<f64>() / 8.0 - share).abs() < 1e-12);
    }
    assert_eq!(allocate(&influence, 0.25, f64::INFINITY, 0.8), [0.25; 8]);
    // What an exponential cannot tell apart any more.
    let steep = allocate(&influence, 0.5, 1e-3, 0.8);
    assert!(
        steep.iter().all(|s| (0.0..=0.8).contains(s)) && (steep.iter().sum::<f64>() - 4.0).abs() < 1e-9,
        "{steep:?}"
    );
}

#[test]
fn an_mlp_that_reads_digits_can_do_without_most_of_its_units() {
    let g = golden();
    let (w1, b1, w2, b2) = (g.f32s("digits.w1"), g.f32s("digits.b1"), g.f32s("digits.w2"), g.f32s("digits.b2"));
    let (x, y) = (g.u16s("digits.x"), g.u16s("digits.y"));
    // Accuracy with these hidden units and a second matrix of theirs, [10, units].
    let accuracy = |units: &[usize], second: &dyn Fn(usize, usize) -> f64| {
        let right = x.chunks_exact(64).zip(&y).filter(|(x, label)| {
            let hidden: Vec<f64> = units
                .iter()
                .map(|unit| {
                    let row = &w1[unit * 64..][..64];
                    let sum: f64 = row.iter().zip(*x).map(|(w, x)| f64::from(*w) * f64::from(*x) / 16.0).sum();
                    (sum + f64::from(b1[*unit])).max(0.0)
                })
                .collect();
            let score = |class: usize| -> f64 {
                f64::from(b2[class]) + hidden.iter().enumerate().map(|(i, h)| h * second(class, i)).sum::<f64>()
            };
            let best = (0..10).max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap();
            best == usize::from(**label)
        });
        right.count() as f64 / y.len() as f64
    };
    let weight = |class: usize, unit: usize| f64::from(w2[class * 64 + unit]);
    let all: Vec<usize> = (0..64).collect();
    let dense = accuracy(&all, &weight);
    let found = nystrom(&matrix(&g.f64s("digits.moments"), 64, 64), 24, 1e-3).unwrap();
    let second = matrix(&w2.iter().map(|w| f64::from(*w)).collect::<Vec<_>>(), 10, 64) * &found.reconstruction;
    let reconstructed = accuracy(&found.kept, &|class, i| second[(class, i)]);
    let same = accuracy(&found.kept, &|class, i| weight(class, found.kept[i]));
    let norm = |unit: usize| (0..10).map(|class| weight(class, unit).powi(2)).sum::<f64>();
    let mut by_norm = all.clone();
    by_norm.sort_by(|a, b| norm(*b).total_cmp(&norm(*a)));
    by_norm.truncate(24);
    let plain = accuracy(&by_norm, &|class, i| weight(class, by_norm[i]));
    println!("dense {dense:.3}, Nyström {reconstructed:.3}, its units as they are {same:.3}, by norm {plain:.3}");
    assert!(dense >= 0.96 && reconstructed >= 0.95 && plain <= 0.70 && same < reconstructed);
}

/// What became of a tensor of a family's model: the role its name means, whatever the file calls it.
fn role(name: &str) -> &'static str {
    const NAMES: [(&str, &str); 12] = [
        ("qkv", "qkv"), // before those whose names are part of it
        ("gate_up", "gate_up"),
        ("q_proj.", "q"),
        ("attn_q.", "q"),
        ("k_proj.", "k"),
        ("attn_k.", "k"),
        ("v_proj.", "v"),
        ("attn_v.", "v"),
        ("gate_proj.", "gate"),
        ("ffn_gate.", "gate"),
        ("ffn_up.", "up"),
        ("up_proj.", "up"),
    ];
    NAMES.iter().find(|(part, _)| name.contains(part)).map_or("", |(_, role)| role)
}

/// A model that can lose half of its dimensions without losing anything: half of each key head's pairs are zero, values are of half rank, and
/// half of the MLP's channels never open.
fn redundant(checkpoint: &Checkpoint, config: &Config, random: &mut Random) -> (Checkpoint, Vec<usize>) {
    let (dim, kv) = (config.head_dim as usize, config.kv_heads as usize);
    let rotary = config.rope.rotary_dim;
    let alive = (rotary / 2) / 2 * 2 / 2;
    let rank = dim / 2 / 2 * 2;
    let queries = (config.heads as usize) * dim;
    let mlp = config.intermediate as usize;
    let dead_channels: Vec<usize> = (0..mlp).filter(|channel| channel % 4 < 2).collect();
    let mut dead_pairs = Vec::new();
    for _ in 0..kv {
        let mut pairs: Vec<usize> = (0..rotary / 2).collect();
        for _ in 0..alive {
            pairs.remove(random.below(pairs.len() as u32) as usize);
        }
        dead_pairs.push(pairs);
    }
    let keys = |rows: &mut [f32], cols: usize| {
        for (head, pairs) in dead_pairs.iter().enumerate() {
            for pair in pairs {
                let dims = match config.rope_style {
                    RopeStyle::Interleaved => [2 * pair, 2 * pair + 1],
                    _ => [*pair, pair + rotary / 2],
                };
                dims.iter().for_each(|d| rows[(head * dim + d) * cols..][..cols].fill(0.0));
            }
        }
    };
    // Rows past the rank are mixtures of those before.
    let mixes: Vec<f32> = random.normals(kv * dim * rank);
    let values = |rows: &mut [f32], cols: usize| {
        for head in 0..kv {
            for row in rank..dim {
                for col in 0..cols {
                    let at = |row: usize| (head * dim + row) * cols + col;
                    let mix = &mixes[(head * dim + row) * rank..][..rank];
                    rows[at(row)] = (0..rank).map(|r| mix[r] * rows[at(r)]).sum::<f32>() * 0.3;
                }
            }
        }
    };
    let gates = |rows: &mut [f32], cols: usize| {
        dead_channels.iter().for_each(|channel| rows[channel * cols..][..cols].fill(0.0));
    };
    let model = rewritten(checkpoint, |name, shape, v| {
        let cols = if shape.len() == 2 { shape[1] } else { 1 };
        if name.contains("norm") {
            return;
        }
        match role(name) {
            "k" => keys(v, cols),
            "v" => values(v, cols),
            "qkv" => {
                keys(&mut v[queries * cols..][..kv * dim * cols], cols);
                values(&mut v[(queries + kv * dim) * cols..], cols);
            }
            "gate" => gates(v, cols),
            // The gate comes first where both are one tensor.
            "gate_up" => gates(v, cols),
            "up" if shape[0] == 2 * mlp => gates(v, cols),
            _ => {}
        }
    });
    (model, dead_channels)
}

fn calibration(random: &mut Random, cols: usize, dead: &[usize]) -> std::sync::Arc<Calibration> {
    let tokens = 3 * cols;
    let mut mean = vec![0.0f32; cols];
    let mut moments = vec![0.0f32; cols * cols];
    for _ in 0..tokens {
        let mut x: Vec<f32> = random.normals(cols).iter().map(|v| v + 0.2).collect();
        dead.iter().for_each(|channel| x[*channel] = 0.0);
        for i in 0..cols {
            mean[i] += x[i] / tokens as f32;
            (0..cols).for_each(|j| moments[i * cols + j] += x[i] * x[j] / tokens as f32);
        }
    }
    std::sync::Arc::new(Calibration::new(tokens as u64, mean, moments).unwrap())
}

fn statistics(config: &Config, random: &mut Random, dead: &[usize]) -> Statistics {
    let layer = |random: &mut Random| LayerStatistics {
        input: calibration(random, config.hidden as usize, &[]),
        attended: calibration(random, config.q_width() as usize, &[]),
        hidden: calibration(random, config.intermediate as usize, dead),
    };
    let layers = (0..config.layers).map(|_| layer(random)).collect();
    Statistics { layers, influence: vec![0.1; config.layers as usize] }
}

#[test]
fn a_redundant_model_loses_nothing() {
    let gpu = &gpus()[0];
    let mut random = Random::new(11);
    let hugging_face = families::DECODERS.map(|family| (family, families::open(family, "config.json")));
    // Other names, and for Llama pairs of neighbouring dimensions.
    let gguf = ["llama", "llama_bias", "phi3", "gemma2"].map(|family| (family, Converted::of(family).open()));
    for (family, original) in hugging_face.into_iter().chain(gguf) {
        let config = Config::read(&original).unwrap();
        let (model, dead) = redundant(&original, &config, &mut random);
        let statistics = statistics(&config, &mut random, &dead);
        let normed = config.architecture.qk_norm();
        let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % config.vocab).collect();
        let expected = logits(&load(gpu, &model, 64), &ids, 64, &[40]);
        let modules = ["mlp=off,vo=off", "qk=off,vo=off", "mlp=off,qk=off", "mlp=on", "qk=off"];
        let modules = modules.into_iter().filter(|options| !normed || options.contains("qk=off"));
        for options in modules {
            let recipe = Recipe::parse(&format!("modegpt:ratio=50,epsilon=inf,align=4,{options}")).unwrap();
            let stage = recipe.shrink().unwrap();
            let small = shrink(&model, stage, None, Some(&statistics), &Monitor::none()).unwrap();
            let shape = Config::read(&small).unwrap().shape(0);
            assert_eq!(shape.v_dim < config.head_dim, !options.contains("vo=off"), "{family} {options}: {shape:?}");
            assert_eq!(shape.qk_dim < config.head_dim, !options.contains("qk=off"), "{family} {options}: {shape:?}");
            let halved = shape.intermediate == config.intermediate / 2;
            assert_eq!(halved, !options.contains("mlp=off"), "{family} {options}: {shape:?}");
            let small = load(gpu, &small, 64);
            for pieces in [&[40][..], &[7, 1, 1, 31]] {
                let worst = worst(&logits(&small, &ids, 64, pieces), &expected);
                assert!(worst < 1e-3, "{family} {options} in pieces of {pieces:?}: {worst}");
            }
        }
        let options = if normed { ",qk=off" } else { "" };
        let recipe = Recipe::parse(&format!("modegpt:ratio=50,epsilon=inf,align=4{options}")).unwrap();
        let stage = recipe.shrink().unwrap();
        // A model that lost what it needs is another: the test can fail.
        let (other, _) = redundant(&original, &config, &mut random);
        let harmed = shrink(&original, stage, None, Some(&statistics), &Monitor::none()).unwrap();
        let expected = logits(&load(gpu, &other, 64), &ids, 64, &[40]);
        assert!(worst(&logits(&load(gpu, &harmed, 64), &ids, 64, &[40]), &expected) > 1e-2, "{family}");
    }
}

#[test]
fn norms_of_whole_heads_stand_in_the_way() {
    let original = families::open("qwen3", "config.json");
    let config = Config::read(&original).unwrap();
    let statistics = statistics(&config, &mut Random::new(1), &[]);
    let recipe = Recipe::parse("modegpt:ratio=50").unwrap();
    let refused = |statistics| shrink(&original, recipe.shrink().unwrap(), None, statistics, &Monitor::none());
    let error = refused(Some(&statistics)).unwrap_err();
    assert!(matches!(error, ModelError::Shrink { .. }) && error.to_string().contains("add qk=off"), "{error}");
    assert!(refused(None).unwrap_err().to_string().contains("needs a calibration text"));
}
