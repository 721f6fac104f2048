//! How much each layer changes the residual stream: what MoDeGPT spreads its losses by.

use super::Windows;
use crate::gpu::{Purpose, Recorder};
use crate::model::{Context, Decoder, ModelError, Site};
use crate::ops::linear::Rows;
use crate::ops::metrics;
use crate::progress::{Monitor, Unit};

/// The block influence of every layer, 1 − E cos(x_in, x_out) over the tokens of a text (ShortGPT, arXiv 2403.03853).
///
/// # Errors
/// [`ModelError::Token`], [`ModelError::Cancelled`], windows longer than the model takes, or what the device refuses.
pub async fn influence(decoder: &Decoder, windows: &Windows, monitor: &Monitor) -> Result<Vec<f64>, ModelError> {
    let (gpu, config) = (decoder.gpu(), decoder.config());
    let length = windows.length().min(config.max_positions);
    let mut context = Context::new(decoder, length)?;
    let chunk = context.chunk();
    let storage = |label, floats: u64| gpu.storage(label, 4 * floats, Purpose::Activations);
    let before = storage("residual stream before", u64::from(chunk) * u64::from(config.hidden))?;
    let cosines = storage("cosines", u64::from(config.layers) * u64::from(chunk))?;
    let ids = storage("token ids", length.into())?;
    let mut sums = vec![0.0; config.layers as usize];
    let mut tokens = 0u64;
    for index in 0..windows.count() {
        monitor.step("measuring layers", index as u64, windows.count() as u64, Unit::Windows)?;
        let window = windows.window(index);
        decoder.check_tokens(window)?;
        gpu.write(&ids, 0, window);
        context.truncate(0);
        let mut first = 0;
        while first < window.len() as u32 {
            let count = chunk.min(window.len() as u32 - first);
            let mut rec = gpu.record();
            decoder.embed(&mut rec, &ids, first, count, &before)?;
            let mut observe = |rec: &mut Recorder, site: Site, layer: u32, x: Rows| {
                if site == Site::Stream {
                    metrics::cosine(rec, [count, config.hidden], &before, x.buffer, &cosines, layer * chunk)?;
                    rec.copy(x.buffer, 0, &before, 0, 4 * u64::from(count) * u64::from(config.hidden));
                }
                Ok(())
            };
            decoder.forward(&mut rec, &mut context, &ids, first, count, Some(&mut observe))?;
            rec.submit()?;
            let found: Vec<f32> = gpu.read(&cosines, 0, u64::from(config.layers) * u64::from(chunk)).await?;
            for (sum, layer) in sums.iter_mut().zip(found.chunks_exact(chunk as usize)) {
                *sum += layer[..count as usize].iter().map(|cosine| f64::from(*cosine)).sum::<f64>();
            }
            (first, tokens) = (first + count, tokens + u64::from(count));
        }
    }
    Ok(sums.into_iter().map(|sum| 1.0 - sum / tokens.max(1) as f64).collect())
}
