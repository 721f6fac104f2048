//! The key of a permutation: a hash of the kernel's name and its complete options.

use crate::compose::Options;

/// 64-bit FNV-1a; the build script proves that no two permutations collide.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Key of `kernel` with `options` (complete, see `compose::complete`).
pub fn key(kernel: &str, options: &Options) -> u64 {
    let mut text = kernel.to_owned();
    for (name, value) in options {
        text.push_str(&format!("\0{name}={value}"));
    }
    hash(&text)
}
