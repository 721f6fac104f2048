//! Twin of `attention/prefill`, `attention/decode` and `attention/combine`: softmax(q·Kᵀ)·V, one query at a time.

use crate::ops::attention::Attention;

/// Attention of queries at positions `pos0..` over the first `kv_len` keys.
///
/// `q`: `[tokens, heads, head_dim]`; `k`, `v`: `[kv_heads, ctx, head_dim]`. Returns `[tokens, heads, head_dim]`.
pub fn attend(a: &Attention, pos0: usize, kv_len: usize, q: &[f32], k: &[f32], v: &[f32], ctx: usize) -> Vec<f64> {
    let [heads, kv_heads, dim] = [a.heads, a.kv_heads, a.head_dim].map(|n| n as usize);
    let mut out = Vec::with_capacity(q.len());
    for (i, query) in q.chunks_exact(dim).enumerate() {
        let (pos, head) = (pos0 + i / heads, i % heads);
        let kv_head = head / (heads / kv_heads);
        let row = |cache: &[f32], j: usize| {
            let at = (kv_head * ctx + j) * dim;
            cache[at..at + dim].iter().map(|x| f64::from(*x)).collect::<Vec<f64>>()
        };
        let sees = |j: &usize| (!a.causal || *j <= pos) && (a.window == 0 || pos.abs_diff(*j) < a.window as usize);
        let keys: Vec<usize> = (0..kv_len).filter(sees).collect();
        let score = |j: &usize| {
            let dot: f64 = row(k, *j).iter().zip(query).map(|(k, q)| k * f64::from(*q)).sum();
            let s = dot * f64::from(a.scale);
            let cap = f64::from(a.soft_cap);
            if cap > 0.0 { cap * (s / cap).tanh() } else { s }
        };
        let scores: Vec<f64> = keys.iter().map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut o = vec![0.0; dim];
        for (j, w) in keys.iter().zip(&weights) {
            for (o, x) in o.iter_mut().zip(row(v, *j)) {
                *o += w / sum * x;
            }
        }
        out.extend(o);
    }
    out
}
