// Dense bf16 weights, rows padded with zeros to whole runs. A bf16 is the upper half of an f32. Limited by memory: 2 bytes a weight.
//:import shared/oct

// [rows, 4*runs] vec4<u32>, eight consecutive weights, two a word, the even one in the low half
@group(0) @binding(0) var<storage, read> codec_0: array<vec4<u32>>;

alias Scale = u32; // nothing to share: the index of the run's first vec4

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    return (row * runs + run) * 4u;
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let w = codec_0[s + o];
    let even = bitcast<vec4<f32>>(w << vec4<u32>(16u));
    let odd = bitcast<vec4<f32>>(w & vec4<u32>(0xffff0000u));
    return Oct(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
}
