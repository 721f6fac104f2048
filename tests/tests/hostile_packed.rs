//! Damaged and malicious files of the kind that `tersor compress` writes: the list of packed tensors, their planes, and the
//! model's files embedded in a safetensors header. Each must give an error that names the file, or load with every tensor
//! decodable (see `tersor_tests::hostile`).

use std::collections::BTreeMap;
use std::io::Cursor;

use tersor_engine::codec::{self, PACKED_KEY, PackedList, Stored};
use tersor_engine::format::{
    CHECKSUMS_KEY, Checkpoint, CheckpointWriter, Checksums, Dtype, GgufMetadata, Meta, TensorInfo, embed,
};
use tersor_tests::hostile::{Cage, bit_flips, in_a_cage, json_lies, truncations, wounds};

const NAME: &str = "victim.safetensors";

/// A file with metadata and seven tensors: in NF4 with double quantization, in Q4_K, two entropy-coded ones, two with outliers, and a
/// plain one.
fn file(entries: &BTreeMap<String, String>) -> Vec<u8> {
    let (places, planes) = tensors(&mut PackedList::default());
    let mut writer = CheckpointWriter::safetensors(Cursor::new(Vec::new()), NAME, entries, &places)
        .expect("the places are in order");
    for (place, bytes) in places.iter().zip(planes) {
        writer.write(&place.name, &bytes).expect("planes have the length of their places");
    }
    writer.finish().expect("memory is writable").into_inner()
}

/// Places and bytes of the tensors; `list` learns of the packed ones.
fn tensors(list: &mut PackedList) -> (Vec<TensorInfo>, Vec<Vec<u8>>) {
    let (mut places, mut planes) = (Vec::new(), Vec::new());
    for (name, codec, rows, cols) in [
        ("a", "nf4:block=32", 5, 96),
        ("b", "q4_k", 2, 256),
        ("c", "entropy:bf16", 3, 37),
        ("d", "entropy:uniform:bits=4,group=32", 2, 160),
        ("e", "spqr:outliers=5", 20, 64),
        ("f", "spqr:outliers=5,published", 17, 32),
    ] {
        let codec = codec::parse(codec).expect("a codec's spelling");
        let weights: Vec<f32> = (0..rows * cols).map(|i| (i as f32).sin()).collect();
        let packed = codec.encode(&weights, rows, cols).expect("the weights are finite");
        let lengths: Vec<u64> = packed.planes.iter().map(|plane| plane.data.len() as u64).collect();
        places.extend(list.add(name, &[rows as u64, cols as u64], &codec, &lengths).expect("a small shape"));
        planes.extend(packed.planes.iter().map(|plane| bytemuck::cast_slice(&plane.data).to_vec()));
    }
    places.push(TensorInfo::new("norm", vec![2], Dtype::F32).expect("a small shape"));
    planes.push(vec![0; 8]);
    (places, planes)
}

/// The list of the packed tensors in [`file`].
fn list() -> String {
    let mut list = PackedList::default();
    tensors(&mut list);
    list.metadata().expect("four tensors are packed")
}

fn entries(list: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(PACKED_KEY.to_owned(), list.to_owned())])
}

/// Opens a file and decodes everything in it.
fn run(cage: &mut Cage, label: &str, bytes: Vec<u8>) {
    cage.case(label, NAME, || {
        let checkpoint = Checkpoint::from_files(vec![(NAME.to_owned(), bytes)]).map_err(|error| error.to_string())?;
        let stored = Stored::of(&checkpoint).map_err(|error| error.to_string())?;
        for tensor in stored.tensors() {
            let found = stored.tensor(&tensor.name).expect("a listed tensor is found by its name");
            assert_eq!(found.shape, tensor.shape);
            if let Ok(packed) = stored.load(&tensor.name) {
                let packed = packed.expect("a listed tensor is there");
                assert_eq!(packed.decode().len() as u64, tensor.elements());
            }
        }
        Ok(())
    });
}

