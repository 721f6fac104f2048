//! Blocks, decoded values and quantizer outputs of ggml's compiled C code.

use super::Lcg;
use crate::codec::{CodecRef, export_ggml, import, parse};
use crate::format::{Dtype, GgmlType, TensorInfo};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn codec(ggml_type: GgmlType) -> CodecRef {
    parse(ggml_type.name()).unwrap()
}

/// A block of LCG(1) bytes whose scales are set to 0.0625 (0x2c00) and 0.0999756 (0x2e66).
fn block(ggml_type: GgmlType) -> Vec<u8> {
    use GgmlType::*;
    let mut block = Lcg::new(1).bytes(ggml_type.block_bytes());
    let (d, m) = match ggml_type {
        Q4_0 | Q5_0 | Q8_0 | IQ4NL | IQ4XS | Q1_0 | Q2_0 => (Some(0), None),
        Q4_1 | Q5_1 | Q4K | Q5K => (Some(0), Some(2)),
        Q2K => (Some(80), Some(82)),
        Q3K => (Some(108), None),
        Q6K => (Some(208), None),
        TQ1_0 => (Some(52), None),
        TQ2_0 => (Some(64), None),
        MXFP4 | NVFP4 => (None, None),
    };
    if let Some(at) = d {
        block[at..at + 2].copy_from_slice(&0x2c00u16.to_le_bytes());
    }
    if let Some(at) = m {
        block[at..at + 2].copy_from_slice(&0x2e66u16.to_le_bytes());
    }
    match ggml_type {
        MXFP4 => block[0] = 121,
        NVFP4 => block[..4].iter_mut().for_each(|byte| *byte &= 0x7f),
        _ => {}
    }
    block
}

/// Type, CRC of the decoded block (−0 as 0), its first six and last two weights.
#[allow(clippy::excessive_precision)] // digits as the reference prints them
const DECODED: [(GgmlType, u32, [f32; 6], [f32; 2]); 18] = [
    (GgmlType::Q4_0, 0x810c59e5, [-0.4375, -0.25, 0.25, 0.375, -0.125, 0.375], [0.3125, -0.1875]),
    (
        GgmlType::Q4_1,
        0xa741b456,
        [0.84997559, 0.97497559, 0.47497559, 0.97497559, 0.34997559, 0.28747559],
        [0.72497559, 0.59997559],
    ),
    (GgmlType::Q5_0, 0x14cfe8d3, [0.375, -0.125, -0.75, -0.8125, -1.0, -0.25], [0.1875, -0.9375]),
    (
        GgmlType::Q5_1,
        0x7813f445,
        [0.34997559, 0.28747559, 1.0999756, 1.8499756, 0.53747559, 0.47497559],
        [0.16247559, 1.4124756],
    ),
    (GgmlType::Q8_0, 0xaf4f0eb3, [-7.9375, -4.75, 0.75, 5.875, -3.625, -7.125], [5.3125, -0.3125]),
    (
        GgmlType::Q2K,
        0xc85b9b45,
        [-0.29992676, 1.9500732, 1.2000732, -0.29992676, 1.9500732, 1.2000732],
        [0.56286621, -0.12463379],
    ),
    (GgmlType::Q3K, 0xed39e130, [1.3125, 0.4375, -1.3125, 1.75, 0.4375, 0.875], [-1.6875, 6.75]),
    (
        GgmlType::Q4K,
        0xc72b8677,
        [8.6000977, 1.8500977, 10.100098, 5.6000977, 4.8500977, 7.1000977],
        [29.150757, 21.088257],
    ),
    (
        GgmlType::Q5K,
        0x6471ca22,
        [4.8500977, 22.850098, 2.6000977, 2.6000977, 13.850098, 7.8500977],
        [23.775757, 10.338257],
    ),
    (GgmlType::Q6K, 0x3f4c380b, [-71.75, 5.125, 79.4375, 30.75, 51.25, -35.875], [64.0, 0.0]),
    (GgmlType::IQ4NL, 0x6c19165f, [-6.5, -3.0625, 3.3125, 5.5625, -1.375, 5.5625], [4.3125, -2.1875]),
    (GgmlType::IQ4XS, 0x63f48e9b, [12.25, 16.25, 31.75, -13.25, 2.5, 5.5], [56.5, 19.0]),
    (GgmlType::MXFP4, 0xc04b0c8e, [-0.0625, 0.0078125, 0.03125, -0.03125, -0.0625, 0.0625], [-0.09375, -0.046875]),
    (GgmlType::NVFP4, 0x51e1f94a, [-3.0, -6.0, 6.0, -6.0, 3.0, 2.25], [3.0, 0.0]),
    (GgmlType::TQ1_0, 0x2703d22a, [-0.0625, 0.0, 0.0, 0.0625, -0.0625, 0.0], [0.0625, 0.0]),
    (GgmlType::TQ2_0, 0x51a5f19e, [-0.0625, 0.0625, 0.0, -0.0625, -0.0625, 0.0625], [-0.0625, 0.0625]),
    (GgmlType::Q1_0, 0xddd651c1, [0.0625, -0.0625, -0.0625, -0.0625, -0.0625, -0.0625], [0.0625, -0.0625]),
    (GgmlType::Q2_0, 0x1569fd50, [0.0, -0.0625, -0.0625, 0.0625, -0.0625, 0.0], [0.0, 0.0]),
];

