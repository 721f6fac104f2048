//! Thousands of damaged and malicious model files, read under a memory cap and a clock (see `tersor_tests::hostile`): each
//! must give an error that names the file, or load with every tensor readable. Never a panic, a hang, or a huge allocation.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tersor_engine::codec;
use tersor_engine::format::{Checkpoint, Meta, decode_f32};
use tersor_tests::hostile::{Cage, bit_flips, in_a_cage, json_lies, lies, truncations, wounds};
use tersor_tests::scratch;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/containers").join(name);
    std::fs::read(path).expect("golden files are part of the repository")
}

/// Reads all that a checkpoint offers. What was accepted must keep its promises: a broken one is a panic.
fn read_everything(checkpoint: &Checkpoint) {
    let mut names = HashSet::new();
    for info in checkpoint.tensors() {
        assert!(names.insert(&info.name), "two tensors of one name");
        let (same, bytes) = checkpoint.tensor(&info.name).expect("a listed tensor can be read");
        assert_eq!(same, info);
        assert_eq!(info.dtype.byte_len(&info.shape), Ok(bytes.len() as u64));
        let sum = bytes.iter().fold(0u64, |sum, &byte| sum.wrapping_add(byte.into())); // touch the map's every page
        std::hint::black_box(sum);
        if let Some(values) = decode_f32(info.dtype, bytes) {
            assert_eq!(values.len() as u64, info.elements());
        }
        if let Ok(packed) = codec::import(info, bytes) {
            assert_eq!(packed.decode().len() as u64, info.elements());
        }
    }
    match checkpoint.meta() {
        Meta::Gguf(metadata) => {
            for (key, value) in metadata.iter() {
                assert_eq!(metadata.get(key).map(|same| same.type_name()), Some(value.type_name()));
            }
        }
        Meta::HuggingFace { config, .. } => {
            std::hint::black_box(config.to_string());
        }
    }
}

/// Opens a path and reads everything.
fn open(path: &Path) -> Result<(), String> {
    Checkpoint::open(path).map(|checkpoint| read_everything(&checkpoint)).map_err(|error| error.to_string())
}

/// What this reader accepts as safetensors, the format's own crate must accept, and find the same in it. (The crate is
/// laxer: of two tensors of one name it silently drops the first.)
fn agrees_with_the_reference(checkpoint: &Checkpoint, bytes: &[u8]) {
    let reference = safetensors::SafeTensors::deserialize(bytes).expect("the reference accepts what is accepted here");
    assert_eq!(reference.len(), checkpoint.tensors().len());
    for info in checkpoint.tensors() {
        let view = reference.tensor(&info.name).expect("the reference knows the tensor");
        let shape: Vec<u64> = view.shape().iter().map(|&dim| dim as u64).collect();
        assert_eq!((shape, view.dtype().to_string()), (info.shape.clone(), info.dtype.name().to_owned()));
        assert!(checkpoint.tensor(&info.name).is_some_and(|(_, bytes)| bytes == view.data()));
    }
}

/// One file as a map, and a small one as bytes too: both ways must agree.
fn single(cage: &mut Cage, path: &Path, label: &str, bytes: Vec<u8>) {
    let name = path.file_name().and_then(|name| name.to_str()).expect("the tests name their files");
    cage.case(label, name, || {
        std::fs::write(path, &bytes).expect("the scratch folder is writable");
        let mapped = open(path);
        if bytes.len() < 1 << 20 {
            let owned = Checkpoint::from_files(vec![(name.to_owned(), bytes.clone())]);
            assert_eq!(mapped.is_ok(), owned.is_ok());
            if let Ok(checkpoint) = owned {
                read_everything(&checkpoint);
                if let Meta::HuggingFace { .. } = checkpoint.meta() {
                    agrees_with_the_reference(&checkpoint, &bytes);
                }
            }
        }
        mapped
    });
}

fn gguf_string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// A GGUF file from raw pairs and tensor infos, with `counts` (tensors, pairs) as the header claims them.
fn gguf(counts: (u64, u64), pairs: &[u8], infos: &[u8], data: usize) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(counts.0.to_le_bytes());
    file.extend(counts.1.to_le_bytes());
    file.extend(pairs);
    file.extend(infos);
    file.resize(file.len().next_multiple_of(32) + data, 0);
    file
}

/// A raw tensor info of type F32.
fn gguf_info(name: &[u8], dims: &[u64], offset: u64) -> Vec<u8> {
    let mut info = gguf_string(name);
    info.extend((dims.len() as u32).to_le_bytes());
    info.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
    info.extend(0u32.to_le_bytes());
    info.extend(offset.to_le_bytes());
    info
}

