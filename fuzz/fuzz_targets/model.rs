//! Any bytes as the description of a model, alternately a GGUF file and a `config.json` beside the weights of a small Llama.
//! What is accepted must be computable to the last byte it needs.
#![no_main]

use tersor_engine::format::Checkpoint;
use tersor_engine::model::{Architecture, Config, Need, Weights};
use tersor_engine::ops::rope::RopeTable;

const WEIGHTS: &[u8] = include_bytes!("../../tests/golden/families/llama/model.safetensors");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let files = if bytes.starts_with(b"GGUF") {
        vec![("fuzz.gguf".to_owned(), bytes.to_vec())]
    } else {
        [("fuzz/config.json", bytes), ("fuzz/model.safetensors", WEIGHTS)]
            .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
            .to_vec()
    };
    let Ok(checkpoint) = Checkpoint::from_files(files) else { return };
    let config = match Config::read(&checkpoint) {
        Ok(config) => config,
        Err(error) => return assert!(error.to_string().contains("fuzz"), "{error}"),
    };
    assert_eq!(config.windows.len(), config.layers as usize);
    if config.architecture != Architecture::Bert {
        for rope in [Some(&config.rope), config.rope_local.as_ref()].into_iter().flatten() {
            RopeTable::new(rope, config.max_positions.min(256) as usize).expect("the frequencies were checked");
        }
    }
    for rotation in [None, Some(1)] {
        let Ok(weights) = Weights::new(&checkpoint, &config, None, rotation) else { continue };
        for context in [1, config.max_positions] {
            let need = Need::of(false, &config, &weights, context);
            assert!(need.total() >= need.weights.max(need.kv_cache));
        }
        assert!(Need::of_encoder(&config, &weights).total() > 0);
    }
});
