//! Files that are read piece by piece, as browsers have them: the same model, and no more of it in memory than was asked for.

use std::collections::BTreeMap;
use std::io::{Cursor, Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tersor_engine::format::{ByteSource, Checkpoint, CheckpointWriter, Dtype, GgufMetadata, TensorInfo};

/// A file that says how much of it was read, and that can become unreadable.
#[derive(Clone, Default)]
struct Watched {
    bytes: Arc<Vec<u8>>,
    read: Arc<AtomicU64>,
    gone: Arc<AtomicBool>,
}

impl ByteSource for Watched {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Error::other("the file is gone"));
        }
        let start = offset as usize;
        out.copy_from_slice(&self.bytes[start..start + out.len()]);
        self.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

const LARGE: u64 = 32 << 20;

/// Two tensors, of which the second is large.
fn tensors() -> Vec<TensorInfo> {
    let info = |name, words| TensorInfo::new(name, vec![words], Dtype::F32).unwrap();
    vec![info("small", 3), info("large", LARGE / 4)]
}

fn fill<W: std::io::Write + std::io::Seek>(mut writer: CheckpointWriter<W>) -> W {
    writer.write("small", &[7; 12]).unwrap();
    writer.write("large", &vec![9; LARGE as usize]).unwrap();
    writer.finish().unwrap()
}

fn check(name: &str, bytes: Vec<u8>, header: u64) {
    let file = Watched { bytes: Arc::new(bytes), ..Watched::default() };
    let open = |file: &Watched| Checkpoint::from_sources(vec![(name.to_owned(), Box::new(file.clone()))]);
    let checkpoint = open(&file).unwrap();
    let opening = file.read.swap(0, Ordering::Relaxed);
    assert!(opening < 3 * header + (9 << 20), "{name}: {opening} bytes were read to open it");
    let (info, bytes) = checkpoint.read("small").unwrap().unwrap();
    assert_eq!((info.byte_len(), &bytes[..]), (12, &[7; 12][..]));
    assert_eq!(file.read.load(Ordering::Relaxed), 12, "{name}: a tensor is read alone");
    assert_eq!(checkpoint.read("large").unwrap().unwrap().1.len() as u64, LARGE);
    assert!(checkpoint.read("none").unwrap().is_none());
    assert_eq!(checkpoint.file_bytes(), file.bytes.len() as u64);

    // A file that was deleted under the reader is an error that names it.
    file.gone.store(true, Ordering::Relaxed);
    let error = checkpoint.read("small").unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("the file is gone"), "{error}");

    // A file that is cut off is refused without reading on.
    let mut cut = file.bytes[..file.bytes.len() - 1].to_vec();
    let file = Watched { bytes: Arc::new(std::mem::take(&mut cut)), ..Watched::default() };
    assert!(open(&file).is_err());
    let read = file.read.load(Ordering::Relaxed);
    assert!(read < 3 * header + (9 << 20), "{name}: {read} bytes were read of a file that is cut off");
}

#[test]
fn safetensors_are_read_a_tensor_at_a_time() {
    for header in [10, 6 << 20] {
        let note = BTreeMap::from([("note".to_owned(), "x".repeat(header))]);
        let writer = CheckpointWriter::safetensors(Cursor::new(Vec::new()), "m", &note, &tensors()).unwrap();
        check("m.safetensors", fill(writer).into_inner(), header as u64);
    }
}

#[test]
fn gguf_is_read_a_tensor_at_a_time() {
    for header in [10, 6 << 20] {
        let mut metadata = GgufMetadata::new();
        metadata.set("general.architecture", "llama".to_owned());
        metadata.set("note", "x".repeat(header));
        let writer = CheckpointWriter::gguf(Cursor::new(Vec::new()), "m", &metadata, &tensors()).unwrap();
        check("m.gguf", fill(writer).into_inner(), header as u64);
    }
}