/// A raw pair: the key, then type and value as given.
fn gguf_pair(key: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
    [&gguf_string(key)[..], &kind.to_le_bytes(), value].concat()
}

/// Files that no mutation of a small file finds.
fn crafted_gguf(mut run: impl FnMut(&str, Vec<u8>)) {
    const MANY: u64 = 1_000_000;
    const HALF: u64 = MANY / 2;
    let u8_pair = |key: &str| gguf_pair(key.as_bytes(), 0, &[7]);
    let equal: Vec<u8> = u8_pair("again").repeat(MANY as usize);
    run("a million equal keys", gguf((0, MANY), &equal, &[], 0));
    let distinct: Vec<u8> = (0..HALF).flat_map(|i| u8_pair(&i.to_string())).collect();
    run("half a million keys", gguf((0, HALF), &distinct, &[], 0));
    let equal = gguf_info(b"again", &[0], 0).repeat(MANY as usize);
    run("a million equal tensors", gguf((MANY, 0), &[], &equal, 0));
    let distinct: Vec<u8> = (0..HALF).flat_map(|i| gguf_info(i.to_string().as_bytes(), &[0], 0)).collect();
    run("half a million empty tensors", gguf((HALF, 0), &[], &distinct, 0));
    let strings = [&8u32.to_le_bytes()[..], &(4 * MANY).to_le_bytes(), &vec![0; 32 * MANY as usize]].concat();
    run("four million empty strings", gguf((0, 1), &gguf_pair(b"tokens", 9, &strings), &[], 0));
    run("a string of 64 MiB", gguf((0, 1), &gguf_pair(b"text", 8, &gguf_string(&vec![b'x'; 64 << 20])), &[], 0));
    run("a key of 64 MiB", gguf((0, 1), &gguf_pair(&vec![b'x'; 64 << 20], 0, &[0]), &[], 0));
    let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(100_000);
    run("arrays nested 100,000 deep", gguf((0, 1), &gguf_pair(b"deep", 9, &nested), &[], 0));
    for count in [1 << 20, 1 << 40, 1 << 61, u64::MAX] {
        for kind in 0..=13u32 {
            let array = [&kind.to_le_bytes()[..], &count.to_le_bytes(), &[0; 64]].concat();
            run(&format!("an array of {count} of type {kind}"), gguf((0, 1), &gguf_pair(b"a", 9, &array), &[], 0));
        }
        run(&format!("{count} pairs"), gguf((0, count), &[], &[], 64));
        run(&format!("{count} tensors"), gguf((count, 0), &[], &[], 64));
    }
    for alignment in [0, 1, 3, 8, 1 << 16, 1 << 31, u32::MAX] {
        let pair = gguf_pair(b"general.alignment", 4, &alignment.to_le_bytes());
        run(&format!("alignment {alignment}"), gguf((1, 1), &pair, &gguf_info(b"t", &[4], 0), 64));
    }
    run("alignment of type u64", gguf((0, 1), &gguf_pair(b"general.alignment", 10, &[0; 8]), &[], 0));
    let two = |a: (u64, u64), b: (u64, u64)| [gguf_info(b"a", &[a.0], a.1), gguf_info(b"b", &[b.0], b.1)].concat();
    run("overlapping tensors", gguf((2, 0), &[], &two((16, 0), (8, 32)), 64));
    run("tensors in reverse order", gguf((2, 0), &[], &two((8, 32), (8, 0)), 64));
    run("a hole between tensors", gguf((2, 0), &[], &two((8, 0), (8, 64)), 96));
    run("an empty tensor beyond the end", gguf((2, 0), &[], &two((0, 1 << 60), (8, 0)), 32));
    for dims in [
        &[1 << 31, 1 << 31, 4][..],
        &[u64::MAX],
        &[1 << 62, 0],
        &[1 << 60, 0],
        &[1 << 40, 0],
        &[1 << 31, 0],
        &[0, 1 << 62],
        &[0, 1 << 31],
        &[1 << 32, 1 << 32, 0],
        &[1; 5],
        &[8; 9],
    ] {
        run(&format!("dimensions {dims:?}"), gguf((1, 0), &[], &gguf_info(b"t", dims, 0), 64));
    }
    for name in [&b""[..], b"\xff\xfe", b"\x1b[2J\n\0", b"../../etc/passwd", &[b'n'; 70_000]] {
        run("a strange tensor name", gguf((1, 0), &[], &gguf_info(name, &[4], 0), 64));
        run("a strange key", gguf((0, 1), &gguf_pair(name, 0, &[0]), &[], 0));
    }
    for count in [2u16, u16::MAX] {
        let pairs = [gguf_pair(b"split.no", 2, &[0, 0]), gguf_pair(b"split.count", 2, &count.to_le_bytes())].concat();
        run("a part without its siblings", gguf((0, 2), &pairs, &[], 0));
    }
}

