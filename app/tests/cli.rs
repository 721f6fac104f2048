//! The program from outside: what it prints, where, and how it exits. Needs no GPU and no network.

use std::process::{Command, Output, Stdio};

fn tersor(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tersor")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_embedded_model_is_described_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.json");
    let output = tersor(&["inspect", "tiny", "--json", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).is_empty(), "no progress without a terminal: {}", stderr(&output));
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(json["schema"], "tersor.inspect/1");
    assert_eq!(json["model"]["parameters"], 3_221_760);
    assert_eq!(json["model"]["architecture"], "llama");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("model.layers.3.self_attn.q_proj.weight"), "{text}");
}

#[test]
fn statistics_of_a_tensor_are_those_of_its_values() {
    let output = tersor(&["inspect", "tiny", "--tensor", "model.norm.weight"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("[256] BF16, 512 B") && text.contains("standard deviation"), "{text}");
}

#[test]
fn errors_are_one_sentence_with_a_remedy_and_exit_codes_tell_what_kind() {
    let unknown = tersor(&["inspect", "tiny", "--tensor", "model.norm.weigh"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("did you mean \"model.norm.weight\"?"), "{}", stderr(&unknown));
    assert!(unknown.stdout.is_empty());

    let wrong = tersor(&["inspect"]);
    assert_eq!(wrong.status.code(), Some(2));

    let recipe = tersor(&["compress", "tiny", "--as", "absent.toml", "-o", "x.gguf"]);
    assert_eq!(recipe.status.code(), Some(1));
    assert!(stderr(&recipe).contains("cannot read the recipe absent.toml"), "{}", stderr(&recipe));
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tersor"))
        .args(["inspect", "tiny"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
}
