//! What the scripted client finds out: always the same numbers, of the right shape.

use tersor_engine::bench::{self, Bound, Ceilings, Clock, Findings, Measurement, Plan, Skipped, Times, Work};
use tersor_engine::gpu::{AdapterSummary, Tier};
use tersor_engine::session::report::*;
use tersor_engine::session::{self, Recipe};

use super::scripted::PART;

pub fn adapter() -> AdapterSummary {
    AdapterSummary {
        index: 0,
        name: "Example GPU 4000".into(),
        backend: "Vulkan".into(),
        kind: "DiscreteGpu".into(),
        driver: "example 1.0".into(),
        tier: Tier { f16: true, subgroup: true },
        subgroup_size: [32, 32],
        timestamps: true,
        max_buffer: 4 << 30,
        max_binding: 2 << 30,
        max_storage_buffers: 16,
        max_invocations: 1024,
        workgroup_memory: 32 << 10,
        memory: Some(8 << 30),
    }
}

fn model() -> Model {
    Model {
        name: "tiny".into(),
        architecture: "llama".into(),
        parameters: 3_221_760,
        file_bytes: 6_446_000,
        rotation: None,
    }
}

fn tensors() -> Vec<TensorRow> {
    let row = |name: String, shape: [u64; 2]| TensorRow {
        bytes: 2 * shape[0] * shape[1],
        name,
        shape: shape.to_vec(),
        dtype: "BF16".into(),
    };
    let mut rows = vec![row("model.embed_tokens.weight".into(), [512, 256])];
    for layer in 0..6 {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        rows.extend(["q", "k", "v", "o"].map(|part| row(name(&format!("self_attn.{part}_proj")), [256, 256])));
        rows.extend(["gate", "up"].map(|part| row(name(&format!("mlp.{part}_proj")), [512, 256])));
        rows.push(row(name("mlp.down_proj"), [256, 512]));
    }
    rows
}

pub fn inspection(tensor: Option<&str>) -> Inspection {
    let tensors = tensors();
    let statistics = tensor.map(|name| TensorStatistics {
        tensor: tensors.iter().find(|row| row.name == name).unwrap().clone(),
        min: -0.42,
        max: 0.44,
        mean: 0.0003,
        standard_deviation: 0.061,
        zeros: 0.0002,
        not_finite: 0,
        kurtosis: 4.2,
        histogram: (0..41).map(|i| (40_000.0 * (-0.5 * (f64::from(i) / 3.4 - 5.88).powi(2)).exp()) as u64).collect(),
        first: vec![0.01, -0.02],
    });
    Inspection { model: model(), container: "safetensors".into(), metadata: Vec::new(), tensors, statistics }
}

fn weights(recipe: Option<&Recipe>) -> Weights {
    session::plan(&tensors(), recipe, false).unwrap()
}

pub fn loaded(recipe: Option<&Recipe>) -> Loaded {
    let weights = weights(recipe);
    Loaded {
        device: device(),
        model: model(),
        memory: Memory { weights: weights.bytes, kv_cache: 0, scratch: 0, peak: weights.bytes + 2_400_000 },
        weights,
        context: 1024,
        chat: false,
    }
}

fn device() -> Device {
    Device {
        name: "Example GPU 4000 (Vulkan)".into(),
        driver: "example 1.0".into(),
        tier: Tier { f16: true, subgroup: true },
        limits: "adapter".into(),
        software: false,
    }
}

pub fn scores(tokens: &[u32]) -> Scores {
    let candidate = |token, text: &str, probability| Candidate { token, text: text.into(), probability };
    let score = |(i, token): (usize, &u32)| Scored {
        token: *token,
        // Calm, then a burst where the texts part, then calmer again.
        kl_divergence: [0.0004, 0.003, 0.02, 0.0008, 0.09][i % 5] * if i == PART { 30.0 } else { 1.0 },
        probability: [0.8, 0.7],
        best: [
            vec![candidate(1, " must", 0.71), candidate(2, " might", 0.12)],
            vec![candidate(2, " might", 0.44), candidate(1, " must", 0.39)],
        ],
    };
    Scores { tokens: tokens.iter().enumerate().map(score).collect() }
}

