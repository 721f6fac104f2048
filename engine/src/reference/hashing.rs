//! Twin of EcoFormer's linear attention: the hash, and attention in its quadratic form, pair by pair.

use crate::ops::attention::hashing::{Form, Hash};

/// A token's hash before its signs are taken: `[tokens, heads, bits]`. `x`: `[tokens, heads, head_dim]`.
pub fn projections(hash: &Hash, x: &[f32]) -> Vec<f64> {
    let [heads, dim, bits, m] = [hash.heads, hash.head_dim, hash.bits, hash.anchors_each()].map(|n| n as usize);
    let tokens = x.len() / (heads * dim);
    let mut found = vec![0.0; tokens * heads * bits];
    for head in 0..heads {
        let distances: Vec<f64> = (0..tokens)
            .flat_map(|t| {
                let token = &x[(t * heads + head) * dim..][..dim];
                let length = token.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                let length = if length > 0.0 { length } else { 1.0 };
                (0..m).map(move |j| {
                    let anchor = &hash.anchors[(head * m + j) * dim..][..dim];
                    token.iter().zip(anchor).map(|(x, a)| (f64::from(*x) / length - f64::from(*a)).powi(2)).sum::<f64>()
                })
            })
            .collect();
        let sigma = distances.iter().sum::<f64>() / distances.len() as f64;
        for (t, row) in distances.chunks_exact(m).enumerate() {
            for b in 0..bits {
                let weight = |j: usize| f64::from(hash.matrix[(head * bits + b) * m + j]);
                let kernel = |j: usize| (-row[j] / (2.0 * sigma)).exp() - f64::from(hash.means[head * m + j]);
                found[(t * heads + head) * bits + b] = (0..m).map(|j| weight(j) * kernel(j)).sum();
            }
        }
    }
    found
}

/// Packs signs as the kernels do: `[heads, tokens]`, bit b set where projection b is positive.
pub fn pack(hash: &Hash, projections: &[f64]) -> Vec<u32> {
    let [heads, bits] = [hash.heads, hash.bits].map(|n| n as usize);
    let tokens = projections.len() / (heads * bits);
    let code = |head: usize, t: usize| {
        let signs = &projections[(t * heads + head) * bits..][..bits];
        signs.iter().enumerate().fold(0, |code, (b, y)| code | u32::from(*y > 0.0) << b)
    };
    (0..heads).flat_map(|head| (0..tokens).map(move |t| (head, t))).map(|(head, t)| code(head, t)).collect()
}

/// Σ_j (h_i·h_j + β)·v_j / Σ_j (h_i·h_j + β), with h of ±1 multiplied out. `v`: `[tokens, heads, head_dim]`, as the result.
pub fn attend(hash: &Hash, form: Form, codes: &[u32], v: &[f32]) -> Vec<f64> {
    let [heads, dim] = [hash.heads, hash.head_dim].map(|n| n as usize);
    let tokens = v.len() / (heads * dim);
    let beta = f64::from(hash.bits + 1);
    let sign = |code: u32, b: u32| if code >> b & 1 == 1 { 1.0 } else { -1.0 };
    let mut o = Vec::with_capacity(v.len());
    for t in 0..tokens {
        for head in 0..heads {
            let of_head = &codes[head * tokens..][..tokens];
            let agreement: Vec<f64> =
                of_head.iter().map(|c| (0..hash.bits).map(|b| sign(of_head[t], b) * sign(*c, b)).sum()).collect();
            let den: f64 = agreement.iter().map(|h| h + beta).sum();
            for d in 0..dim {
                let value = |j: usize| f64::from(v[(j * heads + head) * dim + d]);
                let num: f64 = match form {
                    Form::Mean => (0..tokens).map(|j| (agreement[j] + beta) * value(j)).sum(),
                    Form::Released => (0..tokens).map(|j| agreement[j] * value(j)).sum::<f64>() + beta * value(t),
                };
                o.push(num / den);
            }
        }
    }
    o
}
