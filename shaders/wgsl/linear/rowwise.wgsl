// y = W x for software adapters (llvmpipe, SwiftShader): a lane computes ROWS rows of W times TOKENS columns of x, from
// registers alone. Formula and epilogue: linear/layer; weights: the codec.
//
// Such adapters run the lanes of a subgroup as the lanes of a SIMD register. Arithmetic is cheap there, every load is a loop
// over the lanes, barriers and workgroup memory cost more than they save. So a run of weights is decoded once for TOKENS
// columns, and with SHARE the lanes of a subgroup load a run of x together (one vec4 each) and pass it around by broadcast.
//
// Grid: slots / (16·ROWS) in x, continued in y; tokens / TOKENS in z.
// Limited by loads at one column (about one gather for 4 words of W), by arithmetic from four columns on.

//:option CODEC = codec
//:option SHARE = 1 8
//:option ROWS = 4 2
//:option TOKENS = 1 4 8
//:option NORM = 0 1
//:option TAIL = 0 1
//:require subgroup if SHARE > 1
//:skip SHARE > 1 && ROWS > 2
//:skip SHARE == 1 && (ROWS == 2 || TOKENS == 8)
//:skip NORM && TOKENS > 1
//:skip TAIL && SHARE > 1
//:skip TAIL && CODEC != f32 && CODEC != f16 && CODEC != bf16 && CODEC != sparse24
//:skip SPARSE && TAIL
//:skip CODED

//:import linear/layer
//:import codec
//:if SPARSE
//:import linear/sparse
//:endif

@compute @workgroup_size(16)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
//:if SHARE > 1
    @builtin(subgroup_invocation_id) lane: u32,
