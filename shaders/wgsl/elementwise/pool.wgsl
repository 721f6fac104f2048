// A sentence's embedding from its tokens' states. POOL 0: mean over rows, 1: the first row (CLS), 2: the last row; then, with
// NORMALIZE, divided by its L2 norm (Sentence-BERT, arXiv 1908.10084). A norm below 1e-12 divides by 1e-12, as PyTorch does.
// Grid: 1 workgroup. Bound by latency: the states of one sentence are a few hundred KiB.

//:option POOL = 0 1 2
//:option NORMALIZE = 1 0
//:option SUBGROUP = 0 1
//:require subgroup if SUBGROUP

struct Params {
    rows: u32,      // valid tokens, at least 1
    cols: u32,
    x_stride: u32,  // floats from row to row
    y_offset: u32,  // in floats
}

@group(0) @binding(3) var<storage, read> x: array<f32>;        // [rows, x_stride]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;  // [y_offset + cols]
@group(1) @binding(0) var<uniform> p: Params;

const WG: u32 = 64u;
alias Reduced = f32;
//:import shared/reduce

@compute @workgroup_size(64)
fn main(
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
    var square = 0.0;
    for (var c = lane; c < p.cols; c += WG) {
//:if POOL == 0
        var sum = 0.0;
        for (var r = 0u; r < p.rows; r++) {
            sum += x[r * p.x_stride + c];
        }
        let v = sum / f32(p.rows);
//:elif POOL == 1
        let v = x[c];
//:else
        let v = x[(p.rows - 1u) * p.x_stride + c];
//:endif
        y[p.y_offset + c] = v;
        square += v * v;
    }
//:if NORMALIZE
    let scale = 1.0 / max(sqrt(reduce_add(lane, square)), 1e-12);
    for (var c = lane; c < p.cols; c += WG) {
        y[p.y_offset + c] *= scale;   // written by this same lane
    }
//:endif
}
