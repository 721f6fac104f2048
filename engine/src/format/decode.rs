//! Plain element types as f32. Block types are decoded by `engine::codec`.

use super::Dtype;

/// Decodes little-endian elements of a plain type. F16, BF16, F8 and small integers are exact; F64 and wide integers
/// round to nearest; booleans become 0 and 1.
///
/// `None` if `dtype` is a ggml block type or `bytes` is no whole number of elements.
pub fn decode_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    if !bytes.len().is_multiple_of(dtype.block_bytes()) {
        return None;
    }
    Some(match dtype {
        Dtype::F64 => elements(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F32 => elements(bytes, f32::from_le_bytes),
        Dtype::F16 => elements(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => elements(bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        Dtype::F8E4M3 => elements(bytes, |[b]: [u8; 1]| f8_e4m3(b)),
        Dtype::F8E5M2 => elements(bytes, |[b]: [u8; 1]| f8_e5m2(b)),
        Dtype::I8 => elements(bytes, |b| f32::from(i8::from_le_bytes(b))),
        Dtype::U8 => elements(bytes, |b| f32::from(u8::from_le_bytes(b))),
        Dtype::I16 => elements(bytes, |b| f32::from(i16::from_le_bytes(b))),
        Dtype::U16 => elements(bytes, |b| f32::from(u16::from_le_bytes(b))),
        Dtype::I32 => elements(bytes, |b| i32::from_le_bytes(b) as f32),
        Dtype::U32 => elements(bytes, |b| u32::from_le_bytes(b) as f32),
        Dtype::I64 => elements(bytes, |b| i64::from_le_bytes(b) as f32),
        Dtype::U64 => elements(bytes, |b| u64::from_le_bytes(b) as f32),
        Dtype::Bool => elements(bytes, |[b]: [u8; 1]| f32::from(b != 0)),
        Dtype::Ggml(_) => return None,
    })
}

fn elements<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&element| decode(element)).collect()
}

/// OCP FP8 E4M3: bias 7, no infinities, only `S.1111.111` is NaN.
fn f8_e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3) & 15, f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * exp2(-9),
        _ => (8.0 + mantissa) * exp2(exponent - 10),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// OCP FP8 E5M2: the upper byte of an IEEE half.
fn f8_e5m2(byte: u8) -> f32 {
    half::f16::from_bits(u16::from(byte) << 8).to_f32()
}

/// 2^n for n in the range of normal f32 exponents.
fn exp2(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::GgmlType;

    #[test]
    fn f8_landmarks() {
        // OCP 8-bit floating point specification, tables 1 and 2.
        let e4m3: [(u8, f32); 8] = [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x07, 0.875 * 2f32.powi(-6)),
            (0x08, 2f32.powi(-6)),
            (0x38, 1.0),
            (0x7e, 448.0),
            (0xfe, -448.0),
            (0xb9, -1.125),
        ];
        for (byte, value) in e4m3 {
            assert_eq!(decode_f32(Dtype::F8E4M3, &[byte]), Some(vec![value]), "{byte:#x}");
        }
        assert!(f8_e4m3(0x7f).is_nan() && f8_e4m3(0xff).is_nan());
        let e5m2: [(u8, f32); 6] = [
            (0x01, 2f32.powi(-16)),
            (0x03, 0.75 * 2f32.powi(-14)),
            (0x3c, 1.0),
            (0x7b, 57344.0),
            (0x7c, f32::INFINITY),
            (0xfc, f32::NEG_INFINITY),
        ];
        for (byte, value) in e5m2 {
            assert_eq!(decode_f32(Dtype::F8E5M2, &[byte]), Some(vec![value]), "{byte:#x}");
        }
        assert!(f8_e5m2(0x7d).is_nan());
    }

    #[test]
    fn every_plain_type() {
        let one = |dtype, bytes: &[u8]| decode_f32(dtype, bytes).and_then(|v| v.first().copied());
        assert_eq!(one(Dtype::F64, &(-2.5f64).to_le_bytes()), Some(-2.5));
        assert_eq!(one(Dtype::F32, &(1e-40f32).to_le_bytes()), Some(1e-40));
        assert_eq!(one(Dtype::F16, &[0x01, 0x00]), Some(2f32.powi(-24)));
        assert_eq!(one(Dtype::BF16, &[0x20, 0xc0]), Some(-2.5));
        assert_eq!(one(Dtype::I8, &[0x80]), Some(-128.0));
        assert_eq!(one(Dtype::U8, &[0x80]), Some(128.0));
        assert_eq!(one(Dtype::I16, &[0, 0x80]), Some(-32768.0));
        assert_eq!(one(Dtype::U16, &[0, 0x80]), Some(32768.0));
        assert_eq!(one(Dtype::I32, &(-7i32).to_le_bytes()), Some(-7.0));
        assert_eq!(one(Dtype::U32, &u32::MAX.to_le_bytes()), Some(4294967296.0));
        assert_eq!(one(Dtype::I64, &i64::MIN.to_le_bytes()), Some(-9223372036854775808.0));
        assert_eq!(one(Dtype::U64, &9u64.to_le_bytes()), Some(9.0));
        assert_eq!(one(Dtype::Bool, &[1]), Some(1.0));
    }

    #[test]
    fn ragged_or_blocked_is_refused() {
        assert_eq!(decode_f32(Dtype::F32, &[0; 6]), None);
        assert_eq!(decode_f32(Dtype::Ggml(GgmlType::Q4_0), &[0; 18]), None);
        assert_eq!(decode_f32(Dtype::F32, &[]), Some(vec![]));
    }
}
