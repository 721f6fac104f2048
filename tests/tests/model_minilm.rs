//! all-MiniLM-L6-v2 against sentence-transformers: the token ids and the embeddings of 50 sentences (`golden/minilm`).

use tersor_engine::eval::cosine;
use tersor_engine::generate::Tokenizer;
use tersor_engine::model::{Config, Encoder, Weights};
use tersor_engine::progress::Monitor;
use tersor_tests::golden::{json, path};
use tersor_tests::kernel::gpus;
use tersor_tests::models;

const WIDTH: usize = 384;

#[test]
fn embeddings_are_those_of_sentence_transformers() {
    let sentences: Vec<String> = json("minilm/sentences.json");
    let expected_ids: Vec<Vec<u32>> = json("minilm/ids.json");
    let expected = std::fs::read(path("minilm/embeddings.f32")).unwrap();
    let expected: Vec<f32> = expected.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
    assert_eq!((sentences.len(), expected_ids.len(), expected.len()), (50, 50, 50 * WIDTH));
    let checkpoint = models::open("minilm-l6");
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
    let ids: Vec<Vec<u32>> = sentences.iter().map(|sentence| tokenizer.encode(sentence, true).unwrap()).collect();
    assert_eq!(ids, expected_ids);
    for gpu in gpus() {
        let config = Config::read(&checkpoint).unwrap();
        let weights = Weights::new(&checkpoint, &config, None, None).unwrap();
        let monitor = Monitor::none();
        let load = Encoder::load(&gpu, config, weights, checkpoint.name(), &monitor);
        let encoder = pollster::block_on(load).unwrap().0;
        let mut least = f64::INFINITY;
        for ((ids, expected), sentence) in ids.iter().zip(expected.chunks_exact(WIDTH)).zip(&sentences) {
            let found = pollster::block_on(encoder.embed(ids)).unwrap();
            let cosine = cosine(&found, expected);
            assert!(cosine >= 0.99999, "{cosine} on {} {}: {sentence}", gpu.name(), gpu.tier());
            let length: f64 = found.iter().map(|x| f64::from(*x).powi(2)).sum();
            assert!((length - 1.0).abs() < 1e-5, "{sentence}: its vector has length² {length}");
            least = least.min(cosine);
        }
        println!("{} {}: cosine at least {least:.9}", gpu.name(), gpu.tier());
    }
}
