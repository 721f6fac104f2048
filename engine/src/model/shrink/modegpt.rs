//! MoDeGPT (arXiv 2408.09632): three decompositions of a layer's modules, each of which needs nothing but second moments of activations.
//!
//! ```text
//! MLP, Nyström     C = E[h hᵀ] of what enters W_D. Kept: J = the k largest ridge leverages, 1 − λ (C + λI)⁻¹ᵢᵢ.
//!                  W_U' = W_U[J], W_G' = W_G[J], W_D' = W_D C[:,J] C[J,J]⁻¹
//! queries, keys,   C_Q = W_Q C_x W_Qᵀ, C_K likewise (biases through the mean). Kept: the r pairs of dimensions that turn together with
//! CR               the largest Σ over the group's query heads of C_Q,ii C_K,ii + C_Q,i'i' C_K,i'i'. Nothing is reconstructed; the rotation
//!                  keeps its frequencies, and softmax its scale 1/√(dimensions of the whole head).
//! values, output,  G = V C_x Vᵀ = T S² Tᵀ, B = Σ O_jᵀ O_j over the group's query heads, S Tᵀ B T S = U' S'² U'ᵀ.
//! SVD              V' = (T S⁻¹ U'_r S'_r)ᵀ V, O_j' = O_j (S'_r⁻¹ U'_rᵀ S Tᵀ)ᵀ; the error Σ_j E‖O_j (V − V'…) x‖² is Σ_{i>r} S'ᵢ².
//! ```
//!
//! For values the paper takes square roots of C_x, as large as the residual stream; since C^{1/2} V is needed only through its Gram matrix, a
//! decomposition of a head's own dimensions does. And with grouped queries the paper cuts V alone; stacking the O_j, as here, keeps its optimum for
//! a whole group. S' is left with V', whose rows codecs scale one by one; the columns of O' then have equal norms, which codecs like.
//!
//! Layers that change the stream little lose more: φ_l = L φ softmax(−s/ε)_l, s_l being the block influence, at most [`MOST`].

use faer::prelude::Solve;
use faer::{Mat, Side};

use super::super::ModelError;
use super::layer::{K, Layer, Q, V};
use super::matrix::{Matrix, keep};
use super::prune::{channels, largest};
use super::{Statistics, Work};
use crate::codec::{Calibration, Modegpt};
use crate::format::Checkpoint;
use crate::progress::{Monitor, Unit};

/// Largest share that a layer loses.
pub const MOST: f64 = 0.8;
/// λ of the leverages, as a share of the mean eigenvalue of C.
const RIDGE: f64 = 1e-3;
/// What is first added to a diagonal so that it can be decomposed, as a share of its mean.
const JITTER: f64 = 1e-10;
/// Eigenvalues below this share of the largest count as zero.
const RANK: f64 = 1e-12;

