//! Statistics of a model's activations, gathered on the GPU: against activations that are read back and summed up in f64.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tersor_engine::codec::Calibration;
use tersor_engine::gpu::{Buffer, Gpu, GpuOptions, Purpose, Recorder};
use tersor_engine::model::names::Role;
use tersor_engine::model::{
    Calibrations, Config, Context, Decoder, Encoder, ModelError, Observer, Site, Wanted, Weights, calibrate,
    calibrate_encoder,
};
use tersor_engine::ops::linear::Rows;
use tersor_engine::progress::{Cancel, Monitor};
use tersor_engine::reference::moments::moments;
use tersor_tests::decoder::load;
use tersor_tests::families;
use tersor_tests::kernel::gpus;
use tersor_tests::models;

/// Two windows of tiny's bytes; the first leaves one token for a chunk of its own.
fn windows() -> Vec<Vec<u32>> {
    let text = std::fs::read(tersor_tests::golden::asset("tiny/heldout.txt")).unwrap();
    let ids: Vec<u32> = text.iter().map(|byte| u32::from(*byte)).collect();
    vec![ids[..129].to_vec(), ids[500..560].to_vec()]
}

const WANTED: [Wanted; 6] = [
    Wanted { role: Role::Q, layer: 1, site: Some(Site::Qkv) },
    Wanted { role: Role::V, layer: 1, site: Some(Site::Qkv) },
    Wanted { role: Role::O, layer: 0, site: Some(Site::O) },
    Wanted { role: Role::Gate, layer: 3, site: Some(Site::Up) },
    Wanted { role: Role::Down, layer: 2, site: Some(Site::Down) },
    Wanted { role: Role::Embed, layer: 0, site: Some(Site::Head) },
];

/// Activations `[tokens, cols]` at every place, read back.
fn activations(decoder: &Decoder, windows: &[Vec<u32>]) -> HashMap<(Site, u32), Vec<f32>> {
    let gpu = decoder.gpu();
    let mut all: HashMap<(Site, u32), Vec<f32>> = HashMap::new();
    for window in windows {
        let mut context = Context::new(decoder, window.len() as u32).unwrap();
        let ids = gpu.upload("ids", window, Purpose::Activations).unwrap();
        for first in (0..window.len()).step_by(context.chunk() as usize) {
            let tokens = (window.len() - first).min(context.chunk() as usize) as u32;
            let mut kept: Vec<((Site, u32), Buffer)> = Vec::new();
            let mut keep = |rec: &mut Recorder, site: Site, layer: u32, x: Rows| {
                assert_eq!(x.offset, 0);
                let bytes = 4 * u64::from(tokens) * u64::from(x.stride);
                let copy = gpu.storage("kept", bytes, Purpose::Activations)?;
                rec.copy(x.buffer, 0, &copy, 0, bytes);
                kept.push(((site, layer), copy));
                Ok(())
            };
            let mut rec = gpu.record();
            let observer: &mut Observer = &mut keep;
            decoder.forward(&mut rec, &mut context, &ids, first as u32, tokens, Some(observer)).unwrap();
            rec.submit().unwrap();
            for (place, copy) in kept {
                let floats = pollster::block_on(gpu.read::<f32>(&copy, 0, copy.size() / 4)).unwrap();
                all.entry(place).or_default().extend(floats);
            }
        }
    }
    all
}

fn gather(decoder: &Decoder, windows: &[Vec<u32>], monitor: &Monitor) -> Result<Calibrations, ModelError> {
    let list: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
    pollster::block_on(calibrate(decoder, &WANTED, &list, monitor))
}

/// The statistics are those of these inputs.
fn is_of(found: &Calibration, x: &[f32]) {
    let cols = found.cols();
    let tokens = (x.len() / cols) as f64;
    let (first, second) = moments(x, cols);
    assert_eq!(found.tokens(), tokens as u64);
    for i in 0..cols {
        let size = (second[i * cols + i] / tokens).sqrt();
        assert!((f64::from(found.mean()[i]) - first[i] / tokens).abs() < 1e-5 * size);
        for j in 0..cols {
            let bound = 1e-5 * size * (second[j * cols + j] / tokens).sqrt();
            let (is, expected) = (f64::from(found.second_moment()[i * cols + j]), second[i * cols + j] / tokens);
            assert!((is - expected).abs() <= bound, "[{i}, {j}]: {is} for {expected}");
        }
    }
}

