//! The protocol on the GPU, with the embedded model: what each command answers, how it is cancelled, and what goes on after
//! failures.

use std::time::{Duration, Instant};

use tersor_engine::gpu::{Gpu, GpuOptions, Tuning};
use tersor_engine::session::report::{Attended, Comparison, Evaluation, Generated, Loaded, Stop};
use tersor_engine::session::{
    Attend, Calibration, Command, Compare, Embed, Evaluate, EventKind, Generate, Input, Inspect, Load, Message,
    Options, Recipe, Report, Role, Sampling, Score, Slot, Source, Text, plan,
};
use tersor_tests::golden::asset;
use tersor_tests::talk::{Talk, generate, load, options, tiny};

const PROMPT: &str = "It is a truth universally acknowledged, that a";

fn loaded(report: Report) -> Loaded {
    let Report::Load(loaded) = report else { panic!("{report:?}") };
    loaded
}

fn generated(report: Report) -> Generated {
    let Report::Generate(generated) = report else { panic!("{report:?}") };
    generated
}

fn write(talk: &Talk, command: Generate) -> Generated {
    generated(talk.report(Command::Generate(command)))
}

/// A session with the model in slot 0.
fn with_model(context: u32) -> Talk {
    let talk = Talk::start(options());
    talk.report(Command::Load(load(0, context)));
    talk
}

fn heldout() -> Text {
    let text = std::fs::read_to_string(asset("tiny/heldout.txt")).unwrap();
    Text { name: "heldout.txt".to_owned(), text: text.chars().take(4000).collect() }
}

fn bert() -> Source {
    let read = |file: &str| std::fs::read(tersor_tests::golden::path("families/bert").join(file)).unwrap();
    Source::Files(["config.json", "model.safetensors"].map(|file| (file.to_owned(), read(file))).to_vec())
}