//:endif
) {
    let slot = ((group.y * p.grid + group.x) * 16u + local) * #{ROWS}u;
//:for R in 0..ROWS
    let row#{R} = row_of(slot + #{R}u);
//:end
    let token = group.z * #{TOKENS}u;
//:for T in 0..TOKENS
    let t#{T} = min(token + #{T}u, p.tokens - 1u);
//:end
//:for R in 0..ROWS
//:for T in 0..TOKENS
//:if TOKENS == 1
    var sum#{R}_#{T} = vec4<f32>(); // four chains of additions: one would wait for each
//:else
    var sum#{R}_#{T} = 0.0;
//:endif
//:end
//:end
    var squares = vec4<f32>();
//:if SPARSE
    // Lanes that share x have their rows in one row of blocks, or no blocks.
    let runs = steps();
//:for R in 0..ROWS
    var stream#{R} = stream_open(row#{R});
//:end
//:else
    let runs = p.runs;
//:endif
    for (var run = 0u; run < runs; run++) {
//:if SPARSE
        let where_x = places(row0, run);
//:endif
        // A run of x: c3_5 holds columns 20 to 23 of it for the fourth token.
//:if SHARE > 1
//:if SPARSE
        let mine = column4(where_x, (lane & 7u) / 2u) + (lane & 1u);
//:else
        let mine = run * 8u + (lane & 7u);
//:endif
//:for T in 0..TOKENS
//:if NORM
        let own#{T} = x_at(t#{T}, mine);
        squares = fma(own#{T}, own#{T}, squares);
        let part#{T} = own#{T} * norm_at(mine);
//:else
        let part#{T} = x_at(t#{T}, mine);
//:endif
//:end
//:endif
//:for R in 0..ROWS
//:if SPARSE
        stream_step(&stream#{R}, row#{R}, run);
//:else
        let scale#{R} = codec_scale(row#{R}, run, runs);
//:endif
//:end
//:for O in 0..4
//:for R in 0..ROWS
//:if SPARSE
        let w#{R}_#{O} = stream_oct(&stream#{R}, row#{R}, run, #{O}u);
//:elif CODEC == spqr
        let w#{R}_#{O} = codec_base_oct(row#{R}, run, runs, #{O}u, scale#{R});
//:else
        let w#{R}_#{O} = codec_oct(row#{R}, run, runs, #{O}u, scale#{R});
//:endif
//:end
//:if SPARSE
        let column#{O} = column4(where_x, #{O}u);
//:else
        let column#{O} = run * 8u + #{2 * O}u;
//:endif
//:for T in 0..TOKENS
//:if SHARE > 1
        let c#{T}_#{2 * O} = subgroupBroadcast(part#{T}, #{2 * O}u);
        let c#{T}_#{2 * O + 1} = subgroupBroadcast(part#{T}, #{2 * O + 1}u);
//:elif NORM
        let a#{T}_#{O} = x_at(t#{T}, column#{O});
        let b#{T}_#{O} = x_at(t#{T}, column#{O} + 1u);
        squares = fma(a#{T}_#{O}, a#{T}_#{O}, fma(b#{T}_#{O}, b#{T}_#{O}, squares));
        let c#{T}_#{2 * O} = a#{T}_#{O} * norm_at(column#{O});
        let c#{T}_#{2 * O + 1} = b#{T}_#{O} * norm_at(column#{O} + 1u);
//:else
        let c#{T}_#{2 * O} = x_at(t#{T}, column#{O});
        let c#{T}_#{2 * O + 1} = x_at(t#{T}, column#{O} + 1u);
//:endif
//:for R in 0..ROWS
//:if TOKENS == 1
        sum#{R}_#{T} = fma(w#{R}_#{O}.a, c#{T}_#{2 * O}, sum#{R}_#{T});
        sum#{R}_#{T} = fma(w#{R}_#{O}.b, c#{T}_#{2 * O + 1}, sum#{R}_#{T});
//:else
        sum#{R}_#{T} = fma(w#{R}_#{O}.a.x, c#{T}_#{2 * O}.x, sum#{R}_#{T});
        sum#{R}_#{T} = fma(w#{R}_#{O}.a.y, c#{T}_#{2 * O}.y, sum#{R}_#{T});
        sum#{R}_#{T} = fma(w#{R}_#{O}.a.z, c#{T}_#{2 * O}.z, sum#{R}_#{T});
        sum#{R}_#{T} = fma(w#{R}_#{O}.a.w, c#{T}_#{2 * O}.w, sum#{R}_#{T});
        sum#{R}_#{T} = fma(w#{R}_#{O}.b.x, c#{T}_#{2 * O + 1}.x, sum#{R}_#{T});
        sum#{R}_#{T} = fma(w#{R}_#{O}.b.y, c#{T}_#{2 * O + 1}.y, sum#{R}_#{T});
        sum#{R}_#{T} = fma(w#{R}_#{O}.b.z, c#{T}_#{2 * O + 1}.z, sum#{R}_#{T});
        sum#{R}_#{T} = fma(w#{R}_#{O}.b.w, c#{T}_#{2 * O + 1}.w, sum#{R}_#{T});
//:endif
//:end
//:end
//:end
    }
//:if CODEC == spqr
    // Rows differ in how many outliers they have: lanes that are done wait.
//:for R in 0..ROWS
    let outliers#{R} = codec_outliers(row#{R}, runs);
    for (var at = outliers#{R}.x; at < outliers#{R}.y; at++) {
//:for T in 0..TOKENS
//:if TOKENS == 1
        sum#{R}_#{T}.x += outlier_term(t#{T}, at);
//:else
        sum#{R}_#{T} += outlier_term(t#{T}, at);
//:endif
//:end
    }
//:end
//:endif
//:if SPARSE && NORM
    if (in_blocks()) {
        // The norm is of all columns.
        squares = vec4<f32>();
//:if SHARE > 1
        for (var k4 = lane & 7u; k4 < p.runs * 8u; k4 += 8u) {
//:else
        for (var k4 = 0u; k4 < p.runs * 8u; k4++) {
//:endif
            let v = x_at(t0, k4);
            squares = fma(v, v, squares);
        }
    }
//:endif
//:for R in 0..ROWS
    let start#{R} = t_start(row#{R});
//:end
    for (var o = 0u; o < p.octets; o++) {
//:for R in 0..ROWS
        let f#{R} = factor_oct(row#{R}, o);
//:for T in 0..TOKENS
        let t#{R}_#{T} = t_oct(t#{T}, start#{R}, o);
//:if TOKENS == 1
        sum#{R}_#{T} = fma(f#{R}.a, t#{R}_#{T}.a, fma(f#{R}.b, t#{R}_#{T}.b, sum#{R}_#{T}));
//:else
        sum#{R}_#{T} += dot(f#{R}.a, t#{R}_#{T}.a) + dot(f#{R}.b, t#{R}_#{T}.b);
//:endif
//:end
//:end
    }
//:if TOKENS == 1
    var rms = 1.0;
//:if NORM
    var square = squares.x + squares.y + squares.z + squares.w;
//:if SHARE > 1
    square += subgroupShuffleXor(square, 1u);
    square += subgroupShuffleXor(square, 2u);
    square += subgroupShuffleXor(square, 4u);
//:endif
    if (!flag(RAW)) {
        rms = inverseSqrt(square / f32(p.cols) + p.eps);
    }
//:endif
//:for R in 0..ROWS
    let total#{R}_0 = dot(sum#{R}_0, vec4<f32>(rms));
//:end
//:else
//:for T in 0..TOKENS
//:for R in 0..ROWS
    let total#{R}_#{T} = sum#{R}_#{T};
//:end
//:end
//:endif
//:for T in 0..TOKENS
//:for R in 0..ROWS/2
    store_pair(token + #{T}u, slot + #{2 * R}u, total#{2 * R}_#{T}, total#{2 * R + 1}_#{T});
//:end
//:end
}