/// Decomposes a model.
pub(super) fn decompose(
    mut work: Work,
    options: &Modegpt,
    statistics: &Statistics,
    monitor: &Monitor,
) -> Result<Checkpoint, ModelError> {
    let c = work.config.clone();
    let refuse = |what: &str| work.refuse(what);
    if options.qk && c.architecture.qk_norm() {
        return Err(refuse("its queries and keys are normalised over the whole head: add qk=off"));
    }
    if statistics.layers.len() as u64 != u64::from(c.layers) || statistics.influence.len() != statistics.layers.len() {
        return Err(refuse("the statistics are those of another model"));
    }
    let shares = allocate(&statistics.influence, f64::from(options.ratio) / 100.0, options.epsilon, MOST);
    for (layer, (share, statistics)) in (0u32..).zip(shares.iter().zip(&statistics.layers)) {
        monitor.step("decomposing layers", layer.into(), c.layers.into(), Unit::Layers)?;
        let mut m = work.read(layer)?;
        let mut shape = c.whole_shape();
        let failed = |what: String| ModelError::Shrink { model: c.architecture.name().to_owned(), what };
        let dims = |whole: u32| even(f64::from(whole) * (1.0 - share));
        if options.mlp {
            shape.intermediate = channels(c.intermediate, *share, options.align);
            let found = nystrom(&moments(&statistics.hidden), shape.intermediate as usize, RIDGE)
                .map_err(|what| failed(format!("layer {layer}: MLP: {what}")))?;
            m.keep_inputs(&found.kept);
            m.down = Matrix::narrow(&(m.down.wide() * &found.reconstruction));
        }
        if options.qk {
            let rotating = c.head_dim - c.still_dims();
            let pairs = (dims(rotating) / 2).max(1) as usize;
            let kept = choose_pairs(&m, &statistics.input, &work.heads(), pairs);
            keep_pairs(&mut m, &work.heads(), &kept);
            shape.qk_dim = 2 * pairs as u32 + c.still_dims();
            work.add_pairs(layer, &kept.iter().map(|p| p.iter().map(|p| *p as u32).collect()).collect::<Vec<_>>())?;
        }
        if options.vo {
            shape.v_dim = dims(c.head_dim).max(2);
            let cols = shape.o_width(c.head_dim) as usize;
            decompose_values(&mut m, &statistics.input, &work.heads(), shape.v_dim as usize, cols)
                .map_err(|what| failed(format!("layer {layer}: values: {what}")))?;
        }
        work.write(layer, m, shape, false)?;
    }
    work.finish(None)
}

/// The even number below.
fn even(x: f64) -> u32 {
    // A share like 0.25 of 64 must not become 47 for a rounding error.
    ((x + 1e-9) as u32) / 2 * 2
}

/// How a layer's heads lie in its matrices.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Query heads of each.
    pub group: usize,
    /// Dimensions of a head.
    pub dim: usize,
    /// Of them, how many rotate.
    pub rotary: usize,
    /// Whether dimensions 2i and 2i + 1 turn together, else i and i + rotary/2.
    pub interleaved: bool,
}

impl Heads {
    /// The two dimensions of a pair.
    fn pair(&self, pair: usize) -> [usize; 2] {
        if self.interleaved { [2 * pair, 2 * pair + 1] } else { [pair, pair + self.rotary / 2] }
    }

    /// The dimensions that stay with these pairs, as the shrunk head has them: with its pairs in the same way, then those that do not rotate.
    fn dims(&self, pairs: &[usize]) -> Vec<usize> {
        let still = self.rotary..self.dim;
        if self.interleaved {
            pairs.iter().flat_map(|p| self.pair(*p)).chain(still).collect()
        } else {
            let half = |at: usize| pairs.iter().map(move |p| self.pair(*p)[at]);
            half(0).chain(half(1)).chain(still).collect()
        }
    }
}

impl Work {
    fn heads(&self) -> Heads {
        let c = &self.config;
        Heads {
            kv_heads: c.kv_heads as usize,
            group: (c.heads / c.kv_heads) as usize,
            dim: c.head_dim as usize,
            rotary: (c.head_dim - c.still_dims()) as usize,
            interleaved: c.rope_style == crate::ops::rope::RopeStyle::Interleaved,
        }
    }
}

/// The share that each layer loses, `share` on average: L φ softmax(−s/ε), none more than `most`; what is cut off is spread over the others in
/// proportion.
pub fn allocate(influence: &[f64], share: f64, epsilon: f64, most: f64) -> Vec<f64> {
    let least = influence.iter().copied().fold(f64::INFINITY, f64::min);
    let weights: Vec<f64> = influence.iter().map(|s| (-(s - least) / epsilon).exp()).collect();
    let total = share.min(most) * influence.len() as f64;
    let mut full = vec![false; weights.len()];
    loop {
        let taken = most * full.iter().filter(|f| **f).count() as f64;
        let open: f64 = weights.iter().zip(&full).filter(|(_, full)| !**full).map(|(w, _)| w).sum();
        let count = full.iter().filter(|f| !**f).count();
        // Weights that are all zero, beyond what an exponential can tell apart, share evenly.
        let scaled = |w: &f64| if open > 0.0 { w / open } else { 1.0 / count.max(1) as f64 };
        let shares: Vec<f64> =
            weights.iter().zip(&full).map(|(w, f)| if *f { most } else { (total - taken) * scaled(w) }).collect();
        let over: Vec<usize> = (0..shares.len()).filter(|i| !full[*i] && shares[*i] > most).collect();
        if over.is_empty() {
            return shares;
        }
        over.into_iter().for_each(|i| full[i] = true);
    }
}

