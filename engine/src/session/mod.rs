//! (room of the engine; see the crate's documentation)
