//! Errors of the encoders beside those of llama.cpp's quantizers, measured by `tests/golden/ggml_quant.py`.

use serde_json::Value;

use super::{Lcg, nmse};
use crate::codec::parse;
use crate::format::{Checkpoint, decode_f32};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/ggml_quant.json");
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/tiny/model.safetensors");

/// The weights of a case, made as the golden data's script makes them, or read from the model that it read.
fn weights(golden: &Value, case: usize, name: &str, rows: usize, cols: usize) -> Vec<f32> {
    if let Some(tensor) = name.strip_prefix("tiny:") {
        let tiny = Checkpoint::open(TINY.as_ref()).unwrap();
        let (info, bytes) = tiny.tensor(tensor).unwrap();
        return decode_f32(info.dtype, bytes).unwrap();
    }
    let mut lcg = Lcg::new(case as u32);
    let mut made = Vec::with_capacity(rows * cols);
    for row in 0..rows {
        for col in 0..cols {
            made.push(match name {
                "gaussian" => lcg.gaussian(),
                "heavy_tailed" => {
                    let g = lcg.gaussian();
                    g * g * g
                }
                "row_scaled" => {
                    let scale = golden["row_std"][row].as_f64().unwrap() as f32 / (1 << 20) as f32;
                    lcg.gaussian() * scale * if col % 97 == 0 { 8.0 } else { 1.0 }
                }
                "small" => lcg.gaussian() / 4096.0,
                "uniform" => (f32::from(lcg.u16()) - 32_768.0) / 32_768.0,
                "offset" => lcg.gaussian() * 0.25 + 1.0,
                other => panic!("golden data has an unknown case {other}"),
            });
        }
    }
    made
}

#[test]
fn errors_are_those_of_llama_cpp_or_smaller() {
    let golden: Value = serde_json::from_slice(&std::fs::read(GOLDEN).unwrap()).unwrap();
    let mut worse = Vec::new();
    for (i, case) in golden["cases"].as_array().unwrap().iter().enumerate() {
        let name = case["name"].as_str().unwrap();
        let [rows, cols] = ["rows", "cols"].map(|key| case[key].as_u64().unwrap() as usize);
        let weights = weights(&golden, i, name, rows, cols);
        let sum: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
        assert!((sum / case["sum_of_squares"].as_f64().unwrap() - 1.0).abs() < 1e-12, "{name}: not the same weights");
        for (codec, expected) in case["nmse"].as_object().unwrap() {
            let packed = parse(codec).unwrap().encode(&weights, rows, cols).unwrap();
            let ratio = nmse(&weights, &packed.decode()) / expected.as_f64().unwrap();
            println!("{name:45} {codec:7} {ratio:.4}");
            if ratio > 1.02 {
                worse.push(format!("{name} {codec}: {ratio:.4}"));
            }
        }
    }
    assert!(worse.is_empty(), "NMSE over llama.cpp's: {worse:#?}");
}
