//! What the host does by itself: opening files, tokenizing, encoding weights. `cargo bench -p tersor-benches --bench host` measures all of it and compares
//! with the run before; with `-- encode/q4_k` behind it a part.
//!
//! The files are those of the tests (tests/golden/tokenizers: vocabularies of published models in GGUF, without weights), the text is the one
//! that evaluations read.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tersor_engine::codec::parse;
use tersor_engine::format::Checkpoint;
use tersor_engine::generate::Tokenizer;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is around this crate").to_owned()
}

fn vocabulary(name: &str) -> PathBuf {
    root().join("tests/golden/tokenizers").join(format!("{name}.gguf"))
}

/// Opens a GGUF file: its header, metadata (vocabulary and merges are most of it) and the list of tensors. Throughput is of the file's bytes.
fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    for name in ["smollm", "llama3", "gemma"] {
        let path = vocabulary(name);
        let bytes = std::fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).len();
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(name, |b| b.iter(|| Checkpoint::open(black_box(&path)).expect("the file is a GGUF")));
    }
    group.finish();
}

/// Builds tokenizers, and turns a text into tokens and back. Throughput is of the text's bytes.
fn tokenize(c: &mut Criterion) {
    let text = std::fs::read_to_string(root().join("assets/text/eval.txt")).expect("the text is there");
    let text: String = text.chars().take(20_000).collect();
    // Byte-pair encoding of two vocabularies, unigram, word pieces.
    for name in ["smollm", "llama3", "t5", "bert"] {
        let checkpoint = Checkpoint::open(&vocabulary(name)).expect("the file is a GGUF");
        let build = || Tokenizer::from_checkpoint(&checkpoint).expect("it has a vocabulary");
        c.bench_function(&format!("tokenizer/build/{name}"), |b| b.iter(build));
        let tokenizer = build();
        let ids = tokenizer.encode(&text, false).expect("the text has tokens");
        let mut group = c.benchmark_group("tokenizer");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("encode/{name}"), |b| b.iter(|| tokenizer.encode(black_box(&text), false)));
        group.bench_function(format!("decode/{name}"), |b| b.iter(|| tokenizer.decode(black_box(&ids), false)));
        group.finish();
    }
}

/// Encodes a matrix of normal weights, and decodes it on the processor. Throughput is of its weights.
fn encode(c: &mut Criterion) {
    const ROWS: usize = 256;
    const COLS: usize = 4096;
    // Sums of four uniform numbers are near enough to normal ones, and the same on every machine.
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let weights: Vec<f32> = (0..ROWS * COLS).map(|_| 0.05 * (uniform() + uniform() + uniform() + uniform())).collect();
    let recipes = [
        "bf16",
        "q8_0",
        "q4_0",
        "q4_k",
        "q6_k",
        "iq4_nl",
        "nf4",
        "uniform:bits=3",
        "sparse:50%",
        "sparse:2:4",
        "spqr:bits=3",
        "entropy:bf16",
        "dfloat11",
    ];
    for recipe in recipes {
        let codec = parse(recipe).expect("the recipe is known");
        let packed = codec.encode(&weights, ROWS, COLS).expect("it takes any weights");
        let mut group = c.benchmark_group("encode");
        group.throughput(Throughput::Elements((ROWS * COLS) as u64)).sample_size(20);
        group.bench_function(recipe, |b| b.iter(|| codec.encode(black_box(&weights), ROWS, COLS)));
        group.finish();
        let mut group = c.benchmark_group("decode");
        group.throughput(Throughput::Elements((ROWS * COLS) as u64)).sample_size(20);
        group.bench_function(recipe, |b| b.iter(|| codec.decode(black_box(&packed))));
        group.finish();
    }
}

criterion_group!(host, open, tokenize, encode);
criterion_main!(host);
