// EcoFormer, first step: how far tokens are from the anchors, for the width σ of the hash's kernel (arXiv 2209.09004).
//   spread[h, chunk] = Σ over the chunk's tokens t, anchors j of ‖x̂_t − a_j‖² = Σ_t (m·‖x̂_t‖² + Σ_j ‖a_j‖² − 2·x̂_t·Σ_j a_j),   x̂ = x/‖x‖
// σ is the sum over all chunks / (tokens·m); attention/hash_codes takes it.
// A lane every 64th token of a chunk. Grid: (chunks, heads). Bound by memory bandwidth.

//:import attention/hashing

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;              // [tokens, heads, cols]
@group(0) @binding(4) var<storage, read> anchor_sums: array<vec4<f32>>;    // [heads, cols + 1]  Σ a_j, last column (Σ ‖a_j‖², 0, 0, 0)
@group(0) @binding(5) var<storage, read_write> spread: array<f32>;         // [heads, chunks]

const WG: u32 = 64u;
alias Reduced = f32;
//:import shared/reduce

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
//:if SUBGROUP
    @builtin(subgroup_id) subgroup_id: u32,
    @builtin(subgroup_invocation_id) subgroup_invocation_id: u32,
    @builtin(num_subgroups) num_subgroups: u32,
//:endif
) {
//:if SUBGROUP
    reduce_subgroup(subgroup_id, subgroup_invocation_id, num_subgroups);
//:endif
    let sums = group.y * (p.cols + 1u);
    let end = min((group.x + 1u) * CHUNK, p.tokens);
    var total = 0.0;
    for (var token = group.x * CHUNK + lane; token < end; token += WG) {
        let row = (token * p.heads + group.y) * p.cols;
        var energy = 0.0;
        var along = 0.0;
        for (var c = 0u; c < p.cols; c++) {
            let v = x[row + c];
            energy += dot(v, v);
            along += dot(v, anchor_sums[sums + c]);
        }
        // A vector of zeros stays one.
        let inverse = select(0.0, inverseSqrt(energy), energy > 0.0);
        total += f32(p.anchors) * energy * inverse * inverse + anchor_sums[sums + p.cols].x - 2.0 * along * inverse;
    }
    let all = reduce_add(lane, total);
    if (lane == 0u) {
        spread[group.y * p.chunks + group.x] = all;
    }
}
