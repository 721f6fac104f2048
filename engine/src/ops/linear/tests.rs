//! Matrices larger than a binding: a split layer computes, bit for bit, what the whole one does.

use super::*;
use crate::codec;
use crate::gpu::{GpuOptions, Tune, Tuning};
use crate::ops::elementwise::Activation;

fn matrix(recipe: &str, rows: usize, cols: usize) -> Packed {
    let weights: Vec<f32> = (0..rows * cols).map(|i| ((i * 2654435761) % 1999) as f32 / 1000.0 - 1.0).collect();
    codec::parse(recipe).unwrap().encode(&weights, rows, cols).unwrap()
}

#[test]
fn splits_cover_all_outputs_within_the_limit() {
    for recipe in ["f32", "q4_0", "q8_0"] {
        for (rows, cols) in [(1, 32), (7, 64), (100, 96), (102, 32)] {
            let packed = matrix(recipe, rows, cols);
            let row_bytes = packed.bytes() / rows as u64;
            for gated in [false, true] {
                if gated && rows % 2 != 0 {
                    continue;
                }
                let halves = if gated { 2 } else { 1 };
                for limit in [2 * row_bytes, 5 * row_bytes, 1 << 30] {
                    let parts = split(&packed, gated, limit).unwrap();
                    assert_eq!(parts.first().unwrap().start, 0);
                    assert_eq!(parts.last().unwrap().end, rows / halves);
                    assert!(parts.windows(2).all(|w| w[0].end == w[1].start));
                    for part in parts {
                        let most = packed
                            .planes
                            .iter()
                            .map(|p| 4 * p.layout().words(halves * part.len()).unwrap() as u64)
                            .max();
                        assert!(most <= Some(limit), "{recipe} [{rows}, {cols}] {part:?}: {most:?} > {limit}");
                    }
                }
            }
        }
    }
    assert!(split(&matrix("f32", 4, 64), false, 255).is_err(), "not even one row fits");
}

#[test]
fn a_split_layer_computes_what_the_whole_one_does() {
    pollster::block_on(async {
        let gpu = Gpu::new(GpuOptions::from_env().unwrap()).await.unwrap();
        let (rows, cols, tokens) = (50u32, 64u32, 3u32);
        let floats: Vec<f32> = (0..200).map(|i| (i % 23) as f32 / 10.0 - 1.0).collect();
        let upload = |data: &[f32]| gpu.upload("test", data, Purpose::Activations).unwrap();
        let (x, bias) = (upload(&floats[..(tokens * cols) as usize]), upload(&floats[..rows as usize]));
        for recipe in ["bf16", "q4_0"] {
            let packed = matrix(recipe, rows as usize, cols as usize);
            for gated in [false, true] {
                let outputs = if gated { rows / 2 } else { rows };
                let mut results = Vec::new();
                for limit in [1 << 20, packed.bytes() / 6] {
                    let linear = Linear::upload_split(&gpu, &packed, "w", gated, limit).unwrap();
                    assert_eq!(linear.chunks() > 1, limit < packed.bytes());
                    assert_eq!(linear.bytes(), packed.bytes());
                    let y = upload(&vec![0.0; (tokens * outputs) as usize]);
                    let mut rec = gpu.record();
                    let epilogue =
                        Epilogue { bias: Some(&bias), activation: Some(Activation::Silu), ..Epilogue::default() };
                    let (xs, ys) = (Rows::new(&x, cols), Rows::new(&y, outputs));
                    forward(&mut rec, &linear, tokens, xs, ys, &epilogue).unwrap();
                    rec.submit().unwrap();
                    results.push(gpu.read::<f32>(&y, 0, u64::from(tokens * outputs)).await.unwrap());
                }
                assert_eq!(results[0], results[1], "{recipe}, gated: {gated}");
                assert!(results[0].iter().all(|v| *v != 0.0));
            }
        }
    });
}

/// How long the parts become is known only when they are cut.
#[test]
fn planes_of_variable_length_are_split() {
    pollster::block_on(async {
        let gpu = Gpu::new(GpuOptions::from_env().unwrap()).await.unwrap();
        let (rows, cols, tokens) = (602u32, 160u32, 2u32);
        // The last rows have more in them than the first.
        let weights =
            |i: u32| if i < 450 * cols { 0.5 } else { (i.wrapping_mul(2654435761) % 1999) as f32 / 1000.0 - 1.0 };
        let weights: Vec<f32> = (0..rows * cols).map(weights).collect();
        let floats: Vec<f32> = (0..tokens * cols).map(|i| (i % 23) as f32 / 10.0 - 1.0).collect();
        let x = gpu.upload("x", &floats, Purpose::Activations).unwrap();
        for recipe in ["entropy:bf16", "entropy:uniform:bits=8,group=32"] {
            let packed = codec::parse(recipe).unwrap().encode(&weights, rows as usize, cols as usize).unwrap();
            let longest = packed.planes.iter().map(|plane| 4 * plane.data.len() as u64).max().unwrap();
            for gated in [false, true] {
                let outputs = if gated { rows / 2 } else { rows };
                let mut results = Vec::new();
                for limit in [1 << 20, longest / 2] {
                    let linear = Linear::upload_split(&gpu, &packed, "w", gated, limit).unwrap();
                    assert_eq!(linear.chunks() > 1, limit < longest, "{recipe}, gated: {gated}");
                    let largest = linear.chunks.iter().flat_map(|chunk| &chunk.planes).map(Buffer::size).max();
                    assert!(largest <= Some(limit));
                    let y = gpu.upload("y", &vec![0f32; (tokens * outputs) as usize], Purpose::Activations).unwrap();
                    let mut rec = gpu.record();
                    let epilogue = Epilogue { activation: Some(Activation::Silu), ..Epilogue::default() };
                    forward(&mut rec, &linear, tokens, Rows::new(&x, cols), Rows::new(&y, outputs), &epilogue).unwrap();
                    rec.submit().unwrap();
                    results.push(gpu.read::<f32>(&y, 0, u64::from(tokens * outputs)).await.unwrap());
                }
                assert_eq!(results[0], results[1], "{recipe}, gated: {gated}");
            }
            let limit = 4 * u64::from(cols);
            assert!(Linear::upload_split(&gpu, &packed, "w", false, limit / 8).is_err(), "not even one row fits");
        }
    });
}

