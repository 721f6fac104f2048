// IQ4_XS of ggml: w = value[q]*(d*(scale - 32)), q an index into 16 fixed values, a 6-bit scale for 32 weights, an f16 d for 256.
//:import shared/oct
//:import shared/half
//:import shared/bits
//:import shared/codebook

// [rows, 4*runs] u32, bit-sliced 4-bit codes: word o of a run holds weights 8o..8o+7
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
// [rows, runs/8] vec2<u32>, the head of 256 weights: x = low nibbles of the 8 scales, y = their high two bits | d << 16
@group(0) @binding(1) var<storage, read> codec_1: array<vec2<u32>>;

alias Scale = f32; // d*(scale - 32)

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let head = codec_1[row * (runs / 8u) + run / 8u];
    let r = run & 7u;
    let scale = ((head.x >> (4u * r)) & 15u) | (((head.y >> (2u * r)) & 3u) << 4u);
    return half_to_f32(head.y >> 16u) * (f32(scale) - 32.0);
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let q = codes4(codec_0[(row * runs + run) * 4u + o]);
    return Oct(iq4_nl_value(q.a) * s, iq4_nl_value(q.b) * s);
}