#[test]
fn a_model_is_loaded_writes_and_is_unloaded() {
    let talk = Talk::start(options());
    let report = loaded(talk.report(Command::Load(load(0, 128))));
    assert_eq!((report.context, report.chat), (128, false));
    assert!(report.weights.bytes > 6_000_000 && report.memory.weights >= report.weights.bytes);
    assert!(report.memory.kv_cache > 0 && report.memory.peak >= report.memory.weights + report.memory.kv_cache);
    assert_eq!(report.weights.codecs[0].0, "bf16");

    let kinds = talk.ask(Command::Generate(generate(0, PROMPT, 24)));
    let tokens: Vec<(u32, String)> = kinds
        .iter()
        .filter_map(|kind| if let EventKind::Token { id, text } = kind { Some((*id, text.clone())) } else { None })
        .collect();
    let [.., EventKind::Report(report), EventKind::Done] = kinds.as_slice() else { panic!("{kinds:?}") };
    let Generated { generation, speed, attention } = generated(report.as_ref().clone());
    assert_eq!((tokens.len(), attention), (24, None));
    assert_eq!(generation.text, tokens.iter().map(|(_, text)| text.as_str()).collect::<String>());
    assert_eq!(generation.tokens, tokens.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert_eq!(generation.pieces.concat(), generation.text);
    assert_eq!((generation.stop, speed.prefill_tokens, speed.decode_tokens), (Stop::Length, PROMPT.len() as u32, 23));
    assert!(kinds.iter().any(|kind| matches!(kind, EventKind::Progress(p) if p.stage == "reading the prompt")));

    let failure = talk.failure(Command::Generate(generate(7, PROMPT, 4)));
    assert_eq!(
        (failure.message.as_str(), failure.device_lost),
        ("no model is loaded in slot 7: load one first", false)
    );
    assert!(matches!(talk.ask(Command::Unload(Slot(0))).as_slice(), [EventKind::Done]));
    let failure = talk.failure(Command::Generate(generate(0, PROMPT, 4)));
    assert!(failure.message.contains("slot 0"), "{}", failure.message);
    // To free a slot that is free is no mistake.
    assert!(matches!(talk.ask(Command::Unload(Slot(3))).as_slice(), [EventKind::Done]));
}

/// Token by token, two models' divergence adds up to what an evaluation of the same text says.
#[test]
fn a_plan_says_what_loading_will_take() {
    let talk = Talk::start(options());
    let inspect = Inspect { source: tiny(), tensor: None };
    let Report::Inspect(inspection) = talk.report(Command::Inspect(inspect)) else { panic!("no inspection") };
    let recipes = [
        ("q4_k", 0.0),
        ("uniform:bits=3,group=32", 0.0),
        // Channels are counted; of heads it is known how many go, but not from which layers.
        ("prune:ffn=30+q8_0", 0.0),
        ("prune:heads=25,ffn=20+bf16", 0.01),
        // Every layer rounds to whole pairs of dimensions.
        ("modegpt:ratio=25+bf16", 0.02),
    ];
    for (spelling, bound) in recipes {
        let recipe = Recipe::Codec(spelling.to_owned());
        let planned = plan(&inspection.tensors, Some(&recipe), false).unwrap();
        let calibration = Calibration { tokens: Some(256), ..Calibration::default() };
        let command = Load { recipe: Some(recipe), calibration, ..load(0, 64) };
        let found = loaded(talk.report(Command::Load(command))).weights;
        let off = planned.bytes as f64 / found.bytes as f64 - 1.0;
        assert!(off.abs() <= bound, "{spelling}: {} planned, {} found", planned.bytes, found.bytes);
    }
}

#[test]
fn a_text_is_scored_token_by_token() {
    let talk = Talk::start(options());
    let recipe = || Some(Recipe::Codec("q2_k".to_owned()));
    talk.report(Command::Load(load(0, 512)));
    talk.report(Command::Load(Load { recipe: recipe(), ..load(1, 512) }));
    // Longer than what goes through the layers at once, on software adapters at least.
    let text: String = heldout().text.chars().filter(char::is_ascii).take(301).collect();
    let score = |original, slot| Score {
        original: Slot(original),
        slot: Slot(slot),
        input: Input::Prompt(text[..1].to_owned()),
        tokens: text.bytes().skip(1).map(u32::from).collect(),
    };
    let Report::Score(found) = talk.report(Command::Score(score(0, 1))) else { panic!() };
    assert_eq!(found.tokens.len(), 300);
    let evaluate = Evaluate {
        source: tiny(),
        recipe: recipe(),
        against: Some(tiny()),
        rotation: None,
        text: Text { name: "text".to_owned(), text: text.clone() },
        context: 301,
        windows: Some(1),
        attention: None,
        calibration: Calibration::default(),
    };
    let Report::Evaluate(evaluated) = talk.report(Command::Evaluate(evaluate)) else { panic!() };
    let divergence = evaluated.quality.divergence.unwrap();
    let mean = found.tokens.iter().map(|token| token.kl_divergence).sum::<f64>() / 300.0;
    assert!((mean - divergence.kl_divergence.mean).abs() < 1e-5 * mean, "{mean} {divergence:?}");
    let same = found.tokens.iter().filter(|t| t.best[0][0].token == t.best[1][0].token).count() as f64 / 300.0;
    assert!((same - divergence.same_top.value).abs() < 1e-9, "{same} {divergence:?}");
    for token in &found.tokens {
        for (best, probability) in token.best.iter().zip(token.probability) {
            assert_eq!(best.len(), 8);
            let listed = best.iter().find(|candidate| candidate.token == token.token);
            assert!(listed.is_none_or(|candidate| (candidate.probability - probability).abs() < 1e-4));
        }
    }
    // Two copies of one model agree; one model is not compared with itself, nor with none.
    talk.report(Command::Load(load(1, 512)));
    let Report::Score(same) = talk.report(Command::Score(score(0, 1))) else { panic!() };
    assert!(same.tokens.iter().all(|token| token.kl_divergence.abs() < 1e-6));
    assert!(talk.failure(Command::Score(score(1, 1))).message.contains("itself"));
    assert!(talk.failure(Command::Score(score(4, 1))).message.contains("slot 4"));
    // Slot 1 is still there after that.
    write(&talk, generate(1, PROMPT, 2));
}

#[test]
fn a_seed_decides_the_text() {
    let talk = with_model(128);
    let with_seed = |seed| {
        let sampling = Sampling { temperature: 1.0, top_k: 40, seed, repetition_penalty: 1.1, ..Sampling::default() };
        write(&talk, Generate { sampling, ..generate(0, PROMPT, 24) }).generation.text
    };
    let (one, two) = (with_seed(1), with_seed(2));
    assert_eq!([with_seed(1), with_seed(2)], [one.clone(), two.clone()]);
    assert_ne!(one, two);
    for sampling in [
        Sampling { temperature: -1.0, ..Sampling::default() },
        Sampling { top_p: 0.0, ..Sampling::default() },
        Sampling { repetition_penalty: f32::NAN, ..Sampling::default() },
    ] {
        let failure = talk.failure(Command::Generate(Generate { sampling, ..generate(0, PROMPT, 4) }));
        let names = ["temperature", "top_p", "repetition_penalty"];
        assert!(names.iter().any(|name| failure.message.contains(name)), "{}", failure.message);
    }
}

/// What a context holds is not computed again, and makes no difference.
#[test]
fn a_second_turn_goes_on_from_the_first() {
    let talk = with_model(512);
    talk.report(Command::Load(load(1, 512)));
    let sampling = Sampling { repetition_penalty: 1.3, ..Sampling::default() };
    let turn = |slot, messages: &[Message]| {
        let input = Input::Chat(messages.to_vec());
        write(&talk, Generate { slot: Slot(slot), input, sampling: sampling.clone(), tokens: 20, stop: Vec::new() })
    };
    let says = |role, content: &str| Message { role, content: content.to_owned() };
    let mut messages = vec![says(Role::User, "Who is Mr. Darcy?")];
    let first = turn(0, &messages);
    messages.push(says(Role::Assistant, &first.generation.text));
    messages.push(says(Role::User, "And his friend?"));
    let second = turn(0, &messages);
    let fresh = turn(1, &messages);
    assert_eq!(second.generation.text, fresh.generation.text);
    let (reused, all) = (second.speed.prefill_tokens, fresh.speed.prefill_tokens);
    // The reply's tokens but the last are there, and everything before them.
    assert!(reused < 80 && all > reused + first.speed.prefill_tokens, "{reused} of {all} tokens were read");
    // Another conversation finds no trace of this one.
    let other = [says(Role::User, "Describe the garden.")];
    assert_eq!(turn(0, &other).generation.text, turn(1, &other).generation.text);
}

#[test]
fn stop_strings_end_a_text_and_are_no_part_of_it() {
    let talk = with_model(256);
    let whole = write(&talk, generate(0, PROMPT, 48)).generation.text;
    let at = 20;
    let stop = whole[at..at + 5].to_owned();
    let expected = &whole[..whole.find(&stop).unwrap()];
    let kinds =
        talk.ask(Command::Generate(Generate { stop: vec!["never".to_owned(), stop], ..generate(0, PROMPT, 48) }));
    let [.., EventKind::Report(report), EventKind::Done] = kinds.as_slice() else { panic!("{kinds:?}") };
    let found = generated(report.as_ref().clone()).generation;
    assert_eq!((found.text.as_str(), found.stop), (expected, Stop::StopString));
    let events = kinds.iter().map(|kind| if let EventKind::Token { text, .. } = kind { text } else { "" });
    assert_eq!(events.collect::<String>(), expected);
}

/// A model that ends its texts itself: what was held back for a stop string comes with the token that ends.
#[test]
fn the_end_of_a_text_brings_what_was_held_back() {
    let talk = with_model(256);
    let whole = write(&talk, generate(0, PROMPT, 48)).generation.text;
    // A byte that comes first after a few others ends texts, the one before it could begin a stop string.
    let bytes = whole.as_bytes();
    let at = (8..bytes.len()).find(|&at| !bytes[..at].contains(&bytes[at])).unwrap();
    let (end, expected) = (bytes[at], &whole[..at]);
    let Source::Files(mut files) = tiny() else { panic!("tiny is embedded") };
    let config = files.iter_mut().find(|(name, _)| name.ends_with("/config.json")).unwrap();
    config.1 = String::from_utf8_lossy(&config.1)
        .replace("\"eos_token_id\": null", &format!("\"eos_token_id\": {end}"))
        .into();
    talk.report(Command::Load(Load { source: Source::Files(files), ..load(1, 256) }));
    let stop = vec![format!("{}{}!", &expected[expected.len() - 1..], char::from(end))];
    let kinds = talk.ask(Command::Generate(Generate { stop, ..generate(1, PROMPT, 48) }));
    let [.., EventKind::Report(report), EventKind::Done] = kinds.as_slice() else { panic!("{kinds:?}") };
    let found = generated(report.as_ref().clone()).generation;
    assert_eq!((found.text.as_str(), found.stop), (expected, Stop::EndOfText));
    assert_eq!(found.pieces.concat(), expected);
    assert_eq!(found.tokens.len(), expected.len());
    let events = kinds.iter().map(|kind| if let EventKind::Token { text, .. } = kind { text } else { "" });
    assert_eq!(events.collect::<String>(), expected);
}

#[test]
fn a_context_has_its_limits() {
    let talk = with_model(64);
    let failure = talk.failure(Command::Generate(generate(0, &"long ".repeat(20), 4)));
    for part in ["100 tokens do not fit", "of its 64 positions", "longer context (up to 1024)"] {
        assert!(failure.message.contains(part), "{part} is not in: {}", failure.message);
    }
    let failure = talk.failure(Command::Generate(generate(0, "", 4)));
    assert!(failure.message.contains("the prompt is empty"), "{}", failure.message);
    // A text that fills the context ends there: 60 positions hold the prompt, the last token needs none.
    let full = write(&talk, generate(0, &"word ".repeat(12), 40)).generation;
    assert_eq!((full.stop, full.tokens.len()), (Stop::Context, 5));
    assert!(write(&talk, generate(0, PROMPT, 0)).generation.tokens.is_empty());
    // None of that has spoilt it.
    let fresh = with_model(64);
    assert_eq!(write(&talk, generate(0, PROMPT, 8)).generation, write(&fresh, generate(0, PROMPT, 8)).generation);
}

#[test]
fn a_generation_is_cancelled_between_tokens_and_while_it_reads() {
    let talk = with_model(1024);
    let expected = write(&talk, generate(0, PROMPT, 12)).generation;
    let job = talk.session.send(Command::Generate(generate(0, PROMPT, 900)));
    let mut tokens = 0;
    while tokens < 3 {
        tokens += u32::from(matches!(talk.next(job), EventKind::Token { .. }));
    }
    talk.session.cancel(job);
    let rest = talk.rest(job);
    assert!(matches!(rest.last(), Some(EventKind::Cancelled)), "{rest:?}");
    assert!(rest.iter().filter(|kind| matches!(kind, EventKind::Token { .. })).count() < 20, "{rest:?}");
    assert_eq!(write(&talk, generate(0, PROMPT, 12)).generation, expected);

    // In the middle of a prompt, which shares its beginning with what comes next.
    let long = format!("{PROMPT}{}", heldout().text.replace('\n', " ").chars().take(850).collect::<String>());
    let job = talk.session.send(Command::Generate(generate(0, &long, 4)));
    let reads =
        |kind: &EventKind| matches!(kind, EventKind::Progress(p) if p.stage == "reading the prompt" && p.done > 0);
    while !reads(&talk.next(job)) {}
    talk.session.cancel(job);
    assert!(matches!(talk.rest(job).last(), Some(EventKind::Cancelled)));
    let fresh = with_model(1024);
    let [found, expected] = [&talk, &fresh].map(|talk| write(talk, generate(0, &long, 12)).generation);
    assert_eq!(found, expected);
}

fn comparison(recipes: &[&str]) -> Compare {
    Compare {
        source: tiny(),
        recipes: recipes.iter().map(|recipe| Recipe::Codec((*recipe).to_owned())).collect(),
        dense: "f32".to_owned(),
        rotation: None,
        calibration: Calibration::default(),
        text: Some(heldout()),
        context: 128,
        windows: Some(2),
        input: Some(Input::Prompt(PROMPT.to_owned())),
        tokens: 16,
        attention: Vec::new(),
    }
}

#[test]
fn a_comparison_puts_the_original_first() {
    let talk = Talk::start(options());
    let Report::Compare(report) = talk.report(Command::Compare(comparison(&["f32", "q8_0", "uniform:bits=2"]))) else {
        panic!("another report")
    };
    let Comparison { text, prompt, variants, .. } = report;
    let text = text.unwrap();
    assert_eq!((text.context, text.windows, text.positions), (128, 2, 254));
    assert_eq!(prompt.as_deref(), Some(PROMPT));
    let recipes: Vec<&str> = variants.iter().map(|variant| variant.recipe.as_str()).collect();
    assert_eq!(recipes, ["f32", "f32", "q8_0", "uniform:bits=2"]);
    let quality: Vec<_> = variants.iter().map(|variant| variant.quality.clone().unwrap()).collect();
    assert!(quality[0].divergence.is_none());
    let divergence: Vec<_> = quality[1..].iter().map(|quality| quality.divergence.clone().unwrap()).collect();

    // The same model again: no difference whatever.
    let same = &divergence[0];
    assert_eq!((same.kl_divergence.mean, same.kl_divergence.max, same.same_top.value, same.flips), (0.0, 0.0, 1.0, 0));
    assert_eq!((same.ln_perplexity_ratio.value, same.delta_p_rms), (0.0, 0.0));
    assert_eq!(quality[1].perplexity.value, quality[0].perplexity.value);
    assert_eq!(same.layers.len(), 4);
    assert!(same.layers.iter().all(|layer| layer.nmse == 0.0 && layer.cosine > 0.999_999), "{:?}", same.layers);

    // The fewer bits, the more is lost.
    let kl = |i: usize| divergence[i].kl_divergence.mean;
    assert!(0.0 < kl(1) && kl(1) < 0.01 && kl(2) > 5.0 * kl(1), "{} {}", kl(1), kl(2));
    assert!(divergence[2].layers[3].nmse > divergence[1].layers[3].nmse);
    assert!(quality[3].perplexity.value > quality[0].perplexity.value);
    let bytes: Vec<u64> = variants.iter().map(|variant| variant.weights.bytes).collect();
    assert!(bytes[0] == bytes[1] && bytes[1] > 3 * bytes[2] && bytes[2] > 2 * bytes[3], "{bytes:?}");
    assert!(variants[0].weights.tensors.is_empty() && !variants[2].weights.tensors.is_empty());
    for variant in &variants {
        assert!(variant.memory.weights >= variant.weights.bytes, "{}: {:?}", variant.recipe, variant.memory);
        let original = variants[0].generation.as_ref().unwrap();
        let generation = variant.generation.as_ref().unwrap();
        assert_eq!(generation.tokens.len(), 16);
        let differs = generation.tokens.iter().zip(&original.tokens).position(|(a, b)| a != b);
        assert_eq!(generation.first_difference, differs);
        assert!(variant.speed.unwrap().decode_tokens == 15);
    }
    assert!(variants[3].generation.as_ref().unwrap().first_difference.is_some());
}

#[test]
fn a_comparison_is_cancelled_and_bad_ones_are_refused_at_once() {
    let talk = Talk::start(options());
    for (command, part) in [
        (Compare { dense: "nonsense".to_owned(), ..comparison(&["q8_0"]) }, "nonsense"),
        (comparison(&["q8_0", "q9_9"]), "q9_9"),
        (Compare { text: Some(Text { name: "short".into(), text: "a".into() }), ..comparison(&["q8_0"]) }, "short"),
    ] {
        let start = Instant::now();
        let failure = talk.failure(Command::Compare(command));
        assert!(failure.message.contains(part), "{part} is not in: {}", failure.message);
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    let job = talk.session.send(Command::Compare(Compare { windows: None, ..comparison(&["q8_0", "q4_0"]) }));
    let compares = |kind: &EventKind| matches!(kind, EventKind::Progress(p) if p.stage == "q8_0 (2 of 3): comparing" && p.done > 0);
    while !compares(&talk.next(job)) {}
    talk.session.cancel(job);
    let rest = talk.rest(job);
    assert!(matches!(rest.last(), Some(EventKind::Cancelled)), "{rest:?}");
    assert!(rest.len() < 8, "it went on: {rest:?}");
    talk.report(Command::Load(load(0, 64)));
}

#[test]
fn attention_is_compared_like_a_recipe() {
    let talk = Talk::start(options());
    let policy = "asa:block=16,samples=8,max=0.4,near=1";
    let command = Compare { attention: vec![policy.to_owned()], windows: Some(1), tokens: 4, ..comparison(&["q8_0"]) };
    let Report::Compare(report) = talk.report(Command::Compare(command.clone())) else { panic!("another report") };
    let recipes: Vec<&str> = report.variants.iter().map(|variant| variant.recipe.as_str()).collect();
    let sparse = "asa:block=16,samples=8,mass=0.95,max=0.4,near=1";
    assert_eq!(recipes, ["f32", &format!("f32@{sparse}"), "q8_0", &format!("q8_0@{sparse}")]);
    for (i, variant) in report.variants.iter().enumerate() {
        assert_eq!(variant.attention.is_some(), i % 2 == 1, "{}", variant.recipe);
        if let Some(attention) = &variant.attention {
            assert_eq!(attention.policy, sparse);
            assert!((0.2..0.8).contains(&attention.kept_fraction), "{attention:?}");
            assert!(variant.quality.as_ref().unwrap().divergence.as_ref().unwrap().kl_divergence.mean > 0.0);
        }
    }
    let one = Compare { windows: Some(1), tokens: 4, ..comparison(&[&format!("q8_0@{policy}")]) };
    let Report::Compare(one) = talk.report(Command::Compare(one)) else { panic!("another report") };
    let names: Vec<&str> = one.variants.iter().map(|variant| variant.recipe.as_str()).collect();
    assert_eq!(names, ["f32", &format!("q8_0@{sparse}")]);
    assert_eq!(one.variants[1].attention, report.variants[3].attention);
    assert_eq!(one.variants[1].quality, report.variants[3].quality);
    let failure = talk.failure(Command::Compare(comparison(&["q8_0@window:size=3"])));
    assert!(failure.message.contains("unknown option `size`"), "{}", failure.message);
    let failure = talk.failure(Command::Compare(Compare { attention: vec!["window:size=3".into()], ..command }));
    assert!(failure.message.contains("unknown option `size`"), "{}", failure.message);

    // In an evaluation and in generation.
    let evaluate = Evaluate { attention: Some(policy.into()), windows: Some(1), ..evaluation() };
    let Report::Evaluate(found) = talk.report(Command::Evaluate(evaluate)) else { panic!("another report") };
    assert!(found.attention.unwrap().kept_fraction < 0.8);
    talk.report(Command::Load(Load { attention: Some(policy.into()), ..load(0, 1024) }));
    let prompt = format!("{PROMPT} ").repeat(6);
    let used = write(&talk, generate(0, &prompt, 4)).attention.unwrap();
    assert!(used.kept_blocks > 0 && used.kept_blocks < used.visible_blocks, "{used:?}");
}

/// What the masks of all layers and heads keep is what the kernels counted; a window keeps what its definition says.
#[test]
fn the_blocks_that_a_prompt_sees_are_told() {
    let talk = Talk::start(options());
    talk.report(Command::Load(load(0, 1024)));
    // More than goes through the layers at once, on software adapters at least, and no whole number of blocks.
    let text: String = heldout().text.chars().filter(char::is_ascii).take(600).collect();
    let attend = |attention: &str, layer| Attend {
        slot: Slot(0),
        input: Input::Prompt(text.clone()),
        tokens: 331,
        attention: attention.to_owned(),
        layer,
    };
    let ask = |attention: &str, layer| {
        let Report::Attend(found) = talk.report(Command::Attend(attend(attention, layer))) else { panic!() };
        found
    };
    let policy = "asa:block=16,samples=8,max=0.4";
    let first = ask(policy, 0);
    assert_eq!((first.tokens, first.block, first.layer), (331, 16, 0));
    let all: Vec<Attended> = (0..first.layers).map(|layer| ask(policy, layer)).collect();
    assert_eq!(all[0], first, "the same prompt, the same masks");
    let (mut kept, mut visible) = (0, 0);
    for found in &all {
        assert_eq!(found.rows.iter().map(|row| row.tokens).sum::<u32>(), 331);
        let mut position = 0;
        for row in &found.rows {
            assert_eq!(row.position, position);
            position += row.tokens;
            assert_eq!(row.visible, [0, position.div_ceil(16)], "causal");
            assert_eq!(row.kept.len() as u32, found.heads);
            for head in &row.kept {
                assert!(head.is_sorted() && head.iter().all(|j| *j < row.visible[1]));
                let both = head.contains(&0) && head.contains(&(row.visible[1] - 1));
                assert!(head.len() < 2 || both, "the first and the own block come before all others: {head:?}");
                kept += head.len() as u64;
            }
            visible += u64::from(found.heads * row.visible[1]);
        }
    }
    assert_eq!((kept, visible), (first.attention.kept_blocks, first.attention.visible_blocks));
    assert!(all.iter().any(|found| found.rows.iter().any(|row| row.kept.iter().any(|head| *head != row.kept[0]))));

    let window = ask("window:block=16,sinks=1,window=32", 1);
    for row in &window.rows {
        let near = |j: &u32| *j == 0 || 16 * (*j + 1) > row.position.saturating_sub(31);
        let expected: Vec<u32> = (0..row.visible[1]).filter(near).collect();
        assert!(row.kept.iter().all(|head| *head == expected), "{row:?}");
    }
    for (command, part) in [
        (attend("dense", 0), "leaves no block out"),
        (attend("asa", first.layers), "there is no layer"),
        (attend("asa:size=3", 0), "unknown option"),
        (Attend { slot: Slot(4), ..attend("asa", 0) }, "slot 4"),
        (Attend { tokens: 1, ..attend("asa", 0) }, "prompt"),
    ] {
        let failure = talk.failure(Command::Attend(command));
        assert!(failure.message.contains(part), "{}", failure.message);
    }
}

fn evaluation() -> Evaluate {
    Evaluate {
        source: tiny(),
        recipe: None,
        against: None,
        rotation: None,
        calibration: Calibration::default(),
        text: heldout(),
        context: 256,
        windows: Some(2),
        attention: None,
    }
}

#[test]
fn an_evaluation_stands_alone_or_beside_another() {
    let talk = Talk::start(options());
    let evaluate = |command| {
        let Report::Evaluate(report) = talk.report(Command::Evaluate(command)) else { panic!("another report") };
        *report
    };
    let Evaluation { quality: alone, against, against_quality, text, .. } = evaluate(evaluation());
    assert_eq!((text.positions, against.is_none(), against_quality.is_none()), (510, true, true));
    assert!(alone.divergence.is_none());
    // Tokens are bytes: perplexity and bits a byte say the same.
    assert!((alone.bits_per_byte.unwrap() - alone.perplexity.value.log2()).abs() < 1e-9);
    assert!((1.0..2.5).contains(&alone.bits_per_byte.unwrap()), "{alone:?}");

    let beside = evaluate(Evaluate { against: Some(tiny()), ..evaluation() });
    let divergence = beside.quality.divergence.unwrap();
    assert_eq!((divergence.kl_divergence.max, divergence.flips), (0.0, 0));
    assert_eq!(beside.against_quality.unwrap().perplexity, alone.perplexity);
    assert_eq!(beside.against.unwrap().parameters, beside.model.parameters);

    let coarse =
        Evaluate { against: Some(tiny()), recipe: Some(Recipe::Codec("uniform:bits=2".into())), ..evaluation() };
    let coarse = evaluate(coarse).quality;
    assert!(coarse.divergence.unwrap().kl_divergence.mean > 0.01 && coarse.perplexity.value > alone.perplexity.value);
}

#[test]
fn models_are_told_what_they_are_for() {
    let talk = Talk::start(options());
    let embed =
        Embed { source: tiny(), recipe: None, calibration: Calibration::default(), texts: vec!["a".to_owned()] };
    let failure = talk.failure(Command::Embed(embed));
    assert!(failure.message.contains("writes text") && failure.message.contains("encoders"), "{}", failure.message);
    let failure = talk.failure(Command::Load(Load { source: bert(), ..load(0, 64) }));
    assert!(failure.message.contains("encoder") && failure.message.contains("`embed`"), "{}", failure.message);
    let failure = talk.failure(Command::Evaluate(Evaluate { source: bert(), ..evaluation() }));
    assert!(failure.message.contains("encoder") && failure.message.contains("`compare`"), "{}", failure.message);
    // Weights without a tokenizer.
    let read = |file: &str| std::fs::read(tersor_tests::golden::path("families/llama").join(file)).unwrap();
    let files = ["config.json", "model.safetensors"].map(|file| (file.to_owned(), read(file))).to_vec();
    let failure = talk.failure(Command::Load(Load { source: Source::Files(files), ..load(0, 64) }));
    assert!(failure.message.contains("tokenizer"), "{}", failure.message);
}

/// The device goes away while a text is written: an error that says so, and the next model has a device again.
#[test]
fn a_lost_device_is_replaced() {
    let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env().unwrap())).unwrap();
    let talk = Talk::on(gpu.clone(), options());
    talk.report(Command::Load(load(0, 1024)));
    let expected = write(&talk, generate(0, PROMPT, 8)).generation;
    let job = talk.session.send(Command::Generate(generate(0, PROMPT, 900)));
    while !matches!(talk.next(job), EventKind::Token { .. }) {}
    gpu.destroy();
    let rest = talk.rest(job);
    let Some(EventKind::Failed(failure)) = rest.last() else { panic!("{rest:?}") };
    assert!(failure.device_lost && failure.message.contains("load the model again"), "{failure:?}");
    // The model went with the device.
    let failure = talk.failure(Command::Generate(generate(0, PROMPT, 8)));
    assert!(!failure.device_lost && failure.message.contains("no model is loaded"), "{failure:?}");
    talk.report(Command::Load(load(0, 1024)));
    assert_eq!(write(&talk, generate(0, PROMPT, 8)).generation, expected);
}

