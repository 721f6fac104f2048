// EcoFormer, third step: what all tokens have in common, by additions and subtractions alone (arXiv 2209.09004).
//   sums[h, chunk, b] = Σ_j h_jb·v_j  for b < BITS,   Σ_j v_j  for b = BITS       counts[h, chunk, b] = number of tokens with bit b set
// A workgroup a chunk of 256 tokens of one head. Lanes are columns (four dimensions) × subsets of the tokens, as in attention/decode.
// Grid: (chunks, heads). Bound by memory bandwidth: codes and values are read once.

//:import attention/hashing
//:import attention/tally

@group(0) @binding(3) var<storage, read> codes: array<u32>;                // [heads, tokens]
@group(0) @binding(4) var<storage, read> v: array<vec4<f32>>;              // [tokens, heads, cols]
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;     // [heads, chunks, BITS + 1, cols]
@group(0) @binding(6) var<storage, read_write> counts: array<u32>;         // [heads, chunks, BITS]

const WG: u32 = 64u;
var<workgroup> parts: array<vec4<f32>, WG>;
var<workgroup> chunk_codes: array<u32, CHUNK>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let first = group.x * CHUNK;
    let count = min(CHUNK, p.tokens - first);
    for (var i = lane; i < count; i += WG) {
        chunk_codes[i] = codes[head * p.tokens + first + i];
    }
    workgroupBarrier();

    let subsets = WG / p.cols;       // lanes past subsets·cols add nothing
    let subset = lane / p.cols;
    let col = lane % p.cols;
//:for B in 0..BITS + 1
    var s_#{B} = vec4<f32>();
//:end
    if (subset < subsets) {
        for (var i = subset; i < count; i += subsets) {
            let code = chunk_codes[i];
            let value = v[((first + i) * p.heads + head) * p.cols + col];
//:for B in 0..BITS
            s_#{B} += select(-value, value, (code & (1u << #{B}u)) != 0u);
//:end
            s_#{BITS} += value;
        }
    }
    let chunk = head * p.chunks + group.x;
//:for B in 0..BITS + 1
    parts[lane] = s_#{B};
    workgroupBarrier();
    if (lane < p.cols) {
        var sum = parts[lane];
        for (var i = 1u; i < subsets; i++) {
            sum += parts[i * p.cols + lane];
        }
        sums[(chunk * #{BITS + 1}u + #{B}u) * p.cols + lane] = sum;
    }
    workgroupBarrier();
//:end
    for (var b = lane; b < #{BITS}u; b += WG) {
        var ones = 0u;
        for (var i = 0u; i < count; i++) {
            ones += (chunk_codes[i] >> b) & 1u;
        }
        counts[chunk * #{BITS}u + b] = ones;
    }
    if (lane == 0u) {
        tally(count * #{BITS + 1}u * p.cols * 4u);
    }
}
