//! Checksums of a file's tensors, in its own metadata.
//!
//! Under [`CHECKSUMS_KEY`] stands JSON with the CRC-32 of every tensor's bytes (polynomial 0xEDB88320, as in zlib), eight hexadecimal
//! digits, so that its length is known before the tensors are:
//!
//! ```json
//! {"version": 1, "tensors": {"w.codec_0": "cbf43926"}}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Key of the metadata that holds the checksums.
pub const CHECKSUMS_KEY: &str = "tersor.crc32";
const VERSION: u32 = 1;

/// CRC-32 of tensors by their names in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checksums(BTreeMap<String, u32>);

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    tensors: BTreeMap<String, String>,
}

impl Checksums {
    /// Takes a tensor's bytes into account; a second time they replace the first.
    pub fn add(&mut self, tensor: &str, bytes: &[u8]) {
        self.0.insert(tensor.to_owned(), crc32fast::hash(bytes));
    }

    /// Forgets a tensor: its bytes are others now.
    pub fn forget(&mut self, tensor: &str) {
        self.0.remove(tensor);
    }

    /// Whether these can be the tensor's bytes: none known is as good as the right one.
    ///
    /// # Errors
    /// What the checksum is and what it should be.
    pub fn verify(&self, tensor: &str, bytes: &[u8]) -> Result<(), String> {
        let Some(mut digest) = self.digest(tensor) else { return Ok(()) };
        digest.add(bytes);
        digest.verify()
    }

    /// What [`Checksums::verify`] does, for bytes that come in pieces; `None` if the tensor has no checksum.
    pub fn digest(&self, tensor: &str) -> Option<Digest> {
        Some(Digest { hasher: crc32fast::Hasher::new(), written: *self.0.get(tensor)? })
    }

    /// The value of [`CHECKSUMS_KEY`].
    pub fn metadata(&self) -> String {
        let tensors = self.0.iter().map(|(name, crc)| (name.clone(), format!("{crc:08x}"))).collect();
        serde_json::to_string(&Header { version: VERSION, tensors }).unwrap_or_default()
    }

    /// Reads what [`Checksums::metadata`] wrote.
    ///
    /// # Errors
    /// Text that is something else, or of another version.
    pub fn parse(text: &str) -> Result<Self, String> {
        let header: Header = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if header.version != VERSION {
            return Err(format!("version {} instead of {VERSION}", header.version));
        }
        let read = |(name, digits): (String, String)| match u32::from_str_radix(&digits, 16) {
            Ok(crc) if digits.len() == 8 && !digits.starts_with('+') => Ok((name, crc)),
            _ => Err("a checksum is not eight hexadecimal digits".to_owned()),
        };
        header.tensors.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// The checksum of a tensor's bytes so far.
#[derive(Debug)]
pub struct Digest {
    hasher: crc32fast::Hasher,
    written: u32,
}

impl Digest {
    /// The next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Whether these can be all of the tensor's bytes.
    ///
    /// # Errors
    /// As [`Checksums::verify`].
    pub fn verify(self) -> Result<(), String> {
        let written = self.written;
        match self.hasher.finalize() {
            found if found == written => Ok(()),
            found => Err(format!("its bytes have the CRC-32 {found:08x}, but {written:08x} when they were written")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_round_trip_and_find_what_changed() {
        let mut sums = Checksums::default();
        sums.add("w", b"123456789");
        assert_eq!(sums.metadata(), r#"{"version":1,"tensors":{"w":"cbf43926"}}"#, "the CRC-32 that everybody has");
        let back = Checksums::parse(&sums.metadata()).unwrap();
        assert_eq!(back, sums);
        assert_eq!((back.verify("w", b"123456789"), back.verify("v", b"")), (Ok(()), Ok(())));
        assert!(back.verify("w", b"123456788").unwrap_err().contains("but cbf43926 when"));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"version":2,"tensors":{}}"#,
            r#"{"version":1,"tensors":{"w":"cbf4392"}}"#,
            r#"{"version":1,"tensors":{"w":"+bf43926"}}"#,
            r#"{"version":1,"tensors":{"w":7}}"#,
        ] {
            assert!(Checksums::parse(text).is_err(), "{text}");
        }
    }
}
