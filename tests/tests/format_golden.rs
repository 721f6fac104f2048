//! Containers written by other people's software, read to the byte; and ours, byte-equal to theirs.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;

use serde_json::Value;
use tersor_engine::format::{
    Checkpoint, CheckpointWriter, Dtype, FormatError, GgmlType, GgufArray, GgufMetadata, GgufValue, Meta, TensorInfo,
    decode_f32,
};
use tersor_tests::checksum::{crc32, crc32_f32};
use tersor_tests::scratch;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/containers").join(name)
}

fn gguf_meta(checkpoint: &Checkpoint) -> &GgufMetadata {
    match checkpoint.meta() {
        Meta::Gguf(metadata) => metadata,
        other => panic!("not GGUF: {other:?}"),
    }
}

/// Compares every tensor of a golden file with what its script wrote down.
fn check_tensors(checkpoint: &Checkpoint, file: &str) {
    let expected: Value = serde_json::from_slice(&std::fs::read(golden("expected.json")).unwrap()).unwrap();
    let expected = expected[file].as_object().unwrap();
    assert_eq!(checkpoint.tensors().len(), expected.len());
    for (name, want) in expected {
        let (info, bytes) = checkpoint.tensor(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(Value::from(info.shape.clone()), want["shape"], "{name}");
        assert_eq!(Value::from(crc32(bytes)), want["crc"], "{name}");
        if let Some(dtype) = want["dtype"].as_str() {
            assert_eq!(info.dtype.name(), dtype, "{name}");
        }
        if let Some(crc) = want["crc_f32"].as_u64() {
            let values = decode_f32(info.dtype, bytes).unwrap();
            assert_eq!(u64::from(crc32_f32(&values)), crc, "{name}");
        }
    }
}

#[test]
fn toy_gguf() {
    let checkpoint = Checkpoint::open(&golden("toy.gguf")).unwrap();
    assert_eq!((checkpoint.name(), checkpoint.file_bytes()), ("toy.gguf", 352));
    let metadata = gguf_meta(&checkpoint);
    let keys: Vec<_> = metadata.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["general.architecture", "general.alignment", "toy.eps", "toy.list"]);
    assert_eq!(metadata.str("general.architecture"), Some("toy"));
    assert_eq!((metadata.f32("toy.eps"), metadata.u32("general.alignment")), (Some(1e-5), Some(32)));
    assert_eq!(metadata.strings("toy.list"), Some(&["a".to_owned(), "bc".to_owned()][..]));
    let (w, bytes) = checkpoint.tensor("w").unwrap();
    assert_eq!((&w.shape[..], w.dtype, w.offset()), (&[2, 32][..], Dtype::Ggml(GgmlType::Q4_0), 256));
    assert_eq!((bytes.len(), &bytes[..4]), (36, &[0x00, 0x2c, 0x81, 0xb4][..]));
    let (b, bytes) = checkpoint.tensor("b").unwrap();
    assert_eq!((&b.shape[..], b.offset()), (&[3][..], 320));
    assert_eq!(decode_f32(b.dtype, bytes), Some(vec![1.0, -2.5, 0.125]));
    assert!(checkpoint.tensor("c").is_none());
}

#[test]
fn every_gguf_value_and_type() {
    let checkpoint = Checkpoint::open(&golden("values.gguf")).unwrap();
    let metadata = gguf_meta(&checkpoint);
    let expected: [(&str, GgufValue); 17] = [
        ("v.u8", 200u8.into()),
        ("v.i8", (-100i8).into()),
        ("v.u16", 60000u16.into()),
        ("v.i16", (-30000i16).into()),
        ("v.u32", 4_000_000_000u32.into()),
        ("v.i32", (-2_000_000_000i32).into()),
        ("v.f32", 0.1f32.into()),
        ("v.bool", true.into()),
        ("v.str", "naïve 🦀".into()),
        ("v.u64", (i64::MAX as u64 + 2).into()),
        ("v.i64", i64::MIN.into()),
        ("v.f64", 0.1f64.into()),
        ("a.i32", GgufArray::I32(vec![1, -2, 3]).into()),
        ("a.f32", GgufArray::F32(vec![0.5, -0.25]).into()),
        ("a.bool", GgufArray::Bool(vec![true, false, true]).into()),
        ("a.str", GgufArray::Str(vec!["".into(), "é".into(), "\n".into()]).into()),
        ("a.u16", GgufArray::U16(vec![1, 65535]).into()),
    ];
    for (key, value) in expected {
        assert_eq!(metadata.get(key), Some(&value), "{key}");
    }
    check_tensors(&checkpoint, "values.gguf");
    assert!(checkpoint.tensors().iter().all(|info| info.offset() % 64 == 0));
}

