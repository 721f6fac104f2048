//! Encoders: BERT and MiniLM, from token ids to one vector a text.

use super::calibrate::{Observer, Site};
use super::context::Workspace;
use super::names::Role;
use super::projection::{Fused, Projection};
use super::tune::tune_linears;
use super::{Config, ModelError, Need, Weights, check_fit};
use crate::gpu::{Buffer, Gpu, Purpose, Recorder};
use crate::ops::Variant;
use crate::ops::attention::{self, Attention};
use crate::ops::elementwise;
use crate::ops::linear::{self, Linear, Rows};
use crate::ops::norm;
use crate::ops::rope::{self, KvCache, KvFormat, RopeAppend, RopeStyle};
use crate::progress::{Monitor, Unit};

/// An encoder on the GPU, with room for one text.
#[derive(Debug)]
pub struct Encoder {
    gpu: Gpu,
    config: Config,
    embed: Linear,
    positions: Linear,
    token_types: Option<Linear>,
    embed_norm: LayerNorm,
    layers: Vec<Layer>,
    /// Keys and values of one layer at a time.
    cache: KvCache,
    /// Token ids, positions 0, 1, …, and zeros: segment 0.
    ids: [Buffer; 3],
    work: Workspace,
    pooled: Buffer,
}

#[derive(Debug)]
struct LayerNorm {
    weight: Buffer,
    bias: Buffer,
}

#[derive(Debug)]
struct Layer {
    qkv: Projection,
    o: Projection,
    attention_norm: LayerNorm,
    up: Projection,
    down: Projection,
    mlp_norm: LayerNorm,
}

impl LayerNorm {
    fn load(gpu: &Gpu, w: &mut Weights, role: Role, layer: u32, len: u32) -> Result<Self, ModelError> {
        let bias = w.bias(role, layer, len)?.unwrap_or_else(|| vec![0.0; len as usize]);
        Ok(Self {
            weight: gpu.upload("norm", &w.norm(role, layer, len)?, Purpose::Weights)?,
            bias: gpu.upload("norm's bias", &bias, Purpose::Weights)?,
        })
    }
}

impl Encoder {
    /// Uploads the weights, compressed as `weights` says.
    ///
    /// # Errors
    /// [`ModelError::DoesNotFit`] before anything is uploaded; missing tensors; what the device refuses.
    pub async fn load(
        gpu: &Gpu,
        config: Config,
        mut weights: Weights,
        model: &str,
        monitor: &Monitor,
    ) -> Result<(Self, Weights), ModelError> {
        let tokens = config.max_positions;
        check_fit(gpu, model, &config, &Need::of_encoder(&config, &weights), tokens)?;
        let w = &mut weights;
        let (stage, total) = (w.stage(), u64::from(config.layers) + 1);
        let hidden = config.hidden;
        monitor.step(stage, 0, total, Unit::Layers)?;
        let embed = Linear::upload(gpu, &w.matrix(Role::Embed, 0, config.vocab, hidden)?, "embeddings")?;
        let positions = Linear::upload(gpu, &w.matrix(Role::Positions, 0, tokens, hidden)?, "positions")?;
        let token_types = if config.token_types > 0 && w.has(Role::TokenTypes, 0) {
            Some(Linear::upload(gpu, &w.matrix(Role::TokenTypes, 0, config.token_types, hidden)?, "token types")?)
        } else {
            None
        };
        let embed_norm = LayerNorm::load(gpu, w, Role::EmbedNorm, 0, hidden)?;
        let mut layers = Vec::new();
        for i in 0..config.layers {
            monitor.step(stage, u64::from(i) + 1, total, Unit::Layers)?;
            layers.push(Layer::load(gpu, &config, w, i)?);
            gpu.flush_writes().await?;
        }
        let places: Vec<u32> = (0..tokens).collect();
        let ids = |label, data: &[u32]| gpu.upload(label, data, Purpose::Activations);
        let zeros = vec![0u32; tokens as usize];
        let this = Self {
            cache: KvCache::new(gpu, config.kv_heads, tokens, config.head_dim, KvFormat::F32)?,
            ids: [ids("token ids", &zeros)?, ids("positions", &places)?, ids("segments", &zeros)?],
            work: Workspace::new(gpu, &config, tokens)?,
            pooled: gpu.storage("pooled", 4 * u64::from(hidden), Purpose::Activations)?,
            gpu: gpu.clone(),
            config,
            embed,
            positions,
            token_types,
            embed_norm,
            layers,
        };
        Ok((this, weights))
    }

