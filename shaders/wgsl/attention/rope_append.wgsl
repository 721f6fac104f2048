// Rotates queries and keys and appends keys and values to the cache: what stands between the QKV product and attention.
//   q_out[t]          = R(pos0+t) · n_q(q[t])         (n = per-head RMS norm with QK_NORM, else the identity)
//   k_cache[.., pos]  = R(pos0+t) · n_k(k[t])         v_cache[.., pos] = v[t],   pos = pos0 + t
// R rotates pairs of dimensions by the angles of a table made on the host (RoFormer, arXiv 2104.09864; all scalings are
// in the table). STYLE 0: pairs (i, i + rotary/2), GPT-NeoX and every Hugging Face model; 1: pairs (2i, 2i+1), the
// original Llama layout; 2: no rotation (encoders with learned positions). Dimensions past `rotary` pass unchanged.
//
// q_in, k_in and v_in may be one fused buffer, told apart by their offsets.
// A lane moves four dimensions of one head of one token. Grid: ceil(tokens·(heads + 2·kv_heads)·head_dim/4 / 64), folded into y.
// With QK_NORM every lane sums its whole head again: head_dim cached loads, cheaper than a barrier for all.
// Bound by launch and latency in decode, by memory bandwidth in prefill.

//:option STYLE = 0 1 2
//:option QK_NORM = 0 1
//:option KV_F16 = 0 1

struct Params {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,   // multiple of 4
    rotary: u32,     // dimensions that are rotated, multiple of 4 (0 with STYLE 2)
    pos0: u32,       // position of token 0
    ctx: u32,        // positions the cache has room for
    q_stride: u32,   // floats from token to token
    k_stride: u32,
    v_stride: u32,
    q_offset: u32,   // of token 0, in floats
    k_offset: u32,
    v_offset: u32,
    eps: f32,        // of the QK norm
    width: u32,      // workgroups of the grid in x
    pad0: u32,
}

@group(0) @binding(3) var<storage, read> q_in: array<f32>;              // [tokens, q_stride], head h at q_offset + h·head_dim
@group(0) @binding(4) var<storage, read> k_in: array<f32>;              // [tokens, k_stride]
@group(0) @binding(5) var<storage, read> v_in: array<f32>;              // [tokens, v_stride]
//:if STYLE < 2
@group(0) @binding(6) var<storage, read> rope: array<vec2<f32>>;        // [max_pos, rotary/2]  (cos, sin)
//:endif
//:if QK_NORM
@group(0) @binding(7) var<storage, read> qk_norm: array<f32>;           // [2, head_dim]  q's weights, then k's
//:endif
@group(0) @binding(8) var<storage, read_write> q_out: array<vec2<f32>>; // [tokens, heads, head_dim]
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
@group(0) @binding(9) var<storage, read_write> k_cache: array<Pair>;    // [kv_heads, ctx, head_dim/2]
@group(0) @binding(10) var<storage, read_write> v_cache: array<Pair>;   // [kv_heads, ctx, head_dim/2]
@group(1) @binding(0) var<uniform> p: Params;

fn rotate(v: vec2<f32>, t: u32, angle: u32) -> vec2<f32> {
//:if STYLE < 2
    let r = rope[(p.pos0 + t) * (p.rotary / 2u) + angle];
    return vec2<f32>(v.x * r.x - v.y * r.y, v.x * r.y + v.y * r.x);
//:else
    return v;
//:endif
}

// Dimensions (d0, d0+1) and (d1, d1+1) of a head, rotated; `base` is its first float, in q_in or k_in as KEY says.
//:for KEY in 0..2
fn load_#{KEY}(base: u32, d: u32, scale: f32) -> vec2<f32> {
//:if KEY
    let v = vec2<f32>(k_in[base + d], k_in[base + d + 1u]);
//:else
    let v = vec2<f32>(q_in[base + d], q_in[base + d + 1u]);
