// y = W x for a few columns on GPUs: LANES lanes share ROWS rows of W. Formula and epilogue: linear/layer; weights: the codec.
//
// Lane l takes octets l, l + LANES, … of its rows, so neighbouring lanes read neighbouring words of W and neighbouring
// columns of x, and a column read serves ROWS rows. NORM sums x² in the same pass and applies the root mean square to the
// finished sums, which are linear in x. Sums meet by shuffles among SUBGROUP lanes (subgroups have at least as many) and
// by workgroup memory.
//
// Grid: slots / (ROWS · 128 / LANES) in x, continued in y; a column of x in z. Limited by memory: W is read once.

//:option CODEC = codec
//:option LANES = 32 128
//:option NORM = 0 1
//:option SUBGROUP = 0 8 32
//:option TAIL = 0 1
//:require subgroup if SUBGROUP
//:skip TAIL && (LANES != 32 || SUBGROUP)
//:skip TAIL && CODEC != f32 && CODEC != f16 && CODEC != bf16 && CODEC != sparse24
//:skip SPARSE && (TAIL || SUBGROUP)
//:skip CODED

//:import linear/layer
//:import codec
//:if SPARSE
//:import linear/sparse
//:endif

const ROWS: u32 = 4u;
const WG: u32 = 128u;
const LANES: u32 = #{LANES}u;

//:if SUBGROUP < LANES
// Sums of a lane, or of SUBGROUP lanes.
var<workgroup> team_sums: array<vec4<f32>, WG>;
//:if NORM
var<workgroup> team_squares: array<f32, WG>;
//:endif
//:endif

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % LANES;
    let team = local / LANES;
    let slot = ((group.y * p.grid + group.x) * (WG / LANES) + team) * ROWS;
    let token = group.z;
//:for R in 0..4
    let row#{R} = row_of(slot + #{R}u);
    var sum#{R} = vec4<f32>();
//:end
    var squares4 = vec4<f32>();
//:if SPARSE
    // Rows of a block have their columns in common.
    let runs = steps();
//:else
    let runs = p.runs;
//:endif
    for (var octet = lane; octet < runs * 4u; octet += LANES) {
        let run = octet / 4u;
        let o = octet % 4u;
//:if SPARSE
        let column = column4(places(row0, run), o);
//:else
        let column = octet * 2u;
//:endif
        var a = x_at(token, column);
        var b = x_at(token, column + 1u);
//:if NORM
        squares4 = fma(a, a, fma(b, b, squares4));
        a *= norm_at(column);
        b *= norm_at(column + 1u);
//:endif
//:for R in 0..4
//:if SPARSE
        let w#{R} = step_oct(row#{R}, run, o);
//:elif CODEC == spqr
        let w#{R} = codec_base_oct(row#{R}, run, runs, o, codec_scale(row#{R}, run, runs));
//:else
        let w#{R} = codec_oct(row#{R}, run, runs, o, codec_scale(row#{R}, run, runs));
//:endif
        sum#{R} = fma(w#{R}.a, a, fma(w#{R}.b, b, sum#{R}));
//:end
    }
//:if CODEC == spqr
    // The lanes share the outliers of their rows, too.
//:for R in 0..4
    let outliers#{R} = codec_outliers(row#{R}, runs);
    for (var at = outliers#{R}.x + lane; at < outliers#{R}.y; at += LANES) {
        sum#{R}.x += outlier_term(token, at);
    }
//:end
//:endif
//:if SPARSE && NORM
    if (in_blocks()) {
        // The norm is of all columns.
        squares4 = vec4<f32>();
        for (var k4 = lane; k4 < p.runs * 8u; k4 += LANES) {
            let v = x_at(token, k4);
            squares4 = fma(v, v, squares4);
        }
    }
//:endif
//:for R in 0..4
    let start#{R} = t_start(row#{R});
//:end
    for (var o = lane; o < p.octets; o += LANES) {
//:for R in 0..4
        let f#{R} = factor_oct(row#{R}, o);
        let t#{R} = t_oct(token, start#{R}, o);
        sum#{R} = fma(f#{R}.a, t#{R}.a, fma(f#{R}.b, t#{R}.b, sum#{R}));
//:end
    }
    let one = vec4<f32>(1.0);
    var sums = vec4<f32>(dot(sum0, one), dot(sum1, one), dot(sum2, one), dot(sum3, one));
    var squares = dot(squares4, one);

//:if SUBGROUP
    // Every lane gets the sum over its SUBGROUP neighbours.
//:for S in 0..5
//:if SUBGROUP == 32 || S < 3
    sums += subgroupShuffleXor(sums, 1u << #{S}u);
//:if NORM
    squares += subgroupShuffleXor(squares, 1u << #{S}u);
//:endif
//:endif
//:end
//:if SUBGROUP < LANES
    if (local % #{SUBGROUP}u == 0u) {
        team_sums[local / #{SUBGROUP}u] = sums;
//:if NORM
        team_squares[local / #{SUBGROUP}u] = squares;
//:endif
    }
    workgroupBarrier();
    sums = vec4<f32>();
    squares = 0.0;
    let first = team * #{LANES / SUBGROUP}u;
//:for I in 0..LANES/SUBGROUP
    sums += team_sums[first + #{I}u];
//:if NORM
    squares += team_squares[first + #{I}u];
//:endif
//:end
//:endif
//:else
    team_sums[local] = sums;
//:if NORM
    team_squares[local] = squares;
//:endif
    workgroupBarrier();
    for (var n = LANES / 2u; n > 0u; n /= 2u) {
        if (lane < n) {
            team_sums[local] += team_sums[local + n];
//:if NORM
            team_squares[local] += team_squares[local + n];
//:endif
        }
        workgroupBarrier();
    }
    sums = team_sums[team * LANES];
//:if NORM
    squares = team_squares[team * LANES];
//:endif
//:endif

//:if NORM
    if (!flag(RAW)) {
        sums *= inverseSqrt(squares / f32(p.cols) + p.eps);
    }
//:endif
    if (lane == 0u) {
        store_pair(token, slot, sums.x, sums.y);
    } else if (lane == 1u) {
        store_pair(token, slot + 2u, sums.z, sums.w);
    }
}
