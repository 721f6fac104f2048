// Fixed 4-bit codebooks, looked up without memory: integers are packed into words from which a shift picks the entry, values that
// need all 24 bits come from a tree of selects. An indexed `const` array is copied to the stack at every lookup by drivers that do
// not see through it (llvmpipe: 15 times slower).

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

// One of two values for each of four codes, by one of their bits.
fn pick(low: f32, high: f32, bit: vec4<bool>) -> vec4<f32> {
    return select(vec4<f32>(low), vec4<f32>(high), bit);
}

// NF4: 16 quantiles of a normal distribution between -1 and 1, zero among them. Four codes, one a byte.
fn nf4_value(codes: u32) -> vec4<f32> {
    let q = unpack4xU8(codes);
    let b0 = (q & vec4<u32>(1u)) != vec4<u32>(0u);
    let b1 = (q & vec4<u32>(2u)) != vec4<u32>(0u);
    let b2 = (q & vec4<u32>(4u)) != vec4<u32>(0u);
    let b3 = (q & vec4<u32>(8u)) != vec4<u32>(0u);
    let v0 = select(pick(-1.0, -0.6961928009986877, b0), pick(-0.5250730514526367, -0.39491748809814453, b0), b1);
    let v4 = select(pick(-0.28444138169288635, -0.18477343022823334, b0), pick(-0.09105003625154495, 0.0, b0), b1);
    let v8 = select(pick(0.07958029955625534, 0.16093020141124725, b0), pick(0.24611230194568634, 0.33791524171829224, b0), b1);
    let v12 = select(pick(0.44070982933044434, 0.5626170039176941, b0), pick(0.7229568362236023, 1.0, b0), b1);
    return select(select(v0, v4, b2), select(v8, v12, b2), b3);
}

// FP4 of bitsandbytes: magnitudes 0, 1/192, 2/3, 1, 1/3, 1/2, 1/6, 1/4, negative from code 8 on. Four codes, one a byte.
fn fp4_value(codes: u32) -> vec4<f32> {
    let q = unpack4xU8(codes);
    let b0 = (q & vec4<u32>(1u)) != vec4<u32>(0u);
    let b1 = (q & vec4<u32>(2u)) != vec4<u32>(0u);
    let b2 = (q & vec4<u32>(4u)) != vec4<u32>(0u);
    let v0 = select(pick(0.0, 0.005208333333, b0), pick(0.66666667, 1.0, b0), b1);
    let v4 = select(pick(0.33333333, 0.5, b0), pick(0.16666667, 0.25, b0), b1);
    let sign = (q & vec4<u32>(8u)) << vec4<u32>(28u);
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(select(v0, v4, b2)) | sign);
}
