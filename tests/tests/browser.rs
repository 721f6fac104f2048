//! The app in a real browser: the page that `cargo xtask web` built, in headless Chromium on SwiftShader.
//!
//! These tests need that page, in the folder that `TERSOR_WEB` names: `cargo xtask test --only browser` builds it and runs them.
//! SmolLM2 writes a few tokens only, since SwiftShader computes on the processor; the long parts are tiny's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tersor::fetch::{Located, Options as Fetch, locate};
use tersor_engine::session::{Calibration, Command, Compare, Compress, Options, Recipe, Source, Text};
use tersor_tests::browser::Browser;
use tersor_tests::side_by_side::{SEED, TEMPERATURE, Written, natively};
use tersor_tests::talk::{Talk, tiny};

#[path = "../../xtask/src/serve.rs"]
mod serve;

const PROMPT: &str = "It is a truth universally acknowledged, that a";

/// Keeps what the worker says to the page in `said`: texts, as they were sent. And what each frame takes the page, in `frames`;
/// when the first was drawn, in `painted` (ms since the page was asked for).
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
    window.frames = [];
    const next = window.requestAnimationFrame.bind(window);
    window.requestAnimationFrame = (callback) => next((time) => {
        const begin = performance.now();
        callback(time);
        window.painted ??= performance.now();
        frames.push(performance.now() - begin);
    });
";

/// In the worker: keeps the devices it opens in `devices`, and the size of its memory after each message to the page in `heap`.
const WATCH: &str = "
    self.devices = [];
    self.heap = [];
    const instantiate = WebAssembly.instantiate;
    WebAssembly.instantiate = async (...args) => {
        const request = GPUAdapter.prototype.requestDevice;
        GPUAdapter.prototype.requestDevice = async function (...args) {
            const device = await request.apply(this, args);
            devices.push(device);
            return device;
        };
        const made = await instantiate(...args);
        const memory = (made.instance ?? made).exports.memory;
        const post = self.postMessage;
        self.postMessage = function (...args) {
            heap.push(memory.buffer.byteLength);
            return post.apply(self, args);
        };
        return made;
    };
";

/// The folder of the built page.
fn page() -> PathBuf {
    let folder = std::env::var_os("TERSOR_WEB").map(PathBuf::from);
    let folder =
        folder.expect("TERSOR_WEB names the folder of the built page: cargo xtask test --only browser sees to it");
    assert!(folder.join("tersor_bg.wasm").exists(), "{} holds no built page", folder.display());
    folder
}

/// Serves a folder.
fn address(folder: PathBuf) -> String {
    format!("http://{}", serve::serve(folder, 0).unwrap())
}

fn browser() -> Browser {
    let mut browser = Browser::start();
    browser.resize([1280, 800]);
    browser.before_pages(EAVESDROP);
    browser.before_workers(WATCH);
    browser
}

fn fragment(tokens: u32) -> String {
    let prompt = PROMPT.replace(' ', "+");
    format!("with=q4_k&theme=light&prompt={prompt}&tokens={tokens}&seed={SEED}&temperature={TEMPERATURE}")
}

/// What the worker reported, report by report.
fn reports(browser: &mut Browser, schema: &str) -> Vec<Value> {
    let said = browser.evaluate("said");
    let events =
        said.as_array().unwrap().iter().map(|text| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap());
    events.map(|message| message["event"]["data"].clone()).filter(|data| data["schema"] == schema).collect()
}

/// Ctrl+Enter.
fn begin(browser: &mut Browser) {
    browser.evaluate("said.length = 0; frames.length = 0; 0");
    browser.press("Enter", 13, 2);
}

