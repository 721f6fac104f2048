//! What can be wrong with a model file, said so that the reader knows where to look and what to do.
//!
//! Every message names the file, the key or tensor, the byte where that matters, what is wrong, and a remedy.

use std::fmt;

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The operating system refused.
    #[error("{file}: cannot {action} it: {source}")]
    Io { file: String, action: &'static str, source: std::io::Error },
    /// Neither GGUF nor safetensors.
    #[error(
        "{file}: this is no model file ({found}); tersor reads .gguf, .safetensors, model.safetensors.index.json and Hugging Face folders"
    )]
    UnknownFormat { file: String, found: String },
    /// The file ends before what it announces.
    #[error(
        "{file}: {item} at byte {offset} needs {needed} bytes but the file has {available} there; \
         the file is cut off or damaged: fetch it again"
    )]
    Truncated { file: String, item: Item, offset: u64, needed: u64, available: u64 },
    /// The file contradicts its format.
    #[error("{file}: {item} at byte {offset}: {reason}; {remedy}")]
    Invalid { file: String, item: Item, offset: u64, reason: String, remedy: &'static str },
    /// A tensor type that exists but is not decoded here.
    #[error("{file}: {item} at byte {offset} is stored as {type_name}, which {reason}; {remedy}")]
    UnsupportedType {
        file: String,
        item: Item,
        offset: u64,
        type_name: String,
        reason: &'static str,
        remedy: &'static str,
    },
    /// A file that another one, or the folder layout, asks for.
    #[error("{file}: {missing} is missing; {remedy}")]
    Missing { file: String, missing: String, remedy: &'static str },
    /// The caller of a writer broke its protocol or asked for what the format cannot hold.
    #[error("{file}: cannot write {item}: {reason}")]
    Unwritable { file: String, item: Item, reason: String },
}

/// Remedy for damage that only a fresh copy repairs.
pub(super) const FETCH_AGAIN: &str =
    "the file is damaged or was written by faulty software: fetch it again or convert it anew";

/// The part of a file an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The file as a whole, or its fixed-size beginning.
    Header,
    /// A metadata entry.
    Key(String),
    /// A tensor, by name.
    Tensor(String),
    /// A numbered entry whose name is not known yet, e.g. `tensor info 7`.
    Entry(&'static str, u64),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the header"),
            Self::Key(key) => write!(f, "metadata key {}", quoted(key)),
            Self::Tensor(name) => write!(f, "tensor {}", quoted(name)),
            Self::Entry(kind, number) => write!(f, "{kind} {number}"),
        }
    }
}

/// A name from an untrusted file, made fit for one line of a terminal: control characters escaped, long names cut.
pub(crate) fn quoted(name: &str) -> String {
    const LONGEST: usize = 96;
    let mut out = String::from("\"");
    for (i, c) in name.chars().enumerate() {
        if i == LONGEST {
            out.push('…');
            break;
        }
        if c == '"' || c == '\\' || c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tamed() {
        assert_eq!(quoted("blk.0.ü"), "\"blk.0.ü\"");
        assert_eq!(quoted("a\u{1b}[2J\n\""), "\"a\\u{1b}[2J\\n\\\"\"");
        assert!(quoted(&"x".repeat(1 << 20)).len() < 128);
    }

    #[test]
    fn errors_stay_small() {
        assert!(size_of::<FormatError>() <= 128);
    }
}
