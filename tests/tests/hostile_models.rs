//! Damaged and malicious descriptions of models, `config.json` and GGUF metadata, read under a memory cap and a clock (see
//! `tersor_tests::hostile`): each must give an error that names the file and what is wrong in it, or a configuration whose needs
//! and tensors can be computed.

use tersor_engine::format::{Checkpoint, GgufArray, GgufValue};
use tersor_engine::model::names::Role;
use tersor_engine::model::{Architecture, Config, ModelError, Need, Weights};
use tersor_engine::ops::rope::RopeTable;
use tersor_tests::converted::Converted;
use tersor_tests::families::DECODERS;
use tersor_tests::golden::path;
use tersor_tests::hostile::{Cage, bit_flips, in_a_cage, json_lies, truncations, wounds};

const NAME: &str = "victim";

/// Uses all that a description decides before anything is on the GPU.
fn exercise(files: Vec<(String, Vec<u8>)>) -> Result<(), String> {
    let text = |error: ModelError| {
        if let ModelError::Config { key, .. } = &error {
            assert!(!key.is_empty() && key != "context", "{error}");
        }
        error.to_string()
    };
    let checkpoint = Checkpoint::from_files(files).map_err(|error| error.to_string())?;
    let config = Config::read(&checkpoint).map_err(text)?;
    assert_eq!(config.windows.len(), config.layers as usize);
    if config.architecture != Architecture::Bert {
        let positions = config.max_positions.min(2048) as usize;
        let ropes = [Some(&config.rope), config.rope_local.as_ref()];
        ropes.into_iter().flatten().for_each(|rope| drop(RopeTable::new(rope, positions).unwrap()));
    }
    for rotation in [None, Some(1)] {
        let mut weights = match Weights::new(&checkpoint, &config, None, rotation) {
            Err(ModelError::Rotation { .. }) if rotation.is_some() => continue,
            other => other.map_err(text)?,
        };
        for context in [1, 4096, config.max_positions] {
            let needs = [Need::of(true, &config, &weights, context), Need::of(false, &config, &weights, context)];
            assert!(needs.iter().all(|need| need.total() >= need.weights.max(need.kv_cache)));
        }
        assert!(Need::of_encoder(&config, &weights).total() > 0);
        if rotation.is_none() {
            read(&config, &mut weights).map_err(text)?;
        }
    }
    Ok(())
}

/// Reads the tensors of the first and the last layer as a model would.
fn read(config: &Config, weights: &mut Weights) -> Result<(), ModelError> {
    let (hidden, q, kv) = (config.hidden, config.q_width(), config.kv_width());
    let wide = config.intermediate;
    weights.matrix(Role::Embed, 0, config.vocab, hidden)?;
    if weights.has_own_head() {
        weights.matrix(Role::Head, 0, config.vocab, hidden)?;
    }
    if config.architecture == Architecture::Bert {
        weights.matrix(Role::Positions, 0, config.max_positions, hidden)?;
        weights.norm(Role::EmbedNorm, 0, hidden)?;
    } else {
        weights.norm(Role::FinalNorm, 0, hidden)?;
    }
    for layer in [0, config.layers - 1] {
        let mut matrices = vec![(Role::O, hidden, q), (Role::Down, hidden, wide)];
        if weights.has(Role::Qkv, layer) {
            matrices.push((Role::Qkv, config.qkv_width(), hidden));
        } else {
            matrices.extend([(Role::Q, q, hidden), (Role::K, kv, hidden), (Role::V, kv, hidden)]);
        }
        if config.architecture == Architecture::Bert {
            matrices.push((Role::Up, wide, hidden));
        } else if weights.has(Role::Gate, layer) {
            matrices.extend([(Role::Gate, wide, hidden), (Role::Up, wide, hidden)]);
        } else {
            matrices.push((Role::GateUp, 2 * wide, hidden));
        }
        for (role, rows, cols) in matrices {
            weights.matrix(role, layer, rows, cols)?;
            weights.bias(role, layer, rows)?;
        }
        weights.norm(Role::AttentionNorm, layer, hidden)?;
        weights.norm(Role::MlpNorm, layer, hidden)?;
    }
    Ok(())
}

fn safetensors(family: &str) -> Vec<u8> {
    std::fs::read(path("families").join(family).join("model.safetensors")).expect("golden files can be read")
}

