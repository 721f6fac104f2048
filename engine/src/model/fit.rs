//! Whether a model fits the device, said before anything is uploaded.

use super::context::{Workspace, chunk_of};
use super::names::Role;
use super::{Config, Context, LayerShape, ModelError, Weights};
use crate::gpu::Gpu;
use crate::ops::attention::Attention;
use crate::ops::linear::WINDOW;
use crate::ops::rope::KvFormat;

/// Bytes of the buffers that are too small to be listed: the sampler's, and what is bound where a kernel needs nothing.
const SMALL: u64 = 4096;

/// Bytes of GPU memory that a model needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Packed weights, norms and biases.
    pub weights: u64,
    /// Keys and values.
    pub kv_cache: u64,
    /// Activations.
    pub activations: u64,
}

impl Need {
    /// What a decoder needs whose context has room for `context` positions. `software`: on a software adapter, which takes
    /// prompts in smaller chunks.
    pub fn of(software: bool, config: &Config, weights: &Weights, context: u32) -> Self {
        Self {
            weights: Self::of_weights(config, weights),
            kv_cache: config.layer_shapes().map(|shape| 2 * cache_bytes(&shape, context)).sum(),
            activations: Context::activation_bytes(software, config, context)
                + Self::passing(software, config, weights, context)
                + Self::expanded(config, weights),
        }
    }

    /// What an encoder needs: one layer's keys and values serve all.
    pub fn of_encoder(config: &Config, weights: &Weights) -> Self {
        let tokens = config.max_positions;
        let ids_and_vector = 4 * (3 * u64::from(tokens) + u64::from(config.hidden));
        Self {
            weights: Self::of_weights(config, weights),
            kv_cache: 2 * KvFormat::F32.cache_bytes(config.kv_heads, tokens, config.head_dim),
            activations: Workspace::bytes(config, tokens) + ids_and_vector + SMALL,
        }
    }

    fn of_weights(config: &Config, weights: &Weights) -> u64 {
        const OUTSIDE: [Role; 3] = [Role::Embed, Role::Positions, Role::TokenTypes];
        let outside: u64 = OUTSIDE.iter().map(|role| weights.bytes_of(*role, 0)).sum();
        let head = if weights.has_own_head() { weights.bytes_of(Role::Head, 0) } else { 0 };
        let in_layer = |layer| in_layers(config).map(move |role| weights.bytes_of(role, layer));
        let layers: u64 = (0..config.layers).flat_map(in_layer).sum();
        // Which pairs of dimensions are left, one word each.
        let pairs = |shape: LayerShape| {
            if config.has_whole_heads(&shape) { 0 } else { 2 * u64::from(shape.kv_heads) * u64::from(shape.qk_dim) }
        };
        outside + head + layers + weights.vector_bytes() + config.layer_shapes().map(pairs).sum::<u64>()
    }

    /// What comes and goes while a decoder writes: unfinished sums of attention, gates that could not be stacked with the
    /// matrix they belong to, and what low-rank parts keep between their dispatches.
    fn passing(software: bool, config: &Config, weights: &Weights, context: u32) -> u64 {
        let scratch = |shape: LayerShape| {
            Attention::causal(shape.heads, shape.kv_heads, shape.cache_dim()).decode_scratch(software, context)
        };
        let apart = (0..config.layers)
            .any(|layer| weights.has(Role::Gate, layer) && !weights.alike(Role::Gate, Role::Up, layer));
        let chunk = u64::from(chunk_of(software, context));
        // Layers of different shapes take buffers of different sizes, which the pool keeps beside one another.
        let mut sizes: Vec<[u64; 2]> = config
            .layer_shapes()
            .map(|shape| [scratch(shape), if apart { 8 * chunk * u64::from(shape.intermediate) } else { 0 }])
            .collect();
        sizes.sort_unstable();
        sizes.dedup();
        // Matrices with one input may be stacked, and each of these products takes a buffer of its own size from the pool.
        const TOGETHER: [&[Role]; 5] = [
            &[Role::Q, Role::K, Role::V, Role::Qkv],
            &[Role::O],
            &[Role::Gate, Role::Up, Role::GateUp],
            &[Role::Down],
            &[Role::Head],
        ];
        let width = |roles: &[Role]| {
            let in_layer = |layer| roles.iter().map(|role| weights.between(*role, layer)).sum();
            (0..config.layers).map(in_layer).max().unwrap_or(0)
        };
        let low_rank = TOGETHER.map(width).iter().sum::<u64>() * 4 * chunk;
        // The pool rounds sizes up by an eighth at most.
        (sizes.iter().flatten().sum::<u64>() + low_rank) * 9 / 8 + SMALL
    }

