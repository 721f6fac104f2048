// One number in, one number out, in place: OP 0: y = y + x·scale, 1: y = y·scale, 2: y = scale·tanh(y/scale) (Gemma 2's bounded
// logits). Grid: ceil(n/64), folded into y. Bound by memory bandwidth.

//:option OP = 0 1 2
//:import shared/math

struct Params {
    n: u32,
    y_offset: u32,  // in floats
    x_offset: u32,
    width: u32,     // workgroups of the grid in x
    scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [y_offset + n]
//:if OP == 0
@group(0) @binding(4) var<storage, read> x: array<f32>;        // [x_offset + n]
//:endif
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = (group.y * p.width + group.x) * 64u + lane;
    if (id >= p.n) {
        return;
    }
    let at = p.y_offset + id;
//:if OP == 0
    y[at] = y[at] + x[p.x_offset + id] * p.scale;
//:elif OP == 1
    y[at] = y[at] * p.scale;
//:else
    y[at] = soft_cap(y[at], p.scale);
//:endif
}
