// Layer norm of every row, after an optional residual: z = x + residual; y = (z − mean z) · rsqrt(var z + eps) · g + b,
// with the variance of the population. Ba et al. 2016, arXiv 1607.06450; BERT norms after it adds (post-norm).
//
// Grid: a workgroup a row; with CPU a lane a row (software adapters: barriers cost more than they save).
// Two passes over the row for mean and variance (E[z²] − E[z]² would cancel); the mean is taken relative to the first number, so that
// a row far from 0 loses no digits. Bound by launch and latency.

//:option RESIDUAL = 0 1
//:option BIAS = 1 0
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
//:if BIAS
@group(0) @binding(5) var<storage, read> bias: array<f32>;     // [cols]
//:endif
//:if RESIDUAL
@group(0) @binding(6) var<storage, read> residual: array<f32>; // [rows, y_stride]
//:endif
@group(0) @binding(7) var<storage, read_write> y: array<f32>;  // [rows, y_stride]
@group(1) @binding(0) var<uniform> p: Params;

fn load(row: u32, c: u32) -> f32 {
//:if RESIDUAL
    return x[p.x_offset + row * p.x_stride + c] + residual[row * p.y_stride + c];
//:else
    return x[p.x_offset + row * p.x_stride + c];
//:endif
}

fn store(row: u32, c: u32, v: f32) {
//:if BIAS
    y[row * p.y_stride + c] = v * weight[c] + bias[c];
//:else
    y[row * p.y_stride + c] = v * weight[c];
//:endif
}

//:if CPU
@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= p.rows) {
        return;
    }
    let pivot = load(row, 0u);
    var sum = 0.0;
    for (var c = 0u; c < p.cols; c++) {
        sum += load(row, c) - pivot;
    }
    let mean = pivot + sum / f32(p.cols);
    var square = 0.0;
    for (var c = 0u; c < p.cols; c++) {
        let d = load(row, c) - mean;
        square += d * d;
    }
    let scale = inverseSqrt(square / f32(p.cols) + p.eps);
    for (var c = 0u; c < p.cols; c++) {
        store(row, c, (load(row, c) - mean) * scale);
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
    let pivot = load(row, 0u);
    var sum = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
        sum += load(row, c) - pivot;
    }
    let mean = pivot + reduce_add(lane, sum) / f32(p.cols);
    var square = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
        let d = load(row, c) - mean;
        square += d * d;
    }
    let scale = inverseSqrt(reduce_add(lane, square) / f32(p.cols) + p.eps);
    for (var c = lane; c < p.cols; c += WG) {
        store(row, c, (load(row, c) - mean) * scale);
    }
}
//:endif