/// What a Nyström approximation keeps of n channels.
#[derive(Clone, Debug)]
pub struct Nystrom {
    /// The channels, in order.
    pub kept: Vec<usize>,
    /// `[n, k]`: C\[:,J\] C\[J,J\]⁻¹, by which the matrix that reads the channels is multiplied from the right.
    pub reconstruction: Mat<f64>,
}

/// Keeps `keep` channels of those with second moments `c` (`[n, n]`). `ridge`: λ as a share of the mean eigenvalue.
///
/// # Errors
/// Moments that have no Cholesky factor, e.g. because they are not finite.
pub fn nystrom(c: &Mat<f64>, keep: usize, ridge: f64) -> Result<Nystrom, String> {
    check_finite(c)?;
    let n = c.nrows();
    let mean = (0..n).map(|i| c[(i, i)]).sum::<f64>() / n.max(1) as f64;
    let scores: Vec<f64> = if keep >= n {
        vec![0.0; n]
    } else {
        // 1 − λ (C + λI)⁻¹ᵢᵢ: the largest have the smallest inverse.
        let identity = Mat::<f64>::identity(n, n);
        let inverse = solve(c, mean * ridge, &identity)?;
        (0..n).map(|i| -inverse[(i, i)]).collect()
    };
    let kept = largest(&scores, keep.min(n));
    let among = |rows: &[usize], cols: &[usize]| Mat::from_fn(rows.len(), cols.len(), |i, j| c[(rows[i], cols[j])]);
    let all: Vec<usize> = (0..n).collect();
    let solved = solve(&among(&kept, &kept), 0.0, &among(&kept, &all))?;
    Ok(Nystrom { kept, reconstruction: solved.transpose().to_owned() })
}

/// (C + λI)⁻¹ B for a positive semidefinite C; λ grows until there is a Cholesky factor.
fn solve(c: &Mat<f64>, ridge: f64, b: &Mat<f64>) -> Result<Mat<f64>, String> {
    let n = c.nrows();
    let mean = (0..n).map(|i| c[(i, i)]).sum::<f64>() / n.max(1) as f64;
    if mean == 0.0 {
        return Ok(Mat::zeros(n, b.ncols())); // nothing ever came in
    }
    let mut jitter = JITTER;
    while jitter < 0.1 {
        let lambda = ridge + jitter * mean;
        let moved = Mat::from_fn(n, n, |i, j| c[(i, j)] + if i == j { lambda } else { 0.0 });
        if let Ok(factor) = moved.llt(Side::Lower) {
            return Ok(factor.solve(b));
        }
        jitter *= 100.0;
    }
    Err("its second moments have no Cholesky factor: they are not finite, or of too few tokens".into())
}

/// Refuses numbers that decompositions would loop over or spread.
fn check_finite(m: &Mat<f64>) -> Result<(), String> {
    let finite = (0..m.ncols()).all(|j| (0..m.nrows()).all(|i| m[(i, j)].is_finite()));
    if finite { Ok(()) } else { Err("numbers that are not finite".into()) }
}

/// Second moments in f64.
pub fn moments(calibration: &Calibration) -> Mat<f64> {
    let n = calibration.cols();
    let m = calibration.second_moment();
    // Sums in f32 may differ in their last bits across the diagonal.
    Mat::from_fn(n, n, |i, j| 0.5 * (f64::from(m[i * n + j]) + f64::from(m[j * n + i])))
}