#[test]
fn split_gguf_opens_from_any_part() {
    for name in ["split-00001-of-00002.gguf", "split-00002-of-00002.gguf"] {
        let checkpoint = Checkpoint::open(&golden(name)).unwrap();
        let names: Vec<_> = checkpoint.tensors().iter().map(|info| info.name.as_str()).collect();
        assert_eq!(names, ["part0", "part1"]);
        let (info, bytes) = checkpoint.tensor("part1").unwrap();
        assert_eq!(decode_f32(info.dtype, bytes), Some(vec![1.0; 4]));
        assert_eq!(gguf_meta(&checkpoint).u32("split.no"), Some(0));
    }
    let alone = std::fs::read(golden("split-00001-of-00002.gguf")).unwrap();
    let error = Checkpoint::from_files(vec![("split-00001-of-00002.gguf".into(), alone)]).unwrap_err();
    assert!(error.to_string().contains("split-00002-of-00002.gguf"), "{error}");
}

#[test]
fn toy_safetensors() {
    let bytes = std::fs::read(golden("toy.safetensors")).unwrap();
    let checkpoint = Checkpoint::from_files(vec![("dir/toy.safetensors".into(), bytes)]).unwrap();
    let names: Vec<_> = checkpoint.tensors().iter().map(|info| info.name.as_str()).collect();
    assert_eq!((names, checkpoint.name()), (vec!["a", "b"], "toy.safetensors"));
    let (a, bytes) = checkpoint.tensor("a").unwrap();
    assert_eq!((&a.shape[..], a.dtype), (&[2, 2][..], Dtype::I32));
    assert_eq!(decode_f32(a.dtype, bytes), Some(vec![1.0, 2.0, 3.0, 4.0]));
    let (b, bytes) = checkpoint.tensor("b").unwrap();
    assert_eq!(decode_f32(b.dtype, bytes), Some(vec![1.5, -2.0]));
    let Meta::HuggingFace { config, st_metadata, tokenizer_json: None, .. } = checkpoint.meta() else {
        panic!("not safetensors");
    };
    assert_eq!((config, &st_metadata["format"][..]), (&Value::Null, "pt"));
}

#[test]
fn every_safetensors_dtype() {
    let checkpoint = Checkpoint::open(&golden("dtypes.safetensors")).unwrap();
    check_tensors(&checkpoint, "dtypes.safetensors");
}

/// All tensors of a checkpoint, as the writer wants them.
fn announce(checkpoint: &Checkpoint) -> Vec<TensorInfo> {
    let tensors = checkpoint.tensors().iter();
    tensors.map(|info| TensorInfo::new(&info.name, info.shape.clone(), info.dtype).unwrap()).collect()
}

/// Writes the tensors of a checkpoint, last one first.
fn copy(checkpoint: &Checkpoint, mut writer: CheckpointWriter<Cursor<Vec<u8>>>) -> Vec<u8> {
    for info in checkpoint.tensors().iter().rev() {
        writer.write(&info.name, checkpoint.tensor(&info.name).unwrap().1).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn written_files_equal_those_of_the_reference_writers() {
    for name in ["toy.gguf", "values.gguf"] {
        let checkpoint = Checkpoint::open(&golden(name)).unwrap();
        let infos = announce(&checkpoint);
        let writer = CheckpointWriter::gguf(Cursor::default(), name, gguf_meta(&checkpoint), &infos).unwrap();
        assert!(copy(&checkpoint, writer) == std::fs::read(golden(name)).unwrap(), "{name} differs");
    }
    let checkpoint = Checkpoint::open(&golden("toy.safetensors")).unwrap();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let writer = CheckpointWriter::safetensors(Cursor::default(), "toy", &metadata, &announce(&checkpoint)).unwrap();
    assert!(copy(&checkpoint, writer) == std::fs::read(golden("toy.safetensors")).unwrap());
    // the reference writer has an order of its own among types of one size, so here only the contents are compared
    let checkpoint = Checkpoint::open(&golden("dtypes.safetensors")).unwrap();
    let writer = CheckpointWriter::safetensors(Cursor::default(), "d", &metadata, &announce(&checkpoint)).unwrap();
    let written = copy(&checkpoint, writer);
    check_tensors(&Checkpoint::from_files(vec![("d".into(), written)]).unwrap(), "dtypes.safetensors");
}

#[test]
fn a_hugging_face_folder() {
    let folder = scratch::folder("format_hf");
    let write = |name: &str, contents: &[u8]| std::fs::write(folder.path().join(name), contents).unwrap();
    for (shard, tensor) in [("model-00001-of-00002.safetensors", "x"), ("model-00002-of-00002.safetensors", "y")] {
        let info = TensorInfo::new(tensor, vec![2], Dtype::F32).unwrap();
        let path = folder.path().join(shard);
        let mut writer = CheckpointWriter::create_safetensors(&path, &BTreeMap::new(), &[info]).unwrap();
        writer.write(tensor, &[0; 8]).unwrap();
        assert!(!path.exists(), "the file must not be there before it is complete");
        writer.commit().unwrap();
    }
    write(
        "model.safetensors.index.json",
        br#"{"metadata": {"total_size": 16}, "weight_map": {"x": "model-00001-of-00002.safetensors",
            "y": "model-00002-of-00002.safetensors"}}"#,
    );
    write("config.json", br#"{"model_type": "llama"}"#);
    write("tokenizer.json", b"not parsed here");
    write("chat_template.jinja", b"{{ x }}");
    let index = folder.path().join("model.safetensors.index.json");
    for path in [folder.path(), &index] {
        let checkpoint = Checkpoint::open(path).unwrap();
        assert!(checkpoint.tensor("x").is_some() && checkpoint.tensor("y").is_some());
        let Meta::HuggingFace { config, generation: None, tokenizer_json, tokenizer_config, .. } = checkpoint.meta()
        else {
            panic!("not a Hugging Face folder");
        };
        assert_eq!(config["model_type"], "llama");
        assert_eq!(tokenizer_json.as_deref(), Some(&b"not parsed here"[..]));
        assert_eq!(tokenizer_config.as_ref().unwrap()["chat_template"], "{{ x }}");
    }
    // what a browser's folder upload hands over
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (format!("repo/{}", entry.file_name().to_str().unwrap()), std::fs::read(entry.path()).unwrap())
    });
    let checkpoint = Checkpoint::from_files(files.collect()).unwrap();
    assert_eq!(checkpoint.tensors().len(), 2);

    write("config.json", b"{\"model_type\": \n oops}");
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("byte 17"), "{error}");
}

