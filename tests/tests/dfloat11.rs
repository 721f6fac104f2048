//! DFloat11 end to end: the reference's bytes, decoding on every tier, files, and models that say exactly what their bf16 twins say.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tersor_engine::codec::dfloat11::Group;
use tersor_engine::codec::{self, Recipe, Stored};
use tersor_engine::format::{Checkpoint, CheckpointWriter, Meta, TensorInfo};
use tersor_engine::gpu::{Gpu, GpuOptions, LimitsChoice, Purpose};
use tersor_engine::model::names::Role;
use tersor_engine::model::{Config, Need, Place, Weights};
use tersor_engine::ops::dfloat11::Stream;
use tersor_engine::ops::elementwise::Activation;
use tersor_engine::ops::linear::{Epilogue, Linear, Residual, Rows, embed, forward};
use tersor_engine::session::report::Comparison;
use tersor_engine::session::{
    Calibration, Command, Compare, Compress, Input, Recipe as Asked, Report, Rotation, Source, Text,
};
use tersor_tests::checksum::{Lcg, crc32};
use tersor_tests::decoder::{Form, load_as, logits, try_load};
use tersor_tests::kernel::{Guarded, Random, gpus};
use tersor_tests::talk::{Talk, options, tiny};
use tersor_tests::{golden, models, scratch};

#[derive(Deserialize)]
struct Part {
    bytes: usize,
    crc32: String,
}

#[derive(Deserialize)]
struct Vector {
    seed: u32,
    n: usize,
    most: u32,
    weights: String,
    parts: BTreeMap<String, Part>,
}

#[derive(Deserialize)]
struct Model {
    groups: BTreeMap<String, BTreeMap<String, Part>>,
    pattern_dict: serde_json::Value,
}

#[derive(Deserialize)]
struct Golden {
    vectors: Vec<Vector>,
    tiny: Model,
}

fn hex(bytes: &[u8]) -> String {
    format!("{:08x}", crc32(bytes))
}

