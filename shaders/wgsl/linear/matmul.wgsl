// Y = X Wᵀ for many columns (prefill) on GPUs: tiles of TILE rows of W by TILE tokens. Formula and epilogue: linear/layer;
// weights: the codec.
//
// A workgroup of 16 × 16 lanes walks along the columns. Each step brings DEPTH vec4s of TILE rows (decoded once for all
// TILE tokens) and of TILE tokens into workgroup memory; each lane multiplies N × N of them from registers. Sums are f32;
// with F16 the tiles are kept as f16, which halves what workgroup memory must deliver.
// Within a tile, vec4 k of row q stands at k ^ swizzle(q), so that the lanes of a subgroup, which read the same k of
// neighbouring rows, hit different banks.
//
// Grid: ceil(slots / TILE) in x, continued in y; ceil(tokens / TILE) in z.
// Limited by arithmetic and workgroup memory: 2N vec4 reads for 4N² multiply-adds.

//:option CODEC = codec
//:option TILE = 64 128
//:option F16 = 0 1
//:option TAIL = 0 1
//:option NORM = 0
//:require f16 if F16
//:skip TAIL && (TILE != 64 || F16)
//:skip TAIL && CODEC != f32 && CODEC != f16 && CODEC != bf16 && CODEC != sparse24
//:skip SPARSE && (TAIL || TILE != 64)
//:skip CODED

//:import linear/layer
//:import codec
//:if SPARSE
//:import linear/sparse
//:endif

const TILE: u32 = #{TILE}u;
//:if TILE == 128 && !F16
const DEPTH: u32 = 4u; // vec4s: half a run
//:else
const DEPTH: u32 = 8u; // vec4s: a run
//:endif

//:if F16
alias Half4 = vec4<f16>;

// What an f16 cannot hold becomes its largest number, not an infinity.
fn narrow(v: vec4<f32>) -> Half4 {
    return Half4(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}
//:else
alias Half4 = vec4<f32>;

fn narrow(v: vec4<f32>) -> Half4 {
    return v;
}
//:endif

var<workgroup> w_tile: array<Half4, TILE * DEPTH>; // [TILE rows, DEPTH]
var<workgroup> x_tile: array<Half4, TILE * DEPTH>; // [TILE tokens, DEPTH]

fn at(q: u32, k: u32) -> u32 {
//:if TILE == 64 && !F16
    return q * DEPTH + (k ^ (q & 7u));
//:else
    return q * DEPTH + (k ^ ((q / 2u) & (DEPTH - 1u)));
//:endif
}

// A lane multiplies tile rows q, q + 16, q + 32, …; this makes rows q and q + 16 neighbouring slots.
fn slot_of(q: u32) -> u32 {
    return (q & ~31u) + 2u * (q & 15u) + ((q >> 4u) & 1u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let slot0 = (group.y * p.grid + group.x) * TILE;
    let token0 = group.z * TILE;
    let q = local % 16u;
    let t = local / 16u;
//:for I in 0..TILE/16
//:for J in 0..TILE/16
    var sum#{I}_#{J} = 0.0;
//:end
//:end
    let runs = p.runs;
    // Behind the columns of W come those of B, once for every matrix that is stacked: the rows of the others are zero.
    let steps = runs * 8u / DEPTH;
    let rank_steps = (2u * p.octets + DEPTH - 1u) / DEPTH;
    let stacked = p.t_width / max(2u * p.octets, 1u);
    for (var step = 0u; step < steps + stacked * rank_steps; step++) {
        if (step < steps) {
            let k0 = step * DEPTH;
            for (var i = local; i < TILE * DEPTH / 2u; i += 256u) {
                let to = i / (DEPTH / 2u);
                let k = i % (DEPTH / 2u) * 2u;
                let row = row_of(slot0 + slot_of(to));
                let run = k0 / 8u;
//:if SPARSE
                let w = sparse_oct(row, (k0 % 8u + k) / 2u, kept_of(row, run));
//:else
                let w = codec_oct(row, run, runs, (k0 % 8u + k) / 2u, codec_scale(row, run, runs));
//:endif
                w_tile[at(to, k)] = narrow(w.a);
                w_tile[at(to, k + 1u)] = narrow(w.b);
            }
            for (var i = local; i < TILE * DEPTH; i += 256u) {
                let to = i / DEPTH;
                let k = i % DEPTH;
                x_tile[at(to, k)] = narrow(x_at(min(token0 + to, p.tokens - 1u), k0 + k));
            }
        } else {
            let start = (step - steps) / rank_steps * (2u * p.octets);
            let k0 = (step - steps) % rank_steps * DEPTH;
            for (var i = local; i < TILE * DEPTH / 2u; i += 256u) {
                let to = i / (DEPTH / 2u);
                let k = i % (DEPTH / 2u) * 2u;
                let row = row_of(slot0 + slot_of(to));
                let o = (k0 + k) / 2u;
                var f = Oct(vec4<f32>(), vec4<f32>());
                if (o < p.octets && t_start(row) == start) {
                    f = factor_oct(row, o);
                }
                w_tile[at(to, k)] = narrow(f.a);
                w_tile[at(to, k + 1u)] = narrow(f.b);
            }
            for (var i = local; i < TILE * DEPTH; i += 256u) {
                let to = i / DEPTH;
                let k = i % DEPTH;
                var v = vec4<f32>();
                if (k0 + k < 2u * p.octets) {
                    v = low[min(token0 + to, p.tokens - 1u) * p.t_width + start + k0 + k];
                }
                x_tile[at(to, k)] = narrow(v);
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
//:for I in 0..TILE/16
            let w#{I} = vec4<f32>(w_tile[at(q + #{16 * I}u, k)]);
//:end
//:for J in 0..TILE/16
            let x#{J} = vec4<f32>(x_tile[at(t + #{16 * J}u, k)]);
//:for I in 0..TILE/16
            sum#{I}_#{J} += dot(w#{I}, x#{J});
//:end
//:end
        }
        workgroupBarrier();
    }
//:for J in 0..TILE/16
//:for I in 0..TILE/32
    store_pair(token0 + t + #{16 * J}u, slot0 + #{32 * I}u + 2u * q, sum#{2 * I}_#{J}, sum#{2 * I + 1}_#{J});
//:end
//:end
}
