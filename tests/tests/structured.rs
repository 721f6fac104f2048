//! Slicing heads, channels and dimensions away: the sliced model is the masked one, and smaller by exactly what was taken; files of it load and
//! compute the same; descriptions that lie are refused.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use tersor_engine::codec::Recipe;
use tersor_engine::format::{Checkpoint, Meta};
use tersor_engine::gpu::Gpu;
use tersor_engine::model::shrink::{Gates, shrink, slice};
use tersor_engine::model::{Config, Decoder, LayerShape, SHAPES_KEY, Weights};
use tersor_engine::progress::Monitor;
use tersor_engine::session::{self, Command, Compress, EventKind, Options, Rotation, Session, Source};
use tersor_tests::converted::Converted;
use tersor_tests::decoder::{load, logits, worst};
use tersor_tests::families::{DECODERS, golden, open};
use tersor_tests::kernel::{Random, gpus};
use tersor_tests::models;
use tersor_tests::rewritten::{rewritten, with_meta, with_words};

const TOLERANCE: f32 = 1e-4;

/// Gates at random: some KV heads, of each as many query heads, a multiple of four channels, and with `hidden` of the residual stream too.
fn gates(config: &Config, hidden: bool, random: &mut Random) -> Gates {
    let mut gates = Gates::open(config);
    let (kv, group) = (config.kv_heads, config.heads / config.kv_heads);
    for layer in &mut gates.layers {
        let queries = 1 + random.below(group);
        let mut open = vec![false; kv as usize];
        (0..1 + random.below(kv)).for_each(|_| open[random.below(kv) as usize] = true);
        layer.heads.fill(false);
        for (head, _) in open.iter().enumerate().filter(|(_, open)| **open) {
            let mut left: Vec<usize> = (head * group as usize..(head + 1) * group as usize).collect();
            for _ in 0..queries {
                layer.heads[left.remove(random.below(left.len() as u32) as usize)] = true;
            }
        }
        let mut left: Vec<usize> = (0..layer.ffn.len()).collect();
        let going = random.below(layer.ffn.len() as u32 / 4) * 4;
        (0..going).for_each(|_| layer.ffn[left.remove(random.below(left.len() as u32) as usize)] = false);
    }
    gates.hidden = hidden.then(|| {
        let mut open = vec![true; config.hidden as usize];
        let mut left: Vec<usize> = (0..open.len()).collect();
        (0..12).for_each(|_| open[left.remove(random.below(left.len() as u32) as usize)] = false);
        open
    });
    gates
}

/// The model with zeros where the gates are closed: in the columns that read a closed part's output, and in the rows that write a closed
/// dimension of the stream.
fn masked(checkpoint: &Checkpoint, config: &Config, gates: &Gates) -> Checkpoint {
    let dim = config.head_dim as usize;
    rewritten(checkpoint, |name, shape, v| {
        let layer = name.split('.').find_map(|part| part.parse::<usize>().ok());
        let cols = *shape.last().unwrap();
        let mut zero = |closed: &dyn Fn(usize, usize) -> bool| {
            v.iter_mut().enumerate().filter(|(at, _)| closed(at / cols, at % cols)).for_each(|(_, v)| *v = 0.0);
        };
        let shut = |at: usize| gates.hidden.as_ref().is_some_and(|open| !open[at]);
        match layer.map(|layer| &gates.layers[layer]) {
            Some(layer) if name.ends_with("o_proj.weight") => {
                zero(&|row, col| shut(row) || !layer.heads[col / dim]);
            }
            Some(layer) if name.ends_with("down_proj.weight") => zero(&|row, col| shut(row) || !layer.ffn[col]),
            Some(_) if name.ends_with("o_proj.bias") || name.ends_with("down_proj.bias") => zero(&|_, col| shut(col)),
            None if name.ends_with("embed_tokens.weight") => zero(&|_, col| shut(col)),
            _ => {}
        }
    })
}

