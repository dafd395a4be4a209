//! Sockets: listening addresses shared by the workers, and each worker's connections to endpoints.
//!
//! Refuses: HTTP semantics (that is `proxy`) and choosing endpoints (that is `pool`).

pub mod upstream;
