// Q5_1 of ggml: w = q*d + m, q of 5 bits, f16 d and m for 32 weights.
//:import shared/oct
//:option CODED = 0 1
//:import shared/half
//:import shared/bits

//:if CODED
//:import shared/coded_oct
//:else
// [rows, 5*runs] u32, a run: four words of low nibbles (word o: weights 8o..8o+7), one word of fifth bits
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
//:endif
// [rows, runs] u32, d | m << 16, both f16
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

alias Scale = vec2<f32>; // d, m

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    return half2_of(codec_1[row * runs + run]);
}

fn codec_value(q: Codes, o: u32, s: Scale) -> Oct {
    return oct_affine(q, s.x, s.y);
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
