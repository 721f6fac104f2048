//! Entropy-coded models are the models that they were: every weight, and so every token.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use tersor_engine::codec::{self, Packed, Stored};
use tersor_engine::format::Checkpoint;
use tersor_engine::generate::{ContinueOptions, Tokenizer, continue_text};
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::model::Context;
use tersor_engine::ops::linear::{Linear, Rows, embed, expanded};
use tersor_engine::progress::Monitor;
use tersor_engine::session::{Command, Compress, EventKind, Options, Recipe, Rotation, Session, Source};
use tersor_tests::decoder::{Form, load_as, logits};
use tersor_tests::kernel::gpus;
use tersor_tests::models;

/// A matrix's entropy-coded plane, decoded by the GPU, beside the codec's own, encoded by the CPU.
fn gpu_plane(gpu: &Gpu, coded: &Packed) -> Vec<u32> {
    let linear = Linear::upload(gpu, coded, "w").unwrap();
    let mut rec = gpu.record();
    let planes = expanded(&mut rec, &linear).unwrap();
    rec.submit().unwrap();
    let read = |planes: &Vec<_>| pollster::block_on(gpu.read::<u32>(&planes[0], 0, planes[0].size() / 4)).unwrap();
    planes.iter().flat_map(read).collect()
}

#[test]
fn the_gpu_expands_what_was_coded() {
    let weights: Vec<f32> =
        (0..70 * 4352u64).map(|i| ((i * 2654435761 % 65521) as f32 / 65521.0 - 0.5).powi(3)).collect();
    for gpu in gpus() {
        for (base, rows, cols) in [
            ("bf16", 70, 4352),
            ("bf16", 3, 37),
            ("uniform:bits=2", 9, 576),
            ("uniform:bits=3", 9, 576),
            ("uniform:bits=5,group=32", 5, 160),
            ("q4_0", 1, 32),
            ("q6_k", 7, 512),
            ("q8_0", 33, 4128),
        ] {
            let [plain, coded] = [base.to_owned(), format!("entropy:{base}")]
                .map(|recipe| codec::parse(&recipe).unwrap().encode(&weights[..rows * cols], rows, cols).unwrap());
            assert_eq!(gpu_plane(&gpu, &coded), plain.planes[0].data, "{base} of {rows} x {cols} on {}", gpu.name());
        }
    }
}

/// A file's planes may hold anything that passes the checks when it is loaded: kernels then compute something, and stay inside.
#[test]
fn damaged_streams_end_on_the_gpu() {
    let gpu = &gpus()[0];
    let (rows, cols) = (6, 576);
    let weights: Vec<f32> = (0..rows * cols).map(|i| (i as f32).sin()).collect();
    for recipe in ["entropy:bf16", "entropy:uniform:bits=4"] {
        let good = codec::parse(recipe).unwrap().encode(&weights, rows, cols).unwrap();
        let mut seed = 1u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 8
        };
        let mut survivors = 0;
        for _ in 0..60 {
            let mut planes = good.planes.clone();
            let len = planes[0].data.len();
            let start = planes[0].data[1] as usize;
            for _ in 0..8 {
                // Entry points and the stream; what is before them is checked.
                let at = 4 + (1 << planes[0].data[0]) + random() as usize % (len - 4 - (1 << planes[0].data[0]));
                planes[0].data[at] = if at < start { planes[0].data[at] | random() << 16 } else { random() };
            }
            if random() % 4 == 0 {
                planes[0].data.truncate(start + 1);
            }
            let Ok(packed) = Packed::new(good.codec.clone(), rows, cols, planes) else { continue };
            survivors += 1;
            assert_eq!(gpu_plane(gpu, &packed).len() % (rows * 18), 0);
            let table = Linear::upload(gpu, &packed, "table").unwrap();
            let ids = gpu.upload("ids", &[0u32, 5], Purpose::Activations).unwrap();
            let y = gpu.upload("y", &vec![7f32; 2 * cols + 9], Purpose::Activations).unwrap();
            let mut rec = gpu.record();
            embed(&mut rec, &table, &ids, 0, 2, Rows { buffer: &y, offset: 0, stride: cols as u32 }, 1.0, false)
                .unwrap();
            rec.submit().unwrap();
            let got = pollster::block_on(gpu.read::<f32>(&y, 2 * cols as u64, 9)).unwrap();
            assert_eq!(got, [7.0; 9]);
        }
        assert!(survivors > 5, "{recipe}: {survivors}");
    }
}

