//! What a comparison, or a benchmark, looks like: as tables and texts on a terminal, and as a page.

pub mod bench;
pub mod bench_model;
pub mod html;
#[cfg(all(feature = "gui", not(target_arch = "wasm32")))]
pub mod picture;
pub mod plot;
pub mod roofline;
pub mod text;

use std::collections::BTreeMap;

use tersor_engine::session::report::{
    CalibrationInfo, Comparison, Device, Estimate, Fallback, Model, TextInfo, Variant, Weights,
};

use crate::table::{Align, Table, width, wrap};
use crate::units::{bytes, count, megabytes, significant};

/// What a comparison says on a terminal of `width` columns, if that is known: setting, table, texts.
pub fn terminal(comparison: &Comparison, width: Option<usize>, colour: bool) -> String {
    let Comparison { model, device, text, prompt, .. } = comparison;
    let mut out = lines(&setting(model, device, text.as_ref(), calibration(comparison), prompt.as_deref()), width);
    out.push('\n');
    out.push_str(&table(comparison).fit(width));
    for (i, line) in comparison.variants.iter().flat_map(|v| fallbacks(&v.recipe, &v.weights)).enumerate() {
        out.push_str(&format!("{}{}\n", if i == 0 { "\n" } else { "" }, wrap(&line, width, 2)));
    }
    format!("{out}\n{}", text::terminal(comparison, width, colour))
}

/// Names and what they are, one below the other.
pub fn lines(pairs: &[(&str, String)], columns: Option<usize>) -> String {
    let longest = pairs.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        let pad = " ".repeat(longest - width(name)); // the longest is as long as any
        format!("{name}{pad}  {}\n", wrap(value, columns, longest + 2))
    };
    pairs.iter().map(line).collect()
}

/// One row for each form of the model. Columns that nothing was measured for are left out: those of perplexity for an encoder,
/// those of embeddings for a language model.
pub fn table(comparison: &Comparison) -> Table {
    let k = comparison.variants.iter().find_map(|v| v.embeddings).map_or(0, |drift| drift.k);
    let recall = format!("recall\n@{k} %");
    let mut table = Table::new([
        ("weights", Align::Left),
        ("MB", Align::Right),
        ("bits\na weight", Align::Right),
        ("cosine\nmean", Align::Right),
        ("cosine\nmedian", Align::Right),
        ("cosine\nmin", Align::Right),
        (&recall, Align::Right),
        ("rank\ncorr.", Align::Right),
        ("PPL", Align::Right),
        ("±", Align::Right),
        ("KLD\nmean", Align::Right),
        ("KLD\n99.9 %", Align::Right),
        ("KLD\nmax", Align::Right),
        ("same\ntop %", Align::Right),
        ("blocks\nkept %", Align::Right),
        ("prefill\ntok/s", Align::Right),
        ("decode\ntok/s", Align::Right),
        ("÷\ndense", Align::Right),
        ("first\ntok ms", Align::Right),
        ("GPU\nMB", Align::Right),
    ]);
    for variant in &comparison.variants {
        table.row(row(variant, comparison.variants.first()));
    }
    table.without_empty_columns()
}

