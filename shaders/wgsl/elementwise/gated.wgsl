// The gated MLP's activation: y = act(gate)·up  (GLU variants, Shazeer 2020, arXiv 2002.05202), or with GATED 0 act(gate) alone.
// ACT 0: SiLU (SwiGLU), 1: GELU with tanh (GeGLU, Gemma), 2: GELU with erf (BERT), 3: ReLU.
// Where the product before it can apply the activation itself, that is faster.
// Grid: ceil(rows·cols / 64), folded into y. Bound by memory bandwidth.

//:option ACT = 0 1 2 3
//:option GATED = 1 0
//:import shared/math

struct Params {
    rows: u32,
    cols: u32,
    gate_offset: u32,  // of row 0, in floats
    gate_stride: u32,  // floats from row to row
    up_offset: u32,
    up_stride: u32,
    y_stride: u32,
    width: u32,        // workgroups of the grid in x
}

@group(0) @binding(3) var<storage, read> gate: array<f32>;     // [rows, gate_stride]
//:if GATED
@group(0) @binding(4) var<storage, read> up: array<f32>;       // [rows, up_stride]; may be the same buffer as gate
//:endif
@group(0) @binding(5) var<storage, read_write> y: array<f32>;  // [rows, y_stride]
@group(1) @binding(0) var<uniform> p: Params;

fn act(x: f32) -> f32 {
//:if ACT == 0
    return silu(x);
//:elif ACT == 1
    return gelu_tanh(x);
//:elif ACT == 2
    return gelu_erf(x);
//:else
    return max(x, 0.0);
//:endif
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = (group.y * p.width + group.x) * 64u + lane;
    if (id >= p.rows * p.cols) {
        return;
    }
    let row = id / p.cols;
    let c = id % p.cols;
    let g = act(gate[p.gate_offset + row * p.gate_stride + c]);
//:if GATED
    y[row * p.y_stride + c] = g * up[p.up_offset + row * p.up_stride + c];
//:else
    y[row * p.y_stride + c] = g;
//:endif
}
