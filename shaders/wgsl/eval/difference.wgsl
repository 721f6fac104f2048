// How far tensor b is from tensor a, in sums from which the host makes the normalised mean squared error Σ(a−b)² / Σa² and the
// cosine Σab / √(Σa²·Σb²). Every workgroup writes its own sums; the host adds them up in f64.
// Rows may have padding (stride > cols). Grid: `groups` workgroups of 64 lanes. Bound by memory bandwidth.

struct Params {
    rows: u32,
    cols: u32,
    a_offset: u32,   // of row 0, in floats
    a_stride: u32,   // floats from row to row
    b_offset: u32,
    b_stride: u32,
    sum_offset: u32, // which entry of sums workgroup 0 writes
    groups: u32,
}

@group(0) @binding(3) var<storage, read> a: array<f32>;                // [rows, a_stride]
@group(0) @binding(4) var<storage, read> b: array<f32>;                // [rows, b_stride]
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>; // [sum_offset + groups]  Σ(a−b)², Σa², Σab, Σb²
@group(1) @binding(0) var<uniform> p: Params;

const WG: u32 = 64u;

var<workgroup> reduced: array<vec4<f32>, WG>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = p.rows * p.cols;
    let step = p.groups * WG;
    var sum = vec4<f32>();
    for (var i = group.x * WG + lane; i < n; i += step) {
        let row = i / p.cols;
        let c = i % p.cols;
        let u = a[p.a_offset + row * p.a_stride + c];
        let v = b[p.b_offset + row * p.b_stride + c];
        sum += vec4<f32>((u - v) * (u - v), u * u, u * v, v * v);
    }
    reduced[lane] = sum;
    workgroupBarrier();
    for (var k = WG / 2u; k > 0u; k = k / 2u) {
        if (lane < k) {
            reduced[lane] += reduced[lane + k];
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        sums[p.sum_offset + group.x] = reduced[0];
    }
}
