//! Rotary frequencies of every scaling against Hugging Face transformers (`golden/rope.py`).

use serde_json::Value;
use tersor_engine::ops::rope::{RopeConfig, RopeScaling, RopeTable};

fn scaling(case: &Value) -> RopeScaling {
    let p = &case["parameters"];
    let maybe = |key: &str| p[key].as_f64();
    let number = |key: &str| maybe(key).unwrap_or_else(|| panic!("{key} in {p}"));
    let list = |key: &str| p[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    match p["rope_type"].as_str().unwrap() {
        "linear" => RopeScaling::Linear { factor: number("factor") },
        "dynamic" => {
            RopeScaling::Dynamic { factor: number("factor"), max_position: case["max_position"].as_f64().unwrap() }
        }
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor"),
            low_freq_factor: number("low_freq_factor"),
            high_freq_factor: number("high_freq_factor"),
            original: number("original_max_position_embeddings"),
        },
        "yarn" => RopeScaling::Yarn {
            factor: number("factor"),
            beta_fast: maybe("beta_fast").unwrap_or(32.0),
            beta_slow: maybe("beta_slow").unwrap_or(1.0),
            original: number("original_max_position_embeddings"),
            attention_factor: maybe("attention_factor"),
            mscale: maybe("mscale"),
            mscale_all_dim: maybe("mscale_all_dim"),
            truncate: p["truncate"].as_bool().unwrap_or(true),
        },
        "longrope" => RopeScaling::LongRope {
            short: list("short_factor"),
            long: list("long_factor"),
            original: number("original_max_position_embeddings"),
            factor: case["max_position"].as_f64().unwrap() / number("original_max_position_embeddings"),
            attention_factor: maybe("attention_factor"),
        },
        other => panic!("{other}"),
    }
}

#[test]
fn frequencies_are_those_of_transformers() {
    let golden: Value = serde_json::from_str(include_str!("../golden/rope.json")).unwrap();
    let cases = golden.as_object().unwrap();
    assert_eq!(cases.len(), 11);
    for (name, case) in cases {
        let config = RopeConfig {
            rotary_dim: case["head_dim"].as_u64().unwrap() as usize,
            base: case["parameters"]["rope_theta"].as_f64().unwrap(),
            scaling: scaling(case),
        };
        let (frequencies, attention) = config.frequencies(case["length"].as_u64().unwrap() as usize).unwrap();
        let expected: Vec<f64> = case["frequencies"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!(frequencies.len(), expected.len(), "{name}");
        for (i, (f, e)) in frequencies.iter().zip(&expected).enumerate() {
            // transformers computes in f32.
            assert!((f / e - 1.0).abs() < 2e-6, "{name} pair {i}: {f} for {e}");
        }
        assert!((attention - case["attention_factor"].as_f64().unwrap()).abs() < 1e-6, "{name}: {attention}");
    }
}

#[test]
fn the_table_holds_scaled_cosines_and_sines() {
    let scaling = RopeScaling::Divided { factors: vec![1.0, 2.0], attention_factor: 1.5 };
    let table = RopeTable::new(&RopeConfig { rotary_dim: 4, base: 100.0, scaling }, 3).unwrap();
    assert_eq!((table.max_pos, table.pairs), (3, 2));
    let angle = |pos: f64| [pos, pos * 0.1 / 2.0];
    for pos in 0..3 {
        for (i, a) in angle(f64::from(pos)).into_iter().enumerate() {
            let at = (pos as usize * 2 + i) * 2;
            assert_eq!(table.values[at], (1.5 * a.cos()) as f32);
            assert_eq!(table.values[at + 1], (1.5 * a.sin()) as f32);
        }
    }
}

#[test]
fn nonsense_is_refused() {
    let config = |rotary_dim, base, scaling| RopeConfig { rotary_dim, base, scaling };
    let short = RopeScaling::Divided { factors: vec![1.0], attention_factor: 1.0 };
    for bad in [
        config(0, 1e4, RopeScaling::None),
        config(6, 1e4, RopeScaling::None),
        config(8, -3.0, RopeScaling::None),
        config(8, 1e4, RopeScaling::Linear { factor: 0.0 }),
        config(8, 1e4, short),
    ] {
        assert!(RopeTable::new(&bad, 10).is_err(), "{bad:?}");
    }
    let huge = RopeTable::new(&config(128, 1e4, RopeScaling::None), usize::MAX / 2).unwrap_err().to_string();
    assert!(huge.contains("is the most"), "{huge}");
}
