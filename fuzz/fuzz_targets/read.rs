//! Shared by the container targets: reads all that an accepted file offers.

use tersor_engine::codec;
use tersor_engine::format::{Checkpoint, decode_f32};

/// Opens `bytes` under `name`. An error must name the file; what is accepted must be readable to the last weight.
pub fn read(name: &str, bytes: &[u8]) {
    let checkpoint = match Checkpoint::from_files(vec![(name.to_owned(), bytes.to_vec())]) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return assert!(error.to_string().contains(name), "{error}"),
    };
    for info in checkpoint.tensors() {
        let (_, bytes) = checkpoint.tensor(&info.name).expect("a listed tensor can be read");
        assert_eq!(info.dtype.byte_len(&info.shape), Ok(bytes.len() as u64));
        if let Some(values) = decode_f32(info.dtype, bytes) {
            assert_eq!(values.len() as u64, info.elements());
        }
        if let Ok(packed) = codec::import(info, bytes) {
            assert_eq!(packed.decode().len() as u64, info.elements());
        }
    }
}