/// E\[y yᵀ\] of y = W x + b for inputs with these moments; of matrix rows `first .. first + count`.
fn outputs(w: &Matrix, bias: Option<&Vec<f32>>, inputs: &Calibration, [first, count]: [usize; 2]) -> Mat<f64> {
    let part = w.part(first, count).wide();
    let mut c = &part * moments(inputs) * part.transpose();
    if let Some(bias) = bias {
        let bias: Vec<f64> = bias[first..first + count].iter().map(|b| f64::from(*b)).collect();
        let mean: Vec<f64> = inputs.mean().iter().map(|m| f64::from(*m)).collect();
        let plain: Vec<f64> = (0..count).map(|i| (0..w.cols).map(|j| part[(i, j)] * mean[j]).sum()).collect();
        for i in 0..count {
            for j in 0..count {
                c[(i, j)] += plain[i] * bias[j] + bias[i] * plain[j] + bias[i] * bias[j];
            }
        }
    }
    c
}

/// E\[y²\] of every output of y = W x + b.
fn squares(w: &Matrix, bias: Option<&Vec<f32>>, inputs: &Calibration) -> Vec<f64> {
    let wide = w.wide();
    let moved = &wide * moments(inputs);
    let mean = inputs.mean();
    let square = |i: usize| {
        let plain: f64 = (0..w.cols).map(|j| wide[(i, j)] * moved[(i, j)]).sum();
        let bias = bias.map_or(0.0, |bias| f64::from(bias[i]));
        let first: f64 = (0..w.cols).map(|j| wide[(i, j)] * f64::from(mean[j])).sum();
        plain + 2.0 * bias * first + bias * bias
    };
    (0..w.rows).map(square).collect()
}

/// The CR scores √(C_Q,ii C_K,ii) of dimensions by themselves: the product of the norms of the columns of C_Q^{1/2} and C_K^{1/2}.
pub fn cr_scores(c_q: &[f64], c_k: &[f64]) -> Vec<f64> {
    c_q.iter().zip(c_k).map(|(q, k)| (q * k).max(0.0).sqrt()).collect()
}

/// The `count` pairs of dimensions that each KV head keeps, in order.
pub fn choose_pairs(m: &Layer, inputs: &Calibration, heads: &Heads, count: usize) -> Vec<Vec<usize>> {
    let queries = squares(&m.q, m.biases[Q].as_ref(), inputs);
    let keys = squares(&m.k, m.biases[K].as_ref(), inputs);
    let choose = |kv: usize| {
        let mut scores = vec![0.0; heads.rotary / 2];
        for query in kv * heads.group..(kv + 1) * heads.group {
            let (q, k) = (&queries[query * heads.dim..][..heads.dim], &keys[kv * heads.dim..][..heads.dim]);
            let single = cr_scores(q, k);
            for (pair, score) in scores.iter_mut().enumerate() {
                *score += heads.pair(pair).iter().map(|dim| single[*dim].powi(2)).sum::<f64>();
            }
        }
        largest(&scores, count)
    };
    (0..heads.kv_heads).map(choose).collect()
}

/// Keeps these pairs of dimensions of each KV head and of its query heads.
fn keep_pairs(m: &mut Layer, heads: &Heads, pairs: &[Vec<usize>]) {
    let rows = |head: usize, kv: usize| heads.dims(&pairs[kv]).into_iter().map(move |dim| head * heads.dim + dim);
    let queries: Vec<usize> = (0..heads.kv_heads * heads.group).flat_map(|h| rows(h, h / heads.group)).collect();
    let keys: Vec<usize> = (0..heads.kv_heads).flat_map(|h| rows(h, h)).collect();
    m.q.keep_rows(&queries);
    m.k.keep_rows(&keys);
    keep(&mut m.biases[Q], &queries);
    keep(&mut m.biases[K], &keys);
}

/// A head's values in fewer dimensions.
#[derive(Clone, Debug)]
pub struct ValueBasis {
    /// `[dim, r]`: its transpose multiplies the value matrix (and its bias) from the left.
    pub into: Mat<f64>,
    /// `[r, dim]`: its transpose multiplies each output matrix from the right.
    pub out: Mat<f64>,
    /// S'², falling: those past r add up to the error.
    pub energies: Vec<f64>,
}

