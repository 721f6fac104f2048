// FP4 of bitsandbytes: w = code[q]*absmax, a sign and 8 magnitudes, one absmax for a block of BLOCK_RUNS runs.
//:import shared/oct
//:import shared/bits
//:import shared/absmax

// An indexed constant, as in codec/nf4: the values are thirds that need all 24 bits.
const FP4 = array<f32, 16>(
    0.0, 0.005208333333, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25,
    -0.0, -0.005208333333, -0.66666667, -1.0, -0.33333333, -0.5, -0.16666667, -0.25,
);

fn codec_values(codes: u32, scale: f32) -> vec4<f32> {
    let q = unpack4xU8(codes);
    return vec4<f32>(FP4[q.x], FP4[q.y], FP4[q.z], FP4[q.w]) * scale;
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let q = codes4(codec_0[(row * runs + run) * 4u + o]);
    return Oct(codec_values(q.a, s), codec_values(q.b, s));
}
