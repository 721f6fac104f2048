//! Language models: Llama and its relatives, as one forward pass.
//!
//! In: token ids on the GPU. Out: the residual stream after the last layer, and logits. A prompt goes through in chunks with
//! tiled products and attention over the cache; a single token takes the same way with the norms fused into the products:
//!
//! ```text
//! x ─ norm+QKV ─ rope, append ─ attention (─ combine) ─ O, += x ─ norm+gate·up ─ down, += x
//! ```
//!
//! That is six dispatches a layer, seven where the context is long enough to be split. Gemma's norms after each block take
//! two more. Where somebody watches ([`Observer`]), norms are computed by themselves. A layer whose heads lost dimensions ([`LayerShape`])
//! has other kernels around attention, and one more dispatch to drop the padding.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::block::{Matrices, Scratch, table};
use super::calibrate::{Observer, Site};
use super::context::{Context, Workspace};
use super::names::Role;
use super::policy::{AttentionPolicy, BlockAttention, BlockCount, KeptRow};
use super::projection::Fused;
use super::tune::tune_linears;
use super::{Config, LayerShape, ModelError, Need, Weights, check_fit};
use crate::gpu::{Binding, Buffer, Gpu, Purpose, Recorder};
use crate::ops::Variant;
use crate::ops::attention::{self, Attention, Fill, pooled};
use crate::ops::linear::{self, Epilogue, Linear, Norm, Rows};
use crate::ops::norm;
use crate::ops::reduced::{self, Compact, ReducedAppend};
use crate::ops::rope::{self, KvCache, KvFormat, RopeAppend};
use crate::progress::{Monitor, Unit};

/// Bytes uploaded before the staging memory is given back.
const SETTLE_BYTES: u64 = 32 << 20;

/// A language model on the GPU.
#[derive(Debug)]
pub struct Decoder {
    gpu: Gpu,
    config: Config,
    embed: Linear,
    /// `None`: the embedding table.
    head: Option<Linear>,
    final_norm: Buffer,
    layers: Vec<Layer>,
    /// `None`: dense attention.
    blocks: Option<BlockAttention>,
}

/// What is left of a [`Decoder`] when its layers are gone: makes logits of normed hidden states.
#[derive(Debug)]
pub struct Head {
    gpu: Gpu,
    table: Linear,
    cap: Option<f32>,
}

impl Head {
    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Bytes of the packed matrix.
    pub fn bytes(&self) -> u64 {
        self.table.bytes()
    }

    /// Records the logits of `rows` normed rows `x` into `y` (`[rows, vocab]`).
    ///
    /// # Errors
    /// Buffers that are too small, or what the device refuses.
    pub fn project(&self, rec: &mut Recorder, x: Rows, rows: u32, y: Rows) -> Result<(), ModelError> {
        let epilogue = Epilogue { cap: self.cap, ..Epilogue::default() };
        Ok(linear::forward(rec, &self.table, rows, x, y, &epilogue)?)
    }
}

#[derive(Debug)]
struct Layer {
    matrices: Matrices,
    attention_norm: Buffer,
    /// `[2, head_dim]`: queries, keys.
    qk_norm: Option<Buffer>,
    /// After attention, and after the MLP.
    post_norms: Option<[Buffer; 2]>,
    mlp_norm: Buffer,
    attention: Attention,
    /// Into how many workgroups' parts its keys are best cut here.
    fill: OnceLock<Fill>,
    shape: LayerShape,
    /// Of a layer whose heads lost dimensions: which pairs of the whole head theirs were, `[kv_heads, pairs]`.
    pairs: Option<Buffer>,
}

