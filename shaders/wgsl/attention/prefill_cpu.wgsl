// Attention of many queries over the KV cache, for software adapters: the same function as attention/prefill (see there).
//
// Such adapters run the lanes of a workgroup as the lanes of a SIMD register and pay dearly for barriers, workgroup memory and
// every load; arithmetic is cheap. So a lane takes Q_TILE neighbouring queries of one head, keeps them and their outputs in
// variables, and every loaded key and value serves all of them. The output is rescaled only when a row's maximum grows.
// Grid: (ceil(tokens / (8·Q_TILE)), heads). With BLOCKS: (query blocks · ceil(q_block / (8·Q_TILE)), heads), the lanes of a workgroup
// in one query block, over whose kept key blocks they walk.

//:option HEAD_DIM = 16 20 24 32 40 48 64 80 96 112 120 128 160 192 256
//:option Q_TILE = 4 2 1
//:option BLOCKS = 0 1
//:skip HEAD_DIM > 64 && Q_TILE == 4
//:skip HEAD_DIM <= 64 && Q_TILE == 2
//:skip HEAD_DIM > 128 && Q_TILE == 2
//:import attention/kv
//:import shared/math

struct Params {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    pos0: u32,
    kv_len: u32,    // valid keys
    ctx: u32,       // positions the cache has room for
    causal: u32,
    window: u32,    // 0: none
    q_stride: u32,  // columns (four floats) from token to token
    o_stride: u32,
    scale: f32,
    soft_cap: f32,  // 0: none
//:if BLOCKS
    q_block: u32,   // queries of a block, counted from query 0
    k_block: u32,   // keys of a block, counted from key 0
    q_blocks: u32,
    list_stride: u32,
    gap: u32,       // positions that a key stands for: 1, or those of a pooled key (attention/pool_keys)
    head0: u32,     // the first of the heads that are listed
    pad0: u32,
    pad1: u32,
//:endif
}

@group(0) @binding(3) var<storage, read> q: array<vec4<f32>>;        // [tokens, q_stride], head h at h·HEAD_DIM/4
@group(0) @binding(6) var<storage, read_write> o: array<vec4<f32>>;  // [tokens, o_stride], head h at h·HEAD_DIM/4
//:if BLOCKS
@group(0) @binding(7) var<storage, read> kept: array<u32>;           // [listed heads, q_blocks, list_stride]  count, then blocks
@group(0) @binding(8) var<storage, read_write> lse: array<f32>;      // [tokens, heads]; −1e30 where no key is seen
//:import attention/tally
//:endif
@group(1) @binding(0) var<uniform> p: Params;

const COLS: u32 = #{HEAD_DIM / 4}u;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
//:if BLOCKS
    let tiles = (p.q_block + #{8 * Q_TILE - 1}u) / #{8 * Q_TILE}u;
    let block = group.x / tiles;
    let head = p.head0 + group.y;
    let t0 = block * p.q_block + (group.x % tiles * 8u + lane) * #{Q_TILE}u;
    let t_end = min((block + 1u) * p.q_block, p.tokens);
//:else
    let head = group.y;
    let t0 = (group.x * 8u + lane) * #{Q_TILE}u;
    let t_end = p.tokens;
//:endif
    if (t0 >= t_end) {
        return;
    }
    let kv_base = (head / (p.heads / p.kv_heads)) * p.ctx * COLS;
    let first = p.pos0 + t0;
    let last = p.pos0 + min(t0 + #{Q_TILE}u, t_end) - 1u;
    var end = p.kv_len;
    if (p.causal != 0u) {
//:if BLOCKS
        end = min(end, (last + 1u) / p.gap);
//:else
        end = min(end, last + 1u);
//:endif
    }
    var begin = 0u;
    if (p.window != 0u) {
        end = min(end, last + p.window);
        begin = max(first + 1u, p.window) - p.window;
    }

//:for R in 0..Q_TILE
    // Past the last query: the last one again, not stored.
    let q_row_#{R} = min(t0 + #{R}u, t_end - 1u) * p.q_stride + head * COLS;
    var max_#{R} = MASKED;
    var sum_#{R} = 0.0;
//:for C in 0..HEAD_DIM / 4
    let q_#{R}_#{C} = q[q_row_#{R} + #{C}u] * p.scale;
    var o_#{R}_#{C} = vec4<f32>();
//:end
//:end

//:if BLOCKS
    let list = (group.y * p.q_blocks + block) * p.list_stride;
    let count = kept[list];
    var done = 0u;
    for (var n = 1u; n <= count; n++) {
    let begin_block = kept[list + n] * p.k_block;
    if (begin_block >= end) {
        break;
    }
    done++;
    let to = min(begin_block + p.k_block, end);
    for (var key = max(begin_block, begin); key < to; key++) {
//:else
    for (var key = begin; key < end; key++) {
//:endif
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
//:if BLOCKS
        let seen_#{R} = (p.causal == 0u || key < (first + #{R + 1}u) / p.gap)
//:else
        let seen_#{R} = (p.causal == 0u || key <= first + #{R}u)
//:endif
            && (p.window == 0u || (key + p.window > first + #{R}u && key < first + #{R}u + p.window));
        if (seen_#{R} && s_#{R} > max_#{R}) {
            let shrink = exp(max_#{R} - s_#{R});
            max_#{R} = s_#{R};
            sum_#{R} *= shrink;
//:for C in 0..HEAD_DIM / 4
            o_#{R}_#{C} *= shrink;
//:end
        }
        let w_#{R} = select(0.0, exp(s_#{R} - max_#{R}), seen_#{R});
        sum_#{R} += w_#{R};
//:end
//:for C in 0..HEAD_DIM / 4
        let v_#{C} = quad(v_cache[row + #{C}u]);
//:for R in 0..Q_TILE
        o_#{R}_#{C} += w_#{R} * v_#{C};
//:end
//:end
    }
//:if BLOCKS
    }
    // The lane with the block's last query sees all that the block sees: it counts for all.
    if (t0 + #{Q_TILE}u >= t_end) {
        tally(done);
    }
//:endif

//:for R in 0..Q_TILE
    if (t0 + #{R}u < t_end) {
        // A query that sees no key yields 0.
        let inverse = select(0.0, 1.0 / sum_#{R}, sum_#{R} > 0.0);
//:if BLOCKS
        lse[(t0 + #{R}u) * p.heads + head] = select(MASKED, max_#{R} + log(sum_#{R}), sum_#{R} > 0.0);
//:endif
        let out = (t0 + #{R}u) * p.o_stride + head * COLS;
//:for C in 0..HEAD_DIM / 4
        o[out + #{C}u] = o_#{R}_#{C} * inverse;
//:end
    }
//:end
}
