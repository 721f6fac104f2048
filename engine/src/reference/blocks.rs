//! Twin of block-sparse attention: the masks, attention over kept blocks, pooled keys, and the merge of two attentions.

use crate::ops::attention::Attention;
use crate::ops::attention::blocks::Blocks;
use crate::ops::attention::masks::Adaptive;

/// Keys and values as the kernels see them: `[kv_heads, ctx, head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct Cache<'a> {
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Positions there is room for.
    pub ctx: usize,
}

/// Attention and its log-sums.
#[derive(Clone, Debug)]
pub struct Attended {
    /// `[tokens, heads, head_dim]`.
    pub o: Vec<f64>,
    /// ln Σ exp(score): `[tokens, heads]`; −10³⁰ where no key is seen.
    pub lse: Vec<f64>,
}

/// Stands for −∞, as in the kernels.
pub const NOTHING: f64 = -1e30;

fn score(a: &Attention, q: &[f32], k: &[f32]) -> f64 {
    let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
    let s = dot * f64::from(a.scale);
    let cap = f64::from(a.soft_cap);
    if cap > 0.0 { cap * (s / cap).tanh() } else { s }
}

fn sees(a: &Attention, b: &Blocks, pos: usize, key: usize) -> bool {
    let causal = !a.causal || key < (pos + 1) / b.gap as usize;
    causal && (a.window == 0 || pos.abs_diff(key) < a.window as usize)
}

/// Attention over the blocks that `keeps(head, query block, key block)`. `q`: `[tokens, heads, head_dim]`.
pub fn attend(a: &Attention, b: &Blocks, keeps: impl Fn(u32, u32, u32) -> bool, q: &[f32], cache: Cache) -> Attended {
    let [heads, kv_heads, dim] = [a.heads, a.kv_heads, a.head_dim].map(|n| n as usize);
    let mut found = Attended { o: Vec::new(), lse: Vec::new() };
    for (row, query) in q.chunks_exact(dim).enumerate() {
        let (t, head) = (row / heads, row % heads);
        let base = head / (heads / kv_heads) * cache.ctx;
        let at = |j: usize| (base + j) * dim..(base + j + 1) * dim;
        let block = t as u32 / b.q_block;
        let keys = (0..b.kv_len as usize)
            .filter(|j| sees(a, b, b.pos0 as usize + t, *j))
            .filter(|j| keeps(head as u32, block, *j as u32 / b.k_block));
        let scored: Vec<(usize, f64)> = keys.map(|j| (j, score(a, query, &cache.k[at(j)]))).collect();
        let most = scored.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scored.iter().map(|s| (s.1 - most).exp()).sum();
        let mut o = vec![0.0; dim];
        for (j, s) in &scored {
            for (o, v) in o.iter_mut().zip(&cache.v[at(*j)]) {
                *o += (s - most).exp() / sum * f64::from(*v);
            }
        }
        found.o.extend(o);
        found.lse.push(if scored.is_empty() { NOTHING } else { most + sum.ln() });
    }
    found
}

/// Whether a sliding window with sinks keeps a pair of blocks.
pub fn in_window(b: &Blocks, sinks: u32, window: u32, i: u32, j: u32) -> bool {
    let queries = b.pos0 + i * b.q_block..b.pos0 + ((i + 1) * b.q_block).min(b.tokens);
    let keys = j * b.k_block..(j + 1) * b.k_block;
    keys.start < sinks || queries.clone().any(|q| keys.clone().any(|k| q.abs_diff(k) < window))
}

/// What the sample says of one query block.
#[derive(Clone, Debug)]
pub struct Row {
    /// P of every key block, 0 for those that are not visible.
    pub weight: Vec<f64>,
    /// Which of them are kept.
    pub keep: Vec<bool>,
    /// How close the choice was: the least relative change of a weight or of the running sum that could change it.
    pub margin: f64,
}

/// The adaptive mask, a [`Row`] for every head and query block. `offsets`: of [`Adaptive::draw`].
pub fn adaptive(a: &Attention, b: &Blocks, s: &Adaptive, offsets: &[u32], q: &[f32], cache: Cache) -> Vec<Row> {
    let mut rows = Vec::new();
    for head in 0..a.heads {
        let draws = &offsets[(2 * head * s.samples) as usize..][..2 * s.samples as usize];
        let (of_queries, of_keys) = draws.split_at(s.samples as usize);
        for i in 0..b.q_blocks() {
            let weight = weights(a, b, head, [(i, of_queries), (0, of_keys)], q, cache);
            rows.push(choose(a, b, s, i, weight));
        }
    }
    rows
}