impl Decoder {
    /// Uploads the weights, compressed as `weights` says. `context` positions are to fit beside them.
    ///
    /// # Errors
    /// [`ModelError::DoesNotFit`] before anything is uploaded; missing tensors; what the device refuses.
    pub async fn load(
        gpu: &Gpu,
        config: Config,
        mut weights: Weights,
        model: &str,
        context: u32,
        monitor: &Monitor,
    ) -> Result<(Self, Weights), ModelError> {
        let context = context.clamp(1, config.max_positions);
        check_fit(gpu, model, &config, &Need::of(gpu.is_cpu(), &config, &weights, context), context)?;
        let w = &mut weights;
        let vector = |values: Vec<f32>| gpu.upload("norm", &values, Purpose::Weights);
        let hidden = config.hidden;
        // The tables, which are larger than a layer, count as layers.
        let tables = if w.has_own_head() { 2 } else { 1 };
        let (stage, total) = (w.stage(), u64::from(config.layers + tables));
        let mut staged = 0;
        monitor.step(stage, 0, total, Unit::Layers)?;

        let embed = table(gpu, w, Role::Embed, config.vocab, hidden, "embeddings")?;
        let head = if tables > 1 {
            gpu.flush_writes().await?;
            monitor.step(stage, 1, total, Unit::Layers)?;
            Some(table(gpu, w, Role::Head, config.vocab, hidden, "output")?)
        } else {
            None
        };
        let final_norm = vector(w.norm(Role::FinalNorm, 0, hidden)?)?;
        gpu.flush_writes().await?;
        monitor.step(stage, tables.into(), total, Unit::Layers)?;

        let (mut layers, mut scratch) = (Vec::new(), Scratch::new());
        for i in 0..config.layers {
            let layer = Layer::load(gpu, &config, w, i, &mut scratch)?;
            staged += layer.bytes();
            layers.push(layer);
            if staged >= SETTLE_BYTES {
                gpu.flush_writes().await?;
                staged = 0;
            }
            monitor.step(stage, u64::from(tables + i + 1), total, Unit::Layers)?;
        }
        gpu.flush_writes().await?;
        Ok((Self { gpu: gpu.clone(), config, embed, head, final_norm, layers, blocks: None }, weights))
    }

    /// Times the variants of the model's kernels, if the device is to be tuned ([`Gpu::tunes`]), and uses the fastest from then on; what is in
    /// the device's table is not timed again. `context` says how many tokens go through the layers together and how many positions there are.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`], or what the device refuses.
    pub async fn tune(&self, context: &Context, monitor: &Monitor) -> Result<(), ModelError> {
        if !self.gpu.tunes() {
            return Ok(());
        }
        let layers = self.layers.iter().flat_map(|layer| layer.matrices.linears());
        let linears = layers.chain([self.head.as_ref().unwrap_or(&self.embed)]);
        tune_linears(&self.gpu, linears, context.chunk(), monitor).await?;
        let mut kinds: BTreeMap<String, Vec<(&Layer, &KvCache)>> = BTreeMap::new();
        for (layer, cache) in self.layers.iter().zip(&context.caches) {
            kinds.entry(attention::kind(&layer.attention, cache)).or_default().push((layer, cache));
        }
        for (kind, layers) in &kinds {
            monitor.check()?;
            let caches: Vec<_> = layers.iter().map(|(layer, cache)| (layer.attention, *cache)).collect();
            let found = attention::tune(&self.gpu, kind, &caches).await?;
            for (layer, _) in layers {
                // Whoever was first is right.
                let _ = layer.fill.set(found);
            }
        }
        // What was needed to try is not what the model needs.
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

    /// Chooses what the queries of a prompt see from now on; dense attention when nobody chose. Contexts are made for one policy: make
    /// new ones.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn set_attention(&mut self, policy: AttentionPolicy) -> Result<(), ModelError> {
        self.blocks = BlockAttention::new(&self.gpu, policy, self.config.heads)?;
        Ok(())
    }

    /// What the queries of a prompt see.
    pub fn attention(&self) -> AttentionPolicy {
        self.blocks.as_ref().map_or(AttentionPolicy::Dense, BlockAttention::policy)
    }

    /// The blocks of attention that were computed since the policy was chosen, of prompts only; `None` with dense attention.
    ///
    /// # Errors
    /// If the device is lost.
    pub async fn block_count(&self) -> Result<Option<BlockCount>, ModelError> {
        match &self.blocks {
            Some(blocks) => Ok(Some(blocks.count(&self.gpu).await?)),
            None => Ok(None),
        }
    }

    /// Keeps the block masks of one layer for every chunk of a prompt from now on, or of none: nothing with dense attention.
    pub fn watch_blocks(&mut self, layer: Option<usize>) {
        if let Some(blocks) = &mut self.blocks {
            blocks.watch(layer);
        }
    }

    /// The key blocks that were kept in the layer that is watched, of all chunks since it is or since the last call. Their recordings
    /// must have been submitted. A token that goes through alone sees everything and has no row.
    ///
    /// # Errors
    /// If the device is lost.
    pub async fn watched_blocks(&self) -> Result<Vec<KeptRow>, ModelError> {
        match &self.blocks {
            Some(blocks) => blocks.watched(&self.gpu).await,
            None => Ok(Vec::new()),
        }
    }

