// Q1_0 of ggml: w = d where the bit is set, -d where it is not; an f16 scale d for 128 weights.
//:import shared/oct
//:import shared/half
//:import shared/bits

// [rows, runs] u32, bit-sliced 1-bit codes
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
// [rows, ceil(runs/8)] u32, two f16 scales a word, each of 4 runs
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

alias Scale = f32; // d

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let scales = runs / 4u;
    return half_of(codec_1[row * ((scales + 1u) / 2u) + run / 8u], (run / 4u) & 1u);
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    // (q - 1/2)*2d: both factors and the product are exact.
    return oct_centered(codes1(codec_0[row * runs + run], o), 0.5, 2.0 * s);
}
