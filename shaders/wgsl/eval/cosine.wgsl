// Cosine of the angle between the rows of two tensors, e.g. of the residual stream before and after a layer (its "block influence" is 1 minus
// the mean; ShortGPT, arXiv 2403.03853):  y[i] = Σ a[i]·b[i] / √(Σ a[i]² · Σ b[i]²), 1 where a row is zero.
// A workgroup a row. Grid: rows. Bound by memory bandwidth.

struct Params {
    rows: u32,
    cols: u32,
    y_offset: u32, // where the cosine of row 0 goes, in floats
    pad0: u32,
}

@group(0) @binding(3) var<storage, read> a: array<f32>;       // [rows, cols]
@group(0) @binding(4) var<storage, read> b: array<f32>;       // [rows, cols]
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // [y_offset + rows]
@group(1) @binding(0) var<uniform> p: Params;

const WG: u32 = 64u;

var<workgroup> sums: array<vec3<f32>, WG>;   // Σab, Σa², Σb²

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let base = group.x * p.cols;
    var sum = vec3<f32>();
    for (var c = lane; c < p.cols; c += WG) {
        let u = a[base + c];
        let v = b[base + c];
        sum += vec3<f32>(u * v, u * u, v * v);
    }
    sums[lane] = sum;
    workgroupBarrier();
    for (var k = WG / 2u; k > 0u; k = k / 2u) {
        if (lane < k) {
            sums[lane] += sums[lane + k];
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        // The roots one by one: a product of squares of large numbers overflows.
        let norms = sqrt(sums[0].y) * sqrt(sums[0].z);
        y[p.y_offset + group.x] = select(1.0, sums[0].x / max(norms, 1e-30), norms > 0.0);
    }
}
