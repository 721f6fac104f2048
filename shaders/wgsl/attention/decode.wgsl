// Attention of one query over the KV cache, for real GPUs: o = softmax(scale·q·Kᵀ)·V per head, keys begin ≤ j < kv_len.
//
// The context is split: a workgroup takes the keys of one split for HEADS query heads that share a KV head, so each key and value is
// loaded once for all of them (Flash-Decoding, Dao et al. 2023). It walks over chunks of 128 keys with an online softmax. A lane
// scores one key of the chunk, then accumulates one column (four dimensions) of the output over every `subsets`-th key.
// With one split the workgroup writes the output; else unnormalised sums with their (max, sum), which attention/combine joins.
// Grid: (heads/HEADS, splits). Bound by memory bandwidth: the cache is read once.

//:option HEADS = 1 2 3 4
//:import attention/kv
//:import shared/math

struct Params {
    heads: u32,
    kv_heads: u32,
    cols: u32,      // head_dim/4, at most 64
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

const WG: u32 = 128u;
alias Reduced = vec4<f32>;   // a component a head
//:import shared/reduce

var<workgroup> query: array<vec4<f32>, #{HEADS * 64}>;   // [HEADS, 64]
var<workgroup> weights: array<vec4<f32>, WG>;            // [key]  a component a head
var<workgroup> sums: array<vec4<f32>, #{HEADS * 128}>;   // [HEADS, lane]

@compute @workgroup_size(128)
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
    let head0 = group.x * #{HEADS}u;
    let kv_base = (head0 / (p.heads / p.kv_heads)) * p.ctx * p.cols;
    let low = p.begin + group.y * p.split_keys;
    let high = min(low + p.split_keys, p.kv_len);

    for (var i = lane; i < #{HEADS}u * p.cols; i += WG) {
        query[i / p.cols * 64u + i % p.cols] = q[head0 * p.cols + i] * p.scale;
    }
    workgroupBarrier();

    let subsets = WG / p.cols;       // lanes past subsets·cols idle in the second half
    let subset = lane / p.cols;
    let col = lane % p.cols;
    var top = vec4<f32>(MASKED);
    var sum = vec4<f32>();           // of this lane's keys; added up at the end
//:for H in 0..HEADS
    var o_#{H} = vec4<f32>();
//:end
    for (var k0 = low; k0 < high; k0 += WG) {
        var s = vec4<f32>(MASKED);
        let key = k0 + lane;
        if (key < high) {
            let row = kv_base + key * p.cols;
//:for H in 0..HEADS
            var acc_#{H} = vec4<f32>();
//:end
            for (var c = 0u; c < p.cols; c++) {
                let k = quad(k_cache[row + c]);
//:for H in 0..HEADS
                acc_#{H} += query[#{H * 64}u + c] * k;
//:end
            }
//:for H in 0..HEADS
            s[#{H}] = (acc_#{H}.x + acc_#{H}.y) + (acc_#{H}.z + acc_#{H}.w);
            if (p.soft_cap > 0.0) {
                s[#{H}] = soft_cap(s[#{H}], p.soft_cap);
            }
//:end
        }
        let next = max(top, reduce_max(lane, s));
        let shrink = exp(top - next);
        top = next;
        let w = select(vec4<f32>(), exp(s - top), s > vec4<f32>(0.5 * MASKED));
        sum = sum * shrink + w;
        weights[lane] = w;
        workgroupBarrier();
//:for H in 0..HEADS
        o_#{H} *= shrink[#{H}];
//:end
        if (subset < subsets) {
            let count = min(WG, high - k0);
            for (var j = subset; j < count; j += subsets) {
                let v = quad(v_cache[kv_base + (k0 + j) * p.cols + col]);
//:for H in 0..HEADS
                o_#{H} += weights[j][#{H}] * v;
//:end
            }
        }
        workgroupBarrier();
    }

    let total = reduce_add(lane, sum);
//:for H in 0..HEADS
    sums[#{H * 128}u + lane] = o_#{H};
//:end
    workgroupBarrier();
    for (var i = lane; i < #{HEADS}u * p.cols; i += WG) {
        let h = i / p.cols;
        let c = i % p.cols;
        var v = vec4<f32>();
        for (var s = 0u; s < subsets; s++) {
            v += sums[h * 128u + s * p.cols + c];
        }
        if (p.splits == 1u) {
            o[head0 * p.cols + i] = v * select(0.0, 1.0 / total[h], total[h] > 0.0);
        } else {
            let row = (group.y * p.heads + head0 + h) * (p.cols + 1u);
            o[row + c] = v;
            if (c == 0u) {
                o[row + p.cols] = vec4<f32>(top[h], total[h], 0.0, 0.0);
            }
        }
    }
}
