// Q3_K of ggml: w = (q - 4)*(d*(scale - 32)), q of 3 bits, a 6-bit scale for 16 weights, an f16 d for 256.
//:import shared/oct
//:import shared/half
//:import shared/bits
//:import shared/six_bit

// [rows, 3*runs] u32, a run: two words of the low two bits (word o/2: weights 8o..8o+7), one word of the third
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
// [rows, runs/8] vec4<u32>, the head of 256 weights: three words of six-bit pairs (the two scales of each run), d
@group(0) @binding(1) var<storage, read> codec_1: array<vec4<u32>>;

alias Scale = vec2<f32>; // d*(scale - 32) of weights 0..15 and 16..31 of the run

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let head = codec_1[row * (runs / 8u) + run / 8u];
    return half_to_f32(head.w) * (six_bit_pair(head, run & 7u) - 32.0);
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let first = (row * runs + run) * 3u;
    let q = join_codes(codes2(codec_0[first + o / 2u], o), codes1(codec_0[first + 2u], o), 2u);
    return oct_centered(q, 4.0, select(s.x, s.y, o >= 2u));
}
