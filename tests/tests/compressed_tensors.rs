//! Sparse checkpoints of compressed-tensors (`golden/compressed_tensors.py`): bit for bit what their dense twin holds, and run packed.

use tersor_engine::codec::{Stored, parse};
use tersor_engine::format::Checkpoint;
use tersor_tests::decoder::{load, logits, worst};
use tersor_tests::golden::path;
use tersor_tests::kernel::gpus;

fn open(folder: &str) -> Checkpoint {
    Checkpoint::open(&path("compressed_tensors").join(folder)).expect("the golden files are there")
}

#[test]
fn masks_and_values_are_read_to_the_bit() {
    let dense = Stored::of(&open("masked")).unwrap();
    for (folder, expected) in [("bitmask", "sparse:nnz="), ("bitmask24", "sparse:2:4")] {
        let sparse = Stored::of(&open(folder)).unwrap();
        let names = |stored: &Stored| {
            let mut names: Vec<_> = stored.tensors().iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
            names.sort();
            names
        };
        assert_eq!(names(&sparse), names(&dense), "{folder}");
        let mut found = 0;
        for tensor in sparse.tensors() {
            let packed = sparse.load(&tensor.name).unwrap().unwrap();
            let original = dense.load(&tensor.name).unwrap().unwrap();
            let bits = |weights: Vec<f32>| weights.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(packed.decode()), bits(original.decode()), "{folder} {}", tensor.name);
            assert_eq!(packed.codec.name(), tensor.codec().unwrap().name());
            if packed.codec.name().starts_with(expected) {
                found += 1;
                assert!(packed.bytes() < original.bytes(), "{folder} {}", tensor.name);
            }
        }
        // Of rows of 64, those of `nnz=K` are smaller for K up to 32 only.
        assert!(found >= if folder == "bitmask" { 2 } else { 6 }, "{folder}: {found} sparse matrices");
    }
}

#[test]
fn sparse_checkpoints_run_as_their_dense_twin_does() {
    let ids: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % 128).collect();
    for gpu in gpus() {
        for pieces in [&[24][..], &[1]] {
            let expected = logits(&load(&gpu, &open("masked"), 32), &ids, 32, pieces);
            for folder in ["bitmask", "bitmask24"] {
                let worst = worst(&logits(&load(&gpu, &open(folder), 32), &ids, 32, pieces), &expected);
                assert!(worst < 1e-4, "{folder} in pieces of {pieces:?} on {}: {worst}", gpu.name());
            }
        }
    }
}

/// The sum of "To prune, or not to prune", row 40 of the list of methods: a product with the packed matrix is the one with the masked
/// dense matrix, and its bytes are the bitmap's, the values', and 16 bits for every run.
#[test]
fn a_pruned_matrix_is_its_bits_and_its_values() {
    let (rows, cols) = (64, 512);
    let weights: Vec<f32> = (0..rows * cols).map(|i| ((i * 2654435761) % 1999) as f32 / 1000.0 - 1.0).collect();
    for pruned in [50, 75, 90] {
        let packed = parse(&format!("sparse:{pruned}%")).unwrap().encode(&weights, rows, cols).unwrap();
        let kept = (cols * (100 - pruned)).div_ceil(100);
        let nonzero = packed.decode().iter().filter(|w| **w != 0.0).count();
        assert!(nonzero <= rows * kept && nonzero >= rows * kept - 40, "{nonzero} of {} kept", rows * kept);
        let values = 2 * kept.next_multiple_of(32);
        assert_eq!(packed.bytes() as usize, rows * (cols / 8 + values + 2 * cols / 32), "{pruned} %");
    }
}
