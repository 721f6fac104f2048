//! Writes safetensors whose tensors are known only one by one: lengths that depend on what was encoded, checksums.
//!
//! Flows in: how long the header can become, then tensors in the order in which they are to lie, then the metadata. Flows out: a
//! safetensors file. The header comes last, into the room that was left for it, filled up with the spaces that the format allows.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};

use super::TensorInfo;
use super::error::{FormatError, Item};
use super::writer::safetensors_header;

/// A safetensors file that grows tensor by tensor.
pub struct GrowingSafetensors<W> {
    out: W,
    file: String,
    /// Bytes before the data.
    room: u64,
    /// Bytes of data so far.
    end: u64,
    tensors: Vec<(TensorInfo, u64)>,
}

impl<W: Write + Seek> GrowingSafetensors<W> {
    /// Begins a file at the start of `out`; `file` names it in errors. `metadata` and `tensors` are as long as they can become:
    /// their header is the room that is left.
    pub fn begin(
        out: W,
        file: impl Into<String>,
        metadata: &BTreeMap<String, String>,
        tensors: &[TensorInfo],
    ) -> Result<Self, FormatError> {
        let mut growing = Self { out, file: file.into(), room: 0, end: 0, tensors: Vec::new() };
        // Offsets of 20 digits are the longest.
        let longest = safetensors_header(metadata, tensors.iter().map(|info| (info, u64::MAX)));
        growing.room = longest.map_err(|(item, reason)| growing.unwritable(item, reason))?.len() as u64;
        let sought = growing.out.seek(SeekFrom::Start(growing.room));
        growing.io(sought.map(|_| ()))?;
        Ok(growing)
    }

    /// Appends a tensor.
    pub fn write(&mut self, info: &TensorInfo, bytes: &[u8]) -> Result<(), FormatError> {
        if info.byte_len() != bytes.len() as u64 {
            let reason = format!("its shape takes {} bytes, {} came", info.byte_len(), bytes.len());
            return Err(self.unwritable(Item::Tensor(info.name.clone()), &reason));
        }
        let written = self.out.write_all(bytes);
        self.io(written)?;
        self.tensors.push((info.clone(), self.end));
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Writes the header.
    pub fn finish(mut self, metadata: &BTreeMap<String, String>) -> Result<W, FormatError> {
        let header = safetensors_header(metadata, self.tensors.iter().map(|(info, begin)| (info, *begin)));
        let mut header = header.map_err(|(item, reason)| self.unwritable(item, reason))?;
        if header.len() as u64 > self.room {
            let reason = format!("it takes {} bytes where {} were left for it", header.len(), self.room);
            return Err(self.unwritable(Item::Header, &reason));
        }
        header.resize(self.room as usize, b' ');
        header[..8].copy_from_slice(&(self.room - 8).to_le_bytes());
        let written = self.out.seek(SeekFrom::Start(0)).and_then(|_| self.out.write_all(&header));
        self.io(written)?;
        let flushed = self.out.flush();
        self.io(flushed)?;
        Ok(self.out)
    }

    fn unwritable(&self, item: Item, reason: &str) -> FormatError {
        FormatError::Unwritable { file: self.file.clone(), item, reason: reason.to_owned() }
    }

    fn io(&self, result: std::io::Result<()>) -> Result<(), FormatError> {
        result.map_err(|source| FormatError::Io { file: self.file.clone(), action: "write", source })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::format::{Checkpoint, Dtype, Meta};

    fn info(name: &str, len: u64) -> TensorInfo {
        TensorInfo::new(name, vec![len], Dtype::U32).unwrap()
    }

    #[test]
    fn what_grew_is_read_back() {
        let note = |text: &str| BTreeMap::from([("note".to_owned(), text.to_owned())]);
        let longest = [info("a", u64::MAX / 16), info("b", u64::MAX / 16)];
        let mut growing = GrowingSafetensors::begin(Cursor::new(Vec::new()), "m", &note("????"), &longest).unwrap();
        growing.write(&info("b", 1), &[1, 2, 3, 4]).unwrap();
        assert!(growing.write(&info("a", 2), &[0; 4]).unwrap_err().to_string().contains("takes 8 bytes, 4 came"));
        growing.write(&info("a", 2), &[5; 8]).unwrap();
        let file = growing.finish(&note("done")).unwrap().into_inner();
        let checkpoint = Checkpoint::from_files(vec![("m.safetensors".to_owned(), file)]).unwrap();
        assert_eq!(checkpoint.tensor("a").unwrap().1, [5; 8]);
        assert_eq!(checkpoint.tensor("b").unwrap().1, [1, 2, 3, 4]);
        assert!(matches!(checkpoint.meta(), Meta::HuggingFace { st_metadata, .. } if st_metadata["note"] == "done"));
    }

    #[test]
    fn a_header_longer_than_its_room_is_refused() {
        let growing = GrowingSafetensors::begin(Cursor::new(Vec::new()), "m", &BTreeMap::new(), &[]).unwrap();
        let long = BTreeMap::from([("note".to_owned(), "x".repeat(100))]);
        assert!(growing.finish(&long).unwrap_err().to_string().contains("were left for it"));
    }
}
