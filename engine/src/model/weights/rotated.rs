//! A rotated model as a file's tensors: what is written in each one's place.
//!
//! In: [`Weights`] with a rotation, and the names of the file's tensors. Out: for each the matrix or vector of the new
//! basis; and the output projection, which a rotation parts from the embedding table.

use std::collections::HashMap;

use super::{Basis, ModelError, Role, Weights};
use crate::codec::StoredTensor;
use crate::format::{Checkpoint, Meta};

/// Key of a file's metadata that has the seed its weights were rotated with.
pub const ROTATION_KEY: &str = "tersor.rotation";

/// The seed that a file's weights were rotated with, if they were.
pub fn rotation_of(checkpoint: &Checkpoint) -> Option<u64> {
    match checkpoint.meta() {
        Meta::Gguf(metadata) => metadata.u64(ROTATION_KEY),
        Meta::HuggingFace { st_metadata, .. } => st_metadata.get(ROTATION_KEY)?.parse().ok(),
    }
}

/// What stands in a tensor's place when the model is rotated.
#[derive(Clone, Debug, PartialEq)]
pub enum Rotated {
    /// The matrix that [`Weights::rotated_matrix`] gives for this role and layer.
    Matrix(Role, u32),
    /// These values.
    Vector(Vec<f32>),
}

impl Weights {
    /// What stands in the place of each tensor that a rotation changes, by name.
    ///
    /// # Errors
    /// Biases whose shape is not the configuration's.
    pub fn rotated(&mut self) -> Result<HashMap<String, Rotated>, ModelError> {
        const ROLES: [Role; 14] = [
            Role::Embed,
            Role::Head,
            Role::FinalNorm,
            Role::AttentionNorm,
            Role::MlpNorm,
            Role::Q,
            Role::K,
            Role::V,
            Role::Qkv,
            Role::O,
            Role::Gate,
            Role::Up,
            Role::GateUp,
            Role::Down,
        ];
        let mut all = HashMap::new();
        if self.basis.is_none() {
            return Ok(all);
        }
        for layer in 0..self.config.layers {
            let once = |role| matches!(role, Role::Embed | Role::Head | Role::FinalNorm);
            for role in ROLES.into_iter().filter(|role| layer == 0 || !once(*role)) {
                // Both may be called the same, with and without a gate beside it.
                let absent = if self.has(Role::Gate, layer) { Role::GateUp } else { Role::Up };
                let Some(stem) = self.config.naming.stem(role, layer).filter(|_| role != absent) else { continue };
                if self.has(role, layer) {
                    let rotated = if Basis::folds(role) {
                        // What is applied is then 1.
                        let one = if self.config.norm_plus_one { 0.0 } else { 1.0 };
                        Rotated::Vector(vec![one; self.config.hidden as usize])
                    } else {
                        Rotated::Matrix(role, layer)
                    };
                    all.insert(format!("{stem}.weight"), rotated);
                }
                if Basis::turns_outputs(role)
                    && let Some(bias) = self.bias(role, layer, self.shape(role)[0])?
                {
                    all.insert(format!("{stem}.bias"), Rotated::Vector(bias));
                }
            }
        }
        Ok(all)
    }

    /// The output projection that has to be added to the file, as large as the embedding table, because it is that table
    /// without a rotation; `None` if the file has one.
    pub fn parted_head(&self) -> Option<StoredTensor> {
        self.basis.as_ref().filter(|_| self.is_tied(Role::Head))?;
        let mut tensor = self.find(Role::Embed, 0, "weight")?.clone();
        tensor.name = format!("{}.weight", self.config.naming.stem(Role::Head, 0)?);
        Some(tensor)
    }

    /// A matrix in the new basis, `[rows, cols]` as the configuration has it.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn rotated_matrix(&mut self, role: Role, layer: u32) -> Result<Vec<f32>, ModelError> {
        let shape = self.shape(role);
        let (_, packed) = self.stored_matrix(role, layer, shape)?;
        let mut values = packed.decode();
        drop(packed);
        self.change_basis(role, layer, &mut values, shape[1] as usize)?;
        Ok(values)
    }

    /// Rows and columns of a matrix.
    fn shape(&self, role: Role) -> [u32; 2] {
        let c = &self.config;
        match role {
            Role::Q => [c.q_width(), c.hidden],
            Role::K | Role::V => [c.kv_width(), c.hidden],
            Role::Qkv => [c.qkv_width(), c.hidden],
            Role::O => [c.hidden, c.q_width()],
            Role::Gate | Role::Up => [c.intermediate, c.hidden],
            Role::GateUp => [2 * c.intermediate, c.hidden],
            Role::Down => [c.hidden, c.intermediate],
            _ => [c.vocab, c.hidden], // the others that are matrices of a decoder
        }
    }
}
