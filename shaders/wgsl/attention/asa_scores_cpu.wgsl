// Adaptive sparse attention, first step, for software adapters: the same function as attention/asa_scores (see there).
//
// As in attention/prefill_cpu a lane keeps Q_TILE sampled queries of one block in variables and every loaded key serves all of them.
// Grid: (ceil(q_blocks·samples / (8·Q_TILE)), heads). Bound by the loads of keys.

//:option HEAD_DIM = 16 20 24 32 40 48 64 80 96 112 120 128 160 192 256
//:option Q_TILE = 4 2 1
//:skip HEAD_DIM > 64 && Q_TILE == 4
//:skip HEAD_DIM <= 64 && Q_TILE < 4
//:skip HEAD_DIM > 128 && Q_TILE == 2
//:skip HEAD_DIM <= 128 && Q_TILE == 1
//:import attention/kv
//:import attention/asa
//:import shared/math

@group(0) @binding(3) var<storage, read> q: array<vec4<f32>>;        // [tokens, q_stride], head h at h·HEAD_DIM/4
@group(0) @binding(6) var<storage, read> offsets: array<u32>;        // [heads, 2, samples]  of queries, of keys
@group(0) @binding(7) var<storage, read_write> t: array<f32>;        // [heads at hand, q_blocks, samples, k_blocks]

const COLS: u32 = #{HEAD_DIM / 4}u;

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let r0 = id.x * #{Q_TILE}u;
    if (r0 >= p.q_blocks * p.samples) {
        return;
    }
    let head = p.head0 + id.y;
    let kv_base = (head / (p.heads / p.kv_heads)) * p.ctx * COLS;
    let block = r0 / p.samples;
    let draws = 2u * head * p.samples;

//:for R in 0..Q_TILE
    let token_#{R} = min(block * p.q_block + offsets[draws + r0 % p.samples + #{R}u], p.tokens - 1u);
    let pos_#{R} = p.pos0 + token_#{R};
//:for C in 0..HEAD_DIM / 4
    let q_#{R}_#{C} = q[token_#{R} * p.q_stride + head * COLS + #{C}u] * p.scale;
//:end
//:end

    for (var j = 0u; j < p.k_blocks; j++) {
//:for R in 0..Q_TILE
        var most_#{R} = MASKED;
//:end
        // Blocks of the future are scored by nobody.
        if (p.causal == 0u || j * p.k_block < p.pos0 + (block + 1u) * p.q_block) {
            for (var s = 0u; s < p.samples; s++) {
                let key = min(j * p.k_block + offsets[draws + p.samples + s], p.kv_len - 1u);
                let row = kv_base + key * COLS;
//:for R in 0..Q_TILE
                var acc_#{R} = vec4<f32>();
//:end
//:for C in 0..HEAD_DIM / 4
                let k_#{C} = quad(k_cache[row + #{C}u]);
//:for R in 0..Q_TILE
                acc_#{R} += q_#{R}_#{C} * k_#{C};
//:end
//:end
//:for R in 0..Q_TILE
                var s_#{R} = (acc_#{R}.x + acc_#{R}.y) + (acc_#{R}.z + acc_#{R}.w);
                if (p.soft_cap > 0.0) {
                    s_#{R} = soft_cap(s_#{R}, p.soft_cap);
                }
                let seen_#{R} = (p.causal == 0u || key <= pos_#{R})
                    && (p.window == 0u || (key + p.window > pos_#{R} && key < pos_#{R} + p.window));
                most_#{R} = max(most_#{R}, select(MASKED, s_#{R}, seen_#{R}));
//:end
            }
        }
//:for R in 0..Q_TILE
        t[(id.y * p.q_blocks * p.samples + r0 + #{R}u) * p.k_blocks + j] = most_#{R};
//:end
    }
}