    /// Bytes of packed weights on the GPU (norms and biases not counted).
    pub fn weight_bytes(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(Layer::bytes).sum();
        self.embed.bytes() + self.head.as_ref().map_or(0, Linear::bytes) + layers
    }

    /// Bytes that decoding a token behind `length` others must read and write at least: the packed weights of every product, a row of the
    /// embedding table, the keys and values that the token sees, and its own.
    pub fn token_bytes(&self, length: u32) -> u64 {
        let matrices: u64 = self.layers.iter().map(Layer::bytes).sum();
        let head = self.head.as_ref().unwrap_or(&self.embed).bytes();
        let row = self.embed.bytes() / u64::from(self.config.vocab.max(1));
        let cached = |layer: &Layer| {
            let a = &layer.attention;
            let seen = length.saturating_add(1);
            let seen = if a.window == 0 { seen } else { seen.min(a.window) };
            // Keys and values, those that are seen and those that are written.
            2 * KvFormat::default().cache_bytes(a.kv_heads, seen.saturating_add(1), a.head_dim)
        };
        matrices + head + row + self.layers.iter().map(cached).sum::<u64>()
    }

    /// Records the tokens `ids[first .. first + tokens]` at the context's end. Afterwards [`Context::hidden`] has their residual
    /// stream, and the context `tokens` more positions.
    ///
    /// # Errors
    /// [`ModelError::ContextFull`]; more tokens than [`Context::chunk`]; what the device refuses.
    pub fn forward(
        &self,
        rec: &mut Recorder,
        context: &mut Context,
        ids: &Buffer,
        first: u32,
        tokens: u32,
        mut observer: Option<&mut Observer>,
    ) -> Result<(), ModelError> {
        context.check_room(tokens.into())?;
        if tokens > context.chunk {
            let what = format!("{tokens} tokens at once; a chunk has {}", context.chunk);
            return Err(crate::ops::OpsError::shape("forward", what).into());
        }
        let pool = self.attention().pool();
        if pool != context.pool {
            let what = format!("the context was made for another attention than {}: make a new one", self.attention());
            return Err(crate::ops::OpsError::shape("forward", what).into());
        }
        let c = &self.config;
        let x = Rows::new(&context.work.x, c.hidden);
        linear::embed(rec, &self.embed, ids, first, tokens, x, c.embed_scale, false)?;
        self.expand(rec, 0)?;
        for (i, layer) in self.layers.iter().enumerate() {
            // Beside this layer's products, into the buffers of the layer before.
            self.expand(rec, i + 1)?;
            layer.forward(rec, c, context, i, tokens, self.blocks.as_ref(), &mut observer)?;
            see(&mut observer, rec, Site::Stream, i, x)?;
        }
        context.length += tokens;
        if let (Some(gap), true) = (pool, tokens > 1) {
            context.pooled = context.length / gap;
        }
        Ok(())
    }

    /// Records the residual stream that goes into the first layer for the tokens `ids[first .. first + tokens]` into `y` (`[tokens, hidden]`).
    ///
    /// # Errors
    /// Buffers that are too small, or what the device refuses.
    pub fn embed(
        &self,
        rec: &mut Recorder,
        ids: &Buffer,
        first: u32,
        tokens: u32,
        y: &Buffer,
    ) -> Result<(), ModelError> {
        let y = Rows::new(y, self.config.hidden);
        Ok(linear::embed(rec, &self.embed, ids, first, tokens, y, self.config.embed_scale, false)?)
    }

    /// Records the expansion of a layer's weights, if they have to be expanded.
    fn expand(&self, rec: &mut Recorder, layer: usize) -> Result<(), ModelError> {
        match self.layers.get(layer).and_then(|layer| layer.matrices.block.as_ref()) {
            Some(block) => block.expand(rec),
            None => Ok(()),
        }
    }

