// EcoFormer, last step: linear attention from the sums (arXiv 2209.09004).
//   o_i = (Σ_b h_ib·S_b + β·V) / (Σ_b h_ib·z_b + N·β),     S_b = Σ_j h_jb·v_j,  V = Σ_j v_j,  z_b = Σ_j h_jb = 2·count_b − N
// which equals Σ_j (h_i·h_j + β)·v_j / Σ_j (h_i·h_j + β). With `own` the numerator has β·v_i in place of β·V: what the released code
// computes and its weights were trained with. Sums of more than one chunk are joined first (attention/hash_join).
// A lane a column (four dimensions) of a token's head. Grid: ceil(tokens·heads·cols / 64), folded into y. Bound by memory bandwidth.

//:import attention/hashing
//:import attention/tally

@group(0) @binding(3) var<storage, read> codes: array<u32>;            // [heads, tokens]
@group(0) @binding(4) var<storage, read> v: array<vec4<f32>>;          // [tokens, heads, cols]
@group(0) @binding(5) var<storage, read> sums: array<vec4<f32>>;       // [heads, BITS + 1, cols]
@group(0) @binding(6) var<storage, read> counts: array<u32>;           // [heads, BITS]
@group(0) @binding(7) var<storage, read_write> o: array<vec4<f32>>;    // [tokens, heads, cols]

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = (group.y * grid.x + group.x) * 64u + lane;
    if (id >= p.tokens * p.heads * p.cols) {
        return;
    }
    let col = id % p.cols;
    let head = id / p.cols % p.heads;
    let token = id / p.cols / p.heads;
    let code = codes[head * p.tokens + token];
    let base = head * #{BITS + 1}u * p.cols + col;
    var base_values = sums[base + #{BITS}u * p.cols];
    if (p.own != 0u) {
        base_values = v[id];
    }
    var num = BETA * base_values;
    // In whole numbers: exact up to 2³¹ / BITS tokens.
    var den = 0i;
//:for B in 0..BITS
    {
        let plus = (code & (1u << #{B}u)) != 0u;
        let s = sums[base + #{B}u * p.cols];
        num += select(-s, s, plus);
        let z = 2i * i32(counts[head * #{BITS}u + #{B}u]) - i32(p.tokens);
        den += select(-z, z, plus);
    }
//:end
    o[id] = num / (f32(den) + f32(p.tokens) * BETA);
    if (lane == 0u) {
        let lanes = min(64u, p.tokens * p.heads * p.cols - (id - lane));
        tally(lanes * #{BITS}u * 4u);
    }
}