//:endif
//:if QK_NORM
    let at = #{KEY}u * p.head_dim + d;
    return v * scale * vec2<f32>(qk_norm[at], qk_norm[at + 1u]);
//:else
    return v;
//:endif
}

fn scale_#{KEY}(base: u32) -> f32 {
//:if QK_NORM
    var sum = vec4<f32>();
    for (var d = 0u; d < p.head_dim; d += 4u) {
//:if KEY
        let v = vec4<f32>(k_in[base + d], k_in[base + d + 1u], k_in[base + d + 2u], k_in[base + d + 3u]);
//:else
        let v = vec4<f32>(q_in[base + d], q_in[base + d + 1u], q_in[base + d + 2u], q_in[base + d + 3u]);
//:endif
        sum += v * v;
    }
    return inverseSqrt((sum.x + sum.y + sum.z + sum.w) / f32(p.head_dim) + p.eps);
//:else
    return 1.0;
//:endif
}

fn rotated_#{KEY}(base: u32, t: u32, quad: u32) -> vec4<f32> {
    let scale = scale_#{KEY}(base);
    if (quad < p.rotary / 4u) {
//:if STYLE == 0
        let a = load_#{KEY}(base, 2u * quad, scale);
        let b = load_#{KEY}(base, 2u * quad + p.rotary / 2u, scale);
        let first = rotate(vec2<f32>(a.x, b.x), t, 2u * quad);
        let second = rotate(vec2<f32>(a.y, b.y), t, 2u * quad + 1u);
        return vec4<f32>(first.x, second.x, first.y, second.y);
//:else
        let first = rotate(load_#{KEY}(base, 4u * quad, scale), t, 2u * quad);
        let second = rotate(load_#{KEY}(base, 4u * quad + 2u, scale), t, 2u * quad + 1u);
        return vec4<f32>(first, second);
//:endif
    }
    return vec4<f32>(load_#{KEY}(base, 4u * quad, scale), load_#{KEY}(base, 4u * quad + 2u, scale));
}
//:end

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quads = p.head_dim / 4u;
    let units = p.heads + 2u * p.kv_heads;
    let id = (group.y * p.width + group.x) * 64u + lane;
    if (id >= p.tokens * units * quads) {
        return;
    }
    let quad = id % quads;
    let unit = (id / quads) % units;
    let t = id / (quads * units);

    // Where this lane's two pairs of dimensions lie, in pairs from the head's first dimension.
    var at = vec2<u32>(2u * quad, 2u * quad + 1u);
//:if STYLE == 0
    if (quad < p.rotary / 4u && unit < p.heads + p.kv_heads) {
        at = vec2<u32>(quad, quad + p.rotary / 4u);
    }
//:endif

    if (unit < p.heads) {
        let v = rotated_0(p.q_offset + t * p.q_stride + unit * p.head_dim, t, quad);
        let row = (t * p.heads + unit) * (p.head_dim / 2u);
        q_out[row + at.x] = v.xy;
        q_out[row + at.y] = v.zw;
    } else if (unit < p.heads + p.kv_heads) {
        let head = unit - p.heads;
        let v = rotated_1(p.k_offset + t * p.k_stride + head * p.head_dim, t, quad);
        let row = (head * p.ctx + p.pos0 + t) * (p.head_dim / 2u);
        k_cache[row + at.x] = pair(v.xy);
        k_cache[row + at.y] = pair(v.zw);
    } else {
        let head = unit - p.heads - p.kv_heads;
        let base = p.v_offset + t * p.v_stride + head * p.head_dim + 4u * quad;
        let row = (head * p.ctx + p.pos0 + t) * (p.head_dim / 2u);
        v_cache[row + at.x] = pair(vec2<f32>(v_in[base], v_in[base + 1u]));
        v_cache[row + at.y] = pair(vec2<f32>(v_in[base + 2u], v_in[base + 3u]));
    }
}