    /// Times the variants of the kernels that multiply by these weights, if the device is to be tuned ([`Gpu::tunes`]), and uses the fastest from
    /// then on.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`], or what the device refuses.
    pub async fn tune(&self, monitor: &Monitor) -> Result<(), ModelError> {
        if !self.gpu.tunes() {
            return Ok(());
        }
        let products = self.layers.iter().flat_map(|layer| [&layer.qkv, &layer.o, &layer.up, &layer.down]);
        let linears = products.flat_map(Projection::linears);
        tune_linears(&self.gpu, linears, self.config.max_positions, monitor).await?;
        self.gpu.reset_peak();
        Ok(())
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Shapes and constants.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes of packed weights on the GPU (norms and biases not counted).
    pub fn weight_bytes(&self) -> u64 {
        let types = self.token_types.as_ref().map_or(0, Linear::bytes);
        let layers = self.layers.iter().map(|l| l.qkv.bytes() + l.o.bytes() + l.up.bytes() + l.down.bytes());
        self.embed.bytes() + self.positions.bytes() + types + layers.sum::<u64>()
    }

    /// The last layer's output `[tokens, hidden]` for one text. `segments`: which of two texts each token belongs to (0 or 1),
    /// empty for a single one.
    ///
    /// # Errors
    /// [`ModelError::ContextFull`] for more tokens than the model has positions, [`ModelError::Token`], or what the device refuses.
    pub fn forward(&self, rec: &mut Recorder, ids: &[u32], segments: &[u32]) -> Result<&Buffer, ModelError> {
        self.observed(rec, ids, segments, None)
    }

    /// [`Encoder::forward`] while somebody watches.
    ///
    /// # Errors
    /// As there, or what the observer says.
    pub fn observed(
        &self,
        rec: &mut Recorder,
        ids: &[u32],
        segments: &[u32],
        mut observer: Option<&mut Observer>,
    ) -> Result<&Buffer, ModelError> {
        let c = &self.config;
        if ids.is_empty() || ids.len() as u64 > u64::from(c.max_positions) {
            return Err(ModelError::ContextFull {
                tokens: ids.len() as u64,
                used: 0,
                capacity: c.max_positions,
                model_limit: c.max_positions,
            });
        }
        if let Some(token) = ids.iter().find(|id| **id >= c.vocab) {
            return Err(ModelError::Token { token: *token, vocab: c.vocab });
        }
        if let Some(segment) = segments.iter().find(|s| **s >= c.token_types) {
            return Err(ModelError::Token { token: *segment, vocab: c.token_types });
        }
        let mut segments = segments.to_vec();
        segments.resize(ids.len(), 0);
        self.gpu.write(&self.ids[0], 0, ids);
        self.gpu.write(&self.ids[2], 0, &segments);
        let tokens = ids.len() as u32;
        let work = &self.work;
        let sum = Rows::new(&work.normed, c.hidden);
        linear::embed(rec, &self.embed, &self.ids[0], 0, tokens, sum, 1.0, false)?;
        linear::embed(rec, &self.positions, &self.ids[1], 0, tokens, sum, 1.0, true)?;
        if let Some(types) = &self.token_types {
            linear::embed(rec, types, &self.ids[2], 0, tokens, sum, 1.0, true)?;
        }
        self.norm(rec, tokens, &work.normed, &self.embed_norm, None, &work.x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let mut see = |rec: &mut Recorder, site: Site, x: Rows| match &mut observer {
                Some(observer) => observer(rec, site, i as u32, x),
                None => Ok(()),
            };
            self.layer(rec, layer, tokens, &mut see)?;
        }
        Ok(&work.x)
    }

    /// One unit vector for one text.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub async fn embed(&self, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
        let mut rec = self.gpu.record();
        let x = self.forward(&mut rec, ids, &[])?;
        let shape = [ids.len() as u32, self.config.hidden];
        elementwise::pool(&mut rec, self.config.pooling, true, shape, x, &self.pooled, 0)?;
        rec.submit()?;
        Ok(self.gpu.read(&self.pooled, 0, self.config.hidden.into()).await?)
    }

