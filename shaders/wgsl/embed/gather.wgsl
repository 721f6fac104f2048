// Embedding: y[t, :] = scale · W[token[t], :], decoded from the packed table; y[t, :] += … with `accumulate`.
//
// A table larger than a binding is bound chunk by chunk: rows outside the chunk are left to the other chunks' dispatches.
// Grid: ceil(octets of a row / 64) in x, tokens in y. Limited by launch: a token is one row.

//:option CODEC = codec
//:skip SPARSE && CODED
//:import codec
//:if SPARSE
//:import linear/sparse
//:endif

struct Params {
    runs: u32,         // runs of 32 columns in a row
    cols: u32,
    row0: u32,         // the chunk's first row within the table
    rows: u32,         // rows of the chunk
    token_offset: u32, // of the first token's id
    y_offset: u32,     // of y[0, 0], in floats
    y_stride: u32,
    accumulate: u32,
    scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
    sparse: vec4<u32>, // the mask of sparse weights, see linear/sparse
}

@group(0) @binding(3) var<storage, read> tokens: array<u32>;  // [tokens] rows of the table
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // [tokens, y_stride]
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let octet = id.x;
    let token = tokens[p.token_offset + id.y];
    if (octet >= p.runs * 4u || token < p.row0 || token - p.row0 >= p.rows) {
        return;
    }
    let row = token - p.row0;
    let run = octet / 4u;
//:if SPARSE
    let w = sparse_oct(row, octet % 4u, kept_of(row, run));
//:else
    let w = codec_oct(row, run, p.runs, octet % 4u, codec_scale(row, run, p.runs));
//:endif
    let first = p.y_offset + id.y * p.y_stride;
    for (var i = 0u; i < 8u; i++) {
        if (octet * 8u + i < p.cols) {
//:if CODEC == spqr
            let at = first + codec_input(octet * 8u + i);
//:else
            let at = first + octet * 8u + i;
//:endif
            var v = p.scale * select(w.a[i % 4u], w.b[i % 4u], i >= 4u);
            if (p.accumulate != 0u) {
                v += y[at];
            }
            y[at] = v;
        }
    }
}
