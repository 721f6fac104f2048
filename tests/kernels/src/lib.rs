//! Every kernel against its CPU twin, on odd shapes, in every tier of the adapter at hand.
//!
//! The tests run twice. Natively they are this crate's unit tests: `cargo test -p tersor-kernel-tests`. For browsers the same
//! functions are exports of a wasm module that `cargo xtask test --only browser` runs in headless Chromium ([`turns`] says how a
//! test can wait there), since browsers refuse shaders that naga accepts, and compile them otherwise.

pub mod golden;
pub mod kernel;
pub mod turns;

#[cfg(any(test, target_family = "wasm"))]
mod tests {
    mod attention;
    mod blocks;
    mod calibrate;
    mod eval;
    mod hashing;
    mod linear;
    mod low_rank;
    mod norm;
    mod reduced;
    mod sample;
}
