// The TOP largest of many numbers, with their indices; equal numbers rank by index, lower first.
//
// Every lane keeps its own TOP largest in order (top_insert while it walks over its share); top_pop then yields the largest of
// all, again and again: it compares the heads of the lanes' lists and the winner steps on. The kernel defines `const WG: u32`
// and option TOP.

const TOP_NONE: u32 = 0xffffffffu;
const LOWEST: f32 = -3.4028234e38;

struct TopList {
//:for I in 0..TOP
    v#{I}: f32,
    i#{I}: u32,
//:end
}

fn top_empty() -> TopList {
    var list: TopList;
//:for I in 0..TOP
    list.v#{I} = LOWEST;
    list.i#{I} = TOP_NONE;
//:end
    return list;
}

// Does (v, i) rank before (w, j)?
fn top_before(v: f32, i: u32, w: f32, j: u32) -> bool {
    return v > w || (v == w && i < j);
}

fn top_insert(list: ptr<function, TopList>, value: f32, index: u32) {
    if (!top_before(value, index, (*list).v#{TOP - 1}, (*list).i#{TOP - 1})) {
        return;
    }
    var v = value;
    var i = index;
//:for I in 0..TOP
    if (top_before(v, i, (*list).v#{I}, (*list).i#{I})) {
        let w = (*list).v#{I};
        let j = (*list).i#{I};
        (*list).v#{I} = v;
        (*list).i#{I} = i;
        v = w;
        i = j;
    }
//:end
}

struct Ranked {
    value: f32,
    index: u32,   // TOP_NONE: there was none left
}

var<workgroup> top_values: array<f32, WG>;
var<workgroup> top_indices: array<u32, WG>;

// The largest number left, the same for every lane. Uniform control flow only.
fn top_pop(lane: u32, list: ptr<function, TopList>) -> Ranked {
    top_values[lane] = (*list).v0;
    top_indices[lane] = (*list).i0;
    workgroupBarrier();
    // Four into one until at most four are left, which every lane compares for itself.
    var n = WG;
    while (n > 4u) {
        n = n / 4u;
        if (lane < n) {
            var first = lane;
            for (var i = lane + n; i < 4u * n; i += n) {
                if (top_before(top_values[i], top_indices[i], top_values[first], top_indices[first])) {
                    first = i;
                }
            }
            top_values[lane] = top_values[first];
            top_indices[lane] = top_indices[first];
        }
        workgroupBarrier();
    }
    var best = Ranked(top_values[0], top_indices[0]);
    for (var i = 1u; i < n; i++) {
        if (top_before(top_values[i], top_indices[i], best.value, best.index)) {
            best = Ranked(top_values[i], top_indices[i]);
        }
    }
    workgroupBarrier();
    if (best.index == (*list).i0) {
//:for I in 0..TOP - 1
        (*list).v#{I} = (*list).v#{I + 1};
        (*list).i#{I} = (*list).i#{I + 1};
//:end
        (*list).v#{TOP - 1} = LOWEST;
        (*list).i#{TOP - 1} = TOP_NONE;
    }
    return best;
}
