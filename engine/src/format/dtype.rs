//! Element types of tensors in files: plain numbers and the block types of ggml.
//!
//! Flows in: type codes of the containers (a GGUF id, a safetensors name). Flows out: [`Dtype`], which knows how many
//! bytes a tensor of a given shape takes. What the bits of a block mean is the business of `engine::codec`.

use std::fmt;

/// Element type of a tensor in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities (the "FN" variant, as safetensors stores it).
    F8E4M3,
    /// 8-bit float, 5 exponent and 2 mantissa bits, with infinities.
    F8E5M2,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    Bool,
    /// A block type of ggml: a row is cut into blocks of [`GgmlType::block_len`] weights.
    Ggml(GgmlType),
}

/// Block types of ggml that the engine decodes. Names are ggml's, without the underscore where Rust's naming forbids it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GgmlType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    IQ4NL,
    IQ4XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
    Q2_0,
}

/// One line of ggml's type table.
struct BlockSpec {
    ggml_type: GgmlType,
    id: u32,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
}

const fn spec(ggml_type: GgmlType, id: u32, name: &'static str, block_len: usize, block_bytes: usize) -> BlockSpec {
    BlockSpec { ggml_type, id, name, block_len, block_bytes }
}

/// ggml's block types in the order of [`GgmlType`]'s declaration, so that `ggml_type as usize` indexes it (tested below).
const BLOCK_SPECS: [BlockSpec; 18] = [
    spec(GgmlType::Q4_0, 2, "Q4_0", 32, 18),
    spec(GgmlType::Q4_1, 3, "Q4_1", 32, 20),
    spec(GgmlType::Q5_0, 6, "Q5_0", 32, 22),
    spec(GgmlType::Q5_1, 7, "Q5_1", 32, 24),
    spec(GgmlType::Q8_0, 8, "Q8_0", 32, 34),
    spec(GgmlType::Q2K, 10, "Q2_K", 256, 84),
    spec(GgmlType::Q3K, 11, "Q3_K", 256, 110),
    spec(GgmlType::Q4K, 12, "Q4_K", 256, 144),
    spec(GgmlType::Q5K, 13, "Q5_K", 256, 176),
    spec(GgmlType::Q6K, 14, "Q6_K", 256, 210),
    spec(GgmlType::IQ4NL, 20, "IQ4_NL", 32, 18),
    spec(GgmlType::IQ4XS, 23, "IQ4_XS", 256, 136),
    spec(GgmlType::TQ1_0, 34, "TQ1_0", 256, 54),
    spec(GgmlType::TQ2_0, 35, "TQ2_0", 256, 66),
    spec(GgmlType::MXFP4, 39, "MXFP4", 32, 17),
    spec(GgmlType::NVFP4, 40, "NVFP4", 64, 36),
    spec(GgmlType::Q1_0, 41, "Q1_0", 128, 18),
    spec(GgmlType::Q2_0, 42, "Q2_0", 64, 18),
];

impl GgmlType {
    /// Every block type, in the order of declaration.
    pub fn all() -> impl Iterator<Item = Self> {
        BLOCK_SPECS.iter().map(|spec| spec.ggml_type)
    }

    fn spec(self) -> &'static BlockSpec {
        &BLOCK_SPECS[self as usize]
    }

    /// Weights in a block; a row's length is a multiple of it.
    pub fn block_len(self) -> usize {
        self.spec().block_len
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.spec().block_bytes
    }

    /// The type's number in GGUF files.
    pub fn id(self) -> u32 {
        self.spec().id
    }

    /// The block type with this number; `None` for plain types (see [`Dtype::from_ggml_id`]) and for unknown numbers.
    pub fn from_id(id: u32) -> Option<Self> {
        BLOCK_SPECS.iter().find(|spec| spec.id == id).map(|spec| spec.ggml_type)
    }

    /// ggml's spelling, e.g. `Q4_K`.
    pub fn name(self) -> &'static str {
        self.spec().name
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a shape and a type do not make a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("shape {shape:?} has more elements than a 63-bit number can count")]
    TooLarge { shape: Vec<u64> },
    #[error("rows of {row_len} weights cannot be cut into {dtype} blocks of {block_len}")]
    RaggedRow { row_len: u64, dtype: Dtype, block_len: usize },
}

impl Dtype {
    /// Elements in the smallest unit that can be stored: 1 for plain types.
    pub fn block_len(self) -> usize {
        match self {
            Self::Ggml(ggml_type) => ggml_type.block_len(),
            _ => 1,
        }
    }

