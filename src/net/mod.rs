//! Sockets: listening addresses shared by the workers, bound, shared and closed without losing a connection, and each
//! worker's connections to endpoints; and single questions to servers outside.
//!
//! Refuses: HTTP semantics (that is `proxy`) and choosing endpoints (that is `pool`).

pub mod body;
pub mod duplex;
pub mod fetch;
#[cfg(test)]
mod fetch_tests;
pub mod listen;
pub mod proxy_protocol;
pub mod socket;
pub mod upstream;
