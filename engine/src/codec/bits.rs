//! Bit-sliced codes: how the integer codes of a run lie in words.
//!
//! A run is 32 weights. Weight `e = 8·o + 4·h + i` (octet `o` in 0..4, half `h` in 0..2, `i` in 0..4) sits in byte `i`:
//!
//! | plane | words a run | word | shift inside the byte |
//! | --- | --- | --- | --- |
//! | 8 bit | 8 | 2·o + h | 0 |
//! | 4 bit | 4 | o | 4·h |
//! | 2 bit | 2 | o / 2 | 4·(o % 2) + 2·h |
//! | 1 bit | 1 | 0 | 2·o + h |
//!
//! so a shader gets four codes at once with one shift, one mask and `unpack4xU8`. Codes of 3, 5 and 6 bits are 2+1, 4+1 and
//! 4+2 bits: the low plane's words of a run come first, the high plane's words follow.

use super::RUN;

/// The widths of the planes that make up codes of `bits` bits, low bits first.
fn slices(bits: usize) -> &'static [usize] {
    match bits {
        1 => &[1],
        2 => &[2],
        3 => &[2, 1],
        4 => &[4],
        5 => &[4, 1],
        6 => &[4, 2],
        8 => &[8],
        // Widths are constants of the codecs of this room, each covered by tests.
        _ => unreachable!("no bit-sliced layout for {bits} bits"),
    }
}

/// Word and shift of weight `e` of a run in a plane of `width` bits.
fn place(width: usize, e: usize) -> (usize, usize) {
    let (o, h, i) = (e / 8, e / 4 % 2, e % 4);
    let bit = (2 * o + h) * width;
    // A byte holds 8 / width codes: `bit` counts through the bytes with index i of consecutive words.
    (bit / 8, bit % 8 + 8 * i)
}

/// Writes codes of `bits` bits, `bits` words for every 32 codes. Higher bits of the codes are ignored.
pub(super) fn pack(bits: usize, codes: &[u8], words: &mut [u32]) {
    for (run, words) in codes.chunks_exact(RUN).zip(words.chunks_exact_mut(bits)) {
        words.fill(0);
        let (mut low, mut first) = (0, 0);
        for &width in slices(bits) {
            let mask = (1u32 << width) - 1;
            for (e, &code) in run.iter().enumerate() {
                let (word, shift) = place(width, e);
                words[first + word] |= (u32::from(code) >> low & mask) << shift;
            }
            low += width;
            first += width;
        }
    }
}

/// Reads what [`pack`] wrote.
pub(super) fn unpack(bits: usize, words: &[u32], codes: &mut [u8]) {
    for (run, words) in codes.chunks_exact_mut(RUN).zip(words.chunks_exact(bits)) {
        run.fill(0);
        let (mut low, mut first) = (0, 0);
        for &width in slices(bits) {
            let mask = (1u32 << width) - 1;
            for (e, code) in run.iter_mut().enumerate() {
                let (word, shift) = place(width, e);
                *code |= ((words[first + word] >> shift & mask) << low) as u8;
            }
            low += width;
            first += width;
        }
    }
}

/// Splits bytes into nibbles as ggml's 4-bit blocks do: all low nibbles, then all high ones.
pub(super) fn split_nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((&byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

/// Undoes [`split_nibbles`]; bits above the fourth are ignored.
pub(super) fn join_nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(bytes.len());
    for ((byte, &low), &high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = low & 15 | high << 4;
    }
}

/// Adds the fifth bits of Q5_0 and Q5_1 (bit e of a little-endian u32) to codes of four bits.
pub(super) fn split_fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    for (e, code) in codes.iter_mut().enumerate() {
        *code |= (bytes[e / 8] >> (e % 8) & 1) << 4;
    }
}

/// Undoes [`split_fifth_bits`].
pub(super) fn join_fifth_bits(codes: &[u8], bytes: &mut [u8]) {
    bytes.fill(0);
    for (e, code) in codes.iter().enumerate() {
        bytes[e / 8] |= (code >> 4 & 1) << (e % 8);
    }
}

/// Splits bytes into pairs of bits as ggml's blocks of 256 do: 32 bytes hold 128 codes, pair j of all bytes before pair j + 1.
pub(super) fn split_bit_pairs(bytes: &[u8], codes: &mut [u8]) {
    for (e, code) in codes.iter_mut().enumerate() {
        *code = bytes[e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3;
    }
}

/// Undoes [`split_bit_pairs`]; bits above the second are ignored.
pub(super) fn join_bit_pairs(codes: &[u8], bytes: &mut [u8]) {
    bytes.fill(0);
    for (e, code) in codes.iter().enumerate() {
        bytes[e / 128 * 32 + e % 32] |= (code & 3) << (e % 128 / 32 * 2);
    }
}

/// Reads a little-endian f16.
pub(super) fn half(bytes: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Writes a little-endian f16, rounded to nearest even.
pub(super) fn put_half(bytes: &mut [u8], at: usize, value: f32) {
    bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
}

/// The f16 nearest to a value, as f32.
pub(super) fn round_half(value: f32) -> f32 {
    half::f16::from_f32(value).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of this module's documentation, read literally.
    #[test]
    fn codes_lie_where_the_table_says() {
        for bits in [1, 2, 3, 4, 5, 6, 8] {
            let codes: Vec<u8> = (0..64u32).map(|e| ((e * 167 + 13) >> 2) as u8 & ((1u32 << bits) - 1) as u8).collect();
            let mut words = vec![u32::MAX; 2 * bits];
            pack(bits, &codes, &mut words);
            for (e, &code) in codes.iter().enumerate() {
                let run = &words[e / 32 * bits..];
                let (o, h, i) = (e % 32 / 8, e / 4 % 2, e % 4);
                let byte = |word: usize| run[word] >> (8 * i) & 255;
                let found = match bits {
                    1 => byte(0) >> (2 * o + h) & 1,
                    2 => byte(o / 2) >> (4 * (o % 2) + 2 * h) & 3,
                    3 => (byte(o / 2) >> (4 * (o % 2) + 2 * h) & 3) | (byte(2) >> (2 * o + h) & 1) << 2,
                    4 => byte(o) >> (4 * h) & 15,
                    5 => (byte(o) >> (4 * h) & 15) | (byte(4) >> (2 * o + h) & 1) << 4,
                    6 => (byte(o) >> (4 * h) & 15) | (byte(4 + o / 2) >> (4 * (o % 2) + 2 * h) & 3) << 4,
                    _ => byte(2 * o + h),
                };
                assert_eq!(found, u32::from(code), "{bits} bits, weight {e}");
            }
            let mut back = vec![255; 64];
            unpack(bits, &words, &mut back);
            assert_eq!(back, codes, "{bits} bits");
        }
    }

    #[test]
    fn nibbles_round_trip() {
        let bytes: Vec<u8> = (0..16u8).map(|i| i.wrapping_mul(37).wrapping_add(11)).collect();
        let mut codes = [0; 32];
        split_nibbles(&bytes, &mut codes);
        assert_eq!((codes[0], codes[16]), (bytes[0] & 15, bytes[0] >> 4));
        let mut back = [0; 16];
        join_nibbles(&codes, &mut back);
        assert_eq!(back[..], bytes[..]);
    }
}