/// One prompt goes through kernels that expand, one token at a time through those that decode as they multiply.
#[test]
fn a_coded_model_says_the_same() {
    let checkpoint = models::open("tiny");
    let tokenizer = Arc::new(Tokenizer::from_checkpoint(&checkpoint).unwrap());
    for gpu in gpus() {
        for base in ["bf16", "q8_0"] {
            let [plain, coded] = [base.to_owned(), format!("entropy:{base}")].map(|recipe| {
                let recipe: &'static str = recipe.leak();
                load_as(&gpu, &checkpoint, Form { recipe: Some(recipe), ..Form::default() }, 256)
            });
            let prompt = tokenizer.encode("The old house", false).unwrap();
            let long: Vec<u32> = prompt.iter().copied().cycle().take(64).collect();
            assert_eq!(
                logits(&coded, &long, 256, &[64]),
                logits(&plain, &long, 256, &[64]),
                "{base} on {}",
                gpu.name()
            );
            let [coded, plain] = [&coded, &plain].map(|decoder| {
                let options = ContinueOptions { ignore_end: true, ..ContinueOptions::greedy(48) };
                let mut context = Context::new(decoder, 256).unwrap();
                let monitor = Monitor::none();
                let text = continue_text(decoder, &mut context, &tokenizer, &prompt, &options, |_| (), &monitor);
                pollster::block_on(text).unwrap().ids().to_vec()
            });
            assert_eq!(coded, plain, "{base} on {}", gpu.name());
        }
    }
}

fn write(recipe: &str, output: &Path) {
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let session = Session::start(Options::default(), move |event| {
        let _ = sender.lock().unwrap().send(event.kind);
    })
    .unwrap();
    let located = tersor::fetch::locate("smollm2-135m", &tersor::fetch::Options::default());
    let tersor::fetch::Located::Path(path) = located.unwrap() else { panic!("it is a file") };
    session.send(Command::Compress(Compress {
        source: Source::Path(path),
        recipe: Recipe::Codec(recipe.into()),
        rotation: Some(Rotation { seed: 1 }),
        calibration: Default::default(),
        output: output.to_owned(),
    }));
    let last = events.iter().find(EventKind::is_last).unwrap();
    assert!(matches!(last, EventKind::Done), "{}: {last:?}", output.display());
}

/// SmolLM2, rotated, as bf16 and coded, through files: smaller than DFloat11 would be, and the same weights on CPU and GPU.
#[test]
fn a_coded_file_holds_every_weight() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, coded] = ["bf16", "entropy:bf16"].map(|recipe| {
        let path: PathBuf = folder.path().join(format!("{}.safetensors", recipe.replace(':', "-")));
        write(recipe, &path);
        Stored::of(&Checkpoint::open(&path).unwrap()).unwrap()
    });
    let gpu = &gpus()[0];
    let mut hashes = [(); 3].map(|()| Sha256::new());
    let (mut bytes, mut weights) = (0, 0);
    for tensor in plain.tensors() {
        let [plain, coded] = [&plain, &coded].map(|stored| stored.load(&tensor.name).unwrap().unwrap());
        if coded.codec.name() != "entropy:bf16" {
            assert_eq!(plain.decode(), coded.decode(), "{}", tensor.name);
            continue;
        }
        bytes += coded.bytes();
        weights += tensor.elements();
        let bits =
            |packed: &Packed| packed.decode().iter().flat_map(|w| w.to_bits().to_le_bytes()).collect::<Vec<u8>>();
        hashes[0].update(bits(&plain));
        hashes[1].update(bits(&coded));
        let data = gpu_plane(gpu, &coded);
        let gpu = Packed { planes: vec![codec::Plane { data, ..plain.planes[0].clone() }], ..plain };
        hashes[2].update(bits(&gpu));
    }
    let [plain, cpu, gpu] = hashes.map(|hash| format!("{:x}", hash.finalize()));
    println!("{:.3} bits a weight, SHA-256 {plain}", 8.0 * bytes as f64 / weights as f64);
    assert_eq!((cpu, gpu), (plain.clone(), plain));
    assert!(weights > 160_000_000);
    assert!(8.0 * bytes as f64 / (weights as f64) < 11.0, "{bytes} bytes for {weights} weights");
}