#[test]
fn hostile_gguf() {
    in_a_cage("hostile_gguf", 6000, |cage| {
        let folder = scratch::folder("hostile_gguf");
        let path = folder.path().join("victim.gguf");
        let (toy, values) = (golden("toy.gguf"), golden("values.gguf"));
        let mut run = |label: &str, bytes| single(cage, &path, label, bytes);
        run("untouched", toy.clone());
        run("untouched", values.clone());
        truncations(&toy, 1, |label, bytes| run(&label, bytes));
        truncations(&values, 61, |label, bytes| run(&label, bytes));
        bit_flips(&toy, toy.len(), |label, bytes| run(&label, bytes));
        lies(&toy, 256, 1, |label, bytes| run(&label, bytes));
        lies(&values, 2048, 7, |label, bytes| run(&label, bytes));
        wounds(&toy, 1000, |label, bytes| run(&label, bytes));
        wounds(&values[..3072], 500, |label, bytes| run(&label, bytes));
        crafted_gguf(run);
    });
}

/// A safetensors file from the text of its header.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = Vec::from((header.len() as u64).to_le_bytes());
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// Files that no mutation of a small file finds.
fn crafted_safetensors(mut run: impl FnMut(&str, Vec<u8>)) {
    const MANY: usize = 1_000_000;
    const HALF: usize = MANY / 2;
    let empty = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    let header = |entries: &str| format!("{{{entries}}}");
    run("no tensors", safetensors("{}", 0));
    run("no tensors but data", safetensors("{}", 8));
    run("padding before the end", safetensors("{}                      ", 0));
    run("80 MB of padding", safetensors(&format!("{{}}{}", " ".repeat(80_000_000)), 0));
    run("a header over the limit", safetensors(&format!("{{}}{}", " ".repeat(100_000_001)), 0));
    run("a million equal names", safetensors(&header(&vec![format!("\"again\":{empty}"); MANY].join(",")), 0));
    let distinct: Vec<_> = (0..HALF).map(|i| format!("\"{i}\":{empty}")).collect();
    run("half a million empty tensors", safetensors(&header(&distinct.join(",")), 0));
    let metadata = |pairs: &str| safetensors(&format!("{{\"__metadata__\":{pairs}}}"), 0);
    run("a million equal metadata keys", metadata(&header(&vec!["\"k\":\"v\""; MANY].join(","))));
    let distinct: Vec<_> = (0..HALF).map(|i| format!("\"{i}\":\"\"")).collect();
    run("half a million metadata keys", metadata(&header(&distinct.join(","))));
    run("60 MB of metadata", metadata(&format!("{{\"k\":\"{}\"}}", "x".repeat(60_000_000))));
    run("nested metadata", metadata(r#"{"a":{"b":"c"}}"#));
    run("metadata that is a list", metadata("[]"));
    run("two metadata", safetensors(r#"{"__metadata__":{},"__metadata__":{}}"#, 0));
    for bracket in ["[", "{\"a\":"] {
        let deep = bracket.repeat(1_000_000);
        run("deep nesting at the top", safetensors(&deep, 0));
        run("deep nesting in a tensor", safetensors(&format!("{{\"t\":{deep}"), 0));
        run("deep nesting in an unknown field", safetensors(&format!("{{\"t\":{{\"x\":{deep}"), 0));
        run("deep nesting in a shape", safetensors(&format!("{{\"t\":{{\"shape\":{deep}"), 0));
        run("deep nesting in metadata", metadata(&deep));
    }
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!("\"t\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}")
    };
    let endless = format!("[{}1]", "1,".repeat(MANY));
    for (dtype, shape, offsets) in [
        ("U8", &endless[..], "[0,1]"),
        ("U8", "[4294967296,4294967296]", "[0,0]"),
        ("U8", "[9223372036854775808]", "[0,9223372036854775808]"),
        ("F64", "[2305843009213693952]", "[0,0]"),
        ("U8", "[0,18446744073709551615]", "[0,0]"),
        ("U8", "[18446744073709551615]", "[1,18446744073709551615]"),
        ("F32", "[0,4611686018427387904]", "[0,0]"),
        ("F32", "[4611686018427387904,0]", "[0,0]"),
        ("BF16", "[1073741824,0]", "[0,0]"),
        ("U8", "[8]", "[8,0]"),
        ("U8", "[8]", "[0,8,9]"),
        ("U8", "[8]", "[0]"),
        ("U8", "[8]", "[0,9]"),
        ("F4", "[8]", "[0,4]"),
        ("Q4_0", "[32]", "[0,18]"),
        ("\\ud800", "[8]", "[0,8]"),
    ] {
        run(&format!("{dtype} at {offsets}"), safetensors(&header(&tensor(dtype, shape, offsets)), 8));
    }
    let two = |a: &str, b: &str| {
        let entry =
            |name: &str, at: &str| format!("\"{name}\":{{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":{at}}}");
        safetensors(&format!("{{{},{}}}", entry("a", a), entry("b", b)), 16)
    };
    run("tensors in reverse order", two("[8,16]", "[0,8]"));
    run("overlapping tensors", two("[0,8]", "[4,12]"));
    run("the same bytes twice", two("[0,8]", "[0,8]"));
    run("a hole", two("[0,8]", "[16,24]"));
}

#[test]
fn hostile_safetensors() {
    in_a_cage("hostile_safetensors", 5000, |cage| {
        let folder = scratch::folder("hostile_safetensors");
        let path = folder.path().join("victim.safetensors");
        let (toy, dtypes) = (golden("toy.safetensors"), golden("dtypes.safetensors"));
        let mut run = |label: &str, bytes| single(cage, &path, label, bytes);
        run("untouched", toy.clone());
        run("untouched", dtypes.clone());
        truncations(&toy, 1, |label, bytes| run(&label, bytes));
        truncations(&dtypes, 19, |label, bytes| run(&label, bytes));
        bit_flips(&toy, toy.len(), |label, bytes| run(&label, bytes));
        bit_flips(&dtypes, 200, |label, bytes| run(&label, bytes));
        lies(&toy, 16, 1, |label, bytes| run(&label, bytes));
        wounds(&toy, 1000, |label, bytes| run(&label, bytes));
        wounds(&dtypes, 500, |label, bytes| run(&label, bytes));
        for file in [&toy, &dtypes] {
            let data_start = 8 + usize::from(file[0]) + 256 * usize::from(file[1]);
            let header = str::from_utf8(&file[8..data_start]).expect("a golden header is text");
            json_lies(header, |label, json| {
                let mut bytes = safetensors(&json, 0);
                bytes.extend(&file[data_start..]);
                run(&label, bytes);
            });
        }
        crafted_safetensors(run);
    });
}

const INDEX: &str = "model.safetensors.index.json";

/// A sharded model in `folder`, and the text of its index.
fn sharded(folder: &Path) -> String {
    for tensor in ["x", "y"] {
        let header = format!(r#"{{"{tensor}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#);
        std::fs::write(folder.join(format!("{tensor}.safetensors")), safetensors(&header, 8))
            .expect("the scratch folder is writable");
    }
    r#"{"metadata": {"total_size": 16}, "weight_map": {"x": "x.safetensors", "y": "y.safetensors"}}"#.to_owned()
}

#[test]
fn hostile_shard_index() {
    in_a_cage("hostile_shard_index", 2000, |cage| {
        let outer = scratch::folder("hostile_index");
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder).expect("the scratch folder is writable");
        let index = sharded(&folder);
        let mut run = |label: &str, json: &[u8]| {
            cage.case(label, "model", || {
                std::fs::write(folder.join(INDEX), json).expect("the scratch folder is writable");
                open(&folder)
            });
        };
        run("untouched", index.as_bytes());
        truncations(index.as_bytes(), 1, |label, json| run(&label, &json));
        bit_flips(index.as_bytes(), index.len(), |label, json| run(&label, &json));
        wounds(index.as_bytes(), 1500, |label, json| run(&label, &json));
        json_lies(&index, |label, json| run(&label, json.as_bytes()));
        let map = |entries: &[String]| format!("{{\"weight_map\":{{{}}}}}", entries.join(","));
        let equal = vec!["\"x\":\"x.safetensors\"".to_owned(); 500_000];
        run("half a million equal entries", map(&equal).as_bytes());
        let absent: Vec<_> = (0..200_000).map(|i| format!("\"{i}\":\"x.safetensors\"")).collect();
        run("tensors that are not there", map(&absent).as_bytes());
        let shards: Vec<_> = (0..200_000).map(|i| format!("\"{i}\":\"{i}.safetensors\"")).collect();
        run("shards that are not there", map(&shards).as_bytes());
        run("deep nesting", "{\"weight_map\":{\"x\":".repeat(500_000).as_bytes());
        run("deep nesting elsewhere", format!("{{\"metadata\":{}", "[".repeat(1_000_000)).as_bytes());
        run("a huge index", format!("{{{}}}", " ".repeat(100_000_001)).as_bytes());
        run("no tensors", map(&[]).as_bytes());
    });
}

#[test]
fn shards_stay_in_their_folder() {
    in_a_cage("shards_stay_in_their_folder", 20, |cage| {
        let outer = scratch::folder("hostile_shards");
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder).expect("the scratch folder is writable");
        sharded(&folder);
        sharded(outer.path()); // good files, but where no index may lead
        std::fs::create_dir(folder.join("folder.safetensors")).expect("the scratch folder is writable");
        let outside = outer.path().join("x.safetensors").display().to_string();
        for shard in [
            "../x.safetensors",
            "./../x.safetensors",
            "model/../../x.safetensors",
            "..\\\\x.safetensors",
            "\\u002e./x.safetensors",
            "C:\\\\x.safetensors",
            "C:x.safetensors",
            &outside,
            "/dev/zero",
            "/dev/zero.safetensors",
            "folder.safetensors",
            "folder.safetensors/x.safetensors",
            "model.safetensors.index.json",
            "x.safetensors\\u0000",
            "\\u0000.safetensors",
            "loop.safetensors",
            "pipe.safetensors",
            "zero.safetensors",
            ".safetensors",
            "..",
            ".",
            "",
            &format!("{}.safetensors", "x".repeat(5000)),
        ] {
            #[cfg(unix)]
            special_files(&folder);
            cage.case(&format!("shard {shard}"), "model", || {
                let json = format!(r#"{{"weight_map":{{"x":"{shard}"}}}}"#);
                std::fs::write(folder.join(INDEX), json).expect("the scratch folder is writable");
                let result = open(&folder);
                assert!(result.is_err(), "an index led to {shard}");
                result
            });
        }
        let json = r#"{"weight_map":{"x":"x.safetensors"}}"#;
        std::fs::write(folder.join(INDEX), json).expect("the scratch folder is writable");
        cage.case("a good index", "model", || open(&folder));
    });
}

/// Names in `folder` that are no regular files: a link to itself, a pipe nobody writes to, an endless device.
#[cfg(unix)]
fn special_files(folder: &Path) {
    let make = |program: &str, args: &[&str]| {
        let _ = std::process::Command::new(program).args(args).current_dir(folder).output(); // absent is as good
    };
    make("ln", &["-sfn", "loop.safetensors", "loop.safetensors"]);
    make("mkfifo", &["pipe.safetensors"]);
    make("ln", &["-sfn", "/dev/zero", "zero.safetensors"]);
}

#[test]
fn hostile_side_files() {
    in_a_cage("hostile_side_files", 1000, |cage| {
        let folder = scratch::folder("hostile_side_files");
        std::fs::write(folder.path().join("model.safetensors"), golden("toy.safetensors"))
            .expect("the scratch folder is writable");
        let config = r#"{"model_type": "llama", "hidden_size": 64, "rope_scaling": {"factor": 8.0}, "eos": [1, 2]}"#;
        for name in ["config.json", "generation_config.json", "tokenizer_config.json"] {
            let mut run = |label: &str, json: &[u8]| {
                cage.case(&format!("{name}: {label}"), name, || {
                    std::fs::write(folder.path().join(name), json).expect("the scratch folder is writable");
                    open(folder.path())
                });
            };
            wounds(config.as_bytes(), 300, |label, json| run(&label, &json));
            json_lies(config, |label, json| run(&label, json.as_bytes()));
            run("deep nesting", "[".repeat(1_000_000).as_bytes());
            run("four million numbers", format!("[{}0]", "0,".repeat(4_000_000)).as_bytes());
            run("too large", " ".repeat(9 << 20).as_bytes());
            run("not text", b"\xff\xfe{\0}\0");
            std::fs::remove_file(folder.path().join(name)).expect("the file was just written");
        }
        for (name, json) in [("chat_template.jinja", &b"\xff"[..]), ("chat_template.jinja", b"{{ x }}")] {
            cage.case(name, name, || {
                std::fs::write(folder.path().join(name), json).expect("the scratch folder is writable");
                open(folder.path())
            });
        }
    });
}
