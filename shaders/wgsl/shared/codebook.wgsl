// The fixed 4-bit codebooks of ggml, looked up by arithmetic: the tables are packed into words, and a shift picks the entry.
// An indexed `const` array would do the same through memory on drivers that put it on the stack.
//:import shared/oct
//:import shared/bits

// FP4 (E2M1), doubled to be integers: 0 1 2 3 4 6 8 12, and the same with a minus from code 8 on. Four codes, one a byte.
fn e2m1_doubled(codes: u32) -> vec4<f32> {
    // Nibble m of the constant is magnitude m. Codes are at most 15, so that four times the low three bits stays inside a byte.
    let shift = unpack4xU8((codes & 0x07070707u) << 2u);
    let magnitude = vec4<f32>((vec4<u32>(0xc8643210u) >> shift) & vec4<u32>(15u));
    let sign = unpack4xU8(codes & 0x08080808u) << vec4<u32>(28u);
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(magnitude) | sign);
}

// IQ4_NL: -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113. Four codes, one a byte.
fn iq4_nl_value(codes: u32) -> vec4<f32> {
    // Byte c of the four words, plus 128, is value c: high bits choose the word, low bits the byte.
    let q = unpack4xU8(codes);
    let odd = (q & vec4<u32>(4u)) != vec4<u32>(0u);
    let low = select(vec4<u32>(0x3f2d1801u), vec4<u32>(0x766a5d4fu), odd);
    let high = select(vec4<u32>(0xa6998d81u), vec4<u32>(0xf1d9c5b5u), odd);
    let word = select(low, high, q >= vec4<u32>(8u));
    return vec4<f32>((word >> ((q & vec4<u32>(3u)) << vec4<u32>(3u))) & vec4<u32>(255u)) - 128.0;
}
