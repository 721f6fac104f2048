// Rotates queries and keys of heads that kept only some of their dimensions, and appends keys and values to the cache: attention/rope_append
// for layers that were shrunk (MoDeGPT, arXiv 2408.09632; docs/methods/structured.md).
//   q_out[t, h]           = pad(R(pos0+t, P_g) · n(q[t, h]))        g: the KV head of query head h
//   k_cache[g, pos0+t]    = pad(R(pos0+t, P_g) · n(k[t, g]))        v_cache[g, pos0+t] = pad(v[t, g])
// R turns pair j of the kept dimensions by the angle of the pair it was before, P_g[j]: frequencies are those of the whole head. pad adds
// zeros up to the cache's head_dim, which adds nothing to q·k and columns of zeros to the output (attention/compact drops them).
// STYLE 0: pairs (j, j + rotary/2) of the kept dimensions; 1: (2j, 2j+1). Kept dimensions past `rotary` pass unchanged. In q_out and the
// cache the two of a pair lie side by side, in queries and keys alike.
//
// A lane moves two dimensions of one head of one token. Grid: ceil(tokens·(heads + 2·kv_heads)·head_dim/2 / 64), folded into y.
// Bound by launch and latency in decode, by memory bandwidth in prefill.

//:option STYLE = 0 1
//:option QK_NORM = 0 1
//:option KV_F16 = 0 1

struct Params {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    qk_dim: u32,      // even: dimensions of queries and keys
    v_dim: u32,       // even: dimensions of values
    head_dim: u32,    // of the cache: even, at least both
    rotary: u32,      // even: of the kept dimensions, how many rotate
    table_pairs: u32, // pairs in a row of the table
    pos0: u32,        // position of token 0
    ctx: u32,         // positions the cache has room for
    stride: u32,      // floats from token to token of qkv
    eps: f32,         // of the QK norm
    width: u32,       // workgroups of the grid in x
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(3) var<storage, read> qkv: array<f32>;               // [tokens, stride]  heads·qk_dim, kv_heads·qk_dim, kv_heads·v_dim
@group(0) @binding(4) var<storage, read> rope: array<vec2<f32>>;        // [max_pos, table_pairs]  (cos, sin)
@group(0) @binding(5) var<storage, read> pairs: array<u32>;             // [kv_heads, rotary/2]  P
//:if QK_NORM
@group(0) @binding(6) var<storage, read> qk_norm: array<f32>;           // [2, qk_dim]  q's weights, then k's
//:endif
@group(0) @binding(7) var<storage, read_write> q_out: array<vec2<f32>>; // [tokens, heads, head_dim/2]
//:if KV_F16
alias Pair = u32;        // two f16, the lower dimension in the lower half
fn pair(v: vec2<f32>) -> Pair {
    return pack2x16float(v);
}
//:else
alias Pair = vec2<f32>;
fn pair(v: vec2<f32>) -> Pair {
    return v;
}
//:endif
@group(0) @binding(8) var<storage, read_write> k_cache: array<Pair>;    // [kv_heads, ctx, head_dim/2]
@group(0) @binding(9) var<storage, read_write> v_cache: array<Pair>;    // [kv_heads, ctx, head_dim/2]
@group(1) @binding(0) var<uniform> p: Params;

// Pair j of the head that begins at float `base`, normed and rotated. `key`: 0 in queries, 1 in keys.
fn rotated(base: u32, key: u32, kv_head: u32, t: u32, j: u32) -> vec2<f32> {
    var a = 2u * j;
    var b = a + 1u;
//:if STYLE == 0
    if (j < p.rotary / 2u) {
        a = j;
        b = j + p.rotary / 2u;
    }
//:endif
    var v = vec2<f32>(qkv[base + a], qkv[base + b]);
//:if QK_NORM
    var sum = 0.0;
    for (var d = 0u; d < p.qk_dim; d++) {
        sum += qkv[base + d] * qkv[base + d];
    }
    let weights = vec2<f32>(qk_norm[key * p.qk_dim + a], qk_norm[key * p.qk_dim + b]);
    v *= inverseSqrt(sum / f32(p.qk_dim) + p.eps) * weights;
//:endif
    if (j >= p.rotary / 2u) {
        return v;
    }
    let angle = min(pairs[kv_head * (p.rotary / 2u) + j], p.table_pairs - 1u);
    let r = rope[(p.pos0 + t) * p.table_pairs + angle];
    return vec2<f32>(v.x * r.x - v.y * r.y, v.x * r.y + v.y * r.x);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let half = p.head_dim / 2u;
    let units = p.heads + 2u * p.kv_heads;
    let id = (group.y * p.width + group.x) * 64u + lane;
    if (id >= p.tokens * units * half) {
        return;
    }
    let j = id % half;
    let unit = (id / half) % units;
    let t = id / (half * units);
    let row = t * p.stride;
    var v = vec2<f32>();

    if (unit < p.heads) {
        if (2u * j < p.qk_dim) {
            v = rotated(row + unit * p.qk_dim, 0u, unit / (p.heads / p.kv_heads), t, j);
        }
        q_out[(t * p.heads + unit) * half + j] = v;
    } else if (unit < p.heads + p.kv_heads) {
        let head = unit - p.heads;
        if (2u * j < p.qk_dim) {
            v = rotated(row + unit * p.qk_dim, 1u, head, t, j);
        }
        k_cache[(head * p.ctx + p.pos0 + t) * half + j] = pair(v);
    } else {
        let head = unit - p.heads - p.kv_heads;
        if (2u * j < p.v_dim) {
            let at = row + (p.heads + p.kv_heads) * p.qk_dim + head * p.v_dim + 2u * j;
            v = vec2<f32>(qkv[at], qkv[at + 1u]);
        }
        v_cache[(head * p.ctx + p.pos0 + t) * half + j] = pair(v);
    }
}
