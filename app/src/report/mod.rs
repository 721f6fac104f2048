//! What a comparison looks like: as tables and texts on a terminal, and as a page.

pub mod html;
pub mod plot;
pub mod text;

use std::collections::BTreeMap;

use tersor_engine::session::report::{Comparison, Fallback, Variant, Weights};

use crate::table::{Align, Table};
use crate::units::{megabytes, significant};

/// One row for each form of the model.
pub fn table(comparison: &Comparison) -> Table {
    let mut table = Table::new([
        ("weights", Align::Left),
        ("MB", Align::Right),
        ("bits/w", Align::Right),
        ("PPL", Align::Right),
        ("±", Align::Right),
        ("KLD mean", Align::Right),
        ("99.9 %", Align::Right),
        ("max", Align::Right),
        ("same top %", Align::Right),
        ("prefill tok/s", Align::Right),
        ("decode tok/s", Align::Right),
        ("first token ms", Align::Right),
        ("GPU MB", Align::Right),
    ]);
    for variant in &comparison.variants {
        table.row(row(variant));
    }
    table.without_empty_columns()
}

fn row(variant: &Variant) -> Vec<String> {
    let perplexity = variant.quality.as_ref().map(|q| q.perplexity);
    let divergence = variant.quality.as_ref().and_then(|q| q.divergence.as_ref());
    let text = |value: Option<String>| value.unwrap_or_default();
    vec![
        variant.recipe.clone(),
        format!("{:.1}", megabytes(variant.weights.bytes)),
        format!("{:.2}", variant.weights.bits_per_weight),
        text(perplexity.map(|p| format!("{:.3}", p.value))),
        text(perplexity.map(|p| format!("{:.3}", p.standard_error))),
        text(divergence.map(|d| significant(d.kl_divergence.mean))),
        text(divergence.map(|d| significant(d.kl_divergence.percentile_99_9))),
        text(divergence.map(|d| significant(d.kl_divergence.max))),
        text(divergence.map(|d| format!("{:.2}", 100.0 * d.same_top.value))),
        text(variant.speed.map(|s| significant(s.prefill_tokens_per_second))),
        text(variant.speed.map(|s| significant(s.decode_tokens_per_second))),
        text(variant.speed.map(|s| format!("{:.0}", s.first_token_ms))),
        format!("{:.1}", megabytes(variant.memory.peak)),
    ]
}

/// Which tensors another codec than the recipe's had to take, in one line for each pair of codecs.
pub fn fallbacks(recipe: &str, weights: &Weights) -> Vec<String> {
    let mut pairs: BTreeMap<(&str, &str), Vec<&Fallback>> = BTreeMap::new();
    for fallback in &weights.fallbacks {
        pairs.entry((&fallback.asked, &fallback.used)).or_default().push(fallback);
    }
    pairs
        .into_iter()
        .map(|((asked, used), tensors)| {
            let names: Vec<&str> = tensors.iter().take(3).map(|f| f.tensor.as_str()).collect();
            let more = if tensors.len() > names.len() { ", …" } else { "" };
            let count = tensors.len();
            let noun = if count == 1 { "tensor" } else { "tensors" };
            let names = names.join(", ");
            format!("{recipe}: {used} for {count} {noun} whose rows {asked} cannot hold ({names}{more})")
        })
        .collect()
}

