//! Models with other numbers in their tensors.

use std::io::Cursor;

use tersor_engine::format::{Checkpoint, CheckpointWriter, Dtype, Meta, TensorInfo, decode_f32, embed};

/// A model of plain floats, in f32, with its tensors changed by `change` (name, row-major shape, values).
///
/// # Panics
/// If it has tensors that are no floats.
pub fn rewritten(checkpoint: &Checkpoint, mut change: impl FnMut(&str, &[usize], &mut [f32])) -> Checkpoint {
    let mut tensors = Vec::new();
    for info in checkpoint.tensors() {
        let (_, bytes) = checkpoint.tensor(&info.name).unwrap();
        let mut values = decode_f32(info.dtype, bytes).unwrap_or_else(|| panic!("{} is no float", info.name));
        let shape: Vec<usize> = info.shape.iter().map(|n| *n as usize).collect();
        change(&info.name, &shape, &mut values);
        let info = TensorInfo::new(info.name.clone(), info.shape.clone(), Dtype::F32).unwrap();
        tensors.push((info, values));
    }
    let infos: Vec<TensorInfo> = tensors.iter().map(|(info, _)| info.clone()).collect();
    let entries = embed(checkpoint.meta()).unwrap();
    let out = Cursor::new(Vec::new());
    let mut writer = CheckpointWriter::safetensors(out, "m.safetensors", &entries, &infos).unwrap();
    for (info, values) in &tensors {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        writer.write(&info.name, &bytes).unwrap();
    }
    let bytes = writer.finish().unwrap().into_inner();
    Checkpoint::from_files(vec![("m.safetensors".to_owned(), bytes)]).unwrap()
}

/// A model of safetensors with other metadata.
///
/// # Panics
/// If it cannot be written.
pub fn with_meta(checkpoint: &Checkpoint, change: impl FnOnce(&mut Meta)) -> Checkpoint {
    let mut meta = checkpoint.meta().clone();
    change(&mut meta);
    written(checkpoint, &meta, None)
}

/// A model of safetensors with one more tensor of U32.
///
/// # Panics
/// If it cannot be written.
pub fn with_words(checkpoint: &Checkpoint, name: &str, shape: [u64; 2], words: &[u32]) -> Checkpoint {
    let info = TensorInfo::new(name, shape.to_vec(), Dtype::U32).unwrap();
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    written(checkpoint, checkpoint.meta(), Some((info, bytes)))
}

fn written(checkpoint: &Checkpoint, meta: &Meta, more: Option<(TensorInfo, Vec<u8>)>) -> Checkpoint {
    let infos: Vec<TensorInfo> =
        checkpoint.tensors().iter().chain(more.as_ref().map(|(info, _)| info)).cloned().collect();
    let out = Cursor::new(Vec::new());
    let mut writer = CheckpointWriter::safetensors(out, "m.safetensors", &embed(meta).unwrap(), &infos).unwrap();
    for info in checkpoint.tensors() {
        writer.write(&info.name, checkpoint.tensor(&info.name).unwrap().1).unwrap();
    }
    if let Some((info, bytes)) = &more {
        writer.write(&info.name, bytes).unwrap();
    }
    Checkpoint::from_files(vec![("m.safetensors".to_owned(), writer.finish().unwrap().into_inner())]).unwrap()
}
