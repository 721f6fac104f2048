// Q5_K of ggml: w = q*(d*scale) - dmin*min, q of 5 bits, 6-bit scale and min for 32 weights, f16 d and dmin for 256.
//:import shared/oct
//:option CODED = 0 1
//:import shared/half
//:import shared/bits
//:import shared/six_bit

//:if CODED
//:import shared/coded_oct
//:else
// [rows, 5*runs] u32, a run: four words of low nibbles (word o: weights 8o..8o+7), one word of fifth bits
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
//:endif
// [rows, runs/8] vec4<u32>, the head of 256 weights: three words of six-bit pairs (scale, min of each run), d | dmin << 16
@group(0) @binding(1) var<storage, read> codec_1: array<vec4<u32>>;

alias Scale = vec2<f32>; // d*scale, dmin*min

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let head = codec_1[row * (runs / 8u) + run / 8u];
    return half2_of(head.w) * six_bit_pair(head, run & 7u);
}

fn codec_value(q: Codes, o: u32, s: Scale) -> Oct {
    return oct_affine(q, s.x, -s.y);
}

//:if CODED
fn codec_symbols(q: Symbols, o: u32, s: Scale) -> Oct {
    return codec_value(codes_of(q), o, s);
}
//:else
fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let first = (row * runs + run) * 5u;
    return codec_value(join_codes(codes4(codec_0[first + o]), codes1(codec_0[first + 4u], o), 4u), o, s);
}
//:endif