pub fn comparison(command: &session::Compare) -> Comparison {
    let text = command.text.as_ref().unwrap();
    let quality = |perplexity: f64, kl: Option<f64>| Quality {
        perplexity: Estimate { value: perplexity, standard_error: 0.02 * perplexity },
        bits_per_byte: Some(1.9),
        divergence: kl.map(|kl| Divergence {
            ln_perplexity_ratio: Estimate { value: kl / 3.0, standard_error: 0.001 },
            kl_divergence: Distribution {
                mean: kl,
                standard_error: 0.05 * kl,
                median: 0.4 * kl,
                percentile_99: 6.0 * kl,
                percentile_99_9: 11.0 * kl,
                max: 20.0 * kl,
            },
            delta_p_mean: -0.001,
            delta_p_rms: 0.02,
            same_top: Estimate { value: 1.0 - kl.sqrt() / 3.0, standard_error: 0.002 },
            top5_overlap: 0.9,
            flips: 3,
            layers: Vec::new(),
        }),
    };
    let variant = |recipe: &str, quality| Variant {
        recipe: recipe.to_owned(),
        weights: weights(Some(&Recipe::Codec(recipe.to_owned()))),
        quality: Some(quality),
        embeddings: None,
        speed: None,
        memory: Memory::default(),
        generation: None,
        attention: None,
    };
    let mut variants = vec![variant("bf16", quality(7.9, None))];
    for recipe in &command.recipes {
        let bits = weights(Some(recipe)).bits_per_weight;
        let kl = 4.0 * (-1.1 * bits).exp();
        let mut found = variant(recipe.name(), quality(7.9 * (1.0 + kl / 3.0), Some(kl)));
        let errors = tensors().into_iter().enumerate().map(|(i, row)| TensorError {
            tensor: row.name,
            codec: recipe.name().to_owned(),
            nmse: 0.3 * (-1.3 * bits).exp() * (1.0 + (i * i % 7) as f64),
        });
        found.weights.tensors = errors.collect();
        found.speed = Some(Speed {
            prefill_tokens: 9,
            prefill_tokens_per_second: 800.0,
            decode_tokens: 23,
            decode_tokens_per_second: 400.0 / bits,
            first_token_ms: 11.0,
        });
        variants.push(found);
    }
    Comparison {
        version: "0.1.0".into(),
        device: device(),
        model: model(),
        text: Some(TextInfo {
            name: text.name.clone(),
            bytes: 71_000,
            context: command.context,
            windows: command.windows.unwrap_or(1).into(),
            positions: 510,
        }),
        prompt: None,
        variants,
        seconds: 1.0,
    }
}

/// A report as the command line of another machine writes it: of these recipes, on a device of this name.
pub fn report(recipes: &[&str], device: &str) -> Vec<u8> {
    let command = session::Compare {
        source: session::Source::Path("tiny".into()),
        recipes: recipes.iter().map(|recipe| Recipe::Codec((*recipe).to_owned())).collect(),
        dense: "bf16".into(),
        rotation: None,
        text: Some(tersor::bundled::text()),
        context: 512,
        windows: Some(4),
        input: None,
        tokens: 0,
        attention: Vec::new(),
        calibration: session::Calibration::default(),
    };
    let mut found = comparison(&command);
    found.device.name = device.to_owned();
    for variant in &mut found.variants {
        if let Some(speed) = &mut variant.speed {
            speed.decode_tokens_per_second *= 2.5;
        }
        if let Some(divergence) = variant.quality.as_mut().and_then(|quality| quality.divergence.as_mut()) {
            divergence.kl_divergence.mean *= 0.8;
        }
    }
    serde_json::to_vec(&Report::Compare(found)).unwrap()
}