/// Little-endian bytes of 16-bit words.
fn le(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Weights with geometrically distributed exponents, as the golden files have them.
fn geometric(seed: u32, n: usize, most: u32) -> Vec<u16> {
    let mut lcg = Lcg(seed);
    let one = |_| {
        let k = (lcg.bits() >> 8).trailing_ones().min(most);
        let sm = lcg.bits();
        ((sm >> 31) << 15 | (124 - k) << 7 | (sm >> 16) & 0x7f) as u16
    };
    (0..n).map(one).collect()
}

/// N(0, deviation²) in bf16.
fn normal(seed: u64, n: usize, deviation: f32) -> Vec<u16> {
    let mut random = Random::new(seed);
    (0..n).map(|_| half::bf16::from_f32(deviation * random.normal()).to_bits()).collect()
}

/// The weights of a group as the GPU expands them, between guards; those of `range`.
fn expand(gpu: &Gpu, group: &Group, range: std::ops::Range<usize>) -> Vec<u16> {
    let stream = Stream::upload(gpu, group, "test").unwrap();
    let out = Guarded::new(gpu, range.len().div_ceil(2));
    let mut rec = gpu.record();
    stream.expand(&mut rec, range.start as u32..range.end as u32, &out.slice(), 0).unwrap();
    rec.submit().unwrap();
    let mut words: Vec<u16> = out.words(gpu).into_iter().flat_map(|w| [w as u16, (w >> 16) as u16]).collect();
    words.truncate(range.len());
    words
}

#[test]
fn golden_vectors_are_encoded_and_decoded_byte_for_byte() {
    let golden: Golden = golden::json("dfloat11.json");
    for vector in golden.vectors {
        let weights = geometric(vector.seed, vector.n, vector.most);
        assert_eq!(hex(&le(&weights)), vector.weights);
        let group = Group::encode(&weights).unwrap();
        let positions: Vec<u8> = group.output_positions.iter().flat_map(|n| n.to_le_bytes()).collect();
        for (name, bytes) in [
            ("luts", &group.luts),
            ("encoded_exponent", &group.encoded_exponent),
            ("sign_mantissa", &group.sign_mantissa),
            ("output_positions", &positions),
            ("gaps", &group.gaps),
        ] {
            let part = &vector.parts[name];
            assert_eq!((bytes.len(), hex(bytes)), (part.bytes, part.crc32.clone()), "{name} of {} weights", vector.n);
        }
        assert_eq!(group.decode(), weights);
        for gpu in gpus() {
            assert_eq!(hex(&le(&expand(&gpu, &group, 0..weights.len()))), vector.weights, "{}", gpu.name());
        }
    }
}

#[test]
fn a_million_normal_weights_come_back_from_every_tier() {
    let weights = normal(1, 1_000_000, 0.02);
    let group = Group::encode(&weights).unwrap();
    assert!(group.bytes() as f64 / 2e6 <= 0.68, "{} bytes", group.bytes());
    for gpu in gpus() {
        assert!(expand(&gpu, &group, 0..weights.len()) == weights, "{}", gpu.name());
        assert!(expand(&gpu, &group, 123_456..876_543) == weights[123_456..876_543], "{}", gpu.name());
    }
    let limits = GpuOptions { limits: LimitsChoice::WebgpuDefault, ..GpuOptions::from_env().unwrap() };
    let smallest = pollster::block_on(Gpu::new(limits)).unwrap();
    assert!(expand(&smallest, &group, 0..weights.len()) == weights, "WebGPU's default limits");
}

#[test]
fn codes_of_all_lengths_and_blocks_of_all_fillings() {
    // One exponent (codes of one bit, blocks of 32768 weights), two, halves of blocks that end within a word, codes of 25 bits.
    let mut lcg = Lcg(5);
    let fibonacci = |n: usize| -> Vec<u16> {
        let (mut a, mut b) = (1usize, 1usize);
        let mut all = Vec::new();
        for exponent in 100..100 + n as u16 {
            all.extend(std::iter::repeat_n(exponent << 7, a));
            (a, b) = (b, a + b);
        }
        all
    };
    let mut deep = fibonacci(25);
    for i in (1..deep.len()).rev() {
        deep.swap(i, lcg.below(i + 1));
    }
    let any: Vec<u16> = (0..90_001).map(|_| (lcg.bits() >> 17) as u16 % (100 << 7)).collect();
    let cases = [
        vec![0x3f80; 100_000],
        (0..70_001).map(|i| if i % 3 == 0 { 0x3f80 } else { 0xc013 }).collect(),
        vec![0x8000],
        deep,
        any,
        geometric(9, 16_385, 20),
    ];
    let all = gpus();
    for weights in &cases {
        let group = Group::encode(weights).unwrap();
        group.check().unwrap();
        assert!(group.decode() == *weights);
        for gpu in &all {
            assert!(expand(gpu, &group, 0..weights.len()) == *weights, "{} weights, {}", weights.len(), gpu.name());
        }
    }
}

/// A group with one or a few of its bytes changed.
fn damage(group: &Group, random: &mut Random) -> Group {
    let mut bad = group.clone();
    for _ in 0..1 + random.below(3) {
        let flip = 1u8 << random.below(8);
        let (part, number) = (random.below(5), random.word());
        let bytes = match part {
            0 => &mut bad.luts,
            1 => &mut bad.gaps,
            2 => &mut bad.sign_mantissa,
            3 => {
                let at = random.below(bad.output_positions.len() as u32) as usize;
                bad.output_positions[at] ^= 1 << random.below(32);
                continue;
            }
            _ => &mut bad.encoded_exponent,
        };
        let at = number as usize % bytes.len();
        bytes[at] ^= flip;
    }
    bad
}

#[test]
fn damaged_groups_are_refused_or_decode_to_something_within_bounds() {
    let weights = geometric(3, 20_000, 22);
    let group = Group::encode(&weights).unwrap();
    let mut random = Random::new(8);
    let (mut refused, mut decoded) = (0, 0);
    for _ in 0..5000 {
        let bad = damage(&group, &mut random);
        match bad.check() {
            Ok(()) => {
                assert_eq!(bad.decode().len(), weights.len());
                decoded += 1;
            }
            Err(what) => {
                assert!(what.starts_with("luts") || what.starts_with("output_positions"), "{what}");
                refused += 1;
            }
        }
    }
    assert!(refused > 500 && decoded > 2000, "{refused} refused, {decoded} decoded");

    let gpu = gpus().remove(0);
    let mut run = 0;
    while run < 150 {
        let bad = damage(&group, &mut random);
        if bad.check().is_err() {
            let error = Stream::upload(&gpu, &bad, "damaged").unwrap_err().to_string();
            assert!(error.starts_with("dfloat11: damaged: "), "{error}");
            continue;
        }
        // Weights that the stream does not have stay what they were: the guards' word is asked for in none.
        let stream = Stream::upload(&gpu, &bad, "damaged").unwrap();
        let words = vec![0u32; 10_000 + 64];
        let out = gpu.upload("out", &words, Purpose::Activations).unwrap();
        let mut rec = gpu.record();
        stream.expand(&mut rec, 0..20_000, &out.slice(0, 40_000), 0).unwrap();
        rec.submit().unwrap();
        let found: Vec<u32> = pollster::block_on(gpu.read(&out, 0, 10_064)).unwrap();
        assert!(found[10_000..].iter().all(|word| *word == 0), "a write outside");
        run += 1;
    }
}

#[test]
fn layers_that_expand_themselves_multiply_and_look_up_like_bf16() {
    // The largest is two windows and a bit.
    for (rows, cols) in [(6, 32), (130, 96), (2 * 2801, 3008)] {
        let weights: Vec<f32> =
            normal(7, rows * cols, 0.1).iter().map(|w| half::bf16::from_bits(*w).to_f32()).collect();
        let packed = ["bf16", "dfloat11"].map(|name| codec::parse(name).unwrap().encode(&weights, rows, cols).unwrap());
        for gpu in gpus() {
            let x = Random::new(3).normals(5 * cols);
            let x = gpu.upload("x", &x, Purpose::Activations).unwrap();
            let ids = gpu.upload("ids", &[0u32, rows as u32 - 1, 3, 1 << 30, 4], Purpose::Activations).unwrap();
            let results = packed.each_ref().map(|packed| {
                let mut all = Vec::new();
                for (gated, tokens) in [(false, 1), (false, 5), (true, 1), (true, 4)] {
                    let linear = if gated { Linear::upload_gated } else { Linear::upload };
                    let linear = linear(&gpu, packed, "w").unwrap();
                    let y = gpu.upload("y", &vec![7f32; 5 * rows], Purpose::Activations).unwrap();
                    let activation = gated.then_some(Activation::Silu);
                    let epilogue = Epilogue { activation, residual: Residual::InPlace, ..Epilogue::default() };
                    let mut rec = gpu.record();
                    let (x, to) = (Rows::new(&x, cols as u32), Rows::new(&y, linear.outputs()));
                    forward(&mut rec, &linear, tokens, x, to, &epilogue).unwrap();
                    rec.submit().unwrap();
                    all.extend(pollster::block_on(gpu.read::<u32>(&y, 0, 5 * rows as u64)).unwrap());
                }
                let table = Linear::upload(&gpu, packed, "table").unwrap();
                let y = gpu.upload("y", &vec![7f32; 5 * cols], Purpose::Activations).unwrap();
                for accumulate in [false, true] {
                    let mut rec = gpu.record();
                    let to = Rows::new(&y, cols as u32);
                    embed(&mut rec, &table, &ids, 0, 5, to, 0.5, accumulate).unwrap();
                    rec.submit().unwrap();
                    all.extend(pollster::block_on(gpu.read::<u32>(&y, 0, 5 * cols as u64)).unwrap());
                }
                all
            });
            assert!(results[0] == results[1], "{rows} x {cols} on {}", gpu.name());
        }
    }
}

/// The matrices of a layer, or a table, as a model asks for them.
fn layer(c: &Config) -> Vec<Place> {
    let (q, kv) = (c.q_width(), c.kv_width());
    vec![
        (Role::Q, q, c.hidden),
        (Role::K, kv, c.hidden),
        (Role::V, kv, c.hidden),
        (Role::O, c.hidden, q),
        (Role::Gate, c.intermediate, c.hidden),
        (Role::Up, c.intermediate, c.hidden),
        (Role::Down, c.hidden, c.intermediate),
    ]
}

/// Compares every weight of a model in DFloat11, as the GPU expands it, with the bf16 that it would be without. Returns the stored
/// bits of a weight.
fn every_weight(checkpoint: &Checkpoint, rotation: Option<u64>) -> f64 {
    let config = Config::read(checkpoint).unwrap();
    let weights = |recipe| Weights::new(checkpoint, &config, Some(Recipe::parse(recipe).unwrap()), rotation).unwrap();
    let (mut coded, mut plain) = (weights("dfloat11"), weights("bf16"));
    let gpu = gpus().remove(0);
    let mut groups = vec![(0, vec![(Role::Embed, config.vocab, config.hidden)])];
    if coded.has_own_head() {
        groups.push((0, vec![(Role::Head, config.vocab, config.hidden)]));
    }
    groups.extend((0..config.layers).map(|number| (number, layer(&config))));
    let (mut bytes, mut elements) = (0, 0);
    for (number, wanted) in groups {
        let (group, firsts) = coded.group(number, &wanted).unwrap().expect("all of it");
        bytes += group.bytes();
        elements += group.len();
        let stream = Stream::upload(&gpu, &group, "group").unwrap();
        let out = gpu.storage("out", 2 * group.len() as u64, Purpose::Activations).unwrap();
        let mut rec = gpu.record();
        stream.expand(&mut rec, 0..stream.weights(), &out.all(), 0).unwrap();
        rec.submit().unwrap();
        let found: Vec<u16> = pollster::block_on(gpu.read(&out, 0, group.len() as u64)).unwrap();
        let on_cpu = group.decode();
        assert!(found == on_cpu, "layer {number}: GPU and CPU");
        for (&(role, rows, cols), first) in wanted.iter().zip(firsts) {
            let packed = plain.matrix(role, number, rows, cols).unwrap();
            let expected: Vec<u16> = packed.decode().iter().map(|w| half::bf16::from_f32(*w).to_bits()).collect();
            let own = &found[first as usize..][..expected.len()];
            assert_eq!(hex(&le(own)), hex(&le(&expected)), "{role:?} of layer {number}");
        }
    }
    let reported: u64 = coded.reports().iter().map(|report| report.bytes).sum();
    assert_eq!(reported, bytes);
    8.0 * bytes as f64 / elements as f64
}

#[test]
fn every_weight_of_tiny_is_bit_identical() {
    let bits = every_weight(&models::open("tiny"), None);
    assert!(bits < 11.5, "{bits}");
}

#[test]
fn every_weight_of_rotated_smollm2_is_bit_identical_in_11_bits() {
    let bits = every_weight(&models::open("smollm2-135m"), Some(1));
    assert!((10.0..=11.2).contains(&bits), "{bits}");
}

/// Whether two models say the same, bit for bit: prompts, single tokens, and several chunks.
fn same_logits(gpu: &Gpu, checkpoint: &Checkpoint, rotation: Option<u64>, ids: &[u32], pieces: &[usize]) {
    let load = |recipe| load_as(gpu, checkpoint, Form { recipe: Some(recipe), rotation }, 64);
    let (plain, coded) = (load("bf16"), load("dfloat11"));
    assert!(coded.weight_bytes() * 10 < plain.weight_bytes() * 8, "{} bytes", coded.weight_bytes());
    let [plain, coded] = [plain, coded].map(|decoder| logits(&decoder, ids, 64, pieces));
    let bits = |logits: &[f32]| logits.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
    assert!(bits(&plain) == bits(&coded), "{}", gpu.name());
}

#[test]
fn tiny_says_what_it_says_in_bf16() {
    let tiny = models::open("tiny");
    for gpu in gpus() {
        for rotation in [None, Some(3)] {
            let ids = b"It was the best of times".map(u32::from);
            same_logits(&gpu, &tiny, rotation, &ids, &[9, 1, 1, 13]);
        }
    }
}

#[test]
fn rotated_smollm2_says_what_it_says_in_bf16() {
    let ids = [504, 2971, 282, 4649, 314, 253, 1789, 28];
    same_logits(&gpus().remove(0), &models::open("smollm2-135m"), Some(1), &ids, &[6, 1, 1]);
}

#[test]
fn what_is_needed_is_known_before() {
    let tiny = models::open("tiny");
    let config = Config::read(&tiny).unwrap();
    let options = GpuOptions::from_env().unwrap();
    let gpu = pollster::block_on(Gpu::new(options)).unwrap();
    let weights = Weights::new(&tiny, &config, Some(Recipe::parse("dfloat11").unwrap()), None).unwrap();
    let need = Need::of(gpu.is_cpu(), &config, &weights, 64);
    let (decoder, _) = try_load(&gpu, &tiny, Form { recipe: Some("dfloat11"), rotation: None }, 64).unwrap();
    logits(&decoder, &[72, 105, 33], 64, &[2, 1]);
    let peak = gpu.memory().peak;
    assert!(need.total() >= peak, "{} bytes were said, {peak} were used", need.total());
    let scratch = 2 * 2 * layer(&config).iter().map(|(_, rows, cols)| u64::from(rows * cols)).sum::<u64>();
    assert!(gpu.memory().activations >= scratch, "two layers are expanded at a time");
    assert!(need.total() < peak + peak / 6, "{} bytes were said, {peak} were used", need.total());
}

fn compress(source: Source, output: &Path, rotation: Option<Rotation>) -> tersor_engine::session::report::Compressed {
    let recipe = Asked::Codec("dfloat11".to_owned());
    let output = output.to_owned();
    let command = Compress { source, recipe, rotation, calibration: Calibration::default(), output };
    match Talk::start(options()).report(Command::Compress(command)) {
        Report::Compress(report) => report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_are_those_of_an_independent_encoder_and_load_again() {
    let golden: Golden = golden::json("dfloat11.json");
    let folder = scratch::folder("dfloat11");
    let original = models::open("tiny");
    let as_folder = folder.path().join("tiny-DF11");
    let as_file = folder.path().join("tiny.safetensors");
    for output in [&as_folder, &as_file] {
        let report = compress(tiny(), output, None);
        assert!(report.weights.bits_per_weight < 11.5, "{}", report.weights.bits_per_weight);
        assert!(report.weights.tensors.iter().all(|tensor| tensor.nmse == 0.0 && tensor.codec == "dfloat11"));
        let checkpoint = Checkpoint::open(output).unwrap();
        let Meta::HuggingFace { config, tokenizer_json, .. } = checkpoint.meta() else { panic!() };
        let Meta::HuggingFace { tokenizer_json: before, .. } = original.meta() else { panic!() };
        assert_eq!(tokenizer_json, before);
        let entry = &config["dfloat11_config"];
        assert_eq!(entry["pattern_dict"], golden.tiny.pattern_dict);
        assert_eq!((&entry["threads_per_block"], &entry["bytes_per_thread"]), (&serde_json::json!([512]), &8.into()));
        for (module, parts) in &golden.tiny.groups {
            for (name, part) in parts {
                let (_, bytes) = checkpoint.tensor(&format!("{module}.{name}")).unwrap();
                assert_eq!((bytes.len(), hex(bytes)), (part.bytes, part.crc32.clone()), "{module}.{name}");
            }
        }
        // Every tensor is there under its own name, with its own values.
        let (old, new) = (Stored::of(&original).unwrap(), Stored::of(&checkpoint).unwrap());
        assert_eq!(old.tensors().len(), new.tensors().len());
        for tensor in old.tensors() {
            let [a, b] = [&old, &new].map(|stored| stored.load(&tensor.name).unwrap().unwrap().decode());
            assert!(a == b, "{}", tensor.name);
            assert_eq!(new.tensor(&tensor.name).unwrap().shape, tensor.shape);
        }
        // As it is stored, compressed anew, and as something else.
        let gpu = gpus().remove(0);
        let ids = [72, 101, 108, 108, 111];
        let said = |form| logits(&load_as(&gpu, &checkpoint, form, 16), &ids, 16, &[4, 1]);
        let plain = logits(&load_as(&gpu, &original, Form::default(), 16), &ids, 16, &[4, 1]);
        for recipe in [None, Some("dfloat11"), Some("bf16")] {
            assert!(said(Form { recipe, rotation: None }) == plain, "{recipe:?}");
        }
        let (decoder, weights) = try_load(&gpu, &checkpoint, Form::default(), 16).unwrap();
        assert!(weights.reports().iter().all(|report| report.codec == "dfloat11" && report.nmse.is_none()));
        assert!(decoder.weight_bytes() * 10 < original.file_bytes() * 7, "{} bytes", decoder.weight_bytes());
    }
    let again = Compress {
        source: tiny(),
        recipe: Asked::Codec("dfloat11".to_owned()),
        rotation: None,
        calibration: Calibration::default(),
        output: as_folder.clone(),
    };
    let failure = Talk::start(options()).failure(Command::Compress(again));
    assert!(failure.message.ends_with("is a folder with files in it: name a new one"), "{}", failure.message);
    let rotated = folder.path().join("rotated");
    let report = compress(tiny(), &rotated, Some(Rotation { seed: 5 }));
    assert!(report.weights.bits_per_weight < 11.5);
    let gpu = gpus().remove(0);
    let [a, b] = [
        load_as(&gpu, &Checkpoint::open(&rotated).unwrap(), Form::default(), 16),
        load_as(&gpu, &original, Form { recipe: Some("bf16"), rotation: Some(5) }, 16),
    ]
    .map(|decoder| logits(&decoder, &[72, 105], 16, &[2]));
    assert!(a == b);
}

#[test]
fn a_file_for_each_block_without_an_index_is_one_model() {
    let folder = scratch::folder("dfloat11-split");
    let (whole, split) = (folder.path().join("whole"), folder.path().join("split"));
    compress(tiny(), &whole, None);
    std::fs::create_dir(&split).unwrap();
    let checkpoint = Checkpoint::open(&whole).unwrap();
    let mut files: BTreeMap<String, Vec<TensorInfo>> = BTreeMap::new();
    for info in checkpoint.tensors() {
        let block = info.name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
        let file = block.map_or("model.safetensors".to_owned(), |block| format!("model_layers_{block}.safetensors"));
        files.entry(file).or_default().push(info.clone());
    }
    assert_eq!(files.len(), 5);
    for (file, infos) in &files {
        let none = BTreeMap::new();
        let mut writer = CheckpointWriter::create_safetensors(&split.join(file), &none, infos).unwrap();
        for info in infos {
            writer.write(&info.name, checkpoint.tensor(&info.name).unwrap().1).unwrap();
        }
        writer.commit().unwrap();
    }
    for file in ["config.json", "tokenizer.json"] {
        if whole.join(file).exists() {
            std::fs::copy(whole.join(file), split.join(file)).unwrap();
        }
    }
    let on_disk = Checkpoint::open(&split).unwrap();
    let read = |name: &str| (format!("split/{name}"), std::fs::read(split.join(name)).unwrap());
    let names = files.keys().map(String::as_str).chain(["config.json"]);
    let in_memory = Checkpoint::from_files(names.map(read).collect()).unwrap();
    for opened in [&on_disk, &in_memory] {
        assert_eq!((opened.name(), opened.tensors().len()), ("split", checkpoint.tensors().len()));
        let [a, b] = [&checkpoint, opened].map(|c| Stored::of(c).unwrap());
        for tensor in a.tensors() {
            let [a, b] = [&a, &b].map(|stored| stored.load(&tensor.name).unwrap().unwrap().decode());
            assert!(a == b, "{}", tensor.name);
        }
    }
}

#[test]
fn a_matrix_that_cannot_be_coded_stays_bf16() {
    // One weight of the second layer's `up` is 2^120.
    let Source::Files(mut files) = tiny() else { panic!("tiny is embedded") };
    let original = models::open("tiny");
    let (info, _) = original.tensor("model.layers.1.mlp.up_proj.weight").unwrap();
    let at = info.offset() as usize;
    let model = files.iter_mut().find(|(name, _)| name.ends_with("model.safetensors")).unwrap();
    model.1[at..at + 2].copy_from_slice(&half::bf16::from_f32(2f32.powi(120)).to_le_bytes());
    let changed = Checkpoint::from_files(files.clone()).unwrap();
    let folder = scratch::folder("dfloat11-large");
    let output = folder.path().join("large");
    let report = compress(Source::Files(files), &output, None);
    assert_eq!(report.weights.fallbacks.len(), 1);
    let checkpoint = Checkpoint::open(&output).unwrap();
    assert!(checkpoint.tensor("model.layers.1.mlp.up_proj.weight").is_some());
    let Meta::HuggingFace { config, .. } = checkpoint.meta() else { panic!() };
    let patterns = config["dfloat11_config"]["pattern_dict"].as_object().unwrap();
    assert_eq!(patterns.len(), 5, "a pattern for each layer: {patterns:?}");
    assert_eq!(patterns["model\\.layers\\.1"].as_array().unwrap().len(), 6);
    let stored = Stored::of(&checkpoint).unwrap();
    for name in ["model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"] {
        let old = Stored::of(&changed).unwrap().load(name).unwrap().unwrap().decode();
        assert!(stored.load(name).unwrap().unwrap().decode() == old, "{name}");
    }
    // And it runs, with that layer's matrices one by one.
    let gpu = gpus().remove(0);
    for (model, recipe) in [(&checkpoint, None), (&changed, Some("dfloat11"))] {
        let (_, weights) = try_load(&gpu, model, Form { recipe, rotation: None }, 16).unwrap();
        assert_eq!(
            weights.reports().iter().filter(|report| report.codec != "dfloat11").count(),
            1 + if recipe.is_none() { 6 } else { 0 }
        );
    }
}

#[test]
fn lying_checkpoints_are_refused() {
    let folder = scratch::folder("dfloat11-lies");
    let output = folder.path().join("tiny");
    compress(tiny(), &output, None);
    let config = std::fs::read_to_string(output.join("config.json")).unwrap();
    let weights = std::fs::read(output.join("model.safetensors")).unwrap();
    let open = |config: &str, weights: &[u8]| {
        let files = [("config.json", config.as_bytes()), ("model.safetensors", weights)];
        let files = files.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).to_vec();
        Stored::of(&Checkpoint::from_files(files).unwrap())
    };
    open(&config, &weights).unwrap();
    for (from, to, says) in [
        ("\"bytes_per_thread\": 8", "\"bytes_per_thread\": 16", "bytes_per_thread is not 8"),
        ("model\\\\.embed_tokens", "model\\\\.tokens", "no pattern names the group \"model.embed_tokens\""),
        ("model\\\\.embed_tokens", "(", "pattern \"(\" cannot be read"),
        ("model\\\\.embed_tokens", "(a{1000}){1000}", "cannot be read"),
        ("\"mlp.down_proj\"", "\"mlp.left_proj\"", "does not tell the shape"),
        ("\"intermediate_size\": 768", "\"intermediate_size\": 769", "no rows of 769"),
        ("\"intermediate_size\": 768", "\"intermediate_size\": 0", "does not tell the shape"),
        ("\"pattern_dict\"", "\"patterns\"", "has no pattern_dict"),
    ] {
        assert!(config.contains(from), "{from} is not in {config}");
        let error = open(&config.replacen(from, to, 1), &weights).unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    }
    // A part that is called something else, or is not what it was.
    let text = |weights: &[u8]| weights.iter().map(|b| *b as char).collect::<String>();
    let header = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let at = text(&weights[..header]).find("model.embed_tokens.gaps\":{").unwrap();
    let mut renamed = weights.clone();
    renamed[at + 19..at + 23].copy_from_slice(b"laps");
    let stored = open(&config, &renamed).unwrap();
    let error = stored.load("model.embed_tokens.weight").unwrap_err().to_string();
    assert!(error.contains("gaps is not in the file"), "{error}");
    let mut flipped = weights.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let stored = open(&config, &flipped).unwrap();
    let failed = stored.tensors().iter().filter(|tensor| stored.load(&tensor.name).is_err()).count();
    assert!(failed >= 1, "the checksum finds it");
}

#[test]
fn comparisons_show_a_divergence_of_zero() {
    let text = std::fs::read_to_string(golden::asset("tiny/heldout.txt")).unwrap();
    let command = Compare {
        source: tiny(),
        recipes: vec![Asked::Codec("dfloat11".to_owned())],
        dense: "bf16".to_owned(),
        rotation: Some(Rotation { seed: 1 }),
        calibration: Calibration::default(),
        attention: Vec::new(),
        text: Some(Text { name: "heldout.txt".to_owned(), text: text.chars().take(2000).collect() }),
        context: 256,
        windows: Some(2),
        input: Some(Input::Prompt("It is a truth universally acknowledged".to_owned())),
        tokens: 12,
    };
    let Report::Compare(Comparison { variants, .. }) = Talk::start(options()).report(Command::Compare(command)) else {
        panic!("another report")
    };
    let [dense, coded] = &variants[..] else { panic!("{} variants", variants.len()) };
    let divergence = coded.quality.as_ref().unwrap().divergence.as_ref().unwrap();
    assert_eq!((divergence.kl_divergence.max, divergence.kl_divergence.mean), (0.0, 0.0));
    let generation = coded.generation.as_ref().unwrap();
    assert_eq!((generation.first_difference, &generation.tokens), (None, &dense.generation.as_ref().unwrap().tokens));
    assert!(coded.weights.bits_per_weight < 11.2, "{}", coded.weights.bits_per_weight);
    assert!(coded.memory.weights < dense.memory.weights * 3 / 4);
}
