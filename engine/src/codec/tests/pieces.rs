//! Matrices that are packed or read some rows at a time are those that are packed or read at once, bit for bit.

use std::borrow::Cow;

use super::Lcg;
use super::properties::ENCODERS;
use crate::codec::{
    Calibrates, Calibration, CodecError, CodecRef, Encoded, Encoding, PIECE, Stored, StoredRows, import, parse,
};
use crate::format::{CHECKSUMS_KEY, Checkpoint, CheckpointWriter, Checksums, Dtype, TensorInfo};

/// Codecs that look at all rows, beside those that calibrate.
fn needs_all(name: &str) -> bool {
    ["spqr", "entropy", "svd", "dfloat11"].iter().any(|family| name.contains(family))
}

/// The matrix, and how many times rows were asked for.
fn encode(
    codec: &CodecRef,
    weights: &[f32],
    cols: usize,
    piece: usize,
    calibration: Option<&Calibration>,
) -> Result<(Encoded, usize), CodecError> {
    let rows = weights.len() / cols;
    let encoding = Encoding { codec, rows, cols, calibration, piece };
    let mut reads = Vec::new();
    let encoded = encoding.encode(
        |range| {
            reads.push(range.clone());
            Ok(Cow::Borrowed(&weights[range.start * cols..range.end * cols]))
        },
        |error| error,
    )?;
    let in_order = reads.iter().scan(0, |next, range| Some(std::mem::replace(next, range.end) == range.start));
    assert!(in_order.into_iter().all(|right| right) && reads.last().unwrap().end == rows, "{reads:?}");
    Ok((encoded, reads.len()))
}

#[test]
fn pieces_are_what_the_whole_is() {
    let mut random = Lcg::new(5);
    for (rows, cols) in [(1, 256), (37, 256), (131, 512)] {
        let weights: Vec<f32> = (0..rows * cols).map(|_| random.gaussian()).collect();
        let calibration = Calibration::even(cols);
        let more = ["uniform:bits=4,group=32,gptq", "sparse:50%,method=sparsegpt", "q4_0+svd:rank=16", "dfloat11"];
        for name in ENCODERS.iter().map(|(name, _)| *name).chain(more) {
            let codec = parse(name).unwrap();
            assert_eq!(codec.rows_apart(), !needs_all(name), "{name}");
            for given in [None, Some(&calibration)] {
                let (whole, once) = encode(&codec, &weights, cols, usize::MAX, given).unwrap();
                assert_eq!(once, 1);
                // Less than a row, a few rows, and a size that no row divides.
                for piece in [1, 5 * cols, 40 * cols + 3] {
                    let (parts, reads) = encode(&codec, &weights, cols, piece, given).unwrap();
                    let place = format!("{name}, {rows} x {cols}, pieces of {piece}");
                    assert_eq!((parts.packed.rows, parts.packed.cols), (rows, cols), "{place}");
                    assert_eq!(parts.packed.codec.name(), whole.packed.codec.name(), "{place}");
                    assert!(parts.packed.planes == whole.packed.planes, "{place}: other planes");
                    assert_eq!(parts.nmse.to_bits(), whole.nmse.to_bits(), "{place}");
                    assert_eq!(parts.larger, whole.larger, "{place}");
                    let granularity = codec.row_granularity(cols);
                    let step = (piece / cols / granularity * granularity).max(granularity);
                    let calibrated = given.is_some() && codec.calibrates() != Calibrates::No;
                    let expected = if needs_all(name) || calibrated { 1 } else { rows.div_ceil(step) };
                    assert_eq!(reads, expected, "{place}");
                }
            }
        }
    }
}

#[test]
fn a_weight_that_cannot_be_packed_is_named_by_its_row_in_the_matrix() {
    for (value, name) in [(f32::NAN, "q4_0"), (f32::INFINITY, "f32"), (1e30, "f16"), (1e38, "q8_0")] {
        let codec = parse(name).unwrap();
        let mut weights = vec![1.0; 20 * 32];
        weights[13 * 32 + 7] = value;
        let [whole, parts] = [usize::MAX, 96].map(|piece| encode(&codec, &weights, 32, piece, None).unwrap_err());
        assert!(whole.to_string().contains("[13, 7]"), "{whole}");
        assert_eq!(whole.to_string(), parts.to_string());
    }
}