#[test]
fn hostile_config_json() {
    in_a_cage("hostile_config_json", 15_000, |cage| {
        for family in DECODERS.into_iter().chain(["bert"]) {
            let weights = safetensors(family);
            for file in ["config.json", "config_legacy.json"] {
                let config = std::fs::read_to_string(path("families").join(family).join(file)).expect("golden");
                let mut run = |label: &str, config: Vec<u8>| {
                    run_json(cage, &format!("{family}, {file}: {label}"), config, &weights);
                };
                run("untouched", config.clone().into());
                json_lies(&config, |label, config| run(&label, config.into()));
                wounds(config.as_bytes(), 100, |label, config| run(&label, config));
                truncations(config.as_bytes(), 31, |label, config| run(&label, config));
            }
        }
        let llama = safetensors("llama");
        for (label, config) in [
            ("null", "null".to_owned()),
            ("a list", "[]".to_owned()),
            ("deep", "[".repeat(1_000_000)),
            ("deep sections", format!("{}1{}", "{\"text_config\":".repeat(100_000), "}".repeat(100_000))),
            ("itself", r#"{"text_config":{"text_config":{"model_type":"llama"}}}"#.to_owned()),
            ("many types", {
                let list = vec!["\"full_attention\""; 500_000].join(",");
                let rest = r#""model_type":"gemma3_text","num_hidden_layers":500000,"sliding_window":4"#;
                format!("{{{rest},\"layer_types\":[{list}]}}")
            }),
        ] {
            run_json(cage, label, config.into(), &llama);
        }
    });
}

fn run_json(cage: &mut Cage, label: &str, config: Vec<u8>, weights: &[u8]) {
    cage.case(label, NAME, || {
        let files = [("config.json", config), ("model.safetensors", weights.to_vec())];
        let result = exercise(files.map(|(file, bytes)| (format!("{NAME}/{file}"), bytes)).to_vec());
        // What is no JSON is named by its own name, not by the folder's.
        result.map_err(|error| error.replace("config.json: the header", &format!("{NAME}/config.json: the header")))
    });
}

/// Values that a key may be given, of every type.
fn values() -> Vec<GgufValue> {
    let mut all = vec![GgufValue::Bool(true), GgufValue::Str(String::new()), GgufValue::Str("yarn".into())];
    all.extend([0, 1, 3, 4, 65_536, 1 << 20, 1 << 26, i32::MAX as u32, u32::MAX].map(GgufValue::U32));
    all.extend([0, 64, 1 << 40, u64::MAX].map(GgufValue::U64));
    all.extend([-1, i64::MIN].map(GgufValue::I64));
    all.extend([0.0, -0.0, -1.0, 1e-40, f32::MAX, f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(GgufValue::F32));
    all.extend([0.5, f64::NAN, f64::MAX].map(GgufValue::F64));
    all.push(GgufValue::Array(GgufArray::U32(Vec::new())));
    all.push(GgufValue::Array(GgufArray::U32(vec![2; 100_000])));
    all.push(GgufValue::Array(GgufArray::I32(vec![2, -2])));
    all.push(GgufValue::Array(GgufArray::Bool(vec![true, false])));
    all.push(GgufValue::Array(GgufArray::F32(vec![f32::NAN])));
    all.push(GgufValue::Array(GgufArray::Str(vec!["llama".into()])));
    all
}

fn run_gguf(cage: &mut Cage, label: &str, bytes: Vec<u8>) {
    cage.case(label, NAME, || exercise(vec![(format!("{NAME}.gguf"), bytes)]));
}

#[test]
fn hostile_gguf_metadata() {
    in_a_cage("hostile_gguf_metadata", 4000, |cage| {
        for family in ["llama_rope_llama3", "llama_rope_yarn", "gemma2", "gemma3", "phi3_longrope_partial", "bert"] {
            let good = Converted::of(family);
            run_gguf(cage, &format!("{family} untouched"), good.bytes());
            let mut keys: Vec<String> = good.metadata.iter().map(|(key, _)| key.to_owned()).collect();
            // Those that other files have.
            for key in ["rope.scaling.type", "rope.scaling.factor", "rope.scaling.attn_factor", "pooling_type"] {
                keys.push(format!("{}.{key}", good.architecture()));
            }
            for key in keys {
                for value in values() {
                    let mut bad = good.clone();
                    let label = format!("{family}: {key} is {:.60}", format!("{value:?}"));
                    bad.metadata.set(key.clone(), value);
                    run_gguf(cage, &label, bad.bytes());
                }
                let mut bad = good.clone();
                bad.metadata.remove(&key);
                run_gguf(cage, &format!("{family}: no {key}"), bad.bytes());
            }
            for other in ["llama", "mistral", "qwen2", "gemma3", "phi3", "bert", "gpt2"] {
                let mut bad = good.clone();
                bad.metadata.set("general.architecture", other.to_owned());
                run_gguf(cage, &format!("{family} says it is {other}"), bad.bytes());
            }
        }
    });
}

#[test]
fn hostile_gguf_tensors() {
    in_a_cage("hostile_gguf_tensors", 3000, |cage| {
        for family in ["llama_rope_llama3", "phi3_longrope_partial", "bert"] {
            let good = Converted::of(family);
            for index in 0..good.tensors.len() {
                let (name, shape, values) = good.tensors[index].clone();
                let mut run = |what: &str, tensor: Option<(String, Vec<u64>, Vec<f32>)>| {
                    let mut bad = good.clone();
                    match tensor {
                        Some(tensor) => bad.tensors[index] = tensor,
                        None => drop(bad.tensors.remove(index)),
                    }
                    run_gguf(cage, &format!("{family}: {name} {what}"), bad.bytes());
                };
                let count = values.len() as u64;
                run("is missing", None);
                run("is flat", Some((name.clone(), vec![count], values.clone())));
                run("is a column", Some((name.clone(), vec![count, 1], values.clone())));
                run("is a row", Some((name.clone(), vec![1, count], values.clone())));
                run("has three dimensions", Some((name.clone(), [&[1][..], &shape].concat(), values.clone())));
                run("is one number", Some((name.clone(), vec![1], vec![1.0])));
                run("is no number", Some((name.clone(), shape.clone(), vec![f32::NAN; values.len()])));
                run("has another name", Some((format!("{name}.old"), shape, values.clone())));
            }
            let bytes = good.bytes();
            bit_flips(&bytes, 300, |label, bytes| run_gguf(cage, &format!("{family}: {label}"), bytes));
        }
    });
}
