//! Plain Rust twins of the kernels: the formulas in f64, written for reading. Tests hold the GPU to them.
//!
//! In and out: slices of f32, row-major and tight, as the kernels see them. Shapes that do not fit panic: callers are tests.

pub mod attention;
pub mod blocks;
pub mod elementwise;
pub mod hashing;
pub mod linear;
pub mod metrics;
pub mod moments;
pub mod norm;
pub mod probe;
pub mod rans64;
pub mod reduced;
pub mod rope;
pub mod sample;

/// ‖actual − expected‖² / ‖expected‖²: how kernel tests measure error. 0 for two zeros, infinite if the lengths differ or something
/// is not a number.
pub fn nmse(actual: &[f32], expected: &[f64]) -> f64 {
    if actual.len() != expected.len() || actual.iter().any(|a| !a.is_finite()) {
        return f64::INFINITY;
    }
    let error: f64 = actual.iter().zip(expected).map(|(a, e)| (f64::from(*a) - e).powi(2)).sum();
    let energy: f64 = expected.iter().map(|e| e * e).sum();
    if error == 0.0 { 0.0 } else { error / energy }
}
