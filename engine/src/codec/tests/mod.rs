//! Tests of the codec room as a whole; what only one file is about is tested in that file.

mod combinations;
mod entropy;
mod golden;
mod pieces;
mod properties;
mod quality;

/// The pseudo-random sequence that golden data is made of: state · 1664525 + 1013904223, the upper 16 bits.
pub(super) struct Lcg(u32);

impl Lcg {
    pub(super) fn new(seed: u32) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0
    }

    pub(super) fn byte(&mut self) -> u8 {
        (self.next() >> 24) as u8
    }

    pub(super) fn u16(&mut self) -> u16 {
        (self.next() >> 16) as u16
    }

    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }

    /// Nearly normal, exact in f32: the sum of twelve uniform numbers.
    pub(super) fn gaussian(&mut self) -> f32 {
        let sum: i32 = (0..12).map(|_| i32::from(self.u16())).sum();
        (sum - 393_210) as f32 / 65_536.0
    }
}

/// Σ (w − y)² / Σ w².
pub(super) fn nmse(weights: &[f32], decoded: &[f32]) -> f64 {
    let error: f64 = weights.iter().zip(decoded).map(|(&w, &y)| (f64::from(w) - f64::from(y)).powi(2)).sum();
    error / weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>()
}
