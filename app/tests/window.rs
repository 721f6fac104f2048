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