#[test]
fn a_split_table_embeds_every_row() {
    pollster::block_on(async {
        let gpu = Gpu::new(GpuOptions::from_env().unwrap()).await.unwrap();
        let packed = matrix("q8_0", 20, 32);
        let table = Linear::upload_split(&gpu, &packed, "table", false, packed.bytes() / 3).unwrap();
        assert!(table.chunks() > 2);
        let ids: Vec<u32> = vec![9, 19, 0, 7, 1_000_000, 12];
        let buffer = gpu.upload("ids", &ids, Purpose::Activations).unwrap();
        let y = gpu.upload("y", &[1f32; 6 * 32], Purpose::Activations).unwrap();
        let mut rec = gpu.record();
        embed(&mut rec, &table, &buffer, 1, 5, Rows::new(&y, 32), 2.0, true).unwrap();
        rec.submit().unwrap();
        let got = gpu.read::<f32>(&y, 0, 6 * 32).await.unwrap();
        let weights = packed.decode();
        for (t, &id) in ids[1..].iter().enumerate() {
            for c in 0..32 {
                let want = weights.get(id as usize * 32 + c).map_or(1.0, |w| 1.0 + 2.0 * w);
                assert_eq!(got[t * 32 + c], want, "token {id}, column {c}");
            }
        }
        assert!(got[5 * 32..].iter().all(|v| *v == 1.0));
    });
}

#[test]
fn variants_are_timed_once_and_then_remembered() {
    pollster::block_on(async {
        let open = |tune, tuning| Gpu::new(GpuOptions { tune, tuning, ..GpuOptions::from_env().unwrap() });
        let packed = ["q4_0", "f16", "sparse:50%", "entropy:q8_0", "q4_0+svd:rank=8"].map(|r| (r, matrix(r, 96, 64)));
        let tuned = async |gpu: &Gpu| {
            let mut found = Vec::new();
            for (recipe, packed) in &packed {
                let layers = [0, 1].map(|_| Linear::upload(gpu, packed, recipe).unwrap());
                let layers = [&layers[0], &layers[1]];
                let kind = layers[0].kind().unwrap();
                tune(gpu, &kind, &layers, 20).await.unwrap();
                for tokens in [1, 2, 4, 9, 20, 64] {
                    let decision = layers[0].decision(gpu, tokens, false);
                    assert_eq!(decision, layers[1].decision(gpu, tokens, false));
                    assert!(layers[0].candidates(gpu, tokens.min(20)).contains(&decision), "{kind} {decision}");
                    found.push((kind.clone(), tokens, decision));
                }
                // A norm needs a variant that takes it, and has one.
                assert!(layers[0].decision(gpu, 1, true).takes_norm());
            }
            found
        };
        let gpu = open(Tune::Always, Tuning::default()).await.unwrap();
        let first = tuned(&gpu).await;
        let table = gpu.tuning_found().expect("something was timed");
        assert!(gpu.tuning_found().is_none(), "it was told already");
        let works = &table.devices.values().next().unwrap();
        assert!(works.keys().any(|work| work.starts_with("q4_0 96x64 x")), "{works:?}");

        // Another session times nothing: not even where the table says otherwise than it would find.
        let mut turned = table.clone();
        let works = turned.devices.values_mut().next().unwrap();
        let layer = Linear::upload(&gpu, &packed[0].1, "w").unwrap();
        // Nine columns: there every adapter has a choice.
        let other = *layer.candidates(&gpu, 16).iter().find(|d| **d != first[3].2).unwrap();
        works.insert("q4_0 96x64 x16".to_owned(), other.to_string());
        let again = open(Tune::Always, turned).await.unwrap();
        let second = tuned(&again).await;
        assert!(again.tuning_found().is_none());
        assert_eq!(second[3].2, other);
        assert_eq!(second[6..], first[6..]);

        // What cannot be read is timed again, as is everything when that is asked for.
        let mut spoiled = table.clone();
        *spoiled.devices.values_mut().next().unwrap().values_mut().next().unwrap() = "linear/magic".to_owned();
        let gpu = open(Tune::Always, spoiled).await.unwrap();
        tuned(&gpu).await;
        assert!(gpu.tuning_found().is_some_and(|found| !format!("{found:?}").contains("magic")));
        let gpu = open(Tune::Again, table).await.unwrap();
        tuned(&gpu).await;
        assert!(gpu.tuning_found().is_some());
        assert!(!open(Tune::Never, Tuning::default()).await.unwrap().tunes());
        assert_ne!(open(Tune::Auto, Tuning::default()).await.unwrap().tunes(), gpu.is_cpu());
    });
}