    /// Runs a prompt at the context's end, chunk by chunk; it can be cancelled between them. Returns a recorder with the last
    /// chunk in it, and the row of it that [`Decoder::logits`] makes the last token's logits from.
    ///
    /// # Errors
    /// [`ModelError::Token`], [`ModelError::ContextFull`], [`ModelError::Cancelled`], or what the device refuses. After the
    /// last two the context holds a part of the prompt, perhaps one that was never computed: truncate it.
    pub async fn prefill(
        &self,
        context: &mut Context,
        ids: &[u32],
        monitor: &Monitor,
    ) -> Result<(Recorder, u32), ModelError> {
        self.check_tokens(ids)?;
        context.check_room(ids.len() as u64)?;
        self.gpu.write(&context.ids, 4 * u64::from(context.length), ids);
        let buffer = context.ids.clone();
        let mut done = 0;
        loop {
            monitor.step("reading the prompt", done as u64, ids.len() as u64, Unit::Tokens)?;
            let count = (ids.len() - done).min(context.chunk as usize);
            let mut rec = self.gpu.record();
            self.forward(&mut rec, context, &buffer, context.length, count as u32, None)?;
            done += count;
            if done >= ids.len() {
                return Ok((rec, (count as u32).saturating_sub(1)));
            }
            rec.submit()?;
            self.gpu.idle().await?;
        }
    }

    /// Refuses ids outside the vocabulary.
    ///
    /// # Errors
    /// [`ModelError::Token`].
    pub fn check_tokens(&self, ids: &[u32]) -> Result<(), ModelError> {
        match ids.iter().find(|id| **id >= self.config.vocab) {
            Some(token) => Err(ModelError::Token { token: *token, vocab: self.config.vocab }),
            None => Ok(()),
        }
    }

    /// Records the logits of rows `first .. first + rows` of the last chunk into `y` (`[rows, vocab]`).
    ///
    /// # Errors
    /// Buffers that are too small, or what the device refuses.
    pub fn logits(
        &self,
        rec: &mut Recorder,
        context: &Context,
        first: u32,
        rows: u32,
        y: Rows,
    ) -> Result<(), ModelError> {
        let hidden = self.config.hidden;
        if rows == 1 {
            let x = Rows { buffer: &context.work.x, offset: first * hidden, stride: hidden };
            let norm = Some(Norm { weight: &self.final_norm, eps: self.config.norm_eps });
            return self.project(rec, x, 1, y, norm);
        }
        self.normalize(rec, context, first, rows, &context.work.normed)?;
        self.project(rec, Rows::new(&context.work.normed, hidden), rows, y, None)
    }

    /// Records the last norm of rows `first .. first + rows` of the last chunk into `y` (`[rows, hidden]`).
    ///
    /// # Errors
    /// As [`Decoder::logits`].
    pub fn normalize(
        &self,
        rec: &mut Recorder,
        context: &Context,
        first: u32,
        rows: u32,
        y: &Buffer,
    ) -> Result<(), ModelError> {
        let hidden = self.config.hidden;
        let shape = norm::Norm { x_offset: first * hidden, ..norm::Norm::tight(rows, hidden, self.config.norm_eps) };
        Ok(norm::rms(rec, &shape, &context.work.x, &self.final_norm, None, y)?)
    }

    /// Keeps the output projection alone: with the normed hidden states it still makes logits, and the layers' memory is free.
    pub fn into_head(self) -> Head {
        Head { gpu: self.gpu, table: self.head.unwrap_or(self.embed), cap: self.config.logit_cap }
    }

    fn project(&self, rec: &mut Recorder, x: Rows, rows: u32, y: Rows, norm: Option<Norm>) -> Result<(), ModelError> {
        let epilogue = Epilogue { norm, cap: self.config.logit_cap, ..Epilogue::default() };
        Ok(linear::forward(rec, self.head.as_ref().unwrap_or(&self.embed), rows, x, y, &epilogue)?)
    }
}

