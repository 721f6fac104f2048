//! The report of a comparison of realistic size: eight forms of a model of thirty layers. The numbers are made up.
//!
//! The page is also written to `target/tmp/report.html`, to be looked at.

use serde_json::Value;
use tersor::report::{html, terminal};
use tersor::table::width;
use tersor_engine::gpu::Tier;
use tersor_engine::session::report::*;

const LAYERS: u32 = 30;

/// Recipe, MB, bits, tensors' NMSE, perplexity, KLD mean / 99.9 % / max, same top, prefill, decode, first ms, first
/// difference.
type Row = (&'static str, f64, f64, f64, f64, [f64; 3], f64, [f64; 3], Option<usize>);

const ROWS: [Row; 8] = [
    ("bf16", 269.1, 16.0, 0.0, 21.437, [0.0; 3], 1.0, [58.4, 6.91, 548.0], None),
    ("q8_0", 143.0, 8.5, 2.1e-5, 21.441, [3.12e-4, 0.0131, 0.0622], 0.9891, [71.2, 10.6, 449.0], None),
    ("q5_1", 101.0, 6.0, 1.1e-3, 21.502, [6.03e-3, 0.171, 1.21], 0.9581, [69.5, 12.3, 460.0], Some(31)),
    ("q4_1", 84.2, 5.0, 5.6e-3, 21.901, [0.0251, 0.552, 2.93], 0.9162, [72.9, 13.9, 439.0], Some(12)),
    ("q4_k", 92.2, 5.42, 2.9e-3, 21.633, [0.0128, 0.304, 1.77], 0.9403, [70.1, 12.8, 456.0], Some(14)),
    ("nf4:block=64", 71.0, 4.13, 8.8e-3, 22.404, [0.0389, 0.861, 3.52], 0.8956, [66.0, 11.1, 485.0], Some(9)),
    ("uniform:bits=3,group=64", 55.1, 3.25, 0.0371, 27.918, [0.211, 3.05, 7.94], 0.7611, [64.7, 12.9, 494.0], Some(4)),
    ("uniform:bits=2,group=64", 38.3, 2.25, 0.181, 612.4, [3.37, 12.8, 21.6], 0.1907, [65.8, 14.4, 486.0], Some(0)),
];

fn tensors() -> Vec<String> {
    let parts = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let layers = (0..LAYERS).flat_map(|layer| parts.map(|part| format!("blk.{layer}.{part}.weight")));
    ["token_embd.weight".to_owned()].into_iter().chain(layers).collect()
}

fn weights(&(recipe, megabytes, bits_per_weight, nmse, ..): &Row) -> Weights {
    let narrow = |tensor: &&String| recipe == "q4_k" && !tensor.contains("ffn_down");
    let used = |tensor: &String| if narrow(&tensor) { "q5_0" } else { recipe };
    let fallback = |tensor: &String| Fallback { tensor: tensor.clone(), asked: recipe.into(), used: "q5_0".into() };
    let all = tensors();
    let spread = |i: usize| nmse * (0.7 + 0.6 * (i as f64 * 0.618).fract());
    let error = |(i, tensor): (usize, &String)| TensorError {
        tensor: tensor.clone(),
        codec: used(tensor).into(),
        nmse: spread(i),
    };
    let mut codecs = vec![(recipe.to_owned(), 211), ("f32".to_owned(), 61)];
    if recipe == "q4_k" {
        codecs = vec![("q5_0".to_owned(), 181), ("f32".to_owned(), 61), ("q4_k".to_owned(), 30)];
    }
    Weights {
        bytes: (megabytes * 1e6) as u64,
        bits_per_weight,
        codecs,
        fallbacks: all.iter().filter(narrow).map(fallback).collect(),
        tensors: if nmse > 0.0 { all.iter().enumerate().map(error).collect() } else { Vec::new() },
        encode_seconds: 2.5,
        calibration: None,
    }
}

fn quality(&(_, _, _, nmse, perplexity, [mean, tail, max], same, ..): &Row) -> Quality {
    let layer = |layer: u32| LayerDrift {
        layer,
        nmse: nmse * (0.3 + 0.07 * f64::from(layer) + 0.2 * (f64::from(layer) * 0.618).fract()),
        cosine: 1.0 - nmse,
    };
    let divergence = Divergence {
        ln_perplexity_ratio: Estimate { value: (perplexity / 21.437).ln(), standard_error: 0.002 },
        kl_divergence: Distribution {
            mean,
            standard_error: mean * 0.03,
            median: mean * 0.4,
            percentile_99: tail * 0.4,
            percentile_99_9: tail,
            max,
        },
        delta_p_mean: -0.1 * mean,
        delta_p_rms: mean.sqrt() * 0.2,
        same_top: Estimate { value: same, standard_error: 0.003 },
        top5_overlap: same * 0.98,
        flips: (4000.0 * (1.0 - same) * 0.5) as u64,
        layers: (0..LAYERS).map(layer).collect(),
    };
    Quality {
        perplexity: Estimate { value: perplexity, standard_error: perplexity * 0.021 },
        bits_per_byte: Some(1.02),
        divergence: (nmse > 0.0).then_some(divergence),
    }
}

const REPLY: &str = "The sky is blue because of a phenomenon called Rayleigh scattering. When sunlight enters the Earth's \
    atmosphere, it is scattered in all directions by the gas molecules – nitrogen and oxygen above all. Blue light, having \
    shorter waves, is scattered about ten times more strongly than red light, so that it reaches us from everywhere.";

fn generation(&(recipe, .., first_difference): &Row) -> Generation {
    let mut pieces: Vec<String> = REPLY.split_inclusive(' ').map(str::to_owned).collect();
    if let Some(at) = first_difference {
        let other = match recipe {
            "uniform:bits=2,group=64" => {
                "\n\n\n的 的 的 🙂\u{1b}[31m</p><script>alert(1)</script> aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
                aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            }
            _ => {
                "sunlight, which has all colours in it, meets the air:\n\n1. short waves are *scattered*;\n2. long waves pass."
            }
        };
        pieces.truncate(at);
        pieces.extend(other.split_inclusive(' ').map(str::to_owned));
    }
    let tokens = (0..pieces.len() as u32).collect();
    Generation { text: pieces.concat(), tokens, pieces, stop: Stop::Length, first_difference }
}

fn comparison() -> Comparison {
    let variant = |row: &Row| {
        let [prefill_tokens_per_second, decode_tokens_per_second, first_token_ms] = row.7;
        let weights = weights(row);
        Variant {
            embeddings: None,
            attention: None,
            recipe: row.0.into(),
            quality: Some(quality(row)),
            speed: Some(Speed {
                prefill_tokens: 32,
                prefill_tokens_per_second,
                decode_tokens: 63,
                decode_tokens_per_second,
                first_token_ms,
            }),
            memory: Memory {
                weights: weights.bytes,
                kv_cache: 94_371_840,
                scratch: 41_000_000,
                peak: weights.bytes + 135_371_840,
            },
            generation: Some(generation(row)),
            weights,
        }
    };
    Comparison {
        version: "0.1.0".into(),
        device: Device {
            name: "llvmpipe (LLVM 19.1.7, 256 bits) (Vulkan)".into(),
            driver: "llvmpipe, Mesa 25.0.7".into(),
            tier: Tier { f16: true, subgroup: true },
            limits: "adapter".into(),
            software: true,
        },
        model: Model {
            name: "SmolLM2-135M-Instruct.Q4_1.gguf".into(),
            architecture: "llama".into(),
            parameters: 134_515_008,
            file_bytes: 98_391_968,
            rotation: Some(1),
        },
        text: Some(TextInfo {
            name: "Mansfield Park, XLVI–XLVIII".into(),
            bytes: 17_842,
            context: 512,
            windows: 8,
            positions: 4088,
        }),
        prompt: Some("Explain in three sentences why the sky is blue.".into()),
        variants: ROWS.iter().map(variant).collect(),
        seconds: 431.7,
    }
}

#[test]
fn a_page_of_real_size() {
    let page = html::page(&comparison(), "tersor compare smollm2-135m --with q8_0 q5_1 --rotate 1");
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/report.html"), &page).unwrap();
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
    assert_eq!(page.matches("<svg").count(), 4);
    assert_eq!(page.matches("<mark>").count(), 6);
    assert_eq!(page.matches("(q5_0)").count(), 181, "every fallback is named");
    for part in ["llvmpipe", "4088 positions in 8 windows of 512 tokens", "seed 1", "why the sky is blue"] {
        assert!(page.contains(part), "{part}");
    }
}

/// Puts `text` in the place of every text.
fn replace_texts(value: &mut Value, text: &str) {
    match value {
        Value::String(old) => *old = text.to_owned(),
        Value::Array(values) => values.iter_mut().for_each(|value| replace_texts(value, text)),
        Value::Object(fields) => {
            let fields = fields.iter_mut().filter(|(name, _)| *name != "stop"); // one of four words
            fields.for_each(|(_, value)| replace_texts(value, text));
        }
        _ => {}
    }
}

/// Names, texts and codecs come from files and models that may be anybody's.
#[test]
fn nothing_that_is_shown_becomes_markup_or_steers_the_terminal() {
    const HOSTILE: &str = "\"'><img src=x onerror=alert(1)></script></style></title></details><!--&lt;\u{1b}[2J";
    let mut found = serde_json::to_value(comparison()).unwrap();
    replace_texts(&mut found, HOSTILE);
    let found: Comparison = serde_json::from_value(found).unwrap();
    let page = html::page(&found, HOSTILE);
    for markup in ["<img", "<!--", "&lt;\u{1b}", "\u{1b}"] {
        assert!(!page.contains(markup), "{markup}");
    }
    for tag in ["script", "style", "title", "details"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(page.matches(&format!("</{tag}>")).count(), opened, "{tag}");
    }
    assert_eq!(page.matches("<script").count(), 1);
    let shown = terminal(&found, Some(80), true).replace("\u{1b}[7m", "").replace("\u{1b}[0m", "");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn a_terminal_of_usual_width() {
    for columns in [Some(80), Some(120), None] {
        let shown = terminal(&comparison(), columns, false);
        let name = format!("{}/terminal-{}.txt", env!("CARGO_TARGET_TMPDIR"), columns.unwrap_or(0));
        std::fs::write(name, &shown).unwrap();
        let widest = shown.lines().filter(|line| line.contains(' ')).map(width).max().unwrap();
        assert!(columns.is_none_or(|columns| widest <= columns), "{widest} of {columns:?}:\n{shown}");
        for value in ["uniform:bits=3,group=64", "0.0251", "612.4", "94.03", "12.8", "485", "190.5", "181 tensors"] {
            assert!(shown.contains(value), "{value}:\n{shown}");
        }
    }
}
