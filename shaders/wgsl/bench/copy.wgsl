// y = x, sixteen bytes a step: what memory gives and takes when nothing is computed. A ceiling of `tersor bench`.
//
// Grid: lanes · EACH steps cover n, folded into two dimensions. Neighbouring lanes take neighbouring steps. Bound by bandwidth.

//:option EACH = 1 4 16

struct Params {
    n: u32,      // steps of four words
    lanes: u32,  // lanes of the whole grid
    width: u32,  // lanes of a row of the grid
    pad: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;       // [n]
@group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>; // [n]
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(128)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var at = id.y * p.width + id.x;
//:for I in 0..EACH
    if (at < p.n) {
        y[at] = x[at];
    }
    at += p.lanes;
//:end
}
