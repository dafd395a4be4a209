//! The operator's text made safe: TOML in, either a `Config` in which everything resolves, or a report of every
//! problem with its place, cause and remedy. Pure but for reading the named files and environment.
//!
//! The way: `files` reads, `tree` gives every value its place, `merge` puts includes in, `check` walks it against the
//! schema made from `raw`, `resolve` makes the `Config`; problems of all of them meet in a `Report` (`error`,
//! `render`). Refuses: to stop at the first problem, and to ignore a key it cannot obey.

mod check;
mod defaults;
pub mod durations;
mod effective;
mod env;
mod error;
mod files;
mod load;
mod merge;
mod path;
mod pem;
mod raw;
mod render;
mod resolve;
mod schema;
mod secure;
pub mod sizes;
mod suggest;
mod tree;
mod trust;
mod types;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_health;
#[cfg(test)]
mod tests_names;
#[cfg(test)]
mod tests_rollout;
#[cfg(test)]
mod tests_routes;
#[cfg(test)]
mod tests_secure;
#[cfg(test)]
mod tests_splits;

pub use effective::effective;
pub use error::{Code, Diagnostic, Place, Position, Report, Severity, Source};
pub use load::{Env, Loaded, check_text, find, load, load_ahead, read_digest, state_dir};
pub use render::Format;
pub use schema::schema;
pub use secure::*;
pub use types::*;
