//! What the linear layers of a model are given on a text: the statistics that calibrated codecs weigh errors by.
//!
//! In: a model on the GPU in the form that is nearest to the original (in the basis that the compressed one will have), the matrices
//! whose codecs calibrate ([`Weights::wanted`]), and windows of a text. Out: [`Calibrations`]. Matrices with the same input (queries,
//! keys and values; gate and up) share one. Sums stay on the GPU while the text goes through; where they are more than it has room
//! for, the text goes through again for the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::Role;
use super::{Architecture, Calibrations, Config, Context, Decoder, Encoder, ModelError, Weights};
use crate::codec::{Calibrates, Calibration};
use crate::gpu::{Gpu, Purpose, Recorder};
use crate::ops::linear::Rows;
use crate::ops::moments::{Moments, Sums};
use crate::progress::{Monitor, Unit};

/// Bytes of sums on the GPU at a time, if the device has them.
const GPU_BYTES: u64 = 1 << 30;
/// Bytes of statistics in the host's memory.
const HOST_BYTES: u64 = if cfg!(target_arch = "wasm32") { 1 << 30 } else { 16 << 30 };

/// A place in a layer at which activations can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// The input of queries, keys and values: `[tokens, hidden]`.
    Qkv,
    /// The input of attention's output projection.
    O,
    /// The input of the MLP's first matrices.
    Up,
    /// The input of the MLP's second matrix: `[tokens, intermediate]`.
    Down,
    /// The residual stream after the layer.
    Stream,
    /// The input of the output projection: the normed stream after the last layer. Layer 0; [`Decoder::normalize`] makes it.
    Head,
}

/// Called while a forward pass is recorded, with the recorder, the place, the number of the layer and the activations there.
pub type Observer<'a> = dyn FnMut(&mut Recorder, Site, u32, Rows) -> Result<(), ModelError> + 'a;

impl Site {
    /// Where the input of a matrix can be watched; `None` for tables, which are looked up.
    pub fn of(role: Role) -> Option<Self> {
        match role {
            Role::Q | Role::K | Role::V | Role::Qkv => Some(Self::Qkv),
            Role::O => Some(Self::O),
            Role::Gate | Role::Up | Role::GateUp => Some(Self::Up),
            Role::Down => Some(Self::Down),
            Role::Head => Some(Self::Head),
            _ => None,
        }
    }

    /// Width of the activations in a layer.
    fn cols(self, config: &Config, layer: u32) -> u32 {
        match self {
            Self::Qkv | Self::Up | Self::Stream | Self::Head => config.hidden,
            Self::O => config.shape(layer).o_width(config.head_dim),
            Self::Down => config.shape(layer).intermediate,
        }
    }
}

/// A matrix whose codec calibrates, and where its input is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub role: Role,
    pub layer: u32,
    /// `None`: a table, of which each row counts the same.
    pub site: Option<Site>,
}

impl Weights {
    /// The matrices that the recipe gives to codecs which calibrate at least so much.
    pub fn wanted(&self, at_least: Calibrates) -> Vec<Wanted> {
        const IN_LAYERS: [Role; 9] =
            [Role::Q, Role::K, Role::V, Role::Qkv, Role::O, Role::Gate, Role::Up, Role::GateUp, Role::Down];
        let in_layers = (0..self.config().layers).flat_map(|layer| IN_LAYERS.map(|role| (role, layer)));
        let all = [(Role::Embed, 0), (Role::Head, 0)].into_iter().chain(in_layers);
        let wanted = all.filter(|(role, layer)| self.calibrates(*role, *layer) >= at_least);
        // Without a head of its own the table is used for both; what errors cost is what they do to the logits.
        let tied = !self.has_own_head() && self.config().architecture != Architecture::Bert;
        let site = |role| if role == Role::Embed && tied { Some(Site::Head) } else { Site::of(role) };
        wanted.map(|(role, layer)| Wanted { role, layer, site: site(role) }).collect()
    }
}

/// The sums of some places, while a text goes through.
struct Pass(BTreeMap<(Site, u32), Moments>);

impl Pass {
    /// Cuts the places into passes whose sums the device has room for.
    fn plan(gpu: &Gpu, config: &Config, wanted: &[Wanted]) -> Result<Vec<Vec<(Site, u32)>>, ModelError> {
        let mut places: Vec<(Site, u32)> = wanted.iter().filter_map(|w| Some((w.site?, w.layer))).collect();
        // Layer by layer, so that a pass is of neighbouring layers.
        places.sort_by_key(|(site, layer)| (*layer, *site));
        places.dedup();
        let host = |(site, layer): &(Site, u32)| 4 * u64::from(site.cols(config, *layer)).pow(2);
        let need: u64 = places.iter().map(host).sum();
        if need > HOST_BYTES {
            return Err(ModelError::Calibration { need, limit: HOST_BYTES });
        }
        let memory = gpu.memory();
        let free = memory.limit.map_or(u64::MAX, |limit| limit.saturating_sub(memory.total()));
        let budget = GPU_BYTES.min(free / 2);
        let mut passes: Vec<Vec<(Site, u32)>> = Vec::new();
        let mut taken = 0;
        for place in places {
            let bytes = Moments::bytes(place.0.cols(config, place.1));
            match passes.last_mut() {
                Some(pass) if taken + bytes <= budget => pass.push(place),
                _ => {
                    passes.push(vec![place]);
                    taken = 0;
                }
            }
            taken += bytes;
        }
        Ok(passes)
    }

