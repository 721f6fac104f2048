//! A model as a DFloat11 checkpoint, the way other software reads it: a Hugging Face folder, or one safetensors file that has the
//! folder's other files in its header.
//!
//! The matrices of a layer are one group, every other matrix is one by itself (`codec::dfloat11::Container` is the reader).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::{CompressError, Plan, Source, Weights, WeightsReport};
use crate::codec::dfloat11::{DFloat11, Group, Refused, bf16_bits, config_entry};
use crate::codec::{CodecError, nmse, parse};
use crate::format::{
    AtomicFile, CHECKSUMS_KEY, Checksums, Dtype, FILE_PREFIX, FormatError, GrowingSafetensors, Meta, TensorInfo, embed,
};
use crate::progress::{Monitor, Unit};
use crate::session::report::TensorError;

/// The layers of a block in the order of published files.
const ORDER: [&str; 9] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.qkv_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.gate_up_proj",
    "mlp.down_proj",
];

/// A module's matrices: their paths inside it (none where it is one itself) and the numbers of their plans.
struct Module {
    name: String,
    members: Vec<(String, usize)>,
}

impl Module {
    fn layers(&self) -> Vec<String> {
        self.members.iter().map(|(path, _)| path.clone()).filter(|path| !path.is_empty()).collect()
    }
}

/// Whether the plans are for a file of this kind: there are lossless matrices, and the rest are of types that safetensors has.
pub(super) fn applies(meta: &Meta, plans: &[Plan]) -> bool {
    let lossless = |plan: &Plan| plan.codec.as_ref().is_some_and(|codec| codec.name() == DFloat11::NAME);
    let plain = |plan: &Plan| plan.dtype().is_some_and(|dtype| dtype.safetensors_name().is_some());
    matches!(meta, Meta::HuggingFace { config: Value::Object(_), .. })
        && plans.iter().any(lossless)
        && plans.iter().all(|plan| lossless(plan) || plain(plan))
}

/// The modules of the lossless matrices, in the order of their first tensors. `kept`: plans that stay as they are.
fn modules(plans: &[Plan], kept: &[usize]) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        let lossless = plan.codec.as_ref().is_some_and(|codec| codec.name() == DFloat11::NAME);
        if !lossless || kept.contains(&number) {
            continue;
        }
        let stem = plan.tensor.name.strip_suffix(".weight").unwrap_or(&plan.tensor.name);
        let (name, path) = split(stem);
        match modules.iter_mut().find(|module| module.name == name && !path.is_empty()) {
            Some(module) => module.members.push((path.to_owned(), number)),
            None => modules.push(Module { name: name.to_owned(), members: vec![(path.to_owned(), number)] }),
        }
    }
    let place = |path: &str| ORDER.iter().position(|known| *known == path).unwrap_or(ORDER.len());
    modules.iter_mut().for_each(|module| module.members.sort_by_key(|(path, _)| place(path)));
    modules
}

/// The block that a linear layer is in, and its path there: `model.layers.3` and `mlp.up_proj`; of others the whole and nothing.
fn split(stem: &str) -> (&str, &str) {
    let Some(at) = stem.find("layers.") else { return (stem, "") };
    let after = at + "layers.".len();
    match stem[after..].split_once('.') {
        Some((number, path)) if number.bytes().all(|b| b.is_ascii_digit()) => (&stem[..after + number.len()], path),
        _ => (stem, ""),
    }
}

/// A safetensors file while it grows.
struct File<'a> {
    writer: GrowingSafetensors<&'a mut AtomicFile>,
    checksums: Checksums,
}

impl File<'_> {
    fn put(&mut self, name: &str, shape: &[u64], dtype: Dtype, bytes: &[u8]) -> Result<(), CompressError> {
        let info = info(name, shape, dtype)?;
        self.checksums.add(name, bytes);
        Ok(self.writer.write(&info, bytes)?)
    }
}

fn info(name: &str, shape: &[u64], dtype: Dtype) -> Result<TensorInfo, CompressError> {
    let size = |_| CodecError::Size { tensor: name.to_owned(), shape: shape.to_vec() };
    Ok(TensorInfo::new(name, shape.to_vec(), dtype).map_err(size)?)
}

