//! Low-rank parts in a whole model: what they gain, that every way through the model computes the same, how many dispatches they take,
//! and that files hold them.

use tersor_engine::codec::{Calibrates, Recipe};
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::model::{Config, Context, Decoder, Weights, calibrate};
use tersor_engine::progress::Monitor;
use tersor_engine::session::report::{Comparison, Evaluation, Quality};
use tersor_engine::session::{
    Calibration, Command, Compare, Compress, Evaluate, Options, Recipe as Asked, Report, Source, Text,
};
use tersor_tests::decoder::{load, logits, worst};
use tersor_tests::golden::asset;
use tersor_tests::kernel::gpus;
use tersor_tests::models;
use tersor_tests::talk::{Talk, options, tiny};

fn heldout(from: usize, characters: usize) -> Text {
    let text = std::fs::read_to_string(asset("tiny/heldout.txt")).unwrap();
    Text { name: "heldout.txt".to_owned(), text: text.chars().skip(from).take(characters).collect() }
}

/// The embedded model in this recipe, calibrated on the beginning of its held-out text.
fn compressed(gpu: &Gpu, recipe: &str) -> Decoder {
    let checkpoint = models::open("tiny");
    let config = Config::read(&checkpoint).unwrap();
    let recipe = Recipe::parse(recipe).unwrap();
    let weights = Weights::new(&checkpoint, &config, Some(recipe), None).unwrap();
    let ids: Vec<u32> = heldout(0, 512).text.bytes().map(u32::from).collect();
    let original = load(gpu, &checkpoint, 512);
    let wanted = weights.wanted(Calibrates::Always);
    assert!(!wanted.is_empty());
    let found = pollster::block_on(calibrate(&original, &wanted, &[&ids], &Monitor::none())).unwrap();
    let weights = weights.calibrated(found);
    let loaded = pollster::block_on(Decoder::load(gpu, config, weights, "tiny", 128, &Monitor::none()));
    loaded.unwrap().0
}

const PROMPT: &str = "It is a truth universally acknowledged, that a";

#[test]
fn a_prompt_at_once_and_token_by_token() {
    let ids: Vec<u32> = PROMPT.bytes().map(u32::from).collect();
    for gpu in gpus() {
        for recipe in ["q4_0+eora:rank=16", "lord:ratio=60"] {
            let decoder = compressed(&gpu, recipe);
            let [whole, single] = [&[ids.len()][..], &[1]].map(|pieces| logits(&decoder, &ids, 64, pieces));
            let largest = whole.iter().fold(0f32, |m, v| m.max(v.abs()));
            let difference = worst(&whole, &single);
            assert!(difference < 2e-3 * largest, "{recipe}: {difference} of {largest}");
        }
    }
}

/// A low-rank part takes one dispatch more for a product: four a layer, whatever is stacked.
#[test]
fn dispatches_are_counted() {
    let gpu = &gpus()[0];
    let count = |decoder: &Decoder| {
        let mut context = Context::new(decoder, 64).unwrap();
        let ids = gpu.upload("ids", &[65u32; 2], Purpose::Activations).unwrap();
        let mut rec = gpu.record();
        decoder.forward(&mut rec, &mut context, &ids, 0, 1, None).unwrap();
        rec.dispatches()
    };
    let plain = count(&load(gpu, &models::open("tiny"), 64));
    assert_eq!(plain, 1 + 4 * 6);
    assert_eq!(count(&compressed(gpu, "q4_0+eora:rank=16")), plain + 4 * 4);
    assert_eq!(count(&compressed(gpu, "lord:rank=64")), plain + 4 * 4);
}

fn comparison(recipes: &[&str], calibration: Calibration) -> Comparison {
    let compare = Compare {
        source: tiny(),
        recipes: recipes.iter().map(|recipe| Asked::Codec((*recipe).to_owned())).collect(),
        dense: "bf16".to_owned(),
        rotation: None,
        calibration,
        text: Some(heldout(10_000, 2000)),
        context: 256,
        windows: Some(4),
        input: None,
        tokens: 0,
        attention: Vec::new(),
    };
    let Report::Compare(report) = Talk::start(options()).report(Command::Compare(compare)) else { panic!() };
    report
}

