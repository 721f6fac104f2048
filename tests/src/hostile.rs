//! Hostile input: mutations of good files, and a cage to read them in.
//!
//! A test calls [`in_a_cage`], which runs that very test again in a child process with 1 GiB of address space. There it
//! feeds cases to a [`Cage`], which catches panics, ends the process when a case takes longer than five seconds, and
//! counts. Too large an allocation aborts the child, which the parent reports with the case that was running.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::checksum::Lcg;

/// Longest a case may compute.
const LONGEST_CASE: Duration = Duration::from_secs(5);
/// Longest a case may take on the clock on the wall: more, because other tests run at the same time. Catches what waits
/// without computing.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Address space of the child in KiB, for `ulimit -v`.
const ADDRESS_SPACE_KIB: &str = "1048576";
const CHILD: &str = "TERSOR_HOSTILE_CHILD";

/// Runs `cases` in a child process; `test` is the name of the calling test. At least `least` cases must have run, some of
/// them ending well and some in an error.
pub fn in_a_cage(test: &str, least: usize, cases: impl FnOnce(&mut Cage)) {
    if std::env::var_os(CHILD).is_some() {
        let mut cage = Cage::new();
        cases(&mut cage);
        return cage.report(least);
    }
    let exe = std::env::current_exe().expect("a running test has a path");
    let mut command = if cfg!(target_os = "linux") {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {ADDRESS_SPACE_KIB} && exec \"$0\" \"$@\"")]).arg(exe);
        shell
    } else {
        Command::new(exe) // no portable cap on memory: panics and time are still watched
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, "1").env("RUST_BACKTRACE", "0");
    let output = command.output().expect("a test can run itself");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let end: Vec<_> = out.lines().chain(err.lines()).rev().take(20).collect();
    let end: Vec<_> = end.into_iter().rev().collect();
    assert!(output.status.success(), "the child ended with {}:\n{}", output.status, end.join("\n"));
    assert!(out.contains(" hostile cases: "), "the child ran no cases:\n{out}");
    out.lines().filter(|line| line.contains(" hostile cases: ")).for_each(|line| println!("{line}"));
}

/// Counts cases and watches over them.
pub struct Cage {
    running: Arc<Mutex<Option<Running>>>,
    loaded: usize,
    refused: usize,
    slowest: (Duration, String),
    wrong: Vec<String>,
}

/// The case that is being run, and the clocks when it began.
struct Running {
    label: String,
    clock: Instant,
    computed: Duration,
}

impl Running {
    fn new(label: &str) -> Self {
        Self { label: label.to_owned(), clock: Instant::now(), computed: computed() }
    }

    /// Time computed since the beginning.
    fn took(&self) -> Duration {
        computed().saturating_sub(self.computed)
    }
}

/// Processor time of this process; where there is no portable way to learn it, time on the wall.
fn computed() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    let ticks = || {
        // fields 14 and 15, user and system time in 1/100 s; the second field, a name in brackets, may contain spaces
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
        Some(fields.next()?? + fields.next()??)
    };
    ticks().map_or_else(|| start.elapsed(), |ticks| Duration::from_millis(10 * ticks))
}

impl Cage {
    fn new() -> Self {
        let running = Arc::new(Mutex::new(None::<Running>));
        let watched = Arc::clone(&running);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(100));
                if let Ok(guard) = watched.lock()
                    && let Some(case) = &*guard
                    && (case.took() > LONGEST_CASE || case.clock.elapsed() > LONGEST_WAIT)
                {
                    eprintln!("\"{}\" hangs: {:?} computed in {:?}", case.label, case.took(), case.clock.elapsed());
                    std::process::exit(1);
                }
            }
        });
        Self { running, loaded: 0, refused: 0, slowest: Default::default(), wrong: Vec::new() }
    }

    /// Runs one case: `Ok` if the input was accepted and is in order, else the error's message, which must contain `name`.
    pub fn case(&mut self, label: &str, name: &str, run: impl FnOnce() -> Result<(), String>) {
        eprintln!("{label}"); // the last line, should the process die
        self.watch(Some(Running::new(label)));
        let result = catch_unwind(AssertUnwindSafe(run));
        if let Some(case) = self.watch(None)
            && case.took() > self.slowest.0
        {
            self.slowest = (case.took(), case.label);
        }
        match result {
            Ok(Ok(())) => self.loaded += 1,
            Ok(Err(message)) if message.contains(name) => self.refused += 1,
            Ok(Err(message)) => self.wrong.push(format!("{label}: the error does not name {name}: {message}")),
            Err(_) => self.wrong.push(format!("{label}: panicked")),
        }
    }

    fn watch(&self, case: Option<Running>) -> Option<Running> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *running, case)
    }

    fn report(self, least: usize) {
        let cases = self.loaded + self.refused + self.wrong.len();
        let (time, label) = &self.slowest;
        println!(
            "{cases} hostile cases: {} loaded, {} refused; the slowest computed for {time:?} ({label})",
            self.loaded, self.refused
        );
        assert!(self.wrong.is_empty(), "{} cases went wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
        assert!(cases >= least && self.loaded > 0 && self.refused > 0, "the corpus is not what it was made to be");
    }
}

