// y[i] = x[i]·scale: the smallest kernel. The device's own check (upload, dispatch, read back) and the launch-cost probe.
// Grid: ceil(n/64) workgroups. Bound by memory bandwidth.

//:option VEC = 1 4

struct Params {
    n: u32,      // elements (VEC floats each)
    scale: f32,
    pad0: u32,
    pad1: u32,
}

//:if VEC == 4
alias T = vec4<f32>;
//:else
alias T = f32;
//:endif

@group(0) @binding(0) var<storage, read> x: array<T>;       // [n]
@group(0) @binding(1) var<storage, read_write> y: array<T>; // [n]
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < p.n) {
        y[id.x] = x[id.x] * p.scale;
    }
}
