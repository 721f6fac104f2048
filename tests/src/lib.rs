//! Shared helpers of the cross-crate tests.

pub mod browser;
pub mod checksum;
pub mod converted;
pub mod decoder;
pub mod families;
pub mod golden;
pub mod hostile;
pub mod models;
pub mod rewritten;
pub mod scratch;
pub mod side_by_side;
pub mod talk;

pub use tersor_kernel_tests::kernel;