    /// Bytes of the smallest unit that can be stored: the element size of plain types.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => 1,
            Self::Ggml(ggml_type) => ggml_type.block_bytes(),
        }
    }

    /// Bytes of a tensor of this type; `shape` is row-major, outermost first, `[]` a scalar.
    pub fn byte_len(self, shape: &[u64]) -> Result<u64, ShapeError> {
        let too_large = || ShapeError::TooLarge { shape: shape.to_vec() };
        let block_len = self.block_len();
        let row_len = shape.last().copied().unwrap_or(1);
        if !row_len.is_multiple_of(block_len as u64) {
            return Err(ShapeError::RaggedRow { row_len, dtype: self, block_len });
        }
        // Zeros count as ones in the check, so that no part of an empty tensor's shape overflows somewhere else either.
        let mut elements: u64 = 1;
        for &dim in shape {
            elements = elements.checked_mul(dim.max(1)).ok_or_else(too_large)?;
        }
        let bytes = elements
            .div_ceil(block_len as u64)
            .checked_mul(self.block_bytes() as u64)
            .filter(|&bytes| elements.max(bytes) <= i64::MAX as u64)
            .ok_or_else(too_large)?;
        Ok(if shape.contains(&0) { 0 } else { bytes })
    }

    /// The name people know the type by: `F32`, `F8_E4M3`, `Q4_K`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::I32 => "I32",
            Self::U32 => "U32",
            Self::I64 => "I64",
            Self::U64 => "U64",
            Self::Bool => "BOOL",
            Self::Ggml(ggml_type) => ggml_type.name(),
        }
    }

    /// The type's spelling in safetensors headers; `None` for ggml's block types, which have none.
    pub fn safetensors_name(self) -> Option<&'static str> {
        match self {
            Self::Ggml(_) => None,
            plain => Some(plain.name()),
        }
    }

    /// The type with this spelling in safetensors headers.
    pub fn from_safetensors_name(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            "I8" => Self::I8,
            "U8" => Self::U8,
            "I16" => Self::I16,
            "U16" => Self::U16,
            "I32" => Self::I32,
            "U32" => Self::U32,
            "I64" => Self::I64,
            "U64" => Self::U64,
            "BOOL" => Self::Bool,
            _ => return None,
        })
    }

    /// The type's number in GGUF files; `None` where GGUF has no such type.
    pub fn ggml_id(self) -> Option<u32> {
        Some(match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::I8 => 24,
            Self::I16 => 25,
            Self::I32 => 26,
            Self::I64 => 27,
            Self::F64 => 28,
            Self::BF16 => 30,
            Self::Ggml(ggml_type) => ggml_type.id(),
            Self::F8E4M3 | Self::F8E5M2 | Self::U8 | Self::U16 | Self::U32 | Self::U64 | Self::Bool => return None,
        })
    }

    /// The type with this number in GGUF files, plain or block; `None` for those the engine cannot decode.
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            24 => Self::I8,
            25 => Self::I16,
            26 => Self::I32,
            27 => Self::I64,
            28 => Self::F64,
            30 => Self::BF16,
            _ => Self::Ggml(GgmlType::from_id(id)?),
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_declaration_order() {
        for (i, ggml_type) in GgmlType::all().enumerate() {
            assert_eq!(ggml_type as usize, i);
            assert_eq!(GgmlType::from_id(ggml_type.id()), Some(ggml_type));
        }
    }

    #[test]
    fn codes_round_trip() {
        for id in 0..64 {
            if let Some(dtype) = Dtype::from_ggml_id(id) {
                assert_eq!(dtype.ggml_id(), Some(id));
            }
        }
        for name in "F64 F32 F16 BF16 F8_E4M3 F8_E5M2 I8 U8 I16 U16 I32 U32 I64 U64 BOOL".split(' ') {
            assert_eq!(Dtype::from_safetensors_name(name).and_then(Dtype::safetensors_name), Some(name));
        }
        for removed in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert_eq!(Dtype::from_ggml_id(removed), None);
        }
    }

    #[test]
    fn byte_lengths() {
        assert_eq!(Dtype::F32.byte_len(&[]), Ok(4));
        assert_eq!(Dtype::F32.byte_len(&[7, 0]), Ok(0));
        assert_eq!(Dtype::Ggml(GgmlType::Q4_0).byte_len(&[2, 64]), Ok(72));
        assert_eq!(Dtype::Ggml(GgmlType::Q6K).byte_len(&[3, 2, 512]), Ok(3 * 2 * 2 * 210));
        assert!(matches!(
            Dtype::Ggml(GgmlType::Q4K).byte_len(&[4, 576]),
            Err(ShapeError::RaggedRow { row_len: 576, block_len: 256, .. })
        ));
        assert!(matches!(Dtype::U8.byte_len(&[1 << 62, 2]), Err(ShapeError::TooLarge { .. })));
        assert!(matches!(Dtype::F64.byte_len(&[1 << 61]), Err(ShapeError::TooLarge { .. })));
        assert!(matches!(Dtype::F64.byte_len(&[0, 1 << 61]), Err(ShapeError::TooLarge { .. })));
        assert!(matches!(Dtype::U8.byte_len(&[u64::MAX, u64::MAX]), Err(ShapeError::TooLarge { .. })));
    }
}
