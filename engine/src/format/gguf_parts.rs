//! GGUF checkpoints, whole or split by llama.cpp's `gguf-split` into `name-00001-of-00003.gguf` and so on. Each part is
//! a complete GGUF file; the first carries the model's metadata, all carry `split.no` and `split.count`.

use std::collections::HashMap;

use super::bytes::FileBytes;
use super::error::{FETCH_AGAIN, FormatError, Item};
use super::folder::Folder;
use super::{Checkpoint, GgufMetadata, Meta, TensorInfo, gguf};

/// The name of one part of a split file.
pub(super) struct PartName<'a> {
    prefix: &'a str,
    /// Counted from 1.
    pub number: u32,
    count: u32,
}

impl<'a> PartName<'a> {
    pub fn parse(name: &'a str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let part = Self { prefix, number: number.parse().ok()?, count: count.parse().ok()? };
        (part.with_number(part.number) == name).then_some(part)
    }

    fn with_number(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count)
    }
}

/// Opens a GGUF file whose bytes are at hand, and the other parts if it is split.
pub(super) fn open_gguf(folder: Folder, name: &str, bytes: FileBytes) -> Result<Checkpoint, FormatError> {
    let label = folder.label(name);
    let file = bytes.header(&label, |head, size| gguf::parse(&label, 0, head, size))?;
    let parts = file.metadata.u32("split.count").unwrap_or(1);
    if parts > 1 {
        return open_split(folder, name, bytes, parts);
    }
    let index = index_tensors(&file.tensors, &[label])?;
    Ok(Checkpoint::assemble(name.to_owned(), vec![bytes], file.tensors, index, Meta::Gguf(file.metadata)))
}

/// Opens all parts of a split file; `bytes` are those of the part called `name`.
fn open_split(mut folder: Folder, name: &str, bytes: FileBytes, count: u32) -> Result<Checkpoint, FormatError> {
    let Some(split) = PartName::parse(name).filter(|split| split.count == count) else {
        return Err(FormatError::Missing {
            file: folder.label(name),
            missing: format!("the part number in the name of a file that is one of {count} parts"),
            remedy: "name it …-00001-of-0000N.gguf like its siblings, or merge them with llama-gguf-split --merge",
        });
    };
    let mut at_hand = Some(bytes);
    let (mut files, mut tensors, mut labels, mut metadata) = (vec![], vec![], vec![], GgufMetadata::new());
    for number in 1..=count {
        let part_name = split.with_number(number);
        let label = folder.label(&part_name);
        let bytes = match at_hand.take_if(|_| part_name == name) {
            Some(bytes) => bytes,
            None => folder.weights(&part_name)?,
        };
        let part = bytes.header(&label, |head, size| gguf::parse(&label, number - 1, head, size))?;
        let split_no = part.metadata.u32("split.no");
        if split_no != Some(number - 1) || part.metadata.u32("split.count") != Some(count) {
            let missing =
                format!("part {number} of {count} (the file calls itself part {split_no:?}, counted from 0,)");
            return Err(FormatError::Missing { file: label, missing, remedy: "fetch all parts of the model again" });
        }
        files.push(bytes);
        tensors.extend(part.tensors);
        labels.push(label);
        if number == 1 {
            metadata = part.metadata;
        }
    }
    let index = index_tensors(&tensors, &labels)?;
    Ok(Checkpoint::assemble(split.with_number(1), files, tensors, index, Meta::Gguf(metadata)))
}

/// Names to places in the list; a name that occurs in two files is an error. `labels` names the files.
pub(super) fn index_tensors(tensors: &[TensorInfo], labels: &[String]) -> Result<HashMap<String, usize>, FormatError> {
    let mut index = HashMap::with_capacity(tensors.len());
    for (place, info) in tensors.iter().enumerate() {
        if let Some(first) = index.insert(info.name.clone(), place) {
            return Err(FormatError::Invalid {
                file: labels[info.file()].clone(),
                item: Item::Tensor(info.name.clone()),
                offset: info.offset(),
                reason: format!("a tensor of this name is also in {}", labels[tensors[first].file()]),
                remedy: FETCH_AGAIN,
            });
        }
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_names() {
        let part = PartName::parse("a-of-b-00002-of-00003.gguf").expect("a part");
        assert_eq!((part.prefix, part.number, part.count), ("a-of-b", 2, 3));
        assert_eq!(part.with_number(1), "a-of-b-00001-of-00003.gguf");
        for name in ["model.gguf", "m-2-of-3.gguf", "m-00002-of-00003.bin", "m-+0002-of-00003.gguf", "-of-.gguf"] {
            assert!(PartName::parse(name).is_none(), "{name}");
        }
    }
}