    fn norm(
        &self,
        rec: &mut Recorder,
        tokens: u32,
        x: &Buffer,
        norm: &LayerNorm,
        residual: Option<&Buffer>,
        y: &Buffer,
    ) -> Result<(), ModelError> {
        let shape = norm::Norm::tight(tokens, self.config.hidden, self.config.norm_eps);
        Ok(norm::layer(rec, &shape, x, &norm.weight, Some(norm.bias.all()), residual.map(Buffer::all), y)?)
    }

    /// x = norm(x + attention(x)), then x = norm(x + mlp(x)). The norms write elsewhere than they read, so `q` and `x` take turns.
    fn layer(
        &self,
        rec: &mut Recorder,
        layer: &Layer,
        tokens: u32,
        see: &mut dyn FnMut(&mut Recorder, Site, Rows) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let (c, work) = (&self.config, &self.work);
        let (hidden, plain) = (c.hidden, Fused::default());
        let x = Rows::new(&work.x, hidden);
        see(rec, Site::Qkv, x)?;
        layer.qkv.forward(rec, tokens, x, Rows::new(&work.qkv, c.qkv_width()), &plain)?;
        let append =
            RopeAppend { style: RopeStyle::None, ..RopeAppend::fused(tokens, c.heads, c.kv_heads, c.head_dim, 0) };
        rope::append(rec, &append, [&work.qkv; 3], None, None, &work.q, &self.cache)?;
        let attention = Attention {
            scale: c.attention_scale,
            causal: false,
            variant: Variant::Auto,
            ..Attention::causal(c.heads, c.kv_heads, c.head_dim)
        };
        attention::prefill(rec, &attention, tokens, 0, tokens, &work.q, &self.cache, &work.attended)?;
        rec.work(4 * u64::from(tokens) * u64::from(tokens) * u64::from(c.q_width()))?;
        let attended = Rows::new(&work.attended, c.q_width());
        see(rec, Site::O, attended)?;
        layer.o.forward(rec, tokens, attended, Rows::new(&work.normed, hidden), &plain)?;
        // Queries are no longer needed: their buffer holds the state between the two blocks.
        self.norm(rec, tokens, &work.normed, &layer.attention_norm, Some(&work.x), &work.q)?;
        let between = Rows::new(&work.q, hidden);
        see(rec, Site::Up, between)?;
        let activated = Fused { activation: Some(c.activation), ..plain };
        layer.up.forward(rec, tokens, between, Rows::new(&work.mlp, c.intermediate), &activated)?;
        let mlp = Rows::new(&work.mlp, c.intermediate);
        see(rec, Site::Down, mlp)?;
        layer.down.forward(rec, tokens, mlp, Rows::new(&work.normed, hidden), &plain)?;
        self.norm(rec, tokens, &work.normed, &layer.mlp_norm, Some(&work.q), &work.x)?;
        see(rec, Site::Stream, x)
    }
}

impl Layer {
    fn load(gpu: &Gpu, c: &Config, w: &mut Weights, i: u32) -> Result<Self, ModelError> {
        let q = c.q_width();
        Ok(Self {
            qkv: Projection::load(gpu, w, i, &[(Role::Q, q), (Role::K, q), (Role::V, q)], c.hidden)?,
            o: Projection::load(gpu, w, i, &[(Role::O, c.hidden)], q)?,
            attention_norm: LayerNorm::load(gpu, w, Role::AttentionNorm, i, c.hidden)?,
            up: Projection::load(gpu, w, i, &[(Role::Up, c.intermediate)], c.hidden)?,
            down: Projection::load(gpu, w, i, &[(Role::Down, c.hidden)], c.intermediate)?,
            mlp_norm: LayerNorm::load(gpu, w, Role::MlpNorm, i, c.hidden)?,
        })
    }
}
