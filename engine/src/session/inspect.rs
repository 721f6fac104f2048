//! Describes a model's file: metadata, tensors, statistics of one tensor. Needs no GPU.

use serde_json::Value;

use super::report::{Inspection, Model, TensorRow, TensorStatistics};
use crate::codec::{CodecError, PACKED_KEY, Stored, StoredTensor};
use crate::format::{CHECKSUMS_KEY, GgufArray, GgufValue, Meta};
use crate::model::rotation_of;
use crate::progress::{Cancelled, Monitor};
use crate::spelling::nearest;

/// Longest metadata value shown, in characters.
const LONGEST: usize = 120;
/// Bins of a histogram.
const BINS: usize = 41;
/// Weights decoded at a time.
const SLICE: usize = 1 << 20;
/// How many values are shown.
const FIRST: usize = 8;

/// Why a tensor could not be described.
#[derive(Debug, thiserror::Error)]
pub(super) enum InspectError {
    #[error("{file} has no tensor {tensor:?}{}", .near.as_ref().map(|n| format!("; did you mean {n:?}?")).unwrap_or_default())]
    NoTensor { file: String, tensor: String, near: Option<String> },
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// A model as its file describes it.
pub(super) fn model(stored: &Stored) -> Model {
    let checkpoint = stored.checkpoint();
    let architecture = match checkpoint.meta() {
        Meta::Gguf(meta) => meta.str("general.architecture").unwrap_or_default().to_owned(),
        Meta::HuggingFace { config, .. } => {
            config.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
    };
    Model {
        name: checkpoint.name().to_owned(),
        architecture,
        parameters: stored.tensors().iter().map(StoredTensor::elements).fold(0, u64::saturating_add),
        file_bytes: checkpoint.file_bytes(),
        rotation: rotation_of(checkpoint),
    }
}

/// Describes a model, and one of its tensors when it is named.
pub(super) fn inspect(stored: &Stored, tensor: Option<&str>, monitor: &Monitor) -> Result<Inspection, InspectError> {
    // The list of packed tensors is left out, which is what `tensors` shows, and so are checksums.
    let metadata = match stored.checkpoint().meta() {
        Meta::Gguf(meta) => {
            let pairs = meta.iter().filter(|(key, _)| ![PACKED_KEY, CHECKSUMS_KEY].contains(key));
            pairs.map(|(key, value)| (key.to_owned(), shorten(&gguf_value(value)))).collect()
        }
        Meta::HuggingFace { config, st_metadata, .. } => {
            let config = config.as_object().into_iter().flatten();
            let config = config.map(|(key, value)| (key.clone(), shorten(&value.to_string())));
            let own = st_metadata.iter().filter(|(key, _)| ![PACKED_KEY, CHECKSUMS_KEY].contains(&key.as_ref()));
            config.chain(own.map(|(key, value)| (format!("__metadata__.{key}"), shorten(value)))).collect()
        }
    };
    // A safetensors file can carry the metadata of a GGUF file, but no GGUF file is called safetensors.
    let safetensors = stored.checkpoint().name().ends_with(".safetensors");
    let gguf = matches!(stored.checkpoint().meta(), Meta::Gguf(_)) && !safetensors;
    Ok(Inspection {
        model: model(stored),
        container: if gguf { "GGUF" } else { "safetensors" }.to_owned(),
        metadata,
        tensors: stored.tensors().iter().map(row).collect(),
        statistics: tensor.map(|name| statistics(stored, name, monitor)).transpose()?,
    })
}

fn row(tensor: &StoredTensor) -> TensorRow {
    TensorRow {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        dtype: tensor.encoding.clone(),
        bytes: tensor.bytes,
    }
}

fn shorten(text: &str) -> String {
    let line = text.replace(['\n', '\r', '\t'], " ");
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

fn gguf_value(value: &GgufValue) -> String {
    let array = |array: &GgufArray| {
        let first = match array {
            GgufArray::Str(v) => v.iter().take(4).map(|s| format!("{s:?}")).collect(),
            GgufArray::F32(v) => v.iter().take(4).map(f32::to_string).collect(),
            other => {
                other.to_u64s().map(|v| v.iter().take(4).map(u64::to_string).collect::<Vec<_>>()).unwrap_or_default()
            }
        };
        let more = if first.len() < array.len() { ", …" } else { "" };
        format!("{} × {}: [{}{more}]", array.len(), array.type_name(), first.join(", "))
    };
    match value {
        GgufValue::Str(s) => s.clone(),
        GgufValue::Bool(b) => b.to_string(),
        GgufValue::Array(a) => array(a),
        GgufValue::F32(v) => v.to_string(),
        GgufValue::F64(v) => v.to_string(),
        GgufValue::I8(v) => v.to_string(),
        GgufValue::I16(v) => v.to_string(),
        GgufValue::I32(v) => v.to_string(),
        GgufValue::I64(v) => v.to_string(),
        GgufValue::U8(v) => v.to_string(),
        GgufValue::U16(v) => v.to_string(),
        GgufValue::U32(v) => v.to_string(),
        GgufValue::U64(v) => v.to_string(),
    }
}

fn statistics(stored: &Stored, name: &str, monitor: &Monitor) -> Result<TensorStatistics, InspectError> {
    let missing = || InspectError::NoTensor {
        file: stored.checkpoint().name().to_owned(),
        tensor: name.to_owned(),
        near: nearest(name, stored.tensors().iter().map(|t| t.name.as_str())).map(str::to_owned),
    };
    let tensor = stored.tensor(name).ok_or_else(missing)?;
    let packed = stored.load(name)?.ok_or_else(missing)?;
    // Decoded a slice at a time: a tensor may be larger as f32 than memory allows.
    let step = (SLICE / packed.cols.max(1)).max(1).next_multiple_of(packed.row_granularity());
    let rows = if packed.cols == 0 { 0 } else { packed.rows }; // rows of nothing take no bytes: there may be 2^60 of them
    let slices = || {
        let part = |row: usize| packed.rows(row..rows.min(row + step)).map(|part| part.decode());
        (0..rows).step_by(step).map(part)
    };

    let mut moments = Moments::default();
    let mut first = Vec::new();
    for part in slices() {
        let part: Vec<f32> = part?;
        monitor.check()?;
        first.extend(part.iter().take(FIRST - first.len()));
        part.iter().for_each(|&v| moments.add(f64::from(v)));
    }
    let mut histogram = vec![0u64; BINS];
    let span = moments.max - moments.min;
    for part in slices() {
        monitor.check()?;
        for v in part?.into_iter().map(f64::from).filter(|v| v.is_finite()) {
            let bin = if span > 0.0 { ((v - moments.min) / span * BINS as f64) as usize } else { 0 };
            histogram[bin.min(BINS - 1)] += 1;
        }
    }
    let finite = (moments.count - moments.not_finite).max(1) as f64;
    let deviation = (moments.m2 / finite).sqrt();
    Ok(TensorStatistics {
        tensor: row(tensor),
        min: if moments.min.is_finite() { moments.min } else { 0.0 },
        max: if moments.max.is_finite() { moments.max } else { 0.0 },
        mean: moments.mean,
        standard_deviation: deviation,
        zeros: moments.zeros as f64 / moments.count.max(1) as f64,
        not_finite: moments.not_finite,
        kurtosis: if moments.m2 > 0.0 { finite * moments.m4 / (moments.m2 * moments.m2) - 3.0 } else { 0.0 },
        histogram,
        first,
    })
}

/// Central moments in one pass (Pébay 2008, the update for one value).
struct Moments {
    count: u64,
    not_finite: u64,
    zeros: u64,
    min: f64,
    max: f64,
    mean: f64,
    m2: f64,
    m3: f64,
    m4: f64,
}

impl Default for Moments {
    fn default() -> Self {
        let (min, max) = (f64::INFINITY, f64::NEG_INFINITY);
        Self { count: 0, not_finite: 0, zeros: 0, min, max, mean: 0.0, m2: 0.0, m3: 0.0, m4: 0.0 }
    }
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1;
        if !value.is_finite() {
            self.not_finite += 1;
            return;
        }
        self.zeros += u64::from(value == 0.0);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let n = (self.count - self.not_finite) as f64;
        let delta = value - self.mean;
        let delta_n = delta / n;
        let term = delta * delta_n * (n - 1.0);
        self.mean += delta_n;
        self.m4 += term * delta_n * delta_n * (n * n - 3.0 * n + 3.0) + 6.0 * delta_n * delta_n * self.m2
            - 4.0 * delta_n * self.m3;
        self.m3 += term * delta_n * (n - 2.0) - 3.0 * delta_n * self.m2;
        self.m2 += term;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_definition() {
        let values = [3.0, -1.0, 0.0, 7.5, f64::NAN, 2.0];
        let mut moments = Moments::default();
        values.iter().for_each(|&v| moments.add(v));
        let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let mean = finite.iter().sum::<f64>() / 5.0;
        let central = |p: i32| finite.iter().map(|v| (v - mean).powi(p)).sum::<f64>();
        assert!((moments.mean - mean).abs() < 1e-12);
        assert!((moments.m2 - central(2)).abs() < 1e-9);
        assert!((moments.m4 - central(4)).abs() < 1e-8);
        assert_eq!((moments.not_finite, moments.zeros, moments.min, moments.max), (1, 1, -1.0, 7.5));
    }
}