#[test]
fn hostile_packed_lists() {
    in_a_cage("hostile_packed_lists", 3000, |cage| {
        let list = list();
        let mut run = |label: &str, list: &[u8]| {
            if let Ok(list) = str::from_utf8(list) {
                run(cage, label, file(&entries(list)));
            }
        };
        run("untouched", list.as_bytes());
        truncations(list.as_bytes(), 1, |label, list| run(&label, &list));
        bit_flips(list.as_bytes(), list.len(), |label, list| run(&label, &list));
        wounds(list.as_bytes(), 2000, |label, list| run(&label, &list));
        json_lies(&list, |label, list| run(&label, list.as_bytes()));
        let spellings = [
            "f32",
            "bf16",
            "q8_0",
            "q6_k",
            "tq1_0",
            "nvfp4",
            "q1_0",
            "uniform:bits=5,group=16",
            "fp4:block=4096",
            "entropy:bf16",
            "entropy:nf4",
        ];
        let dims = [0, 1, 32, 96, 256, 0xffff_ffff, 1 << 32, 1 << 61, (1 << 63) - 256, u64::MAX - 255, u64::MAX];
        for codec in spellings {
            for rows in dims {
                for cols in dims {
                    let list =
                        format!(r#"{{"version":1,"tensors":{{"a":{{"codec":"{codec}","shape":[{rows},{cols}]}}}}}}"#);
                    run(&format!("{codec} of {rows} x {cols}"), list.as_bytes());
                }
            }
        }
        let many: Vec<String> = (0..100_000).map(|i| format!(r#""t{i}":{{"codec":"f32","shape":[1]}}"#)).collect();
        run("many tensors", format!(r#"{{"version":1,"tensors":{{{}}}}}"#, many.join(",")).as_bytes());
        let dims = vec!["1"; 1_000_000].join(",");
        run(
            "many dimensions",
            format!(r#"{{"version":1,"tensors":{{"a":{{"codec":"f32","shape":[{dims}]}}}}}}"#).as_bytes(),
        );
        run("deep", "[".repeat(1_000_000).as_bytes());
    });
}

#[test]
fn hostile_packed_files() {
    in_a_cage("hostile_packed_files", 2000, |cage| {
        let file = file(&entries(&list()));
        let mut run = |label: &str, bytes| run(cage, label, bytes);
        run("untouched", file.clone());
        truncations(&file, 7, |label, bytes| run(&label, bytes));
        bit_flips(&file, 200, |label, bytes| run(&label, bytes));
        wounds(&file, 1000, |label, bytes| run(&label, bytes));
    });
}

#[test]
fn hostile_checksums() {
    in_a_cage("hostile_checksums", 1500, |cage| {
        let (places, planes) = tensors(&mut PackedList::default());
        let mut checksums = Checksums::default();
        for (place, bytes) in places.iter().zip(&planes) {
            checksums.add(&place.name, bytes);
        }
        let good = checksums.metadata();
        let with = |list: &str| {
            let mut entries = entries(&self::list());
            entries.insert(CHECKSUMS_KEY.to_owned(), list.to_owned());
            file(&entries)
        };
        let mut lie = |label: &str, list: &[u8]| {
            if let Ok(list) = str::from_utf8(list) {
                run(cage, label, with(list));
            }
        };
        lie("untouched", good.as_bytes());
        truncations(good.as_bytes(), 1, |label, list| lie(&label, &list));
        bit_flips(good.as_bytes(), good.len(), |label, list| lie(&label, &list));
        wounds(good.as_bytes(), 1000, |label, list| lie(&label, &list));
        json_lies(&good, |label, list| lie(&label, list.as_bytes()));
        let file = with(&good);
        bit_flips(&file, 300, |label, bytes| run(cage, &format!("file with checksums, {label}"), bytes));
    });
}

#[test]
fn hostile_embedded_headers() {
    in_a_cage("hostile_embedded_headers", 2000, |cage| {
        let mut metadata = GgufMetadata::new();
        metadata.set("general.architecture", "llama".to_owned());
        metadata.set("llama.block_count", 30u32);
        let good = embed(&Meta::Gguf(metadata)).expect("metadata that can be written");
        let base64 = good["tersor.file.header.gguf"].clone();
        let mut embedded = |label: &str, name: &str, value: &[u8]| {
            if let Ok(value) = str::from_utf8(value) {
                let mut entries = entries(&list());
                entries.insert(format!("tersor.file.{name}"), value.to_owned());
                run(cage, label, file(&entries));
            }
        };
        let mut header = |label: &str, value: &[u8]| embedded(label, "header.gguf", value);
        header("untouched", base64.as_bytes());
        truncations(base64.as_bytes(), 1, |label, value| header(&label, &value));
        bit_flips(base64.as_bytes(), base64.len(), |label, value| header(&label, &value));
        wounds(base64.as_bytes(), 1500, |label, value| header(&label, &value));
        for name in
            ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "../config.json"]
        {
            for value in ["", "{", "null", "7", "[]", "{\"model_type\":7}", &"[".repeat(100_000)] {
                embedded(&format!("{name} is {value:.20}"), name, value.as_bytes());
            }
        }
    });
}