/// Writes the model into `output`, a folder if it has no ending.
pub(super) fn write(
    source: &mut Source<'_>,
    plans: &[Plan],
    mut meta: Meta,
    output: &Path,
    monitor: &Monitor,
) -> Result<Weights, CompressError> {
    let folder = output.extension().is_none();
    if folder && std::fs::read_dir(output).is_ok_and(|mut files| files.next().is_some()) {
        return Err(CompressError::Occupied { output: output.display().to_string() });
    }
    let start = web_time::Instant::now();
    let kept = too_large(source, plans, monitor)?;
    let modules = modules(plans, &kept);
    if let Meta::HuggingFace { config: Value::Object(config), st_metadata, .. } = &mut meta {
        let groups: Vec<(String, Vec<String>)> = modules.iter().map(|m| (m.name.clone(), m.layers())).collect();
        config_entry(config, &groups);
        st_metadata.entry("format".to_owned()).or_insert("pt".to_owned());
    }
    let (files, mut entries): (BTreeMap<_, _>, BTreeMap<_, _>) =
        embed(&meta)?.into_iter().partition(|(key, _)| key.starts_with(FILE_PREFIX));
    let path = if folder {
        std::fs::create_dir_all(output).map_err(|source| FormatError::Io {
            file: output.display().to_string(),
            action: "create",
            source,
        })?;
        output.join("model.safetensors")
    } else {
        entries.extend(files.clone());
        output.to_owned()
    };
    let mut file = AtomicFile::create(&path)?;
    let weights =
        fill(source, plans, &kept, &modules, entries, (&mut file, path.display().to_string()), start, monitor)?;
    file.commit()?;
    if folder {
        for (name, text) in files {
            let path = output.join(name.trim_start_matches(FILE_PREFIX));
            let mut side = AtomicFile::create(&path)?;
            std::io::Write::write_all(&mut side, pretty(&text).as_bytes()).map_err(|source| FormatError::Io {
                file: path.display().to_string(),
                action: "write",
                source,
            })?;
            side.commit()?;
        }
    }
    Ok(weights)
}

/// Small JSON as people read it; a vocabulary stays as it is.
fn pretty(text: &str) -> String {
    let readable =
        |text: &str| serde_json::to_string_pretty(&serde_json::from_str::<Map<String, Value>>(text).ok()?).ok();
    if text.len() > 1 << 16 { text.to_owned() } else { readable(text).map_or(text.to_owned(), |json| json + "\n") }
}

/// Matrices with weights that the format cannot hold: they stay bf16. (Rotated ones are finite sums of such that it can.)
fn too_large(source: &mut Source<'_>, plans: &[Plan], monitor: &Monitor) -> Result<Vec<usize>, CompressError> {
    let mut kept = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        monitor.step("looking at weights", number as u64, plans.len() as u64, Unit::Tensors)?;
        let lossless = plan.codec.as_ref().is_some_and(|codec| codec.name() == DFloat11::NAME);
        if !lossless || matches!(plan.origin, super::Origin::Rotated(_)) {
            continue;
        }
        // 2^113; what is not a number is none of the smaller ones.
        let small = |w: &f32| w.abs() < f32::from_bits(240 << 23);
        if source.values(plan)?.is_some_and(|values| !bf16_bits(&values).iter().all(|w| small(&widened(*w)))) {
            kept.push(number);
        }
    }
    Ok(kept)
}

