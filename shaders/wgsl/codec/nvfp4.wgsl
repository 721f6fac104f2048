// NVFP4: w = e2m1(q)*scale, q a 4-bit float, an unsigned E4M3 scale for 16 weights.
//:import shared/oct
//:import shared/bits
//:import shared/codebook

// [rows, 4*runs] u32, bit-sliced 4-bit codes: word o of a run holds weights 8o..8o+7
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
// [rows, runs/2] u32, the four E4M3 scales of 64 weights
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

alias Scale = vec2<f32>; // half the scales of weights 0..15 and 16..31 of the run, because the codebook is doubled

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let x = vec2<u32>(codec_1[row * (runs / 2u) + run / 2u] >> (16u * (run & 1u))) >> vec2<u32>(0u, 8u);
    let bits = x & vec2<u32>(0x7fu);
    let normal = bitcast<vec2<f32>>((bits << vec2<u32>(20u)) + vec2<u32>(0x3b800000u)); // (1 + mantissa/8)*2^(exponent - 8)
    let tiny = vec2<f32>(bits) * 0.0009765625; // mantissa*2^-10
    // 0x7f is E4M3's NaN: ggml reads it, and 0, as zero.
    let scale = select(normal, tiny, bits < vec2<u32>(8u));
    return select(scale, vec2<f32>(0.0), (x & vec2<u32>(0xffu)) == vec2<u32>(0x7fu));
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let q = codes4(codec_0[(row * runs + run) * 4u + o]);
    let scale = select(s.x, s.y, o >= 2u);
    return Oct(e2m1_doubled(q.a) * scale, e2m1_doubled(q.b) * scale);
}
