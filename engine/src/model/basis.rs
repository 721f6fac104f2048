//! A change of basis that leaves what a language model computes as it is: the residual stream and every layer's values are
//! turned by random orthogonal matrices, and the norms are folded into the matrices behind them (SliceGPT, arXiv
//! 2401.15024; QuaRot, arXiv 2404.00456).
//!
//! In: a matrix as it is stored, its [`Role`], and the norm before it. Out: the matrix in the new basis. With x' = Qᵀx the
//! stream in the new basis, and s the weights of the norm before a matrix W that reads it,
//!
//! ```text
//! reads the stream (q k v, gate up, output):  W' = W diag(s) Q        and the norm's weights become 1
//! writes it        (o, down):                 W' = Qᵀ W, b' = Qᵀ b    embeddings, whose rows are the stream: E' = E Q
//! values of a head, R a layer's own:          V' = Rᵀ V, b' = Rᵀ b    and O, for each query head: O' = O R
//! ```

use std::collections::BTreeMap;

use super::config::{Architecture, Config};
use super::names::Role;
use super::rotate::Orthogonal;

/// The new basis.
pub(super) struct Basis {
    seed: u64,
    residual: Orthogonal,
    /// By layer.
    values: BTreeMap<u32, Orthogonal>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Basis {
    /// The basis that belongs to a seed; why there is none for this architecture.
    pub(super) fn new(config: &Config, seed: u64) -> Result<Self, &'static str> {
        match config.architecture {
            Architecture::Gemma2 | Architecture::Gemma3 => {
                return Err("the norms after its blocks cannot be folded into matrices");
            }
            Architecture::Bert => return Err("its norms subtract the mean, which a rotation does not keep"),
            _ => {}
        }
        Ok(Self {
            seed,
            residual: Orthogonal::new(config.hidden as usize, seed),
            values: BTreeMap::new(),
            heads: config.heads as usize,
            kv_heads: config.kv_heads as usize,
            head_dim: config.head_dim as usize,
        })
    }

    /// The norm that is folded into a matrix.
    pub(super) fn norm_before(role: Role) -> Option<Role> {
        match role {
            Role::Q | Role::K | Role::V | Role::Qkv => Some(Role::AttentionNorm),
            Role::Gate | Role::Up | Role::GateUp => Some(Role::MlpNorm),
            Role::Head => Some(Role::FinalNorm),
            _ => None,
        }
    }

    /// Whether a norm is folded into what follows it; its weights are then 1.
    pub(super) fn folds(role: Role) -> bool {
        matches!(role, Role::AttentionNorm | Role::MlpNorm | Role::FinalNorm)
    }

    /// Turns a matrix of `cols` columns, `norm` being the weights of the [norm before it](Self::norm_before).
    pub(super) fn turn(&mut self, role: Role, layer: u32, w: &mut [f32], cols: usize, norm: Option<&[f32]>) {
        if let Some(scale) = norm {
            for row in w.chunks_exact_mut(cols) {
                row.iter_mut().zip(scale).for_each(|(w, s)| *w *= s);
            }
        }
        if Self::norm_before(role).is_some() || role == Role::Embed {
            self.residual.rotate_columns(w, cols, 0);
        }
        if role == Role::O {
            let (heads, dim) = (self.heads, self.head_dim);
            let values = self.values(layer);
            (0..heads).for_each(|head| values.rotate_columns(w, cols, head * dim));
        }
        self.turn_outputs(role, layer, w, cols);
    }

    /// Turns the outputs of a matrix of `cols` columns, or its bias, which has one.
    pub(super) fn turn_outputs(&mut self, role: Role, layer: u32, w: &mut [f32], cols: usize) {
        let (kv_heads, dim) = (self.kv_heads, self.head_dim);
        // Queries and keys come first where all three are one matrix.
        let first = if role == Role::Qkv { (self.heads + kv_heads) * dim } else { 0 };
        match role {
            Role::V | Role::Qkv => {
                let values = self.values(layer);
                (0..kv_heads).for_each(|head| values.rotate_rows(w, cols, first + head * dim));
            }
            Role::O | Role::Down => self.residual.rotate_rows(w, cols, 0),
            _ => {}
        }
    }

    /// Whether [`Self::turn_outputs`] does anything.
    pub(super) fn turns_outputs(role: Role) -> bool {
        matches!(role, Role::V | Role::Qkv | Role::O | Role::Down)
    }

    /// The rotation of a layer's values, which the output projection undoes.
    fn values(&mut self, layer: u32) -> &Orthogonal {
        let (seed, dim) = (self.seed.wrapping_add(1 + u64::from(layer)), self.head_dim);
        self.values.entry(layer).or_insert_with(|| Orthogonal::new(dim, seed))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::Checkpoint;

    /// What [`Basis::turns_outputs`] says decides whether a matrix can be turned some rows at a time.
    #[test]
    fn matrices_whose_outputs_stay_are_turned_in_pieces() {
        let tiny = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/tiny"));
        let config = Config::read(&Checkpoint::open(tiny).unwrap()).unwrap();
        let [hidden, q, kv, mlp] =
            [config.hidden, config.q_width(), config.kv_width(), config.intermediate].map(|n| n as usize);
        let mut basis = Basis::new(&config, 3).unwrap();
        for (role, rows, cols) in [
            (Role::Embed, 37, hidden),
            (Role::Head, 37, hidden),
            (Role::Q, q, hidden),
            (Role::K, kv, hidden),
            (Role::Gate, 29, hidden),
            (Role::Up, 29, hidden),
            (Role::V, kv, hidden),
            (Role::O, hidden, q),
            (Role::Down, hidden, mlp),
        ] {
            let stored: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919 % 10_007) as f32 - 5003.0) * 1e-4).collect();
            let norm: Vec<f32> = (0..cols).map(|i| 0.5 + (i % 13) as f32 * 0.1).collect();
            let norm = Basis::norm_before(role).map(|_| norm.as_slice());
            let mut whole = stored.clone();
            basis.turn(role, 1, &mut whole, cols, norm);
            assert!(whole != stored, "{role:?}");
            if Basis::turns_outputs(role) {
                continue;
            }
            let mut pieces = stored.clone();
            pieces.chunks_mut(5 * cols).for_each(|piece| basis.turn(role, 1, piece, cols, norm));
            assert!(pieces == whole, "{role:?}");
        }
    }
}