/// The cells of one form of the model, whose speed is set beside the original's.
fn row(variant: &Variant, original: Option<&Variant>) -> Vec<String> {
    let perplexity = variant.quality.as_ref().map(|q| q.perplexity);
    let divergence = variant.quality.as_ref().and_then(|q| q.divergence.as_ref());
    let drift = variant.embeddings;
    let speed = variant.speed;
    // An encoder decodes nothing.
    let decode_of = |v: &Variant| v.speed.filter(|s| s.decode_tokens > 0).map(|s| s.decode_tokens_per_second);
    let decode = decode_of(variant);
    let dense = original.filter(|dense| !std::ptr::eq(*dense, variant)).and_then(decode_of).filter(|d| *d > 0.0);
    let text = |value: Option<String>| value.unwrap_or_default();
    // Enough digits to see the error in, no more.
    let digits = |p: Estimate| if p.value < 100.0 { 3 } else { 1 };
    vec![
        variant.recipe.clone(),
        format!("{:.1}", megabytes(variant.weights.bytes)),
        format!("{:.2}", variant.weights.bits_per_weight),
        text(drift.map(|d| format!("{:.6}", d.cosine_mean))),
        text(drift.map(|d| format!("{:.6}", d.cosine_median))),
        text(drift.map(|d| format!("{:.6}", d.cosine_min))),
        text(drift.map(|d| format!("{:.2}", 100.0 * d.recall))),
        text(drift.map(|d| format!("{:.5}", d.rank_correlation))),
        text(perplexity.map(|p| format!("{:.*}", digits(p), p.value))),
        text(perplexity.map(|p| format!("{:.*}", digits(p), p.standard_error))),
        text(divergence.map(|d| significant(d.kl_divergence.mean))),
        text(divergence.map(|d| significant(d.kl_divergence.percentile_99_9))),
        text(divergence.map(|d| significant(d.kl_divergence.max))),
        text(divergence.map(|d| format!("{:.2}", 100.0 * d.same_top.value))),
        text(variant.attention.as_ref().map(|a| format!("{:.1}", 100.0 * a.kept_fraction))),
        text(speed.map(|s| significant(s.prefill_tokens_per_second))),
        text(decode.map(significant)),
        text(decode.zip(dense).map(|(decode, dense)| format!("{:.2}", decode / dense))),
        text(speed.filter(|s| s.first_token_ms > 0.0).map(|s| format!("{:.0}", s.first_token_ms))),
        format!("{:.1}", megabytes(variant.memory.peak)),
    ]
}

/// Tensors that a line names before it breaks off.
const SHOWN: usize = 3;

/// Which tensors another codec than the recipe's had to take, in one line for each pair of codecs.
pub fn fallbacks(recipe: &str, weights: &Weights) -> Vec<String> {
    let mut pairs: BTreeMap<(&str, &str), Vec<&Fallback>> = BTreeMap::new();
    for fallback in &weights.fallbacks {
        pairs.entry((&fallback.asked, &fallback.used)).or_default().push(fallback);
    }
    pairs
        .into_iter()
        .map(|((asked, used), tensors)| {
            let names: Vec<&str> = tensors.iter().take(SHOWN).map(|f| f.tensor.as_str()).collect();
            let more = if tensors.len() > names.len() { ", …" } else { "" };
            let count = tensors.len();
            let noun = if count == 1 { "tensor" } else { "tensors" };
            let names = names.join(", ");
            text::printable(&format!(
                "{recipe}: {used} for {count} {noun} whose rows {asked} cannot hold ({names}{more})"
            ))
        })
        .collect()
}

/// What the calibrated compressions of a comparison were calibrated on, if there are any.
pub fn calibration(comparison: &Comparison) -> Option<&CalibrationInfo> {
    comparison.variants.iter().find_map(|variant| variant.weights.calibration.as_ref())
}

/// Words as a shell reads them.
pub fn shell(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@".contains(c);
    let word = |word: &str| match word {
        word if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', "'\\''")),
    };
    words.into_iter().map(|part| word(part.as_ref())).collect::<Vec<_>>().join(" ")
}

