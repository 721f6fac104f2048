//! burn's products of a vector with a quantized matrix, for `benches/src/bin/peers`, which starts this program and tells it what to do:
//! see `benches/peers/web_rwkv/src/main.rs`.
//!
//! The matrix lies as burn's linear layers have theirs, `[inputs, outputs]`, and is quantized as it lies: 32 values that lie side by side
//! share a scale in f32. KERNEL is q8 or q4. burn's own search chooses among its kernels before anything is timed.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use burn::tensor::quantization::{QuantScheme, QuantValue, ScaleDtype};
use burn::tensor::{Device, DeviceKind, Tensor, TensorData};

type Error = Box<dyn std::error::Error>;

fn floats(path: &Path) -> Result<Vec<f32>, Error> {
    let bytes = std::fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, rows, cols, adapter] = &arguments[..] else { return Err("FOLDER ROWS COLS ADAPTER".into()) };
    let (folder, rows, cols) = (Path::new(folder), rows.parse::<usize>()?, cols.parse::<usize>()?);
    let kind = if adapter.contains("llvmpipe") || adapter.contains("SwiftShader") { DeviceKind::Cpu } else { DeviceKind::DefaultDevice };
    let device = Device::wgpu(kind);

    let w = Tensor::<2>::from_data(TensorData::new(floats(&folder.join("w.f32"))?, [rows, cols]), &device);
    let w = w.transpose().into_data();
    let w = Tensor::<2>::from_data(w, &device);
    let x = Tensor::<2>::from_data(TensorData::new(floats(&folder.join("x.f32"))?, [1, cols]), &device);
    let quantized = |value| {
        let scheme = QuantScheme::default().with_value(value).per_block([32], ScaleDtype::F32);
        w.clone().quantize_dynamic(&scheme)
    };
    let (q8, q4) = (quantized(QuantValue::Q8S), quantized(QuantValue::Q4S));
    device.sync()?;

    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let w = match words.get(1) {
            Some(&"q8") => &q8,
            Some(&"q4") => &q4,
            _ => return Err(format!("{line:?} names neither q8 nor q4").into()),
        };
        let product = || x.clone().matmul(w.clone());
        match (words[0], words.get(2)) {
            ("run", Some(count)) => {
                let count: usize = count.parse()?;
                let start = Instant::now();
                for _ in 0..count {
                    drop(product());
                }
                device.sync()?;
                writeln!(out, "{}", start.elapsed().as_secs_f64())?;
            }
            ("result", None) => {
                let found = product().into_data();
                let bytes: Vec<u8> = found.iter::<f32>().flat_map(f32::to_le_bytes).collect();
                std::fs::write(folder.join("y.f32"), bytes)?;
                writeln!(out, "ok")?;
            }
            _ => return Err(format!("{line:?} is no command").into()),
        }
        out.flush()?;
    }
    Ok(())
}
