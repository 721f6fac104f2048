// The heads of ggml's K-quants with 6-bit scales: 16 of them in 96 bits (layout: engine/src/codec/k_quant.rs).

// Six-bit values a and b of run r of a superblock: byte r of words x, y holds their low nibbles, bits 4r.. of z their high two bits.
fn six_bit_pair(head: vec4<u32>, r: u32) -> vec2<f32> {
    let low = select(head.x, head.y, r >= 4u) >> (8u * (r & 3u));
    let high = head.z >> (4u * r);
    return vec2<f32>(vec2<u32>((low & 15u) | ((high & 3u) << 4u), ((low >> 4u) & 15u) | ((high & 12u) << 2u)));
}
