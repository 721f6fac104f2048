//! Shared helpers of the cross-crate tests.

pub mod checksum;
pub mod hostile;
pub mod kernel;
pub mod models;
pub mod scratch;