fn divergence(quality: &Option<Quality>) -> f64 {
    quality.as_ref().unwrap().divergence.as_ref().unwrap().kl_divergence.mean
}

#[test]
fn eora_brings_a_model_nearer_than_svd_does_and_lord_beats_svd() {
    let calibration = Calibration { text: None, tokens: Some(2048) };
    let recipes = [
        "uniform:bits=3",
        "uniform:bits=3+svd:rank=32",
        "uniform:bits=3+eora:rank=32",
        "svd:ratio=60",
        "lord:ratio=60",
    ];
    let report = comparison(&recipes, calibration);
    let [plain, svd, eora, alone, lord] = [1, 2, 3, 4, 5].map(|i| &report.variants[i]);
    let kl = [plain, svd, eora, alone, lord].map(|variant| divergence(&variant.quality));
    println!("KLD {kl:?}");
    assert!(kl[2] < 0.75 * kl[0] && kl[2] < kl[1], "3 bits, with SVD, with EoRA: {kl:?}");
    let perplexity = |quality: &Option<Quality>| quality.as_ref().unwrap().perplexity.value;
    assert!(perplexity(&lord.quality) < perplexity(&alone.quality) && kl[4] < kl[3], "SVD, LoRD: {kl:?}");
    // Equal parameters; LoRD has biases as well, which are stored for SVD too.
    assert_eq!(alone.weights.bytes, lord.weights.bytes);
    let said = eora.weights.calibration.as_ref().unwrap();
    assert_eq!((said.text.as_str(), said.tokens), ("Pride and Prejudice, 1–7", 2048));
    assert!(svd.weights.calibration.is_none() && report.variants[0].weights.calibration.is_none());
    // The table, which is the output projection too, has no low-rank part.
    assert!(eora.weights.codecs.iter().any(|(name, count)| name == "uniform:bits=3,group=64" && *count == 1));
}

/// What a file holds is what loading with the recipe makes, bit for bit.
#[test]
fn files_hold_what_was_made_for_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let talk = Talk::start(Options::default());
    let calibration = Calibration { text: Some(heldout(0, 600)), tokens: Some(512) };
    for recipe in [
        "q4_0+eora:rank=16",
        "sparse24+eora:rank=32,factors=q8_0",
        "lord:ratio=50,factors=f16",
        "sparse:2:4+q8_0+eora:rank=16",
        "entropy:uniform:bits=4+eora:rank=16",
        // Stages: what they leave has other shapes.
        "modegpt:ratio=20+q8_0",
        "prune:heads=25,ffn=25,by=activation+q4_0+eora:rank=8",
    ] {
        let output = folder.path().join("tiny.safetensors");
        let recipe = Asked::Codec(recipe.to_owned());
        let compress = Compress {
            source: tiny(),
            recipe: recipe.clone(),
            rotation: Some(tersor_engine::session::Rotation { seed: 3 }),
            calibration: calibration.clone(),
            output: output.clone(),
        };
        let Report::Compress(written) = talk.report(Command::Compress(compress)) else { panic!() };
        assert_eq!(written.weights.calibration.as_ref().unwrap().tokens, 512);
        let evaluate = |source, asked: Option<Asked>| -> Evaluation {
            let evaluate = Evaluate {
                source,
                rotation: asked.as_ref().map(|_| tersor_engine::session::Rotation { seed: 3 }),
                recipe: asked,
                against: None,
                calibration: calibration.clone(),
                text: heldout(10_000, 600),
                context: 256,
                windows: Some(2),
                attention: None,
            };
            let Report::Evaluate(found) = talk.report(Command::Evaluate(evaluate)) else { panic!() };
            *found
        };
        let [file, direct] = [evaluate(Source::Path(output), None), evaluate(tiny(), Some(recipe.clone()))];
        assert_eq!(file.quality.perplexity, direct.quality.perplexity, "{recipe:?}");
        assert_eq!(file.weights.bytes, direct.weights.bytes);
    }
}