/// Values that counts, offsets and dimensions lie with.
const LIES: [u64; 14] = [
    0,
    1,
    3,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    1 << 61,
    (1 << 63) - 32,
    1 << 63,
    u64::MAX - 31,
    u64::MAX,
];

/// Every `step`-th prefix.
pub fn truncations(seed: &[u8], step: usize, mut run: impl FnMut(String, Vec<u8>)) {
    for len in (0..seed.len()).step_by(step) {
        run(format!("cut to {len} bytes"), seed[..len].to_vec());
    }
}

/// Every single bit of the first `len` bytes, flipped.
pub fn bit_flips(seed: &[u8], len: usize, mut run: impl FnMut(String, Vec<u8>)) {
    for bit in 0..8 * len.min(seed.len()) {
        let mut bytes = seed.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        run(format!("bit {} of byte {} flipped", bit % 8, bit / 8), bytes);
    }
}

/// A 4- or 8-byte lie at every `step`-th offset of the first `len` bytes.
pub fn lies(seed: &[u8], len: usize, step: usize, mut run: impl FnMut(String, Vec<u8>)) {
    for at in (0..len.min(seed.len())).step_by(step) {
        for lie in LIES {
            for width in [4, 8] {
                if width == 4 && lie > u64::from(u32::MAX) {
                    continue;
                }
                let mut bytes = seed.to_vec();
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&lie.to_le_bytes()[..end - at]);
                run(format!("{width} bytes at {at} say {lie:#x}"), bytes);
            }
        }
    }
}

/// `count` files with a few random wounds each: bytes overwritten, ranges removed, repeated, moved.
pub fn wounds(seed: &[u8], count: u32, mut run: impl FnMut(String, Vec<u8>)) {
    for number in 0..count {
        let mut lcg = Lcg(number);
        let mut bytes = seed.to_vec();
        for _ in 0..=lcg.below(4) {
            let at = lcg.below(bytes.len() + 1);
            let len = lcg.below(17).min(bytes.len() - at);
            match lcg.below(4) {
                0 => bytes[at..at + len].iter_mut().for_each(|byte| *byte = lcg.byte()),
                1 => drop(bytes.drain(at..at + len)),
                2 => drop(bytes.splice(at..at, bytes[at..at + len].to_vec())),
                _ => {
                    let moved: Vec<u8> = bytes.drain(at..at + len).collect();
                    let to = lcg.below(bytes.len() + 1);
                    bytes.splice(to..to, moved);
                }
            }
        }
        run(format!("random wounds {number}"), bytes);
    }
}

/// JSON whose every number, and every string, is replaced in turn by something else.
pub fn json_lies(json: &str, mut run: impl FnMut(String, String)) {
    const NUMBERS: [&str; 13] = [
        "-1",
        "0",
        "1.5",
        "1e400",
        "1e19",
        "9223372036854775807",
        "18446744073709551615",
        "18446744073709551616",
        "4611686018427387904",
        "null",
        "[]",
        "\"7\"",
        "99999999999999999999999999999999999999999",
    ];
    const STRINGS: [&str; 8] =
        ["\"\"", "7", "null", "{}", "[\"a\"]", "\"\\ud800\"", "\"\\u0000\\u001b[2J\"", "\"F32\""];
    for (start, end) in tokens(json) {
        let lies = if json.as_bytes()[start] == b'"' { &STRINGS[..] } else { &NUMBERS[..] };
        for lie in lies {
            run(
                format!("{} at {start} becomes {lie}", &json[start..end]),
                [&json[..start], lie, &json[end..]].concat(),
            );
        }
    }
}

/// Byte ranges of the numbers and strings of a JSON text without escapes.
fn tokens(json: &str) -> Vec<(usize, usize)> {
    let bytes = json.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        at += 1;
        if bytes[start] == b'"' {
            while at < bytes.len() && bytes[at] != b'"' {
                at += 1;
            }
            at = (at + 1).min(bytes.len());
            out.push((start, at));
        } else if bytes[start].is_ascii_digit() {
            while at < bytes.len() && bytes[at].is_ascii_digit() {
                at += 1;
            }
            out.push((start, at));
        }
    }
    out
}