/// P(I, J) = max over sampled queries of exp(t(i, J) − M(i)).
fn weights(
    a: &Attention,
    b: &Blocks,
    head: u32,
    [(block, of_queries), (_, of_keys)]: [(u32, &[u32]); 2],
    q: &[f32],
    cache: Cache,
) -> Vec<f64> {
    let dim = a.head_dim as usize;
    let base = (head / (a.heads / a.kv_heads)) as usize * cache.ctx;
    let mut weight = vec![0f64; b.k_blocks() as usize];
    for offset in of_queries {
        let t = (block * b.q_block + offset).min(b.tokens - 1) as usize;
        let query = &q[(t * a.heads as usize + head as usize) * dim..][..dim];
        let best = |j: u32| {
            let keys = of_keys.iter().map(|o| (j * b.k_block + o).min(b.kv_len - 1) as usize);
            let seen = keys.filter(|k| sees(a, b, b.pos0 as usize + t, *k));
            seen.map(|k| score(a, query, &cache.k[(base + k) * dim..][..dim])).fold(f64::NEG_INFINITY, f64::max)
        };
        let t: Vec<f64> = (0..b.k_blocks()).map(best).collect();
        let most = t.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if most > f64::NEG_INFINITY {
            weight.iter_mut().zip(&t).for_each(|(w, t)| *w = w.max((t - most).exp()));
        }
    }
    weight
}

fn choose(a: &Attention, b: &Blocks, s: &Adaptive, i: u32, weight: Vec<f64>) -> Row {
    let visible = b.visible(a, i);
    let first = b.pos0 + i * b.q_block;
    let near = (first / b.k_block + 1).saturating_sub(s.near);
    let forced = |j: &u32| *j < s.sinks || (a.causal && s.near > 0 && *j >= near);
    let mut order: Vec<u32> = visible.clone().collect();
    order.sort_by(|x, y| {
        let key = |j: &u32| (forced(j), weight[*j as usize]);
        key(y).partial_cmp(&key(x)).expect("weights are numbers").then(x.cmp(y))
    });
    let total: f64 = order.iter().map(|j| weight[*j as usize]).sum();
    let goal = f64::from(s.mass) * total;
    let mut sum = 0.0;
    let mut below = 0;
    let mut margin = f64::INFINITY;
    for j in &order {
        sum += weight[*j as usize];
        below += usize::from(sum < goal);
        margin = margin.min((sum - goal).abs() / total.max(f64::MIN_POSITIVE));
    }
    let n = order.len() as f32;
    let least = ((n * s.min_ratio) as usize).max(1);
    let budget = ((n * s.max_ratio) as usize).max(1);
    let k = below.max(least).min(budget).max(order.iter().filter(|j| forced(j)).count());
    if below != k {
        margin = f64::INFINITY; // the clamp decided
    }
    if let (Some(inside), Some(outside)) = (k.checked_sub(1).and_then(|i| order.get(i)), order.get(k))
        && !forced(inside)
    {
        let (x, y) = (weight[*inside as usize], weight[*outside as usize]);
        margin = margin.min((x - y) / x.max(f64::MIN_POSITIVE));
    }
    let mut keep = vec![false; weight.len()];
    order.iter().take(k).for_each(|j| keep[*j as usize] = true);
    for j in visible {
        keep[j as usize] |= j + s.tail >= b.k_blocks() || (s.tail > 0 && i + s.tail >= b.q_blocks());
    }
    Row { weight, keep, margin }
}

/// Means of `gap` consecutive rows: `x` is `[kv_heads, ctx, dim]`, the result `[kv_heads, ceil(kv_len / gap), dim]`.
pub fn pool(x: &[f32], ctx: usize, dim: usize, kv_len: usize, gap: usize) -> Vec<f64> {
    let mut pooled = Vec::new();
    for head in x.chunks_exact(ctx * dim) {
        for group in 0..kv_len.div_ceil(gap) {
            for d in 0..dim {
                let at = |r: usize| f64::from(head[(group * gap + r).min(kv_len - 1) * dim + d]);
                pooled.push((0..gap).map(at).sum::<f64>() / gap as f64);
            }
        }
    }
    pooled
}

/// Two attentions over different keys as one; each key of `b` stands for `weight`.
pub fn merge(a: &Attended, b: &Attended, weight: f64) -> Attended {
    let dim = a.o.len() / a.lse.len();
    let mut found = a.clone();
    for (row, o) in found.o.chunks_exact_mut(dim).enumerate() {
        let (la, lb) = (a.lse[row], b.lse[row] + weight.ln());
        let most = la.max(lb);
        let (wa, wb) = ((la - most).exp(), (lb - most).exp());
        for (o, x) in o.iter_mut().zip(&b.o[row * dim..]) {
            *o = (wa * *o + wb * x) / (wa + wb);
        }
        found.lse[row] = if most < NOTHING / 2.0 { NOTHING } else { most + (wa + wb).ln() };
    }
    found
}