fn loaded(gpu: &Gpu, checkpoint: &Checkpoint) -> (Decoder, u64) {
    let config = Config::read(checkpoint).unwrap();
    let weights = Weights::new(checkpoint, &config, None, None).unwrap();
    let monitor = Monitor::none();
    let loading = Decoder::load(gpu, config, weights, checkpoint.name(), 64, &monitor);
    let (decoder, weights) = pollster::block_on(loading).unwrap();
    let count = weights.reports().iter().map(|r| (r.shape[0] * r.shape[1]) as u64).sum();
    (decoder, count)
}

#[test]
fn a_sliced_model_is_the_masked_one() {
    let mut random = Random::new(5);
    let gpu = &gpus()[0];
    for family in DECODERS {
        let original = open(family, "config.json");
        let config = Config::read(&original).unwrap();
        let ids = golden(family).u32s("input_ids");
        let (_, whole) = loaded(gpu, &original);
        for hidden in [false, true] {
            let gates = gates(&config, hidden, &mut random);
            let sliced = slice(&original, &gates, &Monitor::none()).unwrap();
            let expected = logits(&load(gpu, &masked(&original, &config, &gates), 64), &ids, 64, &[48]);
            let (decoder, count) = loaded(gpu, &sliced);
            for pieces in [&[48][..], &[5, 17, 1, 1, 24]] {
                let worst = worst(&logits(&decoder, &ids, 64, pieces), &expected);
                assert!(worst < TOLERANCE, "{family}, hidden {hidden}, in pieces of {pieces:?}: {worst}");
            }
            // Every weight of a matrix is multiplied once a token, so that this is the count of multiplications too.
            let width = |open: &[bool]| open.iter().filter(|open| **open).count() as u64;
            let stream = gates.hidden.as_deref().map_or(config.hidden.into(), width);
            let group = (config.heads / config.kv_heads) as usize;
            let layers: u64 = gates
                .layers
                .iter()
                .map(|layer| {
                    let kv = layer.heads.chunks(group).filter(|heads| heads.contains(&true)).count() as u64;
                    let dims = u64::from(config.head_dim) * (2 * width(&layer.heads) + 2 * kv);
                    stream * (dims + 3 * width(&layer.ffn))
                })
                .sum();
            let tables = if sliced.tensor("lm_head.weight").is_some() { 2 } else { 1 };
            assert_eq!(count, layers + tables * u64::from(config.vocab) * stream, "{family}");
            assert!(count < whole, "{family}: {count} of {whole}");
            let shapes = decoder.config().layer_shapes();
            let said: u64 = shapes.map(|shape| shape.parameters(decoder.config().hidden, config.head_dim)).sum();
            assert_eq!(said, layers, "{family}");
        }
    }
}

#[test]
fn gates_that_no_kernel_covers_are_refused() {
    let original = open("llama", "config.json"); // 4 query heads, 2 of keys and values
    let config = Config::read(&original).unwrap();
    let says = |change: &dyn Fn(&mut Gates)| {
        let mut gates = Gates::open(&config);
        change(&mut gates);
        slice(&original, &gates, &Monitor::none()).unwrap_err().to_string()
    };
    assert!(says(&|g| g.layers[0].heads[0] = false).contains("would have 1 to 2 query heads"));
    assert!(says(&|g| g.layers[1].heads.fill(false)).contains("nothing left"));
    assert!(says(&|g| g.layers[1].ffn[3] = false).contains("no multiple of 4"));
    assert!(says(&|g| drop(g.layers.pop())).contains("those of another model"));
    assert!(says(&|g| g.layers[0].ffn.truncate(3)).contains("those of another model"));
    let encoder = open("bert", "config.json");
    let gates = Gates { hidden: None, layers: Vec::new() };
    assert!(slice(&encoder, &gates, &Monitor::none()).unwrap_err().to_string().contains("it is an encoder"));
    let once = slice(&original, &Gates::open(&config), &Monitor::none()).unwrap();
    assert!(slice(&once, &Gates::open(&config), &Monitor::none()).unwrap_err().to_string().contains("already"));
    let config = Config::read(&once).unwrap();
    let error = Weights::new(&once, &config, None, Some(1)).err().unwrap().to_string();
    assert!(error.contains("rotate first, then shrink"), "{error}");
}

