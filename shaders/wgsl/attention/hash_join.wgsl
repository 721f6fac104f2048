// Adds up the chunks of attention/hash_sums, in their order: deterministic, unlike atomic additions of floats.
// A lane a column of sums, or a count. Grid: ceil(heads·((BITS + 1)·cols + BITS) / 64). Bound by memory bandwidth.

//:import attention/hashing

@group(0) @binding(3) var<storage, read> sums: array<vec4<f32>>;               // [heads, chunks, BITS + 1, cols]
@group(0) @binding(4) var<storage, read> counts: array<u32>;                   // [heads, chunks, BITS]
@group(0) @binding(5) var<storage, read_write> all_sums: array<vec4<f32>>;     // [heads, BITS + 1, cols]
@group(0) @binding(6) var<storage, read_write> all_counts: array<u32>;         // [heads, BITS]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let width = #{BITS + 1}u * p.cols;
    if (id.x < p.heads * width) {
        let head = id.x / width;
        var sum = vec4<f32>();
        for (var i = 0u; i < p.chunks; i++) {
            sum += sums[(head * p.chunks + i) * width + id.x % width];
        }
        all_sums[id.x] = sum;
    } else if (id.x < p.heads * (width + #{BITS}u)) {
        let at = id.x - p.heads * width;
        let head = at / #{BITS}u;
        var count = 0u;
        for (var i = 0u; i < p.chunks; i++) {
            count += counts[(head * p.chunks + i) * #{BITS}u + at % #{BITS}u];
        }
        all_counts[at] = count;
    }
}
