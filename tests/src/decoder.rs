//! Language models on the GPU, as tests run them.

use tersor_engine::codec::Recipe;
use tersor_engine::format::Checkpoint;
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::model::{Config, Context, Decoder, ModelError, Weights};
use tersor_engine::ops::linear::Rows;
use tersor_engine::progress::Monitor;

/// How to load a model; as it is stored by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// A codec for its matrices.
    pub recipe: Option<&'static str>,
    /// Seed of a change of basis.
    pub rotation: Option<u64>,
}

/// Loads a model with room for `context` positions.
///
/// # Errors
/// What the model room says.
///
/// # Panics
/// If the recipe is none.
pub fn try_load(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    form: Form,
    context: u32,
) -> Result<(Decoder, Weights), ModelError> {
    let config = Config::read(checkpoint)?;
    let recipe = form.recipe.map(|recipe| Recipe::parse(recipe).expect("a recipe"));
    let weights = Weights::new(checkpoint, &config, recipe, form.rotation)?;
    pollster::block_on(Decoder::load(gpu, config, weights, checkpoint.name(), context, &Monitor::none()))
}

/// Loads a model as it is stored.
///
/// # Panics
/// If that fails.
pub fn load(gpu: &Gpu, checkpoint: &Checkpoint, context: u32) -> Decoder {
    load_as(gpu, checkpoint, Form::default(), context)
}

/// Loads a model in another form.
///
/// # Panics
/// If that fails.
pub fn load_as(gpu: &Gpu, checkpoint: &Checkpoint, form: Form, context: u32) -> Decoder {
    let loaded = try_load(gpu, checkpoint, form, context);
    loaded.unwrap_or_else(|error| panic!("{} {form:?}: {error}", checkpoint.name())).0
}

/// Logits of all tokens, sent through the layers in pieces of the given lengths (the last one again and again), with room for
/// `capacity` positions.
///
/// # Panics
/// If the device refuses something.
pub fn logits(decoder: &Decoder, ids: &[u32], capacity: u32, pieces: &[usize]) -> Vec<f32> {
    let gpu = decoder.gpu();
    let mut context = Context::new(decoder, capacity).unwrap();
    let vocab = decoder.config().vocab;
    let all = gpu.storage("logits", 4 * u64::from(vocab) * ids.len() as u64, Purpose::Activations).unwrap();
    let buffer = gpu.upload("ids", ids, Purpose::Activations).unwrap();
    let mut rec = gpu.record();
    let (mut first, mut turn) = (0, 0);
    while first < ids.len() {
        let count = pieces[turn.min(pieces.len() - 1)].min(ids.len() - first);
        decoder.forward(&mut rec, &mut context, &buffer, first as u32, count as u32, None).unwrap();
        let y = Rows { buffer: &all, offset: first as u32 * vocab, stride: vocab };
        decoder.logits(&mut rec, &context, 0, count as u32, y).unwrap();
        (first, turn) = (first + count, turn + 1);
    }
    rec.submit().unwrap();
    pollster::block_on(gpu.read(&all, 0, u64::from(vocab) * ids.len() as u64)).unwrap()
}

/// The largest difference between two lists of numbers; infinite where one is not a number.
///
/// # Panics
/// If they have different lengths.
pub fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    a.iter().zip(b).map(difference).fold(0.0, f32::max)
}
