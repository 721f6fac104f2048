// Moments of what a linear layer is given, summed up over tokens: M += Σ_t x_t x_tᵀ and s += Σ_t x_t. Divided by the number of
// tokens they are E[x xᵀ] and E[x], by which EoRA (arXiv 2410.21271), LoRD (2309.14021), SparseGPT, SpQR and Wanda weigh errors.
//
// M is symmetric: only the tiles of 64 × 64 on and above its diagonal are kept, one behind the other. With n tiles in a row they
// are numbered along the rows of a rectangle that is width = n | 1 wide: its row r has the n − r tiles of M's tile row r, and
// behind them all tiles of row 2n − width − r, which are as many as there is room for.
// A lane sums 8 × 8 entries in registers over the dispatch's tokens and then adds them to what is there, so that an entry's
// rounding error is that of two short sums, not of one long one.
//
// Grid: a tile a workgroup, in x, continued in y. Limited by arithmetic: 4 vec4 reads for 64 multiply-adds.

//:option TAIL = 0 1

struct Params {
    cols: u32,
    tokens: u32,
    x_offset: u32, // of x[0, 0], in floats, as the stride; multiples of 4 unless TAIL
    x_stride: u32,
    side: u32,     // n: tiles in a row of M
    width: u32,
    first: u32,    // first tile of this dispatch
    count: u32,    // tiles of this dispatch
    base: u32,     // first tile of the bound buffer
    grid: u32,     // workgroups in x; y continues where x ends
    pad0: u32,
    pad1: u32,
}

//:if TAIL
@group(0) @binding(0) var<storage, read> x: array<f32>;                  // [tokens, x_stride]
//:else
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;            // [tokens, x_stride/4]
//:endif
@group(0) @binding(1) var<storage, read_write> moments: array<vec4<f32>>; // [tiles of the buffer, 64, 16]
@group(0) @binding(2) var<storage, read_write> sums: array<vec4<f32>>;    // [n, 16]
@group(1) @binding(0) var<uniform> p: Params;

// Four columns from column 4·k4; those past the end are zero.
fn x_at(token: u32, k4: u32) -> vec4<f32> {
    var v = vec4<f32>();
//:if TAIL
    for (var i = 0u; i < 4u; i++) {
        if (4u * k4 + i < p.cols) {
            v[i] = x[p.x_offset + token * p.x_stride + 4u * k4 + i];
        }
    }
//:else
    if (4u * k4 < p.cols) {
        v = x[(p.x_offset + token * p.x_stride) / 4u + k4];
    }
//:endif
    return v;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = group.y * p.grid + group.x;
    if (index >= p.count) {
        return;
    }
    let tile = p.first + index;
    let r = tile / p.width;
    let c = tile % p.width;
    var row = r;
    var col = r + c;
    if (c >= p.side - r) {
        row = 2u * p.side - p.width - r;
        col = row + c - (p.side - r);
    }
    let i = local / 8u;
    let j = local % 8u;
    let i4 = row * 16u + 2u * i;
    let j4 = col * 16u + 2u * j;
//:for R in 0..8
    var sum#{R}_0 = vec4<f32>();
    var sum#{R}_1 = vec4<f32>();
//:end
    for (var t = 0u; t < p.tokens; t++) {
        let a0 = x_at(t, i4);
        let a1 = x_at(t, i4 + 1u);
        let b0 = x_at(t, j4);
        let b1 = x_at(t, j4 + 1u);
//:for R in 0..8
        sum#{R}_0 = fma(vec4<f32>(a#{R / 4}[#{R % 4}]), b0, sum#{R}_0);
        sum#{R}_1 = fma(vec4<f32>(a#{R / 4}[#{R % 4}]), b1, sum#{R}_1);
//:end
    }
    let at = (tile - p.base) * 1024u + 128u * i + 2u * j;
//:for R in 0..8
    moments[at + #{16 * R}u] += sum#{R}_0;
    moments[at + #{16 * R + 1}u] += sum#{R}_1;
//:end
    if (row == col && j == 0u) {
        var s0 = vec4<f32>();
        var s1 = vec4<f32>();
        for (var t = 0u; t < p.tokens; t++) {
            s0 += x_at(t, i4);
            s1 += x_at(t, i4 + 1u);
        }
        sums[i4] += s0;
        sums[i4 + 1u] += s1;
    }
}
