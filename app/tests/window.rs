//! The real window: opened, used, closed. Needs a screen, which `cargo xtask test --only window` makes where there is none.

#![cfg(feature = "gui")]

use std::process::Command;

fn tersor(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tersor"));
    command.arg("app").args(args);
    command
}

#[test]
#[ignore = "needs a screen: cargo xtask test --only window"]
fn a_window_opens_compares_and_closes() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("picture.png");
    let args =
        ["tiny", "--with", "q4_k", "--tokens", "8", "--run", "--theme", "dark", "--size", "900x640", "--picture"];
    let output = tersor(&args).arg(&picture).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&picture).unwrap())).read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (900, 640));
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let colours: std::collections::HashSet<&[u8]> = pixels.chunks_exact(3).collect();
    assert!(colours.len() > 50, "a page has more than {} colours", colours.len());
    assert!(pixels.iter().map(|p| u64::from(*p)).sum::<u64>() / (pixels.len() as u64) < 80, "dark is dark");
}

/// Whether a window of this program is on the screen, where X11 and its tools say.
fn on_the_screen() -> Option<bool> {
    let ask = |args: &[&str]| {
        let output = Command::new("xwininfo").args(args).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let all = ask(&["-root", "-tree"])?;
    let mut windows =
        all.lines().filter(|line| line.contains("\"tersor")).filter_map(|line| line.split_whitespace().next());
    Some(windows.any(|id| ask(&["-id", id]).is_some_and(|window| window.contains("IsViewable"))))
}

/// What a start takes is printed: `cargo test --release --workspace --test window starts -- --ignored --nocapture` on a screen.
#[test]
#[ignore = "needs a screen: cargo xtask test --only window"]
fn a_window_starts_shows_its_first_page_and_closes() {
    let folder = tempfile::tempdir().unwrap();
    let watched = on_the_screen() == Some(false);
    let begin = std::time::Instant::now();
    let mut app = tersor(&["--tab", "models", "--picture"]).arg(folder.path().join("picture.png")).spawn().unwrap();
    let mut there = None;
    let status = loop {
        if watched && there.is_none() && on_the_screen() == Some(true) {
            there = Some(begin.elapsed());
            println!("the window is there after {:.2} s", begin.elapsed().as_secs_f64());
        }
        match app.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    };
    println!("started, drawn, saved as a picture and closed in {:.2} s", begin.elapsed().as_secs_f64());
    assert!(status.success(), "{status}");
    assert!(folder.path().join("picture.png").exists());
}

/// On a software adapter whatever is drawn is computed by this process, so that its processor time says whether anything is.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs a screen: cargo xtask test --only window"]
fn an_idle_window_draws_nothing() {
    use std::time::{Duration, Instant};

    // Fields 14 and 15 of proc_pid_stat(5), hundredths of a second; the name before them may hold spaces.
    let ticks = |pid: u32| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let mut app = tersor(&["tiny", "--tab", "models"]).spawn().unwrap();
    let begin = Instant::now();
    let (mut before, mut least) = (0, u64::MAX);
    // It starts, looks at the model and settles; then three seconds must pass with next to no work.
    while least > 3 && begin.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_secs(3));
        assert!(app.try_wait().unwrap().is_none(), "the window closed by itself");
        let now = ticks(app.id());
        // A start takes more than this: before that, nothing has been drawn.
        if before > 5 {
            least = least.min(now - before);
        }
        before = now;
    }
    app.kill().unwrap();
    app.wait().unwrap();
    println!("least processor time of three seconds: {} ms, {before} hundredths of a second in all", 10 * least);
    assert!(least <= 3, "{least} hundredths of a second in every three seconds, with nothing to do");
}

/// Pages with the arguments that fill them.
const PAGES: [(&str, &[&str]); 6] = [
    ("models", &["--tab", "models"]),
    ("compare", &["--with", "q4_k", "uniform:bits=2", "--tokens", "160", "--run"]),
    ("quality", &["--tab", "quality", "--with", "q8_0", "q4_k", "q2_k", "--run"]),
    ("tensors", &["--tab", "tensors"]),
    ("kernels", &["--tab", "kernels", "--run"]),
    ("attention", &["--tab", "attention", "--run"]),
];
/// A desk in dark, a phone in light.
const LOOKS: [(&str, &str, &str); 2] = [("desk", "1280x800", "dark"), ("phone", "390x844", "light")];

/// No test of anything but that it works: the pictures of `docs/screenshots`, for `cargo xtask screenshots`.
#[test]
#[ignore = "draws pictures for documents: cargo xtask screenshots"]
fn pictures_for_documents() {
    let folder = std::env::var_os("TERSOR_SCREENSHOTS").expect("TERSOR_SCREENSHOTS names the folder for the pictures");
    for (page, args) in PAGES {
        for (place, size, theme) in LOOKS {
            let picture = std::path::Path::new(&folder).join(format!("{page}_{place}.png"));
            let mut app = tersor(&["tiny", "--size", size, "--theme", theme]);
            assert!(app.args(args).arg("--picture").arg(&picture).status().unwrap().success(), "{page}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_screen_it_says_so() {
    let mut command = tersor(&[]);
    for name in ["DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: cannot open a window"), "{said}");
    assert!(said.contains("tersor help"), "{said}");
}