/// Ctrl+Enter, until the texts stand side by side and are compared.
fn run(browser: &mut Browser) {
    begin(browser);
    browser.wait_for("reports('tersor.score/1') === 1");
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

/// Compares what both columns wrote with the same on this machine's own adapter.
fn is_as_natively(browser: &mut Browser, source: Source, tokens: u32) {
    let expected = natively(source, PROMPT, tokens, "q4_k");
    let written: Vec<Vec<f64>> =
        reports(browser, "tersor.generate/1").iter().map(|report| numbers(&report["generation"]["tokens"])).collect();
    let Written { texts, divergences } = expected;
    assert_eq!(written, texts.map(|text| text.into_iter().map(f64::from).collect::<Vec<f64>>()), "other tokens");
    let score = &reports(browser, "tersor.score/1")[0];
    let here: Vec<f64> =
        score["tokens"].as_array().unwrap().iter().map(|token| token["kl_divergence"].as_f64().unwrap()).collect();
    assert_eq!(here.len(), divergences.len());
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    println!("mean KLD: {:.6} in the browser, {:.6} natively", mean(&here), mean(&divergences));
    for (at, (here, there)) in here.iter().zip(&divergences).enumerate() {
        assert!((here - there).abs() < 1e-3, "KLD of token {at}: {here} in the browser, {there} natively");
    }
    assert!(mean(&divergences) > 0.0, "nothing was compressed");
}

#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn tiny_writes_as_natively_stops_and_survives_the_loss_of_its_device() {
    const TOKENS: u32 = 16;
    let mut browser = browser();
    browser.open(&format!("{}/#model=tiny&{}", address(page()), fragment(TOKENS)));
    // The model is fetched, opened and described; nothing runs until it is asked for.
    browser.wait_for("window.reports?.('tersor.inspect/1') === 1");
    println!("first frame after {:.0} ms", browser.evaluate("painted").as_f64().unwrap());
    let adapters = reports(&mut browser, "tersor.adapters/1");
    assert_eq!(adapters[0]["chosen"], 0, "{adapters:?}");
    run(&mut browser);
    is_as_natively(&mut browser, tiny(), TOKENS);
    browser.keep_picture("browser_compare_desk.png");

    // The page was free all the while: what a frame keeps its thread busy for.
    let mut frames = numbers(&browser.evaluate("frames"));
    frames.sort_by(f64::total_cmp);
    assert!(frames.len() > 20, "only {} frames were drawn while two models wrote", frames.len());
    let late = frames[frames.len() * 95 / 100];
    println!("{} frames, 95th percentile {late:.1} ms", frames.len());
    assert!(late < 50.0, "the 95th percentile of {} frames is {late} ms", frames.len());

    // A second run needs no loading, and Esc ends it midway.
    browser.evaluate("said.length = 0");
    browser.press("Enter", 13, 2);
    browser.wait_for("ended('token') >= 3");
    browser.press("Escape", 27, 0);
    browser.wait_for("ended('cancelled') >= 1");
    assert_eq!(browser.evaluate("reports('tersor.load/1')"), 0);
    assert!(browser.evaluate("ended('token')").as_u64().unwrap() < u64::from(2 * TOKENS), "it was not stopped midway");
    assert_eq!(browser.complaints, Vec::<String>::new(), "the page complains");

    // The device is lost in the middle of writing. The app says so, and the next run loads the model again on another one.
    let devices = browser.evaluate_in_worker("devices.length").as_u64().unwrap();
    browser.evaluate("said.length = 0");
    browser.press("Enter", 13, 2);
    browser.wait_for("ended('token') >= 2");
    browser.evaluate_in_worker("devices.at(-1).destroy()");
    browser.wait_for("said.some((text) => text.includes('\"device_lost\":true'))");
    browser.wait_for("ended('done') + ended('failed') + ended('cancelled') >= 2");
    browser.keep_picture("browser_lost.png");
    run(&mut browser);
    assert_eq!(browser.evaluate("reports('tersor.load/1')"), 2, "both models are loaded again");
    assert_eq!(browser.evaluate_in_worker("devices.length"), devices + 1);

    // On a phone.
    browser.resize([390, 844]);
    browser.evaluate("new Promise((done) => setTimeout(done, 1500))");
    browser.keep_picture("browser_compare_phone.png");
}