    /// Weights that are expanded to be used: two layers' where they are expanded as a whole, two windows of other matrices'.
    fn expanded(config: &Config, weights: &Weights) -> u64 {
        let (mut layer_bytes, mut largest) = (0, 0);
        for layer in 0..config.layers {
            let all = || in_layers(config).filter(move |role| weights.has(*role, layer));
            let bytes = |role| weights.expanded_bytes(role, layer);
            if all().all(|role| bytes(role) > 0) {
                layer_bytes = all().map(bytes).sum::<u64>().max(layer_bytes);
            } else {
                // Gates are stacked on what they multiply.
                largest = all().map(|role| 2 * bytes(role)).max().unwrap_or(0).max(largest);
            }
        }
        let outside = [Role::Embed, Role::Head].map(|role| weights.expanded_bytes(role, 0));
        let window = outside.into_iter().max().unwrap_or(0).max(largest).min(WINDOW);
        u64::from(config.layers.min(2)) * layer_bytes + 2 * window * 9 / 8
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.weights + self.kv_cache + self.activations
    }
}

/// Roles of the matrices that a layer may have, each of which is a tensor of its own.
fn in_layers(config: &Config) -> impl Iterator<Item = Role> {
    const ALL: [Role; 9] =
        [Role::Q, Role::K, Role::V, Role::Qkv, Role::O, Role::Gate, Role::Up, Role::GateUp, Role::Down];
    // `Up` and `GateUp` may be one name (GGUF), which is then one tensor.
    let fused = config.naming.stem(Role::Up, 0) == config.naming.stem(Role::GateUp, 0);
    ALL.into_iter().filter(move |role| !(fused && *role == Role::GateUp))
}

/// Refuses a model that the device has no room for, before anything of it is uploaded.
///
/// # Errors
/// [`ModelError::DoesNotFit`] with what it needs and what there is; [`ModelError::Config`] where a layer's keys are more than one
/// binding may hold.
pub fn check_fit(gpu: &Gpu, model: &str, config: &Config, need: &Need, context: u32) -> Result<(), ModelError> {
    let binding = gpu.limits().max_storage_buffer_binding_size.min(gpu.limits().max_buffer_size);
    let position = config.layer_shapes().map(|shape| cache_bytes(&shape, 1)).max().unwrap_or(1);
    let all: u64 = config.layer_shapes().map(|shape| 2 * cache_bytes(&shape, 1)).sum();
    if position * u64::from(context) > binding {
        let what = format!(
            "a context of {context} positions takes {} in each layer, more than the {} that this device binds at once; \
             {} positions fit",
            megabytes(position * u64::from(context)),
            megabytes(binding),
            binding / position
        );
        return Err(ModelError::Config { model: model.to_owned(), key: "context".into(), what });
    }
    let memory = gpu.memory();
    let Some(limit) = memory.limit else { return Ok(()) };
    let free = limit.saturating_sub(memory.total());
    if need.total() <= free {
        return Ok(());
    }
    let remedy = if need.weights + need.activations + all * 256 <= free {
        "load it with a shorter context"
    } else {
        "compress it further (a recipe with fewer bits), unload other models, or choose an adapter with more memory"
    };
    Err(ModelError::DoesNotFit {
        model: model.to_owned(),
        weights: need.weights,
        kv_cache: need.kv_cache,
        activations: need.activations,
        context,
        free,
        remedy: remedy.to_owned(),
    })
}

/// Bytes of the keys (or of the values) of one layer.
fn cache_bytes(shape: &LayerShape, context: u32) -> u64 {
    KvFormat::default().cache_bytes(shape.kv_heads, context, shape.cache_dim())
}

/// "12.3 MB".
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
