// Joins two attentions of the same queries over different keys by their log-sums (Milakov & Gimelshein, arXiv 1805.02867):
//   α = exp(lse_a) / (exp(lse_a) + exp(lse_b + bias))     o ← α·a + (1 − α)·b     lse ← ln(exp(lse_a) + exp(lse_b + bias))
// bias = ln n where each key of b stands for n. A side that saw no key (lse −1e30) adds nothing.
// A lane a column (four dimensions). Grid: ceil(rows·cols / 64), folded into y. Bound by memory bandwidth.

struct Params {
    rows: u32,     // tokens·heads
    cols: u32,     // head_dim/4
    width: u32,    // workgroups of the grid in x
    bias: f32,
}

@group(0) @binding(3) var<storage, read_write> a: array<vec4<f32>>;    // [rows, cols]  becomes the result
@group(0) @binding(4) var<storage, read> b: array<vec4<f32>>;          // [rows, cols]
@group(0) @binding(5) var<storage, read> lse_a: array<f32>;            // [rows]
@group(0) @binding(6) var<storage, read> lse_b: array<f32>;            // [rows]
@group(0) @binding(7) var<storage, read_write> lse: array<f32>;        // [rows]
@group(1) @binding(0) var<uniform> p: Params;

const NOTHING: f32 = -5e29;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = (group.y * p.width + group.x) * 64u + lane;
    if (id >= p.rows * p.cols) {
        return;
    }
    let row = id / p.cols;
    let la = lse_a[row];
    let lb = lse_b[row] + p.bias;
    let most = max(la, lb);
    let wa = select(0.0, exp(la - most), la > NOTHING);
    let wb = select(0.0, exp(lb - most), lb > NOTHING);
    let sum = wa + wb;
    let inverse = select(0.0, 1.0 / sum, sum > 0.0);
    a[id] = (wa * inverse) * a[id] + (wb * inverse) * b[id];
    if (id % p.cols == 0u) {
        lse[row] = select(-1e30, most + log(sum), sum > 0.0);
    }
}