#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn smollm2_is_opened_from_a_file_streamed_and_kept() {
    const TOKENS: u32 = 3;
    const MIB: f64 = (1 << 20) as f64;
    let Located::Path(file) = locate("smollm2-135m", &Fetch::default()).unwrap() else { panic!() };
    let size = std::fs::metadata(&file).unwrap().len();
    let mut browser = browser();
    let address = address(page());
    browser.open(&format!("{address}/#{}", fragment(TOKENS)));
    browser.wait_for("window.reports?.('tersor.adapters/1') === 1");
    let before = browser.evaluate_in_worker("heap.at(-1)").as_f64().unwrap();
    browser.choose_file("#files", &file);
    browser.wait_for("reports('tersor.inspect/1') === 1");
    let opened = browser.evaluate_in_worker("heap.at(-1)").as_f64().unwrap();
    println!("the worker's memory: {:.0} MiB, with the file open {:.0} MiB", before / MIB, opened / MIB);
    assert!(opened - before < 64.0 * MIB, "opening {size} bytes took {} MiB", (opened - before) / MIB);

    // Nothing of the model is read, packed or uploaded as a whole where that would be more.
    let check = |browser: &mut Browser, when: &str| {
        let heap = numbers(&browser.evaluate_in_worker("heap"));
        let jump = heap.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        let most = heap.last().unwrap() / MIB;
        println!("{when}: the worker's memory is {most:.0} MiB, one step was {:.0} at most", jump / MIB);
        assert!(jump < 64.0 * MIB, "the worker's memory grew by {:.0} MiB at once", jump / MIB);
    };
    begin(&mut browser);
    browser.wait_for("reports('tersor.load/1') === 2");
    check(&mut browser, "both loaded, one packed anew");
    browser.wait_for("reports('tersor.score/1') === 1");
    check(&mut browser, "texts written and compared");
    is_as_natively(&mut browser, Source::Path(file.clone()), TOKENS);

    // The file is kept, is there when the page is opened anew, and can be deleted.
    let name = file.file_name().unwrap().to_str().unwrap();
    let kept = format!("said.some((text) => text.includes('{{\"name\":\"{name}\",\"bytes\":{size}}}'))");
    browser.wait_for(&format!("window.said && {kept}"));
    browser.open("about:blank");
    browser.open(&format!("{address}/#model={name}&{}", fragment(TOKENS)));
    browser.wait_for("window.reports?.('tersor.inspect/1') === 1");
    browser.press("1", 49, 1);
    browser.evaluate("new Promise((done) => setTimeout(done, 1500))");
    browser.keep_picture("browser_models_desk.png");
    browser.resize([390, 844]);
    browser.evaluate("new Promise((done) => setTimeout(done, 1500))");
    browser.keep_picture("browser_models_phone.png");
    assert_eq!(browser.complaints, Vec::<String>::new(), "the page complains");
}

/// Files that tersor wrote natively, one of each family.
#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn compressed_files_compute_as_natively() {
    const TOKENS: u32 = 4;
    let folder = tempfile::tempdir().unwrap();
    let talk = Talk::start(Options::default());
    let mut browser = browser();
    let address = address(page());
    for (at, recipe) in
        ["sparse:50%+uniform:bits=4", "sparse:2:4+q8_0", "q4_0+svd:rank=16", "entropy:bf16", "spqr:bits=3"]
            .into_iter()
            .enumerate()
    {
        let output = folder.path().join(format!("tiny{at}.safetensors"));
        let compress = Compress {
            source: tiny(),
            recipe: Recipe::Codec(recipe.to_owned()),
            rotation: None,
            calibration: Calibration { text: None, tokens: Some(256) },
            output: output.clone(),
        };
        talk.report(Command::Compress(compress));
        browser.open("about:blank");
        browser.open(&format!("{address}/#{}", fragment(TOKENS)));
        browser.wait_for("window.reports?.('tersor.adapters/1') === 1");
        browser.choose_file("#files", &output);
        browser.wait_for("reports('tersor.inspect/1') === 1");
        run(&mut browser);
        println!("{recipe}");
        is_as_natively(&mut browser, Source::Path(output), TOKENS);
    }
    assert_eq!(browser.complaints, Vec::<String>::new(), "the page complains");
}