#[test]
fn an_unfinished_file_leaves_nothing() {
    let folder = scratch::folder("format_unfinished");
    let path = folder.path().join("model.gguf");
    let info = TensorInfo::new("x", vec![2], Dtype::F32).unwrap();
    let mut writer = CheckpointWriter::create_gguf(&path, &GgufMetadata::new(), &[info]).unwrap();
    assert!(matches!(writer.write("x", &[0; 7]), Err(FormatError::Unwritable { .. })));
    assert!(matches!(writer.write("z", &[0; 8]), Err(FormatError::Unwritable { .. })));
    assert!(writer.commit().unwrap_err().to_string().contains("model.gguf"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn mistakes_are_explained() {
    let explain = |name: &str, bytes: &[u8]| {
        Checkpoint::from_files(vec![(name.to_owned(), bytes.to_owned())]).unwrap_err().to_string()
    };
    assert!(explain("m.gguf", b"version https://git-lfs.github.com/spec/v1").contains("git lfs pull"));
    assert!(explain("pytorch_model.bin", b"PK\x03\x04........").contains("zip archive"));
    assert!(explain("m.gguf", b"").contains("empty"));
    assert!(explain("m", b"12345678").contains("begins with"));
    let missing = Checkpoint::open(&golden("no such file")).unwrap_err().to_string();
    assert!(missing.contains("no such file") && missing.contains("cannot open it"), "{missing}");
    let ambiguous = Checkpoint::open(&golden("")).unwrap_err().to_string();
    assert!(ambiguous.contains("containers") && ambiguous.contains("name the one file"), "{ambiguous}");
}

#[test]
fn unsupported_types_are_named() {
    let toy = std::fs::read(golden("toy.gguf")).unwrap();
    // the type of tensor "w" follows its name, dimension count and two dimensions
    let at = toy.windows(13).position(|bytes| bytes == b"\x01\0\0\0\0\0\0\0w\x02\0\0\0").unwrap() + 13 + 16;
    assert_eq!(toy[at], 2);
    for (id, words) in [
        (16, ["IQ2_XXS", "lattice"]),
        (18, ["IQ3_XXS", "lattice"]),
        (29, ["IQ1_M", "lattice"]),
        (4, ["Q4_2", "removed"]),
        (33, ["Q4_0_8_8", "removed"]),
        (9, ["Q8_1", "activations"]),
        (77, ["type 77", "newer"]),
    ] {
        let mut file = toy.clone();
        file[at] = id;
        let error = Checkpoint::from_files(vec![("toy.gguf".into(), file)]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, FormatError::UnsupportedType { .. }), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(text.contains("toy.gguf") && text.contains("tensor \"w\"") && text.contains(&at.to_string()), "{text}");
    }
}
