// Attention of one query over the KV cache, for software adapters: the same function, grid and outputs as attention/decode.
//
// Eight lanes (one SIMD register) share the keys of a split, every lane with the whole query and output of HEADS heads in
// variables; they meet once, at the end, in workgroup memory. See attention/prefill_cpu for why.
// Grid: (heads/HEADS, splits).

//:option HEAD_DIM = 16 20 24 32 40 48 64 80 96 112 120 128 160 192 256
//:option HEADS = 1 2 3 4
//:skip HEADS * HEAD_DIM > 384
//:import attention/kv
//:import shared/math

struct Params {
    heads: u32,
    kv_heads: u32,
    cols: u32,      // head_dim/4
    begin: u32,     // first visible key
    kv_len: u32,    // one past the last
    ctx: u32,       // positions the cache has room for
    splits: u32,
    split_keys: u32, // keys of a split
    scale: f32,
    soft_cap: f32,  // 0: none
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(3) var<storage, read> q: array<vec4<f32>>;        // [heads, cols]
// splits = 1: [heads, cols]. Else [splits, heads, cols + 1], the last column is (max, sum, 0, 0).
@group(0) @binding(6) var<storage, read_write> o: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> p: Params;

const COLS: u32 = #{HEAD_DIM / 4}u;

var<workgroup> tops: array<vec2<f32>, 8>;                    // [lane]  (max, sum)
var<workgroup> sums: array<vec4<f32>, #{8 * HEAD_DIM / 4}>;  // [lane, COLS]

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head0 = group.x * #{HEADS}u;
    let kv_base = (head0 / (p.heads / p.kv_heads)) * p.ctx * COLS;
    let low = p.begin + group.y * p.split_keys;
    let high = min(low + p.split_keys, p.kv_len);

//:for H in 0..HEADS
    var max_#{H} = MASKED;
    var sum_#{H} = 0.0;
//:for C in 0..HEAD_DIM / 4
    let q_#{H}_#{C} = q[(head0 + #{H}u) * COLS + #{C}u] * p.scale;
    var o_#{H}_#{C} = vec4<f32>();
//:end
//:end
    for (var key = low + lane; key < high; key += 8u) {
        let row = kv_base + key * COLS;
//:for H in 0..HEADS
        var acc_#{H} = vec4<f32>();
//:end
//:for C in 0..HEAD_DIM / 4
        let k_#{C} = quad(k_cache[row + #{C}u]);
//:for H in 0..HEADS
        acc_#{H} += q_#{H}_#{C} * k_#{C};
//:end
//:end
//:for H in 0..HEADS
        var s_#{H} = (acc_#{H}.x + acc_#{H}.y) + (acc_#{H}.z + acc_#{H}.w);
        if (p.soft_cap > 0.0) {
            s_#{H} = soft_cap(s_#{H}, p.soft_cap);
        }
        if (s_#{H} > max_#{H}) {
            let shrink = exp(max_#{H} - s_#{H});
            max_#{H} = s_#{H};
            sum_#{H} *= shrink;
//:for C in 0..HEAD_DIM / 4
            o_#{H}_#{C} *= shrink;
//:end
        }
        let w_#{H} = exp(s_#{H} - max_#{H});
        sum_#{H} += w_#{H};
//:end
//:for C in 0..HEAD_DIM / 4
        let v_#{C} = quad(v_cache[row + #{C}u]);
//:for H in 0..HEADS
        o_#{H}_#{C} += w_#{H} * v_#{C};
//:end
//:end
    }

//:for H in 0..HEADS
    tops[lane] = vec2<f32>(max_#{H}, sum_#{H});
    workgroupBarrier();
    var top_#{H} = MASKED;
    for (var i = 0u; i < 8u; i++) {
        top_#{H} = max(top_#{H}, tops[i].x);
    }
    var total_#{H} = 0.0;
    for (var i = 0u; i < 8u; i++) {
        total_#{H} += tops[i].y * exp(tops[i].x - top_#{H});
    }
    let shrink_#{H} = exp(max_#{H} - top_#{H});
//:for C in 0..HEAD_DIM / 4
    sums[lane * COLS + #{C}u] = o_#{H}_#{C} * shrink_#{H};
//:end
    workgroupBarrier();
    for (var c = lane; c < COLS; c += 8u) {
        var v = vec4<f32>();
        for (var i = 0u; i < 8u; i++) {
            v += sums[i * COLS + c];
        }
        if (p.splits == 1u) {
            o[(head0 + #{H}u) * COLS + c] = v * select(0.0, 1.0 / total_#{H}, total_#{H} > 0.0);
        } else {
            o[(group.y * p.heads + head0 + #{H}u) * (COLS + 1u) + c] = v;
        }
    }
    if (p.splits > 1u && lane == 0u) {
        o[(group.y * p.heads + head0 + #{H}u) * (COLS + 1u) + COLS] = vec4<f32>(top_#{H}, total_#{H}, 0.0, 0.0);
    }
    workgroupBarrier();
//:end
}
