// Bit-sliced integer codes (layout: engine/src/codec/bits.rs). Weight 8o + 4h + i of a run sits in byte i of a word, so four codes
// come out of a word with one shift, one mask and one unpack.

// The four bytes of a word as numbers 0..255.
fn bytes_f32(word: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(word));
}

// The four bytes of a word as numbers -128..127.
fn signed_bytes_f32(word: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(word));
}

// Bytes of half h of a run's octet, from the word of the 4-bit plane that holds the octet.
fn slice4(word: u32, h: u32) -> u32 {
    return (word >> (4u * h)) & 0x0f0f0f0fu;
}

// The same from the word of the 2-bit plane that holds octet o (word o / 2 of the run).
fn slice2(word: u32, o: u32, h: u32) -> u32 {
    return (word >> (4u * (o & 1u) + 2u * h)) & 0x03030303u;
}

// The same from the word of the 1-bit plane (one word a run).
fn slice1(word: u32, o: u32, h: u32) -> u32 {
    return (word >> (2u * o + h)) & 0x01010101u;
}
