// Uniform group quantization: w = (q - 2^(BITS - 1))*d, or with ZERO w = q*d + m; d and m are f16, one for a group of
// GROUP_RUNS runs, or with SPLIT for half a run (16 weights).
//:import shared/oct
//:import shared/half
//:import shared/bits
//:option BITS = 2 3 4 5 6 8
//:option ZERO = 0 1
//:option SPLIT = 0 1
//:option CODED = 0 1

//:if CODED
//:import shared/coded_oct
//:else
// [rows, BITS*runs] u32, bit-sliced codes; 3, 5 and 6 bits are 2 + 1, 4 + 1 and 4 + 2, the low slice's words first
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
//:endif

//:if ZERO
// [rows, groups] u32, d | m << 16
//:else
// [rows, ceil(groups/2)] u32, two f16 scales a word, the even group's in the low half
//:endif
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

//:if !SPLIT
override GROUP_RUNS: u32 = 2u;
//:endif

//:if ZERO && SPLIT
alias Scale = vec4<f32>; // d, m of weights 0..15 of the run, then of weights 16..31

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let first = (row * runs + run) * 2u;
    return vec4<f32>(half2_of(codec_1[first]), half2_of(codec_1[first + 1u]));
}
//:elif ZERO
alias Scale = vec2<f32>; // d, m

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    return half2_of(codec_1[row * (runs / GROUP_RUNS) + run / GROUP_RUNS]);
}
//:elif SPLIT
alias Scale = vec2<f32>; // d of weights 0..15 of the run, then of weights 16..31

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    return half2_of(codec_1[row * runs + run]);
}
//:else
alias Scale = f32; // d

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let groups = runs / GROUP_RUNS;
    return half_of(codec_1[row * ((groups + 1u) / 2u) + run / (2u * GROUP_RUNS)], (run / GROUP_RUNS) & 1u);
}
//:endif

fn codec_value(q: Codes, o: u32, s: Scale) -> Oct {
//:if SPLIT
//:if ZERO
    let part = select(s.xy, s.zw, o >= 2u);
//:else
    let part = select(s.x, s.y, o >= 2u);
//:endif
//:else
    let part = s;
//:endif
//:if ZERO
    return oct_affine(q, part.x, part.y);
//:else
//:if BITS == 8
    return oct_centered(q, 128.0, part);
//:elif BITS == 6
    return oct_centered(q, 32.0, part);
//:elif BITS == 5
    return oct_centered(q, 16.0, part);
//:elif BITS == 4
    return oct_centered(q, 8.0, part);
//:elif BITS == 3
    return oct_centered(q, 4.0, part);
//:else
    return oct_centered(q, 2.0, part);
//:endif
//:endif
}

//:if CODED
fn codec_symbols(q: Symbols, o: u32, s: Scale) -> Oct {
    return codec_value(codes_of(q), o, s);
}
//:else
fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let first = (row * runs + run) * #{BITS}u;
//:if BITS == 2
    return codec_value(codes2(codec_0[first + o / 2u], o), o, s);
//:elif BITS == 3
    return codec_value(join_codes(codes2(codec_0[first + o / 2u], o), codes1(codec_0[first + 2u], o), 2u), o, s);
//:elif BITS == 4
    return codec_value(codes4(codec_0[first + o]), o, s);
//:elif BITS == 5
    return codec_value(join_codes(codes4(codec_0[first + o]), codes1(codec_0[first + 4u], o), 4u), o, s);
//:elif BITS == 6
    return codec_value(join_codes(codes4(codec_0[first + o]), codes2(codec_0[first + 4u + o / 2u], o), 4u), o, s);
//:else
    return codec_value(Codes(codec_0[first + 2u * o], codec_0[first + 2u * o + 1u]), o, s);
//:endif
}
//:endif
