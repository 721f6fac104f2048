//! web-rwkv's products of a matrix with a vector, for `benches/src/bin/peers`, which starts this program and tells it what to do.
//!
//!   tersor-peer-web-rwkv FOLDER ROWS COLS ADAPTER
//!
//! FOLDER holds `w.f32` (`[rows, cols]`) and `x.f32` (`[cols]`), little-endian. Says `ready`, then answers each line of its input with
//! one line: `run KERNEL N` with the seconds of N products in one submission, from handing them in to their end; `result KERNEL`
//! with `ok`, after writing the product to `y.f32`. KERNEL is int8 or nf4. Anything that goes wrong ends the program.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use half::f16;
use web_rwkv::context::{Context, ContextBuilder};
use web_rwkv::tensor::kind::ReadWrite;
use web_rwkv::tensor::matrix::Matrix;
use web_rwkv::tensor::ops::{Activation, TensorOp};
use web_rwkv::tensor::shape::Shape;
use web_rwkv::tensor::TensorGpu;
use web_rwkv::wgpu;

type Error = Box<dyn std::error::Error>;

fn floats(path: &Path) -> Result<Vec<f32>, Error> {
    let bytes = std::fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

async fn open(name: &str) -> Result<Context, Error> {
    let instance = wgpu::Instance::default();
    let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == name);
    let adapter = adapter.ok_or_else(|| format!("no adapter is called {name}"))?;
    Ok(ContextBuilder::new(adapter).build().await?)
}

fn idle(context: &Context) -> Result<(), Error> {
    context.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: None })?;
    Ok(())
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, rows, cols, adapter] = &arguments[..] else { return Err("FOLDER ROWS COLS ADAPTER".into()) };
    let (folder, rows, cols) = (Path::new(folder), rows.parse::<usize>()?, cols.parse::<usize>()?);
    let context = pollster::block_on(open(adapter))?;

    let weights: Vec<f16> = floats(&folder.join("w.f32"))?.into_iter().map(f16::from_f32).collect();
    let shape = Shape::new(cols, rows, 1, 1);
    let matrix: TensorGpu<f16, ReadWrite> = context.tensor_from_data(shape, weights)?;
    let x: TensorGpu<f32, ReadWrite> = context.tensor_from_data(Shape::new(cols, 1, 1, 1), floats(&folder.join("x.f32"))?)?;
    let y: TensorGpu<f32, ReadWrite> = context.tensor_init(Shape::new(rows, 1, 1, 1));
    let (int8, nf4) = (Matrix::quant_u8(&matrix)?, Matrix::quant_nf4(&matrix)?);
    idle(&context)?;
    drop(matrix);

    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let kernel = match words.get(1) {
            Some(&"int8") => &int8,
            Some(&"nf4") => &nf4,
            _ => return Err(format!("{line:?} names neither int8 nor nf4").into()),
        };
        match (words[0], words.get(2)) {
            ("run", Some(count)) => {
                let count: usize = count.parse()?;
                let ops = (0..count).map(|_| kernel.matmul_vec_op(&x, &y, Activation::None));
                let commands = context.encode(&TensorOp::List(ops.collect::<Result<_, _>>()?));
                let start = Instant::now();
                context.queue.submit(commands);
                idle(&context)?;
                writeln!(out, "{}", start.elapsed().as_secs_f64())?;
            }
            ("result", None) => {
                context.queue.submit(context.encode(&kernel.matmul_vec_op(&x, &y, Activation::None)?));
                let found = pollster::block_on(y.back());
                let bytes: Vec<u8> = found.data().iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
                std::fs::write(folder.join("y.f32"), bytes)?;
                writeln!(out, "ok")?;
            }
            _ => return Err(format!("{line:?} is no command").into()),
        }
        out.flush()?;
    }
    Ok(())
}