/// What the numbers were measured with: names and what they are.
pub fn setting(
    model: &Model,
    device: &Device,
    text: Option<&TextInfo>,
    calibration: Option<&CalibrationInfo>,
    prompt: Option<&str>,
) -> Vec<(&'static str, String)> {
    let mut pairs = vec![("model", describe(model))];
    if let Some(seed) = model.rotation {
        let what =
            "the weights are rotated by random orthogonal matrices, which leaves what the model computes as it is";
        pairs.push(("rotation", format!("{what} (seed {seed})")));
    }
    let limits = if device.limits == "adapter" { String::new() } else { format!(", limits {}", device.limits) };
    let software = if device.software { "; a software renderer, whose speeds say nothing about GPUs" } else { "" };
    let driver = driver(&device.name, &device.driver);
    pairs.push(("device", format!("{}, {driver}; tier {}{limits}{software}", device.name, device.tier)));
    if let Some(TextInfo { name, context, windows, positions, .. }) = text {
        let what = if is_encoder(model) {
            format!("{windows} paragraphs of at most {context} tokens, {positions} tokens in all")
        } else {
            format!("{positions} positions in {windows} windows of {context} tokens")
        };
        pairs.push(("text", format!("{name}: {what}")));
    }
    if let Some(CalibrationInfo { text, tokens, .. }) = calibration {
        pairs.push(("calibration", format!("{text}: {tokens} tokens")));
    }
    if let Some(prompt) = prompt {
        pairs.push(("prompt", prompt.to_owned()));
    }
    pairs.into_iter().map(|(name, value)| (name, text::printable(&value))).collect()
}

/// A driver without its first word where the adapter's name has it already: Mesa's llvmpipe is called like its driver.
pub fn driver<'a>(adapter: &str, driver: &'a str) -> &'a str {
    match driver.split_once(' ') {
        Some((first, rest)) if adapter.split_whitespace().any(|word| word == first) => rest,
        _ => driver,
    }
}

/// Whether it makes vectors of texts, and writes none.
pub fn is_encoder(model: &Model) -> bool {
    model.architecture == "bert"
}

/// A model in one line.
pub fn describe(model: &Model) -> String {
    let kind = if model.architecture.is_empty() { "unknown architecture" } else { &model.architecture };
    let (parameters, size) = (count(model.parameters), bytes(model.file_bytes));
    format!("{}: {kind}, {parameters} parameters, {size}", model.name)
}

#[cfg(test)]
pub(crate) mod tests {
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
            calibration: None,
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
                    embeddings: None,
                    attention: None,
                    recipe: "bf16".into(),
                    weights: weights(16_000_000, vec![], vec![]),
                    quality: Some(quality(None)),
                    speed: Some(speed),
                    memory: Memory { peak: 20_000_000, ..Memory::default() },
                    generation: Some(generation([" the", " stars", "<script>alert(1)</script>"], None)),
                },
                Variant {
                    embeddings: None,
                    attention: None,
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

    /// A comparison of an encoder.
    pub fn encoder() -> Comparison {
        let mut found = comparison();
        found.model.architecture = "bert".into();
        for (i, variant) in found.variants.iter_mut().enumerate() {
            (variant.quality, variant.generation) = (None, None);
            let prefill = |s| Speed { decode_tokens: 0, decode_tokens_per_second: 0.0, first_token_ms: 0.0, ..s };
            variant.speed = variant.speed.map(prefill);
            variant.embeddings = (i > 0).then_some(tersor_engine::eval::EmbeddingDrift {
                texts: 4,
                cosine_mean: 0.998_765_4,
                cosine_median: 0.999,
                cosine_min: 0.99,
                recall: 0.9512,
                k: 10,
                rank_correlation: 0.98765,
            });
        }
        found
    }

    #[test]
    fn an_encoder_has_columns_of_its_own() {
        let shown = terminal(&encoder(), Some(80), false);
        for part in ["cosine", "0.998765", "@10 %", "95.12", "0.98765", "4 paragraphs of at most 256 tokens"] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
        for part in ["PPL", "KLD", "decode", "first"] {
            assert!(!shown.contains(part), "{part}:\n{shown}");
        }
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(shell(["a", "q4_k", "sparse:50%", "it's", ""]), r"a q4_k 'sparse:50%' 'it'\''s' ''");
    }

    #[test]
    fn fallbacks_are_told_by_pairs_of_codecs() {
        let lines = fallbacks("q4_k", &comparison().variants[1].weights);
        assert_eq!(lines, ["q4_k: q5_0 for 2 tensors whose rows q4_k cannot hold (a, b)"]);
    }
}
