//! The app on the real engine: the model that is part of the program, original and compressed, side by side.

use std::time::{Duration, Instant};

use eframe::egui;
use tersor::gui::client::Client;
use tersor::gui::native::NativeClient;
use tersor::gui::start::Start;
use tersor::gui::state::{Action, Phase, Settings, State, Tab};
use tersor_engine::session::Options;

/// Takes in what happens until nothing is being done any more.
fn settle(state: &mut State, client: &mut dyn Client) {
    let begin = Instant::now();
    while state.is_busy() {
        match client.next() {
            Some(happening) => state.happened(happening, client),
            None => std::thread::sleep(Duration::from_millis(2)),
        }
        assert!(begin.elapsed() < Duration::from_secs(240), "the engine does not answer");
    }
}

#[test]
fn tiny_runs_original_and_compressed_side_by_side() {
    let mut client = NativeClient::start(Options::default(), egui::Context::default()).unwrap();
    let settings =
        Settings { recipes: vec!["q8_0".into(), "uniform:bits=2".into()], tokens: 24, ..Settings::default() };
    let start = Start { model: Some("tiny".into()), run: true, ..Start::default() };
    let mut state = State::new(settings, start, &mut client);
    settle(&mut state, &mut client);
    assert_eq!(state.notice, None);
    assert_eq!(state.tab, Tab::Compare);
    assert!(state.adapter().is_some());
    let [original, mild, harsh] = state.compare.columns.as_slice() else { panic!() };
    for column in [original, mild, harsh] {
        assert_eq!((&column.phase, column.pieces.len()), (&Phase::Idle, 24), "{}", column.recipe);
        // What was promised before is what was loaded.
        let (plan, loaded) = (column.plan.clone().unwrap().unwrap(), column.loaded.clone().unwrap());
        assert_eq!((plan.bytes, plan.bits_per_weight), (loaded.weights.bytes, loaded.weights.bits_per_weight));
        assert!(column.tokens_per_second().unwrap() > 0.0);
    }
    assert!(original.pieces.iter().all(|piece| piece.scored.is_none()));
    let divergence = |column: &tersor::gui::state::Column| column.divergence().unwrap();
    assert!(divergence(mild) < 0.01, "{}", divergence(mild));
    assert!(divergence(harsh) > 10.0 * divergence(mild), "{}", divergence(harsh));
    let at = harsh.first_difference.expect("two bits write something else");
    for (i, piece) in harsh.pieces.iter().enumerate() {
        let scored = piece.scored.as_ref().unwrap();
        // Greedy: the model's own best token is the one it wrote.
        assert_eq!(scored.best[1][0].token, piece.token);
        assert!(scored.best.iter().all(|best| best.windows(2).all(|pair| pair[0].probability >= pair[1].probability)));
        // And up to the first difference the original would have written the same.
        assert_eq!(scored.best[0][0].token == piece.token, i < at, "token {i}");
        if i == at {
            break;
        }
    }
    assert_ne!(original.pieces[at].token, harsh.pieces[at].token);
    // Tokens came one after the other, and each took all weights.
    assert_eq!(harsh.rates().len(), 23);
    let (speed, bytes) = (harsh.speed.unwrap(), harsh.loaded.as_ref().unwrap().weights.bytes);
    assert_eq!(harsh.bytes_per_second(), Some(bytes as f64 * speed.decode_tokens_per_second));

    // Asked about the original's text, it would have left it at the same place.
    let written = original.text();
    state.settings.forced = true;
    state.apply(Action::Run, &mut client);
    settle(&mut state, &mut client);
    let [_, mild, harsh] = state.compare.columns.as_slice() else { panic!() };
    assert_eq!((mild.text(), harsh.text()), (written.clone(), written));
    assert_eq!(harsh.first_difference, Some(at));
    assert!(harsh.divergence().unwrap() > mild.divergence().unwrap());
    state.settings.forced = false;

    // A second run with another seed and temperature needs no loading, and the same seed writes the same.
    state.settings.temperature = 1.0;
    let mut texts = Vec::new();
    for seed in [5, 6, 5] {
        state.settings.seed = seed;
        state.apply(Action::Run, &mut client);
        settle(&mut state, &mut client);
        texts.push(state.compare.columns.iter().map(tersor::gui::state::Column::text).collect::<Vec<_>>());
    }
    assert_eq!(texts[0], texts[2]);
    assert_ne!(texts[0], texts[1]);
}

#[test]
fn what_cannot_be_opened_is_explained() {
    let mut client = NativeClient::start(Options::default(), egui::Context::default()).unwrap();
    let start = Start { model: Some("/nowhere/model.gguf".into()), ..Start::default() };
    let mut state = State::new(Settings::default(), start, &mut client);
    settle(&mut state, &mut client);
    let notice = state.notice.unwrap();
    assert!(notice.text.contains("/nowhere/model.gguf"), "{}", notice.text);
    assert!(notice.remedy.is_some());
}