fn write(source: Source, recipe: &str, rotation: Option<u64>, output: &Path) -> Result<(), String> {
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let session = Session::start(Options::default(), move |event| {
        let _ = sender.lock().unwrap().send(event.kind);
    })
    .unwrap();
    session.send(Command::Compress(Compress {
        source,
        recipe: session::Recipe::Codec(recipe.into()),
        rotation: rotation.map(|seed| Rotation { seed }),
        calibration: session::Calibration::default(),
        output: output.to_owned(),
    }));
    match events.iter().find(EventKind::is_last).unwrap() {
        EventKind::Done => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_written_file_is_smaller_and_computes_the_same() {
    let gpu = &gpus()[0];
    let folder = tempfile::tempdir().unwrap();
    let gguf = Converted::of("llama").bytes();
    let llama = tersor_tests::golden::path("families/llama/model.safetensors");
    let phi = tersor_tests::golden::path("families/phi3/model.safetensors");
    for (name, source, original) in [
        ("llama", Source::Path(llama), open("llama", "config.json")),
        ("phi3", Source::Path(phi), open("phi3", "config.json")),
        ("gguf", Source::Files(vec![("m.gguf".into(), gguf)]), Converted::of("llama").open()),
    ] {
        let ids: Vec<u32> = (0..30).map(|i| (i * 37 + 5) % 128).collect();
        // The GGUF of the test says nowhere how many tokens there are but in a plain embedding table.
        let quantized = if name == "gguf" { "f16" } else { "q8_0" };
        for (codec, rotation) in [("f32", None), (quantized, None), ("f32", Some(7))] {
            let recipe = format!("prune:heads=50,ffn=50,align=4+{codec}");
            let output = folder.path().join(format!("{name}-{codec}-{}.safetensors", rotation.is_some()));
            write(source.clone(), &recipe, rotation, &output).unwrap();
            let whole = folder.path().join("whole.safetensors");
            write(source.clone(), codec, rotation, &whole).unwrap_or(()); // f32 over f32 changes nothing
            let written = Checkpoint::open(&output).unwrap();
            let recipe = Recipe::parse(&recipe).unwrap();
            let small = shrink(&original, recipe.shrink().unwrap(), rotation, None, &Monitor::none()).unwrap();
            let config = Config::read(&small).unwrap();
            assert_eq!(Config::read(&written).unwrap(), config, "{name}");
            assert!(config.layer_shapes().all(|shape| shape.intermediate == 32), "{:?}", config.shapes);
            assert_eq!(config.layer_shapes().map(|shape| shape.kv_heads).sum::<u32>(), 2);
            let weights = Weights::new(&small, &config, Some(recipe), None).unwrap();
            let monitor = Monitor::none();
            let loading = Decoder::load(gpu, config, weights, "small", 64, &monitor);
            let expected = logits(&pollster::block_on(loading).unwrap().0, &ids, 64, &[30]);
            assert_eq!(worst(&logits(&load(gpu, &written, 64), &ids, 64, &[30]), &expected), 0.0, "{name} {codec}");
            if codec != "f32" {
                assert!(std::fs::metadata(&output).unwrap().len() < std::fs::metadata(&whole).unwrap().len());
            }
        }
        let refused = write(source, "prune:ffn=50,align=4+q8_0", None, &folder.path().join("m.gguf")).unwrap_err();
        assert!(refused.contains("have no place in GGUF"), "{refused}");
    }
}

#[test]
fn shapes_that_lie_are_refused() {
    let original = open("llama", "config.json");
    let config = Config::read(&original).unwrap();
    let whole = config.whole_shape();
    let said = |text: &str| {
        let small = slice(&original, &Gates::open(&config), &Monitor::none()).unwrap();
        let with = |meta: &mut Meta| {
            let Meta::HuggingFace { st_metadata, .. } = meta else { panic!() };
            st_metadata.insert(SHAPES_KEY.into(), text.into());
        };
        Config::read(&with_meta(&small, with))
    };
    let layers =
        |shape: LayerShape| format!(r#"{{"version":1,"layers":[{0},{0}]}}"#, serde_json::to_string(&shape).unwrap());
    said(&layers(whole)).unwrap();
    for (text, says) in [
        ("{".to_owned(), "cannot be read"),
        (r#"{"version":2,"layers":[]}"#.into(), "version 2"),
        (r#"{"version":1,"layers":[]}"#.into(), "0 layers where the model has 2"),
        (r#"{"version":1,"layers":[{},{}]}"#.into(), "cannot be read"),
        (layers(whole).replace(":16", ":4294967296"), "cannot be read"),
        (layers(LayerShape { heads: 0, ..whole }), "0 query heads"),
        (layers(LayerShape { heads: 6, ..whole }), "6 query heads"),
        (layers(LayerShape { heads: 3, ..whole }), "3 query heads cannot share 2"),
        (layers(LayerShape { kv_heads: 0, ..whole }), "0 heads of keys"),
        (layers(LayerShape { qk_dim: 18, ..whole }), "18 dimensions of queries"),
        (layers(LayerShape { qk_dim: 7, ..whole }), "7 dimensions of queries and keys, no multiple of 2"),
        (layers(LayerShape { v_dim: 0, ..whole }), "0 dimensions of values"),
        (layers(LayerShape { intermediate: u32::MAX, ..whole }), "4294967295 channels"),
        (layers(LayerShape { intermediate: 30, ..whole }), "30 channels of the MLP, no multiple of 4"),
        (layers(whole).replace("\"layers\"", "\"hidden\":68,\"layers\""), "68 of the residual stream's 64"),
    ] {
        let error = said(&text).unwrap_err().to_string();
        assert!(error.contains(SHAPES_KEY) && error.contains(says), "{text}: {error}");
    }
    // Shapes that make sense but are not those of the tensors, or whose pairs are missing or none of the head's.
    let gpu = &gpus()[0];
    let lie = |text: &str, pairs: Option<([u64; 2], &[u32])>| {
        let small = slice(&original, &Gates::open(&config), &Monitor::none()).unwrap();
        let small = with_meta(&small, |meta| {
            let Meta::HuggingFace { st_metadata, .. } = meta else { panic!() };
            st_metadata.insert(SHAPES_KEY.into(), text.into());
        });
        let small = match pairs {
            Some((shape, words)) => with_words(&small, "model.layers.0.self_attn.q_proj.pairs", shape, words),
            None => small,
        };
        let config = Config::read(&small).unwrap();
        let weights = Weights::new(&small, &config, None, None).unwrap();
        weights.pairs(0, &config.shape(0)).map(|_| ()).and_then(|()| {
            let monitor = Monitor::none();
            let loading = Decoder::load(gpu, config, weights, "lie", 64, &monitor);
            pollster::block_on(loading).map(|_| ())
        })
    };
    let says = |text: &str, pairs: Option<([u64; 2], &[u32])>| lie(text, pairs).unwrap_err().to_string();
    let narrow = layers(LayerShape { intermediate: 32, ..whole });
    assert!(says(&narrow, None).contains("the configuration asks for"));
    let shapes = layers(LayerShape { qk_dim: 4, ..whole });
    assert!(says(&shapes, None).contains("q_proj.pairs` is missing"));
    assert!(says(&shapes, Some(([2, 3], &[0; 6]))).contains("asks for [2, 2]"));
    assert!(says(&shapes, Some(([2, 2], &[0, 1, 7, 8]))).contains("pair 8 of a head that has 8"));
    assert!(says(&shapes, Some(([2, 2], &[0, 1, 6, 7]))).contains("the configuration asks for")); // the matrices are too large
}

#[test]
fn impossible_amounts_are_refused() {
    let model = models::open("tiny");
    for (recipe, says) in [
        ("prune:heads=1", "1 % of 8 KV heads is none"),
        ("prune:ffn=1", "1 % of 768 channels, in steps of 32, is none"),
        ("prune:ffn=20,by=activation", "needs a calibration text"),
    ] {
        let recipe = Recipe::parse(recipe).unwrap();
        let error = shrink(&model, recipe.shrink().unwrap(), None, None, &Monitor::none()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