/// A report that the command line wrote, without a model: it is read on the page, and the plot of it saved as a picture.
#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn a_report_is_laid_beside_and_its_plot_saved_as_a_picture() {
    /// Keeps what would go to the downloads.
    const KEEP: &str = "window.saved = []; HTMLAnchorElement.prototype.click = function () { saved.push([this.download, this.href]); };";
    /// Width, height and dark pixels of the picture that was saved.
    const LOOK: &str = "new Promise((done) => {
        const image = new Image();
        image.onload = () => {
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [image.width, image.height];
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            const { data } = context.getImageData(0, 0, image.width, image.height);
            let dark = 0;
            for (let i = 0; i < data.length; i += 4) dark += data[i] < 100 && data[i + 3] === 255;
            done([image.width, image.height, dark]);
        };
        image.onerror = () => done([0, 0, 0]);
        image.src = saved[0][1];
    })";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.json");
    let compare = Compare {
        source: tiny(),
        recipes: vec![Recipe::Codec("q4_k".to_owned()), Recipe::Codec("q8_0".to_owned())],
        dense: "bf16".to_owned(),
        rotation: None,
        calibration: Calibration::default(),
        text: Some(Text { name: "a text".to_owned(), text: PROMPT.repeat(8) }),
        context: 64,
        windows: Some(1),
        input: None,
        tokens: 0,
        attention: Vec::new(),
    };
    let report = Talk::start(Options::default()).report(Command::Compare(compare));
    std::fs::write(&file, serde_json::to_vec(&report).unwrap()).unwrap();

    let mut browser = browser();
    browser.before_pages(KEEP);
    browser.open(&format!("{}/#theme=light", address(page())));
    browser.wait_for("window.reports?.('tersor.adapters/1') === 1");
    // The key that saves the plot does nothing until there is one.
    let save = |browser: &mut Browser| {
        let begin = std::time::Instant::now();
        browser.evaluate("saved.length = 0");
        while browser.evaluate("saved.length") == 0 {
            browser.press("S", 83, 2 | 8);
            browser.evaluate("new Promise((done) => setTimeout(done, 1500))");
            assert!(begin.elapsed().as_secs() < 300, "nothing is saved; complaints: {:?}", browser.complaints);
        }
    };
    browser.choose_file("#files", &file);
    save(&mut browser);
    browser.keep_picture("browser_beside.png");
    assert!(browser.evaluate("saved[0][0]").as_str().unwrap().ends_with("compressed.png"));
    let first = browser.evaluate("saved[0][1]");
    let [width, height, dark] = numbers(&browser.evaluate(LOOK))[..] else { panic!("three numbers") };
    assert_eq!([width, height], [960.0, 620.0]);
    assert!(dark > 500.0, "letters and points: {dark} dark pixels");
    // What is no report is said to be none, and nothing else changes.
    std::fs::write(&file, "{\"schema\": \"tersor.compare/1\"").unwrap();
    browser.choose_file("#files", &file);
    browser.evaluate("new Promise((done) => setTimeout(done, 1500))");
    browser.keep_picture("browser_no_report.png");
    save(&mut browser);
    assert!(browser.evaluate("saved[0][1]") == first, "the plot is what it was");
    assert_eq!(browser.complaints, Vec::<String>::new(), "the page complains");
}

/// Puts a model into a folder as the Hub serves it. `digest` is what it says of a file.
fn publish(hub: &Path, id: &str, digest: impl Fn(&[u8]) -> String) {
    let mut entries = Vec::new();
    let files = hub.join(id).join("resolve/main");
    std::fs::create_dir_all(&files).unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        let bytes = std::fs::read(page().join("models/tiny").join(name)).unwrap();
        let large = json!({"oid": digest(&bytes), "size": bytes.len()});
        entries.push(json!({"type": "file", "path": name, "size": bytes.len(), "oid": "", "lfs": large}));
        std::fs::write(files.join(name), bytes).unwrap();
    }
    let tree = hub.join("api/models").join(id).join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("main"), serde_json::to_vec(&entries).unwrap()).unwrap();
}

