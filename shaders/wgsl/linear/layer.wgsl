// What the linear kernels share: their parameters, their activations and what becomes of a finished sum.
//
//   y[t, j] = residual[t, j] + cap( act( scale · (W x)[t, j] + bias[j] ) )                                   plain
//   y[t, j] = residual[t, j] + cap( act( scale · (W x)[t, j] + bias[j] ) · (scale · (W x)[t, n + j] + bias[n + j]) )   gated
//
// with n outputs, x multiplied by norm_weight and divided by its root mean square where NORM asks for it, and every
// part but W x optional. A gated layer stacks n gate rows and n up rows; a matrix larger than a binding is bound chunk by
// chunk, and a chunk of a gated layer holds the gate rows and the up rows of the same outputs.

//:import shared/math

struct Params {
    runs: u32,      // runs of 32 columns in a row
    cols: u32,
    tokens: u32,
    outputs: u32,   // outputs of the bound chunk: its rows, or half of them if gated
    output0: u32,   // the chunk's first output within the layer
    layer: u32,     // outputs of the layer: bias[layer + j] belongs to the up row of output j
    flags: u32,     // below
    grid: u32,      // workgroups in x; y continues where x ends
    x_offset: u32,  // of x[0, 0], in floats, as all offsets and strides; multiples of 4 unless TAIL
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    residual_offset: u32,
    residual_stride: u32,
    scale: f32,
    cap: f32,       // 0: none
    eps: f32,       // of the norm
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

const BIAS: u32 = 1u;
const RESIDUAL: u32 = 2u;
const ACCUMULATE: u32 = 4u; // y itself is the residual
const GATED: u32 = 8u;
const ACTIVATION: u32 = 4u; // position of the activation: 0 none, 1 SiLU, 2 GELU by tanh, 3 GELU by erf, 4 ReLU

//:if TAIL
@group(0) @binding(3) var<storage, read> x: array<f32>;               // [tokens, x_stride]
//:else
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;         // [tokens, x_stride/4]
//:endif
//:if NORM
//:if TAIL
@group(0) @binding(4) var<storage, read> norm_weight: array<f32>;     // [cols]
//:else
@group(0) @binding(4) var<storage, read> norm_weight: array<vec4<f32>>; // [cols/4]
//:endif
//:endif
@group(0) @binding(5) var<storage, read> bias: array<f32>;            // [rows of the layer]
@group(0) @binding(6) var<storage, read> residual: array<f32>;        // [tokens, residual_stride]
@group(0) @binding(7) var<storage, read_write> y: array<f32>;         // [tokens, y_stride]
@group(1) @binding(0) var<uniform> p: Params;

fn flag(bit: u32) -> bool {
    return (p.flags & bit) != 0u;
}

// Four columns of x from column 4·k4 of a token. Columns past the end are zero: their weights are zero too, but what lies
// behind x may be infinite.
//:if TAIL
fn x_at(token: u32, k4: u32) -> vec4<f32> {
    let at = p.x_offset + token * p.x_stride + 4u * k4;
    var v = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        if (4u * k4 + i < p.cols) {
            v[i] = x[at + i];
        }
    }
    return v;
}
//:else
fn x_at(token: u32, k4: u32) -> vec4<f32> {
    return x[(p.x_offset + token * p.x_stride) / 4u + k4];
}
//:endif

//:if NORM
//:if TAIL
fn norm_at(k4: u32) -> vec4<f32> {
    var v = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        if (4u * k4 + i < p.cols) {
            v[i] = norm_weight[4u * k4 + i];
        }
    }
    return v;
}
//:else
fn norm_at(k4: u32) -> vec4<f32> {
    return norm_weight[k4];
}
//:endif
//:endif

// A lane computes neighbouring *slots*, an even number of them. A slot is a row of the chunk; in a gated layer the slots
// alternate between the gate row and the up row of an output, so that one lane has both. Slots past the end repeat the last
// row and are not stored.
fn row_of(slot: u32) -> u32 {
    if (flag(GATED)) {
        return min(slot / 2u, p.outputs - 1u) + (slot & 1u) * p.outputs;
    }
    return min(slot, p.outputs - 1u);
}

fn activation(v: f32) -> f32 {
    switch (p.flags >> ACTIVATION) {
        case 1u: { return silu(v); }
        case 2u: { return gelu_tanh(v); }
        case 3u: { return gelu_erf(v); }
        case 4u: { return max(v, 0.0); }
        default: { return v; }
    }
}

fn with_bias(sum: f32, row: u32) -> f32 {
    if (flag(BIAS)) {
        return sum * p.scale + bias[row];
    }
    return sum * p.scale;
}

fn store(token: u32, output: u32, value: f32) {
    if (output >= p.outputs || token >= p.tokens) {
        return;
    }
    let j = p.output0 + output;
    let at = p.y_offset + token * p.y_stride + j;
    var v = value;
    if (p.cap > 0.0) {
        v = soft_cap(v, p.cap);
    }
    if (flag(RESIDUAL)) {
        v += residual[p.residual_offset + token * p.residual_stride + j];
    }
    if (flag(ACCUMULATE)) {
        v += y[at];
    }
    y[at] = v;
}

// Stores the sums of slots `slot` (even) and `slot + 1`.
fn store_pair(token: u32, slot: u32, first: f32, second: f32) {
    let j = p.output0;
    if (flag(GATED)) {
        let output = slot / 2u;
        let row = j + min(output, p.outputs - 1u);
        store(token, output, activation(with_bias(first, row)) * with_bias(second, p.layer + row));
    } else {
        store(token, slot, activation(with_bias(first, j + min(slot, p.outputs - 1u))));
        store(token, slot + 1u, activation(with_bias(second, j + min(slot + 1u, p.outputs - 1u))));
    }
}