fn widened(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Writes the tensors, those of the largest elements first so that all are aligned.
fn fill(
    source: &mut Source<'_>,
    plans: &[Plan],
    kept: &[usize],
    modules: &[Module],
    entries: BTreeMap<String, String>,
    (file, name): (&mut AtomicFile, String),
    start: web_time::Instant,
    monitor: &Monitor,
) -> Result<Weights, CompressError> {
    let grouped = |number: usize| modules.iter().any(|m| m.members.iter().any(|(_, member)| *member == number));
    let mut plain: Vec<usize> = (0..plans.len()).filter(|number| !grouped(*number)).collect();
    let dtype = |number: usize| if kept.contains(&number) { Some(Dtype::BF16) } else { plans[number].dtype() };
    plain.sort_by_key(|&number| std::cmp::Reverse(dtype(number).map_or(0, |dtype| dtype.block_bytes())));

    // What the header will have, with the longest numbers there can be.
    let mut places = Vec::new();
    let mut longest = Checksums::default();
    for module in modules {
        for part in crate::codec::dfloat11::PARTS {
            places.push(info(&format!("{}.{part}", module.name), &[u64::MAX / 16], Dtype::U8)?);
        }
    }
    for &number in &plain {
        if let Some(dtype) = dtype(number) {
            places.push(info(&plans[number].tensor.name, &plans[number].tensor.shape, dtype)?);
        }
    }
    places.iter().for_each(|place| longest.add(&place.name, &[]));
    let with = |checksums: &Checksums| {
        let mut entries = entries.clone();
        entries.insert(CHECKSUMS_KEY.to_owned(), checksums.metadata());
        entries
    };
    let writer = GrowingSafetensors::begin(file, name, &with(&longest), &places)?;
    let mut file = File { writer, checksums: Checksums::default() };
    let mut weights = WeightsReport::default();
    let (mut done, total) = (0, plans.len() as u64);

    for module in modules {
        let mut end = 0;
        let mut splits = Vec::new();
        for (_, number) in &module.members[..module.members.len() - 1] {
            end += plans[*number].tensor.elements();
            splits.extend((end as i64).to_le_bytes());
        }
        file.put(&format!("{}.split_positions", module.name), &[splits.len() as u64 / 8], Dtype::I64, &splits)?;
    }
    for number in plain {
        monitor.step("compressing", done, total, Unit::Tensors)?;
        done += 1;
        let plan = &plans[number];
        let Some(dtype) = dtype(number) else { continue };
        let name = &plan.tensor.name;
        if plan.origin == super::Origin::Kept
            && let Some((info, bytes)) = source.stored.bytes(name)?
            && info.dtype == dtype
        {
            file.put(name, &plan.tensor.shape, dtype, &bytes)?; // bit for bit, whatever it is
            weights.add(plan, &plan.tensor.encoding.to_ascii_lowercase(), bytes.len() as u64);
            continue;
        }
        let (Some(values), Some([rows, cols])) = (source.values(plan)?, plan.tensor.matrix()) else { continue };
        let codec = parse(dtype.name())?;
        let failed = |source| CompressError::Tensor { tensor: name.clone(), source };
        let packed = codec.encode(&values, rows, cols).map_err(failed)?;
        let bytes = codec.export(&packed).ok_or_else(|| CodecError::NoFileType { codec: codec.name() })?;
        file.put(name, &plan.tensor.shape, dtype, &bytes)?;
        weights.add(plan, &codec.name(), bytes.len() as u64);
        if kept.contains(&number) {
            weights.kept(plan, &codec.name());
        }
    }
    for module in modules {
        let mut bits: Vec<u16> = Vec::new();
        let mut ends = Vec::new();
        for (_, number) in &module.members {
            monitor.step("compressing", done, total, Unit::Tensors)?;
            done += 1;
            let plan = &plans[*number];
            if let Some(values) = source.values(plan)? {
                let own = bf16_bits(&values);
                let error = nmse(&values, &own.iter().map(|bits| widened(*bits)).collect::<Vec<_>>());
                let (tensor, codec) = (plan.tensor.name.clone(), DFloat11::NAME.to_owned());
                weights.errors.push(TensorError { tensor, codec, nmse: error });
                bits.extend(own);
            }
            ends.push(bits.len());
        }
        let group = Group::encode(&bits).map_err(|why| refused(module, plans, why))?;
        let put = |file: &mut File, part: &str, shape: &[u64], bytes: &[u8]| {
            file.put(&format!("{}.{part}", module.name), shape, Dtype::U8, bytes)
        };
        let flat = |bytes: &[u8]| [bytes.len() as u64];
        let positions: Vec<u8> = group.output_positions.iter().flat_map(|n| n.to_le_bytes()).collect();
        put(&mut file, "luts", &[group.luts.len() as u64 / 256, 256], &group.luts)?;
        put(&mut file, "encoded_exponent", &flat(&group.encoded_exponent), &group.encoded_exponent)?;
        put(&mut file, "sign_mantissa", &flat(&group.sign_mantissa), &group.sign_mantissa)?;
        put(&mut file, "output_positions", &flat(&positions), &positions)?;
        put(&mut file, "gaps", &flat(&group.gaps), &group.gaps)?;
        // Every matrix has its share of the group's bytes.
        let share = |end: usize| (u128::from(group.bytes()) * end as u128 / bits.len().max(1) as u128) as u64;
        let mut first = 0;
        for ((_, number), end) in module.members.iter().zip(ends) {
            weights.add(&plans[*number], DFloat11::NAME, share(end) - share(first));
            first = end;
        }
    }
    monitor.report("compressing", total, total, Unit::Tensors);
    let checksums = with(&file.checksums);
    file.writer.finish(&checksums)?;
    Ok(weights.finish(start.elapsed().as_secs_f64()))
}

fn refused(module: &Module, plans: &[Plan], why: Refused) -> CompressError {
    let first = module.members.first().and_then(|(_, number)| plans.get(*number));
    CompressError::Tensor {
        tensor: first.map_or_else(|| module.name.clone(), |plan| plan.tensor.name.clone()),
        source: CodecError::Content { codec: DFloat11::NAME.into(), plane: 0, what: why.to_string() },
    }
}
