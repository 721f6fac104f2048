//! Models and memory: what does not fit is refused before anything is uploaded, what is let in has room to the end, and matrices
//! larger than a binding are split.

use std::sync::Arc;

use tersor_engine::format::Checkpoint;
use tersor_engine::generate::{ContinueOptions, Tokenizer, continue_text, warm_up};
use tersor_engine::gpu::{Gpu, GpuOptions, LimitsChoice};
use tersor_engine::model::{Config, Context, Encoder, ModelError, Need, Weights};
use tersor_engine::progress::Monitor;
use tersor_tests::converted::Converted;
use tersor_tests::decoder::{Form, load, logits, try_load, worst};
use tersor_tests::families::{golden, open};
use tersor_tests::golden::Tensors;
use tersor_tests::models;

fn gpu(options: GpuOptions) -> Gpu {
    pollster::block_on(Gpu::new(options)).expect("an adapter: cargo xtask test installs one")
}

fn with_memory(bytes: u64) -> Gpu {
    gpu(GpuOptions { memory: Some(bytes), ..GpuOptions::from_env().unwrap() })
}

fn smallest() -> Gpu {
    gpu(GpuOptions { limits: LimitsChoice::WebgpuDefault, ..GpuOptions::from_env().unwrap() })
}

/// What a refusal says.
fn refusal(gpu: &Gpu, checkpoint: &Checkpoint, form: Form, context: u32) -> String {
    let before = gpu.memory();
    let error = try_load(gpu, checkpoint, form, context).err().expect("it cannot fit");
    assert!(matches!(error, ModelError::DoesNotFit { .. }), "{error}");
    let after = gpu.memory();
    assert_eq!((after.total(), after.peak), (before.total(), before.peak), "something was uploaded");
    error.to_string()
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_uploaded() {
    let tiny = models::open("tiny");
    let f32 = Form { recipe: Some("f32"), rotation: None };
    let small = Form { recipe: Some("uniform:bits=2"), rotation: None };
    let gpu = with_memory(8_000_000);
    let text = refusal(&gpu, &tiny, f32, 64);
    for part in ["tiny", " MB of GPU memory (", "weights", "64 positions", "8.0 MB are free", "fewer bits"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    // The same device has room for less.
    let decoder = try_load(&gpu, &tiny, small, 64).unwrap().0;
    assert_eq!(logits(&decoder, &[72, 105], 64, &[2]).len(), 2 * 288);
    // What is loaded takes room too.
    let text = refusal(&gpu, &tiny, Form { recipe: Some("bf16"), rotation: None }, 64);
    assert!(text.contains("unload other models"), "{text}");
}

#[test]
fn a_context_that_does_not_fit_is_named() {
    let tiny = models::open("tiny");
    let config = Config::read(&tiny).unwrap();
    let weights = Weights::new(&tiny, &config, None, None).unwrap();
    let software = with_memory(1).is_cpu();
    let gpu = with_memory(Need::of(software, &config, &weights, 512).total());
    let text = refusal(&gpu, &tiny, Form::default(), 1024);
    for part in ["KV cache for 1024 positions", "shorter context"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(try_load(&gpu, &tiny, Form::default(), 512).is_ok());
}

/// Keys of one layer that are more than a binding.
#[test]
fn a_context_beyond_the_devices_limits_is_named() {
    let mut converted = Converted::of("llama");
    converted.set("context_length", 4_000_000u32);
    let gpu = smallest();
    let error = try_load(&gpu, &converted.open(), Form::default(), 2_000_000).err().unwrap();
    assert_eq!(gpu.memory().total(), 0);
    let text = error.to_string();
    for part in ["model.gguf", "context of 2000000 positions", "256.0 MB", "134.2 MB", "1048576 positions fit"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

/// Either a model is refused, or it has room to load and to write: it never runs out of memory half way.
#[test]
fn what_is_let_in_has_room_to_the_end() {
    let prompt: Vec<u32> = (0..80).map(|i| i % 120).collect();
    // Ids are all that matters: any tokenizer with as many does.
    let tokenizer = Arc::new(Tokenizer::from_checkpoint(&models::open("tiny")).unwrap());
    let options = ContinueOptions { ignore_end: true, ..ContinueOptions::greedy(4) };
    let monitor = Monitor::none();
    let software = with_memory(1).is_cpu();
    for (checkpoint, rotation) in [
        (models::open("tiny"), None),
        (models::open("tiny"), Some(3)),
        (open("llama_bias", "config.json"), None),
        (open("gemma2", "config.json"), None),
        (open("phi3", "config.json"), None),
    ] {
        let config = Config::read(&checkpoint).unwrap();
        let form = Form { rotation, ..Form::default() };
        let weights = Weights::new(&checkpoint, &config, None, rotation).unwrap();
        let need = Need::of(software, &config, &weights, 100).total();
        let (mut refused, mut ran) = (0, 0);
        for percent in [50, 99, 100, 101, 110] {
            let gpu = with_memory(need * percent / 100);
            match try_load(&gpu, &checkpoint, form, 100) {
                Err(ModelError::DoesNotFit { .. }) => refused += 1,
                Err(error) => panic!("{} with {percent} % of what it needs: {error}", checkpoint.name()),
                Ok((decoder, _)) => {
                    let mut context = Context::new(&decoder, 100).unwrap();
                    pollster::block_on(warm_up(&decoder, &mut context)).unwrap();
                    let run = continue_text(&decoder, &mut context, &tokenizer, &prompt, &options, |_| (), &monitor);
                    if let Err(error) = pollster::block_on(run) {
                        panic!("{} with {percent} % of what it needs: {error}", checkpoint.name());
                    }
                    ran += 1;
                }
            }
        }
        assert!(refused >= 2 && ran >= 3, "{}: {refused} refused, {ran} ran", checkpoint.name());
    }
}

#[test]
fn encoders_that_are_let_in_have_room_to_the_end() {
    // More positions than a chunk of a decoder's prompt.
    let mut converted = Converted::of("bert");
    converted.set("context_length", 512u32);
    let (_, shape, table) = converted.tensors.iter_mut().find(|(name, ..)| name == "position_embd.weight").unwrap();
    shape[0] = 512;
    *table = table.iter().copied().cycle().take(512 * 64).collect();
    let checkpoint = converted.open();
    let ids: Vec<u32> = (0..512).map(|i| i % 128).collect();
    let monitor = Monitor::none();
    let mut ran = 0;
    for bytes in (100_000..2_500_000).step_by(100_000) {
        let gpu = with_memory(bytes);
        let config = Config::read(&checkpoint).unwrap();
        let weights = Weights::new(&checkpoint, &config, None, None).unwrap();
        let load = Encoder::load(&gpu, config, weights, checkpoint.name(), &monitor);
        match pollster::block_on(load) {
            Err(ModelError::DoesNotFit { .. }) => assert_eq!((gpu.memory().peak, ran), (0, 0)),
            Err(error) => panic!("with {bytes} bytes: {error}"),
            Ok((encoder, _)) => {
                assert_eq!(pollster::block_on(encoder.embed(&ids)).unwrap().len(), 64);
                ran += 1;
            }
        }
    }
    assert!(ran > 0);
}

/// A vocabulary so large that its table takes two bindings: every token is one of 128 of a golden model.
#[test]
fn a_table_larger_than_a_binding_is_split() {
    const TOKENS: u32 = 600_000;
    let mut converted = Converted::of("llama_rope_linear");
    let (_, shape, table) = converted.tensors.iter_mut().find(|(name, ..)| name == "token_embd.weight").unwrap();
    assert_eq!(shape[0], 128);
    shape[0] = TOKENS.into();
    *table = table.iter().copied().cycle().take(64 * TOKENS as usize).collect();
    let gpu = smallest();
    assert!(4 * table.len() as u64 > gpu.limits().max_storage_buffer_binding_size);
    let decoder = load(&gpu, &converted.open(), 8);
    let golden = golden("llama_rope_linear");
    let ids: Vec<u32> =
        golden.u32s("input_ids")[..8].iter().zip(0..).map(|(id, i)| id + i * 84_000 / 128 * 128).collect();
    let found = logits(&decoder, &ids, 8, &[7, 1]);
    for (row, expected) in found.chunks_exact(TOKENS as usize).zip(golden.f32s("logits").chunks_exact(128)) {
        let all: Vec<f32> = expected.iter().copied().cycle().take(row.len()).collect();
        let worst = worst(row, &all);
        assert!(worst < 1e-4, "{worst}");
    }
}

#[test]
fn a_real_model_runs_within_the_smallest_limits() {
    let checkpoint = models::open("smollm2-135m");
    let ids = &Tensors::open("smollm2/golden.safetensors").u32s("tokens")[..12];
    let [small, large] = [smallest(), gpu(GpuOptions::from_env().unwrap())].map(|gpu| {
        let decoder = load(&gpu, &checkpoint, 16);
        logits(&decoder, ids, 16, &[11, 1])
    });
    let worst = worst(&small, &large);
    assert!(worst < 1e-3, "{worst}");
}

/// What a model may take of the device beyond its packed weights, its cache, and the activations that are planned for: norms, biases and
/// rotary pairs, the sampler's record, the pool's rounding, all of which [`Context::activation_bytes`] and the weights' bytes leave out.
const REST: f64 = 0.03;

#[test]
fn memory_is_packed_weights_and_cache_and_what_is_stated() {
    let form = |recipe| Form { recipe, rotation: None };
    for (model, recipe) in [("tiny", None), ("tiny", Some("q4_0")), ("tiny", Some("bf16"))] {
        for capacity in [64, 512] {
            let gpu = gpu(GpuOptions::from_env().unwrap());
            let checkpoint = models::open(model);
            let (decoder, _) = try_load(&gpu, &checkpoint, form(recipe), capacity).unwrap();
            let mut context = Context::new(&decoder, capacity).unwrap();
            pollster::block_on(warm_up(&decoder, &mut context)).unwrap();
            let config = decoder.config();
            let memory = gpu.memory();
            let cache: u64 = config.layer_shapes().map(|s| cache_bytes(s.kv_heads, capacity, s.cache_dim())).sum();
            assert_eq!(memory.kv_cache, cache, "{model} {recipe:?} {capacity}");
            let stated = decoder.weight_bytes() + cache + Context::activation_bytes(gpu.is_cpu(), config, capacity);
            let ratio = memory.peak as f64 / stated as f64;
            println!(
                "{model} {recipe:?}, {capacity} positions: {} bytes at most, {stated} stated: {ratio:.4}",
                memory.peak
            );
            assert!((1.0..1.0 + REST).contains(&ratio), "{model} {recipe:?} {capacity}: {memory:?}, stated {stated}");
        }
    }
}

/// Keys and values of a layer in f32, `[kv_heads, capacity, dim]` each.
fn cache_bytes(kv_heads: u32, capacity: u32, dim: u32) -> u64 {
    2 * 4 * u64::from(kv_heads) * u64::from(capacity) * u64::from(dim)
}

#[test]
fn a_token_reads_the_cache_in_proportion_to_its_context_and_takes_the_same_dispatches() {
    let gpu = gpu(GpuOptions::from_env().unwrap());
    let decoder = load(&gpu, &models::open("tiny"), 512);
    let mut context = Context::new(&decoder, 512).unwrap();
    let position: u64 = decoder.config().layer_shapes().map(|s| cache_bytes(s.kv_heads, 1, s.cache_dim())).sum();
    let none = decoder.token_bytes(0);
    assert!(
        none > 2 * position && none < decoder.weight_bytes() + decoder.config().hidden as u64 * 4 + 2 * position + 1
    );
    let ids = gpu.upload("ids", &vec![1u32; 512], tersor_engine::gpu::Purpose::Activations).unwrap();
    let mut counts = std::collections::BTreeSet::new();
    for length in [1, 100, 400, 511] {
        assert_eq!(decoder.token_bytes(length) - none, u64::from(length) * position, "{length}");
        while context.len() < length {
            let count = (length - context.len()).min(context.chunk());
            let mut rec = gpu.record();
            decoder.forward(&mut rec, &mut context, &ids, 0, count, None).unwrap();
            rec.submit().unwrap();
        }
        let mut rec = gpu.record();
        decoder.forward(&mut rec, &mut context, &ids, 0, 1, None).unwrap();
        counts.insert(rec.dispatches());
        rec.submit().unwrap();
    }
    pollster::block_on(gpu.idle()).unwrap();
    // The embedding and six a layer; a seventh where keys are split among workgroups, however many they are.
    let layers = u64::from(decoder.config().layers);
    assert!(counts.iter().all(|count| [1 + 6 * layers, 1 + 7 * layers].contains(count)), "{counts:?}");
}
