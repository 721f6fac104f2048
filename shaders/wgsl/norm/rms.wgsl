// RMS norm of every row: y = x · rsqrt(mean(x²) + eps) · g, or with RESIDUAL: y = residual + x · rsqrt(mean(x²) + eps) · g
// (Gemma's norm after attention and after the MLP). Zhang & Sennrich 2019, arXiv 1910.07467.
// A model that multiplies by 1 + g (Gemma) adds the 1 when it loads g.
//
// Grid: a workgroup a row; with CPU a lane a row (software adapters: barriers cost more than they save).
// Bound by launch and latency: a row is a few KiB and is read twice, the second time from cache.

//:option RESIDUAL = 0 1
//:option CPU = 0 1
//:skip CPU && SUBGROUP
//:option SUBGROUP = 0 1
//:require subgroup if SUBGROUP

struct Params {
    rows: u32,
    cols: u32,
    x_offset: u32,  // of row 0, in floats
    x_stride: u32,  // floats from row to row
    y_stride: u32,  // of y and of residual
    eps: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(3) var<storage, read> x: array<f32>;        // [rows, x_stride]
@group(0) @binding(4) var<storage, read> weight: array<f32>;   // [cols]
//:if RESIDUAL
@group(0) @binding(5) var<storage, read> residual: array<f32>; // [rows, y_stride]
//:endif
@group(0) @binding(6) var<storage, read_write> y: array<f32>;  // [rows, y_stride]
@group(1) @binding(0) var<uniform> p: Params;

fn store(row: u32, c: u32, v: f32) {
    let at = row * p.y_stride + c;
//:if RESIDUAL
    y[at] = residual[at] + v * weight[c];
//:else
    y[at] = v * weight[c];
//:endif
}

//:if CPU
@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= p.rows) {
        return;
    }
    let base = p.x_offset + row * p.x_stride;
    // Four sums: a single one would wait for each addition.
    var sum = vec4<f32>();
    let whole = p.cols & ~3u;
    for (var c = 0u; c < whole; c += 4u) {
        let v = vec4<f32>(x[base + c], x[base + c + 1u], x[base + c + 2u], x[base + c + 3u]);
        sum += v * v;
    }
    for (var c = whole; c < p.cols; c++) {
        sum.x += x[base + c] * x[base + c];
    }
    let scale = inverseSqrt((sum.x + sum.y + sum.z + sum.w) / f32(p.cols) + p.eps);
    for (var c = 0u; c < p.cols; c++) {
        store(row, c, x[base + c] * scale);
    }
}
//:else
const WG: u32 = 256u;
alias Reduced = f32;
//:import shared/reduce

@compute @workgroup_size(256)
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
    let row = group.x;
    let base = p.x_offset + row * p.x_stride;
    var sum = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
        sum += x[base + c] * x[base + c];
    }
    let scale = inverseSqrt(reduce_add(lane, sum) / f32(p.cols) + p.eps);
    for (var c = lane; c < p.cols; c += WG) {
        store(row, c, x[base + c] * scale);
    }
}
//:endif
