// What one model's logits say, position by position: nll = lse(l) − l(y) at target token y, the probability of y, the best token,
// and the entropy of the distribution.
//
// A workgroup a position; LANES 256, or 8 on software adapters (one SIMD register: barriers are free).
// Grid: (rows). Two passes over the row. Bound by memory bandwidth.

//:option LANES = 256 8
//:option TOP = 1
//:import shared/top

struct Params {
    rows: u32,
    vocab: u32,
    offset: u32,        // of row 0, in floats
    stride: u32,        // floats from row to row
    target_offset: u32,
    record_offset: u32, // which record row 0 writes
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(3) var<storage, read> logits: array<f32>;        // [rows, stride]
@group(0) @binding(4) var<storage, read> targets: array<u32>;       // [rows]  the token that really follows
// [rows, 4]: nll, p(target), argmax, entropy; floats as their bits
@group(0) @binding(5) var<storage, read_write> record: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

const WG: u32 = #{LANES}u;

var<workgroup> reduced: array<vec2<f32>, WG>;

@compute @workgroup_size(#{LANES})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = p.offset + group.x * p.stride;
    var list = top_empty();
    for (var i = lane; i < p.vocab; i += WG) {
        top_insert(&list, logits[row + i], i);
    }
    let best = top_pop(lane, &list);

    // Σe^l and Σe^l·(max − l), both from the maximum.
    var part = vec2<f32>();
    for (var i = lane; i < p.vocab; i += WG) {
        let down = best.value - logits[row + i];
        let e = exp(-down);
        part += vec2<f32>(e, select(0.0, e * down, e > 0.0));
    }
    reduced[lane] = part;
    workgroupBarrier();
    for (var n = WG / 2u; n > 0u; n = n / 2u) {
        if (lane < n) {
            reduced[lane] += reduced[lane + n];
        }
        workgroupBarrier();
    }

    if (lane == 0u) {
        let sums = reduced[0];
        let y = min(targets[p.target_offset + group.x], p.vocab - 1u);
        let nll = (best.value - logits[row + y]) + log(sums.x);
        let out = (p.record_offset + group.x) * 4u;
        record[out] = bitcast<u32>(nll);
        record[out + 1u] = bitcast<u32>(exp(-nll));
        record[out + 2u] = best.index;
        record[out + 3u] = bitcast<u32>(log(sums.x) + sums.y / sums.x);
    }
}
