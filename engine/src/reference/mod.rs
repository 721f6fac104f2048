//! Plain Rust twins of the kernels, written for reading: f64, no tricks. Tests hold the GPU against them.

pub mod linear;
