// Sum and maximum over a workgroup. The kernel defines `const WG: u32` (its lanes, a power of two) and `alias Reduced`
// (f32, or a vector of f32 for several reductions at once).
// Every lane gets the result. Call from uniform control flow only. SUBGROUP adds inside the subgroup first: two barriers
// instead of five; the kernel must then call reduce_subgroup once, with the builtins of the same name.

//:option SUBGROUP = 0 1
//:require subgroup if SUBGROUP

var<workgroup> reduce_scratch: array<Reduced, WG>;

//:if SUBGROUP
var<private> reduce_id: u32;
var<private> reduce_lane: u32;
var<private> reduce_count: u32;

fn reduce_subgroup(subgroup_id: u32, subgroup_invocation_id: u32, num_subgroups: u32) {
    reduce_id = subgroup_id;
    reduce_lane = subgroup_invocation_id;
    reduce_count = num_subgroups;
}

fn reduce_add(lane: u32, v: Reduced) -> Reduced {
    let part = subgroupAdd(v);
    if (reduce_lane == 0u) {
        reduce_scratch[reduce_id] = part;
    }
    workgroupBarrier();
    var sum = Reduced();
    for (var i = 0u; i < reduce_count; i++) {
        sum += reduce_scratch[i];
    }
    workgroupBarrier();
    return sum;
}

fn reduce_max(lane: u32, v: Reduced) -> Reduced {
    let part = subgroupMax(v);
    if (reduce_lane == 0u) {
        reduce_scratch[reduce_id] = part;
    }
    workgroupBarrier();
    var most = reduce_scratch[0];
    for (var i = 1u; i < reduce_count; i++) {
        most = max(most, reduce_scratch[i]);
    }
    workgroupBarrier();
    return most;
}
//:else
fn reduce_add(lane: u32, v: Reduced) -> Reduced {
    reduce_scratch[lane] = v;
    workgroupBarrier();
    var n = WG;
    while (n > 4u) {
        n = n / 4u;
        if (lane < n) {
            reduce_scratch[lane] = (reduce_scratch[lane] + reduce_scratch[lane + n])
                + (reduce_scratch[lane + 2u * n] + reduce_scratch[lane + 3u * n]);
        }
        workgroupBarrier();
    }
    var sum = reduce_scratch[0];
    for (var i = 1u; i < n; i++) {
        sum += reduce_scratch[i];
    }
    workgroupBarrier();
    return sum;
}

fn reduce_max(lane: u32, v: Reduced) -> Reduced {
    reduce_scratch[lane] = v;
    workgroupBarrier();
    var n = WG;
    while (n > 4u) {
        n = n / 4u;
        if (lane < n) {
            reduce_scratch[lane] = max(
                max(reduce_scratch[lane], reduce_scratch[lane + n]),
                max(reduce_scratch[lane + 2u * n], reduce_scratch[lane + 3u * n]));
        }
        workgroupBarrier();
    }
    var most = reduce_scratch[0];
    for (var i = 1u; i < n; i++) {
        most = max(most, reduce_scratch[i]);
    }
    workgroupBarrier();
    return most;
}
//:endif