/// A file of these tensors, opened, and the tensors' bytes. `damage`: a byte that is another after the checksums were made.
fn file(tensors: &[(&str, Vec<u64>, Dtype)], damage: Option<usize>) -> (Stored, Vec<Vec<u8>>) {
    let mut random = Lcg::new(3);
    let infos: Vec<TensorInfo> =
        tensors.iter().map(|(name, shape, dtype)| TensorInfo::new(*name, shape.clone(), *dtype).unwrap()).collect();
    // Bytes below 0x78 make finite numbers of all types.
    let bytes: Vec<Vec<u8>> =
        infos.iter().map(|info| random.bytes(info.byte_len() as usize).iter().map(|b| b & 0x37).collect()).collect();
    let mut checksums = Checksums::default();
    infos.iter().zip(&bytes).for_each(|(info, bytes)| checksums.add(&info.name, bytes));
    let metadata = std::iter::once((CHECKSUMS_KEY.to_owned(), checksums.metadata())).collect();
    let mut writer =
        CheckpointWriter::safetensors(std::io::Cursor::new(Vec::new()), "test", &metadata, &infos).unwrap();
    for (info, bytes) in infos.iter().zip(&bytes) {
        writer.write(&info.name, bytes).unwrap();
    }
    let mut file = writer.finish().unwrap().into_inner();
    if let Some(back) = damage {
        let at = file.len() - back;
        file[at] ^= 1;
    }
    let checkpoint = Checkpoint::from_files(vec![("test.safetensors".to_owned(), file)]).unwrap();
    (Stored::of(&checkpoint).unwrap(), bytes)
}

#[test]
fn a_stored_tensor_is_read_in_pieces() {
    let rows = (PIECE / 96 * 2 + 77) as u64;
    let tensors = [
        ("f16", vec![rows, 96], Dtype::F16),
        ("f8", vec![rows / 7, 7, 96], Dtype::F8E4M3),
        ("small", vec![3, 5], Dtype::F32),
        ("vector", vec![9], Dtype::BF16),
        ("none", vec![0, 32], Dtype::F32),
    ];
    let (stored, bytes) = file(&tensors, None);
    for ((name, shape, dtype), bytes) in tensors.iter().zip(&bytes) {
        let whole = import(&TensorInfo::new(*name, shape.clone(), *dtype).unwrap(), bytes).unwrap();
        let loaded = stored.load(name).unwrap().unwrap();
        assert_eq!((loaded.rows, loaded.cols, loaded.codec.name()), (whole.rows, whole.cols, whole.codec.name()));
        assert!(loaded.planes == whole.planes, "{name}");
        let source = stored.rows(name).unwrap().unwrap();
        assert_eq!(source.codec().name(), whole.codec.name());
        let (all, cols) = (whole.decode(), whole.cols);
        for range in [0..whole.rows, 0..whole.rows.min(1), whole.rows / 3..whole.rows / 2] {
            let found = source.decode(range.clone()).unwrap();
            assert!(found == all[range.start * cols..range.end * cols], "{name} {range:?}");
        }
        assert!(source.decode(0..whole.rows + 1).is_err(), "{name}");
    }
    assert!(stored.rows("other").unwrap().is_none());
    // The last byte of the last tensor that has any, which is far behind the first piece.
    let damaged = [("f16", vec![rows, 96], Dtype::F16)];
    let (stored, _) = file(&damaged, Some(1));
    let error = stored.rows("f16").unwrap_err().to_string();
    assert!(error.contains("f16") && error.contains("CRC-32"), "{error}");
}

#[test]
fn packed_tensors_are_read_in_pieces_wherever_they_begin() {
    let mut random = Lcg::new(8);
    let weights: Vec<f32> = (0..70 * 256).map(|_| random.gaussian()).collect();
    for name in ["nf4", "sparse:50%,block=16", "entropy:q8_0", "q4_0"] {
        let packed = parse(name).unwrap().encode(&weights, 70, 256).unwrap();
        let all = packed.decode();
        let source = StoredRows::from(packed);
        assert_eq!(source.piece() == usize::MAX, name.starts_with("entropy"));
        for range in [0..70, 0..1, 33..34, 17..69] {
            assert!(
                source.decode(range.clone()).unwrap() == all[range.start * 256..range.end * 256],
                "{name} {range:?}"
            );
        }
        assert!(source.decode(3..71).is_err());
    }
}
