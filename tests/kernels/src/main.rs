//! The kernels' tests as a module for browsers: what it exports is in the library.

use tersor_kernel_tests as _;

fn main() {}