impl Layer {
    fn load(gpu: &Gpu, c: &Config, w: &mut Weights, i: u32, scratch: &mut Scratch) -> Result<Self, ModelError> {
        let vector = |values: Vec<f32>| gpu.upload("norm", &values, Purpose::Weights);
        let shape = c.shape(i);
        let matrices = Matrices::load(gpu, c, w, i, scratch)?;
        let pairs = if c.has_whole_heads(&shape) {
            None
        } else {
            Some(gpu.upload("rotary pairs", &w.pairs(i, &shape)?, Purpose::Weights)?)
        };
        let qk_norm = if c.architecture.qk_norm() {
            let mut both = w.norm(Role::QNorm, i, c.head_dim)?;
            both.extend(w.norm(Role::KNorm, i, c.head_dim)?);
            Some(vector(both)?)
        } else {
            None
        };
        let post_norms = if c.architecture.post_norms() {
            let [attention, mlp] = [Role::PostAttentionNorm, Role::PostMlpNorm].map(|role| w.norm(role, i, c.hidden));
            Some([vector(attention?)?, vector(mlp?)?])
        } else {
            None
        };
        Ok(Self {
            matrices,
            attention_norm: vector(w.norm(Role::AttentionNorm, i, c.hidden)?)?,
            qk_norm,
            post_norms,
            mlp_norm: vector(w.norm(Role::MlpNorm, i, c.hidden)?)?,
            attention: Attention {
                heads: shape.heads,
                kv_heads: shape.kv_heads,
                head_dim: shape.cache_dim(),
                scale: c.attention_scale,
                soft_cap: c.attention_cap,
                window: c.windows.get(i as usize).copied().unwrap_or(0),
                causal: true,
                variant: Variant::Auto,
                fill: Fill::default(),
            },
            fill: OnceLock::new(),
            shape,
            pairs,
        })
    }

    fn bytes(&self) -> u64 {
        self.matrices.bytes()
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        c: &Config,
        context: &Context,
        layer: usize,
        tokens: u32,
        blocks: Option<&BlockAttention>,
        observer: &mut Option<&mut Observer>,
    ) -> Result<(), ModelError> {
        let work = &context.work;
        let fuse = tokens == 1 && observer.is_none();
        let pos0 = context.length;
        let (hidden, shape) = (c.hidden, &self.shape);

        let (x, fused) = normed(rec, c, &work.x, &self.attention_norm, &work.normed, tokens, fuse)?;
        see(observer, rec, Site::Qkv, layer, x)?;
        let qkv = Rows::new(&work.qkv, shape.qkv_width());
        self.matrices.qkv.forward(rec, tokens, x, qkv, &Fused { norm: fused, ..Fused::default() })?;

        let cache = &context.caches[layer];
        self.append(rec, c, context, cache, tokens)?;
        if tokens == 1 {
            let a = Attention { fill: self.fill.get().copied().unwrap_or_default(), ..self.attention };
            attention::decode(rec, &a, pos0, &work.q, cache, &work.attended)?;
        } else {
            let keys = pos0 + tokens;
            let a = &self.attention;
            match blocks {
                None => attention::prefill(rec, a, tokens, pos0, keys, &work.q, cache, &work.attended)?,
                Some(blocks) => {
                    let coarse = context.coarse.get(layer).zip(context.pool);
                    if let Some((coarse, gap)) = coarse {
                        pooled::pool(rec, a, cache, keys, gap, context.pooled..keys / gap, coarse)?;
                    }
                    let caches = (cache, coarse.map(|(coarse, _)| coarse));
                    blocks.prefill(rec, a, layer, [tokens, pos0], &work.q, caches, &work.attended)?;
                }
            }
            rec.work(4 * u64::from(tokens) * u64::from(keys) * u64::from(shape.heads * shape.cache_dim()))?;
        }

        let attended = self.compact(rec, c, work, tokens)?;
        see(observer, rec, Site::O, layer, attended)?;
        let after = match (&self.post_norms, &work.x_after) {
            (Some([norm, _]), Some(after)) => {
                self.matrices.o.forward(rec, tokens, attended, Rows::new(&work.normed, hidden), &Fused::default())?;
                add_normed(rec, c, tokens, &work.normed, norm, &work.x, after)?;
                after
            }
            _ => {
                let add = Fused { accumulate: true, ..Fused::default() };
                self.matrices.o.forward(rec, tokens, attended, Rows::new(&work.x, hidden), &add)?;
                &work.x
            }
        };

        let (x, fused) = normed(rec, c, after, &self.mlp_norm, &work.normed, tokens, fuse)?;
        see(observer, rec, Site::Up, layer, x)?;
        self.matrices.gate_up.forward(rec, tokens, x, &work.mlp, shape.intermediate, c.activation, fused)?;
        let mlp = Rows::new(&work.mlp, shape.intermediate);
        see(observer, rec, Site::Down, layer, mlp)?;
        if let Some([_, norm]) = &self.post_norms {
            self.matrices.down.forward(rec, tokens, mlp, Rows::new(&work.normed, hidden), &Fused::default())?;
            add_normed(rec, c, tokens, &work.normed, norm, after, &work.x)
        } else {
            let add = Fused { accumulate: true, ..Fused::default() };
            self.matrices.down.forward(rec, tokens, mlp, Rows::new(&work.x, hidden), &add)
        }
    }

