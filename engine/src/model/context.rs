//! What a decoder remembers of one text, and the room it works in.

use super::{Config, Decoder, LayerShape, ModelError};
use crate::gpu::{Buffer, Gpu, GpuError, Purpose};
use crate::ops::rope::{KvCache, KvFormat, RopeStyle, RopeTable};

/// Tokens of a prompt that go through the layers together. Software adapters keep their activations in the CPU's caches.
const CHUNK: u32 = 512;
const CHUNK_SOFTWARE: u32 = 128;

/// The KV cache of one text, the rotary tables for its length, and the activations of a chunk of tokens.
#[derive(Debug)]
pub struct Context {
    capacity: u32,
    pub(super) length: u32,
    pub(super) chunk: u32,
    model_limit: u32,
    pub(super) caches: Vec<KvCache>,
    /// Keys of a group of the coarse view, where the decoder's attention has one.
    pub(super) pool: Option<u32>,
    /// Groups that are there.
    pub(super) pooled: u32,
    /// By layer, the means of each group's keys and values; empty without a coarse view.
    pub(super) coarse: Vec<KvCache>,
    /// Of layers with full attention, and of those with a window.
    pub(super) ropes: [Option<Buffer>; 2],
    /// Token ids at their positions.
    pub(super) ids: Buffer,
    pub(super) work: Workspace,
}

/// Activations of a chunk, `[chunk, …]` each.
#[derive(Debug)]
pub(super) struct Workspace {
    /// The residual stream.
    pub(super) x: Buffer,
    /// The residual stream after attention, where a norm comes between (Gemma).
    pub(super) x_after: Option<Buffer>,
    /// Normed input of a block; where a norm follows a block, also its output.
    pub(super) normed: Buffer,
    pub(super) qkv: Buffer,
    /// Rotated queries.
    pub(super) q: Buffer,
    pub(super) attended: Buffer,
    pub(super) mlp: Buffer,
}

impl Workspace {
    /// Floats a token takes in each buffer.
    fn widths(config: &Config) -> [u32; 7] {
        let after = if config.architecture.post_norms() { config.hidden } else { 0 };
        let attended = config.widest(|shape| shape.heads * shape.cache_dim());
        // Where heads lost dimensions, the buffer of the queries takes what attention gives, without its padding.
        let q = attended.max(config.widest(|shape| shape.o_width(config.head_dim)));
        let (qkv, mlp) = (config.widest(|shape| shape.qkv_width()), config.widest(|shape| shape.intermediate));
        [config.hidden, after, config.hidden, qkv, q, attended, mlp]
    }

    /// Bytes of all buffers.
    pub(super) fn bytes(config: &Config, tokens: u32) -> u64 {
        let floats: u64 = Self::widths(config).iter().map(|width| u64::from(*width)).sum();
        4 * u64::from(tokens) * floats
    }

    pub(super) fn new(gpu: &Gpu, config: &Config, tokens: u32) -> Result<Self, GpuError> {
        let [x, after, normed, qkv, q, attended, mlp] = Self::widths(config);
        let make =
            |label, width: u32| gpu.storage(label, 4 * u64::from(tokens) * u64::from(width), Purpose::Activations);
        Ok(Self {
            x: make("residual stream", x)?,
            x_after: if after > 0 { Some(make("residual stream after attention", after)?) } else { None },
            normed: make("normed", normed)?,
            qkv: make("queries, keys, values", qkv)?,
            q: make("queries", q)?,
            attended: make("attended", attended)?,
            mlp: make("MLP", mlp)?,
        })
    }
}

pub(super) fn chunk_of(software: bool, capacity: u32) -> u32 {
    capacity.min(if software { CHUNK_SOFTWARE } else { CHUNK })
}

/// Positions in use for layers with full attention, then for layers with a window.
fn tables(config: &Config, capacity: u32) -> Result<[Option<RopeTable>; 2], ModelError> {
    if config.rope_style == RopeStyle::None {
        return Ok([None, None]);
    }
    let make = |rope| RopeTable::new(rope, capacity as usize);
    let local = config.rope_local.as_ref().map(make).transpose()?;
    Ok([Some(make(&config.rope)?), local])
}

impl Context {
    /// Room for `capacity` positions, at most those the model was made for, for the attention that the decoder has now.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(decoder: &Decoder, capacity: u32) -> Result<Self, ModelError> {
        let (gpu, config) = (decoder.gpu(), decoder.config());
        let capacity = capacity.clamp(1, config.max_positions);
        let chunk = chunk_of(gpu.is_cpu(), capacity);
        let cache =
            |shape: LayerShape| KvCache::new(gpu, shape.kv_heads, capacity, shape.cache_dim(), KvFormat::default());
        let caches = config.layer_shapes().map(cache).collect::<Result<_, _>>()?;
        let pool = decoder.attention().pool();
        let coarse = pool.map_or(0, |gap| capacity.div_ceil(gap));
        let coarse = |shape: LayerShape| KvCache::new(gpu, shape.kv_heads, coarse, shape.cache_dim(), KvFormat::F32);
        let pooled = config.layer_shapes().filter(|_| pool.is_some());
        let coarse = pooled.map(coarse).collect::<Result<_, _>>()?;
        let [full, local] = tables(config, capacity)?.map(|table| table.map(|t| t.upload(gpu)).transpose());
        Ok(Self {
            capacity,
            length: 0,
            chunk,
            model_limit: config.max_positions,
            caches,
            pool,
            pooled: 0,
            coarse,
            ropes: [full?, local?],
            ids: gpu.storage("token ids", 4 * u64::from(capacity), Purpose::Activations)?,
            work: Workspace::new(gpu, config, chunk)?,
        })
    }

    /// Bytes of activations that a context takes, with the logits of one token. `software`: on a software adapter.
    pub fn activation_bytes(software: bool, config: &Config, capacity: u32) -> u64 {
        let tables = if config.rope_local.is_some() { 2 } else { 1 };
        let rope = u64::from(capacity) * config.rope.rotary_dim as u64 * tables;
        let rest = 4 * (rope + u64::from(capacity) + u64::from(config.vocab));
        Workspace::bytes(config, chunk_of(software, capacity)) + rest
    }

    /// Positions there is room for.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Positions taken.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens that go through the layers together at most.
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Forgets everything after the first `length` positions.
    pub fn truncate(&mut self, length: u32) {
        self.length = self.length.min(length);
        self.pooled = self.pool.map_or(0, |gap| self.pooled.min(self.length / gap));
    }

    /// The residual stream after the last layer for the tokens of the last chunk: `[chunk, hidden]`.
    pub fn hidden(&self) -> &Buffer {
        &self.work.x
    }

    /// Refuses tokens there is no room for.
    pub(super) fn check_room(&self, tokens: u64) -> Result<(), ModelError> {
        if tokens > u64::from(self.capacity - self.length) {
            return Err(ModelError::ContextFull {
                tokens,
                used: self.length,
                capacity: self.capacity,
                model_limit: self.model_limit,
            });
        }
        Ok(())
    }
}
