// Q2_K of ggml: w = q*(d*scale) - dmin*min, q of 2 bits, 4-bit scale and min for 16 weights, f16 d and dmin for 256.
//:import shared/oct
//:import shared/half
//:import shared/bits

// [rows, 2*runs] u32, bit-sliced 2-bit codes: word o/2 of a run holds weights 8o..8o+7
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
// [rows, 5*runs/8] u32, the head of 256 weights: 16 bytes (scale | min << 4, of each 16 weights), then d | dmin << 16
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

alias Scale = vec4<f32>; // d*scale, dmin*min of weights 0..15 of the run, then of weights 16..31

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let head = (row * (runs / 8u) + run / 8u) * 5u;
    let r = run & 7u;
    let pair = codec_1[head + r / 2u] >> (16u * (r & 1u));
    let levels = vec4<f32>((vec4<u32>(pair) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u));
    return half2_of(codec_1[head + 4u]).xyxy * levels;
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let q = codes2(codec_0[(row * runs + run) * 2u + o / 2u], o);
    let part = select(s.xy, s.zw, o >= 2u);
    return oct_affine(q, part.x, -part.y);
}
