// 2:4 sparsity: of every four weights two are stored, with their places. Limited by memory: 9 bits a weight.
//:import shared/oct
//:option HALF = 0 1
//:if HALF
//:import shared/half
//:endif

// [rows, 4*runs] vec2<u32>, the kept weights of two groups of four; two a word, the first in the low half
@group(0) @binding(0) var<storage, read> codec_0: array<vec2<u32>>;
// [rows, runs] u32, four bits a group: places of its two weights
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

alias Scale = u32; // the run's places

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    return codec_1[row * runs + run];
}

// Four weights from the two in `word`.
fn spread(word: u32, places: u32) -> vec4<f32> {
//:if HALF
    let low = half_to_f32(word);
    let high = half_to_f32(word >> 16u);
//:else
    let low = bitcast<f32>(word << 16u);
    let high = bitcast<f32>(word & 0xffff0000u);
//:endif
    let place = vec4<u32>(0u, 1u, 2u, 3u);
    let zero = vec4<f32>();
    let first = select(zero, vec4<f32>(low), place == vec4<u32>(places & 3u));
    return first + select(zero, vec4<f32>(high), place == vec4<u32>((places >> 2u) & 3u));
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let w = codec_0[(row * runs + run) * 4u + o];
    let places = s >> (8u * o);
    return Oct(spread(w.x, places), spread(w.y, places >> 4u));
}
