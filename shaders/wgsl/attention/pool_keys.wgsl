// Means of `gap` consecutive keys and values: the coarse view of attention's global branch (Video-BLADE, arXiv 2508.10774).
//   pooled[h, g] = 1/gap · Σ_r cache[h, min(g·gap + r, kv_len − 1)]     for keys and for values
// The tail is padded by its last token. In a growing cache only whole groups may be asked for.
// A lane a column (four dimensions) of one group. Grid: ceil(kv_heads·groups·head_dim/4 / 64). Bound by memory bandwidth.

//:import attention/kv

struct Params {
    kv_heads: u32,
    cols: u32,        // head_dim/4
    ctx: u32,         // positions the cache has room for
    kv_len: u32,
    gap: u32,
    group0: u32,      // the first group to make
    groups: u32,      // how many
    pooled_ctx: u32,  // groups the pooled cache has room for
}

@group(0) @binding(6) var<storage, read_write> pooled_k: array<vec4<f32>>;   // [kv_heads, pooled_ctx, cols]
@group(0) @binding(7) var<storage, read_write> pooled_v: array<vec4<f32>>;   // [kv_heads, pooled_ctx, cols]
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.kv_heads * p.groups * p.cols) {
        return;
    }
    let col = id.x % p.cols;
    let g = p.group0 + id.x / p.cols % p.groups;
    let head = id.x / p.cols / p.groups;
    var k = vec4<f32>();
    var v = vec4<f32>();
    for (var r = 0u; r < p.gap; r++) {
        let at = (head * p.ctx + min(g * p.gap + r, p.kv_len - 1u)) * p.cols + col;
        k += quad(k_cache[at]);
        v += quad(v_cache[at]);
    }
    let to = (head * p.pooled_ctx + g) * p.cols + col;
    pooled_k[to] = k / f32(p.gap);
    pooled_v[to] = v / f32(p.gap);
}
