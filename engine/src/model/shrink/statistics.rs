//! What a stage needs to know of a model on a text.

use std::sync::Arc;

use super::super::names::Role;
use super::super::weights::Calibrations;
use super::super::{Config, ModelError};
use crate::codec::Calibration;

/// Second moments of what goes into a layer's matrices.
#[derive(Clone, Debug)]
pub struct LayerStatistics {
    /// Into queries, keys and values: the normed residual stream.
    pub input: Arc<Calibration>,
    /// Into the output projection.
    pub attended: Arc<Calibration>,
    /// Into the MLP's second product.
    pub hidden: Arc<Calibration>,
}

/// Statistics of all layers.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// By layer.
    pub layers: Vec<LayerStatistics>,
    /// 1 − E cos(residual stream before, after) of each layer ([`crate::eval::influence`]).
    pub influence: Vec<f64>,
}

impl Statistics {
    /// Picks what stages need from the statistics of all matrices.
    ///
    /// # Errors
    /// [`ModelError::Shrink`] where a layer's are missing or have other widths than the model.
    pub fn of(model: &str, config: &Config, all: &Calibrations, influence: Vec<f64>) -> Result<Self, ModelError> {
        let refuse = |what: String| ModelError::Shrink { model: model.to_owned(), what };
        let find = |roles: &[Role], layer: u32, width: u32| {
            let found = roles.iter().find_map(|role| all.get(&(*role, layer)));
            let found = found.ok_or_else(|| refuse(format!("layer {layer}: no statistics of {:?}", roles[0])))?;
            if found.cols() != width as usize {
                return Err(refuse(format!("layer {layer}: statistics of {} inputs for {width}", found.cols())));
            }
            Ok(found.clone())
        };
        let layer = |layer| -> Result<LayerStatistics, ModelError> {
            Ok(LayerStatistics {
                input: find(&[Role::Q, Role::Qkv], layer, config.hidden)?,
                attended: find(&[Role::O], layer, config.q_width())?,
                hidden: find(&[Role::Down], layer, config.intermediate)?,
            })
        };
        let layers = (0..config.layers).map(layer).collect::<Result<Vec<_>, _>>()?;
        if influence.len() != layers.len() || influence.iter().any(|s| !s.is_finite()) {
            return Err(refuse(format!("the influence of {} layers, not {}", influence.len(), layers.len())));
        }
        Ok(Self { layers, influence })
    }
}