/// The best `rank` dimensions for values with second moments `values` (`[dim, dim]`) that are read through matrices with Gram matrix `readers`
/// (Σ O_jᵀ O_j, `[dim, dim]`).
///
/// # Errors
/// Numbers that are not finite.
pub fn value_basis(values: &Mat<f64>, readers: &Mat<f64>, rank: usize) -> Result<ValueBasis, String> {
    check_finite(values)?;
    check_finite(readers)?;
    let n = values.nrows();
    let (g, t) = eigen(values)?;
    let s: Vec<f64> = g.iter().map(|g| g.max(0.0).sqrt()).collect();
    let least = s.first().copied().unwrap_or(0.0) * RANK.sqrt();
    // Tᵀ B T between the singular values.
    let turned = t.transpose() * readers * &t;
    let a = Mat::from_fn(n, n, |i, j| 0.5 * s[i] * s[j] * (turned[(i, j)] + turned[(j, i)]));
    let (energies, u) = eigen(&a)?;
    let energies: Vec<f64> = energies.iter().map(|e| e.max(0.0)).collect();
    let root = |i: usize| if energies[i] > energies[0] * RANK { energies[i].sqrt() } else { 0.0 };
    let inverse = |x: f64| if x > 0.0 { x.recip() } else { 0.0 };
    let narrow = Mat::from_fn(n, rank, |i, j| if s[i] > least { u[(i, j)] / s[i] * root(j) } else { 0.0 });
    let wide = Mat::from_fn(rank, n, |i, j| u[(j, i)] * s[j] * inverse(root(i)));
    Ok(ValueBasis { into: &t * narrow, out: wide * t.transpose(), energies })
}

/// Eigenvalues, falling, and their vectors as columns.
fn eigen(m: &Mat<f64>) -> Result<(Vec<f64>, Mat<f64>), String> {
    let n = m.nrows();
    let found =
        m.self_adjoint_eigen(Side::Lower).map_err(|_| "its second moments have no eigenvalues: they are not finite")?;
    let values: Vec<f64> = (0..n).map(|i| found.S().column_vector()[i]).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    let vectors = Mat::from_fn(n, n, |i, j| found.U()[(i, order[j])]);
    Ok((order.iter().map(|i| values[*i]).collect(), vectors))
}

/// Puts the values of every head into `rank` dimensions, and pads the output projection with zeros to `cols` columns.
fn decompose_values(
    m: &mut Layer,
    inputs: &Calibration,
    heads: &Heads,
    rank: usize,
    cols: usize,
) -> Result<(), String> {
    let dim = heads.dim;
    let hidden = m.o.rows;
    let (o, v) = (m.o.wide(), m.v.wide());
    let mut new_v = Mat::<f64>::zeros(heads.kv_heads * rank, m.v.cols);
    let mut new_o = Mat::<f64>::zeros(hidden, cols);
    let mut new_bias = m.biases[V].as_ref().map(|_| vec![0.0f32; heads.kv_heads * rank]);
    for kv in 0..heads.kv_heads {
        let second = outputs(&m.v, m.biases[V].as_ref(), inputs, [kv * dim, dim]);
        let first = kv * heads.group;
        let readers = (first..first + heads.group).fold(Mat::<f64>::zeros(dim, dim), |sum, head| {
            let part = o.subcols(head * dim, dim);
            sum + part.transpose() * part
        });
        let basis = value_basis(&second, &readers, rank)?;
        new_v.subrows_mut(kv * rank, rank).copy_from(basis.into.transpose() * v.subrows(kv * dim, dim));
        for head in first..first + heads.group {
            let part = o.subcols(head * dim, dim) * basis.out.transpose();
            new_o.subcols_mut(head * rank, rank).copy_from(part);
        }
        if let (Some(bias), Some(new)) = (&m.biases[V], &mut new_bias) {
            for (i, new) in new[kv * rank..(kv + 1) * rank].iter_mut().enumerate() {
                *new = (0..dim).map(|j| basis.into[(j, i)] * f64::from(bias[kv * dim + j])).sum::<f64>() as f32;
            }
        }
    }
    (m.v, m.o, m.biases[V]) = (Matrix::narrow(&new_v), Matrix::narrow(&new_o), new_bias);
    Ok(())
}
