//! GGUF metadata: typed values under string keys, in file order.

use std::collections::HashMap;

/// Names of the value types by their number in the file.
const TYPE_NAMES: [&str; 13] =
    ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"];

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    Array(GgufArray),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array value. Arrays of arrays do not exist (ggml refuses them, and so does the reader).
#[derive(Debug, Clone, PartialEq)]
pub enum GgufArray {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    Str(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl GgufArray {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Str(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as u64; `None` if they are no integers or one is negative.
    pub fn to_u64s(&self) -> Option<Vec<u64>> {
        fn all<T: Copy>(values: &[T]) -> Option<Vec<u64>>
        where
            u64: TryFrom<T>,
        {
            values.iter().map(|&v| u64::try_from(v).ok()).collect()
        }
        match self {
            Self::U8(v) => all(v),
            Self::I8(v) => all(v),
            Self::U16(v) => all(v),
            Self::I16(v) => all(v),
            Self::U32(v) => all(v),
            Self::I32(v) => all(v),
            Self::U64(v) => all(v),
            Self::I64(v) => all(v),
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::Str(_) => None,
        }
    }

    /// The strings; `None` if the elements are something else.
    pub fn strings(&self) -> Option<&[String]> {
        if let Self::Str(v) = self { Some(v) } else { None }
    }

    /// The f32 elements; `None` if the elements are something else.
    pub fn f32s(&self) -> Option<&[f32]> {
        if let Self::F32(v) = self { Some(v) } else { None }
    }

    /// The i32 elements; `None` if the elements are something else.
    pub fn i32s(&self) -> Option<&[i32]> {
        if let Self::I32(v) = self { Some(v) } else { None }
    }

    /// The element type's number in GGUF files.
    pub(super) fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Str(_) => 8,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// The element type's name.
    pub fn type_name(&self) -> &'static str {
        TYPE_NAMES[self.type_id() as usize]
    }
}

impl GgufValue {
    /// The value as an unsigned integer, whatever integer type the writer chose; `None` for negatives and other types.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => u64::try_from(v).ok(),
            Self::I16(v) => u64::try_from(v).ok(),
            Self::I32(v) => u64::try_from(v).ok(),
            Self::I64(v) => u64::try_from(v).ok(),
            _ => None,
        }
    }

    /// The value as f32 if it is a float of either width.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(v) => Some(v),
            Self::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// The value type's number in GGUF files.
    pub(super) fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Str(_) => 8,
            Self::Array(_) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// The value's type, for tables and messages.
    pub fn type_name(&self) -> &'static str {
        TYPE_NAMES[self.type_id() as usize]
    }
}

/// Implements `From<$rust> for GgufValue`.
macro_rules! value_from {
    ($($rust:ty => $variant:ident),* $(,)?) => {
        $(impl From<$rust> for GgufValue {
            fn from(value: $rust) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

value_from! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64, bool => Bool, &str => Str, String => Str, GgufArray => Array,
}

/// All metadata of a GGUF file.
#[derive(Debug, Clone, Default)]
pub struct GgufMetadata {
    entries: Vec<(String, GgufValue)>,
    index: HashMap<String, usize>,
}

impl GgufMetadata {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key`; an existing entry keeps its place.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<GgufValue>) {
        let (key, value) = (key.into(), value.into());
        if let Some(&at) = self.index.get(&key) {
            self.entries[at].1 = value;
        } else {
            self.index.insert(key.clone(), self.entries.len());
            self.entries.push((key, value));
        }
    }

    /// Removes `key`; later entries move up.
    pub fn remove(&mut self, key: &str) -> Option<GgufValue> {
        let at = self.index.remove(key)?;
        for place in self.index.values_mut().filter(|place| **place > at) {
            *place -= 1;
        }
        Some(self.entries.remove(at).1)
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.index.get(key).map(|&at| &self.entries[at].1)
    }

    /// True if `key` is present.
    pub fn contains(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    /// A string.
    pub fn str(&self, key: &str) -> Option<&str> {
        if let GgufValue::Str(v) = self.get(key)? { Some(v) } else { None }
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Option<bool> {
        if let GgufValue::Bool(v) = self.get(key)? { Some(*v) } else { None }
    }

    /// A non-negative integer of any stored width that fits a u32.
    pub fn u32(&self, key: &str) -> Option<u32> {
        self.u64(key)?.try_into().ok()
    }

    /// A non-negative integer of any stored width.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// A float of either width.
    pub fn f32(&self, key: &str) -> Option<f32> {
        self.get(key)?.as_f32()
    }

    /// An array.
    pub fn array(&self, key: &str) -> Option<&GgufArray> {
        if let GgufValue::Array(v) = self.get(key)? { Some(v) } else { None }
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Option<&[String]> {
        self.array(key)?.strings()
    }

    /// All entries in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &GgufValue)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_replacement() {
        let mut metadata = GgufMetadata::new();
        metadata.set("a", 1u32);
        metadata.set("b", "two");
        metadata.set("c", true);
        metadata.set("a", -1i32);
        assert_eq!(metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((metadata.u32("a"), metadata.get("a")), (None, Some(&GgufValue::I32(-1))));
        assert_eq!(metadata.remove("a"), Some(GgufValue::I32(-1)));
        assert_eq!((metadata.str("b"), metadata.bool("c"), metadata.len()), (Some("two"), Some(true), 2));
    }

    #[test]
    fn integers_of_any_width() {
        let mut metadata = GgufMetadata::new();
        metadata.set("n", 7u64);
        metadata.set("big", u64::MAX);
        metadata.set("heads", GgufArray::I32(vec![4, 8]));
        metadata.set("bad", GgufArray::I32(vec![4, -8]));
        assert_eq!((metadata.u32("n"), metadata.u32("big")), (Some(7), None));
        assert_eq!(metadata.array("heads").and_then(GgufArray::to_u64s), Some(vec![4, 8]));
        assert_eq!(metadata.array("bad").and_then(GgufArray::to_u64s), None);
    }
}