/// A device that is lost between two commands is noticed by the next.
#[test]
fn a_device_lost_in_silence_is_noticed() {
    let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env().unwrap())).unwrap();
    let talk = Talk::on(gpu.clone(), options());
    talk.report(Command::Load(load(0, 64)));
    gpu.destroy();
    let failure = talk.failure(Command::Generate(generate(0, PROMPT, 8)));
    assert!(failure.device_lost, "{failure:?}");
    talk.report(Command::Load(load(0, 64)));
    write(&talk, generate(0, PROMPT, 8));
}

#[test]
fn after_a_refusal_a_smaller_model_loads() {
    let talk = Talk::start(Options { memory: Some(8_000_000), ..options() });
    let dense = Load { recipe: Some(Recipe::Codec("f32".into())), ..load(0, 128) };
    let failure = talk.failure(Command::Load(dense));
    for part in ["tiny", "of GPU memory", "8.0 MB are free", "fewer bits"] {
        assert!(failure.message.contains(part), "{part} is not in: {}", failure.message);
    }
    let small = Load { recipe: Some(Recipe::Codec("q4_0".into())), ..load(0, 128) };
    let report = loaded(talk.report(Command::Load(small)));
    assert!(report.memory.peak < 8_000_000);
    assert_eq!(write(&talk, generate(0, PROMPT, 4)).generation.tokens.len(), 4);
}