    fn new(gpu: &Gpu, config: &Config, places: &[(Site, u32)]) -> Result<Self, ModelError> {
        let make = |place: &(Site, u32)| Ok((*place, Moments::new(gpu, place.0.cols(config, place.1))?));
        Ok(Self(places.iter().map(make).collect::<Result<_, ModelError>>()?))
    }

    /// Adds what is seen at a place, if it is one of the pass's.
    fn see(&mut self, rec: &mut Recorder, site: Site, layer: u32, tokens: u32, x: Rows) -> Result<(), ModelError> {
        match self.0.get_mut(&(site, layer)) {
            Some(moments) => Ok(moments.add(rec, tokens, x)?),
            None => Ok(()),
        }
    }

    /// The statistics of each place.
    async fn finish(self, gpu: &Gpu, found: &mut BTreeMap<(Site, u32), Arc<Calibration>>) -> Result<(), ModelError> {
        for (place, moments) in self.0 {
            let Sums { tokens, mut first, mut second } = moments.read(gpu).await?;
            let scale = 1.0 / tokens.max(1) as f32;
            first.iter_mut().chain(&mut second).for_each(|v| *v *= scale);
            found.insert(place, Arc::new(Calibration::new(tokens, first, second)?));
        }
        Ok(())
    }
}

/// Gives each matrix the statistics of its place.
fn by_matrix(config: &Config, wanted: &[Wanted], found: &BTreeMap<(Site, u32), Arc<Calibration>>) -> Calibrations {
    let even = Arc::new(Calibration::even(config.hidden as usize));
    let of = |w: &Wanted| match w.site {
        Some(site) => found.get(&(site, w.layer)).cloned(),
        None => Some(even.clone()),
    };
    wanted.iter().filter_map(|w| Some(((w.role, w.layer), of(w)?))).collect()
}

/// Sends windows of a text through a language model and gathers the statistics of the wanted matrices' inputs.
///
/// # Errors
/// [`ModelError::Token`], [`ModelError::Cancelled`], [`ModelError::Calibration`], a window longer than the model takes, activations
/// that are not finite, or what the device refuses.
pub async fn calibrate(
    decoder: &Decoder,
    wanted: &[Wanted],
    windows: &[&[u32]],
    monitor: &Monitor,
) -> Result<Calibrations, ModelError> {
    let (gpu, config) = (decoder.gpu(), decoder.config());
    let longest = windows.iter().map(|window| window.len() as u32).max().unwrap_or(0);
    let mut context = Context::new(decoder, longest)?;
    let ids = gpu.storage("token ids", 4 * u64::from(longest), Purpose::Activations)?;
    let normed =
        gpu.storage("normed", 4 * u64::from(context.chunk()) * u64::from(config.hidden), Purpose::Activations)?;
    let passes = Pass::plan(gpu, config, wanted)?;
    let total = passes.len() as u64 * windows.iter().map(|window| window.len() as u64).sum::<u64>();
    let mut done = 0;
    let mut found = BTreeMap::new();
    for places in passes {
        let mut pass = Pass::new(gpu, config, &places)?;
        for window in windows {
            decoder.check_tokens(window)?;
            gpu.write(&ids, 0, window);
            context.truncate(0);
            for first in (0..window.len()).step_by(context.chunk() as usize) {
                monitor.step("calibrating", done, total, Unit::Tokens)?;
                let tokens = (window.len() - first).min(context.chunk() as usize) as u32;
                let mut rec = gpu.record();
                let mut see =
                    |rec: &mut Recorder, site: Site, layer: u32, x: Rows| pass.see(rec, site, layer, tokens, x);
                decoder.forward(&mut rec, &mut context, &ids, first as u32, tokens, Some(&mut see))?;
                if places.contains(&(Site::Head, 0)) {
                    decoder.normalize(&mut rec, &context, 0, tokens, &normed)?;
                    pass.see(&mut rec, Site::Head, 0, tokens, Rows::new(&normed, config.hidden))?;
                }
                rec.submit()?;
                gpu.idle().await?;
                done += u64::from(tokens);
            }
        }
        pass.finish(gpu, &mut found).await?;
    }
    monitor.report("calibrating", total, total, Unit::Tokens);
    Ok(by_matrix(config, wanted, &found))
}

/// [`calibrate`] for an encoder, with one text after the other.
///
/// # Errors
/// As [`calibrate`].
pub async fn calibrate_encoder(
    encoder: &Encoder,
    wanted: &[Wanted],
    texts: &[&[u32]],
    monitor: &Monitor,
) -> Result<Calibrations, ModelError> {
    let (gpu, config) = (encoder.gpu(), encoder.config());
    let passes = Pass::plan(gpu, config, wanted)?;
    let total = (passes.len() * texts.len()) as u64;
    let mut done = 0;
    let mut found = BTreeMap::new();
    for places in passes {
        let mut pass = Pass::new(gpu, config, &places)?;
        for text in texts {
            monitor.step("calibrating", done, total, Unit::Texts)?;
            let mut rec = gpu.record();
            let tokens = text.len() as u32;
            let mut see = |rec: &mut Recorder, site: Site, layer: u32, x: Rows| pass.see(rec, site, layer, tokens, x);
            encoder.observed(&mut rec, text, &[], Some(&mut see))?;
            rec.submit()?;
            gpu.idle().await?;
            done += 1;
        }
        pass.finish(gpu, &mut found).await?;
    }
    monitor.report("calibrating", total, total, Unit::Texts);
    Ok(by_matrix(config, wanted, &found))
}
