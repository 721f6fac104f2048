// NF4 of QLoRA (arXiv 2305.14314): w = code[q]*absmax, 16 quantiles of a normal distribution, one absmax for a block of BLOCK_RUNS runs.
//:import shared/oct
//:import shared/bits
//:import shared/absmax

// An indexed constant: the values need all 24 bits, so the packed words of shared/codebook do not do, and a tree of
// 15 selects a weight costs more than a lookup.
const NF4 = array<f32, 16>(
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
);

fn codec_values(codes: u32, scale: f32) -> vec4<f32> {
    let q = unpack4xU8(codes);
    return vec4<f32>(NF4[q.x], NF4[q.y], NF4[q.z], NF4[q.w]) * scale;
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let q = codes4(codec_0[(row * runs + run) * 4u + o]);
    return Oct(codec_values(q.a, s), codec_values(q.b, s));
}
