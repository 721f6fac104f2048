// Copies chosen rows: y[i] = x[rows[i]], e.g. the last token's state before the output head.
// With PACK two neighbouring numbers become one word of two f16.
// Grid: ceil(n·cols / 64), folded into y. Bound by memory bandwidth.

//:option PACK = 0 1

struct Params {
    n: u32,         // rows copied
    cols: u32,      // even with PACK
    x_rows: u32,    // rows of x; indices past them read the last row
    x_stride: u32,  // floats from row to row
    y_stride: u32,  // elements of y from row to row
    width: u32,     // workgroups of the grid in x
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(3) var<storage, read> x: array<f32>;        // [x_rows, x_stride]
@group(0) @binding(4) var<storage, read> rows: array<u32>;     // [n]
//:if PACK
@group(0) @binding(5) var<storage, read_write> y: array<u32>;  // [n, y_stride]  two f16, the lower column in the lower half
//:else
@group(0) @binding(5) var<storage, read_write> y: array<f32>;  // [n, y_stride]
//:endif
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = (group.y * p.width + group.x) * 64u + lane;
//:if PACK
    let cols = p.cols / 2u;
//:else
    let cols = p.cols;
//:endif
    if (id >= p.n * cols) {
        return;
    }
    let row = id / cols;
    let c = id % cols;
    let base = min(rows[row], p.x_rows - 1u) * p.x_stride;
//:if PACK
    y[row * p.y_stride + c] = pack2x16float(vec2<f32>(x[base + 2u * c], x[base + 2u * c + 1u]));
//:else
    y[row * p.y_stride + c] = x[base + c];
//:endif
}
