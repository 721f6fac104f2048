//! Checksums and the pseudo-random bytes that golden files are made of.

/// CRC-32 as zlib computes it (polynomial 0xEDB88320, reflected).
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// CRC-32 over little-endian f32, every NaN replaced by the canonical one.
pub fn crc32_f32(values: &[f32]) -> u32 {
    let bits = values.iter().map(|value| if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() });
    crc32(&bits.flat_map(u32::to_le_bytes).collect::<Vec<_>>())
}

/// The linear congruential generator of the golden files: `s = s·1664525 + 1013904223`, the upper bits first.
pub struct Lcg(pub u32);

impl Lcg {
    /// 32 bits. The low ones repeat early: take high ones.
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0
    }

    /// The golden files' byte.
    pub fn byte(&mut self) -> u8 {
        (self.bits() >> 24) as u8
    }

    /// A number below `bound`, which is at most 2^32.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = (u64::from(self.bits() >> 16) << 16) | u64::from(self.bits() >> 16);
        ((wide * bound as u64) >> 32) as usize
    }
}
