// Q4_0 of ggml: w = (q - 8)*d, q of 4 bits, an f16 scale d for 32 weights.
//:import shared/oct
//:option CODED = 0 1
//:import shared/half
//:import shared/bits

//:if CODED
//:import shared/coded_oct
//:else
// [rows, 4*runs] u32, bit-sliced 4-bit codes: word o of a run holds weights 8o..8o+7
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
//:endif
// [rows, ceil(runs/2)] u32, two f16 scales a word, the even run's in the low half
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

alias Scale = f32; // d

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    return half_of(codec_1[row * ((runs + 1u) / 2u) + run / 2u], run & 1u);
}

fn codec_value(q: Codes, o: u32, s: Scale) -> Oct {
    return oct_centered(q, 8.0, s);
}

//:if CODED
fn codec_symbols(q: Symbols, o: u32, s: Scale) -> Oct {
    return codec_value(codes_of(q), o, s);
}
//:else
fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    return codec_value(codes4(codec_0[(row * runs + run) * 4u + o]), o, s);
}
//:endif
