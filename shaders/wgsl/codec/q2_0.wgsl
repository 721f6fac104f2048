// Q2_0 of ggml: w = (q - 1)*d, q of 2 bits, an f16 scale d for 64 weights.
//:import shared/oct
//:import shared/half
//:import shared/bits

// [rows, 2*runs] u32, bit-sliced 2-bit codes: word o/2 of a run holds weights 8o..8o+7
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
// [rows, ceil(runs/4)] u32, two f16 scales a word, each of 2 runs
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

alias Scale = f32; // d

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let scales = runs / 2u;
    return half_of(codec_1[row * ((scales + 1u) / 2u) + run / 4u], (run / 2u) & 1u);
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    return oct_centered(codes2(codec_0[(row * runs + run) * 2u + o / 2u], o), 1.0, s);
}
