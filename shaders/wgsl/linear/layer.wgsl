// What the linear kernels share: their parameters, their activations and what becomes of a finished sum.
//
//   y[t, j] = residual[t, j] + cap( act( scale · (W x)[t, j] + bias[j] ) )                                   plain
//   y[t, j] = residual[t, j] + cap( act( scale · (W x)[t, j] + bias[j] ) · (scale · (W x)[t, n + j] + bias[n + j]) )   gated
//
// with n outputs, x multiplied by norm_weight and divided by its root mean square where NORM asks for it, and every
// part but W x optional. Where the layer has a low-rank part, W x is W x + B t (EoRA, arXiv 2410.21271; LoRD, 2309.14021), with
// t = A x from an earlier dispatch and as many columns of B as octets are said; A and B may be all there is (runs = 0). Matrices
// that are stacked have an A each: t is all of theirs, and each row of B says where its own begins. With NORM, t is made of
// x · norm_weight (RAW), and the root mean square applies to both sums. A gated layer stacks n gate rows and n up rows; a matrix larger than a binding is bound chunk by
// chunk, and a chunk of a gated layer holds the gate rows and the up rows of the same outputs.

//:import shared/math
//:import shared/oct
//:import shared/half

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
    octets: u32,    // of a row of B; 0: no low-rank part
    words: u32,     // u32 words of a row of B
    t_width: u32,   // vec4s of t a token
    sparse: vec4<u32>, // the mask of sparse weights, see linear/sparse
}

const BIAS: u32 = 1u;
const RESIDUAL: u32 = 2u;
const ACCUMULATE: u32 = 4u; // y itself is the residual
const GATED: u32 = 8u;
const RAW: u32 = 16u;       // the norm's root mean square is left to whoever uses the result
const FORMAT: u32 = 5u;     // position of the two bits that say how B is stored: 0 bf16, 1 f16, 2 Q8_0, 3 Q4_0
const ACTIVATION: u32 = 8u; // position of the activation: 0 none, 1 SiLU, 2 GELU by tanh, 3 GELU by erf, 4 ReLU

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
// [rows of the layer] f32; with a low-rank part [rows of the chunk, words]: where the row's columns of t begin (in floats), its bias
// (f32), and its columns of B
@group(0) @binding(5) var<storage, read> bias: array<u32>;
// The eight buffers that a stage may have are taken: t stands where a norm's weights are not, or a residual is not.
//:if NORM
@group(0) @binding(6) var<storage, read> low: array<vec4<f32>>;         // [tokens, t_width]
//:else
@group(0) @binding(4) var<storage, read> low: array<vec4<f32>>;         // [tokens, t_width]
@group(0) @binding(6) var<storage, read> residual: array<f32>;        // [tokens, residual_stride]
//:endif
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
//:elif CODEC == spqr
fn x_at(token: u32, k4: u32) -> vec4<f32> {
    if (PUBLISHED) {
        return vec4<f32>(x_of(token, 4u * k4), x_of(token, 4u * k4 + 1u), x_of(token, 4u * k4 + 2u), x_of(token, 4u * k4 + 3u));
    }
    return x[(p.x_offset + token * p.x_stride) / 4u + k4];
}

// The input of one column.
fn x_of(token: u32, column: u32) -> f32 {
    let at = codec_input(column);
    return x[(p.x_offset + token * p.x_stride + at) / 4u][at & 3u];
}
//:else
fn x_at(token: u32, k4: u32) -> vec4<f32> {
    return x[(p.x_offset + token * p.x_stride) / 4u + k4];
}
//:endif

//:if CODEC == spqr
// An outlier's share of a sum.
fn outlier_term(token: u32, at: u32) -> f32 {
    let outlier = codec_outlier(at);
//:if NORM
    return outlier.value * (x_of(token, outlier.column) * norm_of(outlier.column));
//:else
    return outlier.value * x_of(token, outlier.column);
//:endif
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
//:elif CODEC == spqr
fn norm_at(k4: u32) -> vec4<f32> {
    if (PUBLISHED) {
        return vec4<f32>(norm_of(4u * k4), norm_of(4u * k4 + 1u), norm_of(4u * k4 + 2u), norm_of(4u * k4 + 3u));
    }
    return norm_weight[k4];
}

fn norm_of(column: u32) -> f32 {
    let at = codec_input(column);
    return norm_weight[at / 4u][at & 3u];
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

// Where the columns of t begin that belong to a row of the chunk, in vec4s.
fn t_start(row: u32) -> u32 {
    if (p.octets > 0u) {
        return bias[row * p.words] / 4u;
    }
    return 0u;
}

fn t_oct(token: u32, start: u32, o: u32) -> Oct {
    let at = token * p.t_width + start + 2u * o;
    return Oct(low[at], low[at + 1u]);
}

// Columns 8o .. 8o + 7 of a row of B. The scales of blocks of 32 stand before the codes, two in a word.
fn factor_oct(row: u32, o: u32) -> Oct {
    let at = row * p.words + 2u;
    switch ((p.flags >> FORMAT) & 3u) {
        case 0u, 1u: {
            let w = vec4<u32>(bias[at + 4u * o], bias[at + 4u * o + 1u], bias[at + 4u * o + 2u], bias[at + 4u * o + 3u]);
            var even = bitcast<vec4<f32>>(w << vec4<u32>(16u));
            var odd = bitcast<vec4<f32>>(w & vec4<u32>(0xffff0000u));
            if (((p.flags >> FORMAT) & 3u) == 1u) {
                even = half4_to_f32(w);
                odd = half4_to_f32(w >> vec4<u32>(16u));
            }
            return Oct(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
        }
        case 2u: {
            let codes = at + (p.octets + 7u) / 8u + 2u * o;
            let scale = half_of(bias[at + o / 8u], (o / 4u) & 1u);
            let shifts = vec4<u32>(24u, 16u, 8u, 0u);
            let a = bitcast<vec4<i32>>(vec4<u32>(bias[codes]) << shifts) >> vec4<u32>(24u);
            let b = bitcast<vec4<i32>>(vec4<u32>(bias[codes + 1u]) << shifts) >> vec4<u32>(24u);
            return Oct(scale * vec4<f32>(a), scale * vec4<f32>(b));
        }
        default: {
            let codes = bias[at + (p.octets + 7u) / 8u + o];
            let scale = half_of(bias[at + o / 8u], (o / 4u) & 1u);
            let a = (vec4<u32>(codes) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
            let b = (vec4<u32>(codes) >> vec4<u32>(16u, 20u, 24u, 28u)) & vec4<u32>(15u);
            return Oct(scale * (vec4<f32>(a) - 8.0), scale * (vec4<f32>(b) - 8.0));
        }
    }
}

// The sum of a row with its bias: `row` within the layer, `local` within the chunk.
fn with_bias(sum: f32, row: u32, local: u32) -> f32 {
    if (flag(BIAS)) {
        return sum * p.scale + bitcast<f32>(bias[select(row, local * p.words + 1u, p.octets > 0u)]);
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
//:if !NORM
    if (flag(RESIDUAL)) {
        v += residual[p.residual_offset + token * p.residual_stride + j];
    }
//:endif
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
        let local = min(output, p.outputs - 1u);
        let gate = activation(with_bias(first, j + local, local));
        store(token, output, gate * with_bias(second, p.layer + j + local, p.outputs + local));
    } else {
        let one = min(slot, p.outputs - 1u);
        let two = min(slot + 1u, p.outputs - 1u);
        store(token, slot, activation(with_bias(first, j + one, one)));
        store(token, slot + 1u, activation(with_bias(second, j + two, two)));
    }
}
