// Drops the padding of heads whose values have fewer dimensions than the cache (attention/reduced_append): what the output projection of a
// shrunk layer multiplies.
//   y[t, h·v_dim + d] = x[t, h, d]  for d < v_dim,   and 0 from heads·v_dim to cols
// Grid: ceil(tokens·cols / 64), folded into y. Bound by memory bandwidth.

struct Params {
    tokens: u32,
    heads: u32,
    head_dim: u32, // dimensions of a head in x
    v_dim: u32,    // dimensions of a head in y
    cols: u32,     // at least heads·v_dim
    width: u32,    // workgroups of the grid in x
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(3) var<storage, read> x: array<f32>;       // [tokens, heads, head_dim]
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // [tokens, cols]
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = (group.y * p.width + group.x) * 64u + lane;
    if (id >= p.tokens * p.cols) {
        return;
    }
    let t = id / p.cols;
    let c = id % p.cols;
    var v = 0.0;
    if (c < p.heads * p.v_dim) {
        v = x[(t * p.heads + c / p.v_dim) * p.head_dim + c % p.v_dim];
    }
    y[id] = v;
}
