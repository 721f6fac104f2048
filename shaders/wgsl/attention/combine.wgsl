// Joins the splits of attention/decode: with M = max mₛ, o = Σ e^(mₛ−M)·oₛ / Σ e^(mₛ−M)·lₛ for every head.
// A lane a column (four dimensions). Grid: heads. Bound by launch: the partial sums are a few KiB and in cache.

struct Params {
    heads: u32,
    cols: u32,      // head_dim/4
    splits: u32,
    pad0: u32,
}

@group(0) @binding(3) var<storage, read> partial: array<vec4<f32>>;  // [splits, heads, cols + 1], last column (max, sum, 0, 0)
@group(0) @binding(4) var<storage, read_write> o: array<vec4<f32>>;  // [heads, cols]
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let width = p.cols + 1u;
    var top = -1e30;
    for (var s = 0u; s < p.splits; s++) {
        top = max(top, partial[(s * p.heads + head) * width + p.cols].x);
    }
    for (var c = lane; c < p.cols; c += 32u) {
        var v = vec4<f32>();
        var sum = 0.0;
        for (var s = 0u; s < p.splits; s++) {
            let row = (s * p.heads + head) * width;
            let tail = partial[row + p.cols];
            let factor = exp(tail.x - top);
            v += factor * partial[row + c];
            sum += factor * tail.y;
        }
        o[head * p.cols + c] = v * select(0.0, 1.0 / sum, sum > 0.0);
    }
}
