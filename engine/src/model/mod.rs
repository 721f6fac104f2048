//! (room of the engine; see the crate's documentation)

pub mod rotate;
