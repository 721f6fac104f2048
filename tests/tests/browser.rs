//! The app in a real browser: the page that `cargo xtask web` built, in headless Chromium on SwiftShader.
//!
//! These tests need that page, in the folder that `TERSOR_WEB` names: `cargo xtask test --only browser` builds it and runs them.

use std::path::PathBuf;
use std::sync::mpsc::channel;

use serde_json::Value;
use tersor::fetch::{Located, Options as Fetch, locate};
use tersor_engine::session::{
    Calibration, Command, EventKind, Generate, Input, Load, Options, Recipe, Report, Sampling, Session, Slot, Source,
};
use tersor_tests::browser::Browser;

#[path = "../../xtask/src/serve.rs"]
mod serve;

const PROMPT: &str = "It is a truth universally acknowledged, that a";
const TOKENS: u32 = 24;
const SEED: u64 = 7;
const TEMPERATURE: f32 = 0.7;

/// Keeps what the page and its worker say to each other in `said`: texts, as they were sent.
const EAVESDROP: &str = "
    window.said = [];
    const Plain = Worker;
    window.Worker = class extends Plain {
        constructor(...args) {
            super(...args);
            this.addEventListener('message', (event) => said.push(event.data));
        }
    };
    window.reports = (schema) => said.filter((text) => text.includes(`\"schema\":\"${schema}\"`)).length;
    window.ended = (how) => said.filter((text) => text.includes(`\"event\":\"${how}\"`)).length;
";

/// Serves the built page.
fn address() -> String {
    let folder = std::env::var_os("TERSOR_WEB").map(PathBuf::from);
    let folder =
        folder.expect("TERSOR_WEB names the folder of the built page: cargo xtask test --only browser sees to it");
    assert!(folder.join("tersor_bg.wasm").exists(), "{} holds no built page", folder.display());
    format!("http://{}", serve::serve(folder, 0).unwrap())
}

/// What the worker reported, report by report.
fn reports(browser: &mut Browser, schema: &str) -> Vec<Value> {
    let said = browser.evaluate("said");
    let events =
        said.as_array().unwrap().iter().map(|text| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap());
    events.map(|message| message["event"]["data"].clone()).filter(|data| data["schema"] == schema).collect()
}

/// The tokens of tiny with a recipe, on this machine's own adapter.
fn natively(recipe: &str) -> Vec<u64> {
    let Located::Embedded(files) = locate("tiny", &Fetch::default()).unwrap() else { panic!() };
    let source = Source::Files(files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect());
    let (events, inbox) = channel();
    let events = std::sync::Mutex::new(events);
    let session = Session::start(Options::default(), move |event| events.lock().unwrap().send(event).unwrap()).unwrap();
    let (slot, recipe) = (Slot(0), Some(Recipe::Codec(recipe.to_owned())));
    let (context, calibration) = (Some(1024), Calibration::default());
    session.send(Command::Load(Load { slot, source, recipe, rotation: None, context, attention: None, calibration }));
    let sampling = Sampling { temperature: TEMPERATURE, seed: SEED, ..Sampling::default() };
    let input = Input::Message(PROMPT.to_owned());
    session.send(Command::Generate(Generate { slot, input, sampling, tokens: TOKENS, stop: Vec::new() }));
    for event in inbox {
        match event.kind {
            EventKind::Report(report) => {
                if let Report::Generate(found) = *report {
                    return found.generation.tokens.into_iter().map(u64::from).collect();
                }
            }
            EventKind::Failed(failure) => panic!("{}", failure.message),
            _ => {}
        }
    }
    panic!("the session ended")
}

#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn tiny_writes_the_same_as_natively_and_can_be_stopped() {
    let mut browser = Browser::start();
    browser.resize([1280, 800]);
    browser.before_pages(EAVESDROP);
    let prompt = PROMPT.replace(' ', "+");
    browser.open(&format!(
        "{}/#model=tiny&with=q4_k&theme=light&prompt={prompt}&tokens={TOKENS}&seed={SEED}&temperature={TEMPERATURE}",
        address()
    ));
    // The model is fetched, opened and described; nothing runs until it is asked for.
    browser.wait_for("window.reports?.('tersor.inspect/1') === 1");
    let adapters = reports(&mut browser, "tersor.adapters/1");
    assert_eq!(adapters[0]["chosen"], 0, "{adapters:?}");
    browser.press("Enter", 13, 2);
    browser.wait_for("reports('tersor.score/1') === 1");
    let written: Vec<Vec<u64>> = reports(&mut browser, "tersor.generate/1")
        .iter()
        .map(|report| {
            report["generation"]["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
        })
        .collect();
    assert_eq!(written, [natively("bf16"), natively("q4_k")]);
    let scores = reports(&mut browser, "tersor.score/1");
    assert_eq!(scores[0]["tokens"].as_array().unwrap().len(), written[1].len());
    browser.keep_picture("browser_compare.png");

    // A second run needs no loading, and Esc ends it midway.
    browser.evaluate("said.length = 0");
    browser.press("Enter", 13, 2);
    browser.wait_for("ended('token') >= 3");
    browser.press("Escape", 27, 0);
    browser.wait_for("ended('cancelled') >= 1");
    assert_eq!(browser.evaluate("reports('tersor.load/1')"), 0);
    assert_eq!(browser.complaints, Vec::<String>::new(), "the page complains");

    // On a phone.
    browser.resize([390, 844]);
    browser.evaluate("new Promise((done) => setTimeout(done, 1500))");
    browser.keep_picture("browser_compare_phone.png");
}

#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn without_webgpu_the_page_says_so() {
    let mut browser = Browser::start();
    browser.before_pages("Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined });");
    browser.open(&address());
    browser.wait_for("document.getElementById('what')?.textContent.includes('this browser does not have')");
    assert_eq!(browser.evaluate("document.getElementById('notice').hidden"), false);
    assert_eq!(browser.evaluate("document.querySelector('#what a').href.startsWith('https://')"), true);
    assert_eq!(browser.complaints, Vec::<String>::new());
}
