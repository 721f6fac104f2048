//! NF4 of QLoRA (arXiv 2305.14314): 16 quantiles of a normal distribution, zero among them. Planes and scales: [`super::absmax`].

use super::absmax::Codebook;

pub(super) static NF4: Codebook = Codebook { name: "nf4", values: VALUES, nearest };

const VALUES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Midpoints of neighbouring values, as bitsandbytes' kernel spells them.
const THRESHOLDS: [f32; 15] = [
    -0.848_096_4,
    -0.610_632_9,
    -0.459_995_27,
    -0.339_679_43,
    -0.234_607_41,
    -0.137_911_73,
    -0.045_525_02,
    0.039_790_15,
    0.120_255_25,
    0.203_521_25,
    0.292_013_77,
    0.389_312_54,
    0.501_663_4,
    0.642_786_9,
    0.861_478_4,
];

/// The number of thresholds below `x`.
fn nearest(x: f32) -> u8 {
    THRESHOLDS.iter().map(|&threshold| u8::from(x > threshold)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::parse;

    #[test]
    fn codebook_has_the_bits_of_the_paper() {
        let bits = [
            0xbf800000u32,
            0xbf3239b1,
            0xbf066b30,
            0xbeca32a0,
            0xbe91a24d,
            0xbe3d353f,
            0xbdba7871,
            0,
            0x3da2faff,
            0x3e24cae3,
            0x3e7c04dd,
            0x3ead033a,
            0x3ee1a4b8,
            0x3f1007ab,
            0x3f3913b3,
            0x3f800000,
        ];
        assert_eq!(VALUES.map(f32::to_bits), bits);
        for (i, threshold) in THRESHOLDS.into_iter().enumerate() {
            assert!((threshold - (VALUES[i] + VALUES[i + 1]) / 2.0).abs() < 1e-7);
        }
    }

    /// Codes of bitsandbytes for a ramp of 64 weights from −1 to 1.
    #[test]
    fn ramp_of_bitsandbytes() {
        let ramp: Vec<f32> = (0..64).map(|e| (e as f32 - 31.5) / 31.5).collect();
        for recipe in ["nf4:block=64", "nf4:block=64,double=off"] {
            let decoded = parse(recipe).unwrap().encode(&ramp, 1, 64).unwrap().decode();
            let codes: Vec<usize> = decoded.iter().map(|w| VALUES.iter().position(|v| v == w).unwrap()).collect();
            assert_eq!(codes[..8], [0, 0, 0, 0, 0, 1, 1, 1]);
            let counts: Vec<usize> = (0..16).map(|q| codes.iter().filter(|&&code| code == q).count()).collect();
            assert_eq!(counts, [5, 8, 5, 3, 4, 3, 3, 2, 3, 2, 3, 3, 4, 4, 7, 5]);
        }
    }
}
