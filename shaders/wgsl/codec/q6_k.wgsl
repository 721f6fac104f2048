// Q6_K of ggml: w = (q - 32)*(d*scale), q of 6 bits, a signed 8-bit scale for 16 weights, an f16 d for 256.
//:import shared/oct
//:option CODED = 0 1
//:import shared/half
//:import shared/bits

//:if CODED
//:import shared/coded_oct
//:else
// [rows, 6*runs] u32, a run: four words of low nibbles (word o: weights 8o..8o+7), two words of the high two bits (word o/2)
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
//:endif
// [rows, 5*runs/8] u32, the head of 256 weights: 16 signed bytes (the scale of each 16 weights), then d in the low half
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

alias Scale = vec2<f32>; // d*scale of weights 0..15 and 16..31 of the run

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let head = (row * (runs / 8u) + run / 8u) * 5u;
    let r = run & 7u;
    let scales = vec4<f32>(unpack4xI8(codec_1[head + r / 2u]));
    return half_to_f32(codec_1[head + 4u]) * select(scales.xy, scales.zw, (r & 1u) == 1u);
}

fn codec_value(q: Codes, o: u32, s: Scale) -> Oct {
    return oct_centered(q, 32.0, select(s.x, s.y, o >= 2u));
}

//:if CODED
fn codec_symbols(q: Symbols, o: u32, s: Scale) -> Oct {
    return codec_value(codes_of(q), o, s);
}
//:else
fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let first = (row * runs + run) * 6u;
    return codec_value(join_codes(codes4(codec_0[first + o]), codes2(codec_0[first + 4u + o / 2u], o), 4u), o, s);
}
//:endif
