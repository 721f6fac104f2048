// Adaptive sparse attention, first step, for real GPUs: how much sampled queries want of every key block.
//   t[h, I, i, J] = max over samples j of  scale·q(I, i)·k(J, j),  −1e30 where query (I, i) sees none of block J's samples
//
// A workgroup of 8×8 lanes scores 32 sampled queries (of 32/samples query blocks) against 32 sampled keys, in chunks of 32 dimensions
// through workgroup memory as attention/prefill does, then takes the maxima over each block's keys.
// Grid: (ceil(q_blocks·samples / 32), heads, ceil(k_blocks·samples / 32)). Bound by workgroup memory; (samples/block)² of the work of
// dense scores.

//:option HEAD_DIM = 16 20 24 32 40 48 64 80 96 112 120 128 160 192 256
//:import attention/kv
//:import attention/asa
//:import shared/math

@group(0) @binding(3) var<storage, read> q: array<vec4<f32>>;        // [tokens, q_stride], head h at h·HEAD_DIM/4
@group(0) @binding(6) var<storage, read> offsets: array<u32>;        // [heads, 2, samples]  of queries, of keys
@group(0) @binding(7) var<storage, read_write> t: array<f32>;        // [heads at hand, q_blocks, samples, k_blocks]

const COLS: u32 = #{HEAD_DIM / 4}u;
const CHUNKS: u32 = #{(HEAD_DIM + 31) / 32}u;

var<workgroup> tile: array<vec4<f32>, #{32 * 9}>;      // [key, 9]  a chunk of the keys
var<workgroup> q_tile: array<vec4<f32>, #{32 * 9}>;    // [query, 9]  the same chunk of the queries
var<workgroup> scored: array<f32, #{32 * 33}>;         // [query, 33]
var<workgroup> q_at: array<u32, 32>;                   // token of each sampled query
var<workgroup> k_at: array<u32, 32>;                   // position of each sampled key

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
    let head = p.head0 + group.y;
    let kv_base = (head / (p.heads / p.kv_heads)) * p.ctx * COLS;
    let q0 = group.x * 32u;
    let k0 = group.z * 32u;

    // Samples past the last block stand for the last token; what they score is not stored.
    let sample = lane % 32u;
    let draw = offsets[(2u * head + lane / 32u) * p.samples + sample % p.samples];
    if (lane < 32u) {
        q_at[sample] = min((q0 + sample) / p.samples * p.q_block + draw, p.tokens - 1u);
    } else {
        k_at[sample] = min((k0 + sample) / p.samples * p.k_block + draw, p.kv_len - 1u);
    }
    workgroupBarrier();

//:for R in 0..4
    var s_#{R} = vec4<f32>();   // scores of keys tx, tx+8, tx+16, tx+24
//:end
    for (var c = 0u; c < CHUNKS; c++) {
        let col = c * 8u + tx;
        for (var i = 0u; i < 4u; i++) {
            let row = ty + 8u * i;
            var k = vec4<f32>();
            var v = vec4<f32>();
            if (col < COLS) {
                k = quad(k_cache[kv_base + k_at[row] * COLS + col]);
                v = q[q_at[row] * p.q_stride + head * COLS + col] * p.scale;
            }
            tile[row * 9u + tx] = k;
            q_tile[row * 9u + tx] = v;
        }
        workgroupBarrier();
        for (var d = 0u; d < 8u; d++) {
//:for J in 0..4
            let k_#{J} = tile[(tx + #{8 * J}u) * 9u + d];
//:end
//:for R in 0..4
            let q_#{R} = q_tile[(ty * 4u + #{R}u) * 9u + d];
            s_#{R} += vec4<f32>(dot(q_#{R}, k_0), dot(q_#{R}, k_1), dot(q_#{R}, k_2), dot(q_#{R}, k_3));
//:end
        }
        workgroupBarrier();
    }

    let keys = vec4<u32>(k_at[tx], k_at[tx + 8u], k_at[tx + 16u], k_at[tx + 24u]);
//:for R in 0..4
    {
        let row = ty * 4u + #{R}u;
        let pos = p.pos0 + q_at[row];
        if (p.soft_cap > 0.0) {
            s_#{R} = p.soft_cap * tanh(clamp(s_#{R} / p.soft_cap, vec4<f32>(-10.0), vec4<f32>(10.0)));
        }
        var seen = vec4<bool>(true);
        if (p.causal != 0u) {
            seen &= keys <= vec4<u32>(pos);
        }
        if (p.window != 0u) {
            seen &= (keys + p.window > vec4<u32>(pos)) & (keys < vec4<u32>(pos + p.window));
        }
        let s = select(vec4<f32>(MASKED), s_#{R}, seen);
//:for J in 0..4
        scored[row * 33u + tx + #{8 * J}u] = s[#{J}];
//:end
    }
//:end
    workgroupBarrier();

    // Maxima: one (query, block) pair after the other.
    let blocks = 32u / p.samples;
    for (var at = lane; at < 32u * blocks; at += 64u) {
        let row = at / blocks;
        let block = at % blocks;
        let i = (q0 + row) / p.samples;
        let j = k0 / p.samples + block;
        if (i < p.q_blocks && j < p.k_blocks) {
            var most = MASKED;
            for (var s = 0u; s < p.samples; s++) {
                most = max(most, scored[row * 33u + block * p.samples + s]);
            }
            t[((group.y * p.q_blocks + i) * p.samples + (q0 + row) % p.samples) * p.k_blocks + j] = most;
        }
    }
}
