// Bit-sliced integer codes (layout: engine/src/codec/bits.rs). Weight 8o + 4h + i of a run sits in byte i of a word, so four codes
// come out of a word with one shift, one mask and one unpack.
//:import shared/oct

// The codes of an octet, one a byte.
struct Codes {
    a: u32, // weights 8o .. 8o + 3
    b: u32, // weights 8o + 4 .. 8o + 7
}

// 1 bit: the word of the run.
fn codes1(word: u32, o: u32) -> Codes {
    let w = word >> (2u * o);
    return Codes(w & 0x01010101u, (w >> 1u) & 0x01010101u);
}

// 2 bits: word o / 2 of the run.
fn codes2(word: u32, o: u32) -> Codes {
    let w = word >> (4u * (o & 1u));
    return Codes(w & 0x03030303u, (w >> 2u) & 0x03030303u);
}

// 4 bits: word o of the run.
fn codes4(word: u32) -> Codes {
    return Codes(word & 0x0f0f0f0fu, (word >> 4u) & 0x0f0f0f0fu);
}

// Low and high slices put together, the high one's codes starting at bit `low_bits`.
fn join_codes(low: Codes, high: Codes, low_bits: u32) -> Codes {
    return Codes(low.a | (high.a << low_bits), low.b | (high.b << low_bits));
}

// (q - zero) * scale, for codes whose zero is an integer: exact up to the one rounding of the product.
fn oct_centered(q: Codes, zero: f32, scale: f32) -> Oct {
    return Oct((vec4<f32>(unpack4xU8(q.a)) - zero) * scale, (vec4<f32>(unpack4xU8(q.b)) - zero) * scale);
}

// q * scale + offset.
fn oct_affine(q: Codes, scale: f32, offset: f32) -> Oct {
    return Oct(vec4<f32>(unpack4xU8(q.a)) * scale + offset, vec4<f32>(unpack4xU8(q.b)) * scale + offset);
}

// Codes of two's complement bytes.
fn oct_signed(q: Codes, scale: f32) -> Oct {
    return Oct(vec4<f32>(unpack4xI8(q.a)) * scale, vec4<f32>(unpack4xI8(q.b)) * scale);
}