/// What one session finds of the kernels' variants, the next one is told, and need not find.
#[test]
fn kernels_are_chosen_once() {
    let always = Options { tune: Some("always".into()), ..options() };
    let load_tiny = || Command::Load(load(0, 256));
    let tables = |kinds: Vec<EventKind>| -> Vec<Tuning> {
        assert!(matches!(kinds.last(), Some(EventKind::Done)), "{kinds:?}");
        kinds
            .into_iter()
            .filter_map(|kind| if let EventKind::Tuned(found) = kind { Some(found) } else { None })
            .collect()
    };
    let talk = Talk::start(always.clone());
    let found = tables(talk.ask(load_tiny()));
    assert_eq!(found.len(), 1);
    let works = found[0].devices.values().next().unwrap();
    let of = |start: &str| works.keys().filter(|work| work.starts_with(start)).count();
    assert!(of("bf16 ") > 5 && of("attention/decode ") == 1 && works.len() == of("bf16 ") + 1, "{works:?}");
    let spoken = write(&talk, generate(0, PROMPT, 8));
    assert_eq!(tables(talk.ask(load_tiny())), [], "the same device knows");
    let told = Talk::start(Options { tuning: found[0].clone(), ..always.clone() });
    assert_eq!(tables(told.ask(load_tiny())), [], "and so does the next session");
    assert_eq!(write(&told, generate(0, PROMPT, 8)).generation, spoken.generation);
    let never = Talk::start(Options { tune: Some("never".into()), ..options() });
    assert_eq!(tables(never.ask(load_tiny())), []);
    let wrong = Talk::start(Options { tune: Some("often".into()), ..options() });
    assert!(wrong.failure(load_tiny()).message.contains("auto, always, again or never"));
    let stopped = Talk::start(always);
    let job = stopped.session.send(load_tiny());
    stopped.session.cancel(job);
    assert!(matches!(stopped.rest(job).last(), Some(EventKind::Cancelled)));
}
