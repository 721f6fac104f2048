// Dense bf16 weights, rows padded with zeros to whole runs. A bf16 is the upper half of an f32. Limited by memory: 2 bytes a weight; with
// CODED exponents about 1.35, and by integer arithmetic.
//:import shared/oct
//:option CODED = 0 1

alias Scale = u32;

//:if CODED
//:import shared/coded_oct
//:import shared/sign_mantissa

// The index of the run's first word.
fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    return (row * runs + run) * 8u;
}

fn codec_symbols(q: Symbols, o: u32, s: Scale) -> Oct {
    let a = with_exponents(q.a, codec_1[s + 2u * o]);
    let b = with_exponents(q.b, codec_1[s + 2u * o + 1u]);
    return Oct(bitcast<vec4<f32>>(a), bitcast<vec4<f32>>(b));
}
//:else
// [rows, 4*runs] vec4<u32>, eight consecutive weights, two a word, the even one in the low half
@group(0) @binding(0) var<storage, read> codec_0: array<vec4<u32>>;

// Nothing to share: the index of the run's first vec4.
fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    return (row * runs + run) * 4u;
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let w = codec_0[s + o];
    let even = bitcast<vec4<f32>>(w << vec4<u32>(16u));
    let odd = bitcast<vec4<f32>>(w & vec4<u32>(0xffff0000u));
    return Oct(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
}
//:endif
