//! A headless Chromium, driven through its DevTools protocol: pages are opened, keys pressed, scripts evaluated.
//!
//! WebGPU runs on SwiftShader there, canvas and compute alike, so that every machine can run these tests.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// What a page may take to get anything done: software rendering on few cores is slow.
const PATIENCE: Duration = Duration::from_secs(300);

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    // Compute, then all three for the canvas.
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
    "--use-angle=swiftshader",
];

/// A browser with one page.
pub struct Browser {
    process: Child,
    socket: WebSocket<TcpStream>,
    session: String,
    /// The page's worker, once it is there.
    worker: Option<String>,
    /// What a worker does before any script of its own.
    before_workers: String,
    next: u64,
    /// What went wrong in the page: exceptions, errors on the console, refused requests.
    pub complaints: VecDeque<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts Chromium with an empty page.
    pub fn start() -> Self {
        let program = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        });
        let program = program.expect("install chromium for this test");
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| Some(line.ok()?.strip_prefix("DevTools listening on ")?.to_owned()));
        let address = address.expect("chromium says where its DevTools listen");
        // What it says later must be read, or it stops when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        let host = address.trim_start_matches("ws://").split('/').next().unwrap();
        let stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(&address, stream).unwrap();
        let (session, complaints) = (String::new(), VecDeque::new());
        let mut browser = Self {
            process,
            socket,
            session,
            worker: None,
            before_workers: String::new(),
            next: 0,
            complaints,
            _profile: profile,
        };
        let targets = browser.call("Target.getTargets", json!({}));
        let is_page = |target: &&Value| target["type"] == "page";
        let page = targets["targetInfos"].as_array().unwrap().iter().find(is_page).unwrap()["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": page, "flatten": true}));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        let workers = json!({"autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true});
        browser.call("Target.setAutoAttach", workers);
        browser
    }

    /// Carries out a command of the protocol and returns its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let session = self.session.clone();
        self.call_in(&session, method, params)
    }

    fn send(&mut self, session: &str, method: &str, params: Value) -> u64 {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if !session.is_empty() {
            message["sessionId"] = session.into();
        }
        self.socket.send(Message::text(message.to_string())).unwrap();
        self.next
    }

    fn call_in(&mut self, session: &str, method: &str, params: Value) -> Value {
        let id = self.send(session, method, params);
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else { continue };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.listen(&answer);
        }
    }

    fn listen(&mut self, event: &Value) {
        let params = &event["params"];
        if event["method"] == "Target.attachedToTarget" && params["targetInfo"]["type"] == "worker" {
            let session = params["sessionId"].as_str().unwrap().to_owned();
            self.send(&session, "Runtime.enable", json!({}));
            let script = self.before_workers.clone();
            self.send(&session, "Runtime.evaluate", json!({"expression": script}));
            self.send(&session, "Runtime.runIfWaitingForDebugger", json!({}));
            self.worker = Some(session);
            return;
        }
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                let details = &params["exceptionDetails"];
                self.complaints.push_back(format!("{} {}", details["text"], details["exception"]["description"]));
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.complaints.push_back(params["entry"]["text"].to_string());
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
                self.complaints.push_back(params["args"].to_string());
            }
            _ => {}
        }
    }

    /// Sets the window's size.
    pub fn resize(&mut self, [width, height]: [u32; 2]) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Runs a script before any of a page's own, from the next [`Browser::open`] on.
    pub fn before_pages(&mut self, script: &str) {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script}));
    }

    /// Runs a script in workers before any of their own, from the next [`Browser::open`] on.
    pub fn before_workers(&mut self, script: &str) {
        self.before_workers = script.to_owned();
    }

    /// Puts a file into a page's `<input type=file>`, as if a person had chosen it.
    pub fn choose_file(&mut self, selector: &str, file: &Path) {
        let root = self.call("DOM.getDocument", json!({}))["root"]["nodeId"].clone();
        let found = self.call("DOM.querySelector", json!({"nodeId": root, "selector": selector}));
        self.call("DOM.setFileInputFiles", json!({"nodeId": found["nodeId"], "files": [file]}));
    }

    /// Opens a page.
    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address}));
    }

    /// The value of an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let session = self.session.clone();
        self.evaluate_in(&session, expression)
    }

    /// The value of an expression in the page's worker.
    pub fn evaluate_in_worker(&mut self, expression: &str) -> Value {
        let session = self.worker.clone().expect("the page has started its worker");
        self.evaluate_in(&session, expression)
    }

    fn evaluate_in(&mut self, session: &str, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let found = self.call_in(session, "Runtime.evaluate", params);
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str) {
        let begin = Instant::now();
        while self.evaluate(expression) != Value::Bool(true) {
            assert!(begin.elapsed() < PATIENCE, "waited too long for {expression}; complaints: {:?}", self.complaints);
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    /// Presses and releases a key. `code` is its Windows number; `modifiers`: 1 Alt, 2 Ctrl, 4 Meta, 8 Shift.
    pub fn press(&mut self, key: &str, code: u32, modifiers: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers
            });
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// A picture of the page, as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let found = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let text = found["data"].as_str().unwrap();
        base64::prelude::BASE64_STANDARD.decode(text).unwrap()
    }

    /// Writes a picture of the page into the folder that `TERSOR_SCREENSHOTS` names, if it does.
    pub fn keep_picture(&mut self, name: &str) {
        if let Some(folder) = std::env::var_os("TERSOR_SCREENSHOTS") {
            let picture = self.picture();
            std::fs::write(PathBuf::from(folder).join(name), picture).unwrap();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Whether it was still there does not matter.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
