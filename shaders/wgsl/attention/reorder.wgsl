// Rows in another order: y[b, i] = x[b, order[i]]. Puts the tokens of a video on a curve, or, with the inverse order, back.
// A lane a column (four floats) of a row. Grid: ceil(batch·rows·cols / 64), folded into y. Bound by memory bandwidth.

struct Params {
    rows: u32,
    cols: u32,     // of four floats
    batch: u32,
    x_rows: u32,   // rows from matrix to matrix of x
    y_rows: u32,
    width: u32,    // workgroups of the grid in x
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(3) var<storage, read> order: array<u32>;             // [rows]  below x_rows
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;           // [batch, x_rows, cols]
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;     // [batch, y_rows, cols]
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = (group.y * p.width + group.x) * 64u + lane;
    if (id >= p.batch * p.rows * p.cols) {
        return;
    }
    let col = id % p.cols;
    let row = id / p.cols % p.rows;
    let b = id / p.cols / p.rows;
    let token = min(order[row], p.x_rows - 1u);
    y[(b * p.y_rows + row) * p.cols + col] = x[(b * p.x_rows + token) * p.cols + col];
}
