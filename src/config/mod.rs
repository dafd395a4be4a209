//! The operator's text made safe: TOML in, either a `Config` in which everything resolves, or a report of every
//! problem with its place, cause and remedy. Pure but for reading the named files and environment.

mod types;

pub use types::*;
