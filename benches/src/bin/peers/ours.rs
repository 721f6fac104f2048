//! tersor's own kernels.

use std::time::Instant;

use tersor_engine::codec;
use tersor_engine::gpu::{Buffer, Gpu, Purpose};
use tersor_engine::ops::linear::{Epilogue, Linear, Rows, forward};

use super::{Contender, Error, Problem};

pub struct Ours {
    gpu: Gpu,
    linear: Linear,
    x: Buffer,
    y: Buffer,
    recipe: String,
}

impl Ours {
    pub fn new(gpu: &Gpu, problem: &Problem, recipe: &str) -> Result<Self, Error> {
        let packed = codec::parse(recipe)?.encode(&problem.w, problem.rows as usize, problem.cols as usize)?;
        Ok(Self {
            gpu: gpu.clone(),
            linear: Linear::upload(gpu, &packed, recipe)?,
            x: gpu.upload("x", &problem.x, Purpose::Activations)?,
            y: gpu.storage("y", 4 * u64::from(problem.rows), Purpose::Activations)?,
            recipe: recipe.to_owned(),
        })
    }
}

impl Contender for Ours {
    fn name(&self) -> String {
        format!("tersor {}", self.recipe)
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn run(&mut self, count: u32) -> Result<f64, Error> {
        let mut rec = self.gpu.record();
        for _ in 0..count {
            let (x, y) = (Rows::new(&self.x, self.linear.cols()), Rows::new(&self.y, self.linear.outputs()));
            forward(&mut rec, &self.linear, 1, x, y, &Epilogue::default())?;
        }
        let start = Instant::now();
        rec.submit()?;
        pollster::block_on(self.gpu.idle())?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn result(&mut self) -> Result<Vec<f32>, Error> {
        self.run(1)?;
        Ok(pollster::block_on(self.gpu.read(&self.y, 0, self.linear.outputs().into()))?)
    }
}
