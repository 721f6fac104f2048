//! The file that is written: GGUF, whose tensors' places are known beforehand, or safetensors, which grows, because how long
//! entropy-coded planes become is known only when they are.
//!
//! Either holds a checksum of every tensor (`format::Checksums`).

use std::collections::BTreeMap;

use super::{CompressError, Plan};
use crate::codec::{CodecError, PACKED_KEY, Packed, PackedList};
use crate::format::{
    AtomicFile, CHECKSUMS_KEY, CheckpointWriter, Checksums, Dtype, FormatError, GgufMetadata, GrowingSafetensors, Meta,
    TensorInfo, embed,
};

/// Version of ggml's block layouts, which GGUF files with quantized tensors have to state.
const QUANTIZATION_VERSION: u32 = 2;

/// A compressed model's file while it is written.
pub(super) struct Output<'a> {
    checksums: Checksums,
    container: Container<'a>,
}

enum Container<'a> {
    Gguf {
        writer: CheckpointWriter<&'a mut AtomicFile>,
        metadata: GgufMetadata,
        places: Vec<TensorInfo>,
    },
    Safetensors {
        writer: GrowingSafetensors<&'a mut AtomicFile>,
        entries: BTreeMap<String, String>,
        /// The tensors that are packed.
        list: PackedList,
    },
}

impl<'a> Output<'a> {
    /// Begins a GGUF file for these tensors.
    pub(super) fn gguf(
        file: &'a mut AtomicFile,
        name: String,
        mut metadata: GgufMetadata,
        plans: &[Plan],
    ) -> Result<Self, CompressError> {
        let place = |plan: &Plan| {
            let dtype = plan.dtype().filter(|dtype| dtype.ggml_id().is_some());
            let dtype = dtype.ok_or_else(|| CompressError::NotInGguf {
                codec: plan.codec.as_ref().map_or_else(|| plan.tensor.encoding.clone(), |codec| codec.name()),
                tensor: plan.tensor.name.clone(),
            })?;
            place(plan, dtype)
        };
        let places: Vec<TensorInfo> = plans.iter().map(place).collect::<Result<_, CompressError>>()?;
        metadata.set("general.quantization_version", QUANTIZATION_VERSION);
        let checksums = announced(&places);
        metadata.set(CHECKSUMS_KEY, checksums.metadata());
        let writer = CheckpointWriter::gguf(file, name, &metadata, &places)?;
        Ok(Self { checksums, container: Container::Gguf { writer, metadata, places } })
    }

    /// Begins a safetensors file for these tensors, which will come in this order.
    pub(super) fn safetensors(
        file: &'a mut AtomicFile,
        name: String,
        metadata: &Meta,
        plans: &[Plan],
    ) -> Result<Self, CompressError> {
        // What the header will have, with the longest numbers there can be.
        let (mut list, mut places) = (PackedList::default(), Vec::new());
        for plan in plans {
            match (plan.dtype().filter(in_safetensors), &plan.codec) {
                (Some(dtype), _) => places.push(place(plan, dtype)?),
                (None, Some(codec)) => {
                    places.extend(list.add(&plan.tensor.name, &plan.tensor.shape, codec, &[u64::MAX / 16; 8])?);
                }
                (None, None) => {} // a plain type always has a name there
            }
        }
        let entries = embed(metadata)?;
        let longest = with_lists(entries.clone(), list, &announced(&places));
        let writer = GrowingSafetensors::begin(file, name, &longest, &places)?;
        let container = Container::Safetensors { writer, entries, list: PackedList::default() };
        Ok(Self { checksums: Checksums::default(), container })
    }

    /// Whether the file can hold the type as such.
    pub(super) fn has(&self, dtype: Dtype) -> bool {
        match self.container {
            Container::Gguf { .. } => dtype.ggml_id().is_some(),
            Container::Safetensors { .. } => in_safetensors(&dtype),
        }
    }

    /// Writes a tensor as bytes of a type that the file [has](Self::has).
    pub(super) fn plain(&mut self, plan: &Plan, dtype: Dtype, bytes: &[u8]) -> Result<(), CompressError> {
        let place = place(plan, dtype)?;
        Ok(self.put(&place, bytes)?)
    }

    /// Writes a packed tensor: as the type that the file has for it, or plane by plane. Returns its bytes.
    pub(super) fn packed(&mut self, plan: &Plan, packed: &Packed) -> Result<u64, CompressError> {
        if let Some(dtype) = packed.codec.dtype().filter(|dtype| self.has(*dtype)) {
            let bytes = packed.codec.export(packed);
            let bytes = bytes.ok_or_else(|| CodecError::NoFileType { codec: packed.codec.name() })?;
            self.plain(plan, dtype, &bytes)?;
            return Ok(bytes.len() as u64);
        }
        let Container::Safetensors { list, .. } = &mut self.container else {
            return Err(CodecError::NoFileType { codec: packed.codec.name() }.into());
        };
        let lengths: Vec<u64> = packed.planes.iter().map(|plane| plane.data.len() as u64).collect();
        let places = list.add(&plan.tensor.name, &plan.tensor.shape, &packed.codec, &lengths)?;
        for (place, plane) in places.iter().zip(&packed.planes) {
            let bytes: Vec<u8> = plane.data.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.put(place, &bytes)?;
        }
        Ok(packed.bytes())
    }

    fn put(&mut self, place: &TensorInfo, bytes: &[u8]) -> Result<(), FormatError> {
        self.checksums.add(&place.name, bytes);
        match &mut self.container {
            Container::Gguf { writer, .. } => writer.write(&place.name, bytes),
            Container::Safetensors { writer, .. } => writer.write(place, bytes),
        }
    }

    /// Ends the file.
    pub(super) fn finish(self) -> Result<(), CompressError> {
        match self.container {
            Container::Gguf { mut writer, mut metadata, places } => {
                metadata.set(CHECKSUMS_KEY, self.checksums.metadata());
                writer.replace_gguf_header(&metadata, &places)?;
                writer.finish()?;
            }
            Container::Safetensors { writer, entries, list } => {
                writer.finish(&with_lists(entries, list, &self.checksums))?;
            }
        }
        Ok(())
    }
}

/// Checksums of tensors that are not there yet, which take as much room as the real ones.
fn announced(places: &[TensorInfo]) -> Checksums {
    let mut checksums = Checksums::default();
    places.iter().for_each(|place| checksums.add(&place.name, &[]));
    checksums
}

fn with_lists(
    mut entries: BTreeMap<String, String>,
    list: PackedList,
    checksums: &Checksums,
) -> BTreeMap<String, String> {
    entries.extend(list.metadata().map(|text| (PACKED_KEY.to_owned(), text)));
    entries.insert(CHECKSUMS_KEY.to_owned(), checksums.metadata());
    entries
}

/// Bytes of an element of the tensor in a safetensors file: of its type, or of the words of its planes.
pub(super) fn element_bytes(plan: &Plan) -> usize {
    plan.dtype().filter(in_safetensors).unwrap_or(Dtype::U32).block_bytes()
}

fn in_safetensors(dtype: &Dtype) -> bool {
    dtype.safetensors_name().is_some()
}

fn place(plan: &Plan, dtype: Dtype) -> Result<TensorInfo, CompressError> {
    let (name, shape) = (&plan.tensor.name, &plan.tensor.shape);
    let size = |_| CodecError::Size { tensor: name.clone(), shape: shape.clone() };
    Ok(TensorInfo::new(name, shape.clone(), dtype).map_err(size)?)
}