/// What the numbers were measured with, in one line.
pub fn setting(comparison: &Comparison) -> String {
    let Comparison { device, model, text, .. } = comparison;
    let mut parts = vec![format!("{} on {} ({}, tier {})", model.name, device.name, device.driver, device.tier)];
    if let Some(text) = text {
        parts.push(format!(
            "{} positions of {} in {} windows of {} tokens",
            text.positions, text.name, text.windows, text.context
        ));
    }
    if let Some(seed) = model.rotation {
        parts.push(format!("rotated with seed {seed}, which leaves the function as it is"));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tersor_engine::session::report::*;

    /// A comparison of an original with one compression, as a demo would give it.
    pub fn comparison() -> Comparison {
        let weights = |bytes: u64, fallbacks: Vec<Fallback>, tensors: Vec<TensorError>| Weights {
            bytes,
            bits_per_weight: bytes as f64 / 1e6,
            codecs: vec![("q5_0".into(), 2)],
            fallbacks,
            tensors,
            encode_seconds: 0.5,
        };
        let divergence = Divergence {
            ln_perplexity_ratio: Estimate { value: 0.01, standard_error: 0.001 },
            kl_divergence: Distribution {
                mean: 0.0123,
                standard_error: 0.0004,
                median: 0.004,
                percentile_99: 0.1,
                percentile_99_9: 0.5,
                max: 1.5,
            },
            delta_p_mean: -0.001,
            delta_p_rms: 0.02,
            same_top: Estimate { value: 0.9512, standard_error: 0.002 },
            top5_overlap: 0.9,
            flips: 3,
            layers: (0..4).map(|layer| LayerDrift { layer, nmse: 1e-3 * f64::from(layer + 1), cosine: 0.99 }).collect(),
        };
        let quality = |divergence| Quality {
            perplexity: Estimate { value: 18.25, standard_error: 0.4 },
            bits_per_byte: None,
            divergence,
        };
        let speed = Speed {
            prefill_tokens: 20,
            prefill_tokens_per_second: 123.4,
            decode_tokens: 31,
            decode_tokens_per_second: 5.67,
            first_token_ms: 250.0,
        };
        let generation = |pieces: [&str; 3], first_difference| Generation {
            text: pieces.concat(),
            tokens: vec![1, 2, 3],
            pieces: pieces.map(str::to_owned).to_vec(),
            stop: Stop::Length,
            first_difference,
        };
        let fallback = |tensor: &str| Fallback { tensor: tensor.into(), asked: "q4_k".into(), used: "q5_0".into() };
        Comparison {
            version: "0.1.0".into(),
            device: Device {
                name: "llvmpipe (Vulkan)".into(),
                driver: "Mesa".into(),
                tier: tersor_engine::gpu::Tier { f16: true, subgroup: true },
                limits: "adapter".into(),
                software: true,
            },
            model: Model {
                name: "m.gguf".into(),
                architecture: "llama".into(),
                parameters: 8_000_000,
                file_bytes: 16_000_000,
                rotation: Some(1),
            },
            text: Some(TextInfo { name: "eval.txt".into(), bytes: 9, context: 256, windows: 4, positions: 1020 }),
            prompt: Some("the sun and".into()),
            variants: vec![
                Variant {
                    recipe: "bf16".into(),
                    weights: weights(16_000_000, vec![], vec![]),
                    quality: Some(quality(None)),
                    speed: Some(speed),
                    memory: Memory { peak: 20_000_000, ..Memory::default() },
                    generation: Some(generation([" the", " stars", "<script>alert(1)</script>"], None)),
                },
                Variant {
                    recipe: "q4_k".into(),
                    weights: weights(
                        5_500_000,
                        vec![fallback("a"), fallback("b")],
                        vec![TensorError { tensor: "a".into(), codec: "q5_0".into(), nmse: 1e-3 }],
                    ),
                    quality: Some(quality(Some(divergence))),
                    speed: Some(speed),
                    memory: Memory { peak: 9_000_000, ..Memory::default() },
                    generation: Some(generation([" the", " moon", "."], Some(1))),
                },
            ],
            seconds: 12.0,
        }
    }

    #[test]
    fn the_table_shows_what_was_measured() {
        let shown = table(&comparison()).to_string();
        let last = shown.lines().last().unwrap();
        for value in ["q4_k", "5.5", "18.250", "0.0123", "95.12", "5.67", "250", "9.0"] {
            assert!(last.split_whitespace().any(|cell| cell == value), "{value} in {last}");
        }
        let mut without_text = comparison();
        without_text.variants.iter_mut().for_each(|v| v.quality = None);
        assert!(!table(&without_text).header().any(|name| name == "PPL"));
    }

    #[test]
    fn fallbacks_are_told_by_pairs_of_codecs() {
        let lines = fallbacks("q4_k", &comparison().variants[1].weights);
        assert_eq!(lines, ["q4_k: q5_0 for 2 tensors whose rows q4_k cannot hold (a, b)"]);
    }
}