#[test]
fn statistics_are_those_of_the_layers_inputs() {
    let tiny = models::open("tiny");
    for gpu in gpus() {
        let decoder = load(&gpu, &tiny, 256);
        let windows = windows();
        let seen = activations(&decoder, &windows);
        let found = gather(&decoder, &windows, &Monitor::none()).unwrap();
        assert_eq!(found.len(), WANTED.len());
        for wanted in WANTED.iter().filter(|w| w.site != Some(Site::Head)) {
            is_of(&found[&(wanted.role, wanted.layer)], &seen[&(wanted.site.unwrap(), wanted.layer)]);
        }
        assert!(Arc::ptr_eq(&found[&(Role::Q, 1)], &found[&(Role::V, 1)]), "one input, one statistic");

        // What queries are made of is the residual stream after the layer before, normed; what the head is, that after the last.
        let config = Config::read(&tiny).unwrap();
        let weights = Weights::new(&tiny, &config, None, None).unwrap();
        let normed = |x: &[f32], role, layer| -> Vec<f32> {
            let gain = weights.norm(role, layer, config.hidden).unwrap();
            let rows = x.chunks_exact(config.hidden as usize).flat_map(|row| {
                let square = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / row.len() as f64;
                let scale = 1.0 / (square + f64::from(config.norm_eps)).sqrt();
                row.iter()
                    .zip(&gain)
                    .map(move |(v, g)| (f64::from(*v) * scale * f64::from(*g)) as f32)
                    .collect::<Vec<_>>()
            });
            rows.collect()
        };
        is_of(&found[&(Role::Q, 1)], &normed(&seen[&(Site::Stream, 0)], Role::AttentionNorm, 1));
        is_of(&found[&(Role::Embed, 0)], &normed(&seen[&(Site::Stream, 3)], Role::FinalNorm, 0));
    }
}

/// A device with little memory sends the text through several times and finds the same.
#[test]
fn memory_is_bounded_by_several_passes() {
    let tiny = models::open("tiny");
    let plenty = &gpus()[0];
    let expected = gather(&load(plenty, &tiny, 256), &windows(), &Monitor::none()).unwrap();

    let used = plenty.memory().peak;
    let options = GpuOptions { memory: Some(used + (1 << 20)), ..GpuOptions::from_env().unwrap() };
    let small = pollster::block_on(Gpu::new(options)).unwrap();
    let decoder = load(&small, &tiny, 256);
    let totals = Arc::new(Mutex::new(Vec::new()));
    let seen = totals.clone();
    let monitor = Monitor::new(Cancel::new(), move |progress| seen.lock().unwrap().push(progress.total));
    let found = gather(&decoder, &windows(), &monitor).unwrap();
    let tokens: u64 = windows().iter().map(|window| window.len() as u64).sum();
    assert!(totals.lock().unwrap().iter().all(|total| *total >= 2 * tokens && total % tokens == 0));
    for (place, calibration) in &expected {
        for (a, b) in calibration.second_moment().iter().zip(found[place].second_moment()) {
            assert!((a - b).abs() <= 1e-4 * (a.abs() + 1e-3), "{place:?}: {a} and {b}");
        }
    }
}

#[test]
fn a_calibration_can_be_cancelled() {
    let decoder = load(&gpus()[0], &models::open("tiny"), 256);
    let cancel = Cancel::new();
    let switch = cancel.clone();
    let monitor = Monitor::new(cancel, move |progress| {
        if progress.done > 0 {
            switch.cancel();
        }
    });
    assert!(matches!(gather(&decoder, &windows(), &monitor), Err(ModelError::Cancelled(_))));
}

/// An encoder's layers are watched as well: the mean square of what a layer norm makes is that of its weights and biases.
#[test]
fn encoders_calibrate_too() {
    let gpu = &gpus()[0];
    let bert = families::open("bert", "config.json");
    let config = Config::read(&bert).unwrap();
    let mut weights = Weights::new(&bert, &config, None, None).unwrap();
    let gain = weights.norm(Role::MlpNorm, 0, config.hidden).unwrap();
    let bias = weights.bias(Role::MlpNorm, 0, config.hidden).unwrap().unwrap();
    let (layers, hidden) = (config.layers, config.hidden as usize);
    assert!(layers > 1);
    let encoder = pollster::block_on(Encoder::load(gpu, config, weights, "bert", &Monitor::none())).unwrap().0;
    let wanted = [Wanted { role: Role::Q, layer: 1, site: Some(Site::Qkv) }];
    let texts: [&[u32]; 2] = [&[1, 5, 9, 2], &[1, 7, 2]];
    let found = pollster::block_on(calibrate_encoder(&encoder, &wanted, &texts, &Monitor::none())).unwrap();
    let found = &found[&(Role::Q, 1)];
    assert_eq!((found.tokens(), found.cols()), (7, hidden));
    // (y − b) / g has mean 0 and mean square 1 over each token's columns, and so over all: Σ_i (M_ii − 2 b_i μ_i + b_i²) / g_i² = hidden.
    let sum: f64 = (0..hidden)
        .map(|i| {
            let [g, b, mean] = [gain[i], bias[i], found.mean()[i]].map(f64::from);
            (f64::from(found.second_moment()[i * hidden + i]) - 2.0 * b * mean + b * b) / (g * g)
        })
        .sum();
    assert!((sum / hidden as f64 - 1.0).abs() < 1e-3, "{sum}");
}