    /// Rotates queries and keys, and appends keys and values to the cache.
    fn append(
        &self,
        rec: &mut Recorder,
        c: &Config,
        context: &Context,
        cache: &KvCache,
        tokens: u32,
    ) -> Result<(), ModelError> {
        let (work, s, pos0) = (&context.work, &self.shape, context.length);
        let local = if self.attention.window > 0 { context.ropes[1].as_ref() } else { None };
        let table = local.or(context.ropes[0].as_ref());
        let qk_norm = self.qk_norm.as_ref();
        let (Some(pairs), Some(table)) = (&self.pairs, table) else {
            let append = RopeAppend {
                rotary: c.rope.rotary_dim as u32,
                style: c.rope_style,
                norm_eps: c.norm_eps,
                ..RopeAppend::fused(tokens, s.heads, s.kv_heads, c.head_dim, pos0)
            };
            return Ok(rope::append(
                rec,
                &append,
                [&work.qkv; 3],
                table.map(Binding::from),
                qk_norm.map(Binding::from),
                &work.q,
                cache,
            )?);
        };
        let append = ReducedAppend {
            tokens,
            heads: s.heads,
            kv_heads: s.kv_heads,
            qk_dim: s.qk_dim,
            v_dim: s.v_dim,
            head_dim: s.cache_dim(),
            rotary: s.qk_dim - c.still_dims(),
            table_pairs: c.rope.rotary_dim as u32 / 2,
            pos0,
            style: c.rope_style,
            norm_eps: c.norm_eps,
        };
        let (qkv, qk_norm) = (work.qkv.all(), qk_norm.map(Buffer::all));
        Ok(reduced::append(rec, &append, qkv, table.all(), pairs.all(), qk_norm, &work.q, cache)?)
    }

    /// What attention gave, as the output projection takes it: without the padding of heads that lost dimensions. The queries are no longer
    /// needed then; their buffer takes it.
    fn compact<'a>(
        &self,
        rec: &mut Recorder,
        c: &Config,
        work: &'a Workspace,
        tokens: u32,
    ) -> Result<Rows<'a>, ModelError> {
        let (s, cols) = (&self.shape, self.shape.o_width(c.head_dim));
        if s.v_dim == s.cache_dim() && cols == s.heads * s.v_dim {
            return Ok(Rows::new(&work.attended, cols));
        }
        let shape = Compact { tokens, heads: s.heads, head_dim: s.cache_dim(), v_dim: s.v_dim, cols };
        reduced::compact(rec, &shape, &work.attended, &work.q)?;
        Ok(Rows::new(&work.q, cols))
    }
}

/// The normed input of a block: computed for a chunk, left to the product (`fuse`) for a single token.
fn normed<'a>(
    rec: &mut Recorder,
    c: &Config,
    x: &'a Buffer,
    weight: &'a Buffer,
    normed: &'a Buffer,
    tokens: u32,
    fuse: bool,
) -> Result<(Rows<'a>, Option<Norm<'a>>), ModelError> {
    if fuse {
        return Ok((Rows::new(x, c.hidden), Some(Norm { weight, eps: c.norm_eps })));
    }
    norm::rms(rec, &norm::Norm::tight(tokens, c.hidden, c.norm_eps), x, weight, None, normed)?;
    Ok((Rows::new(normed, c.hidden), None))
}

/// Shows activations to the observer, if there is one.
fn see(
    observer: &mut Option<&mut Observer>,
    rec: &mut Recorder,
    site: Site,
    layer: usize,
    x: Rows,
) -> Result<(), ModelError> {
    match observer {
        Some(observer) => observer(rec, site, layer as u32, x),
        None => Ok(()),
    }
}

/// `y = residual + norm(x)`.
fn add_normed(
    rec: &mut Recorder,
    c: &Config,
    tokens: u32,
    x: &Buffer,
    weight: &Buffer,
    residual: &Buffer,
    y: &Buffer,
) -> Result<(), ModelError> {
    let shape = norm::Norm::tight(tokens, c.hidden, c.norm_eps);
    Ok(norm::rms(rec, &shape, x, weight, Some(residual.all()), y)?)
}
