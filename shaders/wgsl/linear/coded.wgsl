// y = W x from entropy-coded weights, decoded in registers where they are multiplied: nothing is written to memory. Formula and epilogue:
// linear/layer; streams: shared/coded; weights: the codec.
//
// Streams begin at chunks of 128 columns. LANES lanes share two rows of W and take their chunks in turn, each lane two streams side by side
// for what it loads of x; the decoding table is copied to workgroup memory, once for a workgroup. With LANES = 1, for software adapters, a
// lane has all of its two rows, for TOKENS columns of x, and reads the table where it is.
//
// Grid: slots / (2 · WG / LANES) in x, continued in y; tokens / TOKENS in z.
// Limited by integer arithmetic (about 15 operations a weight) where memory is fast, else by memory: the coded bytes are read once.

//:option CODEC = codec
//:option CODED = 0 1
//:option LANES = 1 8 32
//:option TOKENS = 1 4 8
//:option NORM = 0 1
//:option TAIL = 0 1
//:skip !CODED
//:skip CODEC != bf16 && CODEC != uniform && CODEC != nf4 && CODEC != fp4 && CODEC != iq4_nl && CODEC != q8_0 && CODEC != q6_k && CODEC != q5_k && CODEC != q5_1 && CODEC != q5_0 && CODEC != q4_k && CODEC != q4_1 && CODEC != q4_0
//:skip NORM && TOKENS > 1
//:skip LANES > 1 && TOKENS > 1
//:skip TAIL && CODEC != bf16

//:import linear/layer
//:import codec

const LANES: u32 = #{LANES}u;
//:if LANES == 1
const WG: u32 = 16u;

fn table_at(state: u32) -> u32 {
    return codec_0[CODED_TABLE + state];
}
//:else
const WG: u32 = 128u;
var<workgroup> table: array<u32, CODED_STATES>;
// Sums of a lane for its two rows, and of x².
var<workgroup> team_sums: array<vec3<f32>, WG>;

fn table_at(state: u32) -> u32 {
    return table[state];
}
//:endif

fn next_pair(d: ptr<function, Decoder>) -> vec2<u32> {
    coded_refill(d);
    let first = coded_take(d, table_at((*d).state));
    return vec2<u32>(first, coded_take(d, table_at((*d).state)));
}

fn next_symbols(d: ptr<function, Decoder>) -> Symbols {
    let p = next_pair(d);
    let q = next_pair(d);
    let r = next_pair(d);
    return Symbols(vec4<u32>(p, q), vec4<u32>(r, next_pair(d)));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % LANES;
    let team = local / LANES;
    let slot = ((group.y * p.grid + group.x) * (WG / LANES) + team) * 2u;
    let row0 = row_of(slot);
    let row1 = row_of(slot + 1u);
//:for T in 0..TOKENS
    let t#{T} = min(group.z * #{TOKENS}u + #{T}u, p.tokens - 1u);
    var sum0_#{T} = vec4<f32>();
    var sum1_#{T} = vec4<f32>();
//:end
    var squares = vec4<f32>();
//:if LANES > 1
    for (var i = local; i < (1u << codec_0[0]); i += WG) {
        table[i] = codec_0[CODED_TABLE + i];
    }
    workgroupBarrier();
//:endif

    let runs = p.runs;
    let chunks = (runs + CHUNK_RUNS - 1u) / CHUNK_RUNS;
    for (var chunk = lane; chunk < chunks; chunk += LANES) {
        var d0 = coded_start(row0, chunk, runs);
        var d1 = coded_start(row1, chunk, runs);
        let end = min(runs, (chunk + 1u) * CHUNK_RUNS);
        for (var run = chunk * CHUNK_RUNS; run < end; run++) {
            let scale0 = codec_scale(row0, run, runs);
            let scale1 = codec_scale(row1, run, runs);
            for (var o = 0u; o < 4u; o++) {
                let w0 = codec_symbols(next_symbols(&d0), o, scale0);
                let w1 = codec_symbols(next_symbols(&d1), o, scale1);
                let k = run * 8u + o * 2u;
//:for T in 0..TOKENS
                var a#{T} = x_at(t#{T}, k);
                var b#{T} = x_at(t#{T}, k + 1u);
//:if NORM
                squares = fma(a#{T}, a#{T}, fma(b#{T}, b#{T}, squares));
                a#{T} *= norm_at(k);
                b#{T} *= norm_at(k + 1u);
//:endif
                sum0_#{T} = fma(w0.a, a#{T}, fma(w0.b, b#{T}, sum0_#{T}));
                sum1_#{T} = fma(w1.a, a#{T}, fma(w1.b, b#{T}, sum1_#{T}));
//:end
            }
        }
    }
    let start0 = t_start(row0);
    let start1 = t_start(row1);
    for (var o = lane; o < p.octets; o += LANES) {
        let f0 = factor_oct(row0, o);
        let f1 = factor_oct(row1, o);
//:for T in 0..TOKENS
        let low0_#{T} = t_oct(t#{T}, start0, o);
        let low1_#{T} = t_oct(t#{T}, start1, o);
        sum0_#{T} = fma(f0.a, low0_#{T}.a, fma(f0.b, low0_#{T}.b, sum0_#{T}));
        sum1_#{T} = fma(f1.a, low1_#{T}.a, fma(f1.b, low1_#{T}.b, sum1_#{T}));
//:end
    }
    let one = vec4<f32>(1.0);
//:if LANES == 1
    var rms = 1.0;
//:if NORM
    rms = inverseSqrt(dot(squares, one) / f32(p.cols) + p.eps);
//:endif
//:for T in 0..TOKENS
    store_pair(group.z * #{TOKENS}u + #{T}u, slot, dot(sum0_#{T}, one) * rms, dot(sum1_#{T}, one) * rms);
//:end
//:else
    team_sums[local] = vec3<f32>(dot(sum0_0, one), dot(sum1_0, one), dot(squares, one));
    workgroupBarrier();
    for (var n = LANES / 2u; n > 0u; n /= 2u) {
        if (lane < n) {
            team_sums[local] += team_sums[local + n];
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        var sums = team_sums[local];
//:if NORM
        sums *= inverseSqrt(sums.z / f32(p.cols) + p.eps);
//:endif
        store_pair(group.z, slot, sums.x, sums.y);
    }
//:endif
}
