//! The matrices of one layer in f32, whether its file has them one by one or fused.

use super::super::names::Role;
use super::super::{Config, ModelError, Weights};
use super::matrix::{Matrix, keep};

/// A layer's matrices with their biases.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `[heads · dim, hidden]`
    pub q: Matrix,
    /// `[kv_heads · dim, hidden]`
    pub k: Matrix,
    /// `[kv_heads · dim, hidden]`
    pub v: Matrix,
    /// `[hidden, heads · dim]`
    pub o: Matrix,
    /// `[intermediate, hidden]`
    pub gate: Matrix,
    /// `[intermediate, hidden]`
    pub up: Matrix,
    /// `[hidden, intermediate]`
    pub down: Matrix,
    /// Of q, k, v, o, gate, up, down.
    pub biases: [Option<Vec<f32>>; 7],
}

/// Places in [`Layer::biases`].
pub const Q: usize = 0;
pub const K: usize = 1;
pub const V: usize = 2;
const O: usize = 3;
const GATE: usize = 4;
const UP: usize = 5;
const DOWN: usize = 6;

impl Layer {
    /// Reads a layer of a model that was not shrunk, in the basis that `weights` turn into.
    pub(super) fn read(weights: &mut Weights, c: &Config, layer: u32) -> Result<Self, ModelError> {
        let [hidden, q, kv, mlp] = [c.hidden, c.q_width(), c.kv_width(), c.intermediate].map(|n| n as usize);
        let (o, o_bias) = read(weights, Role::O, layer, hidden, q)?;
        let (down, down_bias) = read(weights, Role::Down, layer, hidden, mlp)?;
        let [q_part, k_part, v_part] = if weights.has(Role::Qkv, layer) {
            cut(read(weights, Role::Qkv, layer, q + 2 * kv, hidden)?, [q, kv, kv])
        } else {
            [
                read(weights, Role::Q, layer, q, hidden)?,
                read(weights, Role::K, layer, kv, hidden)?,
                read(weights, Role::V, layer, kv, hidden)?,
            ]
        };
        let [gate, up] = if weights.has(Role::Gate, layer) {
            [read(weights, Role::Gate, layer, mlp, hidden)?, read(weights, Role::Up, layer, mlp, hidden)?]
        } else {
            cut(read(weights, Role::GateUp, layer, 2 * mlp, hidden)?, [mlp, mlp])
        };
        let biases = [q_part.1, k_part.1, v_part.1, o_bias, gate.1, up.1, down_bias];
        Ok(Self { q: q_part.0, k: k_part.0, v: v_part.0, o, gate: gate.0, up: up.0, down, biases })
    }

    /// The tensors that a file with these weights has of the layer.
    pub(super) fn parts(self, weights: &Weights, layer: u32) -> Vec<(Role, Matrix, Option<Vec<f32>>)> {
        let [q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias] = self.biases;
        let mut parts = vec![(Role::O, self.o, o_bias), (Role::Down, self.down, down_bias)];
        if weights.has(Role::Qkv, layer) {
            let bias = join(&[(&self.q, q_bias), (&self.k, k_bias), (&self.v, v_bias)]);
            parts.push((Role::Qkv, Matrix::stack(&[&self.q, &self.k, &self.v]), bias));
        } else {
            parts.extend([(Role::Q, self.q, q_bias), (Role::K, self.k, k_bias), (Role::V, self.v, v_bias)]);
        }
        if weights.has(Role::Gate, layer) {
            parts.extend([(Role::Gate, self.gate, gate_bias), (Role::Up, self.up, up_bias)]);
        } else {
            let bias = join(&[(&self.gate, gate_bias), (&self.up, up_bias)]);
            parts.push((Role::GateUp, Matrix::stack(&[&self.gate, &self.up]), bias));
        }
        parts
    }

    /// Keeps these query heads and these heads of keys and values, all of `dim` dimensions.
    pub fn keep_heads(&mut self, heads: &[usize], kv_heads: &[usize], dim: usize) {
        let dims = |heads: &[usize]| -> Vec<usize> { heads.iter().flat_map(|h| h * dim..(h + 1) * dim).collect() };
        let (q, kv) = (dims(heads), dims(kv_heads));
        self.q.keep_rows(&q);
        self.k.keep_rows(&kv);
        self.v.keep_rows(&kv);
        self.o.keep_cols(&q);
        for (at, rows) in [(Q, &q), (K, &kv), (V, &kv)] {
            keep(&mut self.biases[at], rows);
        }
    }

    /// Keeps these channels of the MLP.
    pub fn keep_channels(&mut self, channels: &[usize]) {
        self.keep_inputs(channels);
        self.down.keep_cols(channels);
    }

    /// Keeps these channels of what goes into the MLP's second product.
    pub(super) fn keep_inputs(&mut self, channels: &[usize]) {
        self.gate.keep_rows(channels);
        self.up.keep_rows(channels);
        keep(&mut self.biases[GATE], channels);
        keep(&mut self.biases[UP], channels);
    }

    /// Keeps these dimensions of the residual stream.
    pub(super) fn keep_hidden(&mut self, dims: &[usize]) {
        for reader in [&mut self.q, &mut self.k, &mut self.v, &mut self.gate, &mut self.up] {
            reader.keep_cols(dims);
        }
        self.o.keep_rows(dims);
        self.down.keep_rows(dims);
        keep(&mut self.biases[O], dims);
        keep(&mut self.biases[DOWN], dims);
    }
}

type Part = (Matrix, Option<Vec<f32>>);

fn read(weights: &mut Weights, role: Role, layer: u32, rows: usize, cols: usize) -> Result<Part, ModelError> {
    let values = weights.rotated_matrix(role, layer)?;
    Ok((Matrix::new(rows, cols, values), weights.bias(role, layer, rows as u32)?))
}

/// Cuts a fused matrix and its bias.
fn cut<const N: usize>((matrix, bias): Part, rows: [usize; N]) -> [Part; N] {
    let mut first = 0;
    rows.map(|count| {
        let part = matrix.part(first, count);
        let bias = bias.as_ref().map(|bias| bias[first..first + count].to_vec());
        first += count;
        (part, bias)
    })
}

/// Joins the biases of matrices that are stacked; one without gets zeros where another has one.
fn join(parts: &[(&Matrix, Option<Vec<f32>>)]) -> Option<Vec<f32>> {
    parts.iter().any(|(_, bias)| bias.is_some()).then(|| {
        parts.iter().flat_map(|(matrix, bias)| bias.clone().unwrap_or_else(|| vec![0.0; matrix.rows])).collect()
    })
}
