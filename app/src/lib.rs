//! tersor's program: the command line, and where it gets models from.
//!
//! The engine never fetches and never prints; this crate does. It talks to the engine through its session.

pub mod cli;
pub mod fetch;
pub mod report;
pub mod table;
pub mod units;
