//! What the app's compare page does, done with a session on this machine's own adapter: the original and a compression of it write,
//! and the compression's text is compared.

use std::sync::mpsc::{Receiver, channel};

use tersor_engine::session::{
    Calibration, Command, Event, EventKind, Generate, Input, Load, Options, Recipe, Report, Sampling, Score, Session,
    Slot, Source,
};

/// Seed of the samples.
pub const SEED: u64 = 7;
/// Temperature of the samples.
pub const TEMPERATURE: f32 = 0.7;

/// Two texts.
pub struct Written {
    /// Their tokens: the original's, the compression's.
    pub texts: [Vec<u32>; 2],
    /// KL divergence from the original at each of the compression's tokens, in nats.
    pub divergences: Vec<f64>,
}

/// Lets `source` in bf16 and as `recipe` continue a message by `tokens` tokens.
///
/// # Panics
/// If it fails.
pub fn natively(source: Source, message: &str, tokens: u32, recipe: &str) -> Written {
    let (events, inbox) = channel();
    let events = std::sync::Mutex::new(events);
    let session = Session::start(Options::default(), move |event| drop(events.lock().unwrap().send(event))).unwrap();
    let (original, compressed) = (Slot(0), Slot(1));
    let input = Input::Message(message.to_owned());
    let texts = [(original, "bf16"), (compressed, recipe)].map(|(slot, recipe)| {
        session.send(Command::Load(Load {
            slot,
            source: source.clone(),
            recipe: Some(Recipe::Codec(recipe.to_owned())),
            rotation: None,
            context: Some(1024),
            attention: None,
            calibration: Calibration::default(),
        }));
        let sampling = Sampling { temperature: TEMPERATURE, seed: SEED, ..Sampling::default() };
        session.send(Command::Generate(Generate { slot, input: input.clone(), sampling, tokens, stop: Vec::new() }));
        loop {
            if let Report::Generate(found) = report(&inbox) {
                break found.generation.tokens;
            }
        }
    });
    session.send(Command::Score(Score { original, slot: compressed, input, tokens: texts[1].clone() }));
    let divergences = loop {
        if let Report::Score(scores) = report(&inbox) {
            break scores.tokens.iter().map(|token| token.kl_divergence).collect();
        }
    };
    Written { texts, divergences }
}

/// The next report.
fn report(inbox: &Receiver<Event>) -> Report {
    for event in inbox {
        match event.kind {
            EventKind::Report(report) => return *report,
            EventKind::Failed(failure) => panic!("{}", failure.message),
            _ => {}
        }
    }
    panic!("the session ended")
}