/// Every case that the plan chooses, at the share of its roof that its place in the list says.
pub fn benchmark(plan: &Plan) -> Benchmark {
    let ceilings = Ceilings {
        buffer_bytes: 256 << 20,
        copy_gb_per_s: 402.0,
        read_gb_per_s: 431.0,
        fma_gflop_per_s: 17_800.0,
        dispatch_us: 2.1,
        record_us: 0.9,
        submit_us: 24.0,
        readback_us: 61.0,
    };
    let measurement = |(i, case): (usize, bench::Case)| {
        let bits = [16.0, 8.5, 4.5, 3.25, 9.5, 9.0, 11.0, 16.5][i % 8];
        let (bytes, operations) = match &case.work {
            Work::Linear { rows, cols, tokens, .. } => {
                let (weights, tokens) = (u64::from(rows * cols), u64::from(*tokens));
                ((weights as f64 * bits / 8.0) as u64 + 4 * tokens * u64::from(rows + cols), 2 * weights * tokens)
            }
            Work::Prefill { heads, head_dim, tokens: n, .. } | Work::Decode { heads, head_dim, keys: n, .. } => {
                let (values, n) = (u64::from(heads * head_dim), u64::from(*n));
                let queries = if matches!(case.work, Work::Prefill { .. }) { n / 2 } else { 1 };
                (4 * values * (n + queries), 4 * values * n * queries)
            }
        };
        let (moving, computing) = (bytes as f64 / 431e3, operations as f64 / 17.8e6);
        let roof_fraction = 0.28 + 0.09 * (i * 5 % 8) as f64;
        let median_us = moving.max(computing) / roof_fraction;
        Measurement {
            name: case.to_string(),
            kernel: "example lanes=32".into(),
            times: Times { median_us, q1_us: 0.98 * median_us, q3_us: 1.03 * median_us, samples: 20, runs: 8 },
            bytes,
            operations,
            bits,
            copies: 4,
            gb_per_s: 1e-3 * bytes as f64 / median_us,
            gflop_per_s: 1e-3 * operations as f64 / median_us,
            bound: if computing > moving { Bound::Compute } else { Bound::Memory },
            roof_fraction,
        }
    };
    let mut cases = bench::chosen(&plan.filter, plan.quick);
    let last = cases.pop().map(|case| Skipped { name: case.to_string(), why: "there is no room for it".into() });
    let (clock, clock_reason) = (Clock::DeviceTimestamps, None);
    let measurements = cases.into_iter().enumerate().map(measurement).collect();
    Benchmark {
        version: "0.1.0".into(),
        device: device(),
        plan: plan.clone(),
        findings: Findings { clock, clock_reason, ceilings, measurements, skipped: last.into_iter().collect() },
        seconds: 43.0,
    }
}

/// Every head sees the first block, its own, and some that depend on its number and the layer's.
pub fn attended(command: &session::Attend) -> Attended {
    let block = command.attention.split("block=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
    let (block, heads): (u32, u32) = (block.unwrap(), 8);
    let row = |i: u32| {
        let sees = |head: u32, j: u32| {
            j == 0 || j == i || (i - j).is_multiple_of(head + 3) || (j * 7 + head + command.layer) % 11 == 3
        };
        AttendedRow {
            position: i * block,
            tokens: block.min(command.tokens - i * block),
            visible: [0, i + 1],
            kept: (0..heads).map(|head| (0..=i).filter(|j| sees(head, *j)).collect()).collect(),
        }
    };
    let rows: Vec<AttendedRow> = (0..command.tokens.div_ceil(block)).map(row).collect();
    let kept: usize = rows.iter().flat_map(|row| &row.kept).map(Vec::len).sum();
    let visible: u32 = rows.iter().map(|row| heads * row.visible[1]).sum();
    let attention = AttentionUse {
        policy: command.attention.clone(),
        kept_blocks: kept as u64,
        visible_blocks: u64::from(visible),
        kept_fraction: kept as f64 / f64::from(visible),
    };
    Attended { layer: command.layer, layers: 6, heads, tokens: command.tokens, block, rows, attention }
}
