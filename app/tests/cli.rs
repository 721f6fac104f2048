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

#[test]
fn a_model_is_compressed_into_one_file_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.safetensors");
    let path = path.to_str().unwrap();
    let output = tersor(&["compress", "tiny", "--as", "nf4", "-o", path, "--json", "-"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text[text.find("\n{").unwrap()..]).unwrap();
    assert_eq!((json["schema"].as_str(), json["recipe"].as_str()), (Some("tersor.compress/1"), Some("nf4:block=64")));
    assert_eq!(json["output_bytes"], std::fs::metadata(path).unwrap().len());

    let back = tersor(&["inspect", path]);
    let text = String::from_utf8(back.stdout).unwrap();
    assert!(text.contains("3.2 M parameters") && text.contains("nf4:block=64") && !text.contains("codec"), "{text}");

    let again = tersor(&["compress", path, "--as", "q8_0", "-o", path]);
    assert!(stderr(&again).contains("part of the model that is read"), "{}", stderr(&again));
    let gguf = folder.path().join("tiny.gguf");
    let gguf = tersor(&["compress", "tiny", "--as", "q8_0", "-o", gguf.to_str().unwrap()]);
    assert!(stderr(&gguf).contains("write .safetensors"), "{}", stderr(&gguf));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "what failed left nothing");
}