#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn models_are_downloaded_by_id_checked_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["index.html", "style.css", "main.js", "worker.js", "icon.svg", "tersor.js", "tersor_bg.wasm"] {
        std::fs::copy(page().join(file), folder.path().join(file)).unwrap();
    }
    // A mirror on the page's own host.
    let index = std::fs::read_to_string(page().join("index.html")).unwrap();
    assert!(index.contains("connect-src 'self' https://huggingface.co "), "the page may not reach the Hub");
    let mirrored = index.replace("content=\"https://huggingface.co\"", "content=\"/hub\"");
    assert_ne!(mirrored, index);
    std::fs::write(folder.path().join("index.html"), mirrored).unwrap();
    let sha256 = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    publish(&folder.path().join("hub"), "austen/good", sha256);
    publish(&folder.path().join("hub"), "austen/bad", |bytes| sha256(&bytes[1..]));

    let mut browser = browser();
    let address = address(folder.path().to_owned());
    browser.open(&format!("{address}/#model=austen/bad"));
    browser.wait_for("window.said?.some((text) => text.includes('did not arrive as published'))");
    browser.open("about:blank");
    browser.open(&format!("{address}/#model=austen/good"));
    browser.wait_for("window.reports?.('tersor.inspect/1') === 1");
    assert!(browser.evaluate("ended('progress')").as_u64().unwrap() > 0, "a download shows how far it is");
    assert_eq!(browser.evaluate("said.some((text) => text.includes('{\"name\":\"austen/good\",\"bytes\":'))"), true);
    assert_eq!(browser.evaluate("said.some((text) => text.includes('austen/bad'))"), false, "half a model is none");

    // The second time it comes out of the browser's storage.
    std::fs::remove_dir_all(folder.path().join("hub")).unwrap();
    browser.open("about:blank");
    browser.open(&format!("{address}/#model=austen/good"));
    browser.wait_for("window.reports?.('tersor.inspect/1') === 1");
    assert_eq!(browser.complaints, Vec::<String>::new(), "the page complains");
}

#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn without_webgpu_or_an_adapter_the_page_says_so() {
    for (script, sentence) in [
        ("Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined });", "this browser does not have"),
        ("GPU.prototype.requestAdapter = async () => null;", "offers no graphics adapter"),
    ] {
        let mut browser = Browser::start();
        browser.before_pages(script);
        browser.open(&address(page()));
        browser.wait_for(&format!("document.getElementById('what')?.textContent.includes('{sentence}') ?? false"));
        assert_eq!(browser.evaluate("document.getElementById('notice').hidden"), false);
        assert_eq!(browser.evaluate("document.querySelector('#what a').href.startsWith('https://')"), true);
        assert_eq!(browser.complaints, Vec::<String>::new());
    }
}

/// naga, which the build holds every shader against, takes what browsers refuse: Chromium's compiler (Tint) has the last word on all
/// that runs without 16-bit floats and subgroups, which SwiftShader does not have there.
#[test]
#[ignore = "needs Chromium: cargo xtask test --only browser"]
fn every_portable_shader_compiles_in_the_browser() {
    const BATCH: usize = 200;
    const COMPILE: &str = "async (shaders) => {
        const refused = [];
        for (const [name, code] of shaders) {
            device.pushErrorScope('validation');
            const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
            const error = await device.popErrorScope();
            const found = messages.find((message) => message.type === 'error');
            if (found) refused.push(`${name}: line ${found.lineNum}: ${found.message}`);
            else if (error) refused.push(`${name}: ${error.message}`);
        }
        return refused;
    }";
    let mut shaders = Vec::new();
    let mut needs_more = 0;
    for (kernel, _) in tersor_shaders::kernels() {
        for options in tersor_shaders::permutations(kernel).unwrap() {
            let given: Vec<_> = options.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            let composed = tersor_shaders::compose(kernel, &given).unwrap();
            if composed.info.f16 || composed.info.subgroup {
                needs_more += 1;
                continue;
            }
            let spelled: Vec<String> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
            shaders.push(json!([format!("{kernel} {}", spelled.join(" ")), composed.source]));
        }
    }
    let mut browser = Browser::start();
    browser.open(&address(page()));
    browser
        .evaluate("navigator.gpu.requestAdapter().then((a) => a.requestDevice()).then((d) => { window.device = d; })");
    // The harness itself: what cannot be right is refused.
    let wrong = json!([["wrong", "fn f() -> u32 { return 1.5; }"]]);
    assert_eq!(browser.evaluate(&format!("({COMPILE})({wrong})")).as_array().unwrap().len(), 1);
    let mut refused = Vec::new();
    for batch in shaders.chunks(BATCH) {
        let found = browser.evaluate(&format!("({COMPILE})({})", Value::from(batch)));
        refused.extend(found.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()));
    }
    println!("{} permutations compiled; {needs_more} need 16-bit floats or subgroups", shaders.len());
    assert!(shaders.len() > 100);
    assert!(refused.is_empty(), "Chromium refuses {} shaders:\n{}", refused.len(), refused.join("\n"));
}

