// y[lane] = exclusive or of all words that the lane reads: what memory gives when next to nothing is written. A ceiling of
// `tersor bench`.
//
// Grid: lanes, each with p.each steps, folded into two dimensions; p.each is a multiple of 4. Neighbouring lanes take neighbouring
// steps. Bound by bandwidth.

struct Params {
    each: u32,   // steps of four words a lane takes: a multiple of 4
    lanes: u32,  // lanes of the whole grid
    width: u32,  // lanes of a row of the grid
    pad: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;  // [lanes · each]
@group(0) @binding(1) var<storage, read_write> y: array<u32>;  // [lanes]
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(128)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let lane = id.y * p.width + id.x;
    if (lane >= p.lanes) {
        return;
    }
    var all = vec4<u32>(0u);
    // Four loads at a time, so that they are under way together.
    for (var i = 0u; i < p.each; i += 4u) {
        let at = i * p.lanes + lane;
        let a = x[at];
        let b = x[at + p.lanes];
        let c = x[at + 2u * p.lanes];
        let d = x[at + 3u * p.lanes];
        all ^= (a ^ b) ^ (c ^ d);
    }
    y[lane] = (all.x ^ all.y) ^ (all.z ^ all.w);
}