#[test]
fn blocks_decode_to_the_bits_of_ggml() {
    for (ggml_type, crc, first, last) in DECODED {
        let packed = codec(ggml_type).import(&block(ggml_type), 1, ggml_type.block_len()).unwrap();
        let weights = packed.decode();
        assert_eq!(weights[..6], first, "{ggml_type}");
        assert_eq!(weights[weights.len() - 2..], last, "{ggml_type}");
        let bytes: Vec<u8> = weights.iter().flat_map(|w| (w + 0.0).to_le_bytes()).collect();
        assert_eq!(crc32(&bytes), crc, "{ggml_type}");
    }
}

/// `x_i = (LCG16(5)_i − 32768) / 16384`.
fn quantizer_input(n: usize) -> Vec<f32> {
    let mut lcg = Lcg::new(5);
    (0..n).map(|_| (f32::from(lcg.u16()) - 32_768.0) / 16_384.0).collect()
}

#[test]
fn simple_quantizers_write_the_bytes_of_ggml() {
    let blocks = [
        (GgmlType::Q4_0, "afb38ca42cf204aa486d6f820f9e88d6ce32"),
        (GgmlType::Q4_1, "ed332ebf735bd30dfb55b793907df062773a42cd"),
        (GgmlType::Q5_0, "afafe55d2b7a194839e4095580c9df140e2b009b7c64"),
        (GgmlType::Q5_1, "ac2f2ebf1aa2d485e6b7c61bf6aa7f2620ebf0d4ff64839a"),
        (GgmlType::Q8_0, "bf23bb3dbc5d39db00b689628da70026a35bf9e264917fda421c1af97ff201b6c64f"),
        (GgmlType::MXFP4, "7d9ec67ef775cc603e3f977faf00e4ef67"),
        (
            GgmlType::TQ1_0,
            "027d54c29480752a3bd63431606419ae9c85ab2cc383be805988c97a81275fbee9649a3e6d8da37e80afda837c472280752626a2f63f",
        ),
        (
            GgmlType::TQ2_0,
            "0015a862495545540856642411516042592502546295225541650685551411228955954166656494564a9955155182545910085a5265488514\
             5065a546191414f63f",
        ),
    ];
    for (ggml_type, expected) in blocks {
        let weights = quantizer_input(ggml_type.block_len());
        let packed = codec(ggml_type).encode(&weights, 1, weights.len()).unwrap();
        assert_eq!(export_ggml(&packed), Some(hex(expected)), "{ggml_type}");
    }
}

#[test]
fn searching_quantizers_are_no_worse_than_ggml() {
    let reference = [
        (GgmlType::IQ4NL, 0.05878),
        (GgmlType::Q2K, 0.25044),
        (GgmlType::Q3K, 0.12321),
        (GgmlType::Q4K, 0.05433),
        (GgmlType::Q5K, 0.02857),
        (GgmlType::Q6K, 0.01351),
    ];
    for (ggml_type, expected) in reference {
        let weights = quantizer_input(ggml_type.block_len());
        let packed = codec(ggml_type).encode(&weights, 1, weights.len()).unwrap();
        let found = super::nmse(&weights, &packed.decode()).sqrt();
        assert!(found <= 1.02 * expected, "{ggml_type}: {found} where ggml has {expected}");
    }
}

/// The tensors of a complete GGUF file made with the `gguf` Python package: `w` Q4_0 [2, 32] and `b` F32 [3].
#[test]
fn tensors_of_a_gguf_file() {
    let w = hex("002c81b40c5ec68e04a3406c97d63cfbdc53002c30bdb71e347886b2b41b91c976720357");
    let info = TensorInfo::new("w", vec![2, 32], Dtype::Ggml(GgmlType::Q4_0)).unwrap();
    let packed = import(&info, &w).unwrap();
    let weights = packed.decode();
    assert_eq!((packed.rows, packed.cols), (2, 32));
    assert_eq!(weights[32..36], [-0.5, 0.3125, -0.0625, 0.375]);
    assert_eq!(weights[62..], [-0.5, -0.1875]);
    assert_eq!(export_ggml(&packed), Some(w));

    let b = hex("0000803f000020c00000003e");
    let packed = import(&TensorInfo::new("b", vec![3], Dtype::F32).unwrap(), &b).unwrap();
    assert_eq!((packed.rows, packed.cols), (1, 3));
    assert_eq!(packed.decode(), [1.0, -2.5, 0.125]);
    assert_eq!(export_ggml(&packed), Some(b));
}
