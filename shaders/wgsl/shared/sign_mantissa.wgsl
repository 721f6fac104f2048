// Entropy-coded bf16: exponents are symbols; sign and mantissa of four weights share a word, rotated right by 0, 8, 16 and 24 bits from
// their places in an f32 (engine/src/codec/entropy.rs).

// [rows, 8*runs] u32
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

// The four weights of word `w`, as the bits of f32.
fn with_exponents(exponents: vec4<u32>, w: u32) -> vec4<u32> {
    let rest = vec4<u32>(w, w << 8u, w << 16u, (w << 24u) | (w >> 8u)) & vec4<u32>(0x807f0000u);
    return (exponents << vec4<u32>(23u)) | rest;
}