/// No test of anything but that it works: the pictures of `docs/screenshots`, for `cargo xtask screenshots`.
#[test]
#[ignore = "draws pictures for documents: cargo xtask screenshots"]
fn pictures_for_documents() {
    let address = address(page());
    // Each page, what fills it, and what is there once it is full.
    let pages = [
        ("tensors", "model=tiny", "reports('tersor.inspect/1') >= 1"),
        ("quality", "model=tiny&with=q8_0&with=q4_k&with=q2_k&run", "reports('tersor.compare/1') === 1"),
        ("kernels", "", "reports('tersor.adapters/1') === 1"),
        ("attention", "model=tiny&run", "reports('tersor.attend/1') >= 1"),
    ];
    for (tab, fragment, full) in pages {
        let mut browser = browser();
        browser.open(&format!("{address}/#tab={tab}&theme=light&{fragment}"));
        browser.wait_for(&format!("window.reports && {full}"));
        for (place, size) in [("desk", [1280, 800]), ("phone", [390, 844])] {
            browser.resize(size);
            browser.evaluate("new Promise((done) => setTimeout(done, 1500))");
            browser.keep_picture(&format!("browser_{tab}_{place}.png"));
        }
    }
}

/// A browser compiles shaders on one thread, and these tests are little else: they are shared out among as many browsers as run side by side.
#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn kernel_tests_pass_in_the_browser_first_third() {
    kernel_tests_pass("0/3");
}

#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn kernel_tests_pass_in_the_browser_second_third() {
    kernel_tests_pass("1/3");
}

#[test]
#[ignore = "needs the built page: cargo xtask test --only browser"]
fn kernel_tests_pass_in_the_browser_last_third() {
    kernel_tests_pass("2/3");
}

/// Runs a share of the kernels' tests that `TERSOR_KERNEL_TESTS` selects, by default of all.
fn kernel_tests_pass(share: &str) {
    let folder = std::env::var_os("TERSOR_WEB_KERNELS").map(PathBuf::from);
    let folder =
        folder.expect("TERSOR_WEB_KERNELS names the folder of the tests' page: see cargo xtask test --only browser");
    let only = std::env::var("TERSOR_KERNEL_TESTS").unwrap_or_default();
    let mut browser = Browser::start();
    browser.open(&format!("{}/#{share},{only}", address(folder)));
    let mut seen = 0;
    let mut failed = Vec::new();
    loop {
        // Whether it has ended is asked first, so that no result comes in between.
        let ended = browser.evaluate("window.ended === true") == true;
        let results = browser.evaluate(&format!("(window.results ?? []).slice({seen})"));
        for result in results.as_array().unwrap() {
            let name = result["name"].as_str().unwrap();
            let seconds = result["milliseconds"].as_f64().unwrap() / 1e3;
            println!("{name} ... {} ({seconds:.1} s)", if result["error"].is_null() { "ok" } else { "FAILED" });
            seen += 1;
            if let Some(error) = result["error"].as_str() {
                failed.push(format!("{name}: {error}"));
            }
        }
        if ended {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(failed.is_empty(), "{} of {seen} failed:\n{}", failed.len(), failed.join("\n"));
    // Of a few that were asked for by name there may be none in this share; the page fails where no name fits.
    let named = only.split(',').any(|part| !part.is_empty() && !part.starts_with('-'));
    assert!(seen > 0 || named, "no test ran");
}
