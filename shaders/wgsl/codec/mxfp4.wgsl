// MXFP4: w = e2m1(q)*2^(e - 127), q a 4-bit float, a power of two for 32 weights.
//:import shared/oct
//:import shared/bits
//:import shared/codebook

// [rows, 4*runs] u32, bit-sliced 4-bit codes: word o of a run holds weights 8o..8o+7
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
// [rows, ceil(runs/4)] u32, four exponents e a word
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

alias Scale = f32; // 2^(e - 128): half the scale, because the codebook is doubled

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let e = (codec_1[row * ((runs + 3u) / 4u) + run / 4u] >> (8u * (run & 3u))) & 255u;
    return bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u));
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let q = codes4(codec_0[(row * runs + run) * 4u + o]);
    return Oct(e2m1_doubled(q.a) * s, e2m1_doubled(q.b) * s);
}
