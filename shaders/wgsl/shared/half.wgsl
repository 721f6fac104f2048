// IEEE binary16 by integer operations: exact for subnormals too, which `unpack2x16float` may flush to zero. Needs no f16 feature.
// Infinities and NaNs, which no codec writes, come out as large finite numbers.

// The f16 in the low 16 bits of `h`; the bits above are ignored.
// Normal numbers: sign moved, exponent re-biased by 127 - 15. Subnormals: the same bits with exponent 2^-14 stand for
// 2^-14 + value; the difference is exact.
fn half_to_f32(h: u32) -> f32 {
    let magnitude = h & 0x7fffu;
    let rebased = (magnitude << 13u) + 0x38000000u;
    let subnormal = bitcast<u32>(bitcast<f32>(rebased + 0x00800000u) - 6.103515625e-5);
    return bitcast<f32>(select(rebased, subnormal, magnitude < 0x0400u) | ((h & 0x8000u) << 16u));
}

// Four f16 at once, one in the low 16 bits of each component.
fn half4_to_f32(h: vec4<u32>) -> vec4<f32> {
    let magnitude = h & vec4<u32>(0x7fffu);
    let rebased = (magnitude << vec4<u32>(13u)) + vec4<u32>(0x38000000u);
    let subnormal = bitcast<vec4<u32>>(bitcast<vec4<f32>>(rebased + vec4<u32>(0x00800000u)) - vec4<f32>(6.103515625e-5));
    let bits = select(rebased, subnormal, magnitude < vec4<u32>(0x0400u));
    return bitcast<vec4<f32>>(bits | ((h & vec4<u32>(0x8000u)) << vec4<u32>(16u)));
}

// Half `i` (0 low, 1 high) of a word.
fn half_of(word: u32, i: u32) -> f32 {
    return half_to_f32(word >> (16u * i));
}

// Both halves of a word, the low one first.
fn half2_of(word: u32) -> vec2<f32> {
    return vec2<f32>(half_to_f32(word), half_to_f32(word >> 16u));
}
