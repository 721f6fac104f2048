// Dense f32 weights, rows padded with zeros to whole runs. Limited by memory: 4 bytes a weight.
//:import shared/oct

// [rows, 8*runs] vec4<f32>, four consecutive weights
@group(0) @binding(0) var<storage, read> codec_0: array<vec4<f32>>;

alias Scale = u32; // nothing to share: the index of the run's first vec4

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    return (row * runs + run) * 8u;
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    return Oct(codec_0[s + 2u * o], codec_0[s + 2u * o + 1u]);
}
