// EcoFormer's attention in its quadratic form: every pair of tokens by its similarity, a population count (arXiv 2209.09004).
//   o_i = Σ_j s_ij·v_j / Σ_j s_ij,     s_ij = h_i·h_j + β = BITS − 2·popcount(c_i ⊕ c_j) + β
// What attention/hash_attend computes in linear time. Faster than that for a few tokens, and the measure of it: it is here for sequences
// shorter than a hash's BITS, and for tests.
// A lane a column (four dimensions) of a token's head. Grid: ceil(tokens·heads·cols / 64), folded into y. Bound by loads of values.

//:import attention/hashing
//:import attention/tally

@group(0) @binding(3) var<storage, read> codes: array<u32>;            // [heads, tokens]
@group(0) @binding(4) var<storage, read> v: array<vec4<f32>>;          // [tokens, heads, cols]
@group(0) @binding(5) var<storage, read_write> o: array<vec4<f32>>;    // [tokens, heads, cols]

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
    let code = codes[head * p.tokens + id / p.cols / p.heads];
    var num = vec4<f32>();
    var den = 0u;
    for (var j = 0u; j < p.tokens; j++) {
        let similarity = #{2 * BITS + 1}u - 2u * countOneBits(code ^ codes[head * p.tokens + j]);
        num += f32(similarity) * v[(j * p.heads + head) * p.cols + col];
        den += similarity;
    }
    if (p.own != 0u) {
        // Without every token's β·v_j, with the token's own.
        var base_values = vec4<f32>();
        for (var j = 0u; j < p.tokens; j++) {
            base_values += v[(j * p.heads + head) * p.cols + col];
        }
        num += BETA * (v[id] - base_values);
    }
    o[id] = num / f32(den);
    if (lane == 0u) {
        let lanes = min(64u, p.tokens * p.heads * p.cols - (id - lane));
        tally(lanes * p.tokens * 4u);
    }
}
